//! Ships audit events to the audit service: in order, in calls of bounded size, and believing only its
//! acknowledgement.

use std::collections::VecDeque;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Meter};
use pavior_core::audit::AuditEvent;
use pavior_proto::pavior::audit::internal::v1 as recorder_pb;
use pavior_proto::pavior::audit::internal::v1::recorder_service_client::RecorderServiceClient;
use prost::Message;
use tonic::{Code, Status};

use super::encode;
use crate::problem::{ErrorReason, from_status};
use crate::transport::{RetrySafe, Transport};

/// The most bytes of events in one call, far below the largest message. An event has at most 256 KiB.
pub const MAX_CALL_BYTES: usize = 1024 * 1024;
/// The most events in one call.
const MAX_CALL_EVENTS: usize = 1_000;

/// Who appends: sequence numbers have no gap within an epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Producer {
    /// The service, for example `catalog`.
    pub service: String,
    /// The running instance.
    pub instance: String,
    /// One for each database, or for each start of a service without one.
    pub epoch: String,
}

/// An event with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The organization whose log it belongs to; `pavior` for the installation's.
    pub organization: String,
    /// Its number in the producer's epoch.
    pub sequence: i64,
    /// The event.
    pub event: AuditEvent,
}

/// Why not all events were taken.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ShipError {
    /// The audit service does not answer, or not for now.
    #[error("the audit service does not answer: {0}")]
    Away(Status),
    /// It refuses what it is sent, and will do so again.
    #[error("the audit service refuses event {sequence}: {status}")]
    Refused {
        /// The first event that it does not take.
        sequence: i64,
        /// What it says.
        status: Status,
    },
    /// It answered well and acknowledged less than it was sent.
    #[error("the audit service acknowledges event {acknowledged} of {sent}")]
    NotKept {
        /// The highest number that it has.
        acknowledged: i64,
        /// The highest number that it was sent.
        sent: i64,
    },
}

/// What came of a delivery.
#[derive(Debug)]
#[must_use]
pub struct Shipped {
    /// The highest number that is known to be durable, of those that were handed over; nothing when none is.
    pub acknowledged: Option<i64>,
    /// Why it ended before the last; nothing when all are durable.
    pub error: Option<ShipError>,
}

/// A client of the audit service for producers.
#[derive(Debug, Clone)]
pub struct AuditSink {
    client: RecorderServiceClient<Transport>,
    abridged: Counter<u64>,
}

impl AuditSink {
    /// Over a transport that identifies the calling service.
    pub fn new(transport: Transport, meter: &Meter) -> Self {
        let abridged = meter
            .u64_counter("pavior.outbox.abridged")
            .with_description("audit events that were refused and told without their values: alarm on any")
            .build();
        Self { client: RecorderServiceClient::new(transport), abridged }
    }

    /// Appends events in the order of their numbers, in as many calls as it takes. Repeating them changes nothing.
    ///
    /// What is refused for good is sent again in halves, until the one event that is at fault stands alone: that one is
    /// told without its values under the same number, and alarmed. So no event can hold up those behind it.
    pub async fn ship(&self, producer: &Producer, rows: Vec<Row>) -> Shipped {
        let mut rest: VecDeque<Encoded> = rows.into_iter().map(Encoded::new).collect();
        let mut acknowledged = None;
        let mut most = MAX_CALL_EVENTS;
        while let Some(first) = rest.front() {
            let sequence = first.sequence;
            let count = call_size(&rest, most);
            let error = match self.call(producer, rest.iter().take(count)).await {
                Ok(durable) => {
                    let sent = rest.get(count - 1).map_or(sequence, |last| last.sequence);
                    if durable >= sequence {
                        acknowledged = Some(durable.min(sent));
                    }
                    if durable >= sent {
                        rest.drain(..count);
                        most = MAX_CALL_EVENTS;
                        continue;
                    }
                    ShipError::NotKept { acknowledged: durable, sent }
                }
                Err(status) if !final_answer(&status) => ShipError::Away(status),
                Err(_) if count > 1 => {
                    most = count / 2;
                    continue;
                }
                Err(status) => match rest.front_mut().filter(|first| !first.abridged) {
                    Some(first) => {
                        self.alarm(producer, first, &status);
                        first.abridge();
                        continue;
                    }
                    None => ShipError::Refused { sequence, status },
                },
            };
            return Shipped { acknowledged, error: Some(error) };
        }
        Shipped { acknowledged, error: None }
    }

    /// What the audit log has of a producer, which must be the caller.
    pub async fn state(&self, producer: &Producer) -> Result<recorder_pb::ProducerState, Status> {
        let Producer { service, instance, epoch } = producer.clone();
        let producer = Some(recorder_pb::Producer { service, instance, epoch });
        let answer =
            self.client.clone().get_producer_state(recorder_pb::GetProducerStateRequest { producer }).await?;
        Ok(answer.into_inner())
    }

    async fn call(&self, producer: &Producer, events: impl Iterator<Item = &Encoded>) -> Result<i64, Status> {
        let Producer { service, instance, epoch } = producer.clone();
        let events = events.map(|event| event.wire.clone()).collect();
        let producer = Some(recorder_pb::Producer { service, instance, epoch });
        let mut request = tonic::Request::new(recorder_pb::AppendRecordsRequest { producer, events });
        request.extensions_mut().insert(RetrySafe);
        let answer = self.client.clone().append_records(request).await?;
        Ok(answer.into_inner().acknowledged_sequence)
    }

    fn alarm(&self, producer: &Producer, event: &Encoded, status: &Status) {
        self.abridged.add(1, &[KeyValue::new("service", producer.service.clone())]);
        tracing::error!(
            service = producer.service,
            epoch = producer.epoch,
            sequence = event.sequence,
            bytes = event.bytes,
            code = ?status.code(),
            error = status.message(),
            "the audit service refuses an event: it is told without its values"
        );
    }
}

/// An event as it is sent.
struct Encoded {
    sequence: i64,
    event: AuditEvent,
    wire: recorder_pb::SequencedEvent,
    bytes: usize,
    abridged: bool,
}

impl Encoded {
    fn new(row: Row) -> Self {
        let Row { organization, sequence, event } = row;
        let wire = recorder_pb::SequencedEvent { organization, sequence, event: Some(encode(event.clone())) };
        let bytes = wire.encoded_len();
        Self { sequence, event, wire, bytes, abridged: false }
    }

    fn abridge(&mut self) {
        self.wire.event = Some(encode(self.event.clone().abridged()));
        self.bytes = self.wire.encoded_len();
        self.abridged = true;
    }
}

/// How many of the events go into the next call: at least one.
fn call_size(rest: &VecDeque<Encoded>, most: usize) -> usize {
    let mut bytes = 0;
    let fit = rest.iter().take(most).take_while(|event| {
        bytes += event.bytes;
        bytes <= MAX_CALL_BYTES
    });
    fit.count().max(1)
}

/// Whether the same call would get the same answer for ever, because of what is in it. That the numbers do not fit to
/// what the audit service has is no fault of an event, and nothing that is told of it would change that.
fn final_answer(status: &Status) -> bool {
    let known = from_status(status);
    match status.code() {
        Code::InvalidArgument => true,
        // A message that is too large, as tonic says it.
        Code::OutOfRange => known.reason.is_empty(),
        Code::ResourceExhausted => known.is(ErrorReason::MessageTooLarge),
        _ => false,
    }
}
