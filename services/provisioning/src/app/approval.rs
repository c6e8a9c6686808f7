//! People's agreement: asked for once, looked at until it comes, and checked against policy once more before anything
//! begins.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pavior_auth::Permit;
use pavior_proto::pavior::policy::v1::approval::{Choice, State};
use pavior_proto::pavior::policy::v1::{self as policy, Effect};
use pavior_rpc::{ErrorReason, Problem, convert};
use tonic::Code;
use uuid::Uuid;

use super::App;
use super::decision::messages;
use crate::domain::failure::{Failure, FailureCode, FailureReason};
use crate::domain::names;
use crate::domain::operation::{Operation, OperationState};
use crate::error::{Error, Result};
use crate::store::entity::timer;
use crate::store::{Checked, Waiter};

/// Most operations that are looked at in one round.
const ROUND: u64 = 10_000;
/// Most that policy is asked about at once.
const BATCH: usize = 500;
/// Of so many at once it is noted, or not any more, that they cannot be asked about: of the rest with the next looks, so
/// that others' answers do not wait for it.
const NOTED: usize = 50;
/// Most that are withdrawn in one round.
const WITHDRAWN: u64 = 100;
/// How long a call that cancels waits until people are told.
const PATIENCE: Duration = Duration::from_secs(1);
/// When an approval that could not be withdrawn is tried again.
const AGAIN_MICROS: i64 = 5_000_000;

impl App {
    /// Asks people about an operation. When policy does not answer, the next round asks again.
    pub(crate) async fn ask_people(&self, id: Uuid) {
        let asked = self.try_ask_people(id).await;
        self.tried(id, OperationState::Checking, asked.map(|()| None)).await;
    }

    async fn try_ask_people(&self, id: Uuid) -> Result<()> {
        let op = self.db.operation_by_id_unscoped(id).await?;
        let Some(op) = op.filter(|op| op.state == OperationState::Checking) else { return Ok(()) };
        let made = self.approval_of(&op).await?;
        self.db.await_approval_unscoped(id, &made).await?;
        self.engine.changed(id);
        Ok(())
    }

    /// The name of the one approval of an operation, made if there is none.
    async fn approval_of(&self, op: &Operation) -> Result<String> {
        let plan = self.db.plan_by_id_unscoped(op.plan).await?;
        let decision: policy::Decision =
            convert::from_json(plan.decision.clone()).map_err(|error| Error::Corrupt(error.to_string()))?;
        let principal = Arc::new(op.principal.clone());
        let wanted = policy::Approval {
            requester: op.requester.clone(),
            author: if plan.author == op.requester { String::new() } else { plan.author.clone() },
            action: op.action.clone(),
            resource: op.target.clone(),
            operation: op.name.clone(),
            plan: names::plan(&op.organization, &op.plan),
            plan_digest: op.plan_digest.clone(),
            summary: plan.summary.clone(),
            requirements: decision.requirements,
            ..Default::default()
        };
        let made = self.peers.create_approval(&principal, &op.organization, wanted).await?;
        Ok(made.name)
    }

    /// A look at an operation that has come to wait just now: people may have answered already.
    /// Otherwise the next round does it.
    pub(super) async fn look_at_one(&self, id: Uuid) {
        self.ask_people(id).await;
        let Ok(Some(op)) = self.db.operation_by_id_unscoped(id).await else { return };
        let Operation { organization, state, approval, error, .. } = op;
        if state == OperationState::AwaitingApproval {
            let permit = self.own_permit(&organization);
            let waiter = Waiter { id, organization, state, approval, noted: error.is_some() };
            // Whoever takes it up is not to wait for a policy service that hangs.
            let _ = tokio::time::timeout(PATIENCE, self.look_at_all(&permit, &[waiter])).await;
        }
    }

    /// One look at everything that waits.
    pub(crate) async fn look_at_approvals(&self) -> Result<()> {
        let mut asked: BTreeMap<String, Vec<Waiter>> = BTreeMap::new();
        for op in self.db.waiting_unscoped(ROUND).await? {
            if op.state == OperationState::Checking {
                self.ask_people(op.id).await;
            } else {
                asked.entry(op.organization.clone()).or_default().push(op);
            }
        }
        for (organization, ops) in asked {
            let permit = self.own_permit(&organization);
            for ops in ops.chunks(BATCH) {
                self.look_at_all(&permit, ops).await;
            }
        }
        self.withdraw_approvals().await
    }

    /// What is wrong in one organization is not to hold up the others.
    async fn look_at_all(&self, permit: &Permit, ops: &[Waiter]) {
        let Err(error) = self.look_at(permit, ops).await else { return };
        tracing::warn!(organization = permit.organization(), %error, "approvals could not be looked at and will be again");
        let waits = away(error.into());
        for op in ops.iter().filter(|op| !op.noted).take(NOTED) {
            self.note(op.id, op.state, Some(waits.clone())).await;
        }
    }

    /// Policy answers for all or for none: where one is missing, each half is asked for by itself.
    async fn look_at(&self, permit: &Permit, ops: &[Waiter]) -> Result<()> {
        let mut parts = vec![ops];
        while let Some(part) = parts.pop() {
            let names = part.iter().map(|op| op.approval.clone()).collect();
            match (self.peers.approvals(permit, names).await?, part) {
                (Some(answers), _) => self.follow(part, &answers).await,
                (None, [op]) => {
                    let why = Failure::refusal(FailureReason::NotApproved, "its approval is gone");
                    self.tried(op.id, op.state, self.refuse_for(op.id, why).await.map(|()| None)).await;
                }
                (None, _) => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
            }
        }
        Ok(())
    }

    async fn follow(&self, ops: &[Waiter], answers: &[policy::Approval]) {
        let mut cleared = 0;
        for op in ops {
            let answer = answers.iter().find(|answer| answer.name == op.approval);
            match answer.filter(|answer| decided(answer.state())) {
                Some(answer) => self.tried(op.id, op.state, self.answered(op.id, answer).await).await,
                None if op.noted && cleared < NOTED => {
                    cleared += 1;
                    self.note(op.id, op.state, None).await;
                }
                None => {}
            }
        }
    }

    /// A failure to follow one operation is no reason to leave the others. Whoever looks at it is told what it waits for,
    /// until it does not any more.
    async fn tried(&self, id: Uuid, state: OperationState, tried: Result<Option<Failure>>) {
        let waits = tried.unwrap_or_else(|error| {
            tracing::warn!(operation = %id, %error, "an approval could not be followed yet");
            Some(away(error.into()))
        });
        self.note(id, state, waits).await;
    }

    async fn note(&self, id: Uuid, state: OperationState, waits: Option<Failure>) {
        if let Err(error) = self.db.note_wait_unscoped(id, state, waits).await {
            tracing::warn!(operation = %id, %error, "what an operation waits for could not be noted");
        }
    }

    /// Tells people that nobody needs their answer any more: the operation ended without having begun. Noted with that
    /// end, so that it is done whatever becomes of the call that cancelled.
    async fn withdraw_approvals(&self) -> Result<()> {
        for timer in self.db.withdrawn_unscoped(WITHDRAWN).await? {
            self.try_withdraw(&timer).await?;
        }
        Ok(())
    }

    /// The same for an operation that was cancelled just now: nobody is to agree to it after the canceller was answered.
    /// What fails is done by the next round.
    pub(super) async fn withdraw_approval_of(&self, operation: &str) {
        let tried = match self.db.withdrawn_of_unscoped(operation).await {
            // Whoever cancels is not to wait for a policy service that hangs.
            Ok(Some(timer)) => {
                tokio::time::timeout(PATIENCE, self.try_withdraw(&timer)).await.unwrap_or(Ok(()))
            }
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = tried {
            tracing::warn!(operation, %error, "an approval could not be withdrawn and will be again");
        }
    }

    async fn try_withdraw(&self, timer: &timer::Model) -> Result<()> {
        let again = match self.withdraw(timer).await {
            Ok(()) => None,
            Err(error) => {
                tracing::warn!(operation = timer.subject, %error, "an approval still stands");
                Some(AGAIN_MICROS)
            }
        };
        self.db.postpone_timer_unscoped(timer, again).await
    }

    async fn withdraw(&self, timer: &timer::Model) -> Result<()> {
        let permit = self.own_permit(&timer.organization);
        let Some(op) = self.db.find_kept_operation(&permit, &timer.subject).await? else { return Ok(()) };
        let name = match op.approval.as_str() {
            // The call that asked was not heard of again: it may have been answered for all that.
            "" => self.approval_of(&op).await?,
            known => known.to_owned(),
        };
        self.peers.cancel_approval(&permit, &name, false, "the operation ended").await
    }

    /// Does what people have said. Returns what that waits for.
    async fn answered(&self, id: Uuid, answer: &policy::Approval) -> Result<Option<Failure>> {
        let Some(op) = self.db.operation_by_id_unscoped(id).await? else { return Ok(None) };
        let refusal = |said: &str| Failure::refusal(FailureReason::NotApproved, said);
        let refused = match (answer.state(), over(answer.state())) {
            (State::Approved, _) if answer.plan_digest != op.plan_digest => {
                Some(refusal("the approval is for another plan"))
            }
            (State::Approved, _) => match self.approved(&op).await? {
                Begins::Waits(waits) => return Ok(waits),
                Begins::Never(why) => Some(why),
            },
            (State::Denied, Some(said)) => {
                Some(denied_by(answer).map_or(refusal(said), |said| refusal(&said)))
            }
            (_, over) => over.map(refusal),
        };
        if let Some(why) = refused {
            self.refuse_for(id, why).await?;
        }
        Ok(None)
    }

    async fn refuse_for(&self, id: Uuid, why: Failure) -> Result<()> {
        self.db.refuse_unscoped(id, why).await?;
        self.engine.changed(id);
        Ok(())
    }

    /// Lets begin what people have agreed to, when a look finds nothing in its way.
    async fn approved(&self, op: &Operation) -> Result<Begins> {
        let busy = |error: Error| Begins::Waits(Some(away(error.into())));
        if let Some(other) = self.db.in_the_way_unscoped(op).await? {
            return Ok(match self.db.plan_by_id_unscoped(op.plan).await?.expire_time < self.db.now() {
                true => Begins::Never(expired()),
                false => busy(other),
            });
        }
        let approvals = match self.checked_again(op).await? {
            Checked::Runs(approvals) => approvals,
            Checked::Refused(why) => return Ok(Begins::Never(why)),
            // Asked for once more by the next look.
            Checked::Waits(_) => return Ok(Begins::Waits(None)),
        };
        match self.db.admit_unscoped(op.id, &approvals, self.deadline_micros()).await {
            Ok(()) => {}
            // It came between the two looks.
            Err(error @ Error::Busy { .. }) => return Ok(busy(error)),
            Err(error) => return outdated(&error).map(Begins::Never).ok_or(error),
        }
        self.engine.changed(op.id);
        self.engine.wake();
        Ok(Begins::Waits(None))
    }

    /// What is to become of an operation that has not begun, as policy sees it now, with the approvals that were given.
    pub(crate) async fn checked_again(&self, op: &Operation) -> Result<Checked> {
        let plan = self.db.plan_by_id_unscoped(op.plan).await?;
        let refused = |reason, message: &str| Ok(Checked::Refused(Failure::refusal(reason, message)));
        if plan.compute_digest() != op.plan_digest {
            return refused(FailureReason::NotApproved, "the plan is not the one that was accepted");
        }
        if plan.expire_time < self.db.now() {
            return Ok(Checked::Refused(expired()));
        }
        // Before policy is asked: an answer that comes meanwhile is one that policy has not seen.
        let request = self.request_of(op).await?;
        let verdict = match self.ask_policy_again(&op.principal, op, &plan).await {
            Ok(verdict) => verdict,
            Err(Error::Refused(problem)) if problem.reason == ErrorReason::PlanStale => {
                return refused(FailureReason::PlanStale, &problem.message);
            }
            Err(error) => return Err(error),
        };
        match verdict.effect() {
            Effect::Allow => Ok(Checked::Runs(self.given(op).await?)),
            Effect::RequireApproval => Ok(still_asked(request)),
            Effect::Deny | Effect::Unspecified => {
                let why = format!("policy does not allow it any more: {}", messages(&verdict.decision));
                refused(FailureReason::GuardrailDenied, &why)
            }
        }
    }

    /// What people were asked with, as it stands now; nothing where policy does not know it (any more).
    async fn request_of(&self, op: &Operation) -> Result<Option<policy::Approval>> {
        if op.approval.is_empty() {
            return Ok(None);
        }
        let permit = self.own_permit(&op.organization);
        let known = self.peers.approvals(&permit, vec![op.approval.clone()]).await?;
        Ok(known.into_iter().flatten().next())
    }

    /// The approvals that people said yes to. One that waits is withdrawn: nobody has to agree any more.
    async fn given(&self, op: &Operation) -> Result<Vec<String>> {
        match self.request_of(op).await?.map(|request| request.state()) {
            Some(State::Approved) => Ok(vec![op.approval.clone()]),
            Some(State::Pending) => {
                let why = "policy asks for no approval any more";
                let permit = self.own_permit(&op.organization);
                self.peers.cancel_approval(&permit, &op.approval, true, why).await?;
                Ok(Vec::new())
            }
            _ => Ok(Vec::new()),
        }
    }
}

/// Whether people can still answer: to the request that they were asked with, or, where policy does not know that (any
/// more), to a new one.
fn still_asked(request: Option<policy::Approval>) -> Checked {
    let Some(request) = request else { return Checked::Waits(None) };
    let refused = |reason, said: &str| Checked::Refused(Failure::refusal(reason, said));
    match (request.state(), over(request.state())) {
        // They have answered, and are not asked twice with one request.
        (State::Approved, _) => refused(
            FailureReason::GuardrailDenied,
            "policy does not allow it any more: more people must approve it now",
        ),
        (_, Some(said)) => refused(FailureReason::NotApproved, said),
        (_, None) => Checked::Waits(Some(request.name)),
    }
}

/// What becomes of an operation that people have agreed to.
enum Begins {
    /// It has begun, or waits for this.
    Waits(Option<Failure>),
    /// It never will.
    Never(Failure),
}

/// Whether people have said all that they will.
fn decided(state: State) -> bool {
    state == State::Approved || over(state).is_some()
}

/// Why what was planned cannot begin as it was planned, and never will.
pub(super) fn outdated(error: &Error) -> Option<Failure> {
    let changed = matches!(error, Error::Stale { .. } | Error::Declared { .. } | Error::NotFound { .. });
    changed.then(|| Failure::refusal(FailureReason::PlanStale, format!("{error}: ask anew")))
}

fn expired() -> Failure {
    Failure::refusal(FailureReason::PlanStale, "the plan expired before it was begun: ask anew")
}

/// Why an operation is not begun yet: what passes by itself, or with a restore, and what does not.
fn away(problem: Problem) -> Failure {
    let (reason, code) = match (problem.reason, problem.code) {
        (ErrorReason::RestoreNeeded, _) => (FailureReason::RestoreNeeded, FailureCode::Unavailable),
        (ErrorReason::ResourceBusy, _) => (FailureReason::ResourceBusy, FailureCode::None),
        (_, Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted | Code::Aborted) => {
            (FailureReason::DependencyUnavailable, FailureCode::Unavailable)
        }
        _ => (FailureReason::Internal, FailureCode::Internal),
    };
    let waits = Failure::new(reason, code, format!("not begun yet: {}", problem.message));
    Failure { details: problem.metadata.clone(), ..waits }
}

/// What people said that cannot be answered any more.
fn over(state: State) -> Option<&'static str> {
    match state {
        State::Unspecified | State::Pending | State::Approved => None,
        State::Denied => Some("the approval was denied"),
        State::Expired => Some("nobody decided in time"),
        State::Cancelled => Some("the approval was cancelled"),
        State::Invalidated => Some("the approval became void"),
    }
}

/// Who denied it and why, as far as they said so.
fn denied_by(approval: &policy::Approval) -> Option<String> {
    let vote = approval.votes.iter().rev().find(|vote| vote.choice() == Choice::Deny)?;
    let who = vote.voter.rsplit('/').next().unwrap_or_default();
    let why = if vote.reason.is_empty() { String::new() } else { format!(": {}", vote.reason) };
    Some(format!("denied by {who}{why}"))
}
