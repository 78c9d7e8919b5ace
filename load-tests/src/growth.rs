//! `joinload growth`: does size cost anything? The same figures on a small authority, on one with many tokens and on one
//! with a long history, memory with many live bots, and how long an authority with many tokens takes to start.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::ensure;
use serde_json::json;
use sqlx::{Connection as _, PgConnection};

use crate::{
    authority::{Authority, Setup},
    bench::{every_bot_once, recovering, renewing},
    fleet::{Connections, Fleet},
    floor::median,
    history,
    import::{Import, import},
    pace::{Load, Measured, Plan, drive},
    process::{Processes, to_f64},
    report::Report,
};

/// Tokens of the small authority.
const SMALL: u64 = 1000;
/// Joins at once.
const AT_ONCE: u64 = 64;
const KEPT: usize = 16;

/// How large.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) setup: Setup,
    pub(crate) seed: u64,
    pub(crate) tokens: u64,
    pub(crate) events: u64,
    /// Bots that join, for the memory of a node that knows them.
    pub(crate) live_bots: u64,
    pub(crate) rounds: u32,
    pub(crate) seconds: u64,
}

/// An authority and its fleet of 1000.
struct Side {
    authority: Authority,
    fleet: Arc<Fleet>,
}

impl Side {
    async fn start(options: &Options, tokens: u64, events: u64) -> anyhow::Result<(Self, Duration)> {
        let mut authority = Authority::start(options.setup.clone()).await?;
        // Nobody else may append meanwhile.
        authority.stop_node().await?;
        let seed = options.seed;
        history::fill(&authority.superuser(), events).await?;
        import(&authority.superuser(), Import { seed, first: 0, count: tokens, joined: false }).await?;
        authority.start_node().await?;
        let ready = authority.ready_after();
        authority.settle().await?;
        let mut fleet = Fleet::preregistered(authority.target()?, seed, 0, SMALL)?;
        fleet.keep_connections(KEPT).await?;
        let side = Self { authority, fleet: Arc::new(fleet) };
        every_bot_once("first joins", &side.authority.watched()?, &side.fleet).await?;
        Ok((side, ready))
    }

    async fn measure(&self, size: &str, options: &Options) -> anyhow::Result<[Measured; 2]> {
        let plan = Plan {
            load: Load::Closed(AT_ONCE),
            warm_up: Duration::from_secs(1),
            measured: Duration::from_secs(options.seconds),
        };
        let watched = self.authority.watched()?;
        let recoveries = recovering(&self.fleet, Connections::Kept);
        let kept = drive(&format!("recoveries, kept, {size}"), plan, &watched, recoveries).await?;
        let renewed = drive(&format!("renewals, {size}"), plan, &watched, renewing(&self.fleet)).await?;
        ensure!(kept.refusals.is_empty() && renewed.refusals.is_empty(), "joins were refused");
        Ok([kept, renewed])
    }
}

/// Runs everything.
pub(crate) async fn run(options: &Options) -> anyhow::Result<Report> {
    let mut report = Report::new("growth", options.seed);
    let (small, _) = Side::start(options, SMALL, 0).await?;
    let (mut many, ready) = Side::start(options, options.tokens, 0).await?;
    let (long, _) = Side::start(options, SMALL, options.events).await?;
    report.figure("tokens", to_f64(options.tokens));
    report.figure("events", to_f64(history::count(&long.authority.superuser()).await?));
    let (mut by_tokens, mut by_events) = (Ratios::default(), Ratios::default());
    for _ in 0..options.rounds {
        let few = small.measure("a thousand tokens", options).await?;
        let tokens = many.measure("many tokens", options).await?;
        let events = long.measure("a long history", options).await?;
        by_tokens.add(&tokens, &few);
        by_events.add(&events, &few);
        [few, tokens, events].into_iter().flatten().for_each(|done| report.add(done));
    }
    drop((small, long));
    by_tokens.tell("tokens", &mut report);
    by_events.tell("events", &mut report);

    memory(options, &many.authority, &mut report).await?;
    cold_starts(options, &mut many.authority, ready, &mut report).await?;
    Ok(report)
}

/// What a large authority does of what a small one does, round by round: 1 when size costs nothing.
#[derive(Default)]
struct Ratios {
    kept: Vec<f64>,
    renewed: Vec<f64>,
    kept_cpu: Vec<f64>,
    renewed_cpu: Vec<f64>,
}

impl Ratios {
    fn add(&mut self, [kept, renewed]: &[Measured; 2], [small_kept, small_renewed]: &[Measured; 2]) {
        let cpu = |one: &Measured| one.cpu.joind_us + one.cpu.postgres_us;
        self.kept.push(kept.joins_per_s / small_kept.joins_per_s);
        self.renewed.push(renewed.joins_per_s / small_renewed.joins_per_s);
        self.kept_cpu.push(cpu(kept) / cpu(small_kept));
        self.renewed_cpu.push(cpu(renewed) / cpu(small_renewed));
    }

    fn tell(self, of: &str, report: &mut Report) {
        report.figure(&format!("growth_{of}"), median(self.kept.clone()).min(median(self.renewed.clone())));
        report.spread(&format!("growth_{of}_kept_joins"), self.kept);
        report.spread(&format!("growth_{of}_renewal_joins"), self.renewed);
        report.spread(&format!("growth_{of}_kept_cpu"), self.kept_cpu);
        report.spread(&format!("growth_{of}_renewal_cpu"), self.renewed_cpu);
    }
}

/// A node that knows many live bots.
async fn memory(options: &Options, authority: &Authority, report: &mut Report) -> anyhow::Result<()> {
    let first = SMALL;
    let count = options.live_bots.min(options.tokens.saturating_sub(first));
    let mut fleet = Fleet::preregistered(authority.target()?, options.seed, first, count)?;
    fleet.keep_connections(KEPT).await?;
    let before = joind_mb(authority)?;
    let (joined, refused) = every_bot_once("live bots", &authority.watched()?, &Arc::new(fleet)).await?;
    ensure!(joined == count && refused.is_empty(), "joins were refused: {refused:?}");
    authority.settle().await?;
    report.figure("rss_mb_before", before);
    report.figure("rss_mb_100k_bots", joind_mb(authority)?);
    report.figure("live_bots", to_f64(joined));
    Ok(())
}

fn joind_mb(authority: &Authority) -> anyhow::Result<f64> {
    Ok(authority.watched()?.joind.as_ref().map_or(0.0, Processes::memory_mb))
}

/// From the start of the process until it is ready, several times.
async fn cold_starts(
    options: &Options,
    authority: &mut Authority,
    first: Duration,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut seconds = vec![first.as_secs_f64()];
    for _ in 0..options.rounds {
        authority.stop_node().await?;
        authority.start_node().await?;
        seconds.push(authority.ready_after().as_secs_f64());
    }
    report.spread("cold_start_s_1m_tokens", seconds);
    let asked = Instant::now();
    let mut connection = PgConnection::connect_with(&authority.superuser()).await?;
    let streams: i64 =
        sqlx::query_scalar("SELECT count(*) FROM stream WHERE kind = 'token'").fetch_one(&mut connection).await?;
    connection.close().await?;
    report.note("tokens counted", &format!("{streams} in {:.1} s", asked.elapsed().as_secs_f64()));
    Ok(())
}

/// What a reader must know to judge the figures.
pub(crate) fn describe(options: &Options) -> serde_json::Value {
    json!({
        "seed": options.seed,
        "tokens": options.tokens,
        "events": options.events,
        "live_bots": options.live_bots,
        "fleet": SMALL,
        "joins_at_once": AT_ONCE,
        "postgres_settings": options.setup.postgres,
        "log_files": options.setup.log,
    })
}
