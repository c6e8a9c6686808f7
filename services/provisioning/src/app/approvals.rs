//! People's agreement: asked for once, looked at until it comes, and checked against policy once more before anything
//! begins.

use std::collections::BTreeMap;
use std::sync::Arc;

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
use crate::store::entity::operation;

/// Most operations that are looked at in one round.
const ROUND: u64 = 10_000;
/// Most that policy is asked about at once.
const BATCH: usize = 500;

impl App {
    /// Asks people about an operation. When policy does not answer, the next round asks again.
    pub(crate) async fn ask_people(&self, id: Uuid) {
        if let Err(error) = self.try_ask_people(id).await {
            tracing::warn!(operation = %id, %error, "people could not be asked yet");
        }
    }

    async fn try_ask_people(&self, id: Uuid) -> Result<()> {
        let Some(op) = self.db.operation_by_id_unscoped(id).await? else { return Ok(()) };
        let plan = self.db.plan_by_id_unscoped(op.plan).await?;
        let decision: policy::Decision =
            convert::from_json(plan.decision.clone()).map_err(|error| Error::Corrupt(error.to_string()))?;
        let principal = Arc::new(principal_of(&op)?);
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
        self.db.await_approval_unscoped(id, &made.name).await?;
        self.engine.changed(id);
        Ok(())
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
                self.look_at(&permit, ops).await?;
            }
        }
        Ok(())
    }

    async fn look_at(&self, permit: &pavior_auth::Permit, ops: &[operation::Model]) -> Result<()> {
        let names = ops.iter().map(|op| op.approval_request.clone()).collect();
        let answers = self.peers.approval_requests(permit, names).await?;
        for op in ops {
            let answer = answers.iter().find(|answer| answer.name == op.approval_request);
            if let Some(answer) = answer
                && let Err(error) = self.answered(op, answer).await
            {
                tracing::warn!(operation = op.name, %error, "an approval could not be followed yet");
            }
        }
        Ok(())
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
