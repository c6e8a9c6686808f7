//! Approval requests on the wire.

use pavior_core::resource::{Stored, Violations};
use pavior_proto::pavior::policy::internal::v1 as decision_pb;
use pavior_proto::pavior::policy::v1 as pb;
use pavior_proto::shape::Request as _;
use pavior_resource::{
    Answer, ChangeContext, Error as ResourceError, Scope, Service as _, Wire, close, list_query, name, once,
    open_page, parent, read_request, respond, times,
};
use pavior_rpc::Problem;
use pavior_rpc::convert::to_timestamp;
use time::OffsetDateTime;
use tonic::Request;

use super::{Api, decision};
use crate::app::App;
use crate::app::approval_request::{Cancel, CastRequest};
use crate::domain::approval::State;
use crate::domain::record::{ApprovalRequestFields, CastVote, Requirement};
use crate::error::Error;

/// Most that one batch asks for.
const MAX_BATCH: usize = 1_000;

impl Wire for ApprovalRequestFields {
    type Message = pb::ApprovalRequest;

    fn encode(stored: &Stored<Self>) -> pb::ApprovalRequest {
        let ApprovalRequestFields {
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
        } = stored.fields.clone();
        let state = match state {
            State::Pending => pb::approval_request::State::Pending,
            State::Approved => pb::approval_request::State::Approved,
            State::Denied => pb::approval_request::State::Denied,
            State::Expired => pb::approval_request::State::Expired,
            State::Cancelled => pb::approval_request::State::Cancelled,
            State::Invalidated => pb::approval_request::State::Invalidated,
        };
        let organization = &stored.organization;
        let (create_time, update_time) = times(stored);
        pb::ApprovalRequest {
            name: stored.name(),
            uid: stored.uid.to_string(),
            etag: stored.etag(),
            state: state.into(),
            requester,
            action,
            resource,
            operation,
            plan,
            plan_digest,
            summary,
            requirements: requirements.into_iter().map(|one| encode_requirement(organization, one)).collect(),
            votes: votes.into_iter().map(encode_vote).collect(),
            create_time,
            update_time,
            expire_time: Some(to_timestamp(expire_time)),
            decisions,
        }
    }

    fn decode(
        _message: &pb::ApprovalRequest,
        _scope: &Scope<'_, App>,
        _before: Option<&Self>,
        violations: &mut Violations,
    ) -> Option<Self> {
        violations.add("", "people vote on it, and it is never written otherwise");
        None
    }
}

fn encode_requirement(organization: &str, requirement: Requirement) -> pb::ApprovalRequirement {
    let Requirement { group, quorum, policy_ids, expiry_seconds } = requirement;
    pb::ApprovalRequirement {
        quorum: i32::try_from(quorum).unwrap_or(i32::MAX),
        group: format!("organizations/{organization}/groups/{group}"),
        policy_ids,
        expiry: expiry_seconds.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
    }
}

fn encode_vote(cast: CastVote) -> pb::approval_request::Vote {
    let CastVote { vote, reason, vote_time, plan_digest } = cast;
    let vote_time = Some(to_timestamp(vote_time));
    pb::approval_request::Vote { voter: vote.voter, approved: vote.approved, reason, vote_time, plan_digest }
}

/// As it is shown at a time, which ends a request whether or not that could be written down.
fn encode_at(stored: &Stored<ApprovalRequestFields>, now: OffsetDateTime) -> pb::ApprovalRequest {
    let mut message = ApprovalRequestFields::encode(stored);
    if stored.fields.state == State::Pending && now >= stored.fields.expire_time {
        message.set_state(pb::approval_request::State::Expired);
    }
    message
}

impl Api {
    pub(super) async fn approval_request(
        &self,
        request: Request<pb::GetApprovalRequestRequest>,
    ) -> Answer<pb::ApprovalRequest> {
        let (permit, request) = read_request(request)?;
        let found = async {
            let action = pb::GetApprovalRequestRequest::ACTION;
            let named = name::<ApprovalRequestFields>(&permit, "name", &request.name, action)?;
            self.app.get_approval(&permit, &named.id).await
        };
        let now = self.app.kernel().clock.now();
        respond(found.await.map(|stored| encode_at(&stored, now)))
    }

    pub(super) async fn several_approval_requests(
        &self,
        request: Request<decision_pb::BatchGetApprovalRequestsRequest>,
    ) -> Answer<decision_pb::BatchGetApprovalRequestsResponse> {
        let (permit, request) = read_request(request)?;
        let found = async {
            let action = decision_pb::BatchGetApprovalRequestsRequest::ACTION;
            parent::<ApprovalRequestFields>(&permit, "parent", &request.parent, false, action)?;
            if request.names.len() > MAX_BATCH {
                let text = format!("has more than {MAX_BATCH} elements");
                return Err(Problem::invalid_field("names", text).into());
            }
            let mut ids = Vec::with_capacity(request.names.len());
            for full in &request.names {
                match name::<ApprovalRequestFields>(&permit, "names", full, action) {
                    Ok(named) => ids.push(named.id),
                    Err(ResourceError::Denied { .. }) => {
                        let text = format!("`{full}` is not below `{}`", request.parent);
                        return Err(Problem::invalid_field("names", text).into());
                    }
                    Err(error) => return Err(Error::from(error)),
                }
            }
            self.app.batch_get_approvals(&permit, &ids).await
        };
        let now = self.app.kernel().clock.now();
        respond(found.await.map(|found| decision_pb::BatchGetApprovalRequestsResponse {
            approval_requests: found.iter().map(|stored| encode_at(stored, now)).collect(),
        }))
    }

    pub(super) async fn page_of_approval_requests(
        &self,
        request: Request<pb::ListApprovalRequestsRequest>,
    ) -> Answer<pb::ListApprovalRequestsResponse> {
        type Asked = pb::ListApprovalRequestsRequest;
        let (permit, request) = read_request(request)?;
        let kernel = self.app.kernel();
        let listed = async {
            let parent =
                parent::<ApprovalRequestFields>(&permit, "parent", &request.parent, false, Asked::ACTION)?;
            let page = open_page(kernel, &request)?;
            let query = list_query(&request, parent, &page)?;
            let (found, positions) = self.app.list_approvals(&permit, &query).await?;
            let now = kernel.clock.now();
            let rows = found.iter().map(|stored| encode_at(stored, now)).zip(positions).collect();
            Ok::<_, Error>(close::<Asked>(kernel, &page, rows))
        };
        respond(listed.await)
    }

    pub(super) async fn approve(
        &self,
        request: Request<pb::ApproveApprovalRequestRequest>,
    ) -> Answer<pb::ApprovalRequest> {
        let (permit, request) = read_request(request)?;
        let context = ChangeContext::of(&permit, &request);
        let pb::ApproveApprovalRequestRequest { name, reason, plan_digest, request_id: _ } = request;
        self.cast(context, name, CastRequest { id: String::new(), approved: true, reason, plan_digest }).await
    }

    pub(super) async fn deny(
        &self,
        request: Request<pb::DenyApprovalRequestRequest>,
    ) -> Answer<pb::ApprovalRequest> {
        let (permit, request) = read_request(request)?;
        let context = ChangeContext::of(&permit, &request);
        let pb::DenyApprovalRequestRequest { name, reason, plan_digest, request_id: _ } = request;
        self.cast(context, name, CastRequest { id: String::new(), approved: false, reason, plan_digest })
            .await
    }

    async fn cast(
        &self,
        context: ChangeContext,
        full: String,
        request: CastRequest,
    ) -> Answer<pb::ApprovalRequest> {
        decision::check_reason(&request.reason)?;
        let voted = once(&self.app, &context, async {
            let id = name::<ApprovalRequestFields>(&context.permit, "name", &full, context.action)?.id;
            self.app.vote(&context, ApprovalRequestFields::encode, CastRequest { id, ..request }).await
        });
        respond(voted.await)
    }

    pub(super) async fn ask_for_approval(
        &self,
        request: Request<decision_pb::CreateApprovalRequestRequest>,
    ) -> Answer<pb::ApprovalRequest> {
        let (permit, request) = (pavior_auth::permit(&request)?, request.into_inner());
        let context = ChangeContext::of(&permit, &request);
        let asked = once(&self.app, &context, async {
            let ask = decision::ask(&request)?;
            self.app.create_approval(&context, ApprovalRequestFields::encode, ask).await
        });
        respond(asked.await)
    }

    pub(super) async fn cancel(
        &self,
        request: Request<decision_pb::CancelApprovalRequestRequest>,
    ) -> Answer<pb::ApprovalRequest> {
        let (permit, request) = read_request(request)?;
        decision::check_reason(&request.reason)?;
        let context = ChangeContext::of(&permit, &request);
        let cancelled = async {
            let named = name::<ApprovalRequestFields>(&permit, "name", &request.name, context.action)?;
            let command = Cancel { id: named.id, reason: request.reason, invalidated: request.invalidated };
            self.app.cancel_approval(&context, ApprovalRequestFields::encode, command).await
        };
        respond(cancelled.await)
    }
}
