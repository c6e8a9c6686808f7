//! What only shows on a real connection.

use std::time::Duration;

use futures::StreamExt;
use pavior_proto::pavior::audit::v1::audit_service_client::AuditServiceClient;
use pavior_proto::pavior::audit::v1::*;
use pavior_rpc::problem::from_status;
use pavior_rpc::server::ServeOptions;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::harness::{Fake, Served, get, infos, serve};

async fn connect(served: &Served) -> AuditServiceClient<Channel> {
    let endpoint = Channel::from_shared(format!("http://{}", served.address)).unwrap();
    AuditServiceClient::new(endpoint.connect().await.unwrap())
}

#[tokio::test]
async fn stream_deadline_and_panic_arrive_as_status() {
    let fake = Fake::watch(|| {
        let first = futures::stream::iter([Ok(WatchAuditRecordsResponse::default())]);
        Ok(first.chain(futures::stream::pending()).boxed())
    });
    let served = serve(fake.stack(), ServeOptions::default()).await;
    let mut client = connect(&served).await;
    let mut request = Request::new(WatchAuditRecordsRequest::default());
    // As a client does that does not watch the time itself.
    request.metadata_mut().insert("grpc-timeout", "500m".parse().unwrap());
    let mut stream = client.watch_audit_records(request).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());
    let status = stream.message().await.unwrap_err();
    assert_eq!((status.code(), infos(&status)), (Code::DeadlineExceeded, 1));
    let status = client.get_audit_tile(GetAuditTileRequest::default()).await.unwrap_err();
    assert_eq!((status.code(), infos(&status)), (Code::Internal, 1));
    // The connection is still good.
    assert!(client.get_audit_record(get()).await.is_ok());
}

#[tokio::test]
async fn too_large_is_resource_exhausted_over_tcp() {
    let fake = Fake::get(|_| async { Ok(AuditRecord::default()) });
    let served = serve(fake.stack(), ServeOptions::default()).await;
    let mut client = connect(&served).await;
    let long = GetAuditRecordRequest { name: "x".repeat(6 * 1024 * 1024) };
    let status = client.get_audit_record(long).await.unwrap_err();
    assert_eq!(from_status(&status).reason, "MESSAGE_TOO_LARGE");
    assert!(client.get_audit_record(get()).await.is_ok());
}

async fn http(served: &Served, head: &str, body: &[u8]) -> String {
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    let head = format!("{head}\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn grpc_web_over_http_1_1_with_cors() {
    const PATH: &str = "/pavior.audit.v1.AuditService/GetAuditRecord";
    let fake = Fake::get(|request| async move {
        match request.get_ref().name.as_str() {
            "" => Err(Status::not_found("gone")),
            name => Ok(AuditRecord { name: name.to_owned(), ..AuditRecord::default() }),
        }
    });
    let stack = fake.stack().grpc_web().cors(&["https://portal.example".to_owned()]);
    let served = serve(stack, ServeOptions { http1: true, ..ServeOptions::default() }).await;
    let framed = |message: GetAuditRecordRequest| {
        let encoded = message.encode_to_vec();
        let mut bytes = vec![0];
        bytes.extend_from_slice(&u32::try_from(encoded.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(&encoded);
        bytes
    };
    let head = format!(
        "POST {PATH} HTTP/1.1\r\ncontent-type: application/grpc-web+proto\r\norigin: https://portal.example"
    );
    let answer = http(&served, &head, &framed(get())).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("organizations/acme/auditRecords/1") && answer.contains("grpc-status:0"));
    assert!(answer.contains("access-control-allow-origin: https://portal.example"));
    let answer = http(&served, &head, &framed(GetAuditRecordRequest::default())).await;
    assert!(answer.contains("grpc-status: 5") && answer.contains("grpc-status-details-bin"), "{answer}");

    let preflight = |origin: &str| {
        format!(
            "OPTIONS {PATH} HTTP/1.1\r\norigin: {origin}\r\naccess-control-request-method: POST\r\n\
             access-control-request-headers: authorization"
        )
    };
    let answer = http(&served, &preflight("https://portal.example"), b"").await;
    assert!(answer.contains("access-control-allow-origin: https://portal.example"), "{answer}");
    assert!(answer.contains("authorization"));
    let answer = http(&served, &preflight("https://evil.example"), b"").await;
    assert!(!answer.contains("access-control-allow-origin"), "{answer}");
}

#[tokio::test]
async fn connections_are_asked_to_close_at_their_age() {
    let fake = Fake::get(|_| async { Ok(AuditRecord::default()) });
    let options = ServeOptions { max_connection_age: Duration::from_millis(20), ..ServeOptions::default() };
    let served = serve(fake.stack(), options).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    // The preface and empty settings of an HTTP/2 client that then says nothing.
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    // Frame type 7 is GOAWAY.
    let goaway = async {
        loop {
            let mut header = [0; 9];
            stream.read_exact(&mut header).await.unwrap();
            let [_, a, b, kind, ..] = header;
            let mut payload = vec![0; usize::from(u16::from_be_bytes([a, b]))];
            stream.read_exact(&mut payload).await.unwrap();
            if kind == 7 {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), goaway).await.unwrap();
}
