//! The span of a request, and the trace that it belongs to.

use std::sync::atomic::{AtomicBool, Ordering};

use http::HeaderMap;
use opentelemetry::{
    Context,
    propagation::{Extractor, TextMapPropagator as _},
    trace::{TraceContextExt as _, TraceId},
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// Whether somebody looks at spans.
pub(super) static TRACED: AtomicBool = AtomicBool::new(false);

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
    let id_of = |context: Context| {
        let id = context.span().span_context().trace_id();
        (id != TraceId::INVALID).then(|| id.to_string())
    };
    id_of(span.context()).or_else(|| id_of(sent_context(headers)))
}

/// Continues the trace that the client began (W3C Trace Context), when it did.
pub fn continue_trace(span: &tracing::Span, headers: &HeaderMap) {
    let sent = sent_context(headers);
    if sent.has_active_span() {
        // Without a tracer there is no trace to continue.
        let _ = span.set_parent(sent);
    }
}

fn sent_context(headers: &HeaderMap) -> Context {
    TraceContextPropagator::new().extract_with_context(&Context::new(), &Sent(headers))
}

/// The header that the propagator reads. What others say of a trace besides, in `tracestate`, is large, and nothing to us.
struct Sent<'a>(&'a HeaderMap);

const TRACEPARENT: &str = "traceparent";

impl Extractor for Sent<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).filter(|_| key == TRACEPARENT)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT]
    }
}
