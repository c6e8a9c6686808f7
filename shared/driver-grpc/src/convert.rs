//! Contexts, outcomes and observations between Rust and the wire.

use pavior_driver::{
    CallContext, Failure, FailureCode, FieldDiff, Found, Listed, LogStream, Lookup, Observation, Partial,
    PlanAction, PlanResponse, Prior, SecretString, Secrets, SinkClosed, Success,
};
use pavior_proto::pavior::driver::v1 as pb;
use pavior_rpc::convert::{from_duration, from_timestamp, to_duration, to_timestamp};
use pb::acknowledge_request::Result as Acknowledged;
use pb::lookup::By;
use pb::observe_response::Observation as PbObservation;
use tokio_util::sync::CancellationToken;

use crate::WireError;
use crate::handshake::{Agreement, numbers};
use crate::value::{decode, encode, in_clear, secret};

pub(crate) fn encode_context(context: &CallContext, call_id: &str, agreed: &Agreement) -> pb::CallContext {
    let CallContext {
        organization,
        resource,
        operation,
        claimant,
        step,
        attempt,
        fence,
        idempotency_key,
        lease_expire_time,
        traceparent,
        cancel: _,
    } = context;
    pb::CallContext {
        call_id: call_id.to_owned(),
        organization_id: organization.clone(),
        resource: resource.clone(),
        operation_id: operation.clone(),
        step_id: step.clone(),
        // The engine's own counter has 31 bits, too.
        attempt: i32::try_from(*attempt).unwrap_or(i32::MAX),
        fence: *fence,
        idempotency_key: idempotency_key.clone(),
        lease_expire_time: lease_expire_time.map(to_timestamp),
        traceparent: traceparent.clone().unwrap_or_default(),
        capabilities: numbers(&agreed.capabilities),
        claimant_id: claimant.clone(),
    }
}

/// The context, the id of the call, and the numbers of the capabilities that were agreed on.
pub(crate) fn decode_context(
    context: Option<pb::CallContext>,
    cancel: CancellationToken,
) -> Result<(CallContext, String, Vec<i32>), WireError> {
    let pb::CallContext {
        call_id,
        organization_id,
        resource,
        operation_id,
        step_id,
        attempt,
        fence,
        idempotency_key,
        lease_expire_time,
        traceparent,
        capabilities,
        claimant_id,
    } = context.ok_or(WireError::Missing("context"))?;
    if call_id.is_empty() {
        return Err(WireError::Missing("context.call_id"));
    }
    let attempt = u32::try_from(attempt).map_err(|_| WireError::Negative("context.attempt"))?;
    let lease_expire_time = lease_expire_time.as_ref().map(from_timestamp).transpose();
    let context = CallContext {
        organization: organization_id,
        resource,
        operation: operation_id,
        claimant: claimant_id,
        step: step_id,
        attempt,
        fence,
        idempotency_key,
        lease_expire_time: lease_expire_time.map_err(|_| WireError::Time("context.lease_expire_time"))?,
        traceparent: Some(traceparent).filter(|text| !text.is_empty()),
        cancel,
    };
    Ok((context, call_id, capabilities))
}

pub(crate) fn encode_lookup(lookup: Lookup) -> pb::Lookup {
    let by = match lookup {
        Lookup::Identity(identity) => By::Identity(identity),
        Lookup::Key(key) => By::IdempotencyKey(key),
    };
    pb::Lookup { by: Some(by) }
}

pub(crate) fn decode_lookup(lookup: Option<pb::Lookup>) -> Result<Lookup, WireError> {
    match lookup.and_then(|lookup| lookup.by).ok_or(WireError::Missing("lookup.by"))? {
        By::Identity(identity) => Ok(Lookup::Identity(identity)),
        By::IdempotencyKey(key) => Ok(Lookup::Key(key)),
    }
}

pub(crate) fn encode_prior(prior: &Prior) -> Result<pb::Prior, WireError> {
    let Prior { identity, inputs, outputs, state } = prior;
    Ok(pb::Prior {
        identity: identity.clone(),
        inputs: Some(encode(inputs)?),
        outputs: Some(encode(outputs)?),
        state: Some(encode(state)?),
    })
}

pub(crate) fn decode_prior(prior: pb::Prior) -> Result<Prior, WireError> {
    let pb::Prior { identity, inputs, outputs, state } = prior;
    Ok(Prior { identity, inputs: decode(inputs)?, outputs: decode(outputs)?, state: decode(state)? })
}

pub(crate) fn encode_resource(success: &Success) -> Result<pb::Resource, WireError> {
    let Success { identity, outputs, secrets, state } = success;
    Ok(pb::Resource {
        identity: identity.clone(),
        outputs: Some(encode(outputs)?),
        secrets: secrets.iter().map(|(name, value)| (name.to_owned(), secret(value))).collect(),
        state: Some(encode(state)?),
    })
}

pub(crate) fn decode_resource(resource: pb::Resource) -> Result<Success, WireError> {
    let pb::Resource { identity, outputs, secrets, state } = resource;
    let secrets = secrets.into_iter().try_fold(Secrets::new(), |all, (name, value)| {
        Ok::<_, WireError>(all.with(&name, SecretString::from(in_clear(value)?)))
    })?;
    Ok(Success { identity, outputs: decode(outputs)?, secrets, state: decode(state)? })
}

fn encode_code(code: FailureCode) -> pb::FailureCode {
    match code {
        FailureCode::InvalidArgument => pb::FailureCode::InvalidArgument,
        FailureCode::Fenced => pb::FailureCode::Fenced,
        FailureCode::Conflict => pb::FailureCode::Conflict,
        FailureCode::NotFound => pb::FailureCode::NotFound,
        FailureCode::Unsupported => pb::FailureCode::Unsupported,
        FailureCode::Unavailable => pb::FailureCode::Unavailable,
        FailureCode::Timeout => pb::FailureCode::Timeout,
        FailureCode::Cancelled => pb::FailureCode::Cancelled,
        FailureCode::WorkFailed => pb::FailureCode::WorkFailed,
        FailureCode::Internal => pb::FailureCode::Internal,
        FailureCode::Changed => pb::FailureCode::Changed,
    }
}

fn decode_code(number: i32) -> FailureCode {
    match pb::FailureCode::try_from(number) {
        Ok(pb::FailureCode::InvalidArgument) => FailureCode::InvalidArgument,
        Ok(pb::FailureCode::Fenced) => FailureCode::Fenced,
        Ok(pb::FailureCode::Conflict) => FailureCode::Conflict,
        Ok(pb::FailureCode::NotFound) => FailureCode::NotFound,
        Ok(pb::FailureCode::Unsupported) => FailureCode::Unsupported,
        Ok(pb::FailureCode::Unavailable) => FailureCode::Unavailable,
        Ok(pb::FailureCode::Timeout) => FailureCode::Timeout,
        Ok(pb::FailureCode::Cancelled) => FailureCode::Cancelled,
        Ok(pb::FailureCode::WorkFailed) => FailureCode::WorkFailed,
        Ok(pb::FailureCode::Changed) => FailureCode::Changed,
        // Codes that a newer driver may have are failures all the same.
        Ok(pb::FailureCode::Internal | pb::FailureCode::Unspecified) | Err(_) => FailureCode::Internal,
    }
}

pub(crate) fn encode_failure(failure: &Failure) -> Result<pb::Failure, WireError> {
    let Failure { retryable, code, message, partial, details, retry_delay } = failure;
    let partial = match partial.as_deref() {
        Some(Partial { identity, state }) => Some(pb::PartialResource {
            identity: identity.clone(),
            state: Some(encode(state)?),
            message: String::new(),
        }),
        None => None,
    };
    Ok(pb::Failure {
        retryable: *retryable,
        code: encode_code(*code).into(),
        message: message.clone(),
        partial,
        details: details.clone().into_iter().collect(),
        retry_delay: retry_delay.map(to_duration),
    })
}

pub(crate) fn decode_failure(failure: pb::Failure) -> Result<Failure, WireError> {
    let pb::Failure { retryable, code, message, partial, details, retry_delay } = failure;
    let partial = match partial {
        Some(pb::PartialResource { identity, state, message: _ }) => {
            Some(Box::new(Partial { identity, state: decode(state)? }))
        }
        None => None,
    };
    let details = details.into_iter().collect();
    // A time that cannot be is none.
    let retry_delay = retry_delay.and_then(|delay| from_duration(&delay).ok());
    Ok(Failure { retryable, code: decode_code(code), message, partial, details, retry_delay })
}

pub(crate) fn encode_observation(observation: Observation) -> Result<pb::ObserveResponse, WireError> {
    let mut declaration_digest = String::new();
    let observation = match observation {
        Observation::Found(mut found) => {
            declaration_digest = std::mem::take(&mut found.declaration_digest);
            PbObservation::Found(encode_resource(&Success::from(found))?)
        }
        Observation::Absent => PbObservation::Absent(pb::Absent {}),
        Observation::Partial { identity, state, message } => {
            PbObservation::Partial(pb::PartialResource { identity, state: Some(encode(&state)?), message })
        }
        Observation::Indeterminate { message } => PbObservation::Indeterminate(pb::Indeterminate { message }),
    };
    Ok(pb::ObserveResponse { observation: Some(observation), declaration_digest })
}

pub(crate) fn decode_observation(response: pb::ObserveResponse) -> Result<Observation, WireError> {
    let pb::ObserveResponse { observation, declaration_digest } = response;
    Ok(match observation.ok_or(WireError::Missing("observation"))? {
        PbObservation::Found(resource) => {
            Observation::Found(Found { declaration_digest, ..Found::from(decode_resource(resource)?) })
        }
        PbObservation::Absent(pb::Absent {}) => Observation::Absent,
        PbObservation::Partial(pb::PartialResource { identity, state, message }) => {
            Observation::Partial { identity, state: decode(state)?, message }
        }
        PbObservation::Indeterminate(pb::Indeterminate { message }) => Observation::Indeterminate { message },
    })
}

pub(crate) fn encode_plan(plan: &PlanResponse) -> Result<pb::Plan, WireError> {
    let PlanResponse { action, diff, forces_replacement } = plan;
    let action = match action {
        PlanAction::Noop => pb::PlanAction::Noop,
        PlanAction::Create => pb::PlanAction::Create,
        PlanAction::Update => pb::PlanAction::Update,
        PlanAction::Replace => pb::PlanAction::Replace,
        PlanAction::Delete => pb::PlanAction::Delete,
    };
    let diffs = diff.iter().map(|FieldDiff { path, before, after }| {
        Ok(pb::FieldDiff {
            path: path.clone(),
            before: optional(before.as_ref(), encode)?,
            after: optional(after.as_ref(), encode)?,
        })
    });
    Ok(pb::Plan {
        action: action.into(),
        diffs: diffs.collect::<Result<_, WireError>>()?,
        forces_replacement: forces_replacement.clone(),
    })
}

pub(crate) fn decode_plan(plan: pb::Plan) -> Result<PlanResponse, WireError> {
    let pb::Plan { action, diffs, forces_replacement } = plan;
    let action = match pb::PlanAction::try_from(action) {
        Ok(pb::PlanAction::Noop) => PlanAction::Noop,
        Ok(pb::PlanAction::Create) => PlanAction::Create,
        Ok(pb::PlanAction::Update) => PlanAction::Update,
        Ok(pb::PlanAction::Replace) => PlanAction::Replace,
        Ok(pb::PlanAction::Delete) => PlanAction::Delete,
        Ok(pb::PlanAction::Unspecified) | Err(_) => return Err(WireError::Meaningless("plan.action")),
    };
    let diff = diffs.into_iter().map(|pb::FieldDiff { path, before, after }| {
        let present = |value: Option<pb::Value>| optional(value, |value| decode(Some(value)));
        Ok(FieldDiff { path, before: present(before)?, after: present(after)? })
    });
    Ok(PlanResponse { action, diff: diff.collect::<Result<_, WireError>>()?, forces_replacement })
}

/// Where absent is not null.
pub(crate) fn optional<A, B>(
    value: Option<A>,
    convert: impl FnOnce(A) -> Result<B, WireError>,
) -> Result<Option<B>, WireError> {
    value.map(convert).transpose()
}

pub(crate) fn encode_stream(stream: LogStream) -> pb::LogStream {
    match stream {
        LogStream::Stdout => pb::LogStream::Stdout,
        LogStream::Stderr => pb::LogStream::Stderr,
        LogStream::System => pb::LogStream::System,
    }
}

pub(crate) fn decode_stream(number: i32) -> LogStream {
    match pb::LogStream::try_from(number) {
        Ok(pb::LogStream::Stdout) => LogStream::Stdout,
        Ok(pb::LogStream::Stderr) => LogStream::Stderr,
        Ok(pb::LogStream::System | pb::LogStream::Unspecified) | Err(_) => LogStream::System,
    }
}

pub(crate) fn encode_answer(answer: Result<(), SinkClosed>) -> Acknowledged {
    match answer {
        Ok(()) => Acknowledged::Accepted,
        Err(SinkClosed::ClaimLost) => Acknowledged::ClaimLost,
        Err(SinkClosed::NotKept) => Acknowledged::NotKept,
    }
}

/// A driver that cannot tell what it was answered must not go on.
pub(crate) fn decode_answer(number: i32) -> Result<(), SinkClosed> {
    match Acknowledged::try_from(number) {
        Ok(Acknowledged::Accepted) => Ok(()),
        Ok(Acknowledged::NotKept) => Err(SinkClosed::NotKept),
        Ok(Acknowledged::ClaimLost | Acknowledged::Unspecified) | Err(_) => Err(SinkClosed::ClaimLost),
    }
}

pub(crate) fn encode_sensitive(sensitive: &[SecretString]) -> Vec<pb::Secret> {
    sensitive.iter().map(secret).collect()
}

pub(crate) fn decode_sensitive(sensitive: Vec<pb::Secret>) -> Result<Vec<SecretString>, WireError> {
    sensitive.into_iter().map(|secret| Ok(SecretString::from(in_clear(secret)?))).collect()
}

pub(crate) fn encode_listed(listed: Listed) -> pb::ListedResource {
    let Listed { identity, resource_type, organization, resource, key, declaration_digest } = listed;
    pb::ListedResource {
        identity,
        resource_type_id: resource_type,
        organization_id: organization,
        resource,
        idempotency_key: key,
        declaration_digest,
    }
}

pub(crate) fn decode_listed(listed: pb::ListedResource) -> Listed {
    let pb::ListedResource {
        identity,
        resource_type_id,
        organization_id,
        resource,
        idempotency_key,
        declaration_digest,
    } = listed;
    Listed {
        identity,
        resource_type: resource_type_id,
        organization: organization_id,
        resource,
        key: idempotency_key,
        declaration_digest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_goes_on_only_when_it_is_told_so() {
        for answer in [Ok(()), Err(SinkClosed::ClaimLost), Err(SinkClosed::NotKept)] {
            assert_eq!(decode_answer(encode_answer(answer).into()), answer);
        }
        for unknown in [Acknowledged::Unspecified.into(), 99, -1] {
            assert_eq!(decode_answer(unknown), Err(SinkClosed::ClaimLost));
        }
    }
}
