//! A call that touches the world, while it runs.

use std::future::Future;
use std::time::Duration;

use pavior_driver::{
    CallContext, Failure, FailureCode, Outcome, Progress, RedactedLog, Redactor, SecretString, Sink,
    SinkClosed,
};
use pavior_proto::pavior::driver::v1 as pb;
use pavior_rpc::RetrySafe;
use pavior_rpc::problem::from_status;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Response, Status, Streaming};

use super::{RemoteDriver, refusal, shown};
use crate::WireError;
use crate::convert::{decode_stream, encode_answer, encode_context};
use crate::told::{Event, Told};
use crate::value::decode;

/// How long until a cancel is sent again that came before the call it is for.
const CANCEL_AGAIN: Duration = Duration::from_millis(100);

type Started<T> = Result<Response<Streaming<T>>, Status>;

pub(super) struct Running<'a> {
    driver: &'a RemoteDriver,
    context: &'a CallContext,
    sink: &'a dyn Sink,
    redactor: Redactor,
    call_id: String,
    /// The length of the lease at the start, which every renewal gives again.
    lease: Option<Duration>,
    lease_end: watch::Sender<Option<Instant>>,
    /// Fires when the sink says that the claim is lost.
    lost: CancellationToken,
}

impl<'a> Running<'a> {
    pub(super) fn new(
        driver: &'a RemoteDriver,
        context: &'a CallContext,
        sink: &'a dyn Sink,
        sensitive: &[SecretString],
    ) -> Self {
        let redactor = if driver.options.redact { Redactor::new(sensitive) } else { Redactor::default() };
        let lease = driver.lease(context);
        Self {
            driver,
            context,
            sink,
            redactor,
            call_id: driver.call_id(),
            lease,
            lease_end: watch::Sender::new(lease.map(|left| Instant::now() + left)),
            lost: CancellationToken::new(),
        }
    }

    pub(super) fn context(&self) -> pb::CallContext {
        encode_context(self.context, &self.call_id, &self.driver.agreed)
    }

    /// The lease is not sent as the call's timeout: it is renewed while the call runs, and a timeout cannot be.
    pub(super) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        trace(&mut request, self.context);
        request
    }

    /// Reads the call to its end, which comes at the latest when the lease or the grace of a cancel is over.
    pub(super) async fn run<T: Told>(&self, start: impl Future<Output = Started<T>>) -> Outcome {
        tokio::select! {
            biased;
            outcome = self.read(start) => self.redacted(outcome),
            () = self.lease_over() => unknown("the lease ended before the driver was done"),
            () = self.stop() => unknown("the driver did not say how it ended after it was told to stop"),
        }
    }

    async fn read<T: Told>(&self, start: impl Future<Output = Started<T>>) -> Outcome {
        let mut stream = match start.await {
            Ok(response) => response.into_inner(),
            Err(status) => return self.refused(&status),
        };
        let mut log = RedactedLog::new(&self.redactor);
        let mut begun = false;
        let outcome = loop {
            match stream.message().await {
                Ok(Some(event)) => {
                    begun = true;
                    if let Some(outcome) = self.event(event, &mut log).await {
                        break outcome;
                    }
                }
                Ok(None) => break unknown("the driver's stream ended without an outcome"),
                Err(status) if begun => {
                    break unknown(format!("the driver's stream broke off: {}", shown(&status)));
                }
                Err(status) => return self.refused(&status),
            }
        };
        for (stream, rest) in log.finish() {
            self.sink.log(stream, &rest).await;
        }
        outcome
    }

    /// A status before any event.
    fn refused(&self, status: &Status) -> Outcome {
        if let Some(code) = refusal(status) {
            return Outcome::failed(code, shown(status));
        }
        // Only the driver itself says when to come again: it has let nothing begin.
        let busy = matches!(status.code(), Code::Unavailable | Code::ResourceExhausted);
        match from_status(status).retry_after.filter(|_| busy) {
            Some(delay) => {
                let failure = Failure::new(FailureCode::Unavailable, shown(status));
                failure.with_retry_delay(delay).into()
            }
            None => unknown(self.driver.no_answer(status)),
        }
    }

    async fn event(&self, message: impl Told, log: &mut RedactedLog) -> Option<Outcome> {
        let event = match message.decode() {
            Ok(event) => event?,
            Err(err) => return Some(self.broken(&err)),
        };
        match event {
            Event::Progress(pb::Progress { message, percent }) => match percent.map(share).transpose() {
                Ok(percent) => {
                    self.sink.progress(Progress { message: self.redactor.text(&message), percent }).await;
                    None
                }
                Err(err) => Some(self.broken(&err)),
            },
            Event::Log(pb::Log { stream, data }) => {
                let stream = decode_stream(stream);
                let data = log.push(stream, &data);
                if !data.is_empty() {
                    self.sink.log(stream, &data).await;
                }
                None
            }
            Event::Checkpoint(pb::Checkpoint { sequence, state }) => match decode(state) {
                Ok(state) => {
                    self.answer(sequence, self.sink.checkpoint(state).await).await;
                    None
                }
                Err(err) => Some(self.broken(&err)),
            },
            Event::Heartbeat(pb::Heartbeat { sequence }) => {
                self.answer(sequence, self.sink.heartbeat().await).await;
                None
            }
            Event::Outcome(outcome) => Some(outcome),
        }
    }

    /// What cannot be read says nothing about the world.
    fn broken(&self, err: &WireError) -> Outcome {
        unknown(self.driver.malformed(err))
    }

    /// Tells the driver whether to go on.
    async fn answer(&self, sequence: i64, result: Result<(), SinkClosed>) {
        match result {
            Ok(()) => drop(self.lease_end.send_replace(self.lease.map(|lease| Instant::now() + lease))),
            Err(SinkClosed::ClaimLost) => self.lost.cancel(),
            // The driver says how it ends.
            Err(SinkClosed::NotKept) => {}
        }
        if !self.driver.agreed.can(pb::Capability::Acknowledge) {
            return;
        }
        let result = encode_answer(result);
        let call_id = self.call_id.clone();
        let mut request = Request::new(pb::AcknowledgeRequest { call_id, sequence, result: result.into() });
        request.extensions_mut().insert(RetrySafe);
        if let Err(status) = self.driver.client.clone().acknowledge(request).await {
            // The driver waits for the answer and would wait for ever.
            tracing::warn!(driver = %self.driver.info.id, code = ?status.code(), "acknowledge failed");
            self.lost.cancel();
        }
    }

    async fn lease_over(&self) {
        let mut changes = self.lease_end.subscribe();
        loop {
            let end = *changes.borrow_and_update();
            let over = async move {
                match end {
                    Some(end) => tokio::time::sleep_until(end).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = over => return,
                changed = changes.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Waits until the call is to stop, tells the driver, and returns when it has had its time.
    async fn stop(&self) {
        tokio::select! {
            () = self.context.cancel.cancelled() => {}
            () = self.lost.cancelled() => {}
        }
        if !self.driver.agreed.can(pb::Capability::Cancel) {
            return;
        }
        let tell = async {
            // The cancel can overtake the call that it is for, so it is repeated until it is heard.
            while !self.cancel().await {
                tokio::time::sleep(CANCEL_AGAIN).await;
            }
            std::future::pending::<()>().await;
        };
        // Elapsed is the only way out, and what the caller waits for.
        let _ = tokio::time::timeout(self.driver.options.cancel_grace, tell).await;
    }

    async fn cancel(&self) -> bool {
        let mut request = Request::new(pb::CancelRequest { call_id: self.call_id.clone() });
        request.extensions_mut().insert(RetrySafe);
        match self.driver.client.clone().cancel(request).await {
            Ok(answer) => answer.into_inner().found,
            Err(status) => {
                tracing::debug!(driver = %self.driver.info.id, code = ?status.code(), "cancel failed");
                false
            }
        }
    }

    /// Messages can come from other software, which may have put a secret into them.
    fn redacted(&self, outcome: Outcome) -> Outcome {
        match outcome {
            Outcome::Failed(failure) => {
                let message = self.redactor.text(&failure.message);
                Outcome::Failed(Failure { message, ..failure })
            }
            Outcome::Unknown { message } => unknown(self.redactor.text(&message)),
            Outcome::Succeeded(success) => Outcome::Succeeded(success),
        }
    }
}

/// Puts the step's position in its trace beside the message, for the driver's own tracing.
pub(super) fn trace<T>(request: &mut Request<T>, context: &CallContext) {
    let value = context.traceparent.as_deref().and_then(|text| MetadataValue::try_from(text).ok());
    if let Some(value) = value {
        request.metadata_mut().insert("traceparent", value);
    }
}

/// Percent; more than all is all.
fn share(percent: i32) -> Result<u8, WireError> {
    u8::try_from(percent.min(100)).map_err(|_| WireError::Negative("progress.percent"))
}

fn unknown(message: impl Into<String>) -> Outcome {
    Outcome::Unknown { message: message.into() }
}
