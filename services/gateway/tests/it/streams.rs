//! Streams over HTTP: lines of JSON, and server-sent events.

use futures::StreamExt;
use pavior_proto::pavior::audit::v1::watch_audit_records_response::Response;
use pavior_proto::pavior::audit::v1::{AuditRecord, WatchAuditRecordsRequest, WatchAuditRecordsResponse};
use pavior_proto::pavior::governance::internal::v1::{GetResourceFactsRequest, ResourceFacts};
use pavior_proto::pavior::provisioning::v1::download_artifact_response::{Chunk, Description, Part};
use pavior_proto::pavior::provisioning::v1::{
    DownloadArtifactRequest, DownloadArtifactResponse, WatchOperationRequest, WatchOperationResponse,
};
use pavior_proto::pavior::r#type::v1::stream_start::{Position, Start};
use pavior_rpc::stream;
use prost::Message;
use serde_json::{Value, json};
use tonic::Status;

use crate::harness::{FACTS, World};

const AUDIT: &str = "/pavior.audit.v1.AuditService/WatchAuditRecords";
const OPERATION: &str = "/pavior.provisioning.v1.OperationService/WatchOperation";
const DOWNLOAD: &str = "/pavior.provisioning.v1.PipelineService/DownloadArtifact";
const PATH: &str = "/v1/organizations/acme/auditRecords:watch";

fn record(index: i64) -> Vec<u8> {
    let name = format!("organizations/acme/auditRecords/{index}");
    let record = AuditRecord { name, ..Default::default() };
    let response = Some(Response::AuditRecord(record));
    WatchAuditRecordsResponse { resume_token: format!("token-{index}"), response }.encode_to_vec()
}

async fn watch(world: &World, path: &str, headers: &[(&str, &str)]) -> http::Response<bytes::Bytes> {
    let mut request = http::Request::get(path)
        .header("host", "gateway")
        .header("authorization", format!("Bearer {}", world.token("audrey", "acme")));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    world.http(request.body(Vec::new()).unwrap()).await
}

fn text(response: &http::Response<bytes::Bytes>) -> &str {
    std::str::from_utf8(response.body()).unwrap()
}

#[tokio::test]
async fn a_stream_is_a_message_on_each_line_and_last_what_went_wrong() {
    let world = World::new().await;
    let end = || Status::out_of_range("the token is too old");
    world
        .fake("audit")
        .on_stream(AUDIT, move || futures::stream::iter([Ok(record(1)), Ok(record(2)), Err(end())]).boxed());
    for accept in ["application/x-ndjson", "application/json", "*/*", "text/event-stream;q=0.1, */*"] {
        let response = watch(&world, PATH, &[("accept", accept)]).await;
        assert_eq!(response.headers()["content-type"], "application/x-ndjson", "{accept}");
        let lines: Vec<Value> =
            text(&response).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let [first, second, last] = lines.as_slice() else { panic!("{lines:?}") };
        assert_eq!(first["result"]["auditRecord"]["name"], "organizations/acme/auditRecords/1");
        assert_eq!(second["result"]["resumeToken"], "token-2");
        assert_eq!(
            (&last["error"]["code"], &last["error"]["message"]),
            (&json!(11), &json!("the token is too old"))
        );
        assert!(last["error"]["details"][0]["reason"].is_string(), "{last}");
    }
}

#[tokio::test]
async fn events_carry_where_to_go_on_and_a_browser_goes_on_there() {
    let world = World::new().await;
    world.fake("audit").on_stream(AUDIT, || futures::stream::iter([Ok(record(7))]).boxed());
    let events = [("accept", "text/event-stream"), ("last-event-id", "token-6")];
    let response = watch(&world, PATH, &events).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let record = json!({ "name": "organizations/acme/auditRecords/7" });
    let expected = json!({ "resumeToken": "token-7", "auditRecord": record });
    assert_eq!(text(&response), format!("id: token-7\ndata: {expected}\n\nevent: end\ndata: {{}}\n\n"));
    let asked: WatchAuditRecordsRequest = world.fake("audit").calls(AUDIT)[0].decode();
    assert_eq!(asked.start, stream::resume("token-6"));
    // What the query says counts more than what a browser remembers.
    watch(&world, &format!("{PATH}?start.position=POSITION_NOW"), &events).await;
    let asked: WatchAuditRecordsRequest = world.fake("audit").calls(AUDIT)[1].decode();
    let now = Some(Start::Position(Position::Now.into()));
    assert_eq!(asked.start.and_then(|start| start.start), now);
}

#[tokio::test]
async fn an_operation_is_watched_as_events() {
    let world = World::new().await;
    let token = "a token";
    world.fake("provisioning").on_stream(OPERATION, move || {
        let first = WatchOperationResponse { resume_token: token.to_owned(), ..Default::default() };
        let strange = WatchOperationResponse { resume_token: "two\nlines".to_owned(), ..Default::default() };
        let end = Status::unavailable("resume it");
        futures::stream::iter([Ok(first.encode_to_vec()), Ok(strange.encode_to_vec()), Err(end)]).boxed()
    });
    let path = "/v1/organizations/acme/operations/0a000000-0000-7000-8000-000000000000:watch";
    let events = [("accept", "text/event-stream"), ("last-event-id", "before")];
    let response = watch(&world, path, &events).await;
    let [first, strange, last, ""] = text(&response).split("\n\n").collect::<Vec<_>>()[..] else {
        panic!("{}", text(&response))
    };
    assert_eq!(first, "id: a token\ndata: {\"resumeToken\":\"a token\"}");
    assert_eq!(strange, "data: {\"resumeToken\":\"two\\nlines\"}");
    let error = last.strip_prefix("event: error\ndata: ").unwrap();
    assert_eq!(serde_json::from_str::<Value>(error).unwrap()["code"], 14);
    let asked: WatchOperationRequest = world.fake("provisioning").calls(OPERATION)[0].decode();
    assert_eq!(asked.start, stream::resume("before"));
}

#[tokio::test]
async fn bytes_are_base64_in_lines() {
    let world = World::new().await;
    world.fake("provisioning").on(FACTS, |request: GetResourceFactsRequest| {
        Ok(ResourceFacts { name: request.name, exists: true, ..Default::default() })
    });
    world.fake("provisioning").on_stream(DOWNLOAD, || {
        let chunk = Part::Chunk(Chunk { offset: 7, data: vec![0, 255, b'a'] });
        let first = Part::Description(Description { file_name: "app".to_owned(), ..Default::default() });
        let part = |part| Ok(DownloadArtifactResponse { part: Some(part) }.encode_to_vec());
        futures::stream::iter([part(first), part(chunk)]).boxed()
    });
    let run = "organizations/acme/projects/hello/pipelines/pipeline/runs/run-1";
    let path = format!("/v1/{run}:downloadArtifact?artifactId=app&offset=7");
    let response = watch(&world, &path, &[]).await;
    assert_eq!(response.headers()["content-type"], "application/x-ndjson");
    let lines: Vec<Value> = text(&response).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let chunk = json!({ "result": { "chunk": { "offset": "7", "data": "AP9h" } } });
    assert_eq!(lines, [json!({ "result": { "description": { "fileName": "app" } } }), chunk]);
    let asked: DownloadArtifactRequest = world.fake("provisioning").calls(DOWNLOAD)[0].decode();
    let wanted = DownloadArtifactRequest { name: run.to_owned(), artifact_id: "app".to_owned(), offset: 7 };
    assert_eq!(asked, wanted);
}

#[tokio::test]
async fn a_stream_that_does_not_begin_is_answered_like_any_call() {
    let world = World::new().await;
    world
        .fake("audit")
        .on_stream(AUDIT, || futures::stream::iter([Err(Status::not_found("no log"))]).boxed());
    for accept in ["text/event-stream", "application/x-ndjson"] {
        let response = watch(&world, PATH, &[("accept", accept)]).await;
        assert_eq!(
            (response.status().as_u16(), &response.headers()["content-type"]),
            (404, &"application/json".parse().unwrap())
        );
        assert_eq!(serde_json::from_slice::<Value>(response.body()).unwrap()["message"], "no log");
    }
    let response =
        watch(&world, &format!("{PATH}?start.position=x"), &[("accept", "text/event-stream")]).await;
    assert_eq!(response.status(), 400, "{}", text(&response));
}
