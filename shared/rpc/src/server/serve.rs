//! Serving a stack on a listener: accepts, TLS, keepalive, and a shutdown that lets calls end.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;

use super::{Drain, ServerTls, Stack};

/// Who is at the other end of the connection; in the extensions of each request that came over the network.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// The certificates that it showed, its own first; empty without mutual TLS.
    pub certificates: Arc<[CertificateDer<'static>]>,
}

/// How to serve.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// TLS; without it the connection is plain.
    pub tls: Option<ServerTls>,
    /// Takes HTTP/1.1 too, which gRPC-Web needs. Otherwise only HTTP/2.
    pub http1: bool,
    /// How long calls may go on after shutdown began. Those that are not answered by then are told so.
    pub grace: Duration,
    /// Begun when shutdown begins: that of the stack's own options.
    pub drain: Drain,
    /// Connections are asked to close after this time (gRFC A9), ±10 %.
    pub max_connection_age: Duration,
    /// How long a TLS handshake may take.
    pub handshake_timeout: Duration,
    /// Connections at once.
    pub max_connections: usize,
    /// Streams at once on a connection.
    pub max_concurrent_streams: u32,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            tls: None,
            http1: false,
            grace: Duration::from_secs(20),
            drain: Drain::default(),
            max_connection_age: Duration::from_secs(30 * 60),
            handshake_timeout: Duration::from_secs(10),
            max_connections: 10_000,
            max_concurrent_streams: 256,
        }
    }
}

/// For the status of calls that were not answered in time to get to their callers.
const LAST_WORDS: Duration = Duration::from_millis(300);
const MAX_HEADER_BYTES: u32 = 16 * 1024;

/// Serves `stack` until `shutdown`, then lets calls go on for `grace`.
pub async fn serve(
    listener: TcpListener,
    stack: Stack,
    tls: Option<ServerTls>,
    shutdown: CancellationToken,
    grace: Duration,
) {
    serve_with(listener, stack, ServeOptions { tls, grace, ..ServeOptions::default() }, shutdown).await;
}

/// As [`serve`], with all options. Returns when every connection is closed, or `grace` is over.
pub async fn serve_with(
    listener: TcpListener,
    stack: Stack,
    options: ServeOptions,
    shutdown: CancellationToken,
) {
    let server = Arc::new(Server {
        stack,
        builder: builder(&options),
        shutdown,
        abort: CancellationToken::new(),
        options,
    });
    let connections = TaskTracker::new();
    while let Some((stream, address)) = server.accept(&listener).await {
        if connections.len() >= server.options.max_connections {
            tracing::warn!(%address, "connection refused: too many connections");
            continue;
        }
        let server = server.clone();
        connections.spawn(async move { server.connection(stream, address).await });
    }
    drop(listener);
    connections.close();
    server.options.drain.begin();
    if tokio::time::timeout(server.options.grace, connections.wait()).await.is_err() {
        tracing::warn!(open = connections.len(), "the grace period is over: calls end without their answer");
        server.options.drain.end();
        if tokio::time::timeout(LAST_WORDS, connections.wait()).await.is_err() {
            tracing::warn!(open = connections.len(), "connections were cut off");
            server.abort.cancel();
            connections.wait().await;
        }
    }
}

struct Server {
    stack: Stack,
    builder: Builder<TokioExecutor>,
    shutdown: CancellationToken,
    abort: CancellationToken,
    options: ServeOptions,
}

fn builder(options: &ServeOptions) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(60))
        .keep_alive_timeout(Duration::from_secs(20))
        .max_concurrent_streams(options.max_concurrent_streams)
        // Whoever has that many streams open may give all of them up at once; the connection of a gateway carries
        // many callers, and must not be closed for those that have lost patience.
        .max_pending_accept_reset_streams(options.max_concurrent_streams as usize)
        .max_header_list_size(MAX_HEADER_BYTES)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20);
    builder.http1().timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(10));
    if options.http1 { builder } else { builder.http2_only() }
}

impl Server {
    /// The next connection; `None` when shutdown began.
    async fn accept(&self, listener: &TcpListener) -> Option<(TcpStream, SocketAddr)> {
        loop {
            tokio::select! {
                () = self.shutdown.cancelled() => return None,
                accepted = listener.accept() => match accepted {
                    Ok(connection) => return Some(connection),
                    Err(err) => {
                        // Out of file descriptors, mostly: others have to be closed before it goes on.
                        tracing::warn!(error = %err, "accept failed");
                        tokio::select! {
                            () = self.shutdown.cancelled() => return None,
                            () = tokio::time::sleep(Duration::from_millis(100)) => {}
                        }
                    }
                },
            }
        }
    }

    async fn connection(&self, stream: TcpStream, address: SocketAddr) {
        if let Err(err) = stream.set_nodelay(true) {
            tracing::debug!(%address, error = %err, "nodelay failed");
        }
        let Some(tls) = &self.options.tls else {
            return self.http(stream, Peer { address, certificates: Arc::default() }).await;
        };
        let handshake = tls.acceptor().accept(stream);
        let stream = tokio::select! {
            () = self.shutdown.cancelled() => return,
            done = tokio::time::timeout(self.options.handshake_timeout, handshake) => match done {
                Ok(Ok(stream)) => stream,
                Ok(Err(err)) => return tracing::debug!(%address, error = %err, "TLS handshake failed"),
                Err(_) => return tracing::debug!(%address, "TLS handshake took too long"),
            },
        };
        let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let certificates = shown.iter().map(|certificate| certificate.clone().into_owned()).collect();
        self.http(stream, Peer { address, certificates }).await;
    }

    async fn http<S>(&self, stream: S, peer: Peer)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let address = peer.address;
        let (stack, drain) = (self.stack.clone(), self.options.drain.clone());
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(peer.clone());
            let (answer, last_word) = (stack.handle(request), drain.last_word());
            async move {
                let response = tokio::select! {
                    response = answer => response,
                    response = last_word => response,
                };
                Ok::<_, std::convert::Infallible>(response)
            }
        });
        let mut connection = pin!(self.builder.serve_connection(TokioIo::new(stream), service));
        let mut age = pin!(tokio::time::sleep(jitter(self.options.max_connection_age, address)));
        let mut closing = false;
        loop {
            tokio::select! {
                result = connection.as_mut() => {
                    if let Err(err) = result {
                        tracing::debug!(%address, error = %err, "connection ended");
                    }
                    return;
                }
                () = self.abort.cancelled() => return,
                () = self.shutdown.cancelled(), if !closing => {
                    closing = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = age.as_mut(), if !closing => {
                    closing = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

/// ±10 %, so that connections made together do not come back together. The port of the peer is random enough.
fn jitter(age: Duration, peer: SocketAddr) -> Duration {
    age * 9 / 10 + age / 5 * (u32::from(peer.port()) % 100) / 100
}
