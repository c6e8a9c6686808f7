//! Approvals.

use pavior_core::Fault;
use std::collections::{BTreeMap, BTreeSet};

use pavior_auth::Permit;
use pavior_core::audit::Affected;
use pavior_core::principal::service_name;
use pavior_core::resource::{Fields as _, Stored};
use pavior_core::{PrincipalKind, ResourceName};
use pavior_resource::{
    AuditEntry, ChangeContext, Done, Error as ResourceError, ListQuery, Rules, Service as _, Work, crud,
    record, run,
};
use pavior_rpc::problem::reason_name;
use pavior_rpc::{ErrorReason, Problem};
use pavior_store::StoreError;
use prost::Message;
use serde_json::Value as Json;
use time::Duration;

use super::App;
use crate::domain::approval::{
    ApprovalFields, CastVote, Choice, Event, IllegalTransition, NotEligible, Requirement, State, Vote,
    eligible, is_met,
};
use crate::error::Error;
use crate::store;

/// The action that audit records of expiry name.
const EXPIRE: &str = "policy.approvals.expire";
/// Most due approvals that are read at once.
const EXPIRY_BATCH: u64 = 100;

impl Rules for ApprovalFields {
    type Service = App;
}

type Approval = Stored<ApprovalFields>;

/// A request for an approval.
#[derive(Debug, Clone)]
pub(crate) struct ApprovalRequest {
    pub(crate) organization: String,
    /// The person, if a service of the platform requests it in its own name.
    pub(crate) requester: String,
    /// The author of the plan, if it is somebody else.
    pub(crate) author: String,
    pub(crate) action: String,
    pub(crate) resource: String,
    pub(crate) operation: String,
    pub(crate) plan: String,
    pub(crate) plan_digest: String,
    pub(crate) summary: String,
    pub(crate) requirements: Vec<Requirement>,
}

/// A vote to be cast.
#[derive(Debug, Clone)]
pub(crate) struct VoteRequest {
    /// The id of the approval.
    pub(crate) id: String,
    pub(crate) choice: Choice,
    pub(crate) reason: String,
    pub(crate) plan_digest: String,
}

/// An approval to be cancelled or invalidated.
#[derive(Debug, Clone)]
pub(crate) struct CancelRequest {
    pub(crate) id: String,
    pub(crate) reason: String,
    pub(crate) invalidated: bool,
}

fn not_found(organization: &str, id: &str) -> Error {
    let name = format!("organizations/{organization}/approvals/{id}");
    ResourceError::not_found::<ApprovalFields>(&name).into()
}

/// The requester, and the principal on whose behalf it acts. Every approval needs a person who is kept from voting on it: a
/// service of the platform that acts in its own name must name the person, and any other principal must be one or act for
/// one.
fn requester(permit: &Permit, request: &ApprovalRequest) -> Result<(String, Option<String>), Error> {
    let principal = permit.principal();
    let itself = principal.name == service_name(permit.caller());
    let pattern = "organizations/{organization}/users/{user}";
    if principal.kind != PrincipalKind::Service || !itself {
        let person = |name: &String| ResourceName::parse_as(name, pattern).is_ok();
        if principal.kind != PrincipalKind::User && !principal.on_behalf_of.as_ref().is_some_and(person) {
            let text = format!("`{}` acts for nobody, and cannot ask people", principal.name);
            return Err(Problem::precondition(ErrorReason::ApproverNotEligible, text).into());
        }
        return Ok((principal.name.clone(), principal.on_behalf_of.clone()));
    }
    match ResourceName::parse_as(&request.requester, pattern) {
        Ok(name) => Ok((name.as_str().to_owned(), None)),
        Err(error) => {
            Err(Problem::invalid_field("approval.requester", Fault::Pattern, error.to_string()).into())
        }
    }
}

impl App {
    /// Reads an approval.
    pub(crate) async fn get_approval(&self, permit: &Permit, id: &str) -> Result<Approval, Error> {
        self.expire_before_read(permit.organization()).await?;
        let found = store::approval_by_id(self.kernel.store.read(), permit, id).await?;
        found.ok_or_else(|| not_found(permit.organization(), id))
    }

    /// Reads several approvals, in the order of `ids`.
    pub(crate) async fn batch_get_approvals(
        &self,
        permit: &Permit,
        ids: &[String],
    ) -> Result<Vec<Approval>, Error> {
        self.expire_before_read(permit.organization()).await?;
        let wanted: BTreeSet<String> = ids.iter().cloned().collect();
        let wanted: Vec<String> = wanted.into_iter().collect();
        let found = store::approvals_by_ids(self.kernel.store.read(), permit, &wanted).await?;
        let one = |id: &String| found.get(id).cloned().ok_or_else(|| not_found(permit.organization(), id));
        ids.iter().map(one).collect()
    }

    /// Reads a page of approvals with their positions, and how many there are on all pages when that was asked.
    pub(crate) async fn list_approvals(
        &self,
        permit: &Permit,
        query: &ListQuery,
    ) -> Result<(Vec<Approval>, Vec<Json>, Option<u64>), Error> {
        self.expire_before_read(permit.organization()).await?;
        let listing = crud::list::<ApprovalFields>(self, permit, query).await?;
        let rows = store::with_votes(self.kernel.store.read(), permit, listing.rows).await?;
        Ok((rows, listing.positions, listing.total))
    }

    /// Creates an approval; returns the existing one if the operation already has one for the same plan.
    pub(crate) async fn create_approval<M: Message + Default + 'static>(
        &self,
        context: &ChangeContext,
        encode: fn(&Approval) -> M,
        request: ApprovalRequest,
    ) -> Result<M, Error> {
        let permit = &context.permit;
        if request.organization != permit.organization() {
            let (action, resource) =
                (context.action.to_owned(), format!("organizations/{}", request.organization));
            return Err(ResourceError::Denied { action, resource }.into());
        }
        let stored = self.new_approval(permit, request)?;
        run(self, context, encode, stored, |work, stored| Box::pin(create(work, stored))).await
    }

    fn new_approval(&self, permit: &Permit, request: ApprovalRequest) -> Result<Approval, Error> {
        let (requester, on_behalf_of) = requester(permit, &request)?;
        let ApprovalRequest {
            organization,
            requester: _,
            author,
            action,
            resource,
            operation,
            plan,
            plan_digest,
            summary,
            requirements,
        } = request;
        let (uid, now) = (self.kernel.ids.uuid(), self.kernel.clock.now());
        let shortest = requirements.iter().filter_map(|requirement| requirement.ttl_seconds).min();
        let seconds = shortest.unwrap_or(self.config.approval_ttl_seconds);
        let seconds = seconds.clamp(1, self.config.approval_max_ttl_seconds);
        let fields = ApprovalFields {
            state: State::Pending,
            requester,
            on_behalf_of,
            author,
            action,
            resource,
            operation,
            plan,
            plan_digest,
            summary,
            requirements,
            votes: Vec::new(),
            expire_time: now + Duration::seconds(seconds),
            end_reason: String::new(),
        };
        let id = uid.to_string();
        Ok(Stored::new(&organization, &id, uid, now, fields))
    }

    /// Casts a vote.
    pub(crate) async fn vote<M: Message + Default + 'static>(
        &self,
        context: &ChangeContext,
        encode: fn(&Approval) -> M,
        request: VoteRequest,
    ) -> Result<M, Error> {
        let (permit, id) = (&context.permit, request.id.clone());
        let organization = permit.organization();
        self.expire_before_read(organization).await?;
        let directory = self.directories.get(organization).await?;
        let voter = permit.principal();
        // Groups that another organization claims for the voter do not count.
        let groups = if voter.organization == organization {
            let claimed = voter.groups.iter().map(|group| group.rsplit('/').next().unwrap_or(group));
            directory.groups_of(&voter.name, claimed)
        } else {
            BTreeSet::new()
        };
        let voted = run(self, context, encode, (request, groups), |work, (request, groups)| {
            Box::pin(vote(work, request, groups))
        });
        match voted.await {
            Err(Error::NotEligible(why)) => {
                self.record_refused_vote(context, &id, &why).await?;
                Err(why.into())
            }
            voted => voted,
        }
    }

    /// Writes the audit record of a refused vote.
    async fn record_refused_vote(
        &self,
        context: &ChangeContext,
        id: &str,
        why: &NotEligible,
    ) -> Result<(), Error> {
        let permit = &context.permit;
        let name = format!("organizations/{}/approvals/{id}", permit.organization());
        let reason = reason_name(ErrorReason::ApproverNotEligible);
        let summary = format!("`{}` may not vote on `{name}`: {why}", permit.acting().name);
        let target = Affected::new(ApprovalFields::TYPE, &name);
        let entry = AuditEntry::refused(target, reason, summary);
        Ok(record(self.kernel(), context, entry).await?)
    }

    /// Cancels or invalidates an approval. One that has already ended is returned unchanged.
    pub(crate) async fn cancel_approval<M: Message + Default + 'static>(
        &self,
        context: &ChangeContext,
        encode: fn(&Approval) -> M,
        request: CancelRequest,
    ) -> Result<M, Error> {
        run(self, context, encode, request, |work, request| Box::pin(cancel(work, request))).await
    }

    /// As [`App::expire_due`]. While the audit outbox is full, expiry is written later and reads go on.
    async fn expire_before_read(&self, organization: &str) -> Result<(), Error> {
        match self.expire_due(organization).await {
            Err(Error::Resource(ResourceError::Store(
                StoreError::OutboxFull { .. } | StoreError::OrganizationOutboxFull { .. },
            )))
            | Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Expires the pending approvals of an organization that are due. Called before every read and by the reaper.
    pub(crate) async fn expire_due(&self, organization: &str) -> Result<u64, Error> {
        let permit = self.system_permit(organization);
        let mut count = 0;
        loop {
            let due = store::due_approvals(
                self.kernel.store.read(),
                &permit,
                self.kernel.clock.now(),
                EXPIRY_BATCH,
            )
            .await?;
            if due.is_empty() {
                return Ok(count);
            }
            for id in due {
                count += u64::from(self.expire_one(&permit, id).await?);
            }
        }
    }

    async fn expire_one(&self, permit: &Permit, id: String) -> Result<bool, Error> {
        let context = ChangeContext::background(permit, EXPIRE);
        let shown: fn(&Approval) -> bool = |stored| stored.fields.state == State::Expired;
        run(self, &context, shown, id, |work, id| Box::pin(expire(work, id))).await
    }
}

async fn create(work: &Work<'_, App>, stored: &Approval) -> Result<Done<Approval>, Error> {
    let ApprovalFields { operation, plan_digest, .. } = &stored.fields;
    if let Some(known) = store::approval_for_plan(work.tx, work.permit, operation, plan_digest).await? {
        return Ok(Done::unchanged(known));
    }
    work.rows().insert(work.permit, stored).await?;
    Ok(Done::new(stored.clone(), entry("asked for", None, stored)))
}

async fn vote(
    work: &Work<'_, App>,
    request: &VoteRequest,
    groups: &BTreeSet<String>,
) -> Result<Done<Approval>, Error> {
    let VoteRequest { id, choice, reason, plan_digest } = request;
    let current = current(work, id).await?;
    let fields = &current.fields;
    if !plan_digest.is_empty() && *plan_digest != fields.plan_digest {
        return Err(Error::OtherPlan { wanted: fields.plan_digest.clone(), given: plan_digest.clone() });
    }
    let event = match choice {
        Choice::Approve => Event::ApprovedInPart,
        Choice::Deny => Event::Denied,
    };
    let over = fields.state == State::Pending && work.now >= fields.expire_time;
    let state = if over { State::Expired } else { fields.state };
    state.next(event)?;
    let behalf = fields.on_behalf_of.as_deref().unwrap_or_default();
    let requesters = [fields.requester.as_str(), behalf, &fields.author];
    let counted = eligible(work.permit.principal(), groups, &requesters, &fields.quorums(), &fields.votes())?;
    let cast = CastVote {
        vote: Vote { voter: work.permit.principal().name.clone(), choice: *choice, groups: counted },
        reason: reason.clone(),
        vote_time: work.now,
        plan_digest: fields.plan_digest.clone(),
    };
    let mut changed = fields.clone();
    changed.votes.push(cast.clone());
    let met = is_met(&changed.quorums(), &changed.votes());
    let event = if event == Event::ApprovedInPart && met { Event::Approved } else { event };
    let changed = step(work, &current, changed, event).await?;
    store::insert_vote(work.tx, work.permit, &current, &cast).await?;
    let entry = entry(event.as_str(), Some(&current), &changed);
    Ok(Done::new(changed, entry))
}

async fn cancel(work: &Work<'_, App>, request: &CancelRequest) -> Result<Done<Approval>, Error> {
    let CancelRequest { id, reason, invalidated } = request;
    let current = current(work, id).await?;
    let (event, verb) = match invalidated {
        true => (Event::Invalidated, "invalidated"),
        false => (Event::Cancelled, "cancelled"),
    };
    if current.fields.state.next(event).is_err() {
        return Ok(Done::unchanged(current));
    }
    let fields = ApprovalFields { end_reason: reason.clone(), ..current.fields.clone() };
    let changed = step(work, &current, fields, event).await?;
    let entry = entry(verb, Some(&current), &changed);
    Ok(Done::new(changed, entry))
}

async fn expire(work: &Work<'_, App>, id: &str) -> Result<Done<Approval>, Error> {
    let current = current(work, id).await?;
    if current.fields.state.next(Event::Expired).is_err() {
        return Ok(Done::unchanged(current));
    }
    let changed = step(work, &current, current.fields.clone(), Event::Expired).await?;
    let entry = entry("expired", Some(&current), &changed);
    Ok(Done::new(changed, entry))
}

async fn current(work: &Work<'_, App>, id: &str) -> Result<Approval, Error> {
    let found = store::approval_by_id(work.tx, work.permit, id).await?;
    found.ok_or_else(|| not_found(work.permit.organization(), id))
}

/// Applies an event to an approval and writes it.
async fn step(
    work: &Work<'_, App>,
    current: &Approval,
    mut fields: ApprovalFields,
    event: Event,
) -> Result<Approval, Error> {
    fields.state = fields.state.next(event)?;
    let changed = current.next(work.now, fields);
    work.rows().update(work.permit, &changed).await?;
    Ok(changed)
}

fn entry(verb: &str, before: Option<&Approval>, after: &Approval) -> AuditEntry {
    let plan_digest = Some(after.fields.plan_digest.clone());
    AuditEntry { plan_digest, ..AuditEntry::change(verb, before, Some(after)) }
}

/// The message of a vote on an approval that has ended.
pub(crate) fn closed_message(error: &IllegalTransition) -> String {
    format!("the approval is {} already", error.state.as_str().to_lowercase())
}

/// Merges the requirements of each group: the larger quorum, the shorter time.
pub(crate) fn merge(requirements: Vec<Requirement>) -> Vec<Requirement> {
    let mut all = BTreeMap::<String, Requirement>::new();
    for requirement in requirements {
        match all.get_mut(&requirement.group) {
            None => {
                all.insert(requirement.group.clone(), requirement);
            }
            Some(known) => {
                known.quorum = known.quorum.max(requirement.quorum);
                known.rule_ids.extend(requirement.rule_ids);
                known.ttl_seconds = [known.ttl_seconds, requirement.ttl_seconds].into_iter().flatten().min();
            }
        }
    }
    all.into_values().collect()
}
