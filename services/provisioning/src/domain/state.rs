//! What states, their events and other closed sets of words have in common.

/// A state and an event that do not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{event}` is not possible in state `{state}`")]
pub struct IllegalTransition {
    /// Where it stood.
    pub state: String,
    /// What was to happen.
    pub event: String,
}

/// The states of a thing whose rows are changed by many at once: each event leads to one state.
pub trait Lifecycle: Copy + PartialEq + std::fmt::Display + Sized + 'static {
    /// What can happen to it.
    type Event: Copy + std::fmt::Display;

    /// The state that an event leads to, and the states in which it is possible.
    fn transition(event: Self::Event) -> (Self, &'static [Self]);

    /// The state after `event`.
    fn next(self, event: Self::Event) -> Result<Self, IllegalTransition> {
        let (after, from) = Self::transition(event);
        if from.contains(&self) {
            return Ok(after);
        }
        Err(IllegalTransition { state: self.to_string(), event: event.to_string() })
    }
}

/// Each event with the states in which it is possible, and the one that it leads to.
macro_rules! lifecycle {
    ($state:ident by $event:ident { $($what:ident: $($from:ident)|+ => $to:ident;)+ }) => {
        impl $crate::domain::state::Lifecycle for $state {
            type Event = $event;

            fn transition(event: $event) -> (Self, &'static [Self]) {
                match event {
                    $($event::$what => (Self::$to, &[$(Self::$from),+]),)+
                }
            }
        }
    };
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

        impl $crate::domain::form::Form for $name {
            fn to_json(&self) -> ::serde_json::Value {
                self.as_str().into()
            }

            fn from_json(json: &::serde_json::Value) -> Result<Self, $crate::domain::form::Unreadable> {
                let value = json.as_str().and_then(Self::parse);
                value.ok_or($crate::domain::form::Unreadable::WHOLE)
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

pub(crate) use {lifecycle, named};

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;
    use crate::domain::deployment::{DeploymentEvent, DeploymentState};
    use crate::domain::environment::{EnvironmentEvent, EnvironmentState};
    use crate::domain::operation::{OperationEvent, OperationState, StepEvent, StepState};
    use crate::domain::project::{ProjectEvent, ProjectState};
    use crate::domain::resource::{ResourceEvent, ResourceState};
    use crate::domain::run::{RunEvent, RunState};

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
        let projects = table(ProjectState::ALL, ProjectEvent::ALL, ProjectState::next);
        golden("project_transitions.txt", &projects);
        let environments = table(EnvironmentState::ALL, EnvironmentEvent::ALL, EnvironmentState::next);
        golden("environment_transitions.txt", &environments);
        let resources = table(ResourceState::ALL, ResourceEvent::ALL, ResourceState::next);
        golden("resource_transitions.txt", &resources);
        golden("run_transitions.txt", &table(RunState::ALL, RunEvent::ALL, RunState::next));
        let deployments = table(DeploymentState::ALL, DeploymentEvent::ALL, DeploymentState::next);
        golden("deployment_transitions.txt", &deployments);
    }

    #[test]
    fn operations_that_rest_move_only_when_an_operator_acts() {
        for state in OperationState::ALL.iter().filter(|state| state.rests()) {
            let legal: Vec<_> =
                OperationEvent::ALL.iter().filter(|event| state.next(**event).is_ok()).collect();
            let expected: &[&OperationEvent] = match state.done() {
                true => &[],
                false => &[
                    &OperationEvent::Anew,
                    &OperationEvent::RetryUndo,
                    &OperationEvent::RetryDo,
                    &OperationEvent::GiveUp,
                ],
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
