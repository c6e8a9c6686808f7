//! Groups of users.

use std::collections::BTreeMap;

use pavior_core::Fault;

use super::{Fields, Violations};
use crate::json::{Json, json};

/// Deepest nesting of groups.
pub(crate) const MAX_GROUP_DEPTH: usize = 16;

/// A team, or a group of teams.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct GroupFields {
    pub(crate) display_name: String,
    pub(crate) description: String,
    /// The id of the group above.
    pub(crate) parent: Option<String>,
}

impl Fields for GroupFields {
    const SINGULAR: &'static str = "group";
    const TYPE: &'static str = "identity.pavior.dev/Group";

    fn name(&self, organization: &str, id: &str) -> String {
        format!("organizations/{organization}/groups/{id}")
    }

    fn check(&self, _organization: &str, id: &str) -> Violations {
        let mut violations = Violations::new();
        if self.parent.as_deref() == Some(id) {
            violations.add("parent_group", Fault::Conflict, "a group cannot be its own parent");
        }
        violations
    }

    fn snapshot(&self) -> Json {
        let Self { display_name, description, parent } = self;
        json!({ "displayName": display_name, "description": description, "parentGroup": parent })
    }
}

/// The circle or the excessive depth that `group` would be in with its new parent, told from the parents of all groups.
pub(crate) fn parent_problem(
    group: &str,
    parent: Option<&str>,
    parents: &BTreeMap<String, Option<String>>,
) -> Option<String> {
    let mut path = vec![group.to_owned()];
    let mut at = parent;
    while let Some(id) = at {
        path.push(id.to_owned());
        if id == group {
            return Some(format!("would make a circle of groups: {}", path.join(" → ")));
        }
        if path.len() > MAX_GROUP_DEPTH {
            return Some(format!("would nest groups deeper than {MAX_GROUP_DEPTH}"));
        }
        at = parents.get(id).and_then(Option::as_deref);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parents(pairs: &[(&str, Option<&str>)]) -> BTreeMap<String, Option<String>> {
        pairs.iter().map(|(id, parent)| ((*id).to_owned(), parent.map(str::to_owned))).collect()
    }

    #[test]
    fn circles_of_groups_are_named() {
        let all = parents(&[("a", None), ("b", Some("a")), ("c", Some("b"))]);
        assert_eq!(parent_problem("c", Some("a"), &all), None);
        let problem = parent_problem("a", Some("c"), &all).unwrap();
        assert_eq!(problem, "would make a circle of groups: a → c → b → a");
        let deep: BTreeMap<_, _> = (0..30).map(|i| (format!("g{i}"), Some(format!("g{}", i + 1)))).collect();
        assert!(parent_problem("new", Some("g0"), &deep).unwrap().contains("deeper than 16"));
    }

    proptest! {
        #[test]
        fn the_search_for_circles_ends(edges in prop::collection::btree_map("[a-e]", prop::option::of("[a-e]"), 0..6), id in "[a-e]", parent in "[a-e]") {
            let problem = parent_problem(&id, Some(&parent), &edges);
            prop_assert!(id != parent || problem.is_some());
        }
    }
}
