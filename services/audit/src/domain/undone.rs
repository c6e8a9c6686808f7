//! What a database that was set back does not know of, by name.

use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};

use pavior_core::audit::AuditEvent;

/// How many resources of a kind are named.
const NAMED: usize = 20;

/// What was done to the resources of one kind in one log: to them, or along with others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undone {
    /// The log.
    pub log: String,
    /// Their type, for example `policy.pavior.dev/Role`.
    pub kind: String,
    /// The first of them by name; at most 20.
    pub resources: Vec<UndoneResource>,
    /// How many there are.
    pub count: u64,
}

/// What was done to a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UndoneResource {
    /// Its resource name.
    pub name: String,
    /// What was done, each once, in the order in which it was first done: `roles.create`, `deployments.create`. What was
    /// done to a resource is not always about it alone: a deployment is of its environment.
    pub done: Vec<String>,
}

/// Collects what was done, in the order of logs, kinds, names and places.
#[derive(Debug, Default)]
pub(crate) struct UndoneList {
    kinds: Vec<Undone>,
    last: String,
}

impl UndoneList {
    pub(crate) fn note(&mut self, log: String, kind: String, name: String, action: &str) {
        let same_kind = self.kinds.last().is_some_and(|last| last.log == log && last.kind == kind);
        let is_new = !same_kind || self.last != name;
        if !same_kind {
            self.kinds.push(Undone { log, kind, resources: Vec::new(), count: 0 });
        }
        let Some(Undone { resources, count, .. }) = self.kinds.last_mut() else { return };
        *count += u64::from(is_new);
        if is_new && resources.len() < NAMED {
            resources.push(UndoneResource { name: name.clone(), done: Vec::new() });
        }
        let verb = verb(action);
        let named = resources.last_mut().filter(|resource| resource.name == name);
        if let Some(resource) = named.filter(|resource| !resource.done.iter().any(|done| done == verb)) {
            resource.done.push(verb.to_owned());
        }
        self.last = name;
    }

    pub(crate) fn into_inner(self) -> Vec<Undone> {
        self.kinds
    }
}

/// Resources of one kind in one log.
#[derive(Debug, Default)]
struct Along {
    /// The first of them by name, with what was done.
    named: BTreeMap<String, Vec<String>>,
    /// A hash of each name.
    seen: HashSet<u64>,
}

/// Collects what was done to resources along with another: memberships end with their group. Of each name no more is kept
/// than tells it from the others, but for those that are named.
#[derive(Debug, Default)]
pub(crate) struct UndoneAlong {
    /// By log and type.
    kinds: BTreeMap<(String, String), Along>,
    hasher: RandomState,
}

impl UndoneAlong {
    /// What an event names beside its target.
    pub(crate) fn note(&mut self, log: &str, event: &AuditEvent) {
        let target = event.target.as_ref().map(|target| target.name.as_str());
        let done = verb(&event.action);
        for one in event.affected.iter().filter(|one| Some(one.name.as_str()) != target) {
            let kind = (log.to_owned(), one.r#type.clone());
            let Along { named, seen } = self.kinds.entry(kind).or_default();
            seen.insert(self.hasher.hash_one(&one.name));
            let verbs = named.entry(one.name.clone()).or_default();
            if !verbs.iter().any(|known| known == done) {
                verbs.push(done.to_owned());
            }
            if named.len() > NAMED {
                named.pop_last();
            }
        }
    }

    pub(crate) fn into_inner(self) -> Vec<Undone> {
        let kinds = self.kinds.into_iter();
        let undone = kinds.map(|((log, kind), Along { named, seen })| Undone {
            log,
            kind,
            resources: named.into_iter().map(|(name, done)| UndoneResource { name, done }).collect(),
            count: seen.len() as u64,
        });
        undone.collect()
    }
}

/// `groups.delete`, without the service that did it.
fn verb(action: &str) -> &str {
    action.split_once('.').map_or(action, |(_service, verb)| verb)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_each_kind_are_named_and_all_are_counted() {
        let mut list = UndoneList::default();
        for n in 0..25 {
            for action in ["identity.groups.create", "identity.groups.update", "identity.groups.create"] {
                list.note("acme".into(), "Group".into(), format!("groups/{n:02}"), action);
            }
        }
        list.note("globex".into(), "Group".into(), "groups/24".into(), "identity.groups.delete");
        let kinds = list.into_inner();
        assert_eq!(kinds.iter().map(|kind| kind.count).collect::<Vec<_>>(), [25, 1]);
        assert_eq!(kinds[0].resources.len(), NAMED);
        assert!(kinds[0].resources.iter().all(|group| group.done == ["groups.create", "groups.update"]));
        let deleted = UndoneResource { name: "groups/24".into(), done: vec!["groups.delete".into()] };
        assert_eq!(kinds[1].resources, [deleted]);
    }
}
