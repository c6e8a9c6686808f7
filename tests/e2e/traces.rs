//! One trace from the caller to the service behind the gateway, in an OpenTelemetry collector.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, ensure};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use pavior_proto::pavior::identity::v1::ListUsersRequest;
use pavior_tests::Processes;
use tokio_stream::wrappers::TcpListenerStream;

#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let spans = request.into_inner().resource_spans.into_iter();
        let spans = spans.flat_map(|r| r.scope_spans).flat_map(|s| s.spans);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(spans);
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_leads_from_the_caller_to_the_service() -> Result<()> {
    let collector = Collector::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = format!("http://{}", listener.local_addr()?);
    let service = TraceServiceServer::new(collector.clone());
    let server = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));

    let mut system = Processes::new(&[("telemetry.otlp_endpoint", &endpoint)])?;
    system.start("all", &["--all"], &[])?;
    system.load_starter_kit(pavior::starter::Databases::Sqlite).await?;
    let trace_id = "4bf92f3577b34da6a3ce929d0e0e4736";
    let mut request = tonic::Request::new(ListUsersRequest {
        parent: "organizations/acme".to_owned(),
        ..Default::default()
    });
    request.metadata_mut().insert("traceparent", format!("00-{trace_id}-00f067aa0ba902b7-01").parse()?);
    system.person("alice")?.identity().list_users(request).await?;
    // Ending in order flushes what has not been sent.
    system.stop("all")?;

    let spans = collector.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let ours: Vec<&Span> = spans.iter().filter(|span| hex(&span.trace_id) == trace_id).collect();
    let names: BTreeSet<&str> = ours.iter().map(|span| span.name.as_str()).collect();
    ensure!(names.iter().any(|name| name.contains("ListUsers")), "{names:?}");
    ensure!(names.iter().any(|name| name.contains("Decide")), "policy's part is missing in {names:?}");
    let ids: BTreeSet<&[u8]> = ours.iter().map(|span| span.span_id.as_slice()).collect();
    let outside = ours.iter().filter(|span| !ids.contains(span.parent_span_id.as_slice())).count();
    ensure!(outside == 1, "only the gateway's span hangs on the caller's: {outside} of {}", ours.len());
    Ok(())
}
