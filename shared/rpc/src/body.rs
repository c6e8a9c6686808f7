//! Bodies that do something on their way ([`Tapped`]): report how they ended, refuse large messages.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tonic::body::Body;
use tonic::{Code, Status};
use tracing::Span;

use crate::problem::Problem;

/// The trailers of a status.
pub(crate) fn trailers(status: &Status) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if status.add_header(&mut headers).is_err() {
        // Only a message or details that no header can hold get here; the code always can.
        headers.insert("grpc-status", http::HeaderValue::from(status.code() as i32));
    }
    headers
}

/// The code in headers or trailers, if there is one.
pub(crate) fn code_in(headers: &HeaderMap) -> Option<Code> {
    headers.get("grpc-status").map(|value| Code::from_bytes(value.as_bytes()))
}

/// Calls back once with the code that a call ended with; CANCELLED when it is dropped before its end.
pub(crate) struct OnEnd<F: FnOnce(Code)>(Option<F>);

impl<F: FnOnce(Code)> OnEnd<F> {
    pub(crate) fn new(f: F) -> Self {
        Self(Some(f))
    }

    pub(crate) fn end(&mut self, code: Code) {
        if let Some(f) = self.0.take() {
            f(code);
        }
    }
}

impl<F: FnOnce(Code)> Drop for OnEnd<F> {
    fn drop(&mut self) {
        self.end(Code::Cancelled);
    }
}

/// What polling a body gives.
pub(crate) type Polled = Poll<Option<Result<Frame<Bytes>, Status>>>;

/// Something that is done with each frame of a body.
pub(crate) trait Tap: Send + Unpin + 'static {
    /// Polls the body, which it replaces by an empty one where no more of it may be asked for.
    fn poll(&mut self, inner: &mut Body, cx: &mut Context<'_>) -> Polled;
}

/// A body with a [`Tap`].
pub(crate) struct Tapped<T> {
    inner: Body,
    tap: T,
}

impl<T: Tap> Tapped<T> {
    pub(crate) fn body(inner: Body, tap: T) -> Body {
        Body::new(Self { inner, tap })
    }
}

impl<T: Tap> HttpBody for Tapped<T> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        let this = &mut *self;
        this.tap.poll(&mut this.inner, cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Reports how the answer ended; the body is polled inside the span when there is one.
struct Observe<F: FnOnce(Code)> {
    span: Span,
    on_end: OnEnd<F>,
}

/// Reports at once for answers without a body, else when the body has ended.
pub(crate) fn observe<F>(
    response: http::Response<Body>,
    span: Span,
    mut on_end: OnEnd<F>,
) -> http::Response<Body>
where
    F: FnOnce(Code) + Send + Unpin + 'static,
{
    if let Some(code) = code_in(response.headers()) {
        on_end.end(code);
        return response;
    }
    response.map(|inner| Tapped::body(inner, Observe { span, on_end }))
}

impl<F: FnOnce(Code) + Send + Unpin + 'static> Tap for Observe<F> {
    fn poll(&mut self, inner: &mut Body, cx: &mut Context<'_>) -> Polled {
        let entered = self.span.enter();
        let frame = ready!(Pin::new(inner).poll_frame(cx));
        drop(entered);
        match &frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    self.on_end.end(code_in(trailers).unwrap_or(Code::Unknown));
                }
            }
            Some(Err(status)) => self.on_end.end(status.code()),
            // A body without trailers: not a gRPC answer, or one that was cut off.
            None => self.on_end.end(Code::Unknown),
        }
        Poll::Ready(frame)
    }
}

/// Bytes before each message (gRPC over HTTP/2): whether it is compressed, and its length.
const PREFIX: usize = 5;

/// Reads a body until its first message is complete, and gives that message with a body that is as if nothing had been
/// read. No message when it is compressed or the body ends before. The caller bounds its length ([`limited`]).
pub(crate) async fn first_message(mut body: Body) -> Result<(Option<Bytes>, Body), Status> {
    let mut read = BytesMut::new();
    let mut trailers = None;
    let complete = loop {
        let length = match &read[..] {
            [_, a, b, c, d, ..] => u32::from_be_bytes([*a, *b, *c, *d]) as usize,
            _ => usize::MAX - PREFIX,
        };
        if read.len() >= PREFIX + length {
            break Some(length);
        }
        match body.frame().await {
            None => break None,
            Some(frame) => match frame?.into_data() {
                Ok(data) => read.extend_from_slice(&data),
                Err(frame) => trailers = frame.into_trailers().ok(),
            },
        }
    };
    let read = read.freeze();
    let plain = complete.filter(|_| read.first() == Some(&0));
    let message = plain.map(|length| read.slice(PREFIX..PREFIX + length));
    let first = [Some(Frame::data(read)), trailers.map(Frame::trailers)];
    let first = futures::stream::iter(first.into_iter().flatten().map(Ok));
    let rest = Body::new(http_body_util::StreamBody::new(first.chain(http_body_util::BodyStream::new(body))));
    Ok((message, rest))
}

/// Where a body stands in its length-prefixed messages.
#[derive(Debug, Default)]
pub(crate) struct Framing {
    /// The bytes of the present length prefix that are here already.
    prefix: [u8; 5],
    prefix_len: usize,
    /// The bytes of the present message that are still to come.
    rest: usize,
}

impl Framing {
    /// True between two messages.
    pub(crate) fn between(&self) -> bool {
        self.prefix_len == 0 && self.rest == 0
    }

    /// Follows the messages through a piece of the body; one that is longer than `limit` is an error.
    pub(crate) fn follow(&mut self, mut data: &[u8], limit: usize) -> Result<(), Status> {
        while !data.is_empty() {
            let taken = self.rest_of_message(data, limit)?;
            data = data.get(taken..).unwrap_or_default();
        }
        Ok(())
    }

    /// Follows the message that is under way, or the next one, and gives how many bytes of the piece belong to it.
    pub(crate) fn rest_of_message(&mut self, data: &[u8], limit: usize) -> Result<usize, Status> {
        let mut left = data;
        while let [first, tail @ ..] = left {
            if self.rest > 0 {
                let taken = self.rest.min(left.len());
                self.rest -= taken;
                left = left.get(taken..).unwrap_or_default();
            } else {
                if let Some(slot) = self.prefix.get_mut(self.prefix_len) {
                    *slot = *first;
                }
                self.prefix_len += 1;
                left = tail;
                if self.prefix_len == self.prefix.len() {
                    let [_, a, b, c, d] = self.prefix;
                    let length = u32::from_be_bytes([a, b, c, d]) as usize;
                    if length > limit {
                        return Err(Problem::too_large(Some(limit)).into());
                    }
                    (self.prefix_len, self.rest) = (0, length);
                }
            }
            if self.between() {
                break;
            }
        }
        Ok(data.len() - left.len())
    }
}

/// Refuses a request message longer than the limit as soon as its length prefix is seen.
struct Limit {
    bytes: usize,
    framing: Framing,
}

/// The body, with messages of so many bytes at most.
pub(crate) fn limited(inner: Body, bytes: usize) -> Body {
    Tapped::body(inner, Limit { bytes, framing: Framing::default() })
}

impl Tap for Limit {
    fn poll(&mut self, inner: &mut Body, cx: &mut Context<'_>) -> Polled {
        let frame = ready!(Pin::new(&mut *inner).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
            && let Err(status) = self.framing.follow(data, self.bytes)
        {
            *inner = Body::empty();
            return Poll::Ready(Some(Err(status)));
        }
        Poll::Ready(frame)
    }
}
