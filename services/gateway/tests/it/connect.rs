//! The Connect protocol.

use std::io::Write;

use futures::StreamExt;
use pavior_proto::pavior::audit::v1::{WatchAuditRecordsRequest, WatchAuditRecordsResponse};
use pavior_proto::pavior::catalog::v1::{Entity, GetEntityRequest};
use prost::Message;
use serde_json::{Value, json};
use tonic::Status;

use crate::harness::{ENTITY, GET_ENTITY, World};

const WATCH: &str = "/pavior.audit.v1.AuditService/WatchAuditRecords";

async fn world() -> World {
    let world = World::new().await;
    world.fake("catalog").on(GET_ENTITY, |request: GetEntityRequest| {
        if request.name.ends_with("/gone") {
            return Err(Status::not_found("no such entity"));
        }
        Ok(Entity { name: request.name, description: "x".repeat(2000), ..Default::default() })
    });
    world
}

async fn post(
    world: &World,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> http::Response<bytes::Bytes> {
    let mut request = http::Request::post(path)
        .header("host", "gateway")
        .header("authorization", format!("Bearer {}", world.token("alice", "acme")));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    world.http(request.body(body.to_vec()).unwrap()).await
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn unzip(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(bytes), &mut plain).unwrap();
    plain
}

fn json_of(response: &http::Response<bytes::Bytes>) -> Value {
    serde_json::from_slice(response.body()).unwrap()
}

#[tokio::test]
async fn a_unary_call_is_plain_http_in_json_and_in_proto() {
    let world = world().await;
    let headers = [
        ("content-type", "application/json"),
        ("connect-protocol-version", "1"),
        ("connect-timeout-ms", "9000"),
    ];
    let response = post(&world, GET_ENTITY, &headers, json!({ "name": ENTITY }).to_string().as_bytes()).await;
    assert_eq!((response.status().as_u16(), &json_of(&response)["name"]), (200, &json!(ENTITY)));
    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(response.headers()["x-pavior-policy-decision"], "decision-1");
    let headers = world.fake("catalog").calls(GET_ENTITY)[0].headers.clone();
    assert!(headers.keys().all(|name| !name.as_str().starts_with("connect-")), "{headers:?}");
    let timeout = headers["grpc-timeout"].to_str().unwrap();
    assert!(timeout.ends_with('u') && timeout.len() <= 8, "{timeout}");
    let message = GetEntityRequest { name: ENTITY.to_owned(), ..Default::default() }.encode_to_vec();
    let packed =
        [("content-type", "application/proto"), ("content-encoding", "gzip"), ("accept-encoding", "gzip")];
    let response = post(&world, GET_ENTITY, &packed, &gzip(&message)).await;
    assert_eq!(
        (response.status().as_u16(), &response.headers()["content-encoding"]),
        (200, &"gzip".parse().unwrap())
    );
    assert_eq!(response.headers()["content-type"], "application/proto");
    assert_eq!(Entity::decode(unzip(response.body()).as_slice()).unwrap().name, ENTITY);
}

#[tokio::test]
async fn a_read_may_be_asked_for_by_get_and_a_change_may_not() {
    let world = world().await;
    let get = |query: String| {
        http::Request::get(query)
            .header("host", "gateway")
            .header("authorization", format!("Bearer {}", world.token("alice", "acme")))
            .body(Vec::new())
            .unwrap()
    };
    let message = format!("%7B%22name%22:%22{ENTITY}%22%7D");
    let response = world.http(get(format!("{GET_ENTITY}?connect=v1&encoding=json&message={message}"))).await;
    assert_eq!((response.status().as_u16(), &json_of(&response)["name"]), (200, &json!(ENTITY)));
    let encoded = GetEntityRequest { name: ENTITY.to_owned(), ..Default::default() }.encode_to_vec();
    let base64 = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, gzip(&encoded));
    let query = format!("{GET_ENTITY}?encoding=proto&compression=gzip&base64=1&message={base64}");
    let response = world.http(get(query)).await;
    assert_eq!(Entity::decode(response.body().clone()).unwrap().name, ENTITY);
    let response = world.http(get(format!("{GET_ENTITY}?encoding=json"))).await;
    assert_eq!((response.status().as_u16(), &json_of(&response)["code"]), (400, &json!("invalid_argument")));
    let change = "/pavior.catalog.v1.CatalogService/DeleteEntity";
    let response = world.http(get(format!("{change}?encoding=json&message=%7B%7D"))).await;
    assert_eq!((response.status().as_u16(), &response.headers()["allow"]), (405, &"POST".parse().unwrap()));
    assert!(world.fake("catalog").calls(change).is_empty());
}

#[tokio::test]
async fn errors_are_in_the_words_of_the_protocol() {
    let world = world().await;
    let json_type = ("content-type", "application/json");
    let gone = json!({ "name": ENTITY.replace("shop", "gone") }).to_string();
    let named = json!({ "name": ENTITY }).to_string();
    type Case<'a> = (&'a [(&'a str, &'a str)], &'a str, u16, &'a str, &'a str);
    let cases: &[Case<'_>] = &[
        (&[json_type], &gone, 404, "not_found", "RESOURCE_NOT_FOUND"),
        (&[json_type], "", 400, "invalid_argument", "INVALID_FIELD"),
        (&[json_type], "{\"nope\": 1}", 400, "invalid_argument", "INVALID_FIELD"),
        (&[json_type, ("connect-protocol-version", "2")], &named, 400, "invalid_argument", "INVALID_FIELD"),
        (&[json_type, ("connect-timeout-ms", "soon")], &named, 400, "invalid_argument", "INVALID_FIELD"),
        (&[json_type, ("connect-timeout-ms", "0")], &named, 504, "deadline_exceeded", "DEADLINE_EXCEEDED"),
        (&[json_type, ("content-encoding", "zstd")], &named, 415, "unimplemented", "UNIMPLEMENTED"),
        (&[("content-type", "application/proto")], "\u{7}", 400, "invalid_argument", "INVALID_FIELD"),
    ];
    for (headers, body, status, code, reason) in cases {
        let response = post(&world, GET_ENTITY, headers, body.as_bytes()).await;
        let json = json_of(&response);
        assert_eq!(
            (response.status().as_u16(), json["code"].as_str()),
            (*status, Some(*code)),
            "{headers:?} {body}: {json}"
        );
        assert_eq!(response.headers()["content-type"], "application/json");
        let info = &json["details"][0];
        assert_eq!(
            (info["type"].as_str(), info["debug"]["reason"].as_str()),
            (Some("google.rpc.ErrorInfo"), Some(*reason)),
            "{json}"
        );
        assert!(info["value"].is_string(), "{json}");
    }
}

fn enveloped(flags: u8, message: &[u8]) -> Vec<u8> {
    let mut bytes = vec![flags];
    bytes.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    bytes.extend(message);
    bytes
}

fn envelopes(body: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut found = Vec::new();
    let mut left = body;
    while let [flags, a, b, c, d, rest @ ..] = left {
        let (message, behind) = rest.split_at(u32::from_be_bytes([*a, *b, *c, *d]) as usize);
        found.push((*flags, message.to_vec()));
        left = behind;
    }
    assert!(left.is_empty());
    found
}

#[tokio::test]
async fn a_stream_is_in_envelopes_and_its_end_says_how_it_ended() {
    let world = world().await;
    let bookmark = |index: u32| {
        WatchAuditRecordsResponse { resume_token: index.to_string(), ..Default::default() }.encode_to_vec()
    };
    world.fake("audit").on_stream(WATCH, move || {
        futures::stream::iter([Ok(bookmark(1)), Err(Status::out_of_range("too old"))]).boxed()
    });
    let ask = json!({ "parent": "organizations/acme", "start": { "resumeToken": "5" } }).to_string();
    let headers = [
        ("content-type", "application/connect+json"),
        ("connect-content-encoding", "gzip"),
        ("connect-accept-encoding", "gzip"),
    ];
    let response = post(&world, WATCH, &headers, &enveloped(1, &gzip(ask.as_bytes()))).await;
    assert_eq!(
        (response.status().as_u16(), &response.headers()["content-type"]),
        (200, &"application/connect+json".parse().unwrap())
    );
    assert_eq!(response.headers()["connect-content-encoding"], "gzip");
    let parts = envelopes(response.body());
    let [(0, message), (2, end)] = parts.as_slice() else { panic!("{parts:?}") };
    assert_eq!(serde_json::from_slice::<Value>(message).unwrap(), json!({ "resumeToken": "1" }));
    let end: Value = serde_json::from_slice(end).unwrap();
    assert_eq!(
        (&end["error"]["code"], &end["error"]["message"]),
        (&json!("out_of_range"), &json!("too old"))
    );
    let asked: WatchAuditRecordsRequest = world.fake("audit").calls(WATCH)[0].decode();
    assert_eq!(asked.start, pavior_rpc::stream::resume("5"));

    world.fake("audit").on_stream(WATCH, move || futures::stream::iter([Ok(bookmark(2))]).boxed());
    let ask = WatchAuditRecordsRequest { parent: "organizations/acme".to_owned(), ..Default::default() };
    let proto = [("content-type", "application/connect+proto")];
    let response = post(&world, WATCH, &proto, &enveloped(0, &ask.encode_to_vec())).await;
    assert_eq!(envelopes(response.body()), [(0, bookmark(2)), (2, b"{}".to_vec())]);

    // What is wrong with the request is told at the end too, since a stream is always 200.
    let response = post(&world, WATCH, &proto, b"\0\0").await;
    let parts = envelopes(response.body());
    let [(2, end)] = parts.as_slice() else { panic!("{parts:?}") };
    let end: Value = serde_json::from_slice(end).unwrap();
    assert_eq!((response.status().as_u16(), &end["error"]["code"]), (200, &json!("invalid_argument")));
    let response = post(&world, WATCH, &[("content-type", "application/json")], b"{}").await;
    assert_eq!(response.status(), 415);
    assert!(response.headers()["accept-post"].to_str().unwrap().starts_with("application/connect+json"));
}
