//! The input of a decision.

use std::collections::{BTreeMap, BTreeSet};

use pavior_core::principal::EVERYONE;
pub use pavior_core::principal::INSTALLATION;
use pavior_core::{Principal, PrincipalKind, ResourceName};

/// The point of a call at which a decision is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Before the call reaches its service.
    Admission,
    /// About a plan.
    Plan,
    /// About the plan again, right before it is executed.
    Execution,
}

impl Stage {
    /// Its value in `context.stage`.
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

/// The target of the action.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resource {
    /// The resource name.
    pub name: String,
    /// Whether the resource itself exists, or `name` is its nearest existing ancestor.
    pub exists: bool,
    /// For example `provisioning.pavior.dev/Environment`.
    pub kind: String,
    /// The group that owns the resource.
    pub owner: Option<GroupRef>,
    /// The id of its project.
    pub project: Option<String>,
    /// The id of the class of its environment.
    pub environment_class_id: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// The change that the action makes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Context {
    /// The id of the class of the environment that is created or changed.
    pub environment_class_id: Option<String>,
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
    /// The labels that a new resource is to get, or that the resource has after its update.
    pub labels: BTreeMap<String, String>,
    /// Whether the labels of the resource become these.
    pub changes_labels: bool,
    /// The digest of the plan.
    pub plan_digest: Option<String>,
}

/// Everything that is evaluated, apart from the policies.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    /// The id of the organization, or [`INSTALLATION`].
    pub organization: String,
    /// The principal that asks.
    pub principal: Principal,
    /// The ids of all groups that the principal belongs to, directly or not.
    pub groups: BTreeSet<String>,
    /// The action.
    pub action: String,
    /// The target of the action.
    pub resource: Resource,
    /// The point of the call.
    pub stage: Stage,
    /// Whether the service will ask again about its plan, so that guardrails are not evaluated now.
    pub plan_follows: bool,
    /// The change that the action makes.
    pub context: Context,
}

impl Input {
    /// The id of the environment class: that of the plan, else that of the resource.
    pub fn environment_class_id(&self) -> Option<&str> {
        self.context.environment_class_id.as_deref().or(self.resource.environment_class_id.as_deref())
    }

    /// Whether the principal belongs to the organization that the decision is about.
    pub fn is_member(&self) -> bool {
        self.organization != INSTALLATION && self.principal.organization == self.organization
    }

    /// If the owner or the labels of the resource change: the same input with the new ones in place.
    pub fn after(&self) -> Option<Self> {
        let Context { new_owner, moves_owner, labels, changes_labels, .. } = &self.context;
        let mut resource = self.resource.clone();
        if *moves_owner {
            resource.owner.clone_from(new_owner);
        }
        if *changes_labels {
            resource.labels.clone_from(labels);
        }
        (resource != self.resource).then(|| Self { resource, ..self.clone() })
    }

    /// Whether the principal is a person or acts on behalf of one.
    pub fn has_person(&self) -> bool {
        let of = |name: &str| ResourceName::parse(name).is_ok_and(|name| name.collection() == "users");
        self.principal.kind == PrincipalKind::User || self.principal.on_behalf_of.as_deref().is_some_and(of)
    }

    /// Whether the principal belongs to the group that owns the resource; if the resource has no owner, to the group that
    /// will own what is created. Naming another owner gives no access to a resource that has one, and membership of
    /// [`EVERYONE`] does not count.
    pub fn is_owner(&self) -> bool {
        let made = self.context.new_owner.as_ref().filter(|_| !self.context.moves_owner);
        let owner = self.resource.owner.as_ref().or(made);
        self.is_member() && owner.is_some_and(|owner| owner.id != EVERYONE && self.groups.contains(&owner.id))
    }
}

/// An approval that the caller named.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GivenApproval {
    /// Whether its state is approved.
    pub approved: bool,
    /// The digest of the plan that it is bound to.
    pub plan_digest: String,
    /// The quorums that it required, by group id.
    pub requirements: BTreeMap<String, u32>,
}

impl GivenApproval {
    /// Whether it approves the plan in `context`. False without a plan.
    pub fn covers(&self, context: &Context) -> bool {
        self.approved && context.plan_digest.as_deref().is_some_and(|digest| digest == self.plan_digest)
    }
}
