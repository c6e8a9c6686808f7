//! Every way to call every method over HTTP means what the same call over gRPC means.

use std::collections::BTreeMap;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use pavior_proto::google::api::HttpRule;
use pavior_proto::google::api::http_rule::Pattern;
use pavior_proto::pavior::governance::internal::v1::{GetResourceFactsRequest, ResourceFacts};
use pavior_rpc::{convert, governance};
use prost::Message;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor, Value};

use crate::harness::{FACTS, World};

/// One way to call a method.
struct Way {
    method: MethodDescriptor,
    path: String,
    role: String,
    rule: HttpRule,
    resource: String,
}

/// Read from the annotations themselves, beside what the gateway makes of them.
fn ways() -> Vec<Way> {
    let table = pavior_gateway::RouteTable::build(pavior_proto::DESCRIPTORS).unwrap();
    let mut ways = Vec::new();
    for declared in governance::declared(convert::pool()).unwrap() {
        let path = format!("/{}", declared.name);
        let Some(method) = table.method(&path).filter(|_| declared.rule.is_some()) else { continue };
        let (rule, descriptor) = (declared.http.unwrap(), declared.method.unwrap());
        let all = std::iter::once(rule.clone()).chain(rule.additional_bindings);
        ways.extend(all.map(|rule| Way {
            method: descriptor.clone(),
            path: path.clone(),
            role: method.role.clone(),
            rule,
            resource: method.resource().map(|field| field.path.clone()).unwrap_or_default(),
        }));
    }
    ways
}

/// A message in which every plain field has a value, messages inside of it included.
fn sample(message: &MessageDescriptor, depth: u32) -> DynamicMessage {
    let mut made = DynamicMessage::new(message.clone());
    for field in message.fields() {
        let first = field.containing_oneof().is_none_or(|oneof| {
            made.fields().all(|(set, _)| set.containing_oneof().as_ref() != Some(&oneof))
        });
        if let Some(value) = first.then(|| some(&field, depth)).flatten() {
            let value = if field.is_list() { Value::List(vec![value.clone(), value]) } else { value };
            made.set_field(&field, value);
        }
    }
    made
}

fn some(field: &FieldDescriptor, depth: u32) -> Option<Value> {
    Some(match field.kind() {
        _ if field.is_map() => return None,
        Kind::Bool => Value::Bool(true),
        Kind::String => Value::String(format!("{} ü \"\n", field.name())),
        Kind::Bytes => Value::Bytes(Bytes::from_static(&[0, 255, 7])),
        Kind::Int32 => Value::I32(-7),
        Kind::Int64 => Value::I64(9_007_199_254_740_993),
        Kind::Double => Value::F64(0.5),
        Kind::Enum(values) => Value::EnumNumber(values.values().last()?.number()),
        Kind::Message(inner) => match inner.full_name() {
            "google.protobuf.Timestamp" | "google.protobuf.Duration" => {
                let mut time = DynamicMessage::new(inner);
                time.set_field_by_name("seconds", Value::I64(1_790_000_000));
                Value::Message(time)
            }
            name if name.starts_with("google.protobuf.") || depth == 0 => return None,
            _ => Value::Message(sample(&inner, depth - 1)),
        },
        kind => panic!("{kind:?}"),
    })
}

/// A call: the request over HTTP, and the message that it means.
fn call(way: &Way) -> (http::request::Builder, Vec<u8>, DynamicMessage) {
    let (verb, template) = match way.rule.pattern.as_ref().unwrap() {
        Pattern::Get(path) => ("GET", path),
        Pattern::Put(path) => ("PUT", path),
        Pattern::Post(path) => ("POST", path),
        Pattern::Delete(path) => ("DELETE", path),
        Pattern::Patch(path) => ("PATCH", path),
        Pattern::Custom(_) => panic!(),
    };
    let mut fields: BTreeMap<String, String> = BTreeMap::new();
    let mut path = String::new();
    let mut left = template.as_str();
    while let Some((before, rest)) = left.split_once('{') {
        let (variable, after) = rest.split_once('}').unwrap();
        let (field, pattern) = variable.split_once('=').unwrap();
        let mut value = pattern.replace("organizations/*", "organizations/acme");
        while value.contains('*') {
            value = value.replacen('*', "some-id", 1);
        }
        path.push_str(before);
        path.push_str(&value);
        fields.insert(field.to_owned(), value);
        left = after;
    }
    path.push_str(left);
    let mut message = DynamicMessage::new(way.method.input());
    for (field, value) in &fields {
        set(&mut message, field, value);
    }
    let mut query: Vec<(String, String)> = Vec::new();
    let mut body = Vec::new();
    let mut rest: Vec<FieldDescriptor> = Vec::new();
    for field in way.method.input().fields() {
        if way.rule.body == field.name() {
            let inner = field.kind().as_message().unwrap().clone();
            let mut content = sample(&inner, 1);
            // What the path says is not said again, and owners are names.
            for (bound, value) in &fields {
                if let Some(bound) = bound.strip_prefix(&format!("{}.", field.name())) {
                    set(&mut content, bound, value);
                }
            }
            if inner.get_field_by_name("owner").is_some() {
                set(&mut content, "owner", "organizations/acme/groups/payments");
            }
            body = json(&content).into_bytes();
            message.set_field(&field, Value::Message(content));
        } else if !fields.contains_key(field.name())
            && !fields.keys().any(|bound| bound.starts_with(&format!("{}.", field.name())))
        {
            rest.push(field);
        }
    }
    for field in rest {
        let text = match field.kind() {
            _ if way.resource == field.name() => "organizations/acme".to_owned(),
            Kind::String => "a b&ü".to_owned(),
            Kind::Bool if field.name() == "validate_only" => "true".to_owned(),
            Kind::Int32 => "7".to_owned(),
            _ => continue,
        };
        // A request id is compared with what was asked before.
        if field.name() == "request_id" {
            continue;
        }
        set(&mut message, field.name(), &text);
        query.push((field.json_name().to_owned(), text));
    }
    if way.rule.body == "*" {
        body = json(&message).into_bytes();
        query.clear();
    }
    let encoded: Vec<String> = query.iter().map(|(key, value)| format!("{key}={}", escaped(value))).collect();
    let uri = if encoded.is_empty() { path } else { format!("{path}?{}", encoded.join("&")) };
    (http::Request::builder().method(verb).uri(uri), body, message)
}

fn escaped(text: &str) -> String {
    text.bytes()
        .map(
            |byte| {
                if byte.is_ascii_alphanumeric() {
                    char::from(byte).to_string()
                } else {
                    format!("%{byte:02x}")
                }
            },
        )
        .collect()
}

fn json(message: &DynamicMessage) -> String {
    serde_json::to_string(message).unwrap()
}

fn set(message: &mut DynamicMessage, path: &str, text: &str) {
    if let Some((outer, rest)) = path.split_once('.') {
        let field = message.descriptor_of(outer);
        set(message.get_field_mut(&field).as_message_mut().unwrap(), rest, text);
        return;
    }
    let field = message.descriptor_of(path);
    let value = match field.kind() {
        Kind::Bool => Value::Bool(text == "true"),
        Kind::Int32 => Value::I32(text.parse().unwrap()),
        _ => Value::String(text.to_owned()),
    };
    message.set_field(&field, if field.is_list() { Value::List(vec![value]) } else { value });
}

trait Described {
    fn descriptor_of(&self, field: &str) -> FieldDescriptor;
}

impl Described for DynamicMessage {
    fn descriptor_of(&self, field: &str) -> FieldDescriptor {
        prost_reflect::ReflectMessage::descriptor(self).get_field_by_name(field).unwrap()
    }
}

/// The same call over gRPC: its code, and its messages.
async fn grpc(world: &World, path: &str, message: &DynamicMessage, token: &str) -> (i32, Vec<Bytes>) {
    let stream = tokio::net::TcpStream::connect(world.address).await.unwrap();
    let executor = hyper_util::rt::TokioExecutor::new();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    tokio::spawn(connection);
    let message = message.encode_to_vec();
    let mut framed = vec![0];
    framed.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    framed.extend(message);
    let request = http::Request::post(format!("http://gateway{path}"))
        .header("content-type", "application/grpc")
        .header("authorization", format!("Bearer {token}"))
        .body(Full::new(Bytes::from(framed)))
        .unwrap();
    let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
    let collected = body.collect().await.unwrap();
    let code = |headers: &http::HeaderMap| Some(headers.get("grpc-status")?.to_str().ok()?.parse().unwrap());
    let code = code(&parts.headers).or_else(|| collected.trailers().and_then(code)).unwrap();
    let mut left = collected.to_bytes();
    let mut messages = Vec::new();
    while left.len() > 4 {
        let prefix = left.split_to(5);
        let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
        messages.push(left.split_to(length));
    }
    (code, messages)
}

#[tokio::test]
async fn every_way_over_http_means_what_grpc_means() {
    let world = World::new().await;
    for role in ["catalog", "provisioning", "policy"] {
        world.fake(role).on(FACTS, |request: GetResourceFactsRequest| {
            Ok(ResourceFacts { name: request.name, exists: true, ..Default::default() })
        });
    }
    let token = world.token("root", "acme");
    let ways = ways();
    assert!(ways.len() > 100, "{}", ways.len());
    let (mut compared, mut streams) = (0, 0);
    for way in &ways {
        let what = format!("{} {:?}", way.path, way.rule.pattern);
        let output = way.method.output();
        let answer = sample(&output, 2);
        let (encoded, streaming) = (answer.encode_to_vec(), way.method.is_server_streaming());
        if way.role != "platform" {
            world.fake(&way.role).on_stream(&way.path, move || {
                let messages = vec![Ok(encoded.clone()); if streaming { 2 } else { 1 }];
                futures::StreamExt::boxed(futures::stream::iter(messages))
            });
        }
        let (request, body, message) = call(way);
        let (code, expected) = grpc(&world, &way.path, &message, &token).await;
        let request = request.header("host", "gateway").header("authorization", format!("Bearer {token}"));
        let request = match body.is_empty() {
            true => request,
            false => request.header("content-type", "application/json"),
        };
        let response = world.http(request.body(body).unwrap()).await;
        let text = String::from_utf8(response.body().to_vec()).unwrap();
        if way.role != "platform" {
            assert_eq!((code, response.status().as_u16()), (0, 200), "{what}: {text}");
            let calls = world.fake(&way.role).calls(&way.path);
            let [.., over_grpc, over_http] = calls.as_slice() else { panic!("{what}: {}", calls.len()) };
            let decode = |bytes: &Bytes| DynamicMessage::decode(way.method.input(), bytes.clone()).unwrap();
            assert_eq!(decode(&over_http.message), decode(&over_grpc.message), "{what}");
            assert_eq!(
                over_http.permit.as_ref().unwrap().action(),
                over_grpc.permit.as_ref().unwrap().action(),
                "{what}"
            );
            assert_eq!(
                over_http.permit.as_ref().unwrap().resource(),
                over_grpc.permit.as_ref().unwrap().resource(),
                "{what}"
            );
            compared += 1;
        }
        if code != 0 {
            let status: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(status["code"], code, "{what}: {text}");
            continue;
        }
        let read = |text: &str| {
            let mut reader = serde_json::Deserializer::from_str(text);
            DynamicMessage::deserialize(output.clone(), &mut reader).unwrap()
        };
        let got: Vec<DynamicMessage> = if streaming {
            streams += 1;
            let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
            lines.map(|line| read(&line["result"].to_string())).collect()
        } else {
            vec![read(&text)]
        };
        let expected: Vec<DynamicMessage> = expected
            .iter()
            .map(|bytes| DynamicMessage::decode(output.clone(), bytes.clone()).unwrap())
            .collect();
        assert_eq!(got, expected, "{what}");
    }
    assert!(compared > 95 && streams >= 2, "{compared} {streams}");
}
