use std::sync::Arc;

use pavior_driver::testing::FakeDriver;
use pavior_driver::{Driver, Health, Outcome};
use pavior_driver_grpc::{ConnectError, REVISIONS, RemoteDriver, RemoteOptions, WireError, serve};
use pavior_proto::pavior::driver::v1 as pb;
use pavior_rpc::Transport;
use pavior_rpc::problem::from_status;
use pb::driver_service_client::DriverServiceClient;
use tonic::Code;

use crate::harness::{Probe, over_tcp, remote, stacked};
use crate::rogue::Rogue;

fn fake() -> Transport {
    stacked(serve(Arc::new(FakeDriver::new("fake", &["thing"]))))
}

async fn refusal(change: impl FnOnce(&mut Rogue)) -> ConnectError {
    let mut rogue = Rogue::new(|| Ok(Vec::new()));
    change(&mut rogue);
    RemoteDriver::connect(stacked(rogue.routes()), RemoteOptions::default()).await.unwrap_err()
}

#[tokio::test]
async fn both_sides_agree() {
    let remote = remote(FakeDriver::new("fake", &["thing"])).await;
    assert_eq!(remote.revision(), 1);
    assert_eq!(remote.info().id, "fake");
}

#[tokio::test]
async fn an_engine_of_another_revision_is_refused() {
    let mut client = DriverServiceClient::new(fake());
    let request = pb::HandshakeRequest { revisions: vec![2, 99], ..pb::HandshakeRequest::default() };
    let status = client.handshake(request).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("[2, 99]"), "{}", status.message());
}

#[tokio::test]
async fn a_driver_of_another_revision_is_refused() {
    let err = refusal(|rogue| rogue.handshake.revision = 2).await;
    assert_eq!(err, ConnectError::Revision { driver: 2, ours: REVISIONS.to_vec() });
}

#[tokio::test]
async fn capabilities_are_required_both_ways() {
    let err = refusal(|rogue| rogue.handshake.required_capabilities = vec![1, 42]).await;
    assert_eq!(err, ConnectError::Capabilities("number 42".to_owned()));
    let mut client = DriverServiceClient::new(fake());
    let request = |required_capabilities| pb::HandshakeRequest {
        revisions: vec![1],
        required_capabilities,
        ..pb::HandshakeRequest::default()
    };
    let status = client.handshake(request(vec![42])).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    client.handshake(request(vec![pb::Capability::Cancel.into()])).await.unwrap();
}

#[tokio::test]
async fn a_driver_that_does_not_say_what_it_is_is_refused() {
    let err = refusal(|rogue| rogue.handshake.driver_id.clear()).await;
    assert_eq!(err, ConnectError::Malformed(WireError::Missing("driver_id")));
    let err = refusal(|rogue| "other".clone_into(&mut rogue.digest)).await;
    assert_eq!(err, ConnectError::Changed);
}

#[tokio::test]
async fn a_driver_that_is_not_there_is_unreachable() {
    let connect =
        |endpoint: &'static str| RemoteDriver::connect_endpoint(endpoint, None, RemoteOptions::default());
    assert!(matches!(connect("nonsense").await.unwrap_err(), ConnectError::Endpoint(_)));
    let (_, tcp) = over_tcp(FakeDriver::new("fake", &["thing"])).await;
    let endpoint = tcp.endpoint();
    drop(tcp);
    let err = RemoteDriver::connect_endpoint(&endpoint, None, RemoteOptions::default()).await.unwrap_err();
    assert!(matches!(err, ConnectError::Unreachable(_)), "{err:?}");
}

#[tokio::test]
async fn health_is_passed_on_and_notices_a_replaced_driver() {
    let probe = Probe::answering(Outcome::Unknown { message: String::new() });
    let version = probe.version.clone();
    let remote = remote(probe).await;
    assert_eq!(remote.health().await, Health::Down("the disk is full".to_owned()));
    "2.0.0".clone_into(&mut version.lock().unwrap());
    assert!(matches!(remote.health().await, Health::Down(why) if why.contains("replaced")));
    assert_eq!(remote.info().version, "1.0.0", "it is constant for the life of the value");
}

#[tokio::test]
async fn requests_that_break_the_contract_are_named() {
    let mut client = DriverServiceClient::new(fake());
    let status = client.apply(pb::ApplyRequest::default()).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "`context`: is missing"));
    let context = Some(pb::CallContext::default());
    let status = client.apply(pb::ApplyRequest { context, ..pb::ApplyRequest::default() }).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "`context.call_id`: is missing"));
    let context = Some(pb::CallContext { call_id: "c".to_owned(), ..pb::CallContext::default() });
    let request = pb::ObserveRequest { context: context.clone(), ..pb::ObserveRequest::default() };
    let status = client.observe(request).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "`lookup.by`: is missing"));
    let context = context.map(|context| pb::CallContext { attempt: -1, ..context });
    let status = client.apply(pb::ApplyRequest { context, ..pb::ApplyRequest::default() }).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::InvalidArgument, "`context.attempt`: must not be negative")
    );
}

#[tokio::test]
async fn lists_refuse_what_is_no_page() {
    let mut client = DriverServiceClient::new(fake());
    let mut refused = async |page_size, page_token: &str| {
        let request = pb::ListRequest { page_size, page_token: page_token.to_owned() };
        let problem = from_status(&client.list(request).await.unwrap_err());
        let violations: Vec<_> = problem.violations.iter().map(|found| found.field.clone()).collect();
        (problem.code, problem.reason, problem.message, violations)
    };
    let invalid = |reason: &str, message: &str, field: &str| {
        (Code::InvalidArgument, reason.to_owned(), message.to_owned(), vec![field.to_owned()])
    };
    for size in [0, -1] {
        let expected = invalid("INVALID_FIELD", "`page_size`: must be at least 1", "page_size");
        assert_eq!(refused(size, "").await, expected);
    }
    let message = "`page_token`: page token is not valid for this request; repeat the call with the arguments of the \
                   first page";
    let expected = invalid("INVALID_PAGE_TOKEN", message, "page_token");
    assert_eq!(refused(1, "nonsense").await, expected);
}
