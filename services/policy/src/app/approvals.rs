//! Approval requests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pavior_auth::{Act, Permit};
use pavior_core::audit::{Object, Phase};
use pavior_core::{PrincipalKind, ResourceName};
use pavior_proto::pavior::policy::v1 as pb;
use pavior_rpc::paging::Page;
use pavior_rpc::problem::reason_name;
use pavior_rpc::{ErrorReason, Problem, convert};
use pavior_store::{Recorded, StoreError, Tx, TxFuture};
use time::Duration;

use super::App;
use super::codec::approval_to_wire;
use super::resources::{ListArgs, close, list_problem, listing, parent};
use super::write::{Call, Changed, Happened};
use crate::domain::approval::{Event, IllegalTransition, NotEligible, State, Vote, eligible, is_met};
use crate::domain::record::{ApprovalSpec, CastVote, Requirement, Stored};
use crate::error::Error;
use crate::store;

/// The collection of approval requests.
pub(crate) const APPROVALS: &str = "approvalRequests";
/// Their type.
pub(crate) const APPROVAL_TYPE: &str = "policy.pavior.dev/ApprovalRequest";
/// Most that are expired in one transaction.
const EXPIRY_BATCH: u64 = 100;

/// What a service asks people.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) organization: String,
    /// Who asked, where a service of the platform asks in its own name.
    pub(crate) requester: String,
    pub(crate) action: String,
    pub(crate) resource: String,
    pub(crate) operation: String,
    pub(crate) plan: String,
    pub(crate) plan_digest: String,
    pub(crate) summary: String,
    pub(crate) requirements: Vec<Requirement>,
    pub(crate) decisions: Vec<String>,
}

/// A vote as it comes in.
#[derive(Debug, Clone)]
pub(crate) struct Ballot {
    pub(crate) name: String,
    pub(crate) approved: bool,
    pub(crate) reason: String,
    pub(crate) plan_digest: String,
}

fn name_parts(name: &str) -> Result<(String, String), Problem> {
    let pattern = "organizations/{organization}/approvalRequests/{approval_request}";
    let parsed = ResourceName::parse_as(name, pattern);
    let parsed = parsed.map_err(|error| Problem::invalid_field("name", error.to_string()))?;
    Ok((parsed.organization().to_owned(), parsed.id().to_owned()))
}

/// The resource name of an approval request.
pub(crate) fn approval_name(organization: &str, id: &str) -> String {
    format!("organizations/{organization}/{APPROVALS}/{id}")
}

fn not_found(organization: &str, id: &str) -> Error {
    Error::NotFound { kind: "approval request", name: approval_name(organization, id) }
}

fn wire_json(stored: &Stored<ApprovalSpec>) -> Result<serde_json::Value, Error> {
    convert::to_json(&approval_to_wire(stored)).map_err(|error| Error::Bug(error.to_string()))
}

/// Who asked, with the person on whose behalf. Without a person to exclude, four eyes would be two: a service of the
/// platform that asks in its own name has to say for whom, and nobody else asks without one.
fn asker(permit: &Permit, ask: &Ask) -> Result<(String, Option<String>), Error> {
    let principal = permit.principal();
    let itself = principal.name.ends_with(&format!("/services/{}", permit.caller()));
    let pattern = "organizations/{organization}/users/{user}";
    if principal.kind != PrincipalKind::Service || !itself {
        let person = |name: &String| ResourceName::parse_as(name, pattern).is_ok();
        if principal.kind != PrincipalKind::User && !principal.on_behalf_of.as_ref().is_some_and(person) {
            let text = format!("`{}` acts for nobody, and cannot ask people", principal.name);
            return Err(Problem::precondition(ErrorReason::ApproverNotEligible, text).into());
        }
        return Ok((principal.name.clone(), principal.on_behalf_of.clone()));
    }
    match ResourceName::parse_as(&ask.requester, pattern) {
        Ok(name) => Ok((name.as_str().to_owned(), None)),
        Err(error) => Err(Problem::invalid_field("approval_request.requester", error.to_string()).into()),
    }
}

impl App {
    /// An approval request.
    pub(crate) async fn get_approval(
        &self,
        permit: &Permit,
        call: &Call,
        name: &str,
    ) -> Result<pb::ApprovalRequest, Error> {
        let (organization, id) = name_parts(name)?;
        Self::permitted(permit, &organization, call, name)?;
        self.expire_before_read(&organization).await?;
        let found = store::approval_by_id(self.store.read(), permit, &id).await?;
        found.map(|stored| self.as_of_now(&stored)).ok_or_else(|| not_found(&organization, &id))
    }

    /// Several, in the order asked for.
    pub(crate) async fn batch_get_approvals(
        &self,
        permit: &Permit,
        call: &Call,
        request: &pb::BatchGetApprovalRequestsRequest,
    ) -> Result<Vec<pb::ApprovalRequest>, Error> {
        let organization = parent(&request.parent, "parent")?;
        Self::permitted(permit, &organization, call, &request.parent)?;
        if request.names.len() > 1_000 {
            return Err(Problem::invalid_field("names", "has more than 1000 elements").into());
        }
        let mut ids = Vec::with_capacity(request.names.len());
        for name in &request.names {
            let (other, id) = name_parts(name)?;
            if other != organization {
                return Err(Problem::invalid_field(
                    "names",
                    format!("`{name}` is not below `{}`", request.parent),
                )
                .into());
            }
            ids.push(id);
        }
        self.expire_before_read(&organization).await?;
        let wanted: BTreeSet<String> = ids.iter().cloned().collect();
        let found = store::approvals_by_ids(self.store.read(), permit, &wanted).await?;
        let one = |id: &String| {
            found.get(id).map(|stored| self.as_of_now(stored)).ok_or_else(|| not_found(&organization, id))
        };
        ids.iter().map(one).collect()
    }

    /// A page of approval requests with the token of the next one.
    pub(crate) async fn list_approvals(
        &self,
        permit: &Permit,
        call: &Call,
        args: ListArgs<'_>,
    ) -> Result<(Vec<pb::ApprovalRequest>, String), Error> {
        let organization = parent(args.parent, "parent")?;
        Self::permitted(permit, &organization, call, args.parent)?;
        let bound = [call.action, args.parent, args.filter, args.order_by];
        let page = Page::open(&self.tokens, args.page_size, args.page_token, &bound)?;
        let listing = listing(&args)?;
        self.expire_before_read(&organization).await?;
        let (db, backend) = (self.store.read(), self.store.backend());
        let rows =
            store::approvals_page(db, backend, permit, &listing, page.after.as_ref(), page.limit()).await;
        let rows = rows.map_err(list_problem)?;
        let place = |stored| (self.as_of_now(stored), listing.position(stored));
        let mut rows: Vec<_> = rows.iter().map(place).collect();
        let next = close(&page, &self.tokens, &mut rows);
        Ok((rows.into_iter().map(|(wire, _)| wire).collect(), next))
    }

    /// Asks people; gives the request that is there already when the operation asked about the same plan before.
    pub(crate) async fn create_approval(
        &self,
        permit: &Permit,
        call: &Call,
        ask: Ask,
    ) -> Result<pb::ApprovalRequest, Error> {
        Self::permitted(permit, &ask.organization, call, &format!("organizations/{}", ask.organization))?;
        let stored = Arc::new(self.new_approval(permit, ask)?);
        let (app, permit_, action) = (self.clone(), permit.clone(), call.action);
        self.write(permit, call, move |tx| {
            let (app, stored, permit) = (app.clone(), stored.clone(), permit_.clone());
            Box::pin(async move { app.create_approval_in(tx, &permit, action, &stored).await })
        })
        .await
    }

    fn new_approval(&self, permit: &Permit, ask: Ask) -> Result<Stored<ApprovalSpec>, Error> {
        let (requester, on_behalf_of) = asker(permit, &ask)?;
        let Ask {
            organization,
            requester: _,
            action,
            resource,
            operation,
            plan,
            plan_digest,
            summary,
            requirements,
            decisions,
        } = ask;
        let (uid, now) = (self.ids.uuid(), self.clock.now());
        let shortest = requirements.iter().filter_map(|requirement| requirement.expiry_seconds).min();
        let seconds = shortest.unwrap_or(self.config.approval_expiry_seconds);
        let seconds = seconds.clamp(1, self.config.approval_max_expiry_seconds);
        let spec = ApprovalSpec {
            state: State::Pending,
            requester,
            on_behalf_of,
            action,
            resource,
            operation,
            plan,
            plan_digest,
            summary,
            requirements,
            decisions,
            votes: Vec::new(),
            expire_time: now + Duration::seconds(seconds),
            end_reason: String::new(),
        };
        let id = uid.to_string();
        Ok(Stored { uid, organization, id, revision: 1, create_time: now, update_time: now, spec })
    }

    async fn create_approval_in(
        &self,
        tx: &Tx,
        permit: &Permit,
        action: &'static str,
        stored: &Stored<ApprovalSpec>,
    ) -> Result<Changed<pb::ApprovalRequest>, Error> {
        let spec = &stored.spec;
        if let Some(known) = store::approval_for_plan(tx, permit, &spec.operation, &spec.plan_digest).await? {
            return Ok((approval_to_wire(&known), None));
        }
        match store::insert_approval(tx, permit, stored).await {
            // Another call asked the same in the meantime: start over and find it.
            Err(error) if error.is_unique() => return Err(StoreError::Concurrent.into()),
            other => other?,
        }
        let event = self.approval_event(permit, action, "asked for", None, stored)?;
        Ok((approval_to_wire(stored), Some(event)))
    }

    /// Votes.
    pub(crate) async fn vote(
        &self,
        permit: &Permit,
        call: &Call,
        ballot: Ballot,
    ) -> Result<pb::ApprovalRequest, Error> {
        let (organization, id) = name_parts(&ballot.name)?;
        Self::permitted(permit, &organization, call, &ballot.name)?;
        self.expire_before_read(&organization).await?;
        let directory = self.directories.get(&organization).await?;
        let voter = permit.principal();
        // Groups of another organization mean nothing here.
        let groups = if voter.organization == organization {
            let claimed = voter.groups.iter().map(|group| group.rsplit('/').next().unwrap_or(group));
            directory.groups_of(&voter.name, claimed)
        } else {
            BTreeSet::new()
        };
        let (app, permit_, action) = (self.clone(), permit.clone(), call.action);
        let name = ballot.name.clone();
        let shared = Arc::new((id, ballot, groups));
        let voted = self.write(permit, call, move |tx| {
            let (app, shared, permit) = (app.clone(), shared.clone(), permit_.clone());
            Box::pin(async move {
                let (id, ballot, groups) = &*shared;
                app.vote_in(tx, &permit, action, id, ballot, groups).await
            })
        });
        match voted.await {
            Err(Error::NotEligible(why)) => {
                self.record_refused_vote(permit, action, &name, &why).await?;
                Err(why.into())
            }
            voted => voted,
        }
    }

    /// Who tried to vote and may not is recorded like everybody who is denied something.
    async fn record_refused_vote(
        &self,
        permit: &Permit,
        action: &'static str,
        name: &str,
        why: &NotEligible,
    ) -> Result<(), Error> {
        let permitted = permit.action();
        let act = Act {
            action: if permitted.is_empty() { action } else { permitted }.to_owned(),
            phase: Phase::Outcome,
            object: Object { r#type: APPROVAL_TYPE.to_owned(), name: name.to_owned(), project: None },
            status: "denied",
            code: reason_name(ErrorReason::ApproverNotEligible).to_owned(),
            change: None,
            summary: format!("`{}` may not vote on `{name}`: {why}", permit.actor().reference),
        };
        let event = permit.event(act, self.ids.as_ref(), self.clock.as_ref());
        let recorded = self.store.change(&self.outbox, move |_| {
            let event = event.clone();
            Box::pin(async move { Ok(Recorded::new((), event)) }) as TxFuture<'_, _, StoreError>
        });
        Ok(recorded.await?)
    }

    async fn vote_in(
        &self,
        tx: &Tx,
        permit: &Permit,
        action: &'static str,
        id: &str,
        ballot: &Ballot,
        groups: &BTreeSet<String>,
    ) -> Result<Changed<pb::ApprovalRequest>, Error> {
        let current = store::lock_approval(tx, permit, id).await?;
        let current = current.ok_or_else(|| not_found(permit.organization(), id))?;
        let (spec, now) = (&current.spec, self.clock.now());
        if !ballot.plan_digest.is_empty() && ballot.plan_digest != spec.plan_digest {
            let (wanted, given) = (spec.plan_digest.clone(), ballot.plan_digest.clone());
            return Err(Error::OtherPlan { wanted, given });
        }
        let event = if ballot.approved { Event::ApprovedInPart } else { Event::Denied };
        let over = spec.state == State::Pending && now >= spec.expire_time;
        let state = if over { State::Expired } else { spec.state };
        state.next(event)?;
        let asker = (spec.requester.as_str(), spec.on_behalf_of.as_deref());
        let counted = eligible(permit.principal(), groups, asker, &spec.quorums(), &spec.votes())?;
        let cast = CastVote {
            vote: Vote { voter: permit.principal().name.clone(), approved: ballot.approved, groups: counted },
            reason: ballot.reason.clone(),
            vote_time: now,
            plan_digest: spec.plan_digest.clone(),
        };
        let mut changed = current.clone();
        changed.spec.votes.push(cast.clone());
        let met = is_met(&changed.spec.quorums(), &changed.spec.votes());
        let event = if ballot.approved && met { Event::Approved } else { event };
        self.step(tx, permit, &mut changed, event).await?;
        store::insert_vote(tx, permit, current.uid, &cast).await?;
        let verb = if ballot.approved { "approved" } else { "denied" };
        let event = self.approval_event(permit, action, verb, Some(&current), &changed)?;
        Ok((approval_to_wire(&changed), Some(event)))
    }

    /// Ends an approval request that is no longer wanted. One that has ended already stays as it is.
    pub(crate) async fn cancel_approval(
        &self,
        permit: &Permit,
        call: &Call,
        request: pb::CancelApprovalRequestRequest,
    ) -> Result<pb::ApprovalRequest, Error> {
        let (organization, id) = name_parts(&request.name)?;
        Self::permitted(permit, &organization, call, &request.name)?;
        let (app, permit_, action) = (self.clone(), permit.clone(), call.action);
        let shared = Arc::new((id, request));
        self.write(permit, call, move |tx| {
            let (app, shared, permit) = (app.clone(), shared.clone(), permit_.clone());
            Box::pin(async move {
                let (id, request) = &*shared;
                let current = store::lock_approval(tx, &permit, id).await?;
                let current = current.ok_or_else(|| not_found(permit.organization(), id))?;
                let (event, verb) = match request.invalidated {
                    true => (Event::Invalidated, "invalidated"),
                    false => (Event::Cancelled, "cancelled"),
                };
                if current.spec.state.next(event).is_err() {
                    return Ok((approval_to_wire(&current), None));
                }
                let mut changed = current.clone();
                changed.spec.end_reason = request.reason.clone();
                app.step(tx, &permit, &mut changed, event).await?;
                let event = app.approval_event(&permit, action, verb, Some(&current), &changed)?;
                Ok((approval_to_wire(&changed), Some(event)))
            })
        })
        .await
    }

    /// Takes an approval request through an event and writes it.
    async fn step(
        &self,
        tx: &Tx,
        permit: &Permit,
        stored: &mut Stored<ApprovalSpec>,
        event: Event,
    ) -> Result<(), Error> {
        stored.spec.state = stored.spec.state.next(event)?;
        stored.revision += 1;
        stored.update_time = self.clock.now();
        if store::update_approval(tx, permit, stored).await? {
            Ok(())
        } else {
            Err(StoreError::Concurrent.into())
        }
    }

    fn approval_event(
        &self,
        permit: &Permit,
        action: &'static str,
        verb: &'static str,
        before: Option<&Stored<ApprovalSpec>>,
        after: &Stored<ApprovalSpec>,
    ) -> Result<pavior_core::audit::AuditEvent, Error> {
        let happened = Happened {
            action,
            kind: APPROVAL_TYPE,
            name: approval_name(&after.organization, &after.id),
            verb,
            before: before.map(wire_json).transpose()?,
            after: Some(wire_json(after)?),
            plan_digest: Some(after.spec.plan_digest.clone()),
        };
        Ok(self.event(permit, happened))
    }

    /// What is to be shown: time ends a request whether or not that could be written down.
    fn as_of_now(&self, stored: &Stored<ApprovalSpec>) -> pb::ApprovalRequest {
        let mut wire = approval_to_wire(stored);
        if stored.spec.state == State::Pending && self.clock.now() >= stored.spec.expire_time {
            wire.set_state(pb::approval_request::State::Expired);
        }
        wire
    }

    /// As [`App::expire_due`]; while the audit trail takes no records, what is over stays to be written down later.
    async fn expire_before_read(&self, organization: &str) -> Result<(), Error> {
        match self.expire_due(organization).await {
            Err(Error::Store(StoreError::OutboxFull { .. } | StoreError::OrganizationOutboxFull { .. }))
            | Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Ends the pending approval requests of an organization whose time is over. Called before they are looked at, and
    /// by the reaper.
    pub(crate) async fn expire_due(&self, organization: &str) -> Result<u64, Error> {
        let permit = self.system_permit(organization);
        let mut count = 0;
        loop {
            let due =
                store::due_approvals(self.store.read(), &permit, self.clock.now(), EXPIRY_BATCH).await?;
            if due.is_empty() {
                return Ok(count);
            }
            for id in due {
                count += u64::from(self.expire_one(&permit, id).await?);
            }
        }
    }

    async fn expire_one(&self, permit: &Permit, id: String) -> Result<bool, Error> {
        let call = Call::read("policy.approvalRequests.expire");
        let (app, permit_, id, action) = (self.clone(), permit.clone(), Arc::new(id), call.action);
        let answer: pb::ApprovalRequest = self
            .write(permit, &call, move |tx| {
                let (app, permit, id) = (app.clone(), permit_.clone(), id.clone());
                Box::pin(async move {
                    let current = store::lock_approval(tx, &permit, &id).await?;
                    let current = current.ok_or_else(|| not_found(permit.organization(), &id))?;
                    if current.spec.state.next(Event::Expired).is_err() {
                        return Ok((approval_to_wire(&current), None));
                    }
                    let mut changed = current.clone();
                    app.step(tx, &permit, &mut changed, Event::Expired).await?;
                    let event = app.approval_event(&permit, action, "expired", Some(&current), &changed)?;
                    Ok((approval_to_wire(&changed), Some(event)))
                })
            })
            .await?;
        Ok(answer.state() == pb::approval_request::State::Expired)
    }
}

/// What a state says to somebody who wants to vote.
pub(crate) fn closed(error: &IllegalTransition) -> String {
    format!("the approval request is {} already", error.state.as_str().to_lowercase())
}

/// Requirements by group, as decisions and requests have them.
pub(crate) fn merge(requirements: Vec<Requirement>) -> Vec<Requirement> {
    let mut all = BTreeMap::<String, Requirement>::new();
    for requirement in requirements {
        match all.get_mut(&requirement.group) {
            None => {
                all.insert(requirement.group.clone(), requirement);
            }
            Some(known) => {
                known.quorum = known.quorum.max(requirement.quorum);
                known.policy_ids.extend(requirement.policy_ids);
                known.expiry_seconds =
                    [known.expiry_seconds, requirement.expiry_seconds].into_iter().flatten().min();
            }
        }
    }
    all.into_values().collect()
}
