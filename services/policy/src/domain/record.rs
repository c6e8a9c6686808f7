//! What the service keeps: roles, bindings, policies, approval requests, decisions.

use std::collections::BTreeSet;

use pavior_core::etag;
use time::OffsetDateTime;
use uuid::Uuid;

use super::action::Pattern;
use super::approval::{Requirements, State, Vote};
use super::combine::Mode;
use super::role::Member;
use super::source::SetKind;

/// Something that is kept, with what the server adds to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored<T> {
    /// Unique for ever.
    pub uid: Uuid,
    /// The id of the organization.
    pub organization: String,
    /// The last part of its name.
    pub id: String,
    /// Counts changes, from 1.
    pub revision: i64,
    /// When it was made.
    pub create_time: OffsetDateTime,
    /// When it was last changed.
    pub update_time: OffsetDateTime,
    /// What the caller says about it.
    pub spec: T,
}

impl<T> Stored<T> {
    /// The entity tag.
    pub fn etag(&self) -> String {
        etag(self.uid, self.revision)
    }
}

/// A role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleSpec {
    /// The name to show.
    pub display_name: String,
    /// What it is for.
    pub description: String,
    /// What it grants.
    pub actions: Vec<Pattern>,
}

/// A grant of a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleBindingSpec {
    /// The id of the role.
    pub role: String,
    /// To whom.
    pub members: Vec<Member>,
    /// The id of the project where it holds; none for the organization.
    pub project: Option<String>,
    /// Only on what a group of the caller owns.
    pub owned_only: bool,
}

/// A policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicySpec {
    /// The name to show.
    pub display_name: String,
    /// What it is for.
    pub description: String,
    /// The set that it belongs to.
    pub kind: SetKind,
    /// The Cedar text.
    pub source: String,
    /// SHA-256 of the text, in hexadecimal.
    pub digest: String,
}

/// A policy in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyBindingSpec {
    /// The id of the policy.
    pub policy: String,
    /// Ids of the projects where it holds; empty for all.
    pub projects: Vec<String>,
    /// Environment classes where it holds; empty for all.
    pub environment_classes: Vec<String>,
    /// How it is in force.
    pub mode: Mode,
}

/// What one group has to say about an approval request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// The id of the group.
    pub group: String,
    /// How many distinct people.
    pub quorum: u32,
    /// The policies that ask for it.
    pub policy_ids: Vec<String>,
    /// How long it may wait, in seconds; none for the default.
    pub expiry_seconds: Option<i64>,
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
pub struct ApprovalSpec {
    /// Where it stands.
    pub state: State,
    /// Who asked.
    pub requester: String,
    /// On whose behalf.
    pub on_behalf_of: Option<String>,
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
    /// The ids of the decisions on everything in the plan.
    pub decisions: Vec<String>,
    /// What was said so far, in order.
    pub votes: Vec<CastVote>,
    /// When it expires if nobody decides.
    pub expire_time: OffsetDateTime,
    /// Why it ended, when a service ended it.
    pub end_reason: String,
}

impl ApprovalSpec {
    /// Quorums by group.
    pub fn quorums(&self) -> Requirements {
        let mut all = Requirements::new();
        for requirement in &self.requirements {
            let known = all.entry(requirement.group.clone()).or_default();
            *known = requirement.quorum.max(*known);
        }
        all
    }

    /// The votes alone.
    pub fn votes(&self) -> Vec<Vote> {
        self.votes.iter().map(|cast| cast.vote.clone()).collect()
    }
}

/// A decision as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecisionRecord {
    /// Its id.
    pub id: Uuid,
    /// The id of the organization.
    pub organization: String,
    /// Who asked.
    pub principal: String,
    /// The action.
    pub action: String,
    /// What it was to be done to.
    pub resource: String,
    /// At which point.
    pub stage: String,
    /// What it said.
    pub effect: String,
    /// The ids of the policies that determined it.
    pub policy_ids: BTreeSet<String>,
    /// The ids of policies that warned.
    pub warning_ids: BTreeSet<String>,
    /// The ids of policies that are tried out.
    pub shadow_ids: BTreeSet<String>,
    /// Whether a policy could not be evaluated.
    pub policy_error: bool,
    /// SHA-256 over the canonical input.
    pub input_digest: String,
    /// The plan.
    pub plan_digest: String,
    /// Policies, roles and bindings that decided.
    pub policy_revision: String,
    /// Users and groups that decided.
    pub directory_revision: String,
    /// When.
    pub decide_time: OffsetDateTime,
}
