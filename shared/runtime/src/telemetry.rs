//! Logs to stderr, traces over OTLP, metrics for Prometheus (and over OTLP).
//!
//! Nothing is set globally but the default subscriber of `tracing`, and that only by [`init`]. The W3C propagator is
//! in the layers of `pavior-rpc`.

use std::io::IsTerminal;
use std::time::Duration;

use opentelemetry::metrics::{Meter, MeterProvider};
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{MetricExporter, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::{Aggregation, Instrument, InstrumentKind, SdkMeterProvider, Stream};
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use serde::{Deserialize, Serialize};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Telemetry settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryConfig {
    /// What is logged, as directives of `tracing-subscriber` (`info,pavior_catalog=debug`). Access lines have the
    /// target `pavior::access`.
    pub filter: String,
    /// How log lines look.
    pub format: LogFormat,
    /// Where traces and metrics go, for example `http://127.0.0.1:4317`; nowhere when absent.
    pub otlp_endpoint: Option<String>,
    /// The share of traces begun here that is exported, 0 to 1; traces begun elsewhere follow their flag.
    pub trace_ratio: f64,
    /// `service.name` of the telemetry.
    pub service_name: String,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            filter: "info".to_owned(),
            format: LogFormat::Text,
            otlp_endpoint: None,
            trace_ratio: 1.0,
            service_name: "pavior".to_owned(),
        }
    }
}

/// Keeps telemetry going; [`Guard::shutdown`] flushes it.
#[derive(Debug)]
pub struct Guard {
    registry: prometheus::Registry,
    meters: SdkMeterProvider,
    tracer: Option<SdkTracerProvider>,
}

impl Guard {
    /// Metrics in a registry of its own, no logs and no export: for tests, where several systems share a process.
    pub fn metrics_only() -> anyhow::Result<Self> {
        build_meters(&TelemetryConfig::default()).map(|(registry, meters)| Self {
            registry,
            meters,
            tracer: None,
        })
    }

    /// What `/metrics` shows.
    pub fn registry(&self) -> &prometheus::Registry {
        &self.registry
    }

    /// Makes instruments.
    pub fn meter(&self, name: &'static str) -> Meter {
        self.meters.meter(name)
    }

    /// Sends what is still here. Needs the tokio runtime, so it must be called before `main` returns.
    pub async fn shutdown(self) {
        let flush = tokio::task::spawn_blocking(move || {
            let limit = Duration::from_secs(5);
            let traces = self.tracer.map(|tracer| tracer.shutdown_with_timeout(limit));
            (traces, self.meters.shutdown_with_timeout(limit))
        });
        match flush.await {
            Ok((Some(Err(err)), _) | (_, Err(err))) => {
                tracing::warn!(error = %err, "telemetry was not flushed")
            }
            Ok(_) => {}
            Err(err) => tracing::warn!(error = %err, "telemetry was not flushed"),
        }
    }
}

fn resource(config: &TelemetryConfig) -> Resource {
    Resource::builder().with_service_name(config.service_name.clone()).build()
}

/// The bounds that OpenTelemetry's semantic conventions give to durations of calls. Those that are used without any are for
/// milliseconds.
const SECONDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// Every histogram of seconds has bounds in seconds, whoever makes it.
fn in_seconds(instrument: &Instrument) -> Option<Stream> {
    if instrument.kind() != InstrumentKind::Histogram || instrument.unit() != "s" {
        return None;
    }
    let aggregation =
        Aggregation::ExplicitBucketHistogram { boundaries: SECONDS.to_vec(), record_min_max: true };
    Stream::builder().with_aggregation(aggregation).build().ok()
}

fn build_meters(config: &TelemetryConfig) -> anyhow::Result<(prometheus::Registry, SdkMeterProvider)> {
    let registry = prometheus::Registry::new();
    let reader = opentelemetry_prometheus::exporter().with_registry(registry.clone()).build()?;
    let mut builder =
        SdkMeterProvider::builder().with_resource(resource(config)).with_reader(reader).with_view(in_seconds);
    if let Some(endpoint) = &config.otlp_endpoint {
        let exporter = MetricExporter::builder().with_tonic().with_endpoint(endpoint.clone()).build()?;
        builder = builder.with_periodic_exporter(exporter);
    }
    Ok((registry, builder.build()))
}

/// Sets telemetry up for a process. Fails when a subscriber is set already. Needs a tokio runtime.
pub fn init(config: &TelemetryConfig) -> anyhow::Result<Guard> {
    let filter = EnvFilter::try_new(&config.filter)?;
    let (registry, meters) = build_meters(config)?;
    let tracer = config.otlp_endpoint.as_ref().map(|endpoint| build_tracer(config, endpoint)).transpose()?;
    let lines = match config.format {
        LogFormat::Text => tracing_subscriber::fmt::layer()
            // Colours are for terminals; a log file has none.
            .with_ansi(std::io::stderr().is_terminal())
            .with_writer(std::io::stderr)
            .boxed(),
        LogFormat::Json => tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .with_writer(std::io::stderr)
            .boxed(),
    };
    let traces =
        tracer.as_ref().map(|provider| tracing_opentelemetry::layer().with_tracer(provider.tracer("pavior")));
    tracing_subscriber::registry().with(filter).with(lines).with(traces).try_init()?;
    Ok(Guard { registry, meters, tracer })
}

fn build_tracer(config: &TelemetryConfig, endpoint: &str) -> anyhow::Result<SdkTracerProvider> {
    let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).build()?;
    let root = Sampler::TraceIdRatioBased(config.trace_ratio);
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(Sampler::ParentBased(Box::new(root)))
        .with_resource(resource(config))
        .build())
}
