//! How load is put on: closed loop for the peak, open loop at a fixed rate for latency, and each bot once for what
//! happens to a fleet but once.
//!
//! In an open loop latency counts from when a join was meant to start, whether or not it could: a stall is seen by all
//! that would have come during it (no coordinated omission). A join belongs to the measured time when it was meant to
//! start in it, however late it ends, so a stall at the end keeps its slowest. In a closed loop it belongs where it ends.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow};
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::{sync::oneshot, task::JoinSet};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    ceremony::JoinError,
    connection::Handshakes,
    measured::{Cpu, Cut, Measured, Second, histogram, ms, record},
    process::{Processes, to_f64},
};

/// How long joins of an open loop that are under way at its end are waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// A piece at the end that is shorter than this is no second of a timeline.
const HALF: Duration = Duration::from_millis(500);
/// How often it is told how it goes where there is no terminal.
const TOLD: Duration = Duration::from_secs(10);

/// What is done again and again, by number.
pub(crate) trait Jobs: Send + Sync + 'static {
    /// One of them.
    type Job: Future<Output = Result<(), JoinError>> + Send + 'static;

    /// The one of this number.
    fn job(&self, number: u64) -> Self::Job;

    /// Handshakes so far, where they are counted.
    fn handshakes(&self) -> Option<Handshakes> {
        None
    }

    /// So many jobs had these handshakes: an error where that is not what is to be measured.
    fn check(&self, _made: u64, _seen: &Handshakes) -> anyhow::Result<()> {
        Ok(())
    }
}

impl<F, Job> Jobs for F
where
    F: Fn(u64) -> Job + Send + Sync + 'static,
    Job: Future<Output = Result<(), JoinError>> + Send + 'static,
{
    type Job = Job;

    fn job(&self, number: u64) -> Job {
        self(number)
    }
}

/// How much, and for how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) load: Load,
    /// Not measured.
    pub(crate) warm_up: Duration,
    /// Nothing for a load that ends by itself.
    pub(crate) measured: Duration,
}

/// How joins follow each other.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Load {
    /// So many at once, each followed by the next.
    Closed(u64),
    /// So many each second, whatever becomes of them.
    Open(f64),
    /// Each of so many once.
    Once {
        /// How many there are.
        count: u64,
        /// How many are under way at once, each followed by the next.
        at_once: u64,
    },
    /// Each of so many once, and all of them are due at the beginning, from which latency counts.
    Storm {
        /// How many there are.
        count: u64,
        /// For how many there is room at once; the others wait, and their time runs.
        at_once: u64,
    },
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(workers) => write!(f, "closed, {workers} at once"),
            Self::Open(rate) => write!(f, "open, {rate:.0}/s"),
            Self::Once { count, at_once } => write!(f, "{count}, once each, {at_once} at once"),
            Self::Storm { count, at_once } => write!(f, "{count}, all due at once, {at_once} under way"),
        }
    }
}

impl Plan {
    /// Each of so many once, so many at once.
    pub(crate) fn once(count: u64, at_once: u64) -> Self {
        Self::to_the_end(Load::Once { count, at_once })
    }

    /// Each of so many once, all due at the beginning.
    pub(crate) fn storm(count: u64, at_once: u64) -> Self {
        Self::to_the_end(Load::Storm { count, at_once })
    }

    fn to_the_end(load: Load) -> Self {
        Self { load, warm_up: Duration::ZERO, measured: Duration::ZERO }
    }
}

/// Whose CPU time and memory are looked at, and who may end it before its time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watched {
    pub(crate) joind: Option<Processes>,
    pub(crate) postgres: Option<Processes>,
    pub(crate) interrupt: CancellationToken,
}

struct Tally {
    load: Load,
    begin: Instant,
    /// None for a load that ends by itself: all of it is measured.
    end: Option<Instant>,
    kept: Mutex<Kept>,
    /// Ends everything once something broke: what comes after it is worth nothing.
    broke: CancellationToken,
}

struct Kept {
    all: Histogram<u64>,
    seconds: Vec<Histogram<u64>>,
    refusals: BTreeMap<String, u64>,
    /// Ended within the measured time, refused ones included: what the CPU time of this time was spent on.
    ended: u64,
    /// Ended at any time.
    made: u64,
    broken: Option<String>,
}

impl Tally {
    fn new(plan: Plan, begin: Instant) -> Self {
        let end = match plan.load {
            Load::Closed(_) | Load::Open(_) => Some(begin + plan.measured),
            Load::Once { .. } | Load::Storm { .. } => None,
        };
        let kept =
            Kept { all: histogram(), seconds: Vec::new(), refusals: BTreeMap::new(), ended: 0, made: 0, broken: None };
        Self { load: plan.load, begin, end, kept: Mutex::new(kept), broke: CancellationToken::new() }
    }

    /// How it goes, in words.
    fn told(&self) -> String {
        let kept = self.kept();
        let passed = self.begin.elapsed();
        if passed.is_zero() {
            return format!("warm-up, {}", kept.made);
        }
        let refused = match kept.refusals.values().sum::<u64>() {
            0 => String::new(),
            refused => format!(", {refused} refused"),
        };
        let p99 = ms(kept.all.value_at_quantile(0.99));
        format!("{}, {:.0}/s, p99 {p99:.1} ms{refused}", kept.ended, to_f64(kept.all.len()) / passed.as_secs_f64())
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, started: Instant, outcome: Result<(), JoinError>) {
        let now = Instant::now();
        let within = |time: Instant| time >= self.begin && self.end.is_none_or(|end| time < end);
        let belongs_at = match self.load {
            Load::Open(_) => started,
            Load::Closed(_) | Load::Once { .. } | Load::Storm { .. } => now,
        };
        let measured = within(belongs_at);
        let mut kept = self.kept();
        kept.made += 1;
        if within(now) && matches!(outcome, Ok(()) | Err(JoinError::Refused(_))) {
            kept.ended += 1;
        }
        match outcome {
            Ok(()) if measured => {
                let took = now.duration_since(started);
                let second = usize::try_from(belongs_at.duration_since(self.begin).as_secs()).unwrap_or_default();
                record(&mut kept.all, took);
                if kept.seconds.len() <= second {
                    kept.seconds.resize_with(second + 1, histogram);
                }
                record(&mut kept.seconds[second], took);
            }
            Err(JoinError::Refused(code)) if measured => *kept.refusals.entry(code).or_default() += 1,
            Ok(()) | Err(JoinError::Refused(_)) => {}
            Err(error @ (JoinError::Unconnected(_) | JoinError::Broken(_))) => {
                kept.broken.get_or_insert_with(|| error.to_string());
                self.broke.cancel();
            }
        }
    }
}

/// Does the jobs again and again; numbers count up from 0, and in a closed loop those of one worker are equal modulo their
/// count.
///
/// # Errors
/// As soon as a connection or the protocol broke, when answers never came, or when it is interrupted: a [`Cut`], with what was
/// seen until then. A refusal is an answer, and no error. When a worker panicked, or handshakes were not those asked for.
pub(crate) async fn drive(what: &str, plan: Plan, watched: &Watched, jobs: impl Jobs) -> anyhow::Result<Measured> {
    let begin = Instant::now() + plan.warm_up;
    let tally = Arc::new(Tally::new(plan, begin));
    let before = jobs.handshakes();
    let (under_way, over) = oneshot::channel::<()>();
    let watching = watch(what.to_owned(), plan, watched.clone(), Arc::clone(&tally), over);
    let watching = AbortOnDropHandle::new(tokio::spawn(watching));
    let jobs = Arc::new(jobs);
    let end = begin + plan.measured;
    let all = async {
        match plan.load {
            Load::Closed(workers) => closed(workers, end, &tally, &jobs).await,
            Load::Open(rate) => open(rate, plan, end, &tally, &jobs).await,
            Load::Once { count, at_once } => once(count, at_once, None, &tally, &jobs).await,
            Load::Storm { count, at_once } => once(count, at_once, Some(begin), &tally, &jobs).await,
        }
    };
    let mut interrupted = false;
    tokio::select! {
        done = all => done.with_context(|| what.to_owned())?,
        () = tally.broke.cancelled() => {}
        () = watched.interrupt.cancelled() => interrupted = true,
    }
    let passed = begin.elapsed();
    let seconds = tally.end.map_or(passed, |_| passed.min(plan.measured));
    drop(under_way);
    let (spent, used_by_second) = watching.await?;

    let kept = tally.kept();
    let handshakes = jobs.handshakes().zip(before).map(|(after, before)| after.since(&before));
    let per_join = |cpu: Option<f64>| cpu.map(|cpu| cpu / to_f64(kept.ended.max(1)));
    let idle = histogram();
    let latencies = kept.seconds.iter().chain(std::iter::repeat(&idle));
    let timeline = used_by_second.into_iter().zip(latencies).map(|(used, latencies)| Second {
        joins: latencies.len(),
        p50_ms: ms(latencies.value_at_quantile(0.5)),
        p99_ms: ms(latencies.value_at_quantile(0.99)),
        ..used
    });
    let measured = Measured {
        refusals: kept.refusals.clone(),
        made: kept.made,
        handshakes,
        cpu: Cpu {
            joind_us: per_join(spent.joind_us),
            postgres_us: per_join(spent.postgres_us),
            generator_us: per_join(spent.generator_us),
        },
        timeline: timeline.collect(),
        ..Measured::of(what, plan.load.to_string(), seconds.as_secs_f64(), &kept.all)
    };
    if let Some(why) = &kept.broken {
        return Err(Cut::new("broken", measured, anyhow!("{what}: {why}")).into());
    }
    if interrupted {
        let when = if passed.is_zero() { " in the warm-up" } else { "" };
        return Err(Cut::new("interrupted", measured, anyhow!("{what}: interrupted{when}")).into());
    }
    if let Some(seen) = &handshakes {
        jobs.check(kept.made, seen).with_context(|| what.to_owned())?;
        if seen.reopened > 0 {
            eprintln!("{what}: {} kept connections had been closed, and were opened again", seen.reopened);
        }
    }
    Ok(measured)
}

async fn closed<J: Jobs>(workers: u64, end: Instant, tally: &Arc<Tally>, jobs: &Arc<J>) -> anyhow::Result<()> {
    let mut running = JoinSet::new();
    for worker in 0..workers {
        let (tally, jobs) = (Arc::clone(tally), Arc::clone(jobs));
        running.spawn(async move {
            let mut number = worker;
            while Instant::now() < end {
                let started = Instant::now();
                tally.count(started, jobs.job(number).await);
                number += workers;
            }
        });
    }
    while let Some(ended) = running.join_next().await {
        ended.context("a worker failed")?;
    }
    Ok(())
}

async fn open<J: Jobs>(rate: f64, plan: Plan, end: Instant, tally: &Arc<Tally>, jobs: &Arc<J>) -> anyhow::Result<()> {
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
        let (tally, jobs) = (Arc::clone(tally), Arc::clone(jobs));
        under_way.spawn(async move { tally.count(intended, jobs.job(number).await) });
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
            Err(_) => {
                let why = format!("{} joins had no answer {} s after the end", under_way.len(), PATIENCE.as_secs());
                tally.kept().broken.get_or_insert(why);
                return Ok(());
            }
        }
    }
}

/// Each number below `count` once. Where all are `due` at one moment, their time counts from then.
async fn once<J: Jobs>(
    count: u64,
    at_once: u64,
    due: Option<Instant>,
    tally: &Arc<Tally>,
    jobs: &Arc<J>,
) -> anyhow::Result<()> {
    let next = Arc::new(AtomicU64::new(0));
    let mut running = JoinSet::new();
    for _ in 0..at_once.min(count) {
        let (next, tally, jobs) = (Arc::clone(&next), Arc::clone(tally), Arc::clone(jobs));
        running.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return;
                }
                let started = due.unwrap_or_else(Instant::now);
                tally.count(started, jobs.job(number).await);
            }
        });
    }
    while let Some(ended) = running.join_next().await {
        ended.context("a worker failed")?;
    }
    Ok(())
}

/// Samples CPU and memory each second, and tells how it goes: to the end of the measured time, or until it is over.
async fn watch(
    what: String,
    plan: Plan,
    watched: Watched,
    tally: Arc<Tally>,
    over: oneshot::Receiver<()>,
) -> (Cpu, Vec<Second>) {
    let bar = match plan.load {
        Load::Closed(_) | Load::Open(_) => ProgressBar::new((plan.warm_up + plan.measured).as_secs().max(1)),
        Load::Once { count, .. } | Load::Storm { count, .. } => ProgressBar::new(count),
    };
    bar.set_style(
        ProgressStyle::with_template("{prefix:34} [{bar:30}] {elapsed} {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    bar.set_prefix(what.clone());
    let (started, mut next_told) = (Instant::now(), TOLD);
    let mut tell = || {
        let passed = started.elapsed();
        bar.set_position(tally.end.map_or_else(|| tally.kept().ended, |_| passed.as_secs()));
        let told = tally.told();
        if bar.is_hidden() && passed >= next_told {
            eprintln!("{what}: {} s: {told}", passed.as_secs());
            next_told += TOLD;
        }
        bar.set_message(told);
    };
    let own = Processes::own();
    let sample = || Cpu {
        joind_us: watched.joind.as_ref().map(Processes::cpu_us),
        postgres_us: watched.postgres.as_ref().map(Processes::cpu_us),
        generator_us: Some(own.cpu_us()),
    };
    let begin = tally.begin;
    let over = async {
        let end = async {
            match tally.end {
                Some(end) => tokio::time::sleep_until(end.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = end => {}
            // An error only says that the other side is gone, as it is meant to be.
            _ = over => {}
        }
    };
    tokio::pin!(over);
    while let Some(left) = begin.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        tell();
        tokio::select! {
            () = &mut over => {
                bar.finish_and_clear();
                return (Cpu::default(), Vec::new());
            }
            () = tokio::time::sleep(left.min(Duration::from_secs(1))) => {}
        }
    }
    let first = sample();
    let (mut last, mut last_at) = (first, begin);
    let mut seconds = Vec::new();
    for second in 1.. {
        let more = tokio::select! {
            biased;
            () = &mut over => false,
            () = tokio::time::sleep_until((begin + Duration::from_secs(second)).into()) => true,
        };
        let (now, at) = (sample(), Instant::now());
        let passed = at.duration_since(last_at);
        let cores =
            |of: fn(&Cpu) -> Option<f64>| Some((of(&now)? - of(&last)?) / passed.as_secs_f64().max(f64::EPSILON) / 1e6);
        if passed >= HALF || seconds.is_empty() {
            seconds.push(Second {
                joind_cores: cores(|cpu| cpu.joind_us),
                postgres_cores: cores(|cpu| cpu.postgres_us),
                generator_cores: cores(|cpu| cpu.generator_us),
                joind_mb: watched.joind.as_ref().map(Processes::memory_mb),
                postgres_mb: watched.postgres.as_ref().map(Processes::memory_mb),
                generator_mb: Some(own.memory_mb()),
                ..Second::default()
            });
        }
        (last, last_at) = (now, at);
        tell();
        if !more {
            break;
        }
    }
    bar.finish_and_clear();
    let spent = |of: fn(&Cpu) -> Option<f64>| Some(of(&last)? - of(&first)?);
    let spent = Cpu {
        joind_us: spent(|cpu| cpu.joind_us),
        postgres_us: spent(|cpu| cpu.postgres_us),
        generator_us: spent(|cpu| cpu.generator_us),
    };
    (spent, seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let done = drive("a stall", plan(Load::Open(100.0)), &Watched::default(), job).await?;
        assert_eq!(done.joins, 100);
        assert!(done.p50_ms < 400.0 && done.p99_ms >= 500.0, "{} and {}", done.p50_ms, done.p99_ms);
        Ok(())
    }

    #[tokio::test]
    async fn a_panic_ends_the_run() {
        for load in [Load::Open(100.0), Load::Closed(2)] {
            let nobody = Watched::default();
            let failed = drive("a panic", plan(load), &nobody, |number| async move {
                assert!(number < 5, "the sixth join");
                tokio::time::sleep(Duration::from_millis(1)).await;
                Ok(())
            });
            assert!(failed.await.is_err(), "{load:?}");
        }
    }

    #[tokio::test]
    async fn what_broke_or_was_interrupted_ends_at_once_and_says_what_was_seen() {
        let long = |load| Plan { measured: Duration::from_secs(600), ..plan(load) };
        for plan in [long(Load::Open(100.0)), long(Load::Closed(1)), Plan::once(1_000_000, 1)] {
            let breaking = |number| async move {
                tokio::time::sleep(Duration::from_millis(1)).await;
                // The others hang.
                match number {
                    0..5 => Ok(()),
                    5 => Err(JoinError::Broken("the sixth join".to_owned())),
                    _ => std::future::pending().await,
                }
            };
            let broken = drive("a break", plan, &Watched::default(), breaking).await.unwrap_err();
            let cut: &Cut = broken.downcast_ref().unwrap();
            assert_eq!((cut.how, cut.to_string().as_str()), ("broken", "a break: broken: the sixth join"));
            assert!(cut.measured.joins == 5 && cut.measured.seconds < 60.0, "{:?}", cut.measured);

            let watched = Watched::default();
            let job = |_| async {
                tokio::time::sleep(Duration::from_millis(1)).await;
                Ok(())
            };
            let (ended, ()) = tokio::join!(drive("an interruption", plan, &watched, job), async {
                tokio::time::sleep(Duration::from_millis(300)).await;
                watched.interrupt.cancel();
            });
            let ended = ended.unwrap_err();
            let cut: &Cut = ended.downcast_ref().unwrap();
            assert_eq!(cut.how, "interrupted");
            assert!(cut.measured.joins > 0 && cut.measured.seconds < 60.0, "{:?}", cut.measured);
        }
    }

    #[tokio::test]
    async fn in_a_storm_those_who_wait_for_room_wait_from_the_beginning() -> anyhow::Result<()> {
        let job = |_| async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Ok(())
        };
        let once = drive("in turn", Plan::once(40, 10), &Watched::default(), job).await?;
        let storm = drive("a storm", Plan::storm(40, 10), &Watched::default(), job).await?;
        for done in [&once, &storm] {
            assert_eq!((done.joins, done.timeline.len()), (40, 1));
            assert!(done.seconds >= 0.4, "{}", done.seconds);
        }
        assert!(
            once.p50_ms < 200.0 && storm.p50_ms >= 200.0 && storm.max_ms >= 400.0,
            "{} {}",
            once.p50_ms,
            storm.p50_ms
        );
        Ok(())
    }
}
