//! Logs, traces and metrics. Their names stand here and nowhere else.
//!
//! Never in any of them: private keys, registration secrets, nonces, solutions, join states, certificates, attempt ids.

mod labels;
mod lines;

use std::{
    io::{Write as _, stderr},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use anyhow::Context as _;
use http::HeaderMap;
use join_domain::{event::JoinCase, refusal::Code};
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState, TracerProvider as _,
};
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::trace::SdkTracerProvider;
use prometheus::{
    Encoder as _, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::{EnvFilter, layer::SubscriberExt as _, util::SubscriberInitExt as _};

pub use self::labels::{Alarm, Position, TurnedAway};
use crate::{
    config::{LogFormat, Telemetry},
    entropy::Entropy,
};

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
        .with_context(|| format!("telemetry.otlp_endpoint `{endpoint}` is not usable"))?;
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

/// Whether somebody looks at spans.
static TRACED: AtomicBool = AtomicBool::new(false);

/// The span of a request. Without traces there is none: lines say by themselves which request they are of. With them there
/// is one however little is logged, so its level is the highest.
pub fn request_span(route: &str, id: &str) -> tracing::Span {
    match TRACED.load(Ordering::Relaxed) {
        true => tracing::error_span!("request", otel.name = route, request.id = id),
        false => tracing::Span::none(),
    }
}

/// The trace id of a span when traces are on, or else the one that the client sent.
pub fn trace_id(span: &tracing::Span, headers: &HeaderMap) -> Option<String> {
    let context = span.context();
    let id = context.span().span_context().trace_id();
    if id != TraceId::INVALID {
        return Some(id.to_string());
    }
    sent_context(headers).map(|context| context.trace_id().to_string())
}

/// Continues the trace that the client began (W3C Trace Context), when it did.
pub fn continue_trace(span: &tracing::Span, headers: &HeaderMap) {
    if let Some(remote) = sent_context(headers) {
        // Without a tracer there is no trace to continue.
        let _ = span.set_parent(opentelemetry::Context::new().with_remote_span_context(remote));
    }
}

/// `traceparent: 00-<trace id>-<span id>-<flags>`.
fn sent_context(headers: &HeaderMap) -> Option<SpanContext> {
    let mut parts = headers.get("traceparent")?.to_str().ok()?.split('-');
    let (_version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?);
    let context = SpanContext::new(
        TraceId::from_hex(trace).ok()?,
        SpanId::from_hex(span).ok()?,
        flags,
        true,
        TraceState::default(),
    );
    context.is_valid().then_some(context)
}

tokio::task_local! {
    static REQUEST: Arc<str>;
}

/// Runs a request under its id, so that whatever is said of it, or fails inside, can name it.
pub fn with_request<F: Future>(id: Arc<str>, work: F) -> impl Future<Output = F::Output> {
    REQUEST.scope(id, work)
}

/// As [`with_request`], for what does not wait.
pub fn in_request<T>(id: Arc<str>, work: impl FnOnce() -> T) -> T {
    REQUEST.sync_scope(id, work)
}

/// The id of the request that is running; none outside of one.
pub fn current_request() -> Option<Arc<str>> {
    REQUEST.try_with(Arc::clone).ok()
}

/// An id for a request: unique in this process and, with its start, in practice everywhere. It is no secret.
pub fn new_request_id() -> Arc<str> {
    static PROCESS: LazyLock<u32> = LazyLock::new(|| u32::from_be_bytes(Entropy::default().bytes()));
    static COUNT: AtomicU64 = AtomicU64::new(1);
    format!("{:08x}-{:06x}", *PROCESS, COUNT.fetch_add(1, Ordering::Relaxed)).into()
}

/// The case of a resume among accepted joins.
const RESUME: &str = "resume";

const fn word(proven: bool) -> &'static str {
    if proven { "true" } else { "false" }
}

/// All metrics.
pub struct Metrics {
    registry: Registry,
    joins: IntCounterVec,
    refusals: IntCounterVec,
    join_seconds: Histogram,
    locks_created: IntCounter,
    token_reads: IntCounter,
    tokens_cached: IntGauge,
    /// Alarms that need an operator, by name; 1 while they stand.
    alarms: IntGaugeVec,
    ca_certificate_expires: IntGauge,
    /// Open connections.
    pub connections: IntGauge,
    turned_away: IntCounterVec,
    positions: IntGaugeVec,
    requests: IntCounterVec,
}

/// The metrics of this process.
pub static METRICS: LazyLock<Metrics> = LazyLock::new(|| Metrics::new().expect("the names of metrics are valid"));

impl Metrics {
    fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let joins = counters("join_accepted_total", "Accepted joins, by case; resumes are their own case.", &["case"])?;
        let refusals = counters(
            "join_refused_total",
            "Refused joins, by code and by whether possession was proven.",
            &["code", "proven"],
        )?;
        let requests = counters("requests_total", "Requests, by route and outcome.", &["route", "outcome"])?;
        let turned_away =
            counters("turned_away_total", "Connections and requests beyond the limit of open ones.", &["what"])?;
        let join_seconds = Histogram::with_opts(
            HistogramOpts::new("join_decision_seconds", "From proof of possession to the durable append.")
                .buckets(vec![0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5]),
        )?;
        let locks_created = IntCounter::new("join_locks_created_total", "Locks that a rule created.")?;
        let token_reads = IntCounter::new(
            "token_reads_total",
            "Tokens read from the database: not in the cache, or about to be refused.",
        )?;
        let tokens_cached = IntGauge::new("tokens_cached", "Tokens in the cache.")?;
        let connections = IntGauge::new("connections_open", "Open connections.")?;
        let ca_certificate_expires = IntGauge::new(
            "ca_certificate_expires_timestamp_seconds",
            "End of the certificate of the X.509 CA that signs.",
        )?;
        let alarms =
            IntGaugeVec::new(Opts::new("alarm", "1 while an alarm stands that needs an operator."), &["alarm"])?;
        let positions = IntGaugeVec::new(
            Opts::new("ledger_position", "Positions of log and views: alert on their distance."),
            &["of"],
        )?;
        registry.register(Box::new(join_seconds.clone()))?;
        registry.register(Box::new(locks_created.clone()))?;
        registry.register(Box::new(ca_certificate_expires.clone()))?;
        registry.register(Box::new(token_reads.clone()))?;
        registry.register(Box::new(tokens_cached.clone()))?;
        registry.register(Box::new(connections.clone()))?;
        registry.register(Box::new(alarms.clone()))?;
        registry.register(Box::new(positions.clone()))?;
        // All but the requests stand there from the start, at 0: an alert on an increase does not see the first of a
        // series that begins with it.
        for case in JoinCase::ALL.map(JoinCase::as_str).into_iter().chain([RESUME]) {
            joins.with_label_values(&[case]);
        }
        for code in Code::ALL {
            for proven in [true, false] {
                refusals.with_label_values(&[code.as_str(), word(proven)]);
            }
        }
        for what in TurnedAway::ALL {
            turned_away.with_label_values(&[what.as_str()]);
        }
        for alarm in Alarm::ALL {
            alarms.with_label_values(&[alarm.as_str()]);
        }
        Ok(Self {
            registry,
            joins,
            refusals,
            join_seconds,
            locks_created,
            token_reads,
            tokens_cached,
            alarms,
            ca_certificate_expires,
            connections,
            turned_away,
            positions,
            requests,
        })
    }

    /// A join was accepted; none for a resume.
    pub fn accepted(&self, case: Option<JoinCase>) {
        self.joins.with_label_values(&[case.map_or(RESUME, JoinCase::as_str)]).inc();
    }

    /// A join was refused.
    pub fn refused(&self, code: Code, proven: bool) {
        self.refusals.with_label_values(&[code.as_str(), word(proven)]).inc();
    }

    /// A rule locked a token.
    pub fn locked(&self) {
        self.locks_created.inc();
    }

    /// How many tokens are in the cache, and how many were read since the start.
    pub fn tokens(&self, cached: usize, reads: u64) {
        self.tokens_cached.set(i64::try_from(cached).unwrap_or(i64::MAX));
        self.token_reads.inc_by(reads.saturating_sub(self.token_reads.get()));
    }

    /// From proof to the durable append, in seconds.
    pub fn decided(&self, seconds: f64) {
        self.join_seconds.observe(seconds);
    }

    /// Raises or clears an alarm.
    pub fn alarm(&self, alarm: Alarm, standing: bool) {
        self.alarms.with_label_values(&[alarm.as_str()]).set(i64::from(standing));
    }

    /// One token more, or one less, waits because the authority lost history: an alarm while there is any.
    pub fn behind(&self, more: bool) {
        let tokens = self.alarms.with_label_values(&[Alarm::AuthorityBehind.as_str()]);
        if more { tokens.inc() } else { tokens.dec() }
    }

    /// The alarms that stand.
    pub fn standing_alarms(&self) -> Vec<String> {
        let families = prometheus::core::Collector::collect(&self.alarms);
        let alarms = families.iter().flat_map(|family| family.get_metric());
        let standing = alarms.filter(|metric| metric.get_gauge().get_value() > 0.0);
        standing.flat_map(|metric| metric.get_label().iter().map(|label| label.value().to_owned())).collect()
    }

    /// When the certificate of the CA that signs ends, in seconds since the epoch.
    pub fn ca_certificate_expires(&self, at: i64) {
        self.ca_certificate_expires.set(at);
    }

    /// Where one part of the ledger is.
    pub fn position(&self, of: Position, index: u64) {
        self.positions.with_label_values(&[of.as_str()]).set(i64::try_from(index).unwrap_or(i64::MAX));
    }

    /// Something found no place.
    pub fn turned_away(&self, what: TurnedAway) {
        self.turned_away.with_label_values(&[what.as_str()]).inc();
    }

    /// One request ended.
    pub fn request(&self, route: &str, outcome: &str) {
        self.requests.with_label_values(&[route, outcome]).inc();
    }

    /// The Prometheus text format.
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        // Writing to memory does not fail, and the encoder writes UTF-8.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        String::from_utf8(text).unwrap_or_default()
    }
}
