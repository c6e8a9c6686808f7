//! Approvals on the wire.

use pavior_core::Fault;
use pavior_core::resource::{Stored, Violations};
use pavior_proto::pavior::policy::internal::v1 as decision_pb;
use pavior_proto::pavior::policy::v1 as pb;
use pavior_proto::shape::Request as _;
use pavior_relay::known_to_fit;
use pavior_resource::{
    Answer, ChangeContext, Error as ResourceError, Scope, Service as _, Wire, close, list_query, name, once,
    open_page, parent, read_request, respond, times,
};
use pavior_rpc::convert::to_timestamp;
use pavior_rpc::{Problem, validate};
use time::OffsetDateTime;
use tonic::Request;

use super::{Api, decide};
use crate::app::App;
use crate::app::approval::{ApprovalRequest, CancelRequest, VoteRequest, merge};
use crate::domain::annotation::MAX_QUORUM;
use crate::domain::approval::{ApprovalFields, CastVote, Choice, Requirement, State, Vote};
use crate::error::Error;

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

/// Decodes a request for an approval. All fields of an approval are output only, hence the required ones are checked here.
fn approval_request(request: &decision_pb::CreateApprovalRequest) -> Result<ApprovalRequest, Problem> {
    let mut violations = validate::violations(request)?;
    let organization = decide::organization(&request.parent, "parent", &mut violations);
    let wire = request.approval.clone().unwrap_or_default();
    let required = [
        ("action", wire.action.is_empty()),
        ("resource", wire.resource.is_empty()),
        ("operation", wire.operation.is_empty()),
        ("plan", wire.plan.is_empty()),
        ("plan_digest", wire.plan_digest.is_empty()),
        ("requirements", wire.requirements.is_empty()),
    ];
    for (field, missing) in required {
        if request.approval.is_some() && missing {
            violations.add(format!("approval.{field}"), Fault::Required, "is required");
        }
    }
    let requirements = requirements(wire.requirements, &organization, &mut violations);
    let root = format!("organizations/{organization}/");
    for (field, name) in [("resource", &wire.resource), ("operation", &wire.operation), ("plan", &wire.plan)]
    {
        if !name.is_empty() && !format!("{name}/").starts_with(&root) {
            violations.add(
                format!("approval.{field}"),
                Fault::Conflict,
                format!("`{name}` is not in `{root}`"),
            );
        }
    }
    violations.into_result()?;
    Ok(ApprovalRequest {
        organization,
        requester: wire.requester,
        author: wire.author,
        action: wire.action,
        resource: wire.resource,
        operation: wire.operation,
        plan: wire.plan,
        plan_digest: wire.plan_digest,
        summary: wire.summary,
        requirements: merge(requirements),
    })
}

fn requirements(
    wire: Vec<pb::ApprovalRequirement>,
    organization: &str,
    violations: &mut pavior_rpc::Violations,
) -> Vec<Requirement> {
    let mut requirements = Vec::with_capacity(wire.len());
    for (at, one) in wire.into_iter().enumerate() {
        let field = format!("approval.requirements[{at}]");
        let pb::ApprovalRequirement { quorum, group: name, rule_ids, ttl } = one;
        if name.is_empty() {
            violations.add(format!("{field}.group"), Fault::Required, "is required");
        }
        let group = decide::group(&name, organization, &format!("{field}.group"), violations);
        let quorum = u32::try_from(quorum).ok().filter(|quorum| (1..=MAX_QUORUM).contains(quorum));
        if quorum.is_none() {
            violations.add(
                format!("{field}.quorum"),
                Fault::OutOfRange,
                format!("must be 1 to {MAX_QUORUM}"),
            );
        }
        if ttl.as_ref().is_some_and(|ttl| ttl.seconds <= 0) {
            violations.add(format!("{field}.ttl"), Fault::OutOfRange, "must be positive");
        }
        let ttl_seconds = ttl.map(|ttl| ttl.seconds);
        if let (Some(group), Some(quorum)) = (group, quorum) {
            requirements.push(Requirement { group: group.id, quorum, rule_ids, ttl_seconds });
        }
    }
    requirements
}

/// An approval as of `now`: one that is due is expired, even if that is not written yet.
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
            // What an older copy does not know may have been approved: whoever waits goes on waiting.
            known_to_fit(self.app.kernel().store.history())?;
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
        type List = pb::ListApprovalsRequest;
        let (permit, request) = read_request(request)?;
        let kernel = self.app.kernel();
        let listed = async {
            let parent = parent::<ApprovalFields>(&permit, "parent", &request.parent, false, List::ACTION)?;
            let page = open_page(&kernel.tokens, &request)?;
            let query = list_query(&request, parent, &page)?;
            let (found, positions, total) = self.app.list_approvals(&permit, &query).await?;
            let now = kernel.clock.now();
            let rows = found.iter().map(|stored| encode_at(stored, now)).zip(positions).collect();
            Ok::<_, Error>(close::<List>(kernel, &page, rows, total)?)
        };
        respond(listed.await)
    }

    pub(super) async fn approve(&self, request: Request<pb::ApproveApprovalRequest>) -> Answer<pb::Approval> {
        let (permit, request) = read_request(request)?;
        let context = ChangeContext::of(&permit, &request);
        let pb::ApproveApprovalRequest { name, reason, plan_digest, request_id: _ } = request;
        let vote = VoteRequest { id: String::new(), choice: Choice::Approve, reason, plan_digest };
        self.cast(context, name, vote).await
    }

    pub(super) async fn deny(&self, request: Request<pb::DenyApprovalRequest>) -> Answer<pb::Approval> {
        let (permit, request) = read_request(request)?;
        let context = ChangeContext::of(&permit, &request);
        let pb::DenyApprovalRequest { name, reason, plan_digest, request_id: _ } = request;
        let vote = VoteRequest { id: String::new(), choice: Choice::Deny, reason, plan_digest };
        self.cast(context, name, vote).await
    }

    async fn cast(&self, context: ChangeContext, full: String, request: VoteRequest) -> Answer<pb::Approval> {
        let voted = once(&self.app, &context, async {
            let id = name::<ApprovalFields>(&context.permit, "name", &full, context.action)?.id;
            self.app.vote(&context, ApprovalFields::encode, VoteRequest { id, ..request }).await
        });
        respond(voted.await)
    }

    pub(super) async fn create_operation_approval(
        &self,
        request: Request<decision_pb::CreateApprovalRequest>,
    ) -> Answer<pb::Approval> {
        let (permit, request) = (pavior_auth::permit(&request)?, request.into_inner());
        let context = ChangeContext::of(&permit, &request);
        let created = once(&self.app, &context, async {
            let request = approval_request(&request)?;
            self.app.create_approval(&context, ApprovalFields::encode, request).await
        });
        respond(created.await)
    }

    pub(super) async fn cancel(
        &self,
        request: Request<decision_pb::CancelApprovalRequest>,
    ) -> Answer<pb::Approval> {
        let (permit, request) = read_request(request)?;
        let context = ChangeContext::of(&permit, &request);
        let cancelled = async {
            let named = name::<ApprovalFields>(&permit, "name", &request.name, context.action)?;
            let request =
                CancelRequest { id: named.id, reason: request.reason, invalidated: request.invalidated };
            self.app.cancel_approval(&context, ApprovalFields::encode, request).await
        };
        respond(cancelled.await)
    }
}
