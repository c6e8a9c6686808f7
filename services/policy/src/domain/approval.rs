//! Approvals: where they stand, who may vote, when they are met.

use std::collections::{BTreeMap, BTreeSet};

use pavior_core::{Principal, PrincipalKind};

/// Where an approval stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Waiting for people.
    Pending,
    /// Every requirement is met.
    Approved,
    /// Somebody said no.
    Denied,
    /// Nobody decided in time.
    Expired,
    /// The asker no longer wants it.
    Cancelled,
    /// What was asked for has changed.
    Invalidated,
}

/// What can happen to an approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Event {
    /// A yes that leaves requirements open.
    ApprovedInPart,
    /// The yes that meets the last requirement.
    Approved,
    /// A no.
    Denied,
    /// The time is over.
    Expired,
    /// The operation was cancelled.
    Cancelled,
    /// The plan has changed.
    Invalidated,
}

/// An event that a state does not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an approval that is {} cannot be {}", .state.as_str(), .event.as_str())]
pub struct IllegalTransition {
    /// Where it stands.
    pub state: State,
    /// What was to happen.
    pub event: Event,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::Approved, Self::Denied, Self::Expired, Self::Cancelled, Self::Invalidated];

    /// As it stands in the database and in filters.
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

    /// The state of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

    /// The state after an event. An approval that was given can still be cancelled or become void, before it is used.
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

    /// As a participle, for messages.
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

/// What must be met: the quorum by group id.
pub type Requirements = BTreeMap<String, u32>;

/// What a vote says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// Yes.
    Approve,
    /// No.
    Deny,
}

impl Choice {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Approve, Self::Deny];

    /// Its name in the API and in the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::Approve => "CHOICE_APPROVE",
            Self::Deny => "CHOICE_DENY",
        }
    }
}

/// What one person said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vote {
    /// Who, by resource name.
    pub voter: String,
    /// Yes or no.
    pub choice: Choice,
    /// The required groups that the voter belonged to when voting.
    pub groups: BTreeSet<String>,
}

/// Why somebody may not vote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotEligible {
    /// Only people vote.
    #[error("only people can vote on an approval, not services or agents")]
    NotAPerson,
    /// Four eyes.
    #[error("whoever asked, has an agent ask or wrote the plan cannot vote on the own approval")]
    Asker,
    /// One vote each.
    #[error("`{0}` has voted already")]
    VotedAlready(String),
    /// Not in a group that is asked.
    #[error("`{voter}` belongs to none of the groups that are asked: {groups}")]
    NotAsked {
        /// Who.
        voter: String,
        /// The groups.
        groups: String,
    },
}

/// Checks a voter, and gives the groups that the vote counts for. `askers` are all who had a part in the asking: the
/// principal, the one on whose behalf it did, the author of the plan.
pub fn eligible(
    voter: &Principal,
    groups: &BTreeSet<String>,
    askers: &[&str],
    requirements: &Requirements,
    votes: &[Vote],
) -> Result<BTreeSet<String>, NotEligible> {
    if voter.kind != PrincipalKind::User || voter.on_behalf_of.is_some() {
        return Err(NotEligible::NotAPerson);
    }
    if askers.contains(&voter.name.as_str()) {
        return Err(NotEligible::Asker);
    }
    if votes.iter().any(|vote| vote.voter == voter.name) {
        return Err(NotEligible::VotedAlready(voter.name.clone()));
    }
    let counted: BTreeSet<String> =
        requirements.keys().filter(|group| groups.contains(*group)).cloned().collect();
    if counted.is_empty() {
        let groups = requirements.keys().cloned().collect::<Vec<_>>().join(", ");
        return Err(NotEligible::NotAsked { voter: voter.name.clone(), groups });
    }
    Ok(counted)
}

/// Whether every group has enough distinct people who said yes.
pub fn is_met(requirements: &Requirements, votes: &[Vote]) -> bool {
    requirements.iter().all(|(group, quorum)| {
        let yes = votes.iter().filter(|vote| vote.choice == Choice::Approve && vote.groups.contains(group));
        let people: BTreeSet<&str> = yes.map(|vote| vote.voter.as_str()).collect();
        people.len() >= *quorum as usize
    })
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
        assert!(State::ALL.iter().all(|state| State::parse(state.as_str()) == Some(*state)));
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
        let asked = Requirements::from([("platform".into(), 1)]);
        let platform = BTreeSet::from(["platform".to_owned(), "x".to_owned()]);
        let alice = user("alice").name;
        let check = |voter: &Principal, groups: &BTreeSet<String>, behalf: Option<&str>, votes: &[Vote]| {
            let askers: Vec<&str> = std::iter::once(alice.as_str()).chain(behalf).collect();
            eligible(voter, groups, &askers, &asked, votes)
        };
        assert_eq!(check(&user("bob"), &platform, None, &[]), Ok(BTreeSet::from(["platform".to_owned()])));
        assert_eq!(check(&user("alice"), &platform, None, &[]), Err(NotEligible::Asker));
        let bob = user("bob").name;
        assert_eq!(check(&user("bob"), &platform, Some(&bob), &[]), Err(NotEligible::Asker));
        let voted = check(&user("bob"), &platform, None, &[vote("bob", &["platform"])]);
        assert_eq!(voted, Err(NotEligible::VotedAlready(bob)));
        assert!(matches!(
            check(&user("bob"), &BTreeSet::from(["x".to_owned()]), None, &[]),
            Err(NotEligible::NotAsked { .. })
        ));
        let agent = Principal { kind: PrincipalKind::Agent, ..user("bot") };
        assert_eq!(check(&agent, &platform, None, &[]), Err(NotEligible::NotAPerson));
        let behalf = Principal { on_behalf_of: Some(alice.clone()), ..user("bob") };
        assert_eq!(check(&behalf, &platform, None, &[]), Err(NotEligible::NotAPerson));
    }

    #[test]
    fn quorum_counts_distinct_people_for_each_group() {
        let asked = Requirements::from([("platform".into(), 2), ("security".into(), 1)]);
        let both = ["platform", "security"];
        assert!(!is_met(&asked, &[]));
        assert!(!is_met(&asked, &[vote("bob", &both)]));
        assert!(!is_met(&asked, &[vote("bob", &both), vote("bob", &both)]));
        assert!(is_met(&asked, &[vote("bob", &both), vote("carol", &["platform"])]));
        let no = Vote { choice: Choice::Deny, ..vote("carol", &["platform"]) };
        assert!(!is_met(&asked, &[vote("bob", &both), no]));
    }
}
