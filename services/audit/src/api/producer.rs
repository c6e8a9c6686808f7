//! Producers and what they hand over, on the wire.

use pavior_auth::Permit;
use pavior_core::Fault;
use pavior_core::id::validate_id;
use pavior_core::principal::INSTALLATION;
use pavior_proto::pavior::audit::internal::v1 as recorder_pb;
use pavior_rpc::{ErrorReason, Problem, Violations, audit};

use crate::domain::batch::{Entry, Producer, Submission};
use crate::domain::codec::{self, Origin};
use crate::error::Error;

/// Most events in one call.
const MAX_EVENTS: usize = 2_000;
/// Longest service, instance or epoch, in bytes.
const MAX_PRODUCER_TEXT: usize = 256;

/// A call of a producer, checked; every violation is named.
pub(super) fn submission(
    permit: &Permit,
    request: recorder_pb::AppendRecordsRequest,
    received_at: time::OffsetDateTime,
    max_record_bytes: usize,
) -> Result<Submission, Error> {
    let recorder_pb::AppendRecordsRequest { producer, events } = request;
    let recorder_pb::Producer { service, instance, epoch } = producer.unwrap_or_default();
    let mut violations = producer_text(&service, &instance, &epoch);
    if events.len() > MAX_EVENTS {
        violations.add(
            "events",
            Fault::TooMany,
            format!("has {} elements, at most {MAX_EVENTS} are taken", events.len()),
        );
    }
    violations.into_result()?;
    own(permit, &service)?;
    let origin = Origin { producer: Producer { service, epoch }, instance, received_at };
    let mut violations = Violations::new();
    let mut entries = Vec::with_capacity(events.len());
    for (at, event) in events.into_iter().enumerate() {
        match entry(&origin, event, max_record_bytes)? {
            Ok(entry) => entries.push(entry),
            Err((field, fault, why)) => violations.add(format!("events[{at}].{field}"), fault, why),
        }
    }
    violations.into_result()?;
    Ok(Submission { producer: origin.producer, entries })
}

fn producer_text(service: &str, instance: &str, epoch: &str) -> Violations {
    let mut violations = Violations::new();
    for (field, text, required) in
        [("service", service, true), ("epoch", epoch, true), ("instance", instance, false)]
    {
        if (required && text.is_empty()) || text.len() > MAX_PRODUCER_TEXT || text.contains(char::is_control)
        {
            let wanted =
                format!("must be text of at most {MAX_PRODUCER_TEXT} bytes without control characters");
            violations.add(format!("producer.{field}"), Fault::Pattern, wanted);
        }
    }
    violations
}

/// A service writes what itself did: a stolen role does not let one forge the records of another.
fn own(permit: &Permit, service: &str) -> Result<(), Problem> {
    if service == permit.caller() {
        return Ok(());
    }
    let message = format!("`{}` is not the producer `{service}`", permit.caller());
    Err(Problem::new(tonic::Code::PermissionDenied, ErrorReason::CallerNotAllowed, message)
        .with("caller", permit.caller())
        .with("producer", service))
}

/// The producer that a service asks about: itself.
pub(super) fn producer(
    permit: &Permit,
    request: recorder_pb::GetProducerStateRequest,
) -> Result<Producer, Problem> {
    let recorder_pb::Producer { service, instance, epoch } = request.producer.unwrap_or_default();
    producer_text(&service, &instance, &epoch).into_result()?;
    own(permit, &service)?;
    Ok(Producer { service, epoch })
}

type Violation = (&'static str, Fault, String);

fn entry(
    origin: &Origin,
    event: recorder_pb::SequencedEvent,
    max_record_bytes: usize,
) -> Result<Result<Entry, Violation>, Error> {
    let recorder_pb::SequencedEvent { organization, sequence, event } = event;
    if organization.is_empty() {
        return Ok(Err(("organization", Fault::Required, "is required".to_owned())));
    }
    // A request for `organizations/No Such Thing` is denied and recorded like any other. No such organization can have
    // a log, and refusing the record would hold up its producer for ever: it belongs to the installation.
    let log = if validate_id(&organization).is_ok() { organization.as_str() } else { INSTALLATION };
    // Numbers beyond 2^53 would not survive JSON.
    if !(1..1 << 53).contains(&sequence) {
        return Ok(Err((
            "sequence",
            Fault::OutOfRange,
            format!("{sequence} is not a positive number below 2^53"),
        )));
    }
    let Some(event) = event else { return Ok(Err(("event", Fault::Required, "is required".to_owned()))) };
    let event = match audit::decode(event) {
        Ok(event) => event,
        Err(error) => return Ok(Err(("event", Fault::Pattern, error.to_string()))),
    };
    let mut entry = codec::encode(origin, log, sequence, event)?;
    if entry.body.len() > max_record_bytes {
        entry = codec::abridge(origin, &entry)?;
    }
    if entry.body.len() > max_record_bytes {
        let why = format!("the record has {} bytes, at most {max_record_bytes} are taken", entry.body.len());
        return Ok(Err(("event", Fault::TooLong, why)));
    }
    Ok(Ok(entry))
}
