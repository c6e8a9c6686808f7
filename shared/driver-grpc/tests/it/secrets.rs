//! Secrets travel in the fields that are made for them and show nowhere else.

use std::io;
use std::sync::{Arc, Mutex};

use pavior_driver::{
    Driver, Failure, FailureCode, LogStream, MemorySink, Outcome, Progress, SecretString, Secrets, Success,
};
use pavior_driver_grpc::{RemoteDriver, RemoteOptions, serve};
use serde_json::json;
use tracing_subscriber::fmt::MakeWriter;

use crate::harness::{Probe, apply_request, context, over_tcp, remote, stacked};

const INPUT: &str = "hunter22-in";
const OUTPUT: &str = "s3cret-out";

#[derive(Debug, Clone, Default)]
struct Capture(Arc<Mutex<Vec<u8>>>);

impl io::Write for Capture {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Capture {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

fn keeper() -> Probe {
    Probe::answering(Outcome::Succeeded(Success {
        identity: "id".to_owned(),
        secrets: Secrets::new().with("password", OUTPUT),
        ..Success::default()
    }))
}

#[tokio::test]
async fn no_secret_shows_in_debug_or_in_any_log() {
    let capture = Capture::default();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(capture.clone());
    let _guard = tracing::subscriber::set_default(subscriber.finish());
    let (tcp, _server) = over_tcp(keeper()).await;
    for driver in [remote(keeper()).await, tcp] {
        let mut request = apply_request(json!({"password": INPUT, "url": format!("db://u:{INPUT}@h")}));
        request.sensitive = vec![SecretString::from(INPUT)];
        let shown = format!("{driver:?}{request:?}{:?}", context("secret"));
        let sink = MemorySink::new();
        let outcome = driver.apply(&context("secret"), request, &sink).await;
        assert!(outcome.success().unwrap().secrets.get("password").is_some());
        let shown = format!("{shown}{outcome:?}{}", sink.everything());
        assert!(!shown.contains(INPUT) && !shown.contains(OUTPUT), "{shown}");
    }
    let logged = String::from_utf8_lossy(&capture.0.lock().unwrap()).into_owned();
    assert!(logged.contains("DriverService/Apply"), "the log was not captured");
    assert!(!logged.contains(INPUT) && !logged.contains(OUTPUT), "a secret was logged");
}

fn leaky() -> Probe {
    Probe::new(|_, _, sink| {
        Box::pin(async move {
            sink.progress(Progress::message(format!("using {INPUT}"))).await;
            sink.log(LogStream::Stdout, format!("password={INPUT}\n").as_bytes()).await;
            Failure::new(FailureCode::WorkFailed, format!("`{INPUT}` was refused")).into()
        })
    })
}

#[tokio::test]
async fn secrets_that_a_driver_lets_through_are_masked_except_for_the_conformance_kit() {
    for redact in [true, false] {
        let options = RemoteOptions { redact, ..RemoteOptions::default() };
        let driver = RemoteDriver::connect(stacked(serve(Arc::new(leaky()))), options).await.unwrap();
        let mut request = apply_request(json!({"password": INPUT}));
        request.sensitive = vec![SecretString::from(INPUT)];
        let sink = MemorySink::new();
        let outcome = driver.apply(&context("leak"), request, &sink).await;
        let message = &outcome.failure().unwrap().message;
        assert_eq!(message.contains(INPUT), !redact);
        assert_eq!(sink.log_text().contains(INPUT), !redact);
        assert_eq!(sink.progress_messages()[0].contains(INPUT), !redact);
    }
}
