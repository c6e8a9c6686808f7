//! The wire: sizes, compression, streams, browsers, health and reflection.

use std::time::Duration;

use futures::StreamExt;
use pavior_gateway::Config;
use pavior_proto::pavior::audit::v1::audit_event::outcome::Status as Ended;
use pavior_proto::pavior::audit::v1::audit_service_client::AuditServiceClient;
use pavior_proto::pavior::audit::v1::{ListAuditRecordsRequest, ListAuditRecordsResponse};
use pavior_proto::pavior::audit::v1::{WatchAuditRecordsRequest, WatchAuditRecordsResponse};
use pavior_proto::pavior::catalog::v1::{Entity, GetEntityRequest};
use pavior_rpc::problem::{ErrorReason, from_status};
use prost::Message;
use tonic::codec::CompressionEncoding;
use tonic::{Code, Status};

use crate::harness::{APPEND, ENTITY, GET_ENTITY, World};

const WATCH: &str = "/pavior.audit.v1.AuditService/WatchAuditRecords";
const LIST: &str = "/pavior.audit.v1.AuditService/ListAuditRecords";

fn get(name: &str) -> GetEntityRequest {
    GetEntityRequest { name: name.to_owned(), ..Default::default() }
}

fn answer_entities(world: &World) {
    world
        .fake("catalog")
        .on(GET_ENTITY, |request: GetEntityRequest| Ok(Entity { name: request.name, ..Default::default() }));
}

fn bookmark(index: i64) -> Vec<u8> {
    WatchAuditRecordsResponse { resume_token: index.to_string(), ..Default::default() }.encode_to_vec()
}

fn watch() -> WatchAuditRecordsRequest {
    WatchAuditRecordsRequest { parent: "organizations/acme".to_owned(), ..Default::default() }
}

#[tokio::test]
async fn streams_pass_through_with_their_end_and_sensitive_reads_are_recorded() {
    let world = World::new().await;
    world.fake("audit").on_stream(WATCH, || {
        let end = Status::out_of_range("resume token expired");
        futures::stream::iter([Ok(bookmark(1)), Ok(bookmark(2)), Err(end)]).boxed()
    });
    let mut client = AuditServiceClient::new(world.caller("audrey", "acme").await);
    let mut stream = client.watch_audit_records(watch()).await.unwrap().into_inner();
    for index in [1, 2] {
        assert_eq!(stream.message().await.unwrap().unwrap().resume_token, index.to_string());
    }
    let end = stream.message().await.unwrap_err();
    assert_eq!((end.code(), end.message()), (Code::OutOfRange, "resume token expired"));
    let record = world.records(1).await.remove(0);
    assert_eq!(record.organization, "acme");
    let event = record.event.unwrap();
    assert_eq!(event.action, "audit.auditRecords.list");
    assert_eq!(event.outcome.unwrap().status(), Ended::Succeeded);
    assert_eq!(event.decision.unwrap().decision, "decision-1");
}

#[tokio::test]
async fn a_stream_ends_with_the_token_of_its_caller() {
    let world = World::new().await;
    world.fake("audit").on_stream(WATCH, || {
        futures::stream::iter([Ok(bookmark(1))]).chain(futures::stream::pending()).boxed()
    });
    let caller = world.caller("audrey", "acme").await;
    // One second of the token is left.
    world.clock.advance(Duration::from_secs(599));
    let mut client = AuditServiceClient::new(caller);
    let mut stream = client.watch_audit_records(watch()).await.unwrap().into_inner();
    assert_eq!(stream.message().await.unwrap().unwrap().resume_token, "1");
    let end = tokio::time::timeout(Duration::from_secs(10), stream.message()).await.unwrap().unwrap_err();
    assert_eq!(end.code(), Code::Unauthenticated);
    assert_eq!(pavior_rpc::problem::from_status(&end).metadata["cause"], "EXPIRED");
}

#[tokio::test]
async fn what_must_be_recorded_is_refused_when_records_cannot_be_kept() {
    let world = World::with(Config { audit_queue: 1, ..Config::default() }).await;
    world.fake("audit").on(APPEND, |_: pavior_proto::pavior::audit::internal::v1::AppendRecordsRequest| {
        Err::<pavior_proto::pavior::audit::internal::v1::AppendRecordsResponse, _>(Status::unavailable(
            "full",
        ))
    });
    world.fake("audit").on(LIST, |_: ListAuditRecordsRequest| Ok(ListAuditRecordsResponse::default()));
    answer_entities(&world);
    let caller = world.caller("audrey", "acme").await;
    let mut client = AuditServiceClient::new(caller.clone());
    let list = || ListAuditRecordsRequest { parent: "organizations/acme".to_owned(), ..Default::default() };
    client.list_audit_records(list()).await.unwrap();
    let status = client.list_audit_records(list()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(from_status(&status).is(ErrorReason::AuditUnavailable));
    // Reads that need no record go on.
    let mut catalog =
        pavior_proto::pavior::catalog::v1::catalog_service_client::CatalogServiceClient::new(caller);
    catalog.get_entity(get(ENTITY)).await.unwrap();
}

#[tokio::test]
async fn messages_over_the_limit_are_resource_exhausted_plain_and_compressed() {
    let world = World::with(Config { max_message_bytes: 1000, ..Config::default() }).await;
    answer_entities(&world);
    let large = get(&"x".repeat(5000));
    let mut plain = world.catalog("alice", "acme").await;
    let mut packed = world.catalog("alice", "acme").await.send_compressed(CompressionEncoding::Gzip);
    for client in [&mut plain, &mut packed] {
        let status = client.get_entity(large.clone()).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert!(from_status(&status).is(ErrorReason::MessageTooLarge));
        assert_eq!(client.get_entity(get(ENTITY)).await.unwrap().into_inner().name, ENTITY);
    }
    // What was looked at is what was sent on.
    let call = world.fake("catalog").calls(GET_ENTITY).remove(1);
    assert!(!call.headers.contains_key("grpc-encoding"));
    assert_eq!(call.decode::<GetEntityRequest>().name, ENTITY);
}

#[tokio::test]
async fn a_slow_service_meets_the_callers_deadline() {
    let world = World::new().await;
    world.fake("catalog").on_stream(GET_ENTITY, || futures::stream::pending().boxed());
    let mut client = world.catalog("alice", "acme").await;
    let mut request = tonic::Request::new(get(ENTITY));
    request.set_timeout(Duration::from_millis(200));
    let status = client.get_entity(request).await.unwrap_err();
    assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled), "{status:?}");
}

#[tokio::test]
async fn what_only_raw_bytes_can_do_wrong_is_the_callers_mistake() {
    let world = World::new().await;
    answer_entities(&world);
    let message = get(ENTITY).encode_to_vec();
    let framed = [&[0, 0, 0, 0, u8::try_from(message.len()).unwrap()], message.as_slice()].concat();
    let (binary, text) = ("application/grpc-web+proto", "application/grpc-web-text");
    for (what, path, content_type, timeout, body, code) in [
        ("good", GET_ENTITY, binary, "1S", framed.clone(), "0"),
        ("no base64", GET_ENTITY, text, "1S", b"!!!!".to_vec(), "3"),
        ("cut off", GET_ENTITY, binary, "1S", framed[..9].to_vec(), "3"),
        ("no time to decide", GET_ENTITY, binary, "1n", framed.clone(), "4"),
        ("empty health check", "/grpc.health.v1.Health/Check", binary, "1S", Vec::new(), "3"),
        ("cut off health check", "/grpc.health.v1.Health/Check", binary, "1S", vec![0, 0, 0], "3"),
        ("unknown flag", "/grpc.health.v1.Health/Check", binary, "1S", vec![7, 0, 0, 0, 0], "3"),
    ] {
        let request = http::Request::post(path)
            .header("host", "gateway")
            .header("content-type", content_type)
            .header("accept", binary)
            .header("grpc-timeout", timeout)
            .header("authorization", format!("Bearer {}", world.token("alice", "acme")))
            .body(body)
            .unwrap();
        let response = world.http(request).await;
        let status = match response.headers().get("grpc-status") {
            Some(status) => status.to_str().unwrap().to_owned(),
            None => String::from_utf8_lossy(response.body())
                .split_once("grpc-status:")
                .map(|(_, rest)| rest.trim().chars().take_while(char::is_ascii_digit).collect())
                .unwrap_or_default(),
        };
        assert_eq!(status, code, "{what}: {response:?}");
    }
}

#[tokio::test]
async fn browsers_call_with_grpc_web_over_http_1_from_named_origins() {
    let origin = "https://portal.example.com".to_owned();
    let world = World::with(Config { web_origins: vec![origin.clone()], ..Config::default() }).await;
    answer_entities(&world);
    let message = get(ENTITY).encode_to_vec();
    let mut framed = vec![0, 0, 0, 0, u8::try_from(message.len()).unwrap()];
    framed.extend(message);
    let request = |origin: &str, token: &str| {
        http::Request::post(GET_ENTITY)
            .header("host", "gateway")
            .header("origin", origin)
            .header("content-type", "application/grpc-web+proto")
            .header("accept", "application/grpc-web+proto")
            .header("authorization", format!("Bearer {token}"))
            .body(framed.clone())
            .unwrap()
    };
    let response = world.http(request(&origin, &world.token("alice", "acme"))).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["access-control-allow-origin"], origin.as_str());
    let body = response.body();
    let length = usize::from(body[4]);
    let entity = Entity::decode(&body[5..5 + length]).unwrap();
    assert_eq!(entity.name, ENTITY);
    let trailers = String::from_utf8_lossy(&body[5 + length..]);
    assert!(trailers.contains("grpc-status:0") || trailers.contains("grpc-status: 0"), "{trailers}");
    let response = world.http(request(&origin, "not.a.token")).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["grpc-status"], "16");
    let response = world.http(request("https://evil.example", &world.token("alice", "acme"))).await;
    assert!(!response.headers().contains_key("access-control-allow-origin"));
    let preflight = http::Request::options(GET_ENTITY)
        .header("host", "gateway")
        .header("origin", &origin)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization,x-grpc-web")
        .body(Vec::new())
        .unwrap();
    let response = world.http(preflight).await;
    let allowed = response.headers()["access-control-allow-headers"].to_str().unwrap().to_ascii_lowercase();
    assert!(allowed.contains("authorization"), "{allowed}");
}

#[tokio::test]
async fn what_is_no_protocol_of_ours_gets_an_http_answer() {
    let world = World::new().await;
    let stream = tokio::net::TcpStream::connect(world.address).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    tokio::spawn(connection);
    for (method, content_type, status) in
        [("PUT", "application/grpc", 405), ("POST", "application/grpcx", 415), ("POST", "text/plain", 415)]
    {
        let request = http::Request::builder()
            .method(method)
            .uri(format!("http://gateway{GET_ENTITY}"))
            .header("content-type", content_type)
            .body(http_body_util::Empty::<bytes::Bytes>::new())
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), status, "{method} {content_type}");
    }
    let plain = http::Request::post(GET_ENTITY).header("host", "gateway").body(Vec::new()).unwrap();
    assert_eq!(world.http(plain).await.status(), 415);
}

#[tokio::test]
async fn health_and_reflection_need_no_token_and_name_what_is_public() {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let world = World::new().await;
    let channel = world.channel().await;
    let check = HealthCheckRequest { service: "pavior.catalog.v1.CatalogService".to_owned() };
    let health = HealthClient::new(channel.clone()).check(check).await.unwrap().into_inner();
    assert_eq!(health.status, 1);
    let list = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut reflection = ServerReflectionClient::new(channel);
    let answers = reflection.server_reflection_info(futures::stream::iter([list])).await.unwrap();
    let answer = answers.into_inner().message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(services)) = answer.message_response else { panic!() };
    let names: Vec<&str> = services.service.iter().map(|service| service.name.as_str()).collect();
    for public in [
        "pavior.catalog.v1.CatalogService",
        "pavior.platform.v1.PlatformService",
        "google.longrunning.Operations",
    ] {
        assert!(names.contains(&public), "{public}: {names:?}");
    }
    assert!(!names.iter().any(|name| name.contains(".internal.")), "{names:?}");
}
