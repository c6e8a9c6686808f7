//! Between the wire and the service.

use pavior_auth::Permit;
use pavior_core::Fault;
use pavior_core::filter::{self, Filter};
use pavior_core::name::validate_id;
use pavior_core::principal::{INSTALLATION, installation_name};
use pavior_proto::pavior::audit::internal::v1 as recorder_pb;
use pavior_proto::pavior::audit::v1 as pb;
use pavior_rpc::{ErrorReason, Problem, Violations, audit, convert, stream};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::app::leaf::{self, Origin};
use crate::app::reader::Cursor;
use crate::domain::batch::{Entry, Producer, Submission};
use crate::domain::hash::Hash;
use crate::domain::record::{Checkpoint, StoredRecord};

use super::status::problem;

/// Most events in one call.
pub(super) const MAX_EVENTS: usize = 2_000;
/// Longest service, instance or epoch, in bytes.
const MAX_PRODUCER_TEXT: usize = 256;

/// Checks that `parent` is the organization that the call was allowed for: a permit for one is not one for another.
pub(super) fn confined(permit: &Permit, field: &str, parent: &str) -> Result<(), Problem> {
    let id = parent.strip_prefix("organizations/").filter(|id| is_log(id)).ok_or_else(|| {
        let why = format!(
            "`{parent}` is not `organizations/…`; that of the installation is `{}`",
            installation_name()
        );
        Problem::invalid_field(field, Fault::Pattern, why)
    })?;
    match id == permit.organization() {
        true => Ok(()),
        false => Err(Problem::permission_denied(permit.action(), parent)),
    }
}

/// The organization of a checkpoint's name.
pub(super) fn checkpoint_log(name: &str) -> Result<&str, Problem> {
    name.strip_suffix("/auditCheckpoint").ok_or_else(|| {
        Problem::invalid_field(
            "name",
            Fault::Pattern,
            format!("`{name}` is not `organizations/…/auditCheckpoint`"),
        )
    })
}

/// The organization, the level and the index of a tile's name.
pub(super) fn tile_name(name: &str) -> Result<(&str, i32, i64), Problem> {
    let parts = name.rsplit_once("/auditTiles/").and_then(|(parent, id)| {
        let (level, index) = id.split_once('-')?;
        Some((parent, whole_number(level)?, whole_number(index)?))
    });
    let wrong = || {
        let wanted = "`organizations/…/auditTiles/{level}-{index}`";
        Problem::invalid_field("name", Fault::Pattern, format!("`{name}` is not {wanted}"))
    };
    parts.ok_or_else(wrong)
}

/// A number as it stands in names: one has one name.
fn whole_number<N: std::str::FromStr + ToString>(text: &str) -> Option<N> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse::<N>().ok().filter(|number| digits && number.to_string() == text)
}

/// An organization's id, or that of the installation.
fn is_log(id: &str) -> bool {
    validate_id(id).is_ok()
}

/// The organization and the event id of a record's name.
pub(super) fn record_name(name: &str) -> Result<(&str, String), Problem> {
    let parts = name.rsplit_once("/auditRecords/");
    let event = parts.and_then(|(parent, id)| Some((parent, Uuid::try_parse(id).ok()?)));
    let wrong = || {
        Problem::invalid_field(
            "name",
            Fault::Pattern,
            format!("`{name}` is not `organizations/…/auditRecords/…`"),
        )
    };
    event.map(|(parent, id)| (parent, id.to_string())).ok_or_else(wrong)
}

pub(super) fn filter(text: &str) -> Result<Filter, Problem> {
    Filter::parse(text).map_err(|e| {
        Problem::invalid_reason(ErrorReason::InvalidFilter, "filter", Fault::Syntax, e.to_string())
    })
}

/// True for the newest first.
pub(super) fn descending(order_by: &str) -> Result<bool, Problem> {
    let wrong =
        |why: String| Problem::invalid_reason(ErrorReason::InvalidFilter, "order_by", Fault::Syntax, why);
    let keys = filter::order_by(order_by).map_err(|e| wrong(e.to_string()))?;
    match keys.as_slice() {
        [] => Ok(false),
        [(path, descending)] if path.len() == 1 && path[0] == "index" => Ok(*descending),
        _ => Err(wrong("records can be ordered by `index` and `index desc` only".to_owned())),
    }
}

pub(super) fn write_cursor(cursor: &Cursor) -> Value {
    json!([cursor.last, cursor.tree_size])
}

pub(super) fn read_cursor(value: &Value) -> Result<Cursor, Problem> {
    let number = |at: usize| value.get(at).and_then(Value::as_i64);
    let cursor = number(0).zip(number(1)).map(|(last, tree_size)| Cursor { last, tree_size });
    cursor.ok_or_else(|| {
        Problem::invalid_reason(
            ErrorReason::InvalidPageToken,
            "page_token",
            Fault::Token,
            "not a token of this list",
        )
    })
}

/// Where a stream goes on: the index of the next record to look at.
pub(super) fn read_place(value: &Value) -> Result<i64, Problem> {
    value.as_i64().filter(|next| *next >= 0).ok_or_else(stream::not_ours)
}

/// A number that must not be negative.
pub(super) fn whole(field: &str, number: i64) -> Result<u64, Problem> {
    u64::try_from(number)
        .map_err(|_| Problem::invalid_field(field, Fault::OutOfRange, "must not be negative"))
}

/// A size, where 0 means the newest.
pub(super) fn size(field: &str, number: i64) -> Result<Option<u64>, Problem> {
    Ok(Some(whole(field, number)?).filter(|size| *size > 0))
}

/// A call of a producer, checked; every violation is named.
pub(super) fn submission(
    permit: &Permit,
    request: recorder_pb::AppendRecordsRequest,
    received_at: time::OffsetDateTime,
    max_record_bytes: usize,
) -> Result<Submission, Problem> {
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
) -> Result<Result<Entry, Violation>, Problem> {
    let recorder_pb::SequencedEvent { organization, sequence, event } = event;
    if organization.is_empty() {
        return Ok(Err(("organization", Fault::Required, "is required".to_owned())));
    }
    // A request for `organizations/No Such Thing` is denied and recorded like any other. No such organization can have
    // a log, and refusing the record would hold up its producer for ever: it belongs to the installation.
    let log = if is_log(&organization) { organization.as_str() } else { INSTALLATION };
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
    let mut entry = leaf::entry(origin, log, sequence, event).map_err(problem)?;
    if entry.body.len() > max_record_bytes {
        entry = leaf::abridged(origin, &entry).map_err(problem)?;
    }
    if entry.body.len() > max_record_bytes {
        let why = format!("the record has {} bytes, at most {max_record_bytes} are taken", entry.body.len());
        return Ok(Err(("event", Fault::TooLong, why)));
    }
    Ok(Ok(entry))
}

pub(super) fn record(log: &str, record: StoredRecord) -> Result<pb::AuditRecord, Problem> {
    let StoredRecord { index, leaf, body, receive_time } = record;
    let event = leaf::read(log, &body).map_err(problem)?;
    Ok(pb::AuditRecord {
        name: format!("organizations/{log}/auditRecords/{}", event.event_id),
        index,
        leaf_hash: leaf,
        canonical: body,
        receive_time: timestamp(receive_time),
        event: Some(audit::encode(event)),
    })
}

fn timestamp(micros: i64) -> Option<prost_types::Timestamp> {
    pavior_store::from_micros(micros).map(convert::to_timestamp)
}

pub(super) fn checkpoint(log: &str, origin: String, checkpoint: Checkpoint) -> pb::AuditCheckpoint {
    let Checkpoint { size, root, signed } = checkpoint;
    pb::AuditCheckpoint {
        name: format!("organizations/{log}/auditCheckpoint"),
        origin,
        tree_size: wire(size),
        root_hash: root.to_vec(),
        note: signed.note,
        verifier_key: signed.verifier_key,
        // A log that has not begun has no time.
        sign_time: timestamp(signed.sign_time).filter(|_| size > 0),
    }
}

pub(super) fn hashes(hashes: Vec<Hash>) -> Vec<Vec<u8>> {
    hashes.into_iter().map(Vec::from).collect()
}

/// Sizes come from big integers of the database, so they fit.
pub(super) fn wire(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}
