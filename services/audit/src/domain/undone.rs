//! What a database that was set back does not know of, by name.

/// How many resources of a kind are named.
const NAMED: usize = 20;

/// What was done to the resources of one kind in one log.
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
        let verb = action.split_once('.').map_or(action, |(_service, verb)| verb);
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
