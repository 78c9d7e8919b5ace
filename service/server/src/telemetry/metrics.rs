//! Metrics, in the Prometheus text format.

use std::sync::LazyLock;

use join_domain::{event::JoinCase, refusal::Code};
use prometheus::{
    Encoder as _, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder,
    register_histogram_with_registry as histogram, register_int_counter_vec_with_registry as counters,
    register_int_counter_with_registry as counter, register_int_gauge_vec_with_registry as gauges,
    register_int_gauge_with_registry as gauge,
};

use super::labels::{Alarm, Position, TurnedAway};

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
    appends_waiting: IntGauge,
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
        let joins = counters!(
            "join_accepted_total",
            "Accepted joins, by case; resumes are their own case.",
            &["case"],
            registry
        )?;
        let refusals = counters!(
            "join_refused_total",
            "Refused joins, by code and by whether possession was proven.",
            &["code", "proven"],
            registry
        )?;
        let requests = counters!("requests_total", "Requests, by route and outcome.", &["route", "outcome"], registry)?;
        let turned_away = counters!(
            "turned_away_total",
            "Connections and requests beyond the limit of open ones.",
            &["what"],
            registry
        )?;
        let join_seconds = histogram!(
            "join_decision_seconds",
            "From proof of possession to the durable append.",
            vec![0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5],
            registry
        )?;
        let locks_created = counter!("join_locks_created_total", "Locks that a rule created.", registry)?;
        let token_reads = counter!(
            "token_reads_total",
            "Tokens read from the database: not in the cache, or about to be refused.",
            registry
        )?;
        let tokens_cached = gauge!("tokens_cached", "Tokens in the cache.", registry)?;
        let appends_waiting = gauge!("appends_waiting", "Appends that wait for a writer.", registry)?;
        let connections = gauge!("connections_open", "Open connections.", registry)?;
        let ca_certificate_expires = gauge!(
            "ca_certificate_expires_timestamp_seconds",
            "End of the certificate of the X.509 CA that signs.",
            registry
        )?;
        let alarms = gauges!("alarm", "1 while an alarm stands that needs an operator.", &["alarm"], registry)?;
        let positions =
            gauges!("ledger_position", "Positions of log and views: alert on their distance.", &["of"], registry)?;
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
            appends_waiting,
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

    /// How many appends wait for a writer.
    pub fn appends_waiting(&self, waiting: usize) {
        self.appends_waiting.set(i64::try_from(waiting).unwrap_or(i64::MAX));
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
