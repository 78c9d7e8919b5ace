//! How the agent is doing, for machines: `/livez`, `/readyz` and `/metrics` over plain HTTP.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use chrono::{DateTime, TimeDelta, Utc};
use prometheus::{IntCounterVec, IntGauge, Opts, Registry, TextEncoder};
use tokio::net::TcpListener;

use crate::{agent::Joined, clock::Clock, credentials::Facts, error::JoinError};

/// What is counted and known.
pub struct Health {
    registry: Registry,
    joins: IntCounterVec,
    not_after: IntGauge,
    life: IntGauge,
    clock: Arc<dyn Clock>,
    /// How far the authority's clock is ahead of this host's, in seconds.
    ahead: AtomicI64,
}

impl Health {
    /// Nothing counted yet.
    pub fn new(clock: impl Clock) -> Arc<Self> {
        const VALID: &str = "the name and labels are valid and used once";
        let registry = Registry::new();
        let joins = IntCounterVec::new(
            Opts::new("joinbot_joins_total", "Joins by outcome: joined, a refusal's code, or what failed"),
            &["outcome"],
        )
        .expect(VALID);
        let not_after = IntGauge::new(
            "joinbot_certificate_expires_timestamp_seconds",
            "When the newest certificate in the outputs ends, POSIX seconds; 0 before the first",
        )
        .expect(VALID);
        let life = IntGauge::new(
            "joinbot_certificate_life_seconds",
            "How long that certificate had to live when it came; 0 before the first",
        )
        .expect(VALID);
        registry.register(Box::new(joins.clone())).expect(VALID);
        registry.register(Box::new(not_after.clone())).expect(VALID);
        registry.register(Box::new(life.clone())).expect(VALID);
        Arc::new(Self { registry, joins, not_after, life, clock: Arc::new(clock), ahead: AtomicI64::new(0) })
    }

    /// Counts a join.
    pub fn record(&self, outcome: Result<&Joined, &JoinError>) {
        self.joins.with_label_values(&[outcome.map_or_else(failure, |_| "joined")]).inc();
    }

    /// Knows of a certificate that other programs can use, and when it was stored, just now, or before the agent started:
    /// by this host's clock, which the authority's is `ahead` of.
    pub fn found(&self, certificate: &Facts, stored_at: DateTime<Utc>, ahead: TimeDelta) {
        self.not_after.set(certificate.not_after.timestamp());
        // It begins before it is issued, so that its own beginning does not tell.
        self.life.set((certificate.not_after - stored_at - ahead).num_seconds());
        self.ahead.store(ahead.num_seconds(), Ordering::Relaxed);
    }

    /// Whether there is a live certificate, by the authority's clock as far as it is known.
    pub fn is_ready(&self) -> bool {
        self.not_after.get() > self.clock.now().timestamp().saturating_add(self.ahead.load(Ordering::Relaxed))
    }

    /// Serves until the process ends.
    ///
    /// # Errors
    /// When the address is in use or not this machine's.
    pub async fn serve(self: Arc<Self>, address: SocketAddr) -> std::io::Result<SocketAddr> {
        let listener = TcpListener::bind(address).await?;
        let local = listener.local_addr()?;
        let routes = Router::new()
            .route("/livez", get(async || "alive\n"))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(self);
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Ok(local)
    }
}

async fn readyz(State(health): State<Arc<Health>>) -> (StatusCode, &'static str) {
    if health.is_ready() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "no live certificate\n")
    }
}

async fn metrics(State(health): State<Arc<Health>>) -> String {
    TextEncoder::new().encode_to_string(&health.registry.gather()).unwrap_or_default()
}

fn failure(error: &JoinError) -> &'static str {
    match error {
        JoinError::Refused(refused) => refused.code.map_or("refused", |code| code.as_str()),
        JoinError::Network(_) => "network",
        JoinError::Untrusted(_) | JoinError::Certificate(_) | JoinError::NoTrust | JoinError::NoPinInUri => "untrusted",
        JoinError::Storage(_) => "storage",
        JoinError::Output(_) => "output",
        JoinError::OtherIdentity { .. }
        | JoinError::KeyNotHeld(_)
        | JoinError::NoStaticKey(_)
        | JoinError::StaticKey
        | JoinError::Secret(_) => "identity",
        JoinError::Challenge(_) | JoinError::Result(_) | JoinError::Unexpected(_) => "unexpected",
    }
}
