//! Whatever a service accepts gives an event that this service takes.

use pavior_core::audit::{AuditEvent, Change};
use pavior_proto::pavior::catalog::v1::{CreateEntityRequest, Entity};
use pavior_rpc::audit::{Producer, Row};
use pavior_rpc::{convert, validate, values};
use pavior_testkit::db;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use prost::{Message as _, Name as _};
use serde_json::{Value, json};

use crate::support::{Fixture, event};

const CASES: usize = 40;

/// Objects and lists in one another, in turn.
fn nested(levels: u32, inner: Value) -> Value {
    (0..levels).fold(inner, |inner, level| match level % 2 {
        0 => json!({ "": inner }),
        _ => json!([inner]),
    })
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        ".{0,60}",
        "\\PC{0,60}",
        (0..30_000_usize).prop_map(|n| "\"\\".repeat(n)),
        (0..300_000_usize).prop_map(|n| "x".repeat(n))
    ]
}

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(|n| json!(n)),
        text().prop_map(Value::from)
    ]
}

fn spec() -> impl Strategy<Value = Value> {
    let wide = leaf().prop_recursive(6, 60, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::hash_map(".{0,12}", inner, 0..6).prop_map(|map| json!(map))
        ]
    });
    (0_u32..40, wide).prop_map(|(levels, inner)| json!({ "spec": nested(levels, inner) }))
}

#[tokio::test]
async fn whatever_validation_accepts_gives_an_event_that_is_taken() {
    let mut runner = TestRunner::deterministic();
    let mut request = || {
        let strategy = (text(), spec(), text());
        let (id, spec, description) = strategy.new_tree(&mut runner).unwrap().current();
        let spec = convert::to_struct(&spec).ok();
        let entity = Entity { name: id.clone(), description, spec, ..Entity::default() };
        CreateEntityRequest { parent: id, entity: Some(entity), ..Default::default() }
    };
    let mut rows = Vec::new();
    let mut refused = 0;
    while rows.len() < CASES {
        let request = request();
        let deep = values::check(&CreateEntityRequest::full_name(), &request.encode_to_vec()).is_err();
        if deep || validate::request(&request).is_err() {
            refused += 1;
            continue;
        }
        let entity = request.entity.unwrap();
        let value = convert::to_json(&entity).unwrap();
        let mut event: AuditEvent = event("acme", 1);
        event.event_id = uuid::Uuid::from_u128(rows.len() as u128);
        event.target.as_mut().unwrap().name = entity.name;
        event.summary = request.parent;
        event.change = Some(Change { before: Some(value.clone()), after: Some(value), ..Change::default() });
        let event = event.bounded();
        let organization = event.organization().to_owned();
        rows.push(Row { organization, sequence: rows.len() as i64 + 1, event });
    }
    assert!(refused > 5, "the limits are reached: {refused}");
    let fixture = Fixture::new(db::sqlite());
    let running = fixture.start().await;
    let producer = Producer { service: "catalog".into(), instance: "i".into(), epoch: "e1".into() };
    // Each in its first form: a call that is refused would be repeated without its values.
    let mut client = fixture.client(&running, "catalog");
    for row in &rows {
        let events = vec![(row.organization.as_str(), row.sequence, row.event.clone())];
        let answer = fixture.append(&mut client, "catalog", "e1", events).await;
        assert_eq!(answer.unwrap().into_inner().acknowledged_sequence, row.sequence);
    }
    // And all together, in calls of bounded size; nothing changes.
    let shipped = fixture.sink(&running, "catalog").ship(&producer, rows).await;
    assert_eq!(
        (shipped.acknowledged, shipped.error.map(|error| error.to_string())),
        (Some(CASES as i64), None)
    );
    drop(client);
    running.stop().await;
}
