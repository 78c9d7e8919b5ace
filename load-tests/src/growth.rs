//! `joinload growth`: does size cost anything? The same figures on a small authority, on one with many tokens and on one
//! with a long history; then, with many tokens, memory with many live bots and under overload, and how long a start takes.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::ensure;
use serde_json::json;
use sqlx::{Connection as _, PgConnection};

use crate::{
    authority::{self, Authority, Setup},
    fleet::{Connections, Fleet},
    floor::median,
    history,
    import::{Import, import},
    overload::overload,
    pace::{Load, Measured, Plan, drive},
    process::{Processes, to_f64},
    profiles::{AT_ONCE, KEPT, every_bot_joins, nobody_refused, recovering, renewing},
    report::Report,
    verify,
};

/// Tokens of the small authority.
const SMALL: u64 = 1000;

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

/// Numbers of the tokens that are measured: always as many, so that generator and node have the same to hold, and spread
/// over all there are, so that their rows lie as far apart as the authority is large.
fn measured_numbers(tokens: u64) -> impl Iterator<Item = u64> {
    let apart = tokens / SMALL;
    (0..SMALL).map(move |number| number * apart)
}

/// Numbers of others, spread as well.
fn other_numbers(tokens: u64, count: u64) -> impl Iterator<Item = u64> {
    let apart = tokens / SMALL;
    let others = (0..tokens).filter(move |number| !number.is_multiple_of(apart) || number / apart >= SMALL);
    let step = ((tokens - SMALL) / count.max(1)).max(1);
    others.step_by(usize::try_from(step).unwrap_or(usize::MAX)).take(usize::try_from(count).unwrap_or(usize::MAX))
}

/// An authority and its fleet of 1000.
struct Side {
    size: &'static str,
    authority: Authority,
    fleet: Arc<Fleet>,
    /// Recoveries over kept connections and renewals of each round.
    rounds: Vec<[Measured; 2]>,
}

/// An authority with so much in it, and no node yet.
async fn provide(options: &Options, tokens: u64, events: u64) -> anyhow::Result<Authority> {
    let mut authority = Authority::start(options.setup.clone()).await?;
    // Nobody else may append meanwhile.
    authority.stop_node().await?;
    history::fill(&authority.superuser(), events).await?;
    let tokens = Import { seed: options.seed, first: 0, count: tokens, joined: false };
    import(&authority.superuser(), tokens).await?;
    Ok(authority)
}

/// Lets a node write the log's files of what is there.
async fn write_log(authority: &mut Authority) -> anyhow::Result<()> {
    authority.keep_log(true)?;
    authority.start_node().await?;
    let begun = Instant::now();
    authority.settle().await?;
    eprintln!("the log's files were written in {:.1} s", begun.elapsed().as_secs_f64());
    authority.stop_node().await?;
    authority.keep_log(false)
}

impl Side {
    async fn start(
        options: &Options,
        size: &'static str,
        tokens: u64,
        mut authority: Authority,
    ) -> anyhow::Result<Self> {
        authority.start_node().await?;
        authority.settle().await?;
        let mut fleet = Fleet::preregistered(authority.target()?, options.seed, measured_numbers(tokens))?;
        fleet.keep_connections(KEPT).await?;
        let side = Self { size, authority, fleet: Arc::new(fleet), rounds: Vec::new() };
        let what = format!("first joins, {size}");
        every_bot_joins(&what, AT_ONCE, &side.authority.watched()?, &side.fleet).await?;
        Ok(side)
    }

    async fn measure(&mut self, options: &Options) -> anyhow::Result<()> {
        let plan = Plan {
            load: Load::Closed(AT_ONCE),
            warm_up: Duration::from_secs(1),
            measured: Duration::from_secs(options.seconds),
        };
        let watched = self.authority.watched()?;
        let recoveries = recovering(&self.fleet, Connections::Kept);
        let kept = drive(&format!("recoveries, kept, {}", self.size), plan, &watched, recoveries).await?;
        let renewed = drive(&format!("renewals, {}", self.size), plan, &watched, renewing(&self.fleet)).await?;
        nobody_refused(&kept)?;
        nobody_refused(&renewed)?;
        self.rounds.push([kept, renewed]);
        Ok(())
    }

    /// The books, so far as the fleet is in them.
    async fn verify(&self, report: &mut Report) -> anyhow::Result<()> {
        let ledger = self.authority.ledger().await?;
        let joins = verify::fleet(&ledger, &self.fleet).await?;
        ledger.close().await;
        report.checked(&format!(
            "{}: all {joins} joins of the measured fleet are in the ledger and no other, generations are gapless",
            self.size
        ));
        Ok(())
    }

    /// The books as a whole. Not for a history that was made without its guard rows.
    async fn rebuild(&self, report: &mut Report) -> anyhow::Result<()> {
        self.authority.settle().await?;
        let ledger = self.authority.ledger().await?;
        let entries = verify::rebuilt(&ledger).await?;
        ledger.close().await;
        report.checked(&format!("{}: {entries} entries give the guard rows and views that are stored", self.size));
        Ok(())
    }
}

/// Runs everything.
pub(crate) async fn run(options: &Options) -> anyhow::Result<Report> {
    ensure!(options.tokens >= SMALL, "the large authority has {SMALL} tokens at least");
    let mut report = Report::new("growth", options.seed);
    report.service(authority::version(&options.setup.joind)?);
    let small = provide(options, SMALL, 0).await?;
    let mut many = provide(options, options.tokens, 0).await?;
    // Only one of the two takes a core to itself, and nothing is measured yet.
    let ((), long) = tokio::try_join!(write_log(&mut many), provide(options, SMALL, options.events))?;
    let mut sides = [
        Side::start(options, "a thousand tokens", SMALL, small).await?,
        Side::start(options, "many tokens", options.tokens, many).await?,
        Side::start(options, "a long history", SMALL, long).await?,
    ];
    report.figure("tokens", to_f64(options.tokens));
    report.figure("events", to_f64(history::count(&sides[2].authority.superuser()).await?));
    for _ in 0..options.rounds {
        for side in &mut sides {
            side.measure(options).await?;
        }
        // Whoever came first comes last in the next round: no side has the same neighbour's dirt in each.
        sides.rotate_left(1);
    }
    let turned = usize::try_from(options.rounds)? % sides.len();
    sides.rotate_right(turned);
    for side in &sides {
        side.verify(&mut report).await?;
    }
    let [small, mut many, long] = sides;
    small.rebuild(&mut report).await?;
    for (of, large) in [("tokens", &many), ("events", &long)] {
        ratios(of, &small, large, &mut report);
    }
    for round in 0..small.rounds.len() {
        for side in [&small, &many, &long] {
            side.rounds[round].iter().for_each(|done| report.add(done.clone()));
        }
    }
    drop((small, long));

    memory(options, &mut many, &mut report).await?;
    cold_starts(options, &mut many.authority, &mut report).await?;
    many.rebuild(&mut report).await?;
    Ok(report)
}

/// What a large authority does of what a small one does, round by round: 1 when size costs nothing.
fn ratios(of: &str, small: &Side, large: &Side, report: &mut Report) {
    let mut least = f64::INFINITY;
    for (index, what) in ["kept", "renewal"].into_iter().enumerate() {
        let ratio = |value: fn(&Measured) -> f64| -> Vec<f64> {
            let rounds = large.rounds.iter().zip(&small.rounds);
            rounds.map(|(large, small)| value(&large[index]) / value(&small[index])).collect()
        };
        let joins = ratio(|one| one.joins_per_s);
        least = least.min(median(joins.clone()));
        report.spread(&format!("growth_{of}_{what}_joins"), joins);
        report.spread(&format!("growth_{of}_{what}_joind_cpu"), ratio(|one| one.cpu.joind()));
        report.spread(&format!("growth_{of}_{what}_postgres_cpu"), ratio(|one| one.cpu.postgres()));
        report.spread(&format!("growth_{of}_{what}_p99"), ratio(|one| one.p99_ms));
    }
    report.figure(&format!("growth_{of}"), least);
}

/// A node as it is run, with the log's files, that knows many live bots; and then too many joins.
async fn memory(options: &Options, side: &mut Side, report: &mut Report) -> anyhow::Result<()> {
    let peaks = [0, 1].map(|which| median(side.rounds.iter().map(|round| round[which].joins_per_s).collect()));
    let authority = &mut side.authority;
    authority.stop_node().await?;
    authority.keep_log(true)?;
    authority.start_node().await?;
    authority.settle().await?;
    // What the files took that were owed is not part of a node's memory.
    authority.stop_node().await?;
    authority.start_node().await?;
    let before = joind_mb(authority)?;

    let numbers = other_numbers(options.tokens, options.live_bots);
    let mut fleet = Fleet::preregistered(authority.target()?, options.seed, numbers)?;
    fleet.keep_connections(KEPT).await?;
    let fleet = Arc::new(fleet);
    let joined = every_bot_joins("live bots", AT_ONCE, &authority.watched()?, &fleet).await?.joins;
    authority.settle().await?;
    report.figure("rss_mb_before", before);
    report.figure("rss_mb_100k_bots", joind_mb(authority)?);
    report.figure("live_bots", to_f64(joined));
    overload(peaks, 2 * options.seconds, authority, fleet, report).await
}

fn joind_mb(authority: &Authority) -> anyhow::Result<f64> {
    Ok(authority.watched()?.joind.as_ref().map_or(0.0, Processes::memory_mb))
}

/// From the start of the process until it is ready, several times.
async fn cold_starts(options: &Options, authority: &mut Authority, report: &mut Report) -> anyhow::Result<()> {
    let mut seconds = Vec::new();
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
        "log_files": "only for memory, overload and starts",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measured_tokens_and_live_ones_lie_far_apart_and_never_meet() {
        for (tokens, live, expected) in [(1_000_000, 100_000, 100_000), (1500, 400, 400), (1000, 100, 0)] {
            let measured: std::collections::BTreeSet<_> = measured_numbers(tokens).collect();
            let others: Vec<_> = other_numbers(tokens, live).collect();
            assert_eq!((measured.len(), others.len()), (1000, expected), "of {tokens}");
            assert!(others.iter().all(|number| *number < tokens && !measured.contains(number)));
        }
        assert_eq!(measured_numbers(1_000_000).last(), Some(999_000));
        assert!(other_numbers(1_000_000, 100_000).last() > Some(900_000));
    }
}
