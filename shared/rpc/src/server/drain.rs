//! The end of a process as its callers see it: everything that would go on for long ends with a status at once, calls
//! that began are answered, and what is not answered in time is told so rather than cut off.

use std::time::Duration;

use futures::future::FutureExt;
use http::Response;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;

use super::Stack;
use crate::body::code_in;
use crate::methods;
use crate::problem::{ErrorReason, Problem};
use crate::until::until;

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
            response.map(|body| until(body, begun.cancelled_owned().map(|()| going_down())))
        }
        .boxed()
    })
}
