//! People's agreement: asked for once, looked at until it comes, and checked against policy once more before anything
//! begins.

use std::collections::BTreeMap;
use std::sync::Arc;

use pavior_auth::Permit;
use pavior_core::principal::Principal;
use pavior_proto::pavior::policy::v1::approval_request::State;
use pavior_proto::pavior::policy::v1::{self as policy, Effect};
use pavior_rpc::{ErrorReason, convert};
use serde_json::json;
use uuid::Uuid;

use super::App;
use super::asking::messages;
use crate::domain::names;
use crate::error::{Error, Result};
use crate::store::entity::{operation, timer};

/// Most operations that are looked at in one round.
const ROUND: u64 = 10_000;
/// Most that policy is asked about at once.
const BATCH: usize = 500;
/// Most that are withdrawn in one round.
const WITHDRAWN: u64 = 100;
/// When an approval request that could not be withdrawn is tried again.
const AGAIN_MICROS: i64 = 5_000_000;

impl App {
    /// Asks people about an operation. When policy does not answer, the next round asks again.
    pub(crate) async fn ask_people(&self, id: Uuid) {
        if let Err(error) = self.try_ask_people(id).await {
            tracing::warn!(operation = %id, %error, "people could not be asked yet");
        }
    }

    async fn try_ask_people(&self, id: Uuid) -> Result<()> {
        let Some(op) = self.db.operation_by_id_unscoped(id).await? else { return Ok(()) };
        let made = self.approval_request_of(&op).await?;
        self.db.await_approval_unscoped(id, &made).await?;
        self.engine.changed(id);
        Ok(())
    }

    /// The name of the one approval request of an operation, made if there is none.
    async fn approval_request_of(&self, op: &operation::Model) -> Result<String> {
        let plan = self.db.plan_by_id_unscoped(op.plan).await?;
        let decision: policy::Decision =
            convert::from_json(plan.decision.clone()).map_err(|error| Error::Corrupt(error.to_string()))?;
        let principal = Arc::new(principal_of(op)?);
        let wanted = policy::ApprovalRequest {
            requester: op.requester.clone(),
            action: op.action.clone(),
            resource: op.target.clone(),
            operation: op.name.clone(),
            plan: names::plan(&op.organization, &op.plan),
            plan_digest: op.plan_digest.clone(),
            summary: plan.summary.clone(),
            requirements: decision.approvals,
            decisions: plan.decisions(),
            ..Default::default()
        };
        let made = self.peers.create_approval_request(&principal, &op.organization, wanted).await?;
        Ok(made.name)
    }

    /// One look at everything that waits.
    pub(crate) async fn look_at_approvals(&self) -> Result<()> {
        let mut asked: BTreeMap<String, Vec<operation::Model>> = BTreeMap::new();
        for op in self.db.waiting_unscoped(ROUND).await? {
            if op.state == "CHECKING" {
                self.ask_people(op.id).await;
            } else {
                asked.entry(op.organization.clone()).or_default().push(op);
            }
        }
        for (organization, ops) in asked {
            let permit = self.own_permit(&organization);
            for ops in ops.chunks(BATCH) {
                // What is wrong in one organization is not to hold up the others.
                if let Err(error) = self.look_at(&permit, ops).await {
                    tracing::warn!(organization, %error, "approvals could not be looked at and will be again");
                }
            }
        }
        self.withdraw_approvals().await
    }

    /// Policy answers for all or for none: where one is missing, each half is asked for by itself.
    async fn look_at(&self, permit: &Permit, ops: &[operation::Model]) -> Result<()> {
        let mut parts = vec![ops];
        while let Some(part) = parts.pop() {
            let names = part.iter().map(|op| op.approval_request.clone()).collect();
            match (self.peers.approval_requests(permit, names).await?, part) {
                (Some(answers), _) => self.follow(part, &answers).await,
                (None, [op]) => {
                    self.tried(op, self.refuse(op, "NOT_APPROVED", "its approval request is gone").await)
                }
                (None, _) => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
            }
        }
        Ok(())
    }

    async fn follow(&self, ops: &[operation::Model], answers: &[policy::ApprovalRequest]) {
        for op in ops {
            if let Some(answer) = answers.iter().find(|answer| answer.name == op.approval_request) {
                self.tried(op, self.answered(op, answer).await);
            }
        }
    }

    fn tried(&self, op: &operation::Model, tried: Result<()>) {
        if let Err(error) = tried {
            tracing::warn!(operation = op.name, %error, "an approval could not be followed yet");
        }
    }

    /// Tells people that nobody needs their answer any more: the operation ended without having begun. Noted with that
    /// end, so that it is done whatever becomes of the call that cancelled.
    async fn withdraw_approvals(&self) -> Result<()> {
        for timer in self.db.withdrawn_unscoped(WITHDRAWN).await? {
            let again = match self.withdraw(&timer).await {
                Ok(()) => None,
                Err(error) => {
                    tracing::warn!(operation = timer.subject, %error, "an approval request still stands");
                    Some(AGAIN_MICROS)
                }
            };
            self.db.postpone_timer_unscoped(&timer, again).await?;
        }
        Ok(())
    }

    async fn withdraw(&self, timer: &timer::Model) -> Result<()> {
        let permit = self.own_permit(&timer.organization);
        let Some(op) = self.db.find_kept_operation(&permit, &timer.subject).await? else { return Ok(()) };
        let name = match op.approval_request.as_str() {
            // The call that asked was not heard of again: it may have been answered for all that.
            "" => self.approval_request_of(&op).await?,
            known => known.to_owned(),
        };
        self.peers.cancel_approval_request(&permit, &name, false, "the operation ended").await
    }

    async fn answered(&self, op: &operation::Model, answer: &policy::ApprovalRequest) -> Result<()> {
        let state = State::try_from(answer.state).unwrap_or(State::Unspecified);
        let said = match state {
            State::Unspecified | State::Pending => return Ok(()),
            State::Approved => return self.approved(op, answer).await,
            State::Denied => "the approval was denied",
            State::Expired => "nobody decided in time",
            State::Cancelled => "the approval request was cancelled",
            State::Invalidated => "the approval became void",
        };
        self.refuse(op, "NOT_APPROVED", said).await
    }

    async fn refuse(&self, op: &operation::Model, reason: &str, message: &str) -> Result<()> {
        let error = json!({ "reason": reason, "step": "", "code": reason, "message": message });
        self.db.refuse_unscoped(op.id, error).await?;
        self.engine.changed(op.id);
        Ok(())
    }

    async fn approved(&self, op: &operation::Model, answer: &policy::ApprovalRequest) -> Result<()> {
        let plan = self.db.plan_by_id_unscoped(op.plan).await?;
        if answer.plan_digest != op.plan_digest || plan.compute_digest() != op.plan_digest {
            return self.refuse(op, "NOT_APPROVED", "the approval is for another plan").await;
        }
        if plan.expire_time < self.db.now() {
            return self.refuse(op, "PLAN_STALE", "the plan expired before it was approved").await;
        }
        let verdict = match self.ask_policy_again(&principal_of(op)?, op, &plan).await {
            Ok(verdict) => verdict,
            Err(Error::Refused(problem)) if problem.reason == ErrorReason::PlanStale => {
                return self.refuse(op, "PLAN_STALE", &problem.message).await;
            }
            Err(error) => return Err(error),
        };
        if verdict.effect() != Effect::Allow {
            let message = format!("policy does not allow it any more: {}", messages(&verdict.decision));
            return self.refuse(op, "GUARDRAIL_DENIED", &message).await;
        }
        let approvals = vec![op.approval_request.clone()];
        self.db.admit_unscoped(op.id, &approvals, self.deadline_micros()).await?;
        self.engine.changed(op.id);
        self.engine.wake();
        Ok(())
    }
}

fn principal_of(op: &operation::Model) -> Result<Principal> {
    serde_json::from_value(op.principal.clone())
        .map_err(|_| Error::Corrupt(format!("the principal of `{}`", op.name)))
}
