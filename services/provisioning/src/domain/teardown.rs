//! Plans that take things down. They follow what is recorded, never the template, which may be gone.

use std::collections::BTreeMap;

use super::entry::Entry;
use super::plan::{Action, Change, Spec};
use super::{graph, names};

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

    /// Whether it is what drivers call by this name where they say who needs something.
    fn is_called(&self, name: &str) -> bool {
        match self.driver.as_str() {
            names::ENTITY_DRIVER => names::entity_of(&self.identity).0 == name,
            _ => self.identity == name,
        }
    }
}

/// The step that works on a resource, by the resource's name.
pub fn step_id(resource: &str) -> String {
    let environment = names::environment_of(resource);
    let id = names::last(resource);
    if environment.is_empty() { id.to_owned() } else { format!("{}.{id}", names::last(&environment)) }
}

/// What its driver refuses to destroy as long as something needs it, by resource name, with what does so now by the names
/// that drivers give it.
pub type Holds = BTreeMap<String, Vec<String>>;

/// What would be destroyed and is needed by something that stays, with that.
pub fn held<'a>(recorded: &'a [Recorded], holds: &'a Holds) -> Vec<(&'a str, &'a str)> {
    let goes = |name: &str| recorded.iter().any(|resource| resource.is_called(name));
    let all = holds.iter().flat_map(|(held, by)| by.iter().map(|by| (held.as_str(), by.as_str())));
    all.filter(|(_, by)| !goes(by)).collect()
}

/// One deletion for each resource, each after everything that was made after it, and after everything that may refuse:
/// what is gone does not come back.
pub fn plan(recorded: &[Recorded], holds: &Holds) -> Result<Vec<Change>, graph::Cycle> {
    let mut first: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for resource in recorded {
        for dep in &resource.depends_on {
            first.entry(dep.as_str()).or_default().push(step_id(&resource.name));
        }
    }
    let mut changes: Vec<Change> = recorded
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
    refusable_first(&mut changes, recorded, &steps, holds);
    let deps: Vec<Vec<String>> = changes.iter().map(|change| change.depends_on.clone()).collect();
    let order = graph::topological(&steps, &deps)?;
    Ok(order.into_iter().filter_map(|index| changes.get(index).cloned()).collect())
}

/// Puts what needs something before that, and what may refuse before everything else, where what was made of what leaves
/// a choice.
fn refusable_first(changes: &mut [Change], recorded: &[Recorded], steps: &[String], holds: &Holds) {
    let at = |step: &String| steps.iter().position(|other| other == step);
    let mut deps: Vec<Vec<usize>> =
        changes.iter().map(|change| change.depends_on.iter().filter_map(at).collect()).collect();
    let refusable: Vec<usize> =
        (0..recorded.len()).filter(|index| holds.contains_key(&recorded[*index].name)).collect();
    let mut pairs = Vec::new();
    for index in &refusable {
        let by = holds.get(&recorded[*index].name).into_iter().flatten();
        pairs.extend(
            by.filter_map(|by| recorded.iter().position(|other| other.is_called(by))).map(|by| (by, *index)),
        );
    }
    for index in &refusable {
        let others = (0..recorded.len()).filter(|other| !refusable.contains(other));
        pairs.extend(others.map(|other| (*index, other)));
    }
    for (first, then) in pairs {
        let waits =
            first == then || deps[then].contains(&first) || graph::ancestors(first, &deps).contains(&then);
        if !waits {
            deps[then].push(first);
            changes[then].depends_on.push(steps[first].clone());
        }
    }
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
        let all = [
            recorded("resources/repository", &[]),
            recorded("environments/dev/resources/db", &["resources/repository"]),
            recorded(
                "environments/dev/resources/workload",
                &["environments/dev/resources/db", "resources/gone"],
            ),
        ];
        let changes = plan(&all, &Holds::new()).unwrap();
        let steps: Vec<_> = changes.iter().map(|change| change.step.as_str()).collect();
        assert_eq!(steps, ["dev.workload", "dev.db", "repository"]);
        assert_eq!(changes[1].depends_on, ["dev.workload"]);
        assert!(changes.iter().all(|change| !change.undoable && change.action == Action::Delete));
    }

    #[test]
    fn what_may_refuse_goes_before_what_does_not_come_back() {
        let entity = |name: &str, depends_on: &[&str]| Recorded {
            driver: names::ENTITY_DRIVER.to_owned(),
            // It is needed by its name, and recorded with its uid.
            identity: names::entity_identity(&format!("entity-of-{}", names::last(name)), "uid"),
            ..recorded(name, depends_on)
        };
        let all = [
            recorded("resources/repository", &[]),
            entity("resources/api", &["resources/repository"]),
            entity("resources/entry", &[]),
            recorded("environments/dev/resources/db", &[]),
            recorded("environments/dev/resources/workload", &["environments/dev/resources/db"]),
            entity("resources/late", &["environments/dev/resources/workload"]),
        ];
        let full = |id: &str| format!("organizations/acme/projects/p/resources/{id}");
        let mut holds: Holds = ["api", "entry", "late"].map(|id| (full(id), Vec::new())).into();
        holds.insert(full("api"), vec!["entity-of-entry".to_owned()]);
        assert_eq!(held(&all, &holds), []);
        let changes = plan(&all, &holds).unwrap();
        let steps: Vec<_> = changes.iter().map(|change| change.step.as_str()).collect();
        assert_eq!(steps, ["entry", "api", "late", "repository", "dev.workload", "dev.db"]);
        let after =
            |step: &str| changes.iter().find(|change| change.step == step).unwrap().depends_on.clone();
        assert_eq!(after("api"), ["entry"]);
        assert_eq!(after("dev.workload"), ["late", "api", "entry"]);

        // Somebody else's.
        holds.insert(full("entry"), vec!["entity-of-others".to_owned()]);
        assert_eq!(held(&all, &holds), [(full("entry").as_str(), "entity-of-others")]);
    }
}
