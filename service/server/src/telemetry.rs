//! Logs, traces and metrics are started here. Names of metrics stand in `metrics`, values of labels in `labels`.
//!
//! Never in any of them: private keys, registration secrets, nonces, solutions, join states, certificates, attempt ids.

mod labels;
mod lines;
mod metrics;
mod request_id;
mod trace;

use std::{
    io::{Write as _, stderr},
    sync::atomic::Ordering,
};

use anyhow::Context as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::{EnvFilter, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use self::trace::TRACED;
pub use self::{
    labels::{Alarm, Position, TurnedAway},
    metrics::{METRICS, Metrics},
    request_id::{current_request, in_request, new_request_id, with_request},
    trace::{continue_trace, request_span, trace_id},
};
use crate::config::{LogFormat, Telemetry, mask_password};

/// Telemetry that was started; dropping it loses what is not flushed.
pub struct Started(Option<SdkTracerProvider>);

/// Starts logs (to standard error) and, when configured, traces.
///
/// # Errors
/// When the level or the collector's address does not parse.
pub fn start(settings: &Telemetry) -> anyhow::Result<Started> {
    let directives = std::env::var("RUST_LOG").unwrap_or_else(|_| settings.log_level.clone());
    let filter = EnvFilter::try_new(&directives).with_context(|| format!("`{directives}` is not a log level"))?;
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(settings.log_format == LogFormat::Text && std::io::IsTerminal::is_terminal(&stderr()))
        .event_format(settings.log_format)
        .with_writer(stderr);
    let provider = settings.otlp_endpoint.as_deref().map(tracer).transpose()?;
    TRACED.store(provider.is_some(), Ordering::Relaxed);
    let traces = provider.as_ref().map(|provider| tracing_opentelemetry::layer().with_tracer(provider.tracer("joind")));
    tracing_subscriber::registry().with(filter).with(lines).with(traces).init();
    Ok(Started(provider))
}

fn tracer(endpoint: &str) -> anyhow::Result<SdkTracerProvider> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .build()
        .with_context(|| format!("telemetry.otlp_endpoint `{}` is not usable", mask_password(endpoint)))?;
    let resource = opentelemetry_sdk::Resource::builder().with_service_name("joind").build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}

impl Started {
    /// Sends what is left, also when the command failed.
    pub fn flush(&self) {
        if let Some(provider) = &self.0
            && let Err(error) = provider.shutdown()
        {
            let _ = writeln!(stderr(), "traces could not be flushed: {error}");
        }
    }
}
