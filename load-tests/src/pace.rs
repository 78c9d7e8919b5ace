//! How load is put on: closed loop for the peak, open loop at a fixed rate for latency.
//!
//! In an open loop latency counts from when a join was meant to start, whether or not it could: a stall is seen by all
//! that would have come during it (no coordinated omission). A join belongs to the measured time when it was meant to
//! start in it, however late it ends, so a stall at the end keeps its slowest. In a closed loop it belongs where it ends.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::{
    ceremony::JoinError,
    process::{Processes, to_f64},
};

/// How long joins of an open loop that are under way at its end are waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// How much, and for how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) load: Load,
    /// Not measured.
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
}

/// How joins follow each other.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Load {
    /// So many at once, each followed by the next.
    Closed(u64),
    /// So many each second, whatever becomes of them.
    Open(f64),
}

/// Whose CPU time counts.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    pub(crate) joind: Option<Processes>,
    pub(crate) postgres: Option<Processes>,
}

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
    pub(crate) cpu: Cpu,
    /// By second.
    pub(crate) timeline: Vec<Second>,
    /// Quantile and latency in ms.
    pub(crate) percentiles: Vec<(f64, f64)>,
}

/// CPU time of each process for each join, refused ones included, in µs.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Cpu {
    pub(crate) joind_us: f64,
    pub(crate) postgres_us: f64,
    pub(crate) generator_us: f64,
}

/// One second of a run.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Second {
    pub(crate) joins: u64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    /// Cores in use.
    pub(crate) joind_cores: f64,
    pub(crate) postgres_cores: f64,
    pub(crate) generator_cores: f64,
    pub(crate) joind_mb: f64,
}

struct Tally {
    load: Load,
    begin: Instant,
    end: Instant,
    kept: Mutex<Kept>,
}

struct Kept {
    all: Histogram<u64>,
    seconds: Vec<Histogram<u64>>,
    refusals: BTreeMap<String, u64>,
    /// Ended within the measured time, refused ones included: what the CPU time of this time was spent on.
    ended: u64,
    broken: Option<String>,
}

impl Tally {
    fn count(&self, started: Instant, outcome: Result<(), JoinError>) {
        let now = Instant::now();
        let within = |time: Instant| time >= self.begin && time < self.end;
        let belongs_at = match self.load {
            Load::Closed(_) => now,
            Load::Open(_) => started,
        };
        let measured = within(belongs_at);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if within(now) && !matches!(outcome, Err(JoinError::Broken(_))) {
            kept.ended += 1;
        }
        match outcome {
            Ok(()) if measured => {
                let micros = u64::try_from(now.duration_since(started).as_micros()).unwrap_or(u64::MAX).max(1);
                let second = usize::try_from(belongs_at.duration_since(self.begin).as_secs()).unwrap_or_default();
                kept.all.saturating_record(micros);
                if let Some(second) = kept.seconds.get_mut(second) {
                    second.saturating_record(micros);
                }
            }
            Err(JoinError::Refused(code)) if measured => *kept.refusals.entry(code).or_default() += 1,
            Ok(()) | Err(JoinError::Refused(_)) => {}
            Err(JoinError::Broken(why)) => {
                kept.broken.get_or_insert(why);
            }
        }
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000, 3).expect("these are bounds of a histogram")
}

/// Runs `job(number)` again and again; numbers count up from 0, and in a closed loop those of one worker are
/// equal modulo their count.
///
/// # Errors
/// When a connection or the protocol broke, a worker panicked, or answers never came: a refusal is an answer, that is not.
pub(crate) async fn drive<F, Job>(what: &str, plan: Plan, watched: &Watched, job: F) -> anyhow::Result<Measured>
where
    F: Fn(u64) -> Job + Send + Sync + 'static,
    Job: Future<Output = Result<(), JoinError>> + Send + 'static,
{
    let begin = Instant::now() + plan.warm_up;
    let end = begin + plan.measured;
    let seconds = usize::try_from(plan.measured.as_secs().max(1))?;
    let tally = Arc::new(Tally {
        load: plan.load,
        begin,
        end,
        kept: Mutex::new(Kept {
            all: histogram(),
            seconds: (0..seconds).map(|_| histogram()).collect(),
            refusals: BTreeMap::new(),
            ended: 0,
            broken: None,
        }),
    });
    let watching = tokio::spawn(watch(what.to_owned(), plan, watched.clone(), begin, Arc::clone(&tally)));
    let job = Arc::new(job);
    match plan.load {
        Load::Closed(workers) => closed(workers, end, &tally, &job).await,
        Load::Open(rate) => open(rate, plan, end, &tally, &job).await,
    }
    .with_context(|| what.to_owned())?;
    let (cpu, use_by_second) = watching.await?;

    let kept = tally.kept.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(why) = &kept.broken {
        bail!("{what}: a join broke: {why}");
    }
    let joins = kept.all.len();
    let ms = |micros: u64| to_f64(micros) / 1000.0;
    let at = |quantile: f64| ms(kept.all.value_at_quantile(quantile));
    let per_join = |cpu: f64| cpu / to_f64(kept.ended.max(1));
    let timeline = kept.seconds.iter().zip(use_by_second).map(|(latencies, used)| Second {
        joins: latencies.len(),
        p50_ms: ms(latencies.value_at_quantile(0.5)),
        p99_ms: ms(latencies.value_at_quantile(0.99)),
        ..used
    });
    Ok(Measured {
        what: what.to_owned(),
        load: match plan.load {
            Load::Closed(workers) => format!("closed, {workers} at once"),
            Load::Open(rate) => format!("open, {rate:.0}/s"),
        },
        seconds: plan.measured.as_secs_f64(),
        joins,
        joins_per_s: to_f64(joins) / plan.measured.as_secs_f64(),
        p50_ms: at(0.5),
        p90_ms: at(0.9),
        p99_ms: at(0.99),
        p999_ms: at(0.999),
        max_ms: ms(kept.all.max()),
        refusals: kept.refusals.clone(),
        cpu: Cpu {
            joind_us: per_join(cpu.joind_us),
            postgres_us: per_join(cpu.postgres_us),
            generator_us: per_join(cpu.generator_us),
        },
        timeline: timeline.collect(),
        percentiles: [0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9999].map(|q| (q, at(q))).to_vec(),
    })
}

async fn closed<F, Job>(workers: u64, end: Instant, tally: &Arc<Tally>, job: &Arc<F>) -> anyhow::Result<()>
where
    F: Fn(u64) -> Job + Send + Sync + 'static,
    Job: Future<Output = Result<(), JoinError>> + Send + 'static,
{
    let mut running = JoinSet::new();
    for worker in 0..workers {
        let (tally, job) = (Arc::clone(tally), Arc::clone(job));
        running.spawn(async move {
            let mut number = worker;
            while Instant::now() < end {
                let started = Instant::now();
                tally.count(started, job(number).await);
                number += workers;
            }
        });
    }
    while let Some(ended) = running.join_next().await {
        ended.context("a worker failed")?;
    }
    Ok(())
}

async fn open<F, Job>(rate: f64, plan: Plan, end: Instant, tally: &Arc<Tally>, job: &Arc<F>) -> anyhow::Result<()>
where
    F: Fn(u64) -> Job + Send + Sync + 'static,
    Job: Future<Output = Result<(), JoinError>> + Send + 'static,
{
    let first = end - plan.measured - plan.warm_up;
    let mut under_way = JoinSet::new();
    let mut number = 0_u64;
    loop {
        let intended = first + Duration::from_secs_f64(to_f64(number) / rate);
        if intended >= end {
            break;
        }
        if intended > Instant::now() {
            tokio::time::sleep_until(intended.into()).await;
        }
        let (tally, job) = (Arc::clone(tally), Arc::clone(job));
        under_way.spawn(async move { tally.count(intended, job(number).await) });
        number += 1;
        while let Some(ended) = under_way.try_join_next() {
            ended.context("a join failed")?;
        }
    }
    let last = tokio::time::Instant::now() + PATIENCE;
    loop {
        match tokio::time::timeout_at(last, under_way.join_next()).await {
            Ok(Some(ended)) => ended.context("a join failed")?,
            Ok(None) => return Ok(()),
            Err(_) => bail!("{} joins had no answer {} s after the end", under_way.len(), PATIENCE.as_secs()),
        }
    }
}

/// Samples CPU and memory each second, and tells how it goes.
async fn watch(what: String, plan: Plan, watched: Watched, begin: Instant, tally: Arc<Tally>) -> (Cpu, Vec<Second>) {
    let bar = ProgressBar::new((plan.warm_up + plan.measured).as_secs().max(1));
    bar.set_style(
        indicatif::ProgressStyle::with_template("{prefix:34} [{bar:30}] {elapsed} {msg}")
            .unwrap_or_else(|_| indicatif::ProgressStyle::default_bar()),
    );
    bar.set_prefix(what);
    let own = Processes::own();
    let sample = || Cpu {
        joind_us: watched.joind.as_ref().map_or(0.0, Processes::cpu_us),
        postgres_us: watched.postgres.as_ref().map_or(0.0, Processes::cpu_us),
        generator_us: own.cpu_us(),
    };
    tokio::time::sleep_until(begin.into()).await;
    let first = sample();
    let mut last = first;
    let mut seconds = Vec::new();
    let count = plan.measured.as_secs().max(1);
    for second in 1..=count {
        tokio::time::sleep_until((begin + plan.measured.mul_f64(to_f64(second) / to_f64(count))).into()).await;
        let now = sample();
        let cores = |after: f64, before: f64| (after - before) / 1e6;
        seconds.push(Second {
            joind_cores: cores(now.joind_us, last.joind_us),
            postgres_cores: cores(now.postgres_us, last.postgres_us),
            generator_cores: cores(now.generator_us, last.generator_us),
            joind_mb: watched.joind.as_ref().map_or(0.0, Processes::memory_mb),
            ..Second::default()
        });
        last = now;
        let ended = tally.kept.lock().unwrap_or_else(PoisonError::into_inner).ended;
        bar.set_position(second + plan.warm_up.as_secs());
        bar.set_message(format!("{ended} joins, {:.0}/s", to_f64(ended) / to_f64(second)));
    }
    bar.finish_and_clear();
    let spent = Cpu {
        joind_us: last.joind_us - first.joind_us,
        postgres_us: last.postgres_us - first.postgres_us,
        generator_us: last.generator_us - first.generator_us,
    };
    (spent, seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: Watched = Watched { joind: None, postgres: None };

    fn plan(load: Load) -> Plan {
        Plan { load, warm_up: Duration::ZERO, measured: Duration::from_secs(1) }
    }

    #[tokio::test]
    async fn a_stall_at_the_end_of_an_open_loop_is_kept() -> anyhow::Result<()> {
        let job = |number| async move {
            let time = if number < 90 { 0 } else { 500 };
            tokio::time::sleep(Duration::from_millis(time)).await;
            Ok(())
        };
        let done = drive("a stall", plan(Load::Open(100.0)), &NOBODY, job).await?;
        assert_eq!(done.joins, 100);
        assert!(done.p50_ms < 400.0 && done.p99_ms >= 500.0, "{} and {}", done.p50_ms, done.p99_ms);
        Ok(())
    }

    #[tokio::test]
    async fn a_panic_ends_the_run() {
        for load in [Load::Open(100.0), Load::Closed(2)] {
            let failed = drive("a panic", plan(load), &NOBODY, |number| async move {
                assert!(number < 5, "the sixth join");
                tokio::time::sleep(Duration::from_millis(1)).await;
                Ok(())
            });
            assert!(failed.await.is_err(), "{load:?}");
        }
    }
}
