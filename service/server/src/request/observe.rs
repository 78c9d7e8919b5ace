//! One line, one span and one count a request.

use std::{
    collections::HashSet,
    sync::{Arc, LazyLock},
    time::Instant,
};

use axum::{
    extract::{MatchedPath, Request},
    middleware::Next,
    response::Response,
};
use join_proto::DESCRIPTORS;
use tracing::{Instrument as _, Span};

use super::grpc::join::JOIN_ROUTE;
use crate::{
    caller::{Connection, Peer, RequestIds},
    telemetry::{self, METRICS},
};

/// Gives a request its ids, runs it, and logs how it ended.
pub async fn request(mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = telemetry::new_request_id();
    let route = route_of(&request);
    let connection = request.extensions().get::<Arc<Connection>>().cloned();
    let span = telemetry::request_span(&route, &id);
    telemetry::continue_trace(&span, request.headers());
    let trace = telemetry::trace_id(&span, request.headers());
    request.extensions_mut().insert(RequestIds { request: Arc::clone(&id), trace: trace.clone() });

    let response = telemetry::with_request(Arc::clone(&id), next.run(request)).instrument(span.clone()).await;

    let grpc = response.headers().get("grpc-status").and_then(|status| status.to_str().ok()).map(str::to_owned);
    if route == JOIN_ROUTE && grpc.is_none() {
        // A join goes on in its stream, and is told when that ends.
        return response;
    }
    let outcome = grpc.unwrap_or_else(|| response.status().as_u16().to_string());
    METRICS.request(&route, &outcome);
    let address = connection.map(|connection| connection.address.to_string());
    let _entered = span.enter();
    telemetry::in_request(id, || {
        tracing::info!(
            request.route = %route,
            request.outcome = %outcome,
            request.address = address.as_deref().unwrap_or("-"),
            request.micros = micros(started),
            trace = trace.as_deref().unwrap_or("-"),
            "{route} {outcome}"
        );
    });
    response
}

/// Tells how a stream ended: `joined`, an error code, or `gone` when the client went away.
pub fn ended(span: &Span, route: &str, outcome: &str, peer: &Peer, token: &str, started: Instant) {
    METRICS.request(route, outcome);
    let _entered = span.enter();
    telemetry::in_request(Arc::clone(&peer.ids.request), || {
        tracing::info!(
            request.route = route,
            request.outcome = outcome,
            request.address = %peer.address,
            request.micros = micros(started),
            join.token = token,
            trace = peer.ids.trace.as_deref().unwrap_or("-"),
            "{route} {outcome}"
        );
    });
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// Paths of all gRPC methods.
static METHODS: LazyLock<HashSet<String>> = LazyLock::new(|| {
    let methods = DESCRIPTORS.services().flat_map(|service| service.methods().collect::<Vec<_>>());
    methods.map(|method| format!("/{}/{}", method.parent_service().full_name(), method.name())).collect()
});

/// The route by which requests are counted: as it is declared, or a gRPC method that exists. What strangers invent is
/// counted together.
fn route_of(request: &Request) -> String {
    match request.extensions().get::<MatchedPath>().map(MatchedPath::as_str) {
        None => "unknown".to_owned(),
        Some(service) if service.ends_with("/{*rest}") => {
            let path = request.uri().path();
            if METHODS.contains(path) { path.to_owned() } else { service.to_owned() }
        }
        Some(route) => route.to_owned(),
    }
}
