use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use pavior_core::Fault;
use pavior_proto::pavior::audit::internal::v1::recorder_service_client::RecorderServiceClient;
use pavior_proto::pavior::audit::internal::v1::*;
use pavior_proto::pavior::audit::v1::audit_service_client::AuditServiceClient;
use pavior_proto::pavior::audit::v1::*;
use pavior_rpc::audit::AuditSink;
use pavior_rpc::problem::from_status;
use pavior_rpc::server::ServeOptions;
use pavior_rpc::transport::{ClientOptions, check_endpoint, local_with};
use pavior_rpc::{BoxError, ErrorReason, Problem, RequestContext, RetrySafe, Transport, context};
use tonic::{Code, Request, Status};
use tracing_subscriber::layer::SubscriberExt;

use crate::harness::{Fake, get, infos, serve};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[derive(Debug, Clone)]
struct Identity;

#[tokio::test]
async fn local_transport_strips_request_extensions() {
    let fake = Fake::get(|request| async move {
        assert!(request.extensions().get::<Identity>().is_none());
        Ok(AuditRecord::default())
    });
    let mut request = Request::new(get());
    request.extensions_mut().insert(Identity);
    fake.clone().client().get_audit_record(request).await.unwrap();
    // Without the transport it would get through: the check above does check something.
    let seen = Fake::get(|request| async move {
        request.extensions().get::<Identity>().map(|_| AuditRecord::default()).ok_or(Status::aborted(""))
    });
    let mut request = Request::new(get());
    request.extensions_mut().insert(Identity);
    AuditServiceClient::new(seen.stack()).get_audit_record(request).await.unwrap();
}

/// A service that reports the context it sees, behind another that calls it with what it got.
fn chain(inner: Transport) -> Fake {
    Fake::get(move |_| {
        let mut client = AuditServiceClient::new(inner.clone());
        async move { client.get_audit_record(get()).await.map(tonic::Response::into_inner) }
    })
}

fn reporter() -> Fake {
    Fake::get(|request| async move {
        let context = context::of(&request).unwrap();
        let left = context.remaining().unwrap();
        assert!(left < Duration::from_secs(5), "{left:?}");
        let header = |name| request.metadata().get(name).map_or("", |value| value.to_str().unwrap());
        let seen = [&context.request_id, header("traceparent"), header("tracestate"), header("baggage")];
        Ok(AuditRecord { name: seen.join(" "), ..AuditRecord::default() })
    })
}

async fn seen_through(outer: Transport) -> String {
    let mut request = Request::new(get());
    request.set_timeout(Duration::from_secs(5));
    for (name, value) in
        [("x-request-id", "r-1"), ("traceparent", PARENT), ("tracestate", "a=b"), ("baggage", "c=d")]
    {
        request.metadata_mut().insert(name, value.parse().unwrap());
    }
    AuditServiceClient::new(outer).get_audit_record(request).await.unwrap().into_inner().name
}

#[tokio::test]
async fn context_passes_local_and_remote() {
    let want = format!("r-1 {PARENT} a=b c=d");
    let inner = pavior_rpc::local(reporter().stack());
    assert_eq!(seen_through(pavior_rpc::local(chain(inner).stack())).await, want);

    let inner = serve(reporter().stack(), ServeOptions::default()).await;
    let inner = (pavior_rpc::remote(&format!("http://{}", inner.address), None), inner);
    let outer = serve(chain(inner.0).stack(), ServeOptions::default()).await;
    let transport = pavior_rpc::remote(&format!("http://{}", outer.address), None);
    assert_eq!(seen_through(transport).await, want);
}

/// tonic says CANCELLED of both.
#[tokio::test]
async fn a_call_that_a_peer_never_took_is_not_late() {
    for (late, code, reason) in [
        (false, Code::Unavailable, ErrorReason::DependencyUnavailable),
        (true, Code::DeadlineExceeded, ErrorReason::DeadlineExceeded),
    ] {
        let peer = tower::service_fn(move |_: http::Request<tonic::body::Body>| async move {
            let error: BoxError = match late {
                true => Box::new(tonic::TimeoutExpired(())),
                false => Box::new(Status::cancelled("operation was canceled: connection closed")),
            };
            Err::<http::Response<tonic::body::Body>, BoxError>(error)
        });
        let options = ClientOptions { attempts: 1, ..ClientOptions::default() };
        let mut client = AuditServiceClient::new(local_with(peer, options));
        let status = client.get_audit_record(Request::new(get())).await.unwrap_err();
        assert_eq!(status.code(), code);
        assert!(from_status(&status).is(reason), "{status:?}");
    }
}

#[tokio::test]
async fn spans_of_both_services_are_in_the_callers_trace() {
    let provider = opentelemetry_sdk::trace::SdkTracerProvider::builder().build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
    let inner = pavior_rpc::local(reporter().stack());
    let seen = seen_through(pavior_rpc::local(chain(inner).stack())).await;
    let traceparent = seen.split(' ').nth(1).unwrap();
    assert_eq!(traceparent.get(3..35), PARENT.get(3..35));
    // The parent of the inner service's span is the outer service's span, not the caller's.
    assert_ne!(traceparent, PARENT);
}

/// Fails with `code` as often as said, then succeeds.
fn failing(times: u32, code: Code) -> (Fake, Arc<AtomicU32>) {
    let calls = Arc::new(AtomicU32::new(0));
    let counter = calls.clone();
    let fake = Fake::get(move |_| {
        let call = counter.fetch_add(1, Ordering::SeqCst);
        async move { if call < times { Err(Status::new(code, "no")) } else { Ok(AuditRecord::default()) } }
    });
    (fake, calls)
}

#[tokio::test]
async fn reads_are_repeated_after_unavailable_only() {
    let (fake, calls) = failing(2, Code::Unavailable);
    assert!(fake.client().get_audit_record(get()).await.is_ok());
    assert_eq!(calls.load(Ordering::SeqCst), 3);
    for code in [Code::Aborted, Code::ResourceExhausted, Code::DeadlineExceeded, Code::Internal] {
        let (fake, calls) = failing(1, code);
        let status = fake.client().get_audit_record(get()).await.unwrap_err();
        assert_eq!((status.code(), calls.load(Ordering::SeqCst)), (code, 1));
    }
    let (fake, calls) = failing(9, Code::Unavailable);
    let status = fake.client().get_audit_record(get()).await.unwrap_err();
    assert_eq!((status.code(), calls.load(Ordering::SeqCst)), (Code::Unavailable, 4));
}

#[tokio::test]
async fn changes_are_repeated_only_when_marked_safe() {
    let (fake, calls) = failing(1, Code::Unavailable);
    let mut client = fake.recorder();
    let status = client.append_records(AppendRecordsRequest::default()).await.unwrap_err();
    assert_eq!((status.code(), calls.load(Ordering::SeqCst)), (Code::Unavailable, 1));
    let (fake, calls) = failing(1, Code::Unavailable);
    let mut request = Request::new(AppendRecordsRequest::default());
    request.extensions_mut().insert(RetrySafe);
    let taken = fake.recorder().append_records(request).await.unwrap().into_inner();
    assert_eq!((taken.acknowledged_sequence, calls.load(Ordering::SeqCst)), (0, 2));

    let (fake, calls) = failing(1, Code::Unavailable);
    let sink = AuditSink::new(pavior_rpc::local(fake.stack()), &crate::ship::meter());
    let shipped = sink.ship(&crate::ship::producer(), vec![crate::ship::row(1, 0)]).await;
    assert_eq!((shipped.acknowledged, shipped.error.is_none()), (Some(1), true));
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn retries_stop_while_most_calls_fail() {
    let (fake, calls) = failing(u32::MAX, Code::Unavailable);
    let mut client = fake.client();
    for _ in 0..10 {
        assert!(client.get_audit_record(get()).await.is_err());
    }
    // Ten tokens, one for each failure, and retries only above five: four attempts of the first call, then one each.
    assert_eq!(calls.load(Ordering::SeqCst), 13);
}

#[tokio::test]
async fn the_rest_of_the_deadline_is_passed_on() {
    let fake = Fake::get(|request| async move {
        let left = context::of(&request).unwrap().remaining().unwrap();
        Ok(AuditRecord { index: i64::try_from(left.as_millis()).unwrap(), ..AuditRecord::default() })
    });
    let mut client = fake.client();
    let background = RequestContext::background(&pavior_core::id_gen::SystemIds);
    let context = background.clone().within(Duration::from_secs(20)).within(Duration::from_secs(60));
    let answer = context::scope(context, async {
        let mut request = Request::new(get());
        request.set_timeout(Duration::from_secs(40));
        client.get_audit_record(request).await.unwrap().into_inner()
    });
    // Less than was there, because of the margin and the way.
    let index = answer.await.index;
    assert!((10_000..20_000).contains(&index), "{index}");
    let mut client = Fake::get(|_| async { panic!("called after the deadline") }).client();
    let late = context::scope(background.within(Duration::ZERO), async {
        client.get_audit_record(get()).await.unwrap_err()
    });
    let status = late.await;
    assert_eq!((status.code(), infos(&status)), (Code::DeadlineExceeded, 1));
}

#[tokio::test]
async fn unreachable_peer_is_unavailable_with_error_info() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    for endpoint in [format!("http://{address}"), "not a url".to_owned()] {
        let mut client = RecorderServiceClient::new(pavior_rpc::remote(&endpoint, None));
        let status = client.append_records(AppendRecordsRequest::default()).await.unwrap_err();
        assert_eq!((status.code(), infos(&status)), (Code::Unavailable, 1), "{endpoint}");
        assert!(from_status(&status).retry_after.is_some());
    }
    assert!(check_endpoint("http://127.0.0.1:1", None).is_ok());
    for bad in ["", "127.0.0.1:1", "ftp://x", "https://x"] {
        assert!(check_endpoint(bad, None).is_err(), "{bad}");
    }
}

#[tokio::test]
async fn client_gives_up_on_a_silent_server() {
    let options = ClientOptions { default_timeout: Duration::from_millis(20), ..ClientOptions::default() };
    let silent = tower::service_fn(|_: http::Request<tonic::body::Body>| async {
        std::future::pending::<Result<http::Response<tonic::body::Body>, Status>>().await
    });
    let mut client = AuditServiceClient::new(local_with(silent, options));
    let status = client.get_audit_record(get()).await.unwrap_err();
    assert_eq!((status.code(), infos(&status)), (Code::DeadlineExceeded, 1));
}

#[test]
fn problems_survive_the_wire() {
    let problem = Problem::precondition(ErrorReason::GuardrailDenied, "a guardrail forbids it")
        .because("POLICY", "p-1", "allowed: `eu-west-1`")
        .with_resource("catalog.pavior.dev/Entity", "organizations/acme")
        .with_quota("acme", "10 environments")
        .retry_in(Duration::from_millis(1500))
        .with("decision", "d-1");
    let decoded = from_status(&Status::from(problem.clone()));
    assert!(decoded.is(ErrorReason::GuardrailDenied));
    assert_eq!(decoded.preconditions, problem.preconditions);
    assert_eq!(decoded.resource, problem.resource);
    assert_eq!(decoded.quota, problem.quota);
    assert_eq!(decoded.retry_after, problem.retry_after);
    assert_eq!(decoded.metadata["decision"], "d-1");
    assert_eq!(pavior_rpc::problem::from_rpc_status(&problem.to_rpc_status()), decoded);

    let many = (0..500).map(|n| pavior_rpc::FieldViolation {
        field: format!("entities[{n}].labels.`a/b`"),
        description: "is required".into(),
        reason: "REQUIRED".into(),
    });
    let status = Status::from(Problem::invalid(many.collect()));
    assert!(status.details().len() <= 4096);
    let decoded = from_status(&status);
    let omitted: usize = decoded.metadata["omitted"].parse().unwrap();
    assert_eq!(decoded.violations.len() + omitted, 500);
}

/// Clients limit all headers to 8 KiB or so; what callers sent must not come back at its full length.
#[test]
fn errors_stay_small_whatever_the_caller_sent() {
    let long = "ü".repeat(100_000);
    let problems = [
        Problem::invalid_field(&long, Fault::Pattern, &long),
        Problem::invalid_reason(ErrorReason::InvalidFilter, "filter", Fault::Syntax, &long),
        Problem::not_found("provisioning.pavior.dev/Project", &long),
        Problem::already_exists("provisioning.pavior.dev/Project", &long),
        Problem::permission_denied("projects.get", &long),
        Problem::etag_mismatch(&long),
        Problem::unimplemented(&long),
        Problem::precondition(ErrorReason::PlanStale, &long).because("STATE", &long, &long),
        Problem::resource_exhausted(ErrorReason::QuotaExceeded, &long).with_quota(&long, &long),
        Problem::internal("x").with_resource("provisioning.pavior.dev/Project", &long),
    ];
    for problem in problems {
        let reason = problem.reason;
        let status = Status::from(problem.clone());
        assert!(status.details().len() + status.message().len() < 5_500, "{reason:?}");
        assert!(from_status(&status).is(reason));
        let fixed = pavior_rpc::server::fix_status(&Status::new(problem.code, &problem.message)).unwrap();
        assert!(fixed.details().len() + fixed.message().len() < 5_500, "{reason:?}");
    }
}
