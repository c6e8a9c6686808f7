//! What a decision is made over.

use std::collections::{BTreeMap, BTreeSet};

use pavior_core::principal::EVERYONE;
pub use pavior_core::principal::INSTALLATION;
use pavior_core::{Principal, PrincipalKind, ResourceName};

/// At which point of a request it is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Before the call reaches its service.
    Admission,
    /// Over a plan.
    Plan,
    /// Over the plan once more, right before it is carried out.
    Execution,
}

impl Stage {
    /// Every stage.
    pub const ALL: [Self; 3] = [Self::Admission, Self::Plan, Self::Execution];

    /// As it stands in `context.stage`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admission => "admission",
            Self::Plan => "plan",
            Self::Execution => "execution",
        }
    }
}

/// A group with the groups above it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupRef {
    /// Its id.
    pub id: String,
    /// The ids of all groups above it.
    pub above: BTreeSet<String>,
}

/// What it is done to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resource {
    /// The resource name.
    pub name: String,
    /// Whether the resource itself exists, or `name` is its nearest existing ancestor.
    pub exists: bool,
    /// For example `provisioning.pavior.dev/Environment`.
    pub kind: String,
    /// The group that owns it.
    pub owner: Option<GroupRef>,
    /// The id of its project.
    pub project: Option<String>,
    /// The class of its environment.
    pub environment_class: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// What is about to be done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Context {
    /// The class of the environment that is made or changed.
    pub environment_class: Option<String>,
    /// The id of the template.
    pub template: Option<String>,
    /// The template's version.
    pub template_version: Option<String>,
    /// Scalars and lists of scalars, as text.
    pub parameters: BTreeMap<String, String>,
    /// Resources created.
    pub create_count: i64,
    /// Resources updated.
    pub update_count: i64,
    /// Resources replaced.
    pub replace_count: i64,
    /// Resources deleted.
    pub delete_count: i64,
    /// Types of the resources touched.
    pub resource_types: BTreeSet<String>,
    /// The owner that a resource is to get.
    pub new_owner: Option<GroupRef>,
    /// Whether the resource goes from the owner that it has to `new_owner`, or to nobody.
    pub moves_owner: bool,
    /// The labels that a new resource is to get.
    pub labels: BTreeMap<String, String>,
    /// The digest of the plan.
    pub plan_digest: Option<String>,
}

/// Everything that a decision looks at, besides the policies.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    /// The id of the organization, or [`INSTALLATION`].
    pub organization: String,
    /// Who asks.
    pub principal: Principal,
    /// The ids of all groups that the principal belongs to, directly or not.
    pub groups: BTreeSet<String>,
    /// The action.
    pub action: String,
    /// What it is done to.
    pub resource: Resource,
    /// At which point.
    pub stage: Stage,
    /// Whether the service will ask about the guardrails itself.
    pub plan_follows: bool,
    /// What is about to be done.
    pub context: Context,
}

impl Input {
    /// The class of the environment that is meant: the plan's, else the resource's.
    pub fn environment_class(&self) -> Option<&str> {
        self.context.environment_class.as_deref().or(self.resource.environment_class.as_deref())
    }

    /// Whether the principal belongs to the organization that the decision is about.
    pub fn is_member(&self) -> bool {
        self.organization != INSTALLATION && self.principal.organization == self.organization
    }

    /// The same asked of the other side, where the resource goes from one owner to another: as if it had gone already.
    pub fn other_side(&self) -> Option<Self> {
        let (old, new) = (&self.resource.owner, &self.context.new_owner);
        if !self.context.moves_owner || old == new {
            return None;
        }
        Some(Self { resource: Resource { owner: new.clone(), ..self.resource.clone() }, ..self.clone() })
    }

    /// Whether a person asks, or stands behind whoever asks.
    pub fn has_person(&self) -> bool {
        let of = |name: &str| ResourceName::parse(name).is_ok_and(|name| name.collection() == "users");
        self.principal.kind == PrincipalKind::User || self.principal.on_behalf_of.as_deref().is_some_and(of)
    }

    /// Whether the principal belongs to the owner of the resource; where nobody owns it, to the group that is to own
    /// what is made. A resource with an owner is never opened by naming another owner, and everybody owns nothing.
    pub fn is_owner(&self) -> bool {
        let made = self.context.new_owner.as_ref().filter(|_| !self.context.moves_owner);
        let owner = self.resource.owner.as_ref().or(made);
        self.is_member() && owner.is_some_and(|owner| owner.id != EVERYONE && self.groups.contains(&owner.id))
    }
}

/// What an approval adds to a decision.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GivenApproval {
    /// Whether it is approved (and neither expired nor void).
    pub approved: bool,
    /// The plan that it is bound to.
    pub plan_digest: String,
    /// What was asked for and met: quorum by group id.
    pub requirements: BTreeMap<String, u32>,
}

impl GivenApproval {
    /// Whether it is an approval of the plan in `context`. Without a plan there is nothing that it could approve.
    pub fn covers(&self, context: &Context) -> bool {
        self.approved && context.plan_digest.as_deref().is_some_and(|digest| digest == self.plan_digest)
    }
}
