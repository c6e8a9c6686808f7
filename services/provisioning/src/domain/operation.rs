//! An operation and its steps: what is carried out of a plan. Every legal pair of state and event is listed here;
//! anything else is refused.

use std::collections::BTreeMap;

use pavior_core::principal::Principal;
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use super::environment::EnvironmentView;
use super::failure::{Failure, StepFailure};
use super::form::form;
use super::plan::{Action, Kind, Spec};
use super::project::Project;
use super::state::{IllegalTransition, named};

/// An operation as it is recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    /// Its id.
    pub id: Uuid,
    /// The organization's id.
    pub organization: String,
    /// Its resource name.
    pub name: String,
    /// What it is for.
    pub kind: Kind,
    /// What was asked, for example `provisioning.environments.create`.
    pub action: String,
    /// What it is about, by resource name.
    pub target: String,
    /// The project that it works in, by resource name.
    pub project: String,
    /// Its state.
    pub state: OperationState,
    /// Somebody cancelled it.
    pub cancel_requested: bool,
    /// The database was set back while it was under way: what drivers know it as since, where it makes or changes
    /// something (the claimant of their calls). They may have seen later operations that are lost here.
    pub parked: Option<Uuid>,
    /// The id of its plan.
    pub plan: Uuid,
    /// The digest of its plan.
    pub plan_digest: String,
    /// Who asked, by resource name.
    pub requester: String,
    /// Who asked, as the call was made.
    pub principal: Principal,
    /// The approval that was asked for, by resource name; empty for none.
    pub approval: String,
    /// Why it did not succeed, or does not go on.
    pub error: Option<Failure>,
    /// The target as it was when the operation removed it.
    pub removed: Option<Removed>,
    /// What else of the request is carried out at its end.
    pub settings: Value,
    /// The number of its last event.
    pub event_seq: i64,
    /// The number of its last batch of log lines.
    pub log_seq: i64,
    /// The group that owns its project.
    pub owner: String,
    /// The class of its environment; empty outside environments.
    pub environment_class: String,
    /// The labels of its project.
    pub labels: BTreeMap<String, String>,
    /// Who cancelled it, by resource name.
    pub canceller: String,
    /// Who deleted it, by resource name.
    pub deleter: String,
    /// When it was deleted.
    pub delete_time: Option<OffsetDateTime>,
    /// When it was accepted.
    pub create_time: OffsetDateTime,
    /// When its first step began.
    pub start_time: Option<OffsetDateTime>,
    /// When it ended.
    pub end_time: Option<OffsetDateTime>,
}

/// What an operation removed, as it was.
#[derive(Debug, Clone, PartialEq)]
pub enum Removed {
    /// A project.
    Project(Box<Project>),
    /// An environment.
    Environment(Box<EnvironmentView>),
}

/// A step of an operation as it is recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Its id.
    pub id: Uuid,
    /// The id of its operation.
    pub operation: Uuid,
    /// The organization's id.
    pub organization: String,
    /// Its id in the plan.
    pub name: String,
    /// The resource that it works on, by resource name.
    pub resource: String,
    /// The id of the driver.
    pub driver: String,
    /// What happens to the resource.
    pub action: Action,
    /// What its execution is told.
    pub spec: Spec,
    /// The resource before the operation.
    pub prior: Option<Prior>,
    /// The run or the deployment that it makes, by resource name; empty for none.
    pub subject: String,
    /// Its state.
    pub state: StepState,
    /// What a replacement takes the place of is gone.
    pub former_gone: bool,
    /// How often it was begun.
    pub attempt: i32,
    /// How often its undo was begun.
    pub undo_attempt: i32,
    /// How often it waited for a driver that was away.
    pub waits: i32,
    /// The number of its last claim.
    pub fence: i64,
    /// The key that its driver is called with.
    pub idempotency_key: String,
    /// What its driver resumes from.
    pub checkpoint: Option<Value>,
    /// Why its last attempt failed.
    pub error: Option<StepFailure>,
    /// When it began.
    pub start_time: Option<OffsetDateTime>,
    /// When it ended.
    pub end_time: Option<OffsetDateTime>,
}

/// Something that happened in an operation.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its number.
    pub seq: i64,
    /// When it happened.
    pub time: OffsetDateTime,
    /// What changed.
    pub change: StateChange,
}

/// What changed in an operation.
#[derive(Debug, Clone, PartialEq)]
pub enum StateChange {
    /// The state of the operation; this is the new one.
    Operation(OperationState),
    /// The state of a step; this is how far it was then.
    Step(Box<StepProgress>),
}

/// How far a step is, as callers are told.
#[derive(Debug, Clone, PartialEq)]
pub struct StepProgress {
    /// Its id in the plan.
    pub name: String,
    /// What happens to the resource.
    pub action: Action,
    /// The resource that it works on, by resource name.
    pub resource: String,
    /// The id of the driver.
    pub driver: String,
    /// Its state.
    pub state: StepState,
    /// How often it was begun.
    pub attempt: i32,
    /// Why its last attempt failed.
    pub error: Option<StepFailure>,
    /// When it began.
    pub start_time: Option<OffsetDateTime>,
    /// When it ended.
    pub end_time: Option<OffsetDateTime>,
}

impl From<Step> for StepProgress {
    fn from(step: Step) -> Self {
        let Step { name, action, resource, driver, state, attempt, error, start_time, end_time, .. } = step;
        Self { name, action, resource, driver, state, attempt, error, start_time, end_time }
    }
}

/// A resource as it was before an operation changed it: what an undo restores.
#[derive(Debug, Clone, PartialEq)]
pub struct Prior {
    /// The driver's name of it.
    pub identity: String,
    /// Inputs of its last apply, secrets as references.
    pub inputs: Value,
    /// Outputs, secrets as references.
    pub outputs: Value,
    /// The driver's state of it.
    pub state: Value,
    /// What its last apply was told.
    pub spec: Spec,
    /// Under which its inputs are sealed, when they hold secrets; else empty.
    pub sealed_inputs: String,
    /// How often it was applied.
    pub generation: i64,
}

form!(Prior { identity, inputs, outputs, state, spec, sealed_inputs, generation });

named! {
    /// Where an operation stands.
    OperationState {
        /// The plan is made.
        Planned = "PLANNED",
        /// Policy or the approval service is being asked.
        Checking = "CHECKING",
        /// Policy or people said no.
        Denied = "DENIED",
        /// People have to agree.
        AwaitingApproval = "AWAITING_APPROVAL",
        /// Waiting for a worker.
        Queued = "QUEUED",
        /// Under way.
        Running = "RUNNING",
        /// Cancelled; running steps are being stopped.
        Cancelling = "CANCELLING",
        /// A step failed; running steps are being awaited.
        Failing = "FAILING",
        /// What was made is being undone.
        Compensating = "COMPENSATING",
        /// Done.
        Succeeded = "SUCCEEDED",
        /// Failed or cancelled, and undone.
        Compensated = "COMPENSATED",
        /// What is left waits for an operator, who takes it up.
        Stuck = "STUCK",
    }
}

named! {
    /// What can happen to an operation.
    OperationEvent {
        /// Policy is asked.
        Check = "CHECK",
        /// Policy or people said no.
        Deny = "DENY",
        /// People have to agree.
        RequireApproval = "REQUIRE_APPROVAL",
        /// It may run.
        Admit = "ADMIT",
        /// A worker took the first step.
        Start = "START",
        /// A step failed for good, or the deadline passed.
        Fail = "FAIL",
        /// Somebody cancelled.
        Cancel = "CANCEL",
        /// No step runs any more; undo begins.
        Compensate = "COMPENSATE",
        /// Every step is done.
        Succeed = "SUCCEED",
        /// Everything is undone.
        Undone = "UNDONE",
        /// What is left cannot be undone without an operator.
        Stick = "STICK",
        /// The database was set back: nothing goes on by itself.
        Park = "PARK",
        /// An operator takes up what had not begun: it is checked as at first.
        Anew = "ANEW",
        /// An operator takes up the undo.
        RetryUndo = "RETRY_UNDO",
        /// An operator takes up the work itself (deletions only go forward).
        RetryDo = "RETRY_DO",
        /// An operator gives it up: nothing more is tried.
        GiveUp = "GIVE_UP",
    }
}

impl OperationState {
    /// The state after `event`.
    pub fn next(self, event: OperationEvent) -> Result<Self, IllegalTransition> {
        use OperationEvent as E;
        Ok(match (self, event) {
            (Self::Planned, E::Check) => Self::Checking,
            (Self::Planned | Self::Checking | Self::AwaitingApproval, E::Deny) => Self::Denied,
            (Self::Planned | Self::Checking, E::RequireApproval) => Self::AwaitingApproval,
            (Self::Planned | Self::Checking | Self::AwaitingApproval, E::Admit) => Self::Queued,
            (Self::Queued, E::Start) => Self::Running,
            (Self::Queued | Self::Running, E::Fail) => Self::Failing,
            (
                Self::Planned | Self::Checking | Self::AwaitingApproval | Self::Queued | Self::Running,
                E::Cancel,
            ) => Self::Cancelling,
            (Self::Failing | Self::Cancelling, E::Compensate) => Self::Compensating,
            (Self::Queued | Self::Running, E::Succeed) => Self::Succeeded,
            (Self::Cancelling | Self::Compensating, E::Undone) => Self::Compensated,
            (Self::Failing | Self::Cancelling | Self::Compensating, E::Stick) => Self::Stuck,
            (
                Self::Checking
                | Self::AwaitingApproval
                | Self::Queued
                | Self::Running
                | Self::Cancelling
                | Self::Failing
                | Self::Compensating,
                E::Park,
            ) => Self::Stuck,
            (Self::Stuck, E::Anew) => Self::Checking,
            (Self::Stuck, E::RetryUndo) => Self::Compensating,
            (Self::Stuck, E::RetryDo) => Self::Running,
            (Self::Stuck, E::GiveUp) => Self::Compensated,
            _ => return Err(IllegalTransition { state: self.to_string(), event: event.to_string() }),
        })
    }

    /// States that nothing follows.
    pub const DONE: [Self; 3] = [Self::Denied, Self::Succeeded, Self::Compensated];

    /// Nothing happens to it any more. `STUCK` is not among these: an operator takes it up, or gives it up.
    pub fn done(self) -> bool {
        Self::DONE.contains(&self)
    }

    /// Nothing happens to it by itself: it is done, or waits for an operator.
    pub fn rests(self) -> bool {
        self.done() || self == Self::Stuck
    }

    /// States in which its steps can be claimed.
    pub const WORKABLE: [Self; 3] = [Self::Queued, Self::Running, Self::Compensating];
    /// States in which it goes on by itself.
    pub const GOING_ON: [Self; 5] =
        [Self::Queued, Self::Running, Self::Cancelling, Self::Failing, Self::Compensating];
    /// States in which people are asked, or are about to be.
    pub const ASKING: [Self; 2] = [Self::Checking, Self::AwaitingApproval];
}

named! {
    /// Where a step stands.
    StepState {
        /// Waits for other steps.
        Blocked = "BLOCKED",
        /// Can be taken.
        Ready = "READY",
        /// A driver is at it.
        Running = "RUNNING",
        /// Done.
        Done = "DONE",
        /// Failed for good.
        Failed = "FAILED",
        /// Its outcome is not known.
        Unknown = "UNKNOWN",
        /// The driver is asked what became of it.
        Observing = "OBSERVING",
        /// To be undone.
        UndoReady = "UNDO_READY",
        /// Being undone.
        Undoing = "UNDOING",
        /// Undone.
        Undone = "UNDONE",
        /// Undoing failed.
        UndoStuck = "UNDO_STUCK",
        /// Not needed any more.
        Skipped = "SKIPPED",
    }
}

named! {
    /// What can happen to a step.
    StepEvent {
        /// The steps before it are done.
        Unblock = "UNBLOCK",
        /// A worker takes it.
        Claim = "CLAIM",
        /// It worked.
        Succeed = "SUCCEED",
        /// It failed for good.
        Fail = "FAIL",
        /// It failed and is tried again.
        Retry = "RETRY",
        /// Nobody knows what became of the call.
        Lose = "LOSE",
        /// The driver found nothing: the call had no effect.
        FoundAbsent = "FOUND_ABSENT",
        /// It is to be undone.
        Undo = "UNDO",
        /// Undone.
        UndoSucceed = "UNDO_SUCCEED",
        /// The undo is tried again.
        UndoRetry = "UNDO_RETRY",
        /// The undo failed for good.
        UndoFail = "UNDO_FAIL",
        /// It is not needed any more.
        Skip = "SKIP",
        /// An operator takes it up again.
        Resume = "RESUME",
    }
}

impl StepState {
    /// Whether its undo has begun.
    pub fn is_undo(self) -> bool {
        matches!(self, Self::UndoReady | Self::Undoing | Self::Undone | Self::UndoStuck)
    }

    /// The state after `event`.
    pub fn next(self, event: StepEvent) -> Result<Self, IllegalTransition> {
        use StepEvent as E;
        Ok(match (self, event) {
            (Self::Blocked, E::Unblock) => Self::Ready,
            (Self::Ready, E::Claim) => Self::Running,
            (Self::Unknown, E::Claim) => Self::Observing,
            (Self::UndoReady, E::Claim) => Self::Undoing,
            (Self::Running | Self::Observing, E::Succeed) => Self::Done,
            (Self::Running | Self::Observing, E::Fail) => Self::Failed,
            (Self::Running, E::Retry) => Self::Ready,
            (Self::Running | Self::Observing, E::Lose) => Self::Unknown,
            (Self::Undoing, E::Lose) => Self::UndoReady,
            (Self::Observing, E::FoundAbsent) => Self::Ready,
            // A step that waits for its next attempt may have left something behind by the one before.
            (Self::Done | Self::Unknown | Self::Failed | Self::Ready, E::Undo) => Self::UndoReady,
            (Self::Undoing, E::UndoSucceed) => Self::Undone,
            (Self::Undoing, E::UndoRetry) => Self::UndoReady,
            (Self::Undoing | Self::UndoReady, E::UndoFail) => Self::UndoStuck,
            (Self::Blocked | Self::Ready | Self::Unknown, E::Skip) => Self::Skipped,
            (Self::UndoStuck, E::Resume) => Self::UndoReady,
            (Self::Failed, E::Resume) => Self::Ready,
            (Self::Skipped, E::Resume) => Self::Blocked,
            _ => return Err(IllegalTransition { state: self.to_string(), event: event.to_string() }),
        })
    }

    /// States in which a worker can claim it.
    pub const CLAIMABLE: [Self; 3] = [Self::Ready, Self::Unknown, Self::UndoReady];
    /// States in which a worker holds it.
    pub const HELD: [Self; 3] = [Self::Running, Self::Observing, Self::Undoing];

    /// A worker holds it.
    pub fn held(self) -> bool {
        Self::HELD.contains(&self)
    }

    /// It waits for its first attempt, or for its next.
    pub fn waits(self) -> bool {
        matches!(self, Self::Blocked | Self::Ready)
    }
}
