//! Plans that take things down. They follow what is recorded, never the template, which may be gone.

use std::collections::BTreeMap;

use super::entry::Entry;
use super::graph;
use super::names;
use super::plan::{Action, Change, Spec};

/// A resource as it is recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// Its resource name.
    pub name: String,
    /// Its type, by resource name.
    pub resource_type: String,
    /// The definition that made it, by resource name.
    pub resource_definition: String,
    /// The id of the driver that made it.
    pub driver: String,
    /// The version of that driver now.
    pub driver_version: String,
    /// The resources that it was made after, by resource name.
    pub depends_on: Vec<String>,
    /// What it costs a month.
    pub monthly_cost: String,
    /// What it was told.
    pub spec: Spec,
    /// The driver's name of it; empty when it never came to be.
    pub identity: String,
}

impl Recorded {
    /// The entry of the catalog that it is.
    fn entry(&self) -> Option<Entry> {
        let entry = self.driver == names::ENTITY_DRIVER && !self.identity.is_empty();
        entry.then(|| Entry { before: self.identity.clone(), ..Entry::default() })
    }
}

/// The step that works on a resource, by the resource's name.
pub fn step_id(resource: &str) -> String {
    let environment = names::environment_of(resource);
    let id = names::last(resource);
    if environment.is_empty() { id.to_owned() } else { format!("{}.{id}", names::last(&environment)) }
}

/// One deletion for each resource, each after everything that was made after it.
pub fn plan(recorded: &[Recorded]) -> Result<Vec<Change>, graph::Cycle> {
    let mut first: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for resource in recorded {
        for dep in &resource.depends_on {
            first.entry(dep.as_str()).or_default().push(step_id(&resource.name));
        }
    }
    let changes: Vec<Change> = recorded
        .iter()
        .map(|resource| Change {
            step: step_id(&resource.name),
            resource: resource.name.clone(),
            resource_type: resource.resource_type.clone(),
            resource_definition: resource.resource_definition.clone(),
            driver: resource.driver.clone(),
            driver_version: resource.driver_version.clone(),
            action: Action::Delete,
            fields: Vec::new(),
            depends_on: first.get(resource.name.as_str()).cloned().unwrap_or_default(),
            undoable: false,
            monthly_cost: resource.monthly_cost.clone(),
            spec: resource.spec.clone(),
            entry: resource.entry(),
            drift: None,
        })
        .collect();
    let steps: Vec<String> = changes.iter().map(|change| change.step.clone()).collect();
    let deps: Vec<Vec<String>> = changes.iter().map(|change| change.depends_on.clone()).collect();
    let order = graph::topological(&steps, &deps)?;
    Ok(order.into_iter().filter_map(|index| changes.get(index).cloned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(name: &str, depends_on: &[&str]) -> Recorded {
        let full = |path: &str| format!("organizations/acme/projects/p/{path}");
        Recorded {
            name: full(name),
            resource_type: String::new(),
            resource_definition: String::new(),
            driver: "fake".into(),
            driver_version: "1".into(),
            depends_on: depends_on.iter().map(|dep| full(dep)).collect(),
            monthly_cost: String::new(),
            spec: Spec::default(),
            identity: String::new(),
        }
    }

    #[test]
    fn what_was_made_last_goes_first() {
        let changes = plan(&[
            recorded("resources/repository", &[]),
            recorded("environments/dev/resources/db", &["resources/repository"]),
            recorded(
                "environments/dev/resources/workload",
                &["environments/dev/resources/db", "resources/gone"],
            ),
        ])
        .unwrap();
        let steps: Vec<_> = changes.iter().map(|change| change.step.as_str()).collect();
        assert_eq!(steps, ["dev.workload", "dev.db", "repository"]);
        assert_eq!(changes[1].depends_on, ["dev.workload"]);
        assert!(changes.iter().all(|change| !change.undoable && change.action == Action::Delete));
    }
}
