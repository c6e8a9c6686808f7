//! States and their transitions. Every legal pair of state and event is listed here; anything else is refused.

/// A state and an event that do not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{event}` is not possible in state `{state}`")]
pub struct IllegalTransition {
    /// Where it stood.
    pub state: &'static str,
    /// What was to happen.
    pub event: String,
}

macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// Every value, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// As it stands in the database and on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// The value of a name.
            pub fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.as_str() == text)
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

pub(crate) use named;

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
            _ => return Err(IllegalTransition { state: self.as_str(), event: event.to_string() }),
        })
    }

    /// States that nothing follows.
    pub const DONE: [Self; 3] = [Self::Denied, Self::Succeeded, Self::Compensated];

    /// Nothing happens to it any more. `STUCK` is not among these: an operator takes it up.
    pub fn done(self) -> bool {
        Self::DONE.contains(&self)
    }

    /// Nothing happens to it by itself: it is done, or waits for an operator.
    pub fn rests(self) -> bool {
        self.done() || self == Self::Stuck
    }

    /// Its worker steps may be claimed.
    pub fn workable(self) -> bool {
        matches!(self, Self::Queued | Self::Running | Self::Compensating)
    }
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
            (Self::Blocked | Self::Ready, E::Skip) => Self::Skipped,
            (Self::UndoStuck, E::Resume) => Self::UndoReady,
            (Self::Failed, E::Resume) => Self::Ready,
            _ => return Err(IllegalTransition { state: self.as_str(), event: event.to_string() }),
        })
    }

    /// A worker holds it.
    pub fn held(self) -> bool {
        matches!(self, Self::Running | Self::Observing | Self::Undoing)
    }
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;

    fn table<S: Copy + fmt::Display + 'static, E: Copy + fmt::Display + 'static>(
        states: &'static [S],
        events: &'static [E],
        next: impl Fn(S, E) -> Result<S, IllegalTransition>,
    ) -> String {
        let mut out = String::new();
        for state in states {
            for event in events {
                if let Ok(after) = next(*state, *event) {
                    out.push_str(&format!("{state} + {event} -> {after}\n"));
                }
            }
        }
        out
    }

    fn golden(file: &str, text: &str) {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), text, "UPDATE_GOLDEN=1 rewrites");
    }

    #[test]
    fn legal_transitions_are_exactly_the_recorded_ones() {
        let steps = table(StepState::ALL, StepEvent::ALL, StepState::next);
        golden("step_transitions.txt", &steps);
        let operations = table(OperationState::ALL, OperationEvent::ALL, OperationState::next);
        golden("operation_transitions.txt", &operations);
    }

    #[test]
    fn operations_that_rest_move_only_when_an_operator_acts() {
        for state in OperationState::ALL.iter().filter(|state| state.rests()) {
            let legal: Vec<_> =
                OperationEvent::ALL.iter().filter(|event| state.next(**event).is_ok()).collect();
            let expected: &[&OperationEvent] = match state.done() {
                true => &[],
                false => &[&OperationEvent::Anew, &OperationEvent::RetryUndo, &OperationEvent::RetryDo],
            };
            assert_eq!(legal, expected, "{state}");
        }
    }

    #[test]
    fn names_parse_back() {
        for state in StepState::ALL {
            assert_eq!(StepState::parse(state.as_str()), Some(*state));
        }
        assert_eq!(OperationState::parse("nope"), None);
    }
}
