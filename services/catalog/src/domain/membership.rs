//! Who belongs to which group.

use pavior_core::Fault;
use pavior_core::ResourceName;

use super::{Fields, Violations};
use crate::json::{Json, json};

/// Most groups that one member belongs to directly.
pub(crate) const MAX_GROUPS: u64 = 200;
/// Most members of one group: so many go with it in one transaction.
pub(crate) const MAX_MEMBERS: u64 = 10_000;
/// What a member's name looks like.
const MEMBER: &str = "organizations/{organization}/users/{user}";

/// Who says that somebody belongs to a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// Whoever created the membership.
    Api,
    /// Imported documents: of the group, of the member, or both.
    Import { group: bool, member: bool },
}

impl Source {
    /// As it is kept and recorded.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Api => "API",
            Self::Import { .. } => "IMPORT",
        }
    }

    /// What imported documents make of a membership: nothing when none of them speaks of it any longer. `before` is what
    /// there was; a side is absent when the import says nothing about it.
    pub(crate) fn imported(
        before: Option<Self>,
        by_group: Option<bool>,
        by_member: Option<bool>,
    ) -> Option<Self> {
        let (group, member) = match before {
            Some(Self::Api) => return before,
            Some(Self::Import { group, member }) => (group, member),
            None => (false, false),
        };
        let (group, member) = (by_group.unwrap_or(group), by_member.unwrap_or(member));
        (group || member).then_some(Self::Import { group, member })
    }
}

/// That somebody belongs to a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MembershipFields {
    /// The id of the group.
    pub(crate) group: String,
    /// The member, by resource name.
    pub(crate) member: String,
    pub(crate) source: Source,
}

/// The id of a membership: that of its member.
///
/// # Errors
/// Why the name cannot be a member's.
pub(crate) fn id_of(member: &str, organization: &str) -> Result<String, (Fault, String)> {
    let parsed =
        ResourceName::parse_as(member, MEMBER).map_err(|error| (Fault::Pattern, error.to_string()))?;
    if parsed.organization() == organization {
        return Ok(parsed.id().to_owned());
    }
    Err((Fault::Conflict, format!("`{member}` is not in `organizations/{organization}`")))
}

impl Fields for MembershipFields {
    const SINGULAR: &'static str = "membership";
    const TYPE: &'static str = "identity.pavior.dev/Membership";

    fn name(&self, organization: &str, id: &str) -> String {
        format!("organizations/{organization}/groups/{}/memberships/{id}", self.group)
    }

    fn check(&self, organization: &str, id: &str) -> Violations {
        let mut violations = Violations::new();
        match id_of(&self.member, organization) {
            // An empty id is still to be made, from the member.
            Ok(own) if id == own || id.is_empty() => {}
            Ok(own) => violations.add(
                "member",
                Fault::Conflict,
                format!("must be called like the membership: `{own}` is not `{id}`"),
            ),
            Err((fault, message)) => violations.add("member", fault, message),
        }
        violations
    }

    fn snapshot(&self) -> Json {
        let Self { group: _, member, source } = self;
        json!({ "member": member, "source": source.as_str() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_import_changes_what_an_import_said() {
        let import = |group, member| Some(Source::Import { group, member });
        for (before, by_group, by_member, after) in [
            (None, None, None, None),
            (None, Some(false), Some(false), None),
            (None, Some(true), None, import(true, false)),
            (None, None, Some(true), import(false, true)),
            (import(true, false), None, Some(true), import(true, true)),
            (import(true, true), Some(false), None, import(false, true)),
            (import(true, true), Some(false), Some(false), None),
            (import(false, true), Some(false), None, import(false, true)),
            (import(false, true), None, Some(false), None),
            (Some(Source::Api), Some(false), Some(false), Some(Source::Api)),
            (Some(Source::Api), Some(true), Some(true), Some(Source::Api)),
        ] {
            assert_eq!(
                Source::imported(before, by_group, by_member),
                after,
                "{before:?} {by_group:?} {by_member:?}"
            );
        }
    }

    #[test]
    fn a_membership_is_called_like_its_member() {
        let fields = |member: &str| MembershipFields {
            group: "payments".to_owned(),
            member: member.to_owned(),
            source: Source::Api,
        };
        let alice = fields("organizations/acme/users/alice@acme.example");
        assert!(alice.check("acme", "alice@acme.example").is_empty());
        assert!(alice.check("acme", "").is_empty());
        assert_eq!(alice.name("acme", "a"), "organizations/acme/groups/payments/memberships/a");
        for (member, id, fault) in [
            ("organizations/acme/users/bob", "alice", Fault::Conflict),
            ("organizations/umbrella/users/bob", "bob", Fault::Conflict),
            ("organizations/acme/groups/all", "all", Fault::Pattern),
            ("", "", Fault::Pattern),
        ] {
            let found = fields(member).check("acme", id).into_vec();
            assert_eq!(found.len(), 1, "{member}");
            assert_eq!((found[0].path.as_str(), found[0].fault), ("member", fault), "{member}");
        }
    }
}
