//! Approvals: their state machine, who may vote, and when the requirements are met.

use std::collections::{BTreeMap, BTreeSet};

use pavior_core::resource::Fields;
use pavior_core::{Principal, PrincipalKind};
use serde_json::{Value as Json, json};
use time::OffsetDateTime;

/// The lifecycle state of an approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Open for votes.
    Pending,
    /// Every requirement is met.
    Approved,
    /// Somebody voted against it.
    Denied,
    /// The requirements were not met before `expire_time`.
    Expired,
    /// The requester withdrew it.
    Cancelled,
    /// The plan that it is bound to has changed.
    Invalidated,
}

/// An event in the life of an approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Event {
    /// A vote in favour after which requirements are still open.
    ApprovedInPart,
    /// The vote in favour that meets the last requirement.
    Approved,
    /// A vote against it.
    Denied,
    /// `expire_time` has passed.
    Expired,
    /// Its operation was cancelled.
    Cancelled,
    /// The plan has changed.
    Invalidated,
}

/// An event that the state does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an approval that is {} cannot be {}", .state.as_str(), .event.as_str())]
pub struct IllegalTransition {
    /// The current state.
    pub state: State,
    /// The event.
    pub event: Event,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::Approved, Self::Denied, Self::Expired, Self::Cancelled, Self::Invalidated];

    /// Its name in the API, without the prefix.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Approved => "APPROVED",
            Self::Denied => "DENIED",
            Self::Expired => "EXPIRED",
            Self::Cancelled => "CANCELLED",
            Self::Invalidated => "INVALIDATED",
        }
    }

    /// The state after an event. Until it is used, an approval that was given can still be cancelled or invalidated.
    pub fn next(self, event: Event) -> Result<Self, IllegalTransition> {
        match (self, event) {
            (Self::Pending, Event::ApprovedInPart) => Ok(Self::Pending),
            (Self::Pending, Event::Approved) => Ok(Self::Approved),
            (Self::Pending, Event::Denied) => Ok(Self::Denied),
            (Self::Pending, Event::Expired) => Ok(Self::Expired),
            (Self::Pending | Self::Approved, Event::Cancelled) => Ok(Self::Cancelled),
            (Self::Pending | Self::Approved, Event::Invalidated) => Ok(Self::Invalidated),
            (state, event) => Err(IllegalTransition { state, event }),
        }
    }
}

impl Event {
    /// Every event.
    pub const ALL: [Self; 6] = [
        Self::ApprovedInPart,
        Self::Approved,
        Self::Denied,
        Self::Expired,
        Self::Cancelled,
        Self::Invalidated,
    ];

    /// As a participle, for error messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ApprovedInPart | Self::Approved => "approved",
            Self::Denied => "denied",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Invalidated => "invalidated",
        }
    }
}

/// Quorums by group id.
pub type Quorums = BTreeMap<String, u32>;

/// The content of a vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// In favour.
    Approve,
    /// Against.
    Deny,
}

impl Choice {
    /// Its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Approve => "CHOICE_APPROVE",
            Self::Deny => "CHOICE_DENY",
        }
    }
}

/// The vote of one person, as far as it counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vote {
    /// The resource name of the voter.
    pub voter: String,
    /// In favour or against.
    pub choice: Choice,
    /// The required groups that the voter belonged to when voting.
    pub groups: BTreeSet<String>,
}

/// Why a principal may not vote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotEligible {
    /// Only people vote.
    #[error("only people can vote on an approval, not services or agents")]
    NotAPerson,
    /// The voter took part in the request, which must be approved by somebody else.
    #[error("whoever asked, has an agent ask or wrote the plan cannot vote on the own approval")]
    Requester,
    /// Each person votes once.
    #[error("`{0}` has voted already")]
    VotedAlready(String),
    /// The voter is in no group whose approval is required.
    #[error("`{voter}` belongs to none of the groups that are asked: {groups}")]
    NotInGroup {
        /// The resource name of the voter.
        voter: String,
        /// The ids of the required groups.
        groups: String,
    },
}

/// Checks a voter and returns the groups that the vote counts for. `requesters` are all who took part in the request:
/// the principal, the person on whose behalf it acted, and the author of the plan.
pub fn eligible(
    voter: &Principal,
    groups: &BTreeSet<String>,
    requesters: &[&str],
    requirements: &Quorums,
    votes: &[Vote],
) -> Result<BTreeSet<String>, NotEligible> {
    if voter.kind != PrincipalKind::User || voter.on_behalf_of.is_some() {
        return Err(NotEligible::NotAPerson);
    }
    if requesters.contains(&voter.name.as_str()) {
        return Err(NotEligible::Requester);
    }
    if votes.iter().any(|vote| vote.voter == voter.name) {
        return Err(NotEligible::VotedAlready(voter.name.clone()));
    }
    let counted: BTreeSet<String> =
        requirements.keys().filter(|group| groups.contains(*group)).cloned().collect();
    if counted.is_empty() {
        let groups = requirements.keys().cloned().collect::<Vec<_>>().join(", ");
        return Err(NotEligible::NotInGroup { voter: voter.name.clone(), groups });
    }
    Ok(counted)
}

/// Whether enough distinct people of every group voted in favour.
pub fn is_met(requirements: &Quorums, votes: &[Vote]) -> bool {
    requirements.iter().all(|(group, quorum)| {
        let yes = votes.iter().filter(|vote| vote.choice == Choice::Approve && vote.groups.contains(group));
        let people: BTreeSet<&str> = yes.map(|vote| vote.voter.as_str()).collect();
        people.len() >= *quorum as usize
    })
}

/// The approvals that one group has to give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// The id of the group.
    pub group: String,
    /// The number of distinct people.
    pub quorum: u32,
    /// The ids of the rules that require it.
    pub rule_ids: Vec<String>,
    /// How long it may stay pending, in seconds; `None` for the default.
    pub ttl_seconds: Option<i64>,
}

/// A vote with its reason, time and plan, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CastVote {
    /// The vote.
    pub vote: Vote,
    /// The reason that the voter gave.
    pub reason: String,
    /// When it was cast.
    pub vote_time: OffsetDateTime,
    /// The digest of the plan that was voted on.
    pub plan_digest: String,
}

/// The fields of an approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApprovalFields {
    /// The lifecycle state.
    pub state: State,
    /// The principal that requested it.
    pub requester: String,
    /// The person on whose behalf the requester acted.
    pub on_behalf_of: Option<String>,
    /// The author of the plan, if it is somebody else; empty otherwise.
    pub author: String,
    /// The action that waits for it.
    pub action: String,
    /// The resource name of the action's target.
    pub resource: String,
    /// The resource name of the operation that waits for it.
    pub operation: String,
    /// The resource name of the plan.
    pub plan: String,
    /// The digest of the plan.
    pub plan_digest: String,
    /// A summary of the plan in one sentence.
    pub summary: String,
    /// The requirements, all of which must be met.
    pub requirements: Vec<Requirement>,
    /// The votes so far, oldest first.
    pub votes: Vec<CastVote>,
    /// When it expires if the requirements are not met.
    pub expire_time: OffsetDateTime,
    /// Why a service ended it; empty otherwise.
    pub end_reason: String,
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
    /// The quorums of the requirements by group id.
    pub(crate) fn quorums(&self) -> Quorums {
        let mut all = Quorums::new();
        for requirement in &self.requirements {
            let known = all.entry(requirement.group.clone()).or_default();
            *known = requirement.quorum.max(*known);
        }
        all
    }

    /// The votes as far as they count.
    pub(crate) fn votes(&self) -> Vec<Vote> {
        self.votes.iter().map(|cast| cast.vote.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_and_event() {
        let mut table = String::new();
        for state in State::ALL {
            let next = Event::ALL.map(|event| state.next(event).map_or("-", State::as_str));
            table.push_str(&format!("{:<12}{}\n", state.as_str(), next.join(" ")));
        }
        let want = "\
PENDING     PENDING APPROVED DENIED EXPIRED CANCELLED INVALIDATED
APPROVED    - - - - CANCELLED INVALIDATED
DENIED      - - - - - -
EXPIRED     - - - - - -
CANCELLED   - - - - - -
INVALIDATED - - - - - -
";
        assert_eq!(table, want, "columns: {:?}", Event::ALL);
    }

    fn user(id: &str) -> Principal {
        crate::domain::tests::user(id)
    }

    fn vote(id: &str, groups: &[&str]) -> Vote {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        Vote { voter: user(id).name, choice: Choice::Approve, groups }
    }

    #[test]
    fn four_eyes_distinct_people_and_membership() {
        let asked = Quorums::from([("platform".into(), 1)]);
        let platform = BTreeSet::from(["platform".to_owned(), "x".to_owned()]);
        let alice = user("alice").name;
        let check = |voter: &Principal, groups: &BTreeSet<String>, behalf: Option<&str>, votes: &[Vote]| {
            let requesters: Vec<&str> = std::iter::once(alice.as_str()).chain(behalf).collect();
            eligible(voter, groups, &requesters, &asked, votes)
        };
        assert_eq!(check(&user("bob"), &platform, None, &[]), Ok(BTreeSet::from(["platform".to_owned()])));
        assert_eq!(check(&user("alice"), &platform, None, &[]), Err(NotEligible::Requester));
        let bob = user("bob").name;
        assert_eq!(check(&user("bob"), &platform, Some(&bob), &[]), Err(NotEligible::Requester));
        let voted = check(&user("bob"), &platform, None, &[vote("bob", &["platform"])]);
        assert_eq!(voted, Err(NotEligible::VotedAlready(bob)));
        assert!(matches!(
            check(&user("bob"), &BTreeSet::from(["x".to_owned()]), None, &[]),
            Err(NotEligible::NotInGroup { .. })
        ));
        let agent = Principal { kind: PrincipalKind::Agent, ..user("bot") };
        assert_eq!(check(&agent, &platform, None, &[]), Err(NotEligible::NotAPerson));
        let behalf = Principal { on_behalf_of: Some(alice.clone()), ..user("bob") };
        assert_eq!(check(&behalf, &platform, None, &[]), Err(NotEligible::NotAPerson));
    }

    #[test]
    fn quorum_counts_distinct_people_for_each_group() {
        let asked = Quorums::from([("platform".into(), 2), ("security".into(), 1)]);
        let both = ["platform", "security"];
        assert!(!is_met(&asked, &[]));
        assert!(!is_met(&asked, &[vote("bob", &both)]));
        assert!(!is_met(&asked, &[vote("bob", &both), vote("bob", &both)]));
        assert!(is_met(&asked, &[vote("bob", &both), vote("carol", &["platform"])]));
        let no = Vote { choice: Choice::Deny, ..vote("carol", &["platform"]) };
        assert!(!is_met(&asked, &[vote("bob", &both), no]));
    }
}
