//! What was seen of a load: joins, latencies, refusals, and what each process used.

use std::{collections::BTreeMap, error, fmt, time::Duration};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::{connection::Handshakes, process::to_f64};

/// What was seen.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Measured {
    pub(crate) what: String,
    pub(crate) load: String,
    pub(crate) seconds: f64,
    pub(crate) joins: u64,
    pub(crate) joins_per_s: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p90_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
    pub(crate) max_ms: f64,
    /// By code.
    pub(crate) refusals: BTreeMap<String, u64>,
    /// Joins in all: those of the warm-up and refused ones too, to compare with handshakes.
    pub(crate) made: u64,
    /// Of all these joins; none where nobody counted.
    pub(crate) handshakes: Option<Handshakes>,
    pub(crate) cpu: Cpu,
    /// By second.
    pub(crate) timeline: Vec<Second>,
    /// Quantile and latency in ms.
    pub(crate) percentiles: Vec<(f64, f64)>,
}

impl Measured {
    /// What a histogram of µs says, with nobody's CPU time.
    pub(crate) fn of(what: &str, load: String, seconds: f64, latencies: &Histogram<u64>) -> Self {
        let at = |quantile: f64| ms(latencies.value_at_quantile(quantile));
        Self {
            what: what.to_owned(),
            load,
            seconds,
            joins: latencies.len(),
            joins_per_s: to_f64(latencies.len()) / seconds.max(f64::EPSILON),
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: ms(latencies.max()),
            refusals: BTreeMap::new(),
            made: latencies.len(),
            handshakes: None,
            cpu: Cpu::default(),
            timeline: Vec::new(),
            percentiles: [0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9999].map(|q| (q, at(q))).to_vec(),
        }
    }
}

/// What was measured is less than what was to be measured.
#[derive(Debug)]
pub(crate) struct Cut {
    /// How it came to that, in a word.
    pub(crate) how: &'static str,
    /// So much was seen.
    pub(crate) measured: Measured,
    why: anyhow::Error,
}

impl Cut {
    pub(crate) fn new(how: &'static str, measured: Measured, why: anyhow::Error) -> Self {
        Self { how, measured, why }
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.why)
    }
}

impl error::Error for Cut {}

/// CPU time of each process for each join, refused ones included, in µs; none of those that nobody looked at.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Cpu {
    pub(crate) joind_us: Option<f64>,
    pub(crate) postgres_us: Option<f64>,
    pub(crate) generator_us: Option<f64>,
}

impl Cpu {
    /// What joind used, where it was looked at; otherwise not a number.
    pub(crate) fn joind(&self) -> f64 {
        self.joind_us.unwrap_or(f64::NAN)
    }

    /// The same of PostgreSQL.
    pub(crate) fn postgres(&self) -> f64 {
        self.postgres_us.unwrap_or(f64::NAN)
    }
}

/// One second of a run.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Second {
    pub(crate) joins: u64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    /// Cores in use.
    pub(crate) joind_cores: Option<f64>,
    pub(crate) postgres_cores: Option<f64>,
    pub(crate) generator_cores: Option<f64>,
    /// Resident memory at its end.
    pub(crate) joind_mb: Option<f64>,
    pub(crate) postgres_mb: Option<f64>,
    pub(crate) generator_mb: Option<f64>,
}

/// Of latencies in µs, with three digits each. It grows with the longest: a storm of a million bots takes half an hour.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new(3).expect("three digits are a precision of a histogram")
}

/// Notes one latency.
pub(crate) fn record(latencies: &mut Histogram<u64>, took: Duration) {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    latencies.record(micros).expect("a histogram that grows takes every latency");
}

/// µs in ms.
pub(crate) fn ms(micros: u64) -> f64 {
    to_f64(micros) / 1000.0
}
