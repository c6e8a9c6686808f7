//! The early end of a body: at a deadline, with the caller's token, with the process. There is this one way, so that
//! none of them cuts a message in two: a client could not read the status behind half of one.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep};
use tonic::Status;
use tonic::body::Body;

use crate::body::{Framing, Polled, Tap, Tapped, trailers};
use crate::context::{self, RequestContext};
use crate::problem::Problem;

/// How long the rest of a message may take once the end has come. Then the stream is reset.
const PATIENCE: Duration = Duration::from_secs(5);

/// The answer of a server, which ends with a status between two messages when `end` has come. One that is complete is
/// given whole, even when it is late.
pub fn until(inner: Body, end: impl Future<Output = Status> + Send + 'static) -> Body {
    Body::new(Until::new(inner, Side::Server, Event(Box::pin(end))))
}

/// The answer of a server, polled under the context of its request, up to the deadline of that.
pub(crate) fn until_deadline(inner: Body, context: RequestContext) -> Body {
    let deadline = Deadline { at: context.deadline, sleep: None };
    Body::new(Until::new(Tapped::body(inner, Scoped(context)), Side::Server, deadline))
}

/// The answer that a client waits for, up to a deadline.
pub(crate) fn read_until(inner: Body, deadline: Instant) -> Body {
    Body::new(Until::new(inner, Side::Client, Deadline { at: Some(deadline), sleep: None }))
}

/// How a body tells that it has ended: a server in trailers, a client, which need not see the rest of a message, at
/// once as an error of the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Server,
    Client,
}

/// When a body ends, and with what.
trait End {
    /// The status, once the end has come. The task has to be woken for it only when the body is `waiting`.
    fn reached(&mut self, waiting: bool, cx: &mut Context<'_>) -> Option<Status>;
}

struct Deadline {
    at: Option<Instant>,
    /// Made only for bodies that have to wait.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl End for Deadline {
    fn reached(&mut self, waiting: bool, cx: &mut Context<'_>) -> Option<Status> {
        let at = self.at?;
        let passed = Instant::now() >= at
            || waiting && {
                let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
                sleep.as_mut().poll(cx).is_ready()
            };
        passed.then(|| Problem::deadline_exceeded().into())
    }
}

struct Event<F>(Pin<Box<F>>);

impl<F: Future<Output = Status>> End for Event<F> {
    fn reached(&mut self, _: bool, cx: &mut Context<'_>) -> Option<Status> {
        match self.0.as_mut().poll(cx) {
            Poll::Ready(status) => Some(status),
            Poll::Pending => None,
        }
    }
}

/// Polled under a context, so that streams pass it on too.
struct Scoped(RequestContext);

impl Tap for Scoped {
    fn poll(&mut self, inner: &mut Body, cx: &mut Context<'_>) -> Polled {
        context::sync_scope(self.0.clone(), || Pin::new(inner).poll_frame(cx))
    }
}

struct Until<B, E> {
    /// Nothing once no more of it is passed on.
    inner: Option<B>,
    side: Side,
    end: E,
    framing: Framing,
    /// The end has come, and has not been told yet.
    over: Option<Status>,
    patience: Duration,
    giving_up: Option<Pin<Box<Sleep>>>,
}

impl<B, E: End> Until<B, E> {
    fn new(inner: B, side: Side, end: E) -> Self {
        Self {
            inner: Some(inner),
            side,
            end,
            framing: Framing::default(),
            over: None,
            patience: PATIENCE,
            giving_up: None,
        }
    }

    /// Whether the end has come; it is asked for no more after it has.
    fn is_over(&mut self, waiting: bool, cx: &mut Context<'_>) -> bool {
        if self.over.is_none() {
            self.over = self.end.reached(waiting, cx);
        }
        self.over.is_some()
    }

    fn may_end_here(&self) -> bool {
        self.side == Side::Client || self.framing.between()
    }

    fn tell(&mut self) -> Polled {
        self.inner = None;
        Poll::Ready(self.over.take().map(|status| match self.side {
            Side::Server => Ok(Frame::trailers(trailers(&status))),
            Side::Client => Err(status),
        }))
    }

    fn pass(&mut self, mut data: Bytes, cx: &mut Context<'_>) -> Polled {
        if !self.is_over(false, cx) {
            self.framing.follow(&data, usize::MAX)?;
        } else if self.may_end_here() {
            return self.tell();
        } else {
            let rest_of_message = self.framing.rest_of_message(&data, usize::MAX)?;
            if rest_of_message < data.len() {
                data.truncate(rest_of_message);
                self.inner = None;
            }
        }
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn wait(&mut self, cx: &mut Context<'_>) -> Polled {
        if !self.is_over(true, cx) {
            return Poll::Pending;
        }
        if self.may_end_here() {
            return self.tell();
        }
        let patience = self.patience;
        let giving_up = self.giving_up.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        if giving_up.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.inner = None;
        Poll::Ready(self.over.take().map(Err))
    }
}

impl<B, E> HttpBody for Until<B, E>
where
    B: HttpBody<Data = Bytes, Error = Status> + Unpin,
    E: End + Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        let this = &mut *self;
        let Some(inner) = this.inner.as_mut() else { return this.tell() };
        match Pin::new(inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => this.pass(data, cx),
                Err(trailers) => Poll::Ready(Some(Ok(trailers))),
            },
            Poll::Pending => this.wait(cx),
            ended => ended,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().map_or(self.over.is_none(), HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use futures::channel::{mpsc, oneshot};
    use http::HeaderMap;
    use http_body_util::{BodyExt as _, StreamBody};
    use tonic::Code;

    use super::*;
    use crate::body::code_in;

    /// Two messages, of 3 and 0 bytes.
    const MESSAGES: [u8; 13] = [0, 0, 0, 0, 3, b'a', b'b', b'c', 0, 0, 0, 0, 0];
    const BOUNDARIES: [usize; 3] = [0, 8, 13];

    type Pieces = mpsc::UnboundedSender<Result<Frame<Bytes>, Status>>;

    fn source() -> (Pieces, Body) {
        let (pieces, body) = mpsc::unbounded();
        (pieces, Body::new(StreamBody::new(body)))
    }

    fn piece(data: &[u8]) -> Result<Frame<Bytes>, Status> {
        Ok(Frame::data(Bytes::copy_from_slice(data)))
    }

    fn ended_well() -> Result<Frame<Bytes>, Status> {
        Ok(Frame::trailers(HeaderMap::from_iter([(
            http::HeaderName::from_static("grpc-status"),
            http::HeaderValue::from_static("0"),
        )])))
    }

    /// All bytes, and how it ended.
    async fn read(mut body: Body) -> (Vec<u8>, Option<Result<Code, Code>>) {
        let mut read = Vec::new();
        while let Some(frame) = body.frame().await {
            match frame.map(Frame::into_data) {
                Ok(Ok(data)) => read.extend_from_slice(&data),
                Ok(Err(frame)) => return (read, code_in(frame.trailers_ref().unwrap()).map(Ok)),
                Err(status) => return (read, Some(Err(status.code()))),
            }
        }
        (read, None)
    }

    #[tokio::test]
    async fn wherever_the_end_comes_it_is_told_between_two_messages() {
        for (cut, rest_in_one) in (0..=MESSAGES.len()).flat_map(|cut| [(cut, true), (cut, false)]) {
            let ((pieces, inner), (end, ended)) = (source(), oneshot::channel());
            let mut body = until(inner, async move { ended.await.unwrap() });
            if cut > 0 {
                pieces.unbounded_send(piece(&MESSAGES[..cut])).unwrap();
                assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), MESSAGES[..cut]);
            }
            end.send(Status::unavailable("going down")).unwrap();
            // More than a message comes in one piece, or byte by byte; and it never stops.
            let rest: Vec<u8> = MESSAGES[cut..].iter().chain(&MESSAGES).copied().collect();
            for data in rest.chunks(if rest_in_one { rest.len() } else { 1 }) {
                pieces.unbounded_send(piece(data)).unwrap();
            }
            let (read, code) = read(body).await;
            let whole = BOUNDARIES.into_iter().find(|boundary| *boundary >= cut).unwrap();
            assert_eq!(read, MESSAGES[cut..whole], "{cut}");
            assert_eq!(code, Some(Ok(Code::Unavailable)), "{cut}");
        }
    }

    #[tokio::test]
    async fn a_message_that_is_never_complete_is_given_up() {
        for (cut, wanted) in [(7, Err(Code::Unavailable)), (8, Ok(Code::Unavailable))] {
            let (pieces, inner) = source();
            pieces.unbounded_send(piece(&MESSAGES[..cut])).unwrap();
            // Polled only while the first piece is there already, so it does not come before that.
            let mut asked = false;
            let end = std::future::poll_fn(move |cx| {
                if std::mem::replace(&mut asked, true) {
                    return Poll::Ready(Status::unavailable("going down"));
                }
                cx.waker().wake_by_ref();
                Poll::Pending
            });
            let mut body = Until::new(inner, Side::Server, Event(Box::pin(end)));
            body.patience = Duration::from_millis(20);
            assert_eq!(read(Body::new(body)).await, (MESSAGES[..cut].to_vec(), Some(wanted)));
        }
    }

    #[tokio::test]
    async fn an_answer_that_is_complete_is_given_though_it_is_late() {
        for cut in 1..=8 {
            let ((pieces, inner), (end, ended)) = (source(), oneshot::channel());
            let mut body = until(inner, async move { ended.await.unwrap() });
            pieces.unbounded_send(piece(&MESSAGES[..cut])).unwrap();
            body.frame().await.unwrap().unwrap();
            end.send(Status::deadline_exceeded("late")).unwrap();
            if cut < 8 {
                pieces.unbounded_send(piece(&MESSAGES[cut..8])).unwrap();
            }
            pieces.unbounded_send(ended_well()).unwrap();
            assert_eq!(read(body).await, (MESSAGES[cut..8].to_vec(), Some(Ok(Code::Ok))), "{cut}");
        }
    }

    #[tokio::test]
    async fn a_client_waits_no_longer_than_its_deadline() {
        let (pieces, inner) = source();
        pieces.unbounded_send(piece(&MESSAGES[..7])).unwrap();
        let body = read_until(inner, Instant::now() + Duration::from_millis(20));
        assert_eq!(read(body).await, (MESSAGES[..7].to_vec(), Some(Err(Code::DeadlineExceeded))));
    }
}
