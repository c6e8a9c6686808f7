//! Verbs on operations.

use std::time::Duration;

use pavior_auth::Permit;
use pavior_proto::pavior::policy::v1::Effect;
use pavior_resource::ListQuery;
use pavior_rpc::{ErrorReason, Problem, convert};

use super::approval::outdated;
use super::decision::unapproved;
use super::response::OperationAnswer;
use super::{Answer, App, ChangeContext};
use crate::domain::names;
use crate::domain::operation::{Operation, OperationState};
use crate::engine::Engine;
use crate::error::{Error, Result};
pub(crate) use crate::store::OperationView;
use crate::store::{Caller, Checked, Page, TakeUp};

/// The longest wait of one call.
const MAX_WAIT: Duration = Duration::from_secs(600);
/// How often the database is asked while nothing is heard.
const POLL: Duration = Duration::from_secs(1);

impl App {
    /// An operation by its name.
    pub(crate) async fn get_operation(
        &self,
        permit: &Permit,
        action: &str,
        name: &str,
    ) -> Result<OperationAnswer> {
        let view = self.operation_view(permit, action, name).await?;
        self.with_response(permit, view).await
    }

    pub(super) async fn operation_view(
        &self,
        permit: &Permit,
        action: &str,
        name: &str,
    ) -> Result<OperationView> {
        Self::name(permit, action, "name", name, names::OPERATION)?;
        self.db.operation(permit, name).await
    }

    /// A page of operations.
    pub(crate) async fn list_operations(
        &self,
        permit: &Permit,
        query: &ListQuery,
    ) -> Result<Page<OperationAnswer>> {
        let page = self.db.operations_page(permit, query).await?;
        page.of(async |operations: Vec<Operation>| {
            let mut views = self.db.views_unscoped(operations).await?;
            // Some may have been deleted between the two.
            views.retain(|view| view.op.delete_time.is_none());
            self.with_responses(permit, views).await
        })
        .await
    }

    /// Returns when nothing more happens to the operation by itself, or when the time is up, whichever comes first.
    pub(crate) async fn wait_operation(
        &self,
        permit: &Permit,
        action: &str,
        name: &str,
        timeout: Option<Duration>,
    ) -> Result<OperationAnswer> {
        let mut changes = self.engine.changes();
        let remaining = pavior_rpc::context::current().and_then(|context| context.remaining());
        // A moment is kept for the answer itself.
        let limit = remaining.map_or(MAX_WAIT, |left| left.saturating_sub(Duration::from_millis(200)));
        let end = tokio::time::Instant::now() + timeout.unwrap_or(MAX_WAIT).min(limit).min(MAX_WAIT);
        loop {
            let view = self.operation_view(permit, action, name).await?;
            if view.op.state.rests() || tokio::time::Instant::now() >= end {
                return self.with_response(permit, view).await;
            }
            let poll = tokio::time::Instant::now() + POLL;
            Engine::heard_of(&mut changes, view.op.id, poll.min(end)).await;
        }
    }

    /// Asks an operation to stop. People who were asked about it are told by the next look at approvals.
    pub(crate) async fn cancel_operation(&self, permit: &Permit, action: &str, name: &str) -> Result<()> {
        Self::name(permit, action, "name", name, names::OPERATION)?;
        let op = self.db.kept_operation(permit, name).await?;
        let caller = Caller::of(permit, action, "");
        if op.delete_time.is_some() {
            // It is done. Whoever asked for it hears the same again, everybody else that there is none.
            let own = [&op.canceller, &op.deleter].contains(&&permit.principal().name);
            let missing = Error::NotFound { kind: "Operation", name: name.to_owned() };
            return if own { Ok(()) } else { Err(missing) };
        }
        self.db.cancel_unscoped(op.id, &caller).await?;
        self.engine.stop_calls(op.id);
        self.engine.changed(op.id);
        self.engine.wake();
        self.withdraw_approval_of(name).await;
        Ok(())
    }

    /// Takes up a stuck operation.
    pub(crate) async fn retry_operation(
        &self,
        context: &ChangeContext,
        name: &str,
    ) -> Result<OperationAnswer> {
        if let Some(Answer::Operation(answer)) = self.replayed(context).await? {
            return Ok(*answer);
        }
        let view = self.operation_view(&context.permit, context.action, name).await?;
        let how = match view.op.state == OperationState::Stuck {
            // Whoever asked for it is asked about again, and whoever takes it up was let in by the verb.
            true if view.untouched() => {
                self.stands_on_its_ground(&context.permit, &view).await?;
                Some(TakeUp::Anew(self.checked_again(&view.op).await?))
            }
            true => {
                self.may_be_taken_up(context, &view).await?;
                self.stands_on_its_ground(&context.permit, &view).await?;
                Some(TakeUp::Rest)
            }
            false => None,
        };
        let waits = matches!(how, Some(TakeUp::Anew(Checked::Waits(_))));
        let anew = matches!(how, Some(TakeUp::Anew(_)));
        let caller = Caller::of(&context.permit, context.action, &context.request_id);
        let taken_up = async |how| {
            let (limit, key) = (self.deadline_micros(), self.key(context));
            self.db.retry_unscoped(view.op.id, &caller, how, limit, key).await
        };
        let mut retried = taken_up(how).await;
        if let Some(why) = retried.as_ref().err().filter(|_| anew).and_then(outdated) {
            // It can never begin: to refuse the retry would leave it stuck for ever.
            retried = taken_up(Some(TakeUp::Anew(Checked::Refused(why)))).await;
        }
        match retried {
            Ok(()) if waits => self.look_at_one(view.op.id).await,
            Ok(()) => {}
            Err(Error::Illegal(_)) => {
                // Its state may be another than a moment ago: somebody else has taken it up or given it up meanwhile.
                let message = match view.op.state {
                    OperationState::Stuck => format!("operation `{name}` is not stuck any more"),
                    state => format!("operation `{name}` is not stuck, it is {state}"),
                };
                return Err(Problem::precondition(ErrorReason::InvalidState, message)
                    .because("STATE", name, "only an operation in state `STUCK` can be taken up again")
                    .into());
            }
            Err(error) => return Err(error),
        }
        self.engine.changed(view.op.id);
        self.engine.wake();
        self.get_operation(&context.permit, context.action, name).await
    }

    /// Asks policy about the plan of a stuck operation once more: whoever takes it up does what is left of it.
    async fn may_be_taken_up(&self, context: &ChangeContext, view: &OperationView) -> Result<()> {
        let mut plan = self.db.plan_by_id_unscoped(view.op.plan).await?;
        let verdict = self.ask_policy_again(context.permit.principal(), &view.op, &plan).await?;
        match verdict.effect() {
            Effect::Allow => Ok(()),
            Effect::RequireApproval => {
                Err(unapproved_yet(unapproved(&plan, &verdict), &view.op.approval).into())
            }
            Effect::Deny | Effect::Unspecified => {
                plan.decision =
                    convert::to_json(&verdict.decision).map_err(|error| Error::Corrupt(error.to_string()))?;
                Err(self.denied(context, &plan, &verdict).await)
            }
        }
    }

    /// Hides an operation that is done; its record is kept for as long as the retention says.
    pub(crate) async fn delete_operation(&self, permit: &Permit, action: &str, name: &str) -> Result<()> {
        Self::name(permit, action, "name", name, names::OPERATION)?;
        let op = self.db.kept_operation(permit, name).await?;
        if self.db.delete_unscoped(op.id, &Caller::of(permit, action, "")).await? {
            return Ok(());
        }
        let message = format!("operation `{name}` is not done");
        let fix = match op.state == OperationState::Stuck {
            true => "it is stuck: take it up with RetryOperation first",
            false => "cancel it first, or wait",
        };
        Err(Problem::precondition(ErrorReason::InvalidState, message).because("STATE", name, fix).into())
    }
}

/// What was approved before it began and got stuck is approved once: where policy asks for more since, that is said
/// beside what was given.
fn unapproved_yet(mut problem: Problem, given: &str) -> Problem {
    if given.is_empty() {
        return problem;
    }
    problem.message.push_str(&format!(": approval `{given}` was given, and policy asks for more by now"));
    problem.with("approval", given)
}
