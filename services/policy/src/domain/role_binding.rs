//! Role bindings: to whom a role is granted, and on which resources.

use std::collections::BTreeSet;

use pavior_core::principal::EVERYONE;
use pavior_core::resource::Fields;
use serde_json::{Value as Json, json};

use super::input::Input;

/// The fields of a role binding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RoleBindingFields {
    /// The id of the role.
    pub role: String,
    /// Who is granted the role.
    pub members: Vec<Member>,
    /// The id of the project that is its scope; `None` for the whole organization.
    pub project: Option<String>,
    /// The resources of the scope on which it holds.
    pub reach: Reach,
}

/// The resource name of a role binding.
pub fn role_binding_name(organization: &str, id: &str) -> String {
    format!("organizations/{organization}/roleBindings/{id}")
}

impl Fields for RoleBindingFields {
    const SINGULAR: &'static str = "role binding";
    const TYPE: &'static str = "policy.pavior.dev/RoleBinding";

    fn name(&self, organization: &str, id: &str) -> String {
        role_binding_name(organization, id)
    }

    fn snapshot(&self) -> Json {
        let Self { role, members, project, reach } = self;
        let members: Vec<String> = members.iter().map(Member::short_name).collect();
        json!({ "role": role, "members": members, "project": project, "reach": reach.name() })
    }
}

/// A member of a role binding.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Member {
    /// All members of the group with this id. Everybody in the organization is a member of [`EVERYONE`].
    Group(String),
    /// One principal, by resource name.
    Principal(String),
}

impl Member {
    /// Reads a member of `organization`, a resource name.
    ///
    /// # Errors
    /// A sentence that names the accepted forms.
    pub fn parse(name: &str, organization: &str) -> Result<Self, String> {
        let wanted = || {
            format!(
                "member `{}` must be a user, group, service account or agent of `organizations/{organization}`, for example \
                 `organizations/{organization}/groups/payments`; all of them are `organizations/{organization}/groups/{EVERYONE}`",
                name.chars().take(100).collect::<String>()
            )
        };
        let parsed = pavior_core::ResourceName::parse(name).map_err(|_| wanted())?;
        if parsed.organization() != organization || parsed.pairs().count() != 2 {
            return Err(wanted());
        }
        match parsed.collection() {
            "groups" => Ok(Self::Group(parsed.id().to_owned())),
            "users" | "serviceAccounts" | "agents" => Ok(Self::Principal(name.to_owned())),
            _ => Err(wanted()),
        }
    }

    /// As in audit records: groups without the organization.
    pub fn short_name(&self) -> String {
        match self {
            Self::Group(id) => format!("groups/{id}"),
            Self::Principal(name) => name.clone(),
        }
    }

    /// Its resource name.
    pub fn name(&self, organization: &str) -> String {
        match self {
            Self::Group(id) => format!("organizations/{organization}/groups/{id}"),
            Self::Principal(name) => name.clone(),
        }
    }
}

/// The resources of its scope on which a role binding holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// All resources.
    All,
    /// Resources that a group of the caller owns, or is about to own.
    Owned,
}

impl Reach {
    /// Its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::All => "REACH_ALL",
            Self::Owned => "REACH_OWNED",
        }
    }
}

/// A role binding as the compilation of an organization holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleBinding {
    /// Its id.
    pub id: String,
    /// The id of the role.
    pub role: String,
    /// Who is granted the role.
    pub members: BTreeSet<Member>,
    /// The id of the project that is its scope; `None` for the whole organization.
    pub project: Option<String>,
    /// The resources of the scope on which it holds.
    pub reach: Reach,
}

impl RoleBinding {
    pub(super) fn holds(&self, input: &Input) -> bool {
        let in_scope = match &self.project {
            Some(project) => input.resource.project.as_ref() == Some(project),
            None => true,
        };
        in_scope && (self.reach == Reach::All || input.is_owner())
    }

    pub(super) fn names(&self, input: &Input) -> bool {
        self.members.iter().any(|member| match member {
            Member::Group(group) => input.groups.contains(group),
            Member::Principal(name) => *name == input.principal.name,
        })
    }
}
