//! The artifacts that are needed, for the platform itself: whatever a kept run, a kept deployment, a resource or an
//! operation that is not over speaks of.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::domain::operation::OperationState;
use crate::store::entity::{deployment, operation, resource, run, step};
use crate::store::prelude::*;

/// Digits of a SHA-256 in hexadecimal.
const DIGITS: usize = 64;

impl Db {
    /// The digests of all artifacts that are needed; nothing can be told while the histories are not known to fit:
    /// a database that was set back does not know what was made since.
    pub async fn kept_artifacts_unscoped(&self) -> Result<Option<BTreeSet<String>>> {
        if !self.history().fits() {
            return Ok(None);
        }
        let mut open = operation::Entity::find()
            .select_only()
            .column(operation::Column::Id)
            .filter(operation::Column::State.is_not_in(OperationState::DONE));
        let steps = step::Entity::find()
            .select_only()
            .columns([step::Column::Spec, step::Column::Outputs, step::Column::Prior])
            .filter(step::Column::Operation.in_subquery(QuerySelect::query(&mut open).to_owned()));
        let reader = self.store.read();
        // Operations first: what one of them makes is recorded by the time that it ends.
        let steps: Vec<(Value, Option<Value>, Option<Value>)> = steps.into_tuple().all(reader).await?;
        let resources = resource::Entity::find().select_only();
        let resources = resources.columns([resource::Column::Spec, resource::Column::Inputs]);
        let resources: Vec<(Value, Value)> = resources.into_tuple().all(reader).await?;
        let deployments = deployment::Entity::find().select_only().column(deployment::Column::Artifact);
        let deployments: Vec<Value> = deployments.into_tuple().all(reader).await?;
        let runs = run::Entity::find().select_only().column(run::Column::Artifacts);
        let runs: Vec<Value> = runs.into_tuple().all(reader).await?;
        let mut kept = BTreeSet::new();
        let of_step = |(spec, outputs, prior): (Value, Option<Value>, Option<Value>)| {
            [Some(spec), outputs, prior].into_iter().flatten()
        };
        let steps = steps.into_iter().flat_map(of_step);
        let resources = resources.into_iter().flat_map(|(spec, inputs)| [spec, inputs]);
        for value in steps.chain(resources).chain(deployments).chain(runs) {
            digests(&value, &mut kept);
        }
        Ok(Some(kept))
    }
}

/// Everything in a value that could be a digest, whether it stands alone or in a path.
fn digests(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => {
            let words = text.split(|c: char| !matches!(c, '0'..='9' | 'a'..='f'));
            found.extend(words.filter(|word| word.len() == DIGITS).map(str::to_owned));
        }
        Value::Array(items) => items.iter().for_each(|item| digests(item, found)),
        Value::Object(map) => map.values().for_each(|item| digests(item, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn digests_are_found_wherever_they_stand() {
        let (one, two) = ("a".repeat(64), "0".repeat(64));
        let value = json!({
            "artifact": { "sha256": one, "size": 64 },
            "command": [format!("/data/artifacts/acme/p/sha256/{two}/app"), "b".repeat(63), "c".repeat(65)],
        });
        let mut found = BTreeSet::new();
        digests(&value, &mut found);
        assert_eq!(found, BTreeSet::from([two, one]));
    }
}
