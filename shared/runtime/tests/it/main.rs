//! The supervisor with real listeners, and the admin endpoint over HTTP.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that meets the unexpected should stop")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pavior_rpc::server::{Drain, ServeOptions, Stack};
use pavior_rpc::{Health, StackOptions};
use pavior_runtime::supervisor::Phase;
use pavior_runtime::telemetry::Guard;
use pavior_runtime::{HealthCheck, Supervisor, SupervisorError, SupervisorOptions, Task};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

fn quick() -> SupervisorOptions {
    SupervisorOptions {
        notice: Duration::from_millis(50),
        task_grace: Duration::from_secs(5),
        check_interval: Duration::from_millis(10),
        ..SupervisorOptions::default()
    }
}

async fn supervisor(options: SupervisorOptions) -> (Supervisor, std::net::SocketAddr, Health) {
    let health = Health::new(["pavior.test.v1.TestService"]).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stack: Stack = pavior_rpc::stack(Routes::default(), StackOptions::default())
        .beside(health.add_to(Routes::default()), Drain::default());
    let supervisor = Supervisor::new(options).health([health.clone()]).listener(
        "api",
        listener,
        stack,
        ServeOptions::default(),
    );
    (supervisor, address, health)
}

async fn until(phase: &mut watch::Receiver<Phase>, want: Phase) {
    tokio::time::timeout(Duration::from_secs(10), phase.wait_for(|phase| *phase >= want))
        .await
        .unwrap()
        .unwrap();
}

async fn health_client(address: std::net::SocketAddr) -> HealthClient<Channel> {
    HealthClient::new(Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap())
}

async fn serving(client: &mut HealthClient<Channel>) -> ServingStatus {
    client.check(HealthCheckRequest::default()).await.unwrap().into_inner().status()
}

#[tokio::test]
async fn shuts_down_in_phases() {
    let options = SupervisorOptions { notice: Duration::from_millis(300), ..quick() };
    let (supervisor, address, _) = supervisor(options).await;
    let readiness = supervisor.readiness();
    let mut phase = supervisor.phase();
    let (stopping, task_phase) = oneshot::channel();
    let of_task = supervisor.phase();
    let (last_words, mut words) = oneshot::channel();
    let task = Task::new("watcher", move |cancel| async move {
        cancel.cancelled().await;
        stopping.send(*of_task.borrow()).ok();
        // Its last words are for another task of the process.
        tokio::task::yield_now().await;
        last_words.send(()).ok();
        Ok(())
    });
    // What others rely on is told to end when they have.
    let (supported, heard) = oneshot::channel();
    let support = Task::new("support", move |cancel| async move {
        cancel.cancelled().await;
        supported.send(words.try_recv().is_ok()).ok();
        Ok(())
    })
    .supporting();
    // Work that ends early without an error is no reason to stop.
    let short = Task::new("short", |_| async { Ok(()) });
    // What is closed, is closed when the tasks have ended.
    let (closing, closing_phase) = oneshot::channel();
    let of_closing = supervisor.phase();
    let close = Task::new("database", move |_| async move {
        closing.send(*of_closing.borrow()).ok();
        Ok(())
    });
    let (signal, signals) = mpsc::channel(1);
    let run = tokio::spawn(supervisor.tasks([support, task, short]).closing([close]).run(signals));
    readiness.wait_for(|report| report.ready).await;
    let mut client = health_client(address).await;
    while serving(&mut client).await != ServingStatus::Serving {
        tokio::task::yield_now().await;
    }
    signal.send("SIGTERM").await.unwrap();
    until(&mut phase, Phase::NotServing).await;
    // Health says no, but connections are still taken.
    assert_eq!(serving(&mut client).await, ServingStatus::NotServing);
    assert_eq!(serving(&mut health_client(address).await).await, ServingStatus::NotServing);
    assert!(!readiness.report().ready);
    until(&mut phase, Phase::StoppingTasks).await;
    assert!(TcpStream::connect(address).await.is_err());
    assert_eq!(task_phase.await.unwrap(), Phase::StoppingTasks);
    run.await.unwrap().unwrap();
    assert!(heard.await.unwrap(), "told to end before the others");
    assert_eq!(closing_phase.await.unwrap(), Phase::Closing);
    assert_eq!(*phase.borrow(), Phase::Stopped);
}

#[tokio::test]
async fn failing_task_takes_the_process_down_in_phases() {
    for panics in [false, true] {
        let (supervisor, _, _) = supervisor(quick()).await;
        let stopped = Arc::new(AtomicBool::new(false));
        let seen = stopped.clone();
        let good = Task::new("good", move |cancel| async move {
            cancel.cancelled().await;
            seen.store(true, Ordering::SeqCst);
            Ok(())
        });
        let bad = Task::new("bad", move |_| async move {
            assert!(!panics, "it panics");
            Err(anyhow::anyhow!("disk").context("lost"))
        });
        let (_signal, signals) = mpsc::channel(1);
        let err = supervisor.tasks([good, bad]).run(signals).await.unwrap_err();
        let want = if panics { "panic" } else { "lost: disk" };
        assert!(matches!(&err, SupervisorError::Task { name: "bad", reason } if reason == want), "{err}");
        assert!(stopped.load(Ordering::SeqCst));
    }
}

#[tokio::test]
async fn second_signal_ends_at_once() {
    let (supervisor, _, _) = supervisor(SupervisorOptions::default()).await;
    let (signal, signals) = mpsc::channel(2);
    signal.send("SIGINT").await.unwrap();
    signal.send("SIGINT").await.unwrap();
    let run = tokio::time::timeout(Duration::from_secs(2), supervisor.run(signals)).await;
    assert!(matches!(run.unwrap(), Err(SupervisorError::SecondSignal)));
}

#[tokio::test]
async fn a_task_that_does_not_end_is_cut_off() {
    let options = SupervisorOptions { task_grace: Duration::from_millis(20), ..quick() };
    let (supervisor, _, _) = supervisor(options).await;
    let deaf = Task::new("deaf", |_| std::future::pending());
    let (signal, signals) = mpsc::channel(1);
    signal.send("SIGTERM").await.unwrap();
    supervisor.tasks([deaf]).run(signals).await.unwrap();
}

/// Plain HTTP/1.1, as curl speaks it: the status line and the body.
async fn http(address: std::net::SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn admin_shows_metrics_and_readiness() {
    let telemetry = Guard::metrics_only().unwrap();
    telemetry.meter("test").u64_counter("pavior.test.count").build().add(3, &[]);
    let (supervisor, address, _) = supervisor(quick()).await;
    let well = Arc::new(AtomicBool::new(false));
    let state = well.clone();
    let check = HealthCheck::new("database", move || {
        let well = state.load(Ordering::SeqCst);
        async move { if well { Ok(()) } else { Err("password refused".to_owned()) } }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let admin = listener.local_addr().unwrap();
    let readiness = supervisor.readiness();
    let (signal, signals) = mpsc::channel(1);
    let supervisor = supervisor.checks([check]).admin(listener, telemetry.registry().clone());
    let run = tokio::spawn(supervisor.run(signals));

    readiness.wait_for(|report| report.reason("", "database") == Some("password refused")).await;
    let answer = http(admin, "/readyz").await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("database"), "{answer}");
    // The reason is for those who may look here.
    assert!(
        answer.contains(r#""severity":"blocks","reason":"password refused","cause":"other""#),
        "{answer}"
    );
    assert!(http(admin, "/healthz").await.starts_with("HTTP/1.1 200"));
    let metrics = http(admin, "/metrics").await;
    assert!(metrics.contains("pavior_test_count_total") && metrics.contains(" 3"), "{metrics}");
    let mut client = health_client(address).await;
    assert_eq!(serving(&mut client).await, ServingStatus::NotServing);

    well.store(true, Ordering::SeqCst);
    readiness.wait_for(|report| report.ready).await;
    assert!(http(admin, "/readyz").await.starts_with("HTTP/1.1 200"));
    while serving(&mut client).await != ServingStatus::Serving {
        tokio::task::yield_now().await;
    }
    signal.send("SIGTERM").await.unwrap();
    run.await.unwrap().unwrap();
    telemetry.shutdown().await;
}

#[tokio::test]
async fn two_systems_in_one_process_count_apart() {
    let (a, b) = (Guard::metrics_only().unwrap(), Guard::metrics_only().unwrap());
    a.meter("test").u64_counter("only.here").build().add(1, &[]);
    let names = |guard: &Guard| -> Vec<String> {
        guard.registry().gather().iter().map(|family| family.name().to_owned()).collect()
    };
    assert!(names(&a).iter().any(|name| name == "only_here_total"));
    assert!(!names(&b).iter().any(|name| name == "only_here_total"));
}
