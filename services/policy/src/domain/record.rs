//! What the service keeps: roles, bindings, policies, approvals. Decisions are in `decision.rs`.

use pavior_core::Fault;
use pavior_core::resource::{Fields, MAX_DISPLAY_NAME, Violations, line, paragraph};
use serde_json::{Value as Json, json};
use time::OffsetDateTime;

use super::action::Pattern;
use super::approval::{Requirements, State, Vote};
use super::combine::Mode;
use super::role::{Member, Reach};
use super::source::PolicyType;

pub use pavior_core::resource::Stored;

/// Longest description, in bytes.
const MAX_DESCRIPTION: usize = 4_000;
/// Most actions of a role.
const MAX_ACTIONS: usize = 200;
/// Most members of a role binding.
const MAX_MEMBERS: usize = 1_000;
/// Most projects, and most environment classes, of a policy binding.
const MAX_SCOPES: usize = 1_000;

/// A list of at most so many.
fn at_most<T>(violations: &mut Violations, path: &str, list: &[T], max: usize) {
    if list.len() > max {
        violations.add(path, Fault::TooMany, format!("must have at most {max} elements"));
    }
}

/// A role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RoleFields {
    /// The name to show.
    pub display_name: String,
    /// What it is for.
    pub description: String,
    /// What it grants.
    pub actions: Vec<Pattern>,
}

/// A grant of a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RoleBindingFields {
    /// The id of the role.
    pub role: String,
    /// To whom.
    pub members: Vec<Member>,
    /// The id of the project where it holds; none for the organization.
    pub project: Option<String>,
    /// On which resources.
    pub reach: Reach,
}

/// A policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PolicyFields {
    /// The name to show.
    pub display_name: String,
    /// What it is for.
    pub description: String,
    /// What it is for.
    pub kind: PolicyType,
    /// The Cedar text.
    pub source: String,
    /// SHA-256 of the text, `sha256:` and hexadecimal.
    pub digest: String,
    /// The number of the revision that holds the text, from 1.
    pub text_revision: i64,
}

impl PolicyFields {
    /// With another text, which is the next revision unless it is the same.
    #[must_use]
    pub(crate) fn with_source(self, source: String, digest: String) -> Self {
        let text_revision = self.text_revision + i64::from(source != self.source);
        Self { source, digest, text_revision, ..self }
    }
}

/// A policy's text as it was written once. Never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PolicyRevisionFields {
    /// The id of the policy.
    pub policy: String,
    /// What it is for.
    pub kind: PolicyType,
    /// The Cedar text.
    pub source: String,
    /// SHA-256 of the text, `sha256:` and hexadecimal.
    pub digest: String,
    /// Who wrote it, by resource name.
    pub author: String,
}

/// A policy in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PolicyBindingFields {
    /// The id of the policy.
    pub policy: String,
    /// Ids of the projects where it holds; empty for all.
    pub projects: Vec<String>,
    /// Ids of the environment classes where it holds; empty for all.
    pub environment_class_ids: Vec<String>,
    /// How it is in force.
    pub mode: Mode,
    /// The number of the revision that is in force; none for the latest.
    pub text_revision: Option<i64>,
}

/// What one group has to say about an approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// The id of the group.
    pub group: String,
    /// How many distinct people.
    pub quorum: u32,
    /// The rules that ask for it.
    pub rule_ids: Vec<String>,
    /// How long it may wait, in seconds; none for the default.
    pub ttl_seconds: Option<i64>,
}

/// A vote with what is kept of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CastVote {
    /// The vote.
    pub vote: Vote,
    /// Why.
    pub reason: String,
    /// When.
    pub vote_time: OffsetDateTime,
    /// The digest of the plan that was voted on.
    pub plan_digest: String,
}

/// A question to people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApprovalFields {
    /// Where it stands.
    pub state: State,
    /// Who asked.
    pub requester: String,
    /// On whose behalf.
    pub on_behalf_of: Option<String>,
    /// Who wrote the plan, where that is somebody else; empty otherwise.
    pub author: String,
    /// The action.
    pub action: String,
    /// What it is done to.
    pub resource: String,
    /// The operation that waits.
    pub operation: String,
    /// The plan.
    pub plan: String,
    /// The digest of the plan.
    pub plan_digest: String,
    /// The plan in a sentence.
    pub summary: String,
    /// What must be met.
    pub requirements: Vec<Requirement>,
    /// What was said so far, in order.
    pub votes: Vec<CastVote>,
    /// When it expires if nobody decides.
    pub expire_time: OffsetDateTime,
    /// Why it ended, when a service ended it.
    pub end_reason: String,
}

impl Fields for RoleFields {
    const SINGULAR: &'static str = "role";
    const TYPE: &'static str = "policy.pavior.dev/Role";

    fn name(&self, organization: &str, id: &str) -> String {
        role_name(organization, id)
    }

    fn check(&self, _organization: &str, _id: &str) -> Violations {
        let mut violations = Violations::new();
        line(&mut violations, "display_name", &self.display_name, MAX_DISPLAY_NAME);
        paragraph(&mut violations, "description", &self.description, MAX_DESCRIPTION);
        if self.actions.is_empty() {
            violations.add("actions", Fault::Required, "must name at least one action");
        }
        at_most(&mut violations, "actions", &self.actions, MAX_ACTIONS);
        violations
    }

    fn snapshot(&self) -> Json {
        let Self { display_name, description, actions } = self;
        let actions: Vec<String> = actions.iter().map(ToString::to_string).collect();
        json!({ "displayName": display_name, "description": description, "actions": actions })
    }
}

/// The resource name of a role.
pub fn role_name(organization: &str, id: &str) -> String {
    format!("organizations/{organization}/roles/{id}")
}

/// The resource name of a role binding.
pub fn role_binding_name(organization: &str, id: &str) -> String {
    format!("organizations/{organization}/roleBindings/{id}")
}

/// The resource name of a policy binding.
pub fn policy_binding_name(organization: &str, id: &str) -> String {
    format!("organizations/{organization}/policyBindings/{id}")
}

/// The resource name of a policy.
pub fn policy_name(organization: &str, id: &str) -> String {
    format!("organizations/{organization}/policies/{id}")
}

/// The resource name of a revision of a policy.
pub fn policy_revision_name(organization: &str, policy: &str, revision: i64) -> String {
    format!("{}/revisions/{revision}", policy_name(organization, policy))
}

impl Fields for RoleBindingFields {
    const SINGULAR: &'static str = "role binding";
    const TYPE: &'static str = "policy.pavior.dev/RoleBinding";

    fn name(&self, organization: &str, id: &str) -> String {
        role_binding_name(organization, id)
    }

    fn check(&self, _organization: &str, _id: &str) -> Violations {
        let mut violations = Violations::new();
        if self.members.is_empty() {
            violations.add("members", Fault::Required, "must name at least one member");
        }
        at_most(&mut violations, "members", &self.members, MAX_MEMBERS);
        violations
    }

    fn snapshot(&self) -> Json {
        let Self { role, members, project, reach } = self;
        let members: Vec<String> = members.iter().map(Member::short_name).collect();
        json!({ "role": role, "members": members, "project": project, "reach": reach.name() })
    }
}

impl Fields for PolicyFields {
    const SINGULAR: &'static str = "policy";
    const TYPE: &'static str = "policy.pavior.dev/Policy";

    fn name(&self, organization: &str, id: &str) -> String {
        policy_name(organization, id)
    }

    fn check(&self, _organization: &str, _id: &str) -> Violations {
        let mut violations = Violations::new();
        line(&mut violations, "display_name", &self.display_name, MAX_DISPLAY_NAME);
        paragraph(&mut violations, "description", &self.description, MAX_DESCRIPTION);
        if self.source.is_empty() {
            violations.add("source", Fault::Required, "must not be empty");
        }
        violations
    }

    fn snapshot(&self) -> Json {
        let Self { display_name, description, kind, source, digest, text_revision } = self;
        json!({
            "displayName": display_name,
            "description": description,
            "policyType": kind.name(),
            "source": source,
            "digest": digest,
            "revisionId": text_revision.to_string(),
        })
    }
}

impl Fields for PolicyRevisionFields {
    const SINGULAR: &'static str = "policy revision";
    const TYPE: &'static str = "policy.pavior.dev/PolicyRevision";

    fn name(&self, organization: &str, id: &str) -> String {
        format!("{}/revisions/{id}", policy_name(organization, &self.policy))
    }

    /// It is written with its policy, whose record tells it.
    fn snapshot(&self) -> Json {
        json!({ "policy": self.policy, "digest": self.digest })
    }
}

impl Fields for PolicyBindingFields {
    const SINGULAR: &'static str = "policy binding";
    const TYPE: &'static str = "policy.pavior.dev/PolicyBinding";

    fn name(&self, organization: &str, id: &str) -> String {
        policy_binding_name(organization, id)
    }

    fn check(&self, _organization: &str, _id: &str) -> Violations {
        let mut violations = Violations::new();
        at_most(&mut violations, "projects", &self.projects, MAX_SCOPES);
        at_most(&mut violations, "environment_class_ids", &self.environment_class_ids, MAX_SCOPES);
        violations
    }

    fn snapshot(&self) -> Json {
        let Self { policy, projects, environment_class_ids, mode, text_revision } = self;
        json!({
            "policy": policy,
            "projects": projects,
            "environmentClassIds": environment_class_ids,
            "mode": mode.name(),
            "revisionId": text_revision.map(|revision| revision.to_string()),
        })
    }
}

impl Fields for ApprovalFields {
    const SINGULAR: &'static str = "approval";
    const TYPE: &'static str = "policy.pavior.dev/Approval";

    fn name(&self, organization: &str, id: &str) -> String {
        format!("organizations/{organization}/approvals/{id}")
    }

    fn snapshot(&self) -> Json {
        let votes = self.votes.iter().map(
            |cast| json!({ "voter": cast.vote.voter, "choice": cast.vote.choice.name(), "reason": cast.reason }),
        );
        json!({
            "state": self.state.as_str(),
            "requester": self.requester,
            "onBehalfOf": self.on_behalf_of,
            "author": self.author,
            "action": self.action,
            "resource": self.resource,
            "operation": self.operation,
            "plan": self.plan,
            "planDigest": self.plan_digest,
            "votes": votes.collect::<Vec<_>>(),
            "endReason": self.end_reason,
        })
    }
}

impl ApprovalFields {
    /// Quorums by group.
    pub(crate) fn quorums(&self) -> Requirements {
        let mut all = Requirements::new();
        for requirement in &self.requirements {
            let known = all.entry(requirement.group.clone()).or_default();
            *known = requirement.quorum.max(*known);
        }
        all
    }

    /// The votes alone.
    pub(crate) fn votes(&self) -> Vec<Vote> {
        self.votes.iter().map(|cast| cast.vote.clone()).collect()
    }
}
