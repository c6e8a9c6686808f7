use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::StreamExt;
use pavior_core::id_gen::SeededIds;
use pavior_proto::pavior::audit::v1::audit_service_client::AuditServiceClient;
use pavior_proto::pavior::audit::v1::*;
use pavior_rpc::problem::from_status;
use pavior_rpc::server::{BoxLayer, ORDER, ServeOptions, order};
use pavior_rpc::{ErrorReason, Problem, StackOptions, context, server};
use tonic::{Code, Request};

use crate::harness::{Fake, get, infos, serve};

#[test]
fn order_of_the_stack_is_pinned() {
    let want = [
        "request_id",
        "trace",
        "metrics",
        "access_log",
        "rescue",
        "catch_panic",
        "load_shed",
        "deadline",
        "drain",
        "authn",
        "values",
    ];
    assert_eq!(ORDER, want);
    assert_eq!(order(&StackOptions::default()), want);
    let gate = ("admission", BoxLayer::new(tower::layer::util::Identity::new()));
    let options = StackOptions { inner: vec![gate], ..StackOptions::default() };
    assert_eq!(order(&options).last(), Some(&"admission"));
}

#[tokio::test]
async fn unary_deadline_is_deadline_exceeded_with_error_info() {
    let fake = Fake::get(|_| async { std::future::pending().await });
    let options = StackOptions { default_deadline: Duration::from_millis(20), ..StackOptions::default() };
    let stack = server::stack(fake.routes(), options);
    // Without client layers, so that the answer is the server's.
    let mut bare = AuditServiceClient::new(stack);
    let status = bare.get_audit_record(get()).await.unwrap_err();
    assert_eq!((status.code(), infos(&status)), (Code::DeadlineExceeded, 1));
    let mut request = Request::new(get());
    request.set_timeout(Duration::from_millis(50));
    let started = tokio::time::Instant::now();
    let status = bare.get_audit_record(request).await.unwrap_err();
    assert_eq!((status.code(), infos(&status)), (Code::DeadlineExceeded, 1));
    assert_eq!(from_status(&status).reason, "DEADLINE_EXCEEDED");
    assert!(started.elapsed() >= Duration::from_millis(50));
}

#[tokio::test]
async fn stream_ends_at_its_deadline() {
    let events = || {
        futures::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Some((Ok(WatchAuditRecordsResponse::default()), ()))
        })
    };
    let fake = Fake::watch(move || Ok(events().boxed()));
    let mut bare = AuditServiceClient::new(fake.stack());
    let mut request = Request::new(WatchAuditRecordsRequest::default());
    request.set_timeout(Duration::from_millis(150));
    let started = tokio::time::Instant::now();
    let mut stream = bare.watch_audit_records(request).await.unwrap().into_inner();
    let mut seen = 0;
    let status = loop {
        match stream.message().await {
            Ok(Some(_)) => seen += 1,
            Ok(None) => panic!("the stream ended well"),
            Err(status) => break status,
        }
    };
    assert_eq!((status.code(), infos(&status)), (Code::DeadlineExceeded, 1));
    assert!((1..=7).contains(&seen), "{seen}");
    assert!(started.elapsed() >= Duration::from_millis(150));

    // Without a deadline a stream has none, whatever the default for unary calls.
    let fake = Fake::watch(move || Ok(events().take(5).boxed()));
    let options = StackOptions {
        default_deadline: Duration::from_millis(10),
        max_deadline: Duration::from_millis(10),
        ..StackOptions::default()
    };
    let mut bare = AuditServiceClient::new(server::stack(fake.routes(), options));
    let stream = bare.watch_audit_records(WatchAuditRecordsRequest::default()).await.unwrap();
    let all: Vec<_> = stream.into_inner().collect().await;
    assert_eq!(all.len(), 5);
    assert!(all.iter().all(Result::is_ok));
}

#[tokio::test]
async fn too_large_is_resource_exhausted() {
    let fake = Fake::get(|_| async { Ok(AuditRecord::default()) });
    let long = GetAuditRecordRequest { name: "x".repeat(5 * 1024 * 1024) };
    let status = fake.clone().client().get_audit_record(long.clone()).await.unwrap_err();
    assert_eq!((status.code(), infos(&status)), (Code::ResourceExhausted, 1));
    assert_eq!(from_status(&status).metadata["limitBytes"], "4194304");

    let options = StackOptions { max_message_bytes: 100, ..StackOptions::default() };
    let mut client =
        AuditServiceClient::new(pavior_rpc::local(server::stack(fake.clone().routes(), options)));
    let short = GetAuditRecordRequest { name: "x".repeat(101) };
    let status = client.get_audit_record(short).await.unwrap_err();
    assert_eq!(from_status(&status).reason, "MESSAGE_TOO_LARGE");
    let fits = GetAuditRecordRequest { name: "x".repeat(98) };
    assert!(client.get_audit_record(fits).await.is_ok());

    // tonic's own limit, when ours is higher.
    let options = StackOptions { max_message_bytes: usize::MAX, ..StackOptions::default() };
    let mut client = AuditServiceClient::new(pavior_rpc::local(server::stack(fake.routes(), options)));
    let status = client.get_audit_record(long).await.unwrap_err();
    assert_eq!(from_status(&status).reason, "MESSAGE_TOO_LARGE");
    assert_eq!(from_status(&status).metadata["limitBytes"], "4194304");
}

#[tokio::test]
async fn panic_is_internal_with_a_reference_and_no_internals() {
    let fake = Fake::watch(|| {
        let events = futures::stream::iter([1]).map(|_| panic!("secret in a stream"));
        Ok(events.boxed())
    });
    let mut client = fake.client();
    let status = client.get_audit_tile(GetAuditTileRequest::default()).await.unwrap_err();
    let decoded = from_status(&status);
    assert_eq!((status.code(), infos(&status)), (Code::Internal, 1));
    assert_eq!(status.message(), format!("internal error, reference `{}`", decoded.reference.unwrap()));
    assert!(!format!("{status:?}").contains("secret"));

    let stream = client.watch_audit_records(WatchAuditRecordsRequest::default()).await.unwrap();
    let status = stream.into_inner().message().await.unwrap_err();
    assert_eq!((status.code(), infos(&status)), (Code::Internal, 1));
    assert!(!format!("{status:?}").contains("secret"));
}

#[tokio::test]
async fn every_status_leaves_with_one_error_info() {
    let mut client = Fake::get(|_| async { Ok(AuditRecord::default()) }).client();
    let status = client.list_audit_records(ListAuditRecordsRequest::default()).await.unwrap_err();
    assert_eq!((status.code(), infos(&status), status.message()), (Code::NotFound, 1, "bare"));
    let status = client.get_audit_checkpoint(GetAuditCheckpointRequest::default()).await.unwrap_err();
    assert_eq!((status.code(), infos(&status)), (Code::Internal, 1));
    assert!(!format!("{status:?}").contains("secrets"));
    let status = client.prove_inclusion(ProveInclusionRequest::default()).await.unwrap_err();
    assert_eq!((status.code(), infos(&status)), (Code::Unimplemented, 1));
    let status = client.prove_consistency(ProveConsistencyRequest::default()).await.unwrap_err();
    assert_eq!((status.code(), infos(&status)), (Code::DeadlineExceeded, 1));

    // A method that nobody serves, and a stream that fails on its way.
    let fake = Fake::watch(|| {
        let events = [Ok(WatchAuditRecordsResponse::default()), Err(tonic::Status::aborted("late"))];
        Ok(futures::stream::iter(events).boxed())
    });
    let mut stream =
        (fake.client().watch_audit_records(WatchAuditRecordsRequest::default()).await).unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());
    let status = stream.message().await.unwrap_err();
    assert_eq!((status.code(), infos(&status)), (Code::Aborted, 1));
    let empty = server::stack(tonic::service::Routes::default(), StackOptions::default());
    let mut client = AuditServiceClient::new(pavior_rpc::local(empty));
    let status = client.get_audit_record(get()).await.unwrap_err();
    assert_eq!((status.code(), infos(&status)), (Code::Unimplemented, 1));
}

#[tokio::test]
async fn over_the_limit_is_shed_with_a_pushback() {
    let fake = Fake::get(|_| async { std::future::pending().await });
    let options = StackOptions { max_concurrency: 1, ..StackOptions::default() };
    let client = AuditServiceClient::new(server::stack(fake.routes(), options));
    let mut first = client.clone();
    let first = tokio::spawn(async move { first.get_audit_record(get()).await });
    let mut second = client;
    let status = loop {
        // The first call is being worked on as soon as the next one is refused.
        tokio::task::yield_now().await;
        let mut request = Request::new(get());
        request.set_timeout(Duration::from_millis(1));
        match second.get_audit_record(request).await {
            Err(status) if status.code() == Code::ResourceExhausted => break status,
            _ => {}
        }
    };
    assert_eq!(infos(&status), 1);
    assert_eq!(from_status(&status).reason, "OVERLOADED");
    assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), "1000");
    first.abort();
}

#[tokio::test]
async fn what_only_an_operator_ends_is_not_tried_again_and_passes_through() {
    let calls = Arc::new(AtomicU32::new(0));
    let counted = calls.clone();
    let fake = Fake::get(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        async { Err(Problem::restore_needed("run `pavior restore`").into()) }
    });
    let status = fake.client().get_audit_record(get()).await.unwrap_err();
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), "-1");
    let problem = from_status(&status);
    assert!(problem.is(ErrorReason::RestoreNeeded) && !problem.is_passing(), "{problem:?}");
    assert_eq!(problem.retry_after, None);
    let passed = from_status(&Problem::from_dependency("catalog", &status).into());
    assert!(passed.is(ErrorReason::RestoreNeeded), "{passed:?}");
    assert_eq!((passed.code, passed.metadata["dependency"].as_str()), (Code::Unavailable, "catalog"));
    assert_eq!(passed.message, "run `pavior restore`");
}

#[tokio::test]
async fn request_id_is_echoed_also_on_errors() {
    let fake = Fake::get(|request| async move {
        let id = context::of(&request).unwrap().request_id.clone();
        assert_eq!(context::request_id(), id);
        Ok(AuditRecord { name: id, ..AuditRecord::default() })
    });
    let options = StackOptions { ids: Arc::new(SeededIds::new(1)), ..StackOptions::default() };
    let mut client = AuditServiceClient::new(pavior_rpc::local(server::stack(fake.routes(), options)));
    let mut request = Request::new(get());
    request.metadata_mut().insert("x-request-id", "mine-1".parse().unwrap());
    let answer = client.get_audit_record(request).await.unwrap();
    assert_eq!(answer.metadata().get("x-request-id").unwrap(), "mine-1");
    assert_eq!(answer.get_ref().name, "mine-1");
    let status = client.get_audit_checkpoint(GetAuditCheckpointRequest::default()).await.unwrap_err();
    assert_eq!(status.metadata().get("x-request-id").unwrap().len(), 32);
}

#[tokio::test]
async fn shutdown_lets_calls_end_and_refuses_new_ones() {
    let started = Arc::new(tokio::sync::Notify::new());
    let release = Arc::new(tokio::sync::Notify::new());
    let (begun, go) = (started.clone(), release.clone());
    let fake = Fake::get(move |_| {
        let (begun, go) = (begun.clone(), go.clone());
        async move {
            begun.notify_one();
            go.notified().await;
            Ok(AuditRecord::default())
        }
    });
    let mut served = serve(fake.stack(), ServeOptions::default()).await;
    let endpoint = format!("http://{}", served.address);
    let mut client = AuditServiceClient::new(pavior_rpc::remote(&endpoint, None));
    let call = tokio::spawn(async move { client.get_audit_record(get()).await });
    started.notified().await;
    served.shutdown.cancel();
    while tokio::net::TcpStream::connect(served.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    release.notify_one();
    assert!(call.await.unwrap().is_ok());
    (&mut served.task).await.unwrap();
}
