//! The span of a request, and the trace that it belongs to.

use std::sync::atomic::{AtomicBool, Ordering};

use http::HeaderMap;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
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
