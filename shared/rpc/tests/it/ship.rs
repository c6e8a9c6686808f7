//! How events are shipped: in bounded calls, in halves when they are refused, and by the acknowledgement alone.

use std::sync::{Arc, Mutex};

use futures::stream::StreamExt as _;
use opentelemetry::metrics::{Meter, MeterProvider as _};
use pavior_core::Fault;
use pavior_core::audit::{AuditEvent, Change, PrincipalKind, PrincipalRef};
use pavior_proto::pavior::audit::internal::v1::*;
use pavior_rpc::audit::{AuditSink, MAX_CALL_BYTES, Producer, Row, ShipError};
use pavior_rpc::problem::{ErrorReason, Problem};
use prost::Message as _;
use tonic::{Code, Status};

use crate::harness::{Appended, Fake};

pub(crate) fn meter() -> Meter {
    opentelemetry::metrics::noop::NoopMeterProvider::new().meter("test")
}

pub(crate) fn producer() -> Producer {
    Producer { service: "catalog".into(), instance: String::new(), epoch: "e".into() }
}

/// An event with a value of so many bytes.
pub(crate) fn row(sequence: i64, bytes: usize) -> Row {
    let after = Some(serde_json::json!({ "text": "x".repeat(bytes) }));
    let (id, time) = (uuid::Uuid::from_u128(7), time::macros::datetime!(2026-03-01 10:00 UTC));
    let event = AuditEvent {
        change: Some(Change { after, ..Change::default() }),
        ..AuditEvent::new(id, time, "a.b.c", PrincipalRef::new(PrincipalKind::Service, ""))
    };
    Row { organization: "acme".into(), sequence, event }
}

type Calls = Arc<Mutex<Vec<AppendRecordsRequest>>>;

/// A sink to an audit service that answers like this, and what it was sent.
fn sink(answer: impl Fn(&AppendRecordsRequest) -> Appended + Send + Sync + 'static) -> (AuditSink, Calls) {
    let calls = Calls::default();
    let seen = calls.clone();
    let fake = Fake::watch(|| Ok(futures::stream::pending().boxed())).appending(move |request| {
        seen.lock().unwrap().push(request.clone());
        answer(&request)
    });
    (AuditSink::new(pavior_rpc::local(fake.stack()), &meter()), calls)
}

fn last(request: &AppendRecordsRequest) -> Appended {
    Ok(request.events.last().map_or(0, |event| event.sequence))
}

fn sequences(calls: &Calls) -> Vec<Vec<i64>> {
    let calls = calls.lock().unwrap();
    calls.iter().map(|call| call.events.iter().map(|event| event.sequence).collect()).collect()
}

#[tokio::test]
async fn calls_are_bounded_in_bytes() {
    let (sink, calls) = sink(last);
    let shipped = sink.ship(&producer(), (1..=120).map(|n| row(n, 240_000)).collect()).await;
    assert_eq!((shipped.acknowledged, shipped.error.is_none()), (Some(120), true));
    let calls = calls.lock().unwrap();
    assert_eq!(calls.iter().map(|call| call.events.len()).collect::<Vec<_>>(), [4; 30]);
    assert!(calls.iter().all(|call| call.encoded_len() < MAX_CALL_BYTES + 1_000));
}

#[tokio::test]
async fn one_that_is_refused_stands_alone_and_is_told_without_its_values() {
    for refusal in [
        Status::from(Problem::invalid_field("events[0].event", Fault::Pattern, "no")),
        Status::from(Problem::too_large(Some(1))),
        Status::out_of_range("Error, decoded message length too large: found 9 bytes, the limit is: 1 bytes"),
    ] {
        let (sink, calls) = sink(move |request| {
            let bad = |event: &SequencedEvent| {
                let change = event.event.as_ref().unwrap().change.as_ref().unwrap();
                event.sequence == 3 && !change.after.starts_with(b"{\"omitted\":{")
            };
            if request.events.iter().any(bad) { Err(refusal.clone()) } else { last(request) }
        });
        let shipped = sink.ship(&producer(), (1..=8).map(|n| row(n, 10)).collect()).await;
        assert_eq!((shipped.acknowledged, shipped.error.is_none()), (Some(8), true));
        let whole = vec![1, 2, 3, 4, 5, 6, 7, 8];
        let want = [
            whole,
            vec![1, 2, 3, 4],
            vec![1, 2],
            (3..=8).collect(),
            vec![3, 4, 5],
            vec![3],
            vec![3],
            (4..=8).collect(),
        ];
        assert_eq!(sequences(&calls), want);
    }
}

#[tokio::test]
async fn one_that_is_refused_even_so_is_named_and_what_was_before_it_is_kept() {
    let (sink, _) = sink(|request| match request.events.iter().any(|event| event.sequence == 3) {
        true => Err(Problem::invalid_field("events[0].event", Fault::Pattern, "no").into()),
        false => last(request),
    });
    let shipped = sink.ship(&producer(), (1..=4).map(|n| row(n, 10)).collect()).await;
    assert_eq!(shipped.acknowledged, Some(2));
    let Some(ShipError::Refused { sequence: 3, status }) = shipped.error else {
        panic!("{:?}", shipped.error)
    };
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn an_answer_that_can_change_is_not_about_the_event() {
    for refusal in [
        Status::from(Problem::unavailable("down")),
        Status::from(Problem::resource_exhausted(ErrorReason::Overloaded, "too much")),
        Status::from(Problem::precondition(ErrorReason::InvalidState, "another history")),
        Status::from(Problem::out_of_range(ErrorReason::InvalidState, "a gap")),
    ] {
        let code = refusal.code();
        let (sink, calls) = sink(move |_| Err(refusal.clone()));
        let shipped = sink.ship(&producer(), vec![row(1, 1), row(2, 1)]).await;
        assert_eq!(shipped.acknowledged, None);
        assert!(matches!(&shipped.error, Some(ShipError::Away(status)) if status.code() == code), "{code:?}");
        assert!(sequences(&calls).iter().all(|call| *call == [1, 2]), "{code:?}");
    }
}

#[tokio::test]
async fn less_than_was_sent_is_an_error_and_says_how_far_it_is_kept() {
    for (durable, acknowledged) in [(0, None), (4, None), (6, Some(6))] {
        let (sink, calls) = sink(move |_| Ok(durable));
        let shipped = sink.ship(&producer(), (5..=8).map(|n| row(n, 10)).collect()).await;
        assert_eq!(shipped.acknowledged, acknowledged);
        let error = shipped.error.unwrap().to_string();
        assert_eq!(error, format!("the audit service acknowledges event {durable} of 8"));
        assert_eq!(sequences(&calls), [[5, 6, 7, 8]]);
    }
    // Another replica was there before.
    let (sink, _) = sink(|_| Ok(20));
    let shipped = sink.ship(&producer(), (5..=8).map(|n| row(n, 10)).collect()).await;
    assert_eq!((shipped.acknowledged, shipped.error.is_none()), (Some(8), true));
}
