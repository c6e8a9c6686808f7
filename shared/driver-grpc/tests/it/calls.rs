//! Calls that touch the world: what arrives, what comes back, and how they are stopped.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pavior_core::clock::{Clock, SystemClock};
use pavior_driver::testing::{Behaviour, CallKind, FakeDriver};
use pavior_driver::{
    DestroyRequest, Driver, Failure, FailureCode, Found, Health, LogStream, Lookup, MemorySink, Observation,
    ObserveRequest, Outcome, Partial, PlanRequest, Prior, Progress, SecretString, Secrets, SinkClosed,
    Success, ValidateRequest,
};
use pavior_driver_grpc::{RemoteDriver, RemoteOptions, serve};
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::harness::{
    Event, Probe, SOON, Seen, Tcp, apply, apply_request, context, invoke_request, over_tcp, remote, stacked,
};

#[tokio::test]
async fn everything_arrives_as_it_was_sent() {
    let probe = Probe::answering(Outcome::Succeeded(Success {
        identity: "id-1".to_owned(),
        outputs: json!({"b": 1, "a": {"big": 9_007_199_254_740_993_i64, "f": 0.5}}),
        secrets: Secrets::new().with("password", "s3cret"),
        state: json!({"generation": 3}),
    }));
    let last = probe.last.clone();
    let remote = remote(probe).await;
    let mut context = context("all");
    context.attempt = 4;
    context.fence = i64::MAX;
    context.lease_expire_time = Some(SystemClock.now() + Duration::from_secs(60));
    context.traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned());
    let mut request = apply_request(json!({"z": [{"y": 1}], "url": "db://hunter22@h", "n": u64::MAX}));
    request.sensitive = vec![SecretString::from("hunter22")];
    request.prior = Some(Prior {
        identity: "id-1".to_owned(),
        inputs: json!({"url": {"$secret": "dsn"}}),
        outputs: json!(null),
        state: json!([]),
    });

    let outcome = remote.apply(&context, request.clone(), &MemorySink::new()).await;

    let success = outcome.success().unwrap();
    assert_eq!(success.identity, "id-1");
    assert_eq!(success.outputs.to_string(), r#"{"b":1,"a":{"big":9007199254740993,"f":0.5}}"#);
    assert_eq!(success.state, json!({"generation": 3}));
    assert!(success.secrets.same_as(&Secrets::new().with("password", "s3cret")));
    let (seen, got) = last.lock().unwrap().take().unwrap();
    assert_eq!(
        format!("{seen:?}"),
        format!("{context:?}").replace("is_cancelled: true", "is_cancelled: false")
    );
    assert_eq!(seen.lease_expire_time, context.lease_expire_time);
    assert_eq!(got.inputs.to_string(), request.inputs.to_string());
    assert_eq!(got.prior, request.prior);
    let secrets: Vec<_> = got.sensitive.iter().map(pavior_driver::ExposeSecret::expose_secret).collect();
    assert_eq!(secrets, ["hunter22"]);
}

#[tokio::test]
async fn a_failure_comes_back_with_what_is_left_standing() {
    let failure = Failure {
        retryable: true,
        code: FailureCode::WorkFailed,
        message: "step `x` failed".to_owned(),
        partial: Some(Box::new(Partial { identity: Some("id-2".to_owned()), state: json!({"half": true}) })),
        details: [("expected".to_owned(), "sha256:1".to_owned())].into(),
        retry_delay: Some(std::time::Duration::from_millis(1_500)),
    };
    let remote = remote(Probe::answering(failure.clone().into())).await;
    let outcome = apply(&remote, "fails", &MemorySink::new()).await;
    assert_eq!(format!("{:?}", outcome.failure().unwrap()), format!("{failure:?}"));
}

#[tokio::test]
async fn observations_plans_and_violations_come_back() {
    let found =
        Found { identity: "id".to_owned(), secrets: Secrets::new().with("p", "v"), ..Found::default() };
    for observation in [
        Observation::Found(found),
        Observation::Absent,
        Observation::Partial { identity: None, state: json!(1), message: "half".to_owned() },
        Observation::Indeterminate { message: "who knows".to_owned() },
    ] {
        let probe = Probe { observation: observation.clone(), ..Probe::answering(unknown()) };
        let remote = remote(probe).await;
        let request =
            ObserveRequest { resource_type: "thing".to_owned(), lookup: Lookup::Key("k".to_owned()) };
        let seen = remote.observe(&context("look"), request).await;
        assert_eq!(format!("{seen:?}"), format!("{observation:?}"));
    }
    let driver = FakeDriver::new("fake", &["thing"]);
    let remote = remote(driver.clone()).await;
    assert_eq!(remote.info(), driver.info());
    let ask = || PlanRequest {
        resource_type: "thing".to_owned(),
        prior: Some(Prior { inputs: json!({"immutable": 1, "gone": null}), ..Prior::default() }),
        desired: Some(json!({"immutable": 2, "new": {"$unknown": "db.url"}})),
    };
    assert_eq!(remote.plan(ask()).await.unwrap(), driver.plan(ask()).await.unwrap());
    let nonsense = || ValidateRequest { resource_type: "thing".to_owned(), inputs: json!(1) };
    let expected = driver.validate(nonsense()).await.unwrap_err();
    assert_eq!(format!("{:?}", remote.validate(nonsense()).await.unwrap_err()), format!("{expected:?}"));
}

fn unknown() -> Outcome {
    Outcome::Unknown { message: "told so".to_owned() }
}

#[tokio::test]
async fn progress_logs_and_checkpoints_come_in_order() {
    let remote = remote(Probe::new(|_, _, sink| {
        Box::pin(async move {
            sink.progress(Progress { message: "half way".to_owned(), percent: Some(50) }).await;
            sink.log(LogStream::Stderr, b"\xffbytes").await;
            sink.log(LogStream::Stdout, &vec![b'x'; 5 * 1024 * 1024]).await;
            let kept = sink.checkpoint(json!({"at": 1})).await;
            let alive = sink.heartbeat().await;
            assert_eq!((kept, alive), (Ok(()), Ok(())));
            unknown()
        })
    }))
    .await;
    let (sink, mut events) = Seen::new();
    let outcome = apply(&remote, "tells", &sink).await;
    assert!(matches!(outcome, Outcome::Unknown { message } if message == "told so"));
    drop(sink);
    assert_eq!(events.recv().await, Some(Event::Progress("half way".to_owned(), Some(50))));
    assert_eq!(events.recv().await, Some(Event::Log(LogStream::Stderr, b"\xffbytes".to_vec())));
    let mut long = 0;
    loop {
        match events.recv().await.unwrap() {
            Event::Log(LogStream::Stdout, bytes) => long += bytes.len(),
            other => break assert_eq!(other, Event::Checkpoint(json!({"at": 1}))),
        }
    }
    assert_eq!(long, 5 * 1024 * 1024);
    assert_eq!(events.recv().await, Some(Event::Heartbeat));
    assert_eq!(events.recv().await, None);
}

#[tokio::test]
async fn a_lost_claim_reaches_the_driver() {
    let answers = Arc::new(Mutex::new(Vec::new()));
    let kept = answers.clone();
    let remote = remote(Probe::new(move |context, _, sink| {
        let kept = kept.clone();
        Box::pin(async move {
            let answer = sink.checkpoint(json!(1)).await;
            kept.lock().unwrap().push(answer);
            context.cancel.cancelled().await;
            Outcome::failed(FailureCode::Cancelled, "stopped")
        })
    }))
    .await;
    let (mut sink, _events) = Seen::new();
    sink.closed = Some(SinkClosed::ClaimLost);
    let outcome = apply(&remote, "lost", &sink).await;
    assert_eq!(outcome.failure().unwrap().code, FailureCode::Cancelled);
    assert_eq!(*answers.lock().unwrap(), [Err(SinkClosed::ClaimLost)]);
}

#[tokio::test]
async fn a_checkpoint_that_cannot_be_kept_is_no_lost_claim_to_the_driver() {
    let remote = remote(Probe::new(|_, _, sink| {
        Box::pin(async move {
            match sink.checkpoint(json!(1)).await {
                Ok(()) => unknown(),
                Err(closed) => Outcome::Failed(closed.into()),
            }
        })
    }))
    .await;
    let (mut sink, _events) = Seen::new();
    sink.closed = Some(SinkClosed::NotKept);
    let outcome = apply(&remote, "full", &sink).await;
    let failure = outcome.failure().unwrap();
    assert_eq!(
        (failure.code, failure.message.as_str()),
        (FailureCode::Internal, "the checkpoint cannot be kept")
    );
}

#[tokio::test]
async fn a_running_call_is_cancelled() {
    let driver = FakeDriver::new("fake", &["thing"]);
    let (tcp, _server) = over_tcp(driver.clone()).await;
    for remote in [remote(driver.clone()).await, tcp] {
        driver.script(CallKind::Apply, "waits", [Behaviour::UntilCancelled]);
        let (sink, mut events) = Seen::new();
        let context = context("waits");
        let cancel = async {
            events.recv().await.unwrap();
            context.cancel.cancel();
        };
        let apply = remote.apply(&context, apply_request(json!({})), &sink);
        let (outcome, ()) = timeout(SOON, async { tokio::join!(apply, cancel) }).await.unwrap();
        assert_eq!(outcome.failure().unwrap().code, FailureCode::Cancelled);
    }
    assert_eq!(driver.effects(), 0);
}

#[tokio::test]
async fn destroys_and_actions_are_cancelled_too() {
    let driver = FakeDriver::new("fake", &["thing"]);
    let remote = remote(driver.clone()).await;
    driver.script(CallKind::Destroy, "waits", [Behaviour::UntilCancelled]);
    driver.script(CallKind::Invoke, "waits", [Behaviour::UntilCancelled]);
    // A cancel that comes before the call is for it all the same.
    let context = context("waits");
    context.cancel.cancel();
    let request = DestroyRequest {
        resource_type: "thing".to_owned(),
        lookup: Lookup::Identity("x".to_owned()),
        state: json!(null),
    };
    let outcome = timeout(SOON, remote.destroy(&context, request, &MemorySink::new())).await.unwrap();
    assert_eq!(outcome.failure().unwrap().code, FailureCode::Cancelled);
    let request = invoke_request("x", json!({}));
    let outcome = timeout(SOON, remote.invoke(&context, request, &MemorySink::new())).await.unwrap();
    assert_eq!(outcome.failure().unwrap().code, FailureCode::Cancelled);
}

#[tokio::test]
async fn a_driver_that_does_not_stop_is_left_and_the_outcome_unknown() {
    let stuck = Probe::new(|_, _, _| Box::pin(std::future::pending()));
    let options = RemoteOptions { cancel_grace: Duration::from_millis(20), ..RemoteOptions::default() };
    let remote = RemoteDriver::connect(stacked(serve(Arc::new(stuck))), options).await.unwrap();
    let context = context("stuck");
    context.cancel.cancel();
    let sink = MemorySink::new();
    let apply = remote.apply(&context, apply_request(json!({})), &sink);
    let outcome = timeout(SOON, apply).await.unwrap();
    assert!(matches!(outcome, Outcome::Unknown { .. }), "{outcome:?}");
}

/// A driver that says when it begins, and when it is told to stop.
fn watched() -> (Probe, Arc<Notify>, Arc<Notify>) {
    let (began, stopped) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (begin, stop) = (began.clone(), stopped.clone());
    let probe = Probe::new(move |context, _, sink| {
        let (begin, stop) = (begin.clone(), stop.clone());
        Box::pin(async move {
            sink.progress(Progress::message("begun")).await;
            begin.notify_one();
            context.cancel.cancelled().await;
            stop.notify_one();
            Outcome::failed(FailureCode::Cancelled, "stopped")
        })
    });
    (probe, began, stopped)
}

#[tokio::test]
async fn an_engine_that_goes_away_stops_the_driver_gracefully() {
    let (probe, began, stopped) = watched();
    let (remote, _tcp) = over_tcp(probe).await;
    let call = tokio::spawn(async move { apply(&remote, "left", &MemorySink::new()).await });
    timeout(SOON, began.notified()).await.unwrap();
    call.abort();
    timeout(SOON, stopped.notified()).await.unwrap();
}

#[tokio::test]
async fn a_connection_that_breaks_leaves_the_outcome_unknown() {
    let (probe, began, _) = watched();
    let tcp = Tcp::serve(serve(Arc::new(probe))).await;
    let endpoint = tcp.endpoint();
    let remote = RemoteDriver::connect_endpoint(&endpoint, None, RemoteOptions::default()).await.unwrap();
    let context = context("breaks");
    let sink = MemorySink::new();
    let apply = remote.apply(&context, apply_request(json!({})), &sink);
    let cut = async {
        began.notified().await;
        tcp.shutdown.cancel();
    };
    let (outcome, ()) = timeout(SOON, async { tokio::join!(apply, cut) }).await.unwrap();
    assert!(matches!(outcome, Outcome::Unknown { .. }), "{outcome:?}");
    // Nobody is there any more: nothing was tried, and the look cannot tell.
    let outcome = remote.apply(&context, apply_request(json!({})), &sink).await;
    let Outcome::Failed(failure) = &outcome else { panic!("{outcome:?}") };
    assert_eq!((failure.code, failure.retryable), (FailureCode::Unavailable, true));
    let request = ObserveRequest { resource_type: "thing".to_owned(), lookup: Lookup::Key("k".to_owned()) };
    let seen = remote.observe(&context, request).await;
    assert!(matches!(seen, Observation::Indeterminate { .. }), "{seen:?}");
    assert!(matches!(remote.health().await, Health::Down(_)));
}

#[tokio::test]
async fn a_driver_that_panics_leaves_the_outcome_unknown() {
    let remote = remote(Probe::new(|_, _, _| Box::pin(async { panic!("meant to") }))).await;
    let outcome = apply(&remote, "panics", &MemorySink::new()).await;
    assert!(matches!(outcome, Outcome::Unknown { .. }), "{outcome:?}");
}

#[tokio::test]
async fn a_call_ends_with_its_lease() {
    let (probe, _, stopped) = watched();
    let remote = remote(probe).await;
    let mut context = context("lease");
    context.lease_expire_time = Some(SystemClock.now() + Duration::from_millis(100));
    let sink = MemorySink::new();
    let apply = remote.apply(&context, apply_request(json!({})), &sink);
    let outcome = timeout(SOON, apply).await.unwrap();
    assert!(matches!(&outcome, Outcome::Unknown { message } if message.contains("lease")), "{outcome:?}");
    timeout(SOON, stopped.notified()).await.unwrap();
    // And none begins after it.
    context.lease_expire_time = Some(SystemClock.now() - Duration::from_secs(1));
    let outcome = remote.apply(&context, apply_request(json!({})), &MemorySink::new()).await;
    assert_eq!(outcome.failure().unwrap().code, FailureCode::Timeout);
}

#[tokio::test]
async fn heartbeats_renew_the_lease() {
    const LEASE: Duration = Duration::from_secs(1);
    let remote = remote(Probe::new(|_, _, sink| {
        Box::pin(async move {
            let start = Instant::now();
            while start.elapsed() < LEASE * 3 / 2 {
                sink.heartbeat().await.unwrap();
                tokio::task::yield_now().await;
            }
            Outcome::Succeeded(Success::default())
        })
    }))
    .await;
    let mut context = context("renewed");
    context.lease_expire_time = Some(SystemClock.now() + LEASE);
    let outcome = remote.apply(&context, apply_request(json!({})), &pavior_driver::NullSink).await;
    assert!(outcome.success().is_some(), "{outcome:?}");
}

#[tokio::test]
async fn what_cannot_travel_is_refused_before_anything_begins() {
    let probe = Probe::answering(unknown());
    let last = probe.last.clone();
    let remote = remote(probe).await;
    let deep = (0..40).fold(json!(1), |inner, _| json!([inner]));
    let outcome = remote.apply(&context("deep"), apply_request(deep), &MemorySink::new()).await;
    assert_eq!(outcome.failure().unwrap().code, FailureCode::InvalidArgument);
    assert!(last.lock().unwrap().is_none());
}

#[tokio::test]
async fn an_answer_that_cannot_travel_is_a_failure_that_names_what_stands() {
    let outputs = (0..40).fold(json!(1), |inner, _| json!([inner]));
    let success = Success { identity: "id-3".to_owned(), outputs, ..Success::default() };
    let remote = remote(Probe::answering(Outcome::Succeeded(success))).await;
    let outcome = apply(&remote, "deep", &MemorySink::new()).await;
    let failure = outcome.failure().unwrap();
    assert_eq!((failure.code, failure.retryable), (FailureCode::Internal, false));
    assert_eq!(failure.message, UNSENT);
    assert_eq!(failure.partial.as_ref().unwrap().identity.as_deref(), Some("id-3"));
}

const UNSENT: &str =
    "the call worked, and the driver's answer cannot be sent: a value is nested deeper than 30 levels";

#[tokio::test]
async fn a_failure_whose_rest_cannot_travel_stays_one() {
    let state = (0..40).fold(json!(1), |inner, _| json!([inner]));
    let partial = Partial { identity: Some("id-4".to_owned()), state };
    let failed = Failure::new(FailureCode::WorkFailed, "it broke").with_partial(partial);
    let remote = remote(Probe::answering(failed.into())).await;
    let outcome = apply(&remote, "deep", &MemorySink::new()).await;
    let failure = outcome.failure().unwrap();
    assert_eq!(failure.code, FailureCode::WorkFailed);
    assert_eq!(
        failure.message,
        "it broke (the state of what is left cannot be sent: a value is nested deeper than 30 levels)"
    );
    let left = failure.partial.as_ref().unwrap();
    assert_eq!((left.identity.as_deref(), &left.state), (Some("id-4"), &json!(null)));
}

#[tokio::test]
async fn an_action_that_was_carried_out_has_not_failed() {
    // Of a resource with secrets, and with one among the arguments.
    let driver = FakeDriver::new("fake", &["thing"]);
    let remote_fake = remote(driver.clone()).await;
    let context = context("act");
    let secret = apply_request(json!({"secret": true}));
    let made = remote_fake.apply(&context, secret, &MemorySink::new()).await;
    let identity = made.success().unwrap().identity.clone();
    let mut request = invoke_request(&identity, json!({"password": "hunter22", "n": 1}));
    request.sensitive = vec![SecretString::from("hunter22")];
    let effects = driver.effects();
    let outcome = remote_fake.invoke(&context, request, &MemorySink::new()).await;
    let success = outcome.success().unwrap();
    assert_eq!((success.identity.as_str(), driver.effects()), (identity.as_str(), effects + 1));
    assert_eq!(success.outputs["action"], "restart");
    assert!(success.secrets.is_empty());

    let outputs = (0..40).fold(json!(1), |inner, _| json!([inner]));
    let done = Success { identity: "id-5".to_owned(), outputs, ..Success::default() };
    let probe = Probe { invoked: Some(Outcome::Succeeded(done)), ..Probe::answering(unknown()) };
    let remote = remote(probe).await;
    let outcome = remote.invoke(&context, invoke_request("id-5", json!({})), &MemorySink::new()).await;
    let Outcome::Unknown { message } = outcome else { panic!("{outcome:?}") };
    assert_eq!(message, UNSENT);
}
