//! Approvals on the wire.

use pavior_core::Fault;
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
use crate::app::approval::{Cancel, CastRequest};
use crate::domain::approval::{Choice, State, Vote};
use crate::domain::record::{ApprovalFields, CastVote, Requirement};
use crate::error::Error;

/// Most that one batch asks for.
const MAX_BATCH: usize = 1_000;

impl Wire for ApprovalFields {
    type Message = pb::Approval;

    fn encode(stored: &Stored<Self>) -> pb::Approval {
        let ApprovalFields {
            state,
            requester,
            on_behalf_of: _,
            author,
            action,
            resource,
            operation,
            plan,
            plan_digest,
            summary,
            requirements,
            votes,
            expire_time,
            end_reason: _,
        } = stored.fields.clone();
        let state = match state {
            State::Pending => pb::approval::State::Pending,
            State::Approved => pb::approval::State::Approved,
            State::Denied => pb::approval::State::Denied,
            State::Expired => pb::approval::State::Expired,
            State::Cancelled => pb::approval::State::Cancelled,
            State::Invalidated => pb::approval::State::Invalidated,
        };
        let organization = &stored.organization;
        let (create_time, update_time) = times(stored);
        pb::Approval {
            name: stored.name(),
            uid: stored.uid.to_string(),
            etag: stored.etag(),
            state: state.into(),
            requester,
            author,
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
        }
    }

    fn decode(
        _message: &pb::Approval,
        _scope: &Scope<'_, App>,
        _before: Option<&Self>,
        violations: &mut Violations,
    ) -> Option<Self> {
        violations.add("", Fault::Conflict, "people vote on it, and it is never written otherwise");
        None
    }
}

pub(super) fn encode_requirement(organization: &str, requirement: Requirement) -> pb::ApprovalRequirement {
    let Requirement { group, quorum, rule_ids, ttl_seconds } = requirement;
    pb::ApprovalRequirement {
        quorum: i32::try_from(quorum).unwrap_or(i32::MAX),
        group: format!("organizations/{organization}/groups/{group}"),
        rule_ids,
        ttl: ttl_seconds.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
    }
}

fn encode_vote(cast: CastVote) -> pb::approval::Vote {
    let CastVote { vote, reason, vote_time, plan_digest } = cast;
    let Vote { voter, choice, groups: _ } = vote;
    let choice = match choice {
        Choice::Approve => pb::approval::Choice::Approve,
        Choice::Deny => pb::approval::Choice::Deny,
    };
    let (choice, vote_time) = (choice.into(), Some(to_timestamp(vote_time)));
    pb::approval::Vote { voter, choice, reason, vote_time, plan_digest }
}

/// As it is shown at a time, which ends a request whether or not that could be written down.
fn encode_at(stored: &Stored<ApprovalFields>, now: OffsetDateTime) -> pb::Approval {
    let mut message = ApprovalFields::encode(stored);
    if stored.fields.state == State::Pending && now >= stored.fields.expire_time {
        message.set_state(pb::approval::State::Expired);
    }
    message
}

impl Api {
    pub(super) async fn approval(&self, request: Request<pb::GetApprovalRequest>) -> Answer<pb::Approval> {
        let (permit, request) = read_request(request)?;
        let found = async {
            let action = pb::GetApprovalRequest::ACTION;
            let named = name::<ApprovalFields>(&permit, "name", &request.name, action)?;
            self.app.get_approval(&permit, &named.id).await
        };
        let now = self.app.kernel().clock.now();
        respond(found.await.map(|stored| encode_at(&stored, now)))
    }

    pub(super) async fn several_approvals(
        &self,
        request: Request<decision_pb::BatchGetApprovalsRequest>,
    ) -> Answer<decision_pb::BatchGetApprovalsResponse> {
        let (permit, request) = read_request(request)?;
        let found = async {
            let action = decision_pb::BatchGetApprovalsRequest::ACTION;
            parent::<ApprovalFields>(&permit, "parent", &request.parent, false, action)?;
            if request.names.len() > MAX_BATCH {
                let text = format!("has more than {MAX_BATCH} elements");
                return Err(Problem::invalid_field("names", Fault::Pattern, text).into());
            }
            let mut ids = Vec::with_capacity(request.names.len());
            for full in &request.names {
                match name::<ApprovalFields>(&permit, "names", full, action) {
                    Ok(named) => ids.push(named.id),
                    Err(ResourceError::Denied { .. }) => {
                        let text = format!("`{full}` is not below `{}`", request.parent);
                        return Err(Problem::invalid_field("names", Fault::Pattern, text).into());
                    }
                    Err(error) => return Err(Error::from(error)),
                }
            }
            self.app.batch_get_approvals(&permit, &ids).await
        };
        let now = self.app.kernel().clock.now();
        respond(found.await.map(|found| decision_pb::BatchGetApprovalsResponse {
            approvals: found.iter().map(|stored| encode_at(stored, now)).collect(),
        }))
    }

    pub(super) async fn page_of_approvals(
        &self,
        request: Request<pb::ListApprovalsRequest>,
    ) -> Answer<pb::ListApprovalsResponse> {
        type Asked = pb::ListApprovalsRequest;
        let (permit, request) = read_request(request)?;
        let kernel = self.app.kernel();
        let listed = async {
            let parent = parent::<ApprovalFields>(&permit, "parent", &request.parent, false, Asked::ACTION)?;
            let page = open_page(kernel, &request)?;
            let query = list_query(&request, parent, &page)?;
            let (found, positions) = self.app.list_approvals(&permit, &query).await?;
            let now = kernel.clock.now();
            let rows = found.iter().map(|stored| encode_at(stored, now)).zip(positions).collect();
            Ok::<_, Error>(close::<Asked>(kernel, &page, rows))
        };
        respond(listed.await)
    }

    pub(super) async fn approve(&self, request: Request<pb::ApproveApprovalRequest>) -> Answer<pb::Approval> {
        let (permit, request) = read_request(request)?;
        let context = ChangeContext::of(&permit, &request);
        let pb::ApproveApprovalRequest { name, reason, plan_digest, request_id: _ } = request;
        self.cast(
            context,
            name,
            CastRequest { id: String::new(), choice: Choice::Approve, reason, plan_digest },
        )
        .await
    }

    pub(super) async fn deny(&self, request: Request<pb::DenyApprovalRequest>) -> Answer<pb::Approval> {
        let (permit, request) = read_request(request)?;
        let context = ChangeContext::of(&permit, &request);
        let pb::DenyApprovalRequest { name, reason, plan_digest, request_id: _ } = request;
        self.cast(context, name, CastRequest { id: String::new(), choice: Choice::Deny, reason, plan_digest })
            .await
    }

    async fn cast(&self, context: ChangeContext, full: String, request: CastRequest) -> Answer<pb::Approval> {
        decision::check_reason(&request.reason)?;
        let voted = once(&self.app, &context, async {
            let id = name::<ApprovalFields>(&context.permit, "name", &full, context.action)?.id;
            self.app.vote(&context, ApprovalFields::encode, CastRequest { id, ..request }).await
        });
        respond(voted.await)
    }

    pub(super) async fn ask_for_approval(
        &self,
        request: Request<decision_pb::CreateApprovalRequest>,
    ) -> Answer<pb::Approval> {
        let (permit, request) = (pavior_auth::permit(&request)?, request.into_inner());
        let context = ChangeContext::of(&permit, &request);
        let asked = once(&self.app, &context, async {
            let ask = decision::ask(&request)?;
            self.app.create_approval(&context, ApprovalFields::encode, ask).await
        });
        respond(asked.await)
    }

    pub(super) async fn cancel(
        &self,
        request: Request<decision_pb::CancelApprovalRequest>,
    ) -> Answer<pb::Approval> {
        let (permit, request) = read_request(request)?;
        decision::check_reason(&request.reason)?;
        let context = ChangeContext::of(&permit, &request);
        let cancelled = async {
            let named = name::<ApprovalFields>(&permit, "name", &request.name, context.action)?;
            let command = Cancel { id: named.id, reason: request.reason, invalidated: request.invalidated };
            self.app.cancel_approval(&context, ApprovalFields::encode, command).await
        };
        respond(cancelled.await)
    }
}
