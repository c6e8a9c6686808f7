//! What a use case needs to know of a kind of resource, besides its table.

use pavior_proto::pavior::policy::v1 as pb;
use pavior_rpc::{Violations, convert};

use crate::domain::action::Actions;
use crate::domain::approval::State;
use crate::domain::record::{ApprovalSpec, CastVote, Requirement, Stored};
use crate::store::Table;

use super::rules::Rules;

/// What decoding looks at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decoding<'a> {
    /// The id of the organization.
    pub(crate) organization: &'a str,
    /// The actions that there are.
    pub(crate) actions: &'a Actions,
    /// The path of the resource in the request.
    pub(crate) path: &'static str,
}

/// A kind of resource on the wire.
pub(crate) trait Codec: Rules {
    /// Its message.
    type Wire: prost::Message + prost::Name + Default + Clone + Send + Sync + 'static;

    /// The message of a resource.
    fn encode(stored: &Stored<Self>) -> Self::Wire;
    /// What a message says; none when there is a violation.
    fn decode(wire: &Self::Wire, decoding: Decoding<'_>, violations: &mut Violations) -> Option<Self>;
}

/// The resource name of a resource.
pub(crate) fn name_of<T: Table>(organization: &str, id: &str) -> String {
    format!("organizations/{organization}/{}/{id}", T::COLLECTION)
}

/// The message of an approval request.
pub(crate) fn approval_to_wire(stored: &Stored<ApprovalSpec>) -> pb::ApprovalRequest {
    let Stored { uid, organization, id, revision: _, create_time, update_time, spec } = stored;
    let ApprovalSpec {
        state,
        requester,
        on_behalf_of: _,
        action,
        resource,
        operation,
        plan,
        plan_digest,
        summary,
        requirements,
        decisions,
        votes,
        expire_time,
        end_reason: _,
    } = spec.clone();
    let state = match state {
        State::Pending => pb::approval_request::State::Pending,
        State::Approved => pb::approval_request::State::Approved,
        State::Denied => pb::approval_request::State::Denied,
        State::Expired => pb::approval_request::State::Expired,
        State::Cancelled => pb::approval_request::State::Cancelled,
        State::Invalidated => pb::approval_request::State::Invalidated,
    };
    pb::ApprovalRequest {
        name: format!("organizations/{organization}/approvalRequests/{id}"),
        uid: uid.to_string(),
        etag: stored.etag(),
        state: state.into(),
        requester,
        action,
        resource,
        operation,
        plan,
        plan_digest,
        summary,
        requirements: requirements.into_iter().map(|one| requirement_to_wire(organization, one)).collect(),
        votes: votes.into_iter().map(vote_to_wire).collect(),
        create_time: Some(convert::to_timestamp(*create_time)),
        update_time: Some(convert::to_timestamp(*update_time)),
        expire_time: Some(convert::to_timestamp(expire_time)),
        decisions,
    }
}

fn requirement_to_wire(organization: &str, requirement: Requirement) -> pb::ApprovalRequirement {
    let Requirement { group, quorum, policy_ids, expiry_seconds } = requirement;
    pb::ApprovalRequirement {
        quorum: i32::try_from(quorum).unwrap_or(i32::MAX),
        group: format!("organizations/{organization}/groups/{group}"),
        policy_ids,
        expiry: expiry_seconds.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
    }
}

fn vote_to_wire(cast: CastVote) -> pb::approval_request::Vote {
    let CastVote { vote, reason, vote_time, plan_digest } = cast;
    let vote_time = Some(convert::to_timestamp(vote_time));
    pb::approval_request::Vote { voter: vote.voter, approved: vote.approved, reason, vote_time, plan_digest }
}
