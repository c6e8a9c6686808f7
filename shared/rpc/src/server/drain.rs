//! The end of a process as its callers see it: everything that would go on for long ends with a status at once, calls
//! that began are answered, and what is not answered in time is told so rather than cut off.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::FutureExt;
use http::Response;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;
use tonic::body::Body;

use super::Stack;
use crate::body::{Framing, code_in, trailers};
use crate::methods;
use crate::problem::{ErrorReason, Problem};

/// Says that a process is going down. Clones share their state: the stacks of a process, and what serves them, have
/// the same one.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    begun: CancellationToken,
    over: CancellationToken,
}

impl Drain {
    /// Ends open streams and long polls, and those that are still to come.
    pub fn begin(&self) {
        self.begun.cancel();
    }

    /// Nothing more is answered.
    pub(crate) fn end(&self) {
        self.over.cancel();
    }

    /// Waits until nothing more is answered, and gives what callers who still wait are told.
    pub(crate) fn last_word(&self) -> impl Future<Output = Response<Body>> + Send + use<> {
        let over = self.over.clone();
        async move {
            over.cancelled().await;
            going_down().into_http()
        }
    }
}

fn going_down() -> Status {
    let problem = Problem::unavailable("the server is going down, try again");
    problem.with_reason(ErrorReason::Draining).retry_in(Duration::from_secs(1)).into()
}

/// Whether a call may go on for long: streams and long polls, as the descriptors say. What is in none of them, such as
/// health, streams.
fn lasts(path: &str) -> bool {
    methods::method(path).is_none_or(|method| !method.unary() || method.waits)
}

/// The layer.
pub(super) fn layer(next: Stack, drain: Drain) -> Stack {
    Stack::from_fn(move |request| {
        if !lasts(request.uri().path()) {
            return next.handle(request);
        }
        let (next, begun) = (next.clone(), drain.begun.clone());
        async move {
            let response = tokio::select! {
                // What is answered at once is answered.
                biased;
                response = next.handle(request) => response,
                () = begun.cancelled() => return going_down().into_http(),
            };
            if code_in(response.headers()).is_some() {
                return response;
            }
            response.map(|body| Body::new(DrainBody::new(body, begun)))
        }
        .boxed()
    })
}

/// Ends between two messages when draining begins.
struct DrainBody {
    inner: Body,
    begun: Pin<Box<WaitForCancellationFutureOwned>>,
    framing: Framing,
    ended: bool,
}

impl DrainBody {
    fn new(inner: Body, begun: CancellationToken) -> Self {
        let begun = Box::pin(begun.cancelled_owned());
        Self { inner, begun, framing: Framing::default(), ended: false }
    }
}

impl HttpBody for DrainBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        // A message that began is passed on whole: a client could not read the status behind half of one.
        if this.framing.between() && this.begun.as_mut().poll(cx).is_ready() {
            this.ended = true;
            this.inner = Body::empty();
            return Poll::Ready(Some(Ok(Frame::trailers(trailers(&going_down())))));
        }
        let polled = Pin::new(&mut this.inner).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            this.framing.follow(data, usize::MAX)?;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
