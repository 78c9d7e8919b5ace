//! `joinload bench`: everything against a private authority, in one run. Ratios first; what is compared is interleaved.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use anyhow::ensure;
use serde_json::json;

use crate::{
    administration,
    append::{self, Strategy},
    authority::{Authority, Setup},
    ceremony::{JoinError, Transport},
    fleet::{Connections, Fleet},
    floor::{self, Floor, median},
    host,
    import::{Import, import},
    pace::{Load, Measured, Plan, Watched, drive},
    process::to_f64,
    report::Report,
    verify,
};

/// Connections that a generator keeps.
const KEPT: usize = 16;
/// Joins at once at the peak.
const AT_ONCE: u64 = 64;

/// How a benchmark is run.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) setup: Setup,
    pub(crate) baseline: Option<PathBuf>,
    pub(crate) seed: u64,
    /// Bots of the main fleet.
    pub(crate) bots: u64,
    /// How often each of what is compared is measured.
    pub(crate) rounds: u32,
    /// Seconds of each measurement at the peak.
    pub(crate) seconds: u64,
    /// One part only.
    pub(crate) only: Option<Part>,
}

/// A part of a benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// The append path, beside others.
    Append,
    /// Renewals and recoveries at the peak.
    Peak,
    /// All joins.
    Joins,
}

impl Options {
    fn plan(&self, load: Load, seconds: u64) -> Plan {
        Plan { load, warm_up: Duration::from_secs(1), measured: Duration::from_secs(seconds) }
    }
}

/// Runs everything.
pub(crate) async fn run(options: &Options) -> anyhow::Result<Report> {
    let mut report = Report::new("bench", options.seed);
    if options.only.is_none_or(|part| part == Part::Append) {
        append_paths(options, &mut report).await?;
    }
    if options.only == Some(Part::Append) {
        return Ok(report);
    }
    let authority = Authority::start(options.setup.clone()).await?;
    import(
        &authority.superuser(),
        Import { seed: options.seed, first: 0, count: options.bots.next_multiple_of(1000), joined: false },
    )
    .await?;
    authority.settle().await?;
    let mut fleet = Fleet::preregistered(authority.target()?, options.seed, 0..options.bots)?;
    fleet.keep_connections(KEPT).await?;
    let fleet = Arc::new(fleet);
    first_joins(options, &authority, &fleet, &mut report).await?;
    peaks(options, &authority, &fleet, &mut report).await?;
    if options.only != Some(Part::Peak) {
        half_peaks(options, &authority, &fleet, &mut report).await?;
        others(options, &authority, &fleet, &mut report).await?;
    }

    authority.settle().await?;
    let ledger = authority.ledger().await?;
    let joins = verify::fleet(&ledger, &fleet).await?;
    let entries = verify::rebuilt(&ledger).await?;
    ledger.close().await;
    report.checked(&format!(
        "all {joins} joins of the main fleet are in the ledger and no other, generations are gapless; {entries} \
         entries give the guard rows and views that are stored"
    ));
    report.figure("full_handshakes_seen", to_f64(fleet.full_handshakes.load(Ordering::Relaxed)));
    ensure!(fleet.resumed_handshakes.load(Ordering::Relaxed) == 0, "a handshake was resumed, and should not");
    Ok(report)
}

/// Ours, one transaction for each, and the library's, in turns.
async fn append_paths(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let bench = append::Bench::prepare(options.baseline.clone()).await?;
    let time = Duration::from_secs(options.seconds.clamp(2, 4));
    let pgbench = append::pgbench_program();
    let (mut by_one, mut by_rows, mut by_library, mut pgbench_rates, mut rates) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        let ours = bench.run(Strategy::Ledger(2), time).await?;
        let single_writer = bench.run(Strategy::Ledger(1), time).await?;
        let one = bench.run(Strategy::OneTransaction, time).await?;
        let same_rows = bench.run(Strategy::OneTransactionSameRows, time).await?;
        rates.push(ours.joins_per_s);
        by_one.push(ours.joins_per_s / one.joins_per_s);
        by_rows.push(ours.joins_per_s / same_rows.joins_per_s);
        if let Some(library) = bench.run_baseline(time).await? {
            by_library.push(ours.joins_per_s / library.joins_per_s);
            report.add(library);
        }
        pgbench_rates.extend(bench.run_pgbench(time, &pgbench).await?);
        [ours, single_writer, one, same_rows].into_iter().for_each(|done| report.add(done));
    }
    report.figure("append_joins_per_s", median(rates));
    report.spread("append_vs_one_tx", by_one);
    report.spread("append_vs_one_tx_same_rows", by_rows);
    match by_library.is_empty() {
        false => report.spread("append_vs_postgres_es", by_library),
        true => report.left_out("append_vs_postgres_es", "the baseline's program was not built: --baseline"),
    }
    match pgbench_rates.is_empty() {
        false => report.spread("pgbench_inserts_per_s", pgbench_rates),
        true => report.left_out("pgbench_inserts_per_s", "there is no pgbench beside PostgreSQL's programs"),
    }
    Ok(())
}

/// Every bot once, over kept connections.
async fn first_joins(
    options: &Options,
    authority: &Authority,
    fleet: &Arc<Fleet>,
    report: &mut Report,
) -> anyhow::Result<()> {
    let first = every_bot_once("first joins, kept connections", &authority.watched()?, fleet).await?;
    ensure!(first.0 == options.bots && first.1.is_empty(), "not every bot joined: {:?}", first.1);
    report.checked(&format!("{} bots joined for the first time with preregistered keys", first.0));
    Ok(())
}

/// Lets each bot join once without a certificate, and returns how many did and what the others were told.
pub(crate) async fn every_bot_once(
    what: &str,
    watched: &Watched,
    fleet: &Arc<Fleet>,
) -> anyhow::Result<(u64, std::collections::BTreeMap<String, u64>)> {
    let count = u64::try_from(fleet.bots.len())?;
    let next = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let before = watched.joind.as_ref().map_or(0.0, crate::process::Processes::cpu_us);
    let started = std::time::Instant::now();
    let workers: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let (fleet, next) = (Arc::clone(fleet), Arc::clone(&next));
            tokio::spawn(async move {
                let (mut joined, mut refused) = (0, std::collections::BTreeMap::new());
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return Ok((joined, refused));
                    }
                    match fleet.recover(number, Connections::Kept).await {
                        Ok(()) => joined += 1,
                        Err(JoinError::Refused(code)) => *refused.entry(code).or_insert(0) += 1,
                        Err(error) => return Err(error),
                    }
                }
            })
        })
        .collect();
    let (mut joined, mut refused) = (0, std::collections::BTreeMap::new());
    for worker in workers {
        let (more, told) = worker.await??;
        joined += more;
        told.into_iter().for_each(|(code, count)| *refused.entry(code).or_insert(0) += count);
    }
    let after = watched.joind.as_ref().map_or(0.0, crate::process::Processes::cpu_us);
    eprintln!(
        "{what}: {joined} in {:.2} s, {:.0} µs of joind each",
        started.elapsed().as_secs_f64(),
        (after - before) / to_f64(count)
    );
    Ok((joined, refused))
}

/// Renewals and recoveries at the peak, each beside the floor of the same moment.
async fn peaks(
    options: &Options,
    authority: &Authority,
    fleet: &Arc<Fleet>,
    report: &mut Report,
) -> anyhow::Result<()> {
    let floor = Arc::new(floor::Bench::new()?);
    let plan = options.plan(Load::Closed(AT_ONCE), options.seconds);
    let watched = authority.watched()?;
    let (mut renewal, mut recovery, mut empty) = (Vec::new(), Vec::new(), Vec::new());
    let (mut renewal_raw, mut recovery_raw) = (Vec::new(), Vec::new());
    let (mut full, mut kept, mut new) = (Vec::new(), Vec::new(), Vec::new());
    let mut floors = Vec::new();
    for _ in 0..options.rounds {
        let before = measure_floor(&floor).await?;
        let renewals = drive("renewals, full handshake each", plan, &watched, renewing(fleet)).await?;
        let between = measure_floor(&floor).await?;
        let recoveries =
            drive("recoveries, kept connections", plan, &watched, recovering(fleet, Connections::Kept)).await?;
        let after = measure_floor(&floor).await?;
        let fleet_of_calls = Arc::clone(fleet);
        let calls = drive("empty calls, kept connections", plan, &watched, move |number| {
            let fleet = Arc::clone(&fleet_of_calls);
            async move { fleet.call_nothing(number).await }
        })
        .await?;
        let fresh =
            drive("recoveries, full handshake each", plan, &watched, recovering(fleet, Connections::New)).await?;
        for one in [&renewals, &recoveries, &calls, &fresh] {
            nobody_refused(one)?;
        }
        renewal.push(renewals.cpu.joind_us / f64::midpoint(before.renewal_us(), between.renewal_us()));
        recovery.push(recoveries.cpu.joind_us / f64::midpoint(between.recovery_us(), after.recovery_us()));
        renewal_raw.push(renewals.cpu.joind_us);
        recovery_raw.push(recoveries.cpu.joind_us);
        empty.push(calls.cpu.joind_us);
        full.push(renewals.joins_per_s);
        kept.push(recoveries.joins_per_s);
        new.push(fresh.joins_per_s);
        floors.extend([before, between, after]);
        [renewals, recoveries, calls, fresh].into_iter().for_each(|done| report.add(done));
    }
    report.spread("renewal_cpu_vs_floor", renewal);
    report.spread("recovery_cpu_vs_floor", recovery);
    report.spread("renewal_cpu_us", renewal_raw);
    report.spread("recovery_cpu_us", recovery_raw);
    report.spread("empty_call_cpu_us", empty);
    report.spread("full_handshake_joins_per_s", full);
    report.spread("kept_joins_per_s", kept);
    report.spread("new_connection_recoveries_per_s", new);
    report.spread("floor_renewal_us", floors.iter().map(Floor::renewal_us).collect());
    report.spread("floor_recovery_us", floors.iter().map(Floor::recovery_us).collect());
    report.spread("floor_mutual_handshake_us", floors.iter().map(|floor| floor.mutual_handshake_us).collect());
    report.spread("floor_handshake_us", floors.iter().map(|floor| floor.handshake_us).collect());
    report.spread("floor_issue_us", floors.iter().map(|floor| floor.issue_us).collect());
    report.spread("floor_ed25519_verify_us", floors.iter().map(|floor| floor.ed25519_verify_us).collect());
    report.spread("floor_p256_verify_us", floors.iter().map(|floor| floor.p256_verify_us).collect());
    report.spread("floor_raw_signatures_us", floors.iter().map(|floor| floor.raw_signatures_us).collect());
    Ok(())
}

/// What was refused is in no percentile and cost less, so figures beside refusals are none.
pub(crate) fn nobody_refused(measured: &Measured) -> anyhow::Result<()> {
    ensure!(measured.refusals.is_empty(), "{}: joins were refused: {:?}", measured.what, measured.refusals);
    Ok(())
}

async fn measure_floor(floor: &Arc<floor::Bench>) -> anyhow::Result<Floor> {
    let floor = Arc::clone(floor);
    tokio::task::spawn_blocking(move || floor.measure(Duration::from_millis(1500))).await?
}

/// Latency at half of the peak, in an open loop.
async fn half_peaks(
    options: &Options,
    authority: &Authority,
    fleet: &Arc<Fleet>,
    report: &mut Report,
) -> anyhow::Result<()> {
    let watched = authority.watched()?;
    let seconds = options.seconds * 2;
    let (mut kept, mut renewed) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        let rate = report.value("kept_joins_per_s") / 2.0;
        let plan = options.plan(Load::Open(rate), seconds);
        let done =
            drive("recoveries, kept, half of peak", plan, &watched, recovering(fleet, Connections::Kept)).await?;
        nobody_refused(&done)?;
        kept.push(done.p99_ms);
        report.add(done);
        let rate = report.value("full_handshake_joins_per_s") / 2.0;
        let plan = options.plan(Load::Open(rate), seconds);
        let done = drive("renewals, half of peak", plan, &watched, renewing(fleet)).await?;
        nobody_refused(&done)?;
        renewed.push(done.p99_ms);
        report.add(done);
    }
    report.spread("kept_p99_ms_at_half_peak", kept);
    report.spread("renewal_p99_ms_at_half_peak", renewed);
    Ok(())
}

/// HTTP, sessions that ask to be resumed, registration by secret, rotation, clones, and administrators at work.
async fn others(
    options: &Options,
    authority: &Authority,
    fleet: &Arc<Fleet>,
    report: &mut Report,
) -> anyhow::Result<()> {
    let watched = authority.watched()?;
    let seconds = options.seconds.min(4);
    let plan = options.plan(Load::Closed(AT_ONCE), seconds);
    let seed = options.seed;
    let group = 1000;
    let first = options.bots.next_multiple_of(1000);
    import(&authority.superuser(), Import { seed, first, count: 3 * group, joined: false }).await?;

    // Over HTTP.
    let mut http = Fleet::preregistered(authority.target()?, seed, first..first + group)?.over(Transport::Http);
    http.keep_connections(KEPT).await?;
    let http = Arc::new(http);
    let done = drive("recoveries, JSON over HTTP, kept", plan, &watched, recovering(&http, Connections::Kept)).await?;
    report.add(done);
    let done = drive("renewals, JSON over HTTP", plan, &watched, renewing(&http)).await?;
    report.add(done);
    verified(authority, &http).await?;

    // Asking for resumption: what the handshakes were is counted, not assumed.
    let resumed = Arc::new(Fleet::preregistered(authority.target()?, seed, first + group..first + 2 * group)?);
    let done =
        drive("recoveries, resumption asked for", plan, &watched, recovering(&resumed, Connections::Resumed)).await?;
    report.add(done);
    let seen = resumed.resumed_handshakes.load(Ordering::Relaxed);
    report.figure("resumed_handshakes_seen", to_f64(seen));
    ensure!(seen == 0, "the authority resumed {seen} sessions that asked for it, and should not");
    verified(authority, &resumed).await?;

    registrations(authority, report).await?;
    rotation(options, authority, fleet, report).await?;
    clones(authority, seed, first + 2 * group, group, report).await?;

    // Administrators at work while bots renew.
    let rate = report.value("full_handshake_joins_per_s") / 3.0;
    let work = administration::Work::start(authority).await?;
    let done = drive(
        "renewals, administrators at work",
        options.plan(Load::Open(rate), seconds * 2),
        &watched,
        renewing(fleet),
    )
    .await?;
    let told = work.stop().await?;
    report.add(done);
    report.note("administrators", &told);
    Ok(())
}

async fn verified(authority: &Authority, fleet: &Fleet) -> anyhow::Result<u64> {
    let ledger = authority.ledger().await?;
    let joins = verify::fleet(&ledger, fleet).await?;
    ledger.close().await;
    Ok(joins)
}

/// Bots that are made by an administrator, and register by secret.
async fn registrations(authority: &Authority, report: &mut Report) -> anyhow::Result<()> {
    let count = 500;
    // Far from those that were imported.
    let first = 90_000_000;
    let administrator = administration::Administrator::connect(authority).await?;
    administrator.create_bot("registering").await?;
    let secret = |token: &str| format!("secret-of-{token}");
    for number in first..first + count {
        let token = crate::import::token_name(number);
        administrator.create_token(&token, "registering", &secret(&token)).await?;
    }
    let mut fleet = Fleet::preregistered(authority.target()?, 77, first..first + count)?.with_secrets(secret);
    fleet.keep_connections(KEPT).await?;
    let fleet = Arc::new(fleet);
    let (joined, refused) = every_bot_once("first joins by secret", &authority.watched()?, &fleet).await?;
    ensure!(joined == count && refused.is_empty(), "registration by secret was refused: {refused:?}");
    report.checked(&format!("{joined} bots registered by secret"));
    Ok(())
}

/// Every bot of the main fleet gets a new key at its next join.
async fn rotation(
    options: &Options,
    authority: &Authority,
    fleet: &Arc<Fleet>,
    report: &mut Report,
) -> anyhow::Result<()> {
    let administrator = administration::Administrator::connect(authority).await?;
    let part = options.bots.min(500);
    for bot in fleet.bots.iter().take(usize::try_from(part)?) {
        administrator.rotate(&bot.token).await?;
    }
    let (joined, refused) =
        every_bot_once("recoveries, a part of them with a rotation", &authority.watched()?, fleet).await?;
    ensure!(joined == options.bots && refused.is_empty(), "rotation was refused: {refused:?}");
    let mut rotated = 0;
    for bot in &fleet.bots {
        rotated += bot.state.lock().await.rotations;
    }
    ensure!(rotated == part, "{rotated} bots rotated instead of {part}");
    report.checked(&format!("{rotated} bots rotated their keys when it was due"));
    Ok(())
}

/// A third of a fleet is copied; copies come after the owners have recovered.
async fn clones(authority: &Authority, seed: u64, first: u64, count: u64, report: &mut Report) -> anyhow::Result<()> {
    let mut fleet = Fleet::preregistered(authority.target()?, seed, first..first + count)?;
    fleet.keep_connections(KEPT).await?;
    let fleet = Arc::new(fleet);
    every_bot_once("a fleet that will be copied", &authority.watched()?, &fleet).await?;
    let mut copies = Vec::new();
    for (number, bot) in (0..).zip(&fleet.bots).step_by(3) {
        copies.push((number, bot.state.lock().await.clone()));
    }
    every_bot_once("its owners", &authority.watched()?, &fleet).await?;
    let cloned: BTreeSet<String> = copies.iter().map(|(number, _)| fleet.bot(*number).token.clone()).collect();
    let copies = Arc::new(copies);
    let storm: Vec<_> = (0..AT_ONCE)
        .map(|worker| {
            let (fleet, copies) = (Arc::clone(&fleet), Arc::clone(&copies));
            tokio::spawn(async move {
                for (number, copy) in copies.iter().skip(usize::try_from(worker).unwrap_or_default()).step_by(64) {
                    match fleet.recover_as_copy(*number, copy).await {
                        Err(JoinError::Refused(code)) if code == "JOIN_STATE_INVALID" => {}
                        Ok(()) => anyhow::bail!("a copy of {} was admitted", fleet.bot(*number).token),
                        Err(error) => anyhow::bail!("a copy got {error} instead of JOIN_STATE_INVALID"),
                    }
                }
                Ok(())
            })
        })
        .collect();
    for worker in storm {
        worker.await??;
    }
    let (joined, refused) = every_bot_once("everybody after the clone storm", &authority.watched()?, &fleet).await?;
    let locked = u64::try_from(cloned.len())?;
    ensure!(
        joined == count - locked && refused == [("LOCKED".to_owned(), locked)].into(),
        "after the clone storm {joined} joined, and the others got {refused:?}"
    );
    verify::locks(&authority.superuser(), &cloned).await?;
    verified(authority, &fleet).await?;
    report.checked(&format!("{locked} cloned tokens are locked, once each, and no other of {count}"));
    Ok(())
}

pub(crate) fn renewing(fleet: &Arc<Fleet>) -> impl Fn(u64) -> Job + Send + Sync + 'static {
    let fleet = Arc::clone(fleet);
    move |number| {
        let fleet = Arc::clone(&fleet);
        Box::pin(async move { fleet.renew(number).await })
    }
}

pub(crate) fn recovering(fleet: &Arc<Fleet>, connections: Connections) -> impl Fn(u64) -> Job + Send + Sync + 'static {
    let fleet = Arc::clone(fleet);
    move |number| {
        let fleet = Arc::clone(&fleet);
        Box::pin(async move { fleet.recover(number, connections).await })
    }
}

/// A join that will be made.
type Job = std::pin::Pin<Box<dyn Future<Output = Result<(), JoinError>> + Send>>;

/// What a reader must know to judge the figures.
pub(crate) fn describe(options: &Options) -> serde_json::Value {
    json!({
        "seed": options.seed,
        "bots": options.bots,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "joins_at_once": AT_ONCE,
        "kept_connections": KEPT,
        "writers": options.setup.writers.map_or("the service's default".to_owned(), |writers| writers.to_string()),
        "postgres_settings": options.setup.postgres,
        "writeback": host::writeback(),
        "log_files": options.setup.log,
    })
}

/// A measurement's name for a map.
pub(crate) fn by_name(measured: &[Measured]) -> Vec<(&str, Vec<&Measured>)> {
    let mut groups: Vec<(&str, Vec<&Measured>)> = Vec::new();
    for one in measured {
        match groups.iter_mut().find(|(what, _)| *what == one.what) {
            Some((_, group)) => group.push(one),
            None => groups.push((&one.what, vec![one])),
        }
    }
    groups
}
