//! What tonic itself costs: a unary call over TCP to a server with nothing around it.

use anyhow::Result;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::measure::{Figures, closed_loop};

/// A health check of a bare tonic server.
pub(crate) async fn bare_unary(calls: usize) -> Result<Figures> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (_reporter, service) = tonic_health::server::health_reporter();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let server =
        tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{address}"))?.connect().await?;
    let figures = closed_loop(calls, 1, || {
        let mut client = HealthClient::new(channel.clone());
        async move {
            client.check(HealthCheckRequest::default()).await?;
            Ok(())
        }
    })
    .await?;
    server.abort();
    Ok(figures)
}
