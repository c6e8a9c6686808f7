//! What a test tells the driver to do, and what it learns of the calls.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::{CallContext, FailureCode};

/// What one call of a scripted step does. A step without a script (left) succeeds.
#[derive(Debug, Clone)]
pub enum Behaviour {
    /// Works.
    Succeed,
    /// Fails without an effect.
    Fail {
        /// Whether a retry may work.
        retryable: bool,
        /// The message.
        message: String,
    },
    /// Fails although the effect happened; the failure carries the remains.
    FailPartially {
        /// The message.
        message: String,
    },
    /// Answers UNKNOWN; the effect happened or not.
    Unknown {
        /// Whether the resource exists afterwards.
        effect: bool,
    },
    /// Waits for a permit of this semaphore (`gate.add_permits(1)`), then works. Cancel ends the wait.
    Gate(Arc<Semaphore>),
    /// Never answers by itself; only cancel ends it, as `Cancelled`.
    UntilCancelled,
    /// Emits these log lines, then works.
    Log(Vec<String>),
    /// Emits log lines, so many at a time, each time with a checkpoint behind them, and then works.
    Chatter {
        /// How many times.
        rounds: usize,
        /// Lines of each.
        lines: usize,
    },
    /// Takes so long. Cancel ends it sooner, as `Cancelled`.
    Take(Duration),
    /// Fails without an effect, with this code.
    Refuse(FailureCode),
    /// Fails with this code, and says that a part of the thing is left.
    LeaveParts(FailureCode),
    /// Fails as one whose server is away for so long.
    Busy(Duration),
}

/// What becomes of calls while the driver's server is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Presence {
    /// It is there.
    #[default]
    There,
    /// It is away, and known to have begun nothing.
    Refuses,
    /// It is away, and nobody knows what it has begun.
    Silent,
}

/// Kinds of call in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallKind {
    /// `apply`
    Apply,
    /// `destroy`
    Destroy,
    /// `observe`
    Observe,
    /// `invoke`
    Invoke,
}

/// One line of the journal.
#[derive(Debug, Clone)]
pub struct Call {
    /// The resource, by the name that the caller gave.
    pub resource: String,
    /// Which method.
    pub kind: CallKind,
    /// Operation id of the context.
    pub operation: String,
    /// Claimant of the context.
    pub claimant: String,
    /// Step name of the context.
    pub step: String,
    /// Attempt of the context.
    pub attempt: u32,
    /// Fence of the context.
    pub fence: i64,
    /// Key of the context.
    pub key: String,
    /// Until when the claim was said to hold.
    pub lease_expire_time: Option<time::OffsetDateTime>,
}

impl Call {
    pub(super) fn new(kind: CallKind, context: &CallContext) -> Self {
        Self {
            kind,
            resource: context.resource.clone(),
            operation: context.operation.clone(),
            claimant: context.claimant().to_owned(),
            step: context.step.clone(),
            attempt: context.attempt,
            fence: context.fence,
            key: context.idempotency_key.clone(),
            lease_expire_time: context.lease_expire_time,
        }
    }
}
