//! What a call that touches the world tells while it runs: one form here, a message for each method on the wire.

use pavior_driver::{Failure, FailureCode, Outcome, Partial, Success};
use pavior_proto::pavior::driver::v1 as pb;

use crate::WireError;
use crate::convert::{decode_failure, decode_resource, encode_failure, encode_resource};
use crate::value::{decode, encode};

/// What is told.
#[derive(Debug)]
pub(crate) enum Event {
    Progress(pb::Progress),
    Log(pb::Log),
    Checkpoint(pb::Checkpoint),
    Heartbeat(pb::Heartbeat),
    Outcome(Outcome),
}

/// A message of the stream of one method.
pub(crate) trait Told: Sized + Send + 'static {
    fn encode(event: Event) -> Result<Self, WireError>;

    /// Nothing for an event of a kind that is not known here, which comes from a newer driver.
    fn decode(self) -> Result<Option<Event>, WireError>;

    /// What is true of a call that worked, where its success cannot be sent.
    fn unsent(identity: String, why: String) -> Outcome;
}

macro_rules! told {
    ($message:ident, $module:ident, $encode:expr, $decode:expr, $unsent:expr) => {
        impl Told for pb::$message {
            fn encode(event: Event) -> Result<Self, WireError> {
                use pb::$module::outcome::Result as End;
                use pb::$module::{Event as Wire, Outcome as Ended};
                let event = match event {
                    Event::Progress(progress) => Wire::Progress(progress),
                    Event::Log(log) => Wire::Log(log),
                    Event::Checkpoint(checkpoint) => Wire::Checkpoint(checkpoint),
                    Event::Heartbeat(heartbeat) => Wire::Heartbeat(heartbeat),
                    Event::Outcome(outcome) => {
                        let result = match outcome {
                            Outcome::Succeeded(success) => End::Succeeded($encode(&success)?),
                            Outcome::Failed(failure) => End::Failed(encode_failure(&failure)?),
                            Outcome::Unknown { message } => End::Unknown(pb::UnknownOutcome { message }),
                        };
                        Wire::Outcome(Ended { result: Some(result) })
                    }
                };
                Ok(Self { event: Some(event) })
            }

            fn decode(self) -> Result<Option<Event>, WireError> {
                use pb::$module::Event as Wire;
                use pb::$module::outcome::Result as End;
                let Some(event) = self.event else { return Ok(None) };
                Ok(Some(match event {
                    Wire::Progress(progress) => Event::Progress(progress),
                    Wire::Log(log) => Event::Log(log),
                    Wire::Checkpoint(checkpoint) => Event::Checkpoint(checkpoint),
                    Wire::Heartbeat(heartbeat) => Event::Heartbeat(heartbeat),
                    Wire::Outcome(ended) => {
                        Event::Outcome(match ended.result.ok_or(WireError::Missing("outcome.result"))? {
                            End::Succeeded(success) => Outcome::Succeeded($decode(success)?),
                            End::Failed(failure) => Outcome::Failed(decode_failure(failure)?),
                            End::Unknown(pb::UnknownOutcome { message }) => Outcome::Unknown { message },
                        })
                    }
                }))
            }

            fn unsent(identity: String, why: String) -> Outcome {
                $unsent(identity, why)
            }
        }
    };
}

told!(ApplyResponse, apply_response, encode_resource, decode_resource, left_standing);
told!(DestroyResponse, destroy_response, destroyed, gone, untold);
told!(InvokeResponse, invoke_response, encode_invoked, decode_invoked, untold);

/// The engine destroys what it is told of, or applies the former inputs.
fn left_standing(identity: String, why: String) -> Outcome {
    let failure = Failure { retryable: false, ..Failure::new(FailureCode::Internal, why) };
    failure.with_partial(Partial { identity: Some(identity), ..Partial::default() }).into()
}

/// What was carried out cannot be taken back, and a failure would say that it was not.
fn untold(_: String, why: String) -> Outcome {
    Outcome::Unknown { message: why }
}

#[allow(clippy::unnecessary_wraps)]
fn destroyed(_: &Success) -> Result<pb::Destroyed, WireError> {
    Ok(pb::Destroyed {})
}

#[allow(clippy::unnecessary_wraps)]
fn gone(_: pb::Destroyed) -> Result<Success, WireError> {
    Ok(Success::default())
}

fn encode_invoked(success: &Success) -> Result<pb::Invoked, WireError> {
    // The secrets of the resource the engine has from the apply that made them.
    let Success { identity: _, outputs, secrets: _, state } = success;
    Ok(pb::Invoked { outputs: Some(encode(outputs)?), state: Some(encode(state)?) })
}

/// The caller knows what it acted on.
fn decode_invoked(invoked: pb::Invoked) -> Result<Success, WireError> {
    let pb::Invoked { outputs, state } = invoked;
    Ok(Success { outputs: decode(outputs)?, state: decode(state)?, ..Success::default() })
}
