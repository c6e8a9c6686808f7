//! What values may hold: the same at every door, never deeper than decoders can read, and no number that would change.

use pavior_core::value::{MAX_DEPTH, MAX_EXACT};
use pavior_proto::pavior::audit::v1::AuditRecord;
use pavior_proto::pavior::catalog::v1::{CreateEntityRequest, Entity};
use pavior_rpc::convert::{pool, to_struct, to_value};
use pavior_rpc::methods;
use pavior_rpc::problem::from_status;
use pavior_rpc::values;
use prost::{Message, Name};
use prost_reflect::{DynamicMessage, Kind, MessageDescriptor, Value};
use prost_types::value::Kind::NumberValue;
use serde_json::json;
use tonic::{Code, Status};

use crate::harness::Fake;

/// Objects in one another, `levels` of them.
fn objects(levels: u32) -> serde_json::Value {
    (1..levels).fold(json!({ "n": 1 }), |inner, _| json!({ "a": inner }))
}

fn lists(levels: u32) -> serde_json::Value {
    json!({ "l": (2..levels).fold(json!([1]), |inner, _| json!([inner])) })
}

fn entity(spec: &serde_json::Value) -> CreateEntityRequest {
    let entity = Entity { spec: to_struct(spec).ok(), ..Entity::default() };
    CreateEntityRequest { parent: "organizations/acme".into(), entity: Some(entity), ..Default::default() }
}

#[test]
fn objects_and_lists_count_alike_and_the_field_is_named() {
    let name = CreateEntityRequest::full_name();
    assert!(values::concerns(&name) && !values::concerns(&AuditRecord::full_name()));
    for value in [objects(MAX_DEPTH), lists(MAX_DEPTH)] {
        values::check(&name, &entity(&value).encode_to_vec()).unwrap();
    }
    for value in [objects(MAX_DEPTH + 1), lists(MAX_DEPTH + 1), objects(100), lists(300)] {
        let bytes = entity(&value).encode_to_vec();
        let problem = values::check(&name, &bytes).unwrap_err();
        assert_eq!(problem.code, Code::InvalidArgument);
        assert_eq!(problem.violations[0].field, "entity.spec");
        assert_eq!(problem.violations[0].reason, "TOO_DEEP");
        assert_eq!(problem.metadata["limitLevels"], MAX_DEPTH.to_string());
    }
}

#[test]
fn what_is_no_message_is_left_to_the_decoder() {
    let name = CreateEntityRequest::full_name();
    for bytes in [&b"\xff\xff"[..], b"\x0a\xff", b"\x12\x05\x6a\x03\x0a", b"\x03"] {
        values::check(&name, bytes).unwrap();
        let said = CreateEntityRequest::decode(bytes).unwrap_err().to_string();
        assert!(said.starts_with("failed to decode Protobuf message"), "{bytes:?}: {said}");
    }
}

#[test]
fn numbers_that_doubles_cannot_tell_apart_are_named() {
    let name = CreateEntityRequest::full_name();
    let fine = json!({ "a": [MAX_EXACT, -MAX_EXACT, 0.1, 1e15, "9007199254740993"], "b": { "c": 5e-324 } });
    values::check(&name, &entity(&fine).encode_to_vec()).unwrap();
    for (value, wanted) in [
        (json!({ "port": 9_007_199_254_740_993_u64 }), vec!["entity.spec.port"]),
        // What arrives is the same double.
        (
            json!({ "a": [1, { "b": MAX_EXACT + 1 }], "c": -MAX_EXACT - 1 }),
            vec!["entity.spec.a[1].b", "entity.spec.c"],
        ),
        (json!({ "a": { "b": [[1e300]] } }), vec!["entity.spec.a.b[0][0]"]),
    ] {
        let problem = values::check(&name, &entity(&value).encode_to_vec()).unwrap_err();
        assert_eq!(problem.code, Code::InvalidArgument);
        let mut fields: Vec<&str> = problem.violations.iter().map(|one| one.field.as_str()).collect();
        fields.sort_unstable();
        assert_eq!(fields, wanted, "{value}");
        assert!(problem.violations.iter().all(|one| one.reason == "OUT_OF_RANGE"));
        assert!(problem.violations[0].description.contains("9007199254740991"), "{problem}");
        assert_eq!(problem.metadata["limitNumber"], MAX_EXACT.to_string());
    }
    // No number at all: JSON has none such, so the field that holds it is named.
    for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let mut request = entity(&json!({ "a": 1 }));
        let spec = request.entity.as_mut().unwrap().spec.as_mut().unwrap();
        spec.fields.insert("a".into(), prost_types::Value { kind: Some(NumberValue(number)) });
        let problem = values::check(&name, &request.encode_to_vec()).unwrap_err();
        assert_eq!(problem.violations[0].field, "entity.spec", "{number}");
    }
}

/// Fills the first way to a value with `value`, and says whether there was one.
fn fill(
    message: &MessageDescriptor,
    value: &serde_json::Value,
    seen: &mut Vec<String>,
) -> Option<DynamicMessage> {
    let transcoded = |known: &dyn Fn(&mut DynamicMessage)| {
        let mut filled = DynamicMessage::new(message.clone());
        known(&mut filled);
        Some(filled)
    };
    match message.full_name() {
        "google.protobuf.Struct" => {
            let wanted = to_struct(value).unwrap();
            return transcoded(&|filled| filled.transcode_from(&wanted).unwrap());
        }
        "google.protobuf.Value" => {
            let wanted = to_value(value);
            return transcoded(&|filled| filled.transcode_from(&wanted).unwrap());
        }
        _ => {}
    }
    if seen.iter().any(|name| name == message.full_name()) {
        return None;
    }
    seen.push(message.full_name().to_owned());
    // The longest way is the deepest.
    let ways = message.fields().filter_map(|field| {
        let Kind::Message(inner) = field.kind() else { return None };
        let inner = match field.is_map() {
            true => match inner.map_entry_value_field().kind() {
                Kind::Message(value) => value,
                _ => return None,
            },
            false => inner,
        };
        let inner = fill(&inner, value, seen)?;
        let mut filled = DynamicMessage::new(message.clone());
        let inner = Value::Message(inner);
        let held = if field.is_map() {
            Value::Map([(prost_reflect::MapKey::String("k".into()), inner)].into())
        } else if field.is_list() {
            Value::List(vec![inner])
        } else {
            inner
        };
        filled.set_field(&field, held);
        Some(filled)
    });
    let deepest = ways.max_by_key(DynamicMessage::encoded_len);
    seen.pop();
    deepest
}

#[test]
fn what_is_deep_but_let_in_can_be_decoded_by_every_method() {
    let mut tried = 0;
    for service in pool().services() {
        for method in service.methods() {
            for value in [objects(MAX_DEPTH), lists(MAX_DEPTH)] {
                let input = method.input();
                let filled = fill(&input, &value, &mut Vec::new());
                assert_eq!(filled.is_some(), values::concerns(input.full_name()), "{}", input.full_name());
                let Some(filled) = filled else { continue };
                let bytes = filled.encode_to_vec();
                values::check(input.full_name(), &bytes).unwrap();
                let decoded = DynamicMessage::decode(input.clone(), &bytes[..]).unwrap();
                assert_eq!(decoded, filled, "{}", method.full_name());
                tried += 1;
            }
        }
    }
    assert!(tried > 20, "{tried}");
    let known = methods::method("/pavior.catalog.v1.CatalogService/CreateEntity").unwrap();
    assert_eq!(known.input, CreateEntityRequest::full_name());
}

#[tokio::test]
async fn a_server_refuses_before_it_decodes() {
    let fake = Fake::get(|_| async { Err(Status::unimplemented("must not be reached")) });
    let transport = pavior_rpc::local(fake.stack());
    let mut client =
        pavior_proto::pavior::catalog::v1::catalog_service_client::CatalogServiceClient::new(transport);
    let status = client.create_entity(entity(&objects(100))).await.unwrap_err();
    let known = from_status(&status);
    assert_eq!((status.code(), known.violations[0].field.as_str()), (Code::InvalidArgument, "entity.spec"));
    // What may pass goes on as it came: here to a service that is not there.
    let status = client.create_entity(entity(&objects(MAX_DEPTH))).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}
