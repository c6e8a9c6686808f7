//! Who belongs to which group.

use std::collections::{BTreeMap, BTreeSet};

use pavior_core::principal::EVERYONE;

/// Groups of one organization and who belongs to them, at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    /// The revision.
    pub revision: String,
    /// The groups that somebody belongs to directly: ids of groups by the member's resource name.
    pub memberships: BTreeMap<String, BTreeSet<String>>,
    /// The group above a group, by id.
    pub parents: BTreeMap<String, String>,
    /// Whether it may be of an older copy of the catalog's database.
    pub copy: Copy,
}

/// Whether a directory is of an older copy of the catalog's database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Copy {
    /// It is not.
    Current,
    /// The catalog has not compared its history with the audit log yet.
    Unknown,
    /// It is, for this reason.
    Older(String),
}

impl Directory {
    /// Of what has no members in the catalog, and so none of an older copy: the installation, whose operators stand in the
    /// configuration, and an organization that the catalog, being sure, does not know.
    pub fn of_nobody() -> Self {
        Self {
            revision: String::new(),
            memberships: BTreeMap::new(),
            parents: BTreeMap::new(),
            copy: Copy::Current,
        }
    }

    /// All groups that a principal of the organization belongs to: the directory's and those that its credential
    /// claims, with every group above them, and [`EVERYONE`].
    pub fn groups_of<'a>(
        &'a self,
        principal: &str,
        claimed: impl IntoIterator<Item = &'a str>,
    ) -> BTreeSet<String> {
        let direct = self.memberships.get(principal).into_iter().flatten().map(String::as_str);
        let mut all = BTreeSet::from([EVERYONE.to_owned()]);
        for group in direct.chain(claimed) {
            if all.insert(group.to_owned()) {
                self.climb(group, &mut all);
            }
        }
        all
    }

    /// All groups above a group.
    pub fn above(&self, group: &str) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        self.climb(group, &mut all);
        all
    }

    /// Ends at the top, and on a circle, at the first group that is known already.
    fn climb(&self, group: &str, all: &mut BTreeSet<String>) {
        let mut at = group;
        while let Some(parent) = self.parents.get(at) {
            if !all.insert(parent.clone()) {
                break;
            }
            at = parent;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closure_unites_directory_and_claims_and_survives_circles() {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let directory = Directory {
            revision: "1".into(),
            memberships: [("organizations/acme/users/alice".to_owned(), ["core".to_owned()].into())].into(),
            parents: [pair("core", "payments"), pair("payments", "all"), pair("x", "y"), pair("y", "x")]
                .into(),
            copy: Copy::Current,
        };
        let alice = "organizations/acme/users/alice";
        let names = |set: BTreeSet<String>| set.into_iter().collect::<Vec<_>>().join(" ");
        assert_eq!(names(directory.groups_of(alice, ["x"])), "all core everyone payments x y");
        assert_eq!(names(directory.groups_of("organizations/acme/users/bob", [])), "everyone");
        assert_eq!(
            names(directory.groups_of("organizations/acme/users/bob", ["payments", "everyone"])),
            "all everyone payments"
        );
        assert_eq!(names(directory.above("core")), "all payments");
    }
}
