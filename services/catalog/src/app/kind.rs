//! Kinds.

use pavior_resource::crud::{LOOK_FOR, MAX_NAMED, refuse_dependents};
use pavior_resource::{Rules, Work};

use super::entity::declare;
use super::{App, db};
use crate::domain::reference::EntityKey;
use crate::domain::{KindFields, Stored};
use crate::error::Error;

/// How many entities are read at once when their kind changes.
const BATCH: u64 = 500;

impl Rules for KindFields {
    type Service = App;

    async fn admit(
        _work: &Work<'_, App>,
        before: Option<&Stored<Self>>,
        _after: &Stored<Self>,
    ) -> Result<(), Error> {
        match before {
            Some(before) if before.fields.built_in => Err(Error::BuiltIn { name: before.name() }),
            _ => Ok(()),
        }
    }

    async fn written(
        work: &Work<'_, App>,
        before: Option<&Stored<Self>>,
        after: Option<&Stored<Self>>,
    ) -> Result<(), Error> {
        match (before, after) {
            (Some(before), Some(after))
                if before.fields.spec_schema != after.fields.spec_schema
                    || before.fields.relation_rules != after.fields.relation_rules =>
            {
                recheck_entities(work, after).await
            }
            _ => Ok(()),
        }
    }

    async fn dependents(work: &Work<'_, App>, stored: &Stored<Self>) -> Result<Vec<String>, Error> {
        if stored.fields.built_in {
            return Err(Error::BuiltIn { name: stored.name() });
        }
        let ids =
            work.rows().ids_below::<crate::domain::EntityFields>(work.permit, &stored.id, LOOK_FOR).await?;
        Ok(ids.into_iter().map(|id| EntityKey::new(&*stored.id, id).name(&stored.organization)).collect())
    }
}

/// Checks every entity of a kind that changed against its new schema, and writes the relations of its new rules.
async fn recheck_entities(work: &Work<'_, App>, kind: &Stored<KindFields>) -> Result<(), Error> {
    let mut last = String::new();
    let mut invalid = Vec::new();
    loop {
        let entities = db(work).entities_of_kind(work.permit, &kind.id, &last, BATCH).await?;
        let Some(end) = entities.last() else { break };
        last.clone_from(&end.id);
        let mut valid = Vec::new();
        for entity in &entities {
            let fits = pavior_expr::schema::validate(kind.fields.spec_schema.value(), &entity.fields.spec)
                .is_empty();
            match entity.fields.edges(&entity.organization, &entity.id, &kind.fields) {
                Ok(edges) if fits => valid.push((entity.clone(), edges)),
                _ => invalid.push(entity.name()),
            }
        }
        if invalid.len() > MAX_NAMED {
            break;
        }
        declare(work, &valid).await?;
    }
    Ok(refuse_dependents(kind, invalid)?)
}
