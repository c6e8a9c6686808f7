//! Entities.

use pavior_core::Fault;
use std::collections::{BTreeMap, BTreeSet};

use pavior_auth::Permit;
use pavior_resource::crud::{self, LOOK_FOR};
use pavior_resource::{
    Create, Delete, Done, Error as ResourceError, ListQuery, Named, Rules, Table, Update, Work,
};
use uuid::Uuid;

use super::{App, db};
use crate::domain::entity::{Edge, SeenRelation};
use crate::domain::reference::{EntityKey, GROUP};
use crate::domain::text::nearest;
use crate::domain::violation_path;
use crate::domain::{EntityFields, GroupFields, KindFields, Stored, UserFields, Violations};
use crate::error::Error;
use crate::json::Json;

/// Most relations of one page of entities: as many as twenty entities may declare.
const MAX_RELATIONS: u64 = 20_000;

impl Rules for EntityFields {
    type Service = App;

    async fn admit(
        work: &Work<'_, App>,
        before: Option<&Stored<Self>>,
        after: &Stored<Self>,
    ) -> Result<(), Error> {
        let kind = kind_of(work, &after.fields).await?;
        let mut violations = Violations::new();
        for problem in pavior_expr::schema::validate(kind.fields.spec_schema.value(), &after.fields.spec) {
            violations.add(violation_path("spec", &problem.path), Fault::Schema, problem.message);
        }
        if let Err(more) = after.fields.edges(&after.organization, &after.id, &kind.fields) {
            violations.extend_under("", more);
        }
        // Policy decided on `owner` of the envelope, so `spec` must not introduce another one.
        if let Some((field, owner)) = after.fields.owner_within(&after.organization, &kind.fields) {
            let text = format!("must be given where `spec.{field}` names an owner: `{owner}`");
            violations.add("owner", Fault::Conflict, text);
        }
        violations.into_result().map_err(|v| Error::from(pavior_resource::Error::invalid::<Self>(v)))?;
        if before.is_some_and(|before| before.fields.owner == after.fields.owner) {
            return Ok(());
        }
        owner_exists(work, after).await
    }

    async fn written(
        work: &Work<'_, App>,
        before: Option<&Stored<Self>>,
        after: Option<&Stored<Self>>,
    ) -> Result<(), Error> {
        let Some(after) = after else {
            let gone: Vec<_> = before.iter().map(|before| before.uid).collect();
            return Ok(db(work).end_declared(work.permit, &gone).await?);
        };
        let kind = kind_of(work, &after.fields).await?;
        let edges = after.fields.edges(&after.organization, &after.id, &kind.fields);
        let edges = edges.map_err(|v| Error::from(pavior_resource::Error::invalid::<Self>(v)))?;
        declare(work, &[(after.clone(), edges)]).await
    }

    async fn dependents(work: &Work<'_, App>, stored: &Stored<Self>) -> Result<Vec<String>, Error> {
        let key = EntityKey::new(&*stored.fields.kind, &*stored.id);
        let dependents = db(work).dependents(work.permit, &key, None, LOOK_FOR).await?;
        Ok(dependents.into_iter().map(|key| key.name(&stored.organization)).collect())
    }
}

/// An entity with the relations that it declares.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct EntityView {
    pub(crate) stored: Stored<EntityFields>,
    pub(crate) relations: Vec<SeenRelation>,
}

/// Creates an entity.
pub(crate) async fn create_entity(
    work: &Work<'_, App>,
    command: &Create<EntityFields>,
) -> Result<Done<EntityView>, Error> {
    view(work, crud::create(work, command).await?).await
}

/// Changes an entity, or makes it where that is allowed. Of one that a project manages, what the project sets is left to
/// the project.
pub(crate) async fn update_entity(
    work: &Work<'_, App>,
    command: &Update,
    allow_missing: bool,
    merge: impl Fn(Option<&Stored<EntityFields>>) -> Result<EntityFields, Error> + Send + Sync,
) -> Result<Done<EntityView>, Error> {
    let merge = |before: Option<&Stored<EntityFields>>| {
        let after = merge(before)?;
        if let Some(before) = before.filter(|before| !before.fields.same_declaration(&after)) {
            refuse_managed(before)?;
        }
        Ok(after)
    };
    view(work, crud::upsert(work, command, allow_missing, merge).await?).await
}

/// Deletes an entity, and gives it as it was.
pub(crate) async fn delete_entity(
    work: &Work<'_, App>,
    command: &Delete,
) -> Result<Done<Option<EntityView>>, Error> {
    // The relations that it declares are deleted with it, so they are read before.
    let relations = match work.find::<EntityFields>(&command.parent, &command.id).await? {
        Some(there) => {
            refuse_managed(&there)?;
            relations(work, &there).await?
        }
        None => Vec::new(),
    };
    let Done { value, entries } = crud::delete::<EntityFields>(work, command).await?;
    Ok(Done { value: value.map(|stored| EntityView { stored, relations }), entries })
}

fn refuse_managed(entity: &Stored<EntityFields>) -> Result<(), Error> {
    match entity.fields.managed_by() {
        Some(resource) => Err(Error::Managed(vec![(entity.name(), resource.to_owned())])),
        None => Ok(()),
    }
}

/// An entity that was written, with its relations.
pub(super) async fn view(
    work: &Work<'_, App>,
    done: Done<Stored<EntityFields>>,
) -> Result<Done<EntityView>, Error> {
    let Done { value: stored, entries } = done;
    let relations = relations(work, &stored).await?;
    Ok(Done { value: EntityView { stored, relations }, entries })
}

async fn relations(work: &Work<'_, App>, stored: &Stored<EntityFields>) -> Result<Vec<SeenRelation>, Error> {
    let mut found = db(work).declared(work.permit, &[stored.uid]).await?;
    Ok(found.remove(&stored.uid).unwrap_or_default().into_iter().collect())
}

/// Replaces the relations and facets of entities.
pub(super) async fn declare(
    work: &Work<'_, App>,
    entities: &[(Stored<EntityFields>, BTreeSet<Edge>)],
) -> Result<(), Error> {
    let uids: Vec<_> = entities.iter().map(|(entity, _)| entity.uid).collect();
    db(work).clear_declared(work.permit, &uids).await?;
    let borrowed: Vec<_> = entities.iter().map(|(entity, edges)| (entity, edges)).collect();
    Ok(db(work).insert_declared(work.permit, &borrowed).await?)
}

async fn kind_of(work: &Work<'_, App>, fields: &EntityFields) -> Result<Stored<KindFields>, Error> {
    let kind = work.find::<KindFields>("", &fields.kind).await?;
    let name = format!("organizations/{}/kinds/{}", work.permit.organization(), fields.kind);
    Ok(kind.ok_or_else(|| ResourceError::not_found::<KindFields>(&name))?)
}

/// Refuses an owner that does not exist: whoever created a group of that name later would own the entity.
async fn owner_exists(work: &Work<'_, App>, entity: &Stored<EntityFields>) -> Result<(), Error> {
    let owner = &entity.fields.owner;
    let Some(id) = owner.rsplit('/').next().filter(|_| !owner.is_empty()) else { return Ok(()) };
    let found = if owner.contains("/users/") {
        work.find::<UserFields>("", id).await?.is_some()
    } else {
        work.find::<GroupFields>("", id).await?.is_some()
    };
    if found {
        return Ok(());
    }
    let nearest = if owner.contains("/groups/") {
        let groups = db(work).group_parents(work.permit).await?;
        nearest(id, groups.keys()).map(|id| EntityKey::new(GROUP, id).name(&entity.organization))
    } else {
        None
    };
    Err(Error::NoOwner { owner: owner.clone(), nearest })
}

/// A page of entities with their relations.
#[derive(Debug)]
pub(crate) struct EntityPage {
    pub(crate) views: Vec<EntityView>,
    pub(crate) positions: Vec<Json>,
    /// How many entities there are on all pages, when that was asked.
    pub(crate) total: Option<u64>,
    /// The page was cut short because its entities have as many relations as a page may have.
    pub(crate) cut: bool,
}

impl App {
    /// Returns an entity with its relations.
    pub(crate) async fn get_entity(
        &self,
        permit: &Permit,
        kind: &str,
        id: &str,
        name: &str,
    ) -> Result<EntityView, Error> {
        let stored = crud::get::<EntityFields>(self, permit, kind, id, name).await?;
        let views = self.with_relations(permit, vec![stored]).await?;
        let not_found = || ResourceError::not_found::<EntityFields>(name);
        Ok(views.into_iter().next().ok_or_else(not_found)?)
    }

    /// Returns several entities in the order asked for, or fails as a whole.
    pub(crate) async fn batch_get_entities(
        &self,
        permit: &Permit,
        keys: &[EntityKey],
    ) -> Result<Vec<EntityView>, Error> {
        let distinct: BTreeSet<&EntityKey> = keys.iter().collect();
        let distinct: Vec<EntityKey> = distinct.into_iter().cloned().collect();
        let found = self.read().entities_by_key(permit, &distinct).await?;
        let views = self.with_relations(permit, found).await?;
        let by_key: BTreeMap<(&str, &str), &EntityView> =
            views.iter().map(|v| ((v.stored.fields.kind.as_str(), v.stored.id.as_str()), v)).collect();
        let wanted = |key: &EntityKey| {
            let found = by_key.get(&(key.kind.as_str(), key.id.as_str())).copied().cloned();
            let name = key.name(permit.organization());
            found.ok_or_else(|| Error::from(ResourceError::not_found::<EntityFields>(&name)))
        };
        keys.iter().map(wanted).collect()
    }

    /// A page of the relations of an entity, those that others declare of it included. Each comes with its position, and
    /// all with how many there are on all pages, when that was asked.
    pub(crate) async fn list_relations(
        &self,
        permit: &Permit,
        entity: &Named,
        query: &ListQuery,
    ) -> Result<(Vec<(SeenRelation, Json)>, Option<u64>), Error> {
        let Named { parent: kind, id, name } = entity;
        let stored = crud::get::<EntityFields>(self, permit, kind, id, name).await?;
        let reader = self.read();
        let total = match query.count {
            true => Some(reader.count_relations(permit, &stored).await?),
            false => None,
        };
        let found = reader.relations_after(permit, &stored, query.after.as_ref(), query.limit).await;
        Ok((found.map_err(ResourceError::from)?, total))
    }

    /// Lists entities with their relations: a query for the page, and two for each chunk of it. The page ends where it
    /// would have too many relations.
    pub(crate) async fn list_entities(
        &self,
        permit: &Permit,
        query: &ListQuery,
    ) -> Result<EntityPage, Error> {
        let mut listing = crud::list::<EntityFields>(self, permit, query).await?;
        let uids: Vec<_> = listing.rows.iter().map(|stored| stored.uid).collect();
        let counts = self.read().count_declared(permit, &uids).await?;
        let mut total = 0;
        let fits = |uid: &&Uuid| {
            total += counts.get(*uid).copied().unwrap_or_default();
            total <= MAX_RELATIONS
        };
        let fitting = uids.iter().take_while(fits).count().max(1);
        let cut = fitting < listing.rows.len();
        listing.rows.truncate(fitting);
        let views = self.with_relations(permit, listing.rows).await?;
        Ok(EntityPage { views, positions: listing.positions, total: listing.total, cut })
    }

    async fn with_relations(
        &self,
        permit: &Permit,
        entities: Vec<Stored<EntityFields>>,
    ) -> Result<Vec<EntityView>, Error> {
        if entities.is_empty() {
            return Ok(Vec::new());
        }
        let uids: Vec<_> = entities.iter().map(|stored| stored.uid).collect();
        let mut relations = self.read().declared(permit, &uids).await?;
        let view = |stored: Stored<EntityFields>| EntityView {
            relations: relations.remove(&stored.uid).unwrap_or_default().into_iter().collect(),
            stored,
        };
        Ok(entities.into_iter().map(view).collect())
    }
}

/// The first entities that a group or user owns, or that declare another relation to it.
pub(super) async fn related<T: Table>(
    work: &Work<'_, App>,
    kind: &str,
    stored: &Stored<T>,
) -> Result<Vec<String>, Error> {
    let key = EntityKey::new(kind, stored.id.as_str());
    let entities = db(work).dependents(work.permit, &key, None, LOOK_FOR).await?;
    Ok(entities.iter().map(|entity| entity.name(&stored.organization)).collect())
}
