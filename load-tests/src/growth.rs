//! `joinload growth`: does size cost anything? The same figures on a small authority, on one with many tokens, on one between
//! them, and on one with a long history; then, with many tokens, a cold cache, memory with many live bots and under
//! overload, and how long a start takes.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use serde_json::json;
use sqlx::{Connection as _, PgConnection};

use crate::{
    authority::{self, Authority, Setup},
    cold::cold_cache,
    fleet::{Connections, Fleet},
    floor::median,
    history, host,
    import::{Import, import},
    measured::Measured,
    overload::overload,
    pace::{Load, Plan, drive},
    process::{Processes, to_f64},
    profiles::{AT_ONCE, KEPT, every_bot_joins, nobody_refused, recovering, renewing},
    report::Report,
    verify,
};

/// Tokens of the small authority.
const SMALL: u64 = 1000;
/// Sizes that figures are named after, or that targets are about.
const MILLION_TOKENS: u64 = 1_000_000;
const FIFTY_MILLION_EVENTS: u64 = 50_000_000;
const LIVE_BOTS: u64 = 100_000;

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

/// Recoveries over kept connections, and renewals.
type Round = [Measured; 2];

/// An authority and its fleet of 1000.
struct Side {
    size: &'static str,
    authority: Authority,
    fleet: Arc<Fleet>,
    at_peak: Vec<Round>,
    /// At half of what the small authority does at its peak.
    at_half: Vec<Round>,
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
        let side = Self { size, authority, fleet: Arc::new(fleet), at_peak: Vec::new(), at_half: Vec::new() };
        let what = format!("first joins, {size}");
        every_bot_joins(&what, AT_ONCE, &side.authority.watched()?, &side.fleet).await?;
        Ok(side)
    }

    async fn round(&self, options: &Options, loads: [Load; 2], how: &str) -> anyhow::Result<Round> {
        let [kept, renewed] = loads.map(|load| Plan {
            load,
            warm_up: Duration::from_secs(1),
            measured: Duration::from_secs(options.seconds),
        });
        let watched = self.authority.watched()?;
        let recoveries = recovering(&self.fleet, Connections::Kept);
        let kept = drive(&format!("recoveries, kept, {}{how}", self.size), kept, &watched, recoveries).await?;
        let renewals = renewing(&self.fleet);
        let renewed = drive(&format!("renewals, {}{how}", self.size), renewed, &watched, renewals).await?;
        nobody_refused(&kept)?;
        nobody_refused(&renewed)?;
        Ok([kept, renewed])
    }

    /// Joins a second at the peak: recoveries, and renewals.
    fn peaks(&self) -> [f64; 2] {
        [0, 1].map(|which| median(self.at_peak.iter().map(|round| round[which].joins_per_s).collect()))
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
    let others = options.tokens - SMALL.min(options.tokens);
    ensure!(
        options.live_bots <= others,
        "--live-bots {}: beside the {SMALL} that are measured there are {others} of {} tokens",
        options.live_bots,
        options.tokens
    );
    let mut report = Report::new("growth", options.seed);
    report.service(authority::version(&options.setup.joind)?);
    report.postgres(join_embedded::Binaries::find()?.version());
    let between = (SMALL * options.tokens).isqrt() / SMALL * SMALL;
    let small = provide(options, SMALL, 0).await?;
    let middle = provide(options, between, 0).await?;
    let mut many = provide(options, options.tokens, 0).await?;
    // Only one of the two takes a core to itself, and nothing is measured yet.
    let ((), long) = tokio::try_join!(write_log(&mut many), provide(options, SMALL, options.events))?;
    let mut sides = [
        Side::start(options, "a thousand tokens", SMALL, small).await?,
        Side::start(options, "a size between", between, middle).await?,
        Side::start(options, "many tokens", options.tokens, many).await?,
        Side::start(options, "a long history", SMALL, long).await?,
    ];
    report.figure("tokens", to_f64(options.tokens));
    report.figure("tokens_between", to_f64(between));
    report.figure("events", to_f64(history::count(&sides[3].authority.superuser()).await?));
    for turn in turns(options.rounds) {
        for index in turn {
            let round = sides[index].round(options, [Load::Closed(AT_ONCE); 2], "").await?;
            sides[index].at_peak.push(round);
        }
    }
    // The same for all, or latencies could not be compared.
    let half = sides[0].peaks().map(|peak| Load::Open(peak / 2.0));
    for turn in turns(options.rounds) {
        for index in turn {
            let round = sides[index].round(options, half, ", half of peak").await?;
            sides[index].at_half.push(round);
        }
    }
    for side in &sides {
        side.verify(&mut report).await?;
    }
    let [small, middle, mut many, long] = sides;
    small.rebuild(&mut report).await?;
    middle.rebuild(&mut report).await?;
    let sizes = [
        ("between", &middle, [between, between], "tokens"),
        ("tokens", &many, [options.tokens, MILLION_TOKENS], "tokens"),
        ("events", &long, [options.events, FIFTY_MILLION_EVENTS], "events"),
    ];
    for (of, large, size, what) in sizes {
        let least = ratios(of, &small, large, &mut report);
        of_size(&mut report, &format!("growth_{of}"), vec![least], size, what);
    }
    let all = [&small, &middle, &many, &long];
    for rounds in [all.map(|side| &side.at_peak), all.map(|side| &side.at_half)] {
        for round in 0..rounds[0].len() {
            rounds.iter().flat_map(|side| &side[round]).for_each(|done| report.add(done.clone()));
        }
    }
    drop((small, middle, long));

    memory(options, &mut many, &mut report).await?;
    cold_starts(options, &mut many.authority, &mut report).await?;
    many.rebuild(&mut report).await?;
    Ok(report)
}

/// In which order the four are measured. Whoever came first comes last in the next round: no side has the same neighbour's
/// dirt in each.
fn turns(rounds: u32) -> impl Iterator<Item = [usize; 4]> {
    let mut turn = [0, 1, 2, 3];
    (0..rounds).map(move |_| {
        let this = turn;
        turn.rotate_left(1);
        this
    })
}

/// A figure whose name or target tells a size is one of an authority of that size, or none.
fn of_size(report: &mut Report, name: &str, values: Vec<f64>, [measured, promised]: [u64; 2], of: &str) {
    if measured >= promised {
        report.spread(name, values);
    } else {
        report.left_out(name, &format!("it is about {promised} {of}; with {measured} it was {:.3}", median(values)));
    }
}

/// What a large authority does of what a small one does, round by round: 1 when size costs nothing. Returns the smaller
/// of the two medians of joins a second.
fn ratios(of: &str, small: &Side, large: &Side, report: &mut Report) -> f64 {
    let mut least = f64::INFINITY;
    for (index, what) in ["kept", "renewal"].into_iter().enumerate() {
        let compared = |large: &[Round], small: &[Round], value: fn(&Measured) -> f64| -> Vec<f64> {
            let rounds = large.iter().zip(small);
            rounds.map(|(large, small)| value(&large[index]) / value(&small[index])).collect()
        };
        let ratio = |value| compared(&large.at_peak, &small.at_peak, value);
        let joins = ratio(|one| one.joins_per_s);
        least = least.min(median(joins.clone()));
        report.spread(&format!("growth_{of}_{what}_joins"), joins);
        report.spread(&format!("growth_{of}_{what}_joind_cpu"), ratio(|one| one.cpu.joind()));
        report.spread(&format!("growth_{of}_{what}_postgres_cpu"), ratio(|one| one.cpu.postgres()));
        report.spread(&format!("growth_{of}_{what}_p99"), ratio(|one| one.p99_ms));
        let at_half = compared(&large.at_half, &small.at_half, |one| one.p99_ms);
        report.spread(&format!("growth_{of}_{what}_p99_at_half_peak"), at_half);
    }
    least
}

/// A node as it is run, with the log's files: many live bots that it does not remember, then does; and then too many joins.
async fn memory(options: &Options, side: &mut Side, report: &mut Report) -> anyhow::Result<()> {
    let peaks = side.peaks();
    let authority = &mut side.authority;
    authority.stop_node().await?;
    authority.keep_log(true)?;
    authority.start_node().await?;
    authority.settle().await?;
    let numbers = other_numbers(options.tokens, options.live_bots);
    let mut fleet = Fleet::preregistered(authority.target()?, options.seed, numbers)?;
    fleet.keep_connections(KEPT).await?;
    let mut fleet = Arc::new(fleet);
    let joined = every_bot_joins("first joins, live bots", AT_ONCE, &authority.watched()?, &fleet).await?.joins;
    cold_cache(options.rounds, options.seconds, authority, [&mut fleet, &mut side.fleet], report).await?;

    authority.settle().await?;
    authority.stop_node().await?;
    authority.start_node().await?;
    Arc::get_mut(&mut fleet).context("the fleet still joins")?.move_to(authority.target()?);
    report.figure("rss_mb_before", joind_mb(authority)?);
    every_bot_joins("recoveries, live bots", AT_ONCE, &authority.watched()?, &fleet).await?;
    authority.settle().await?;
    let ledger = authority.ledger().await?;
    let joins = verify::fleet(&ledger, &fleet).await? + verify::fleet(&ledger, &side.fleet).await?;
    ledger.close().await;
    report.checked(&format!(
        "{}, before the overload: all {joins} joins of the measured fleet and of the live bots are in the ledger and no other",
        side.size
    ));
    of_size(report, "rss_mb_100k_bots", vec![joind_mb(authority)?], [joined, LIVE_BOTS], "bots");
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
    of_size(report, "cold_start_s_1m_tokens", seconds, [options.tokens, MILLION_TOKENS], "tokens");
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
        "rounds": options.rounds,
        "seconds": options.seconds,
        "writers": options.setup.writers(),
        "writeback": host::writeback(),
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
        for (tokens, live, expected) in [(1_000_000, 100_000, 100_000), (2500, 400, 400), (2000, 1000, 1000)] {
            let measured: std::collections::BTreeSet<_> = measured_numbers(tokens).collect();
            let others: Vec<_> = other_numbers(tokens, live).collect();
            assert_eq!((measured.len(), others.len()), (1000, expected), "of {tokens}");
            assert!(others.iter().all(|number| *number < tokens && !measured.contains(number)));
        }
        assert_eq!(measured_numbers(1_000_000).last(), Some(999_000));
        assert!(other_numbers(1_000_000, 100_000).last() > Some(900_000));
    }
}
