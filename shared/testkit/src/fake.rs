//! A peer of which a test decides the answers. It can stand behind the real server stack with the real token check.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::{BufMut, Bytes, BytesMut};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use pavior_auth::Permit;
use pavior_rpc::{Transport, local};
use prost::Message;
use tonic::Status;
use tonic::body::Body;
use tower::Service;

/// What arrived at a method.
#[derive(Debug, Clone)]
pub struct Call {
    /// `/package.Service/Method`.
    pub path: String,
    /// The metadata.
    pub headers: HeaderMap,
    /// Whose call it is; `None` when no token check stands before the peer.
    pub permit: Option<Permit>,
    /// The request, encoded.
    pub message: Bytes,
}

impl Call {
    /// The request.
    pub fn decode<M: Message + Default>(&self) -> M {
        M::decode(self.message.clone()).unwrap()
    }
}

/// Encoded messages, and an error at the end if there is one.
pub type Answer = BoxStream<'static, Result<Vec<u8>, Status>>;
type Handler = Arc<dyn Fn(&Call) -> Answer + Send + Sync>;

/// Answers by path; a path without an answer is UNIMPLEMENTED.
#[derive(Clone, Default)]
pub struct Fake {
    handlers: Arc<Mutex<HashMap<String, Handler>>>,
    calls: Arc<Mutex<Vec<Call>>>,
    down: Arc<AtomicBool>,
}

impl std::fmt::Debug for Fake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fake")
    }
}

impl Fake {
    /// The way to it for a service in the same process.
    pub fn transport(&self) -> Transport {
        local(self.clone())
    }

    /// From now on it is unavailable, or no longer so.
    pub fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    /// Answers a unary method.
    pub fn on<M, R>(&self, path: &str, answer: impl Fn(M) -> Result<R, Status> + Send + Sync + 'static)
    where
        M: Message + Default,
        R: Message + 'static,
    {
        self.on_async(path, move |message| std::future::ready(answer(message)));
    }

    /// Answers a unary method when the future is done.
    pub fn on_async<M, R, F>(&self, path: &str, answer: impl Fn(M) -> F + Send + Sync + 'static)
    where
        M: Message + Default,
        R: Message,
        F: Future<Output = Result<R, Status>> + Send + 'static,
    {
        let answer = move |call: &Call| -> Answer {
            let answer = answer(call.decode());
            futures::stream::once(async move { Ok(answer.await?.encode_to_vec()) }).boxed()
        };
        self.handlers.lock().unwrap().insert(path.to_owned(), Arc::new(answer));
    }

    /// Answers with a stream of messages.
    pub fn on_stream(&self, path: &str, answer: impl Fn() -> Answer + Send + Sync + 'static) {
        self.handlers.lock().unwrap().insert(path.to_owned(), Arc::new(move |_| answer()));
    }

    /// What arrived at a path so far.
    pub fn calls(&self, path: &str) -> Vec<Call> {
        self.calls.lock().unwrap().iter().filter(|call| call.path == path).cloned().collect()
    }

    async fn answer(self, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let message = match body.collect().await {
            Ok(body) => body.to_bytes().slice(5..),
            Err(status) => return status.into_http(),
        };
        let path = parts.uri.path().to_owned();
        if self.down.load(Ordering::SeqCst) {
            return Status::unavailable("down").into_http();
        }
        let permit = parts.extensions.get::<Permit>().cloned();
        let call = Call { path: path.clone(), headers: parts.headers, permit, message };
        self.calls.lock().unwrap().push(call.clone());
        let Some(handler) = self.handlers.lock().unwrap().get(&path).cloned() else {
            return Status::unimplemented("no answer").into_http();
        };
        let mut answers = handler(&call).peekable();
        // An error before the first message is the whole answer, as tonic's servers do it.
        if let Some(Err(status)) = std::pin::Pin::new(&mut answers).peek().await {
            return status.clone().into_http();
        }
        let mut ended = false;
        let frames = answers
            .map(Some)
            .chain(futures::stream::iter([None]))
            .map(move |answer| match answer {
                _ if ended => Frame::data(Bytes::new()),
                Some(Ok(message)) => Frame::data(framed(&message)),
                Some(Err(status)) => {
                    ended = true;
                    Frame::trailers(trailers(&status))
                }
                None => Frame::trailers(trailers(&Status::ok(""))),
            })
            .map(Ok::<_, Status>);
        let mut response = Response::new(Body::new(StreamBody::new(frames)));
        response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        response.headers_mut().insert("x-from-service", "yes".parse().unwrap());
        response
    }
}

fn framed(message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.len()).unwrap());
    bytes.extend_from_slice(message);
    bytes.freeze()
}

fn trailers(status: &Status) -> HeaderMap {
    let mut headers = HeaderMap::new();
    status.add_header(&mut headers).unwrap();
    headers
}

impl<B> Service<Request<B>> for Fake
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<pavior_rpc::BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let fake = self.clone();
        Box::pin(async move { Ok(fake.answer(request.map(Body::new)).await) })
    }
}
