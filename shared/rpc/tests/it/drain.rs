//! The end of a server, as its callers see it.

use std::time::Duration;

use futures::StreamExt as _;
use pavior_proto::pavior::audit::v1::audit_service_client::AuditServiceClient;
use pavior_proto::pavior::audit::v1::{AuditRecord, WatchAuditRecordsRequest, WatchAuditRecordsResponse};
use pavior_rpc::problem::from_status;
use pavior_rpc::server::{Drain, ServeOptions, serve_with};
use pavior_rpc::{Health, StackOptions, server};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::harness::{Fake, get};

/// Serves with little grace; gives a channel, and what begins the end.
async fn serve(fake: Fake, grace: Duration) -> (Channel, CancellationToken, tokio::task::JoinHandle<()>) {
    let drain = Drain::default();
    let options = StackOptions { drain: drain.clone(), ..StackOptions::default() };
    let health = Health::new(["any"]).await;
    let beside = health.add_to(Routes::default());
    let stack = server::stack(fake.routes(), options).beside(beside, drain.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let options = ServeOptions { grace, drain, ..ServeOptions::default() };
    let task = tokio::spawn(serve_with(listener, stack, options, shutdown.clone()));
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    (channel, shutdown, task)
}

fn told(status: &Status) {
    let decoded = from_status(status);
    assert_eq!((status.code(), decoded.reason.as_str()), (Code::Unavailable, "DRAINING"), "{status:?}");
    assert!(decoded.retry_after.is_some());
}

#[tokio::test]
async fn streams_end_with_a_status_between_two_messages_and_calls_are_answered() {
    let message = || WatchAuditRecordsResponse { resume_token: "7".to_owned(), ..Default::default() };
    // One stream has always something to say, one never.
    let fake = Fake::watch(move || Ok(futures::stream::repeat_with(move || Ok(message())).boxed()));
    let (channel, shutdown, task) = serve(fake, Duration::from_secs(5)).await;
    let mut client = AuditServiceClient::new(channel.clone());
    let ask = WatchAuditRecordsRequest::default;
    let mut busy = client.watch_audit_records(ask()).await.unwrap().into_inner();
    assert_eq!(busy.message().await.unwrap().unwrap().resume_token, "7");
    let mut health = HealthClient::new(channel);
    let mut watch = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    watch.message().await.unwrap().unwrap();
    shutdown.cancel();
    let ended = loop {
        match busy.message().await {
            Ok(Some(message)) => assert_eq!(message.resume_token, "7"),
            Ok(None) => panic!("the stream was cut off"),
            Err(status) => break status,
        }
    };
    told(&ended);
    told(&watch.message().await.unwrap_err());
    tokio::time::timeout(Duration::from_secs(2), task).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_call_that_is_not_answered_in_time_is_told_so() {
    let (begun, mut has_begun) = tokio::sync::mpsc::channel(1);
    let fake = Fake::get(move |_| {
        let begun = begun.clone();
        async move {
            begun.send(()).await.unwrap();
            std::future::pending::<Result<AuditRecord, Status>>().await
        }
    });
    let (channel, shutdown, task) = serve(fake, Duration::from_millis(50)).await;
    let mut client = AuditServiceClient::new(channel);
    let call = tokio::spawn(async move { client.get_audit_record(get()).await });
    has_begun.recv().await.unwrap();
    shutdown.cancel();
    told(&call.await.unwrap().unwrap_err());
    tokio::time::timeout(Duration::from_secs(2), task).await.unwrap().unwrap();
}
