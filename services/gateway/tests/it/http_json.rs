//! HTTP with JSON: what is right and what is wrong with a request, told as HTTP tells it.

use std::io::{Read, Write};

use pavior_gateway::Config;
use pavior_proto::pavior::catalog::v1::{Entity, GetEntityRequest, UpdateEntityRequest};
use pavior_proto::pavior::governance::internal::v1::{GetResourceFactsRequest, ResourceFacts};
use pavior_proto::pavior::policy::v1::PolicyType;
use serde_json::{Value, json};
use tonic::Status;

use crate::harness::{DECIDE, ENTITY, FACTS, GET_ENTITY, World};

const UPDATE: &str = "/pavior.catalog.v1.CatalogService/UpdateEntity";

async fn world() -> World {
    prepared(World::new().await)
}

fn prepared(world: World) -> World {
    world.fake("catalog").on(FACTS, |request: GetResourceFactsRequest| {
        Ok(ResourceFacts { name: request.name, exists: true, ..Default::default() })
    });
    world.fake("catalog").on(GET_ENTITY, |request: GetEntityRequest| {
        if request.name.ends_with("/gone") {
            return Err(Status::not_found("no such entity"));
        }
        Ok(Entity { name: request.name, display_name: "a shop".to_owned(), ..Default::default() })
    });
    world.fake("catalog").on(UPDATE, |request: UpdateEntityRequest| Ok(request.entity.unwrap()));
    world
}

/// An answer: the code, the headers, and the JSON.
struct Answer(u16, http::HeaderMap, Value);

async fn send(world: &World, verb: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut request = http::Request::builder()
        .method(verb)
        .uri(path)
        .header("host", "gateway")
        .header("authorization", format!("Bearer {}", world.token("alice", "acme")));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = world.http(request.body(body.to_vec()).unwrap()).await;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let json = serde_json::from_slice(response.body())
        .unwrap_or_else(|error| panic!("{verb} {path}: {status} {error}: {:?}", response.body()));
    Answer(status, headers, json)
}

/// The reason in the details, and the fields that are named.
fn told(json: &Value) -> (String, Vec<String>) {
    let details = json["details"].as_array().cloned().unwrap_or_default();
    let of = |kind: &str| details.iter().find(|one| one["@type"].as_str().unwrap().ends_with(kind)).cloned();
    let reason =
        of("google.rpc.ErrorInfo").unwrap_or_default()["reason"].as_str().unwrap_or_default().to_owned();
    let fields = of("google.rpc.BadRequest").unwrap_or_default()["fieldViolations"].clone();
    let fields = fields.as_array().cloned().unwrap_or_default();
    (reason, fields.iter().map(|one| one["field"].as_str().unwrap_or_default().to_owned()).collect())
}

#[tokio::test]
async fn a_resource_is_read_and_changed_with_paths_and_json() {
    let world = world().await;
    let path = format!("/v1/{ENTITY}");
    let Answer(status, headers, json) = send(&world, "GET", &path, &[("x-request-id", "r-1")], b"").await;
    assert_eq!((status, &json), (200, &json!({ "name": ENTITY, "displayName": "a shop" })));
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(headers["cache-control"], "no-store");
    assert_eq!(headers["x-request-id"], "r-1");
    assert_eq!(headers["x-pavior-policy-decision"], "decision-1");
    assert!(!headers.contains_key("grpc-status"), "{headers:?}");
    let body = json!({ "displayName": "the shop", "labels": { "a": "b" } }).to_string();
    let json_type = ("content-type", "application/json; charset=UTF-8");
    let query = format!("{path}?updateMask=displayName,labels&validateOnly=true");
    let Answer(status, _, json) = send(&world, "PATCH", &query, &[json_type], body.as_bytes()).await;
    assert_eq!(
        (status, json),
        (200, json!({ "name": ENTITY, "displayName": "the shop", "labels": { "a": "b" } }))
    );
    let asked: UpdateEntityRequest = world.fake("catalog").calls(UPDATE)[0].decode();
    assert_eq!(asked.update_mask.unwrap().paths, ["display_name", "labels"]);
    assert!(asked.validate_only);
    // Policy is asked about both as about any call.
    assert_eq!(world.fake("policy").calls(DECIDE).len(), 2);
}

#[tokio::test]
async fn a_body_and_an_answer_may_be_packed() {
    let world = world().await;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let text = "x".repeat(3000);
    encoder.write_all(json!({ "displayName": text }).to_string().as_bytes()).unwrap();
    let packed = encoder.finish().unwrap();
    let token = format!("Bearer {}", world.token("alice", "acme"));
    let request = http::Request::patch(format!("/v1/{ENTITY}"))
        .header("host", "gateway")
        .header("authorization", token)
        .header("content-type", "application/json")
        .header("content-encoding", "gzip")
        .header("accept-encoding", "br, gzip;q=0.5")
        .body(packed)
        .unwrap();
    let response = world.http(request).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-encoding"], "gzip");
    assert!(response.body().len() < 1000, "{}", response.body().len());
    let mut plain = String::new();
    flate2::read::GzDecoder::new(response.body().as_ref()).read_to_string(&mut plain).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&plain).unwrap()["displayName"], text);
}

#[tokio::test]
async fn errors_are_told_with_their_code_and_details() {
    let world = world().await;
    let Answer(status, headers, json) = send(&world, "GET", &format!("/v1/{ENTITY}/../gone"), &[], b"").await;
    assert_eq!((status, json["code"].clone()), (404, json!(12)), "{json}");
    assert!(headers.contains_key("x-request-id"), "{headers:?}");
    let gone = ENTITY.replace("shop", "gone");
    let Answer(status, _, json) = send(&world, "GET", &format!("/v1/{gone}"), &[], b"").await;
    assert_eq!((status, json["code"].clone(), told(&json).0.as_str()), (404, json!(5), "RESOURCE_NOT_FOUND"));
    assert_eq!(json["message"], "no such entity");
    // Nobody is let in without a token, whatever the body.
    let request = http::Request::patch(format!("/v1/{ENTITY}"))
        .header("host", "gateway")
        .header("content-type", "application/json")
        .body(b"not json".to_vec())
        .unwrap();
    let response = world.http(request).await;
    assert_eq!(response.status(), 401);
    assert_eq!(response.headers()["www-authenticate"], "Bearer");
    let json: Value = serde_json::from_slice(response.body()).unwrap();
    assert_eq!(told(&json).0, "UNAUTHENTICATED");
    let request = http::Request::get(format!("/v1/{ENTITY}"))
        .header("host", "gateway")
        .header("authorization", "Bearer nothing")
        .body(Vec::new())
        .unwrap();
    let response = world.http(request).await;
    assert_eq!(response.status(), 401);
    assert_eq!(response.headers()["www-authenticate"], "Bearer error=\"invalid_token\"");
    // A no is a no, and recorded as over gRPC.
    world.decide(|_| Ok(crate::governance::deny(&[("no-reads", PolicyType::Access, "not today")])));
    let Answer(status, _, json) = send(&world, "GET", &format!("/v1/{ENTITY}"), &[], b"").await;
    assert_eq!((status, told(&json).0.as_str()), (403, "ACCESS_DENIED"));
    let event = world
        .records(2)
        .await
        .into_iter()
        .find_map(|one| one.event.filter(|e| e.action == "catalog.entities.get"));
    assert_eq!(event.unwrap().target.unwrap().name, ENTITY);
    world.decide(|_| Err(Status::unavailable("away")));
    let Answer(status, headers, json) = send(&world, "GET", &format!("/v1/{ENTITY}"), &[], b"").await;
    assert_eq!((status, told(&json).0.as_str()), (503, "DEPENDENCY_UNAVAILABLE"));
    assert_eq!(headers["retry-after"], "1");
}

#[tokio::test]
async fn nonsense_is_refused_with_what_would_be_right() {
    let world = prepared(World::with(Config { max_message_bytes: 2000, ..Config::default() }).await);
    let json_type = ("content-type", "application/json");
    let path = format!("/v1/{ENTITY}");
    let escaped = path.replace("shop", "a%2Fb");
    let query = |query: &str| format!("{path}?{query}");
    let long = json!({ "displayName": "x".repeat(3000) }).to_string();
    let other = json!({ "name": ENTITY.replace("shop", "other") }).to_string();
    let deep = format!("{{\"spec\": {}1{}}}", "{\"a\":".repeat(200), "}".repeat(200));
    type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a str, u16, &'a [&'a str]);
    let cases: &[Case<'_>] = &[
        ("GET", "/", &[], "", 404, &[]),
        ("GET", "/v1", &[], "", 404, &[]),
        ("GET", "/v1/organizations/acme/", &[], "", 404, &[]),
        ("GET", "/pavior.catalog.v1.CatalogService/Nothing", &[], "", 404, &[]),
        ("POST", "/grpc.health.v1.Health/Check", &[json_type], "{}", 404, &[]),
        ("PUT", &path, &[json_type], "{}", 405, &[]),
        ("HEAD", "/v1/organizations", &[], "", 405, &[]),
        ("PATCH", &path, &[], "{}", 415, &[]),
        ("PATCH", &path, &[("content-type", "application/x-www-form-urlencoded")], "{}", 415, &[]),
        ("PATCH", &path, &[("content-type", "application/json; charset=latin1")], "{}", 415, &[]),
        ("PATCH", &path, &[json_type, ("content-encoding", "br")], "{}", 415, &[]),
        ("PATCH", &path, &[json_type, ("content-encoding", "gzip")], "{}", 400, &[""]),
        ("PATCH", &path, &[json_type], &long, 413, &[]),
        ("PATCH", &path, &[json_type], "{", 400, &["entity"]),
        ("PATCH", &path, &[json_type], "{\"displayName\": 5}", 400, &["entity.display_name"]),
        ("PATCH", &path, &[json_type], "{\"nope\": 5}", 400, &["entity.nope"]),
        ("PATCH", &path, &[json_type], "\u{ff}", 400, &["entity"]),
        ("PATCH", &path, &[json_type], &deep, 400, &["entity.spec"]),
        ("PATCH", &path, &[json_type], &other, 400, &["entity.name"]),
        (
            "PATCH",
            &query("validate_only=true&validateOnly=true"),
            &[json_type],
            "{}",
            400,
            &["validate_only"],
        ),
        ("PATCH", &query("entity.owner=x"), &[json_type], "{}", 400, &["entity.owner"]),
        ("PATCH", &query("nope=1&validateOnly=1"), &[json_type], "{}", 400, &["nope", "validate_only"]),
        ("GET", &path, &[], "{}", 400, &[""]),
        ("GET", &query("name=x"), &[], "", 400, &["name"]),
        ("GET", &query("x=%ff"), &[], "", 400, &[""]),
        ("GET", &path.replace("shop", "%ff"), &[], "", 400, &["name"]),
        ("GET", &path.replace("shop", "%zz"), &[], "", 400, &["name"]),
        ("GET", &escaped, &[], "", 400, &["name"]),
    ];
    for (verb, path, headers, body, code, fields) in cases {
        if *verb == "HEAD" {
            let request = http::Request::head(*path).header("host", "gateway").body(Vec::new()).unwrap();
            assert_eq!(world.http(request).await.status().as_u16(), *code, "{verb} {path}");
            continue;
        }
        let Answer(status, answered, json) = send(&world, verb, path, headers, body.as_bytes()).await;
        let (reason, named) = told(&json);
        assert_eq!(status, *code, "{verb} {path} {body}: {json}");
        assert_eq!(named, *fields, "{verb} {path} {body}: {json}");
        let expected = match code {
            400 => "INVALID_FIELD",
            413 => "MESSAGE_TOO_LARGE",
            _ => "UNIMPLEMENTED",
        };
        assert_eq!(reason, expected, "{verb} {path} {body}: {json}");
        match code {
            405 => assert_eq!(answered["allow"], "DELETE, GET, PATCH"),
            415 => {
                let right = [("accept-post", "application/json"), ("accept-encoding", "gzip, identity")];
                let told =
                    right.iter().any(|(name, value)| answered.get(*name).is_some_and(|told| told == value));
                assert!(told, "{path}: {answered:?}");
            }
            _ => {}
        }
    }
    // Nothing of that came to the service.
    assert!(world.fake("catalog").calls(UPDATE).is_empty());
    assert!(world.fake("catalog").calls(GET_ENTITY).is_empty());
}

#[tokio::test]
async fn grpc_that_calls_itself_otherwise_hears_what_would_be_right() {
    let world = world().await;
    let types = "application/json, application/proto, application/grpc, application/grpc-web";
    for kind in ["text/plain", "application/grpcx", "application/connect+json", "application/json; charset=x"]
    {
        let Answer(status, headers, json) =
            send(&world, "POST", GET_ENTITY, &[("content-type", kind)], b"{}").await;
        assert_eq!((status, json["code"].clone()), (415, json!("unimplemented")), "{kind}: {json}");
        assert_eq!(headers["accept-post"], types, "{kind}");
    }
    let Answer(status, headers, _) = send(&world, "DELETE", GET_ENTITY, &[], b"").await;
    assert_eq!((status, &headers["allow"]), (405, &http::HeaderValue::from_static("GET, POST")));
}

#[tokio::test]
async fn the_deadline_of_a_caller_holds() {
    let world = world().await;
    world.fake("catalog").on_stream(GET_ENTITY, || futures::StreamExt::boxed(futures::stream::pending()));
    let Answer(status, _, json) =
        send(&world, "GET", &format!("/v1/{ENTITY}"), &[("grpc-timeout", "100m")], b"").await;
    assert_eq!((status, told(&json).0.as_str()), (504, "DEADLINE_EXCEEDED"), "{json}");
}

/// Whole numbers beyond what a double tells apart are not changed but refused, wherever they stand.
#[tokio::test]
async fn numbers_of_values_arrive_as_they_were_written_or_not_at_all() {
    let world = world().await;
    let patch = async |spec: &str| {
        let body = format!("{{\"spec\": {spec}}}");
        send(
            &world,
            "PATCH",
            &format!("/v1/{ENTITY}"),
            &[("content-type", "application/json")],
            body.as_bytes(),
        )
        .await
    };
    for (spec, place) in [
        (r#"{"port": 9007199254740993}"#, "entity.spec.port"),
        (r#"{"a": [0, {"b": -9007199254740992}]}"#, "entity.spec.a[1].b"),
        (r#"{"a": 18446744073709551616}"#, "entity.spec.a"),
        (r#"{"a": 1e300}"#, "entity.spec.a"),
    ] {
        let Answer(status, _, json) = patch(spec).await;
        assert_eq!(
            (status, told(&json)),
            (400, ("INVALID_FIELD".to_owned(), vec![place.to_owned()])),
            "{spec}"
        );
    }
    assert!(world.fake("catalog").calls(UPDATE).is_empty());
    let spec = r#"{"a": 9007199254740991, "b": 0.1, "c": "9007199254740993", "d": -1.5e-7}"#;
    let Answer(status, _, json) = patch(spec).await;
    assert_eq!(status, 200, "{json}");
    assert_eq!(json["spec"]["c"], "9007199254740993");
    assert_eq!(json["spec"]["a"].as_f64(), Some(9_007_199_254_740_991.0));
}
