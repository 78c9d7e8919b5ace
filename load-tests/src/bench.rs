//! `joinload bench`: everything against a private authority, in one run. Ratios first; what is compared is interleaved.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use serde_json::json;

use crate::{
    administration::{Administrator, Work},
    append::{self, Strategy},
    authority::{self, Authority, Setup},
    ceremony::Transport,
    fleet::{Connections, Fleet},
    floor::{self, Floor},
    host,
    import::{Import, import},
    key::random_hex,
    measured::Measured,
    pace::{Load, Plan, Watched, drive},
    process::to_f64,
    profiles::{
        AT_ONCE, KEPT, administer, clone_storm, compare_with_authority, every_bot_joins, handshakes, nobody_refused,
        recovering, renewing, rotation, storm, waited,
    },
    report::Report,
    verify,
};

/// Bots of each fleet beside the main one, but for those that are copied.
const GROUP: u64 = 1000;
/// Bots of a fleet a third of which is copied.
const COPIED: u64 = 3000;
/// Bots that register by secret.
const REGISTERING: u64 = 4000;
/// Recoveries over kept connections at once, at their peak: as many as the prototype made, whose 6 500 joins/s the target
/// was set from. Those at [`AT_ONCE`] stand beside them.
pub(crate) const KEPT_AT_ONCE: u64 = 256;

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
    report.service(authority::version(&options.setup.joind)?);
    report.postgres(join_embedded::Binaries::find()?.version());
    if options.only.is_none_or(|part| part == Part::Append) {
        append_paths(options, &mut report).await?;
    }
    if options.only == Some(Part::Append) {
        return Ok(report);
    }
    let mut authority = Authority::start(options.setup.clone()).await?;
    import(
        &authority.superuser(),
        Import { seed: options.seed, first: 0, count: options.bots.next_multiple_of(1000), joined: false },
    )
    .await?;
    authority.settle().await?;
    let mut fleet = Fleet::preregistered(authority.target()?, options.seed, 0..options.bots)?;
    fleet.keep_connections(KEPT).await?;
    let mut fleet = Arc::new(fleet);
    first_joins(&authority, &fleet, &mut report).await?;
    peaks(options, &authority, &fleet, &mut report).await?;
    let mut cloned = BTreeSet::new();
    if options.only != Some(Part::Peak) {
        half_peaks(options, &authority, &fleet, &mut report).await?;
        storms(options, &mut authority, &mut fleet, &mut report).await?;
        cloned = others(options, &authority, &fleet, &mut report).await?;
    }

    authority.settle().await?;
    verify::locks(&authority.superuser(), &cloned).await?;
    report.checked(&format!("{} cloned tokens are locked at the end, once each, and no other", cloned.len()));
    let ledger = authority.ledger().await?;
    let joins = verify::fleet(&ledger, &fleet).await?;
    let entries = verify::rebuilt(&ledger).await?;
    ledger.close().await;
    report.checked(&format!(
        "all {joins} joins of the main fleet are in the ledger and no other, generations are gapless; {entries} \
         entries give the guard rows and views that are stored"
    ));
    let [full, resumed] = handshakes(&fleet);
    report.figure("full_handshakes_seen", full);
    report.figure("joins_that_waited_for_their_bot", waited(&fleet));
    ensure!(resumed == 0.0, "a handshake was resumed, and should not");
    Ok(report)
}

/// Ours, one transaction for each, and the library's, in turns.
async fn append_paths(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let bench = append::Bench::prepare(options.baseline.clone(), options.seed).await?;
    let time = Duration::from_secs(options.seconds.clamp(2, 4));
    let pgbench = append::pgbench_program();
    let (mut by_one, mut by_rows, mut by_library) = (Vec::new(), Vec::new(), Vec::new());
    let (mut pgbench_rates, mut rates, mut with_views) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        let two = bench.run(Strategy::Ledger { writers: 2, followed: false }, time).await?;
        let single = bench.run(Strategy::Ledger { writers: 1, followed: false }, time).await?;
        let followed = bench.run(Strategy::Ledger { writers: 2, followed: true }, time).await?;
        let one = bench.run(Strategy::OneTransaction, time).await?;
        let same_rows = bench.run(Strategy::OneTransactionSameRows, time).await?;
        // With two writers, and with one.
        let against = |other: &Measured| [&two, &single].map(|ours| ours.joins_per_s / other.joins_per_s);
        rates.push([two.joins_per_s, single.joins_per_s]);
        by_one.push(against(&one));
        by_rows.push(against(&same_rows));
        with_views.push(followed.joins_per_s);
        // It writes its view with each join.
        if let Some(library) = bench.run_baseline(time).await? {
            by_library.push(followed.joins_per_s / library.joins_per_s);
            report.add(library);
        }
        pgbench_rates.extend(bench.run_pgbench(time, &pgbench).await?);
        [two, single, followed, one, same_rows].into_iter().for_each(|done| report.add(done));
    }
    for (name, values) in
        [("append_joins_per_s", rates), ("append_vs_one_tx", by_one), ("append_vs_one_tx_same_rows", by_rows)]
    {
        report.spread(name, values.iter().map(|[two, _]| *two).collect());
        report.spread(&format!("{name}_one_writer"), values.iter().map(|[_, one]| *one).collect());
    }
    report.spread("append_joins_per_s_with_views", with_views);
    report.checked(
        "after each run of the append the events of all joins that were acknowledged are stored, and no other",
    );
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
async fn first_joins(authority: &Authority, fleet: &Arc<Fleet>, report: &mut Report) -> anyhow::Result<()> {
    let done = every_bot_joins("first joins, kept connections", AT_ONCE, &authority.watched()?, fleet).await?;
    report.checked(&format!("{} bots joined for the first time with preregistered keys", done.joins));
    report.add(done);
    Ok(())
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
    let most = options.plan(Load::Closed(KEPT_AT_ONCE), options.seconds);
    let watched = authority.watched()?;
    let (mut renewal, mut recovery, mut recovery_64) = (Vec::new(), Vec::new(), Vec::new());
    let (mut renewal_raw, mut recovery_raw, mut empty) = (Vec::new(), Vec::new(), Vec::new());
    let (mut full, mut kept, mut kept_64, mut new) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut floors = Vec::new();
    for _ in 0..options.rounds {
        let before = measure_floor(&floor).await?;
        let renewals = drive("renewals, full handshake each", plan, &watched, renewing(fleet)).await?;
        let between = measure_floor(&floor).await?;
        let recoveries =
            drive("recoveries, kept connections", most, &watched, recovering(fleet, Connections::Kept)).await?;
        let after = measure_floor(&floor).await?;
        let fewer = drive("recoveries, kept, 64 at once", plan, &watched, recovering(fleet, Connections::Kept)).await?;
        let last = measure_floor(&floor).await?;
        let fleet_of_calls = Arc::clone(fleet);
        let calls = drive("empty calls, kept connections", plan, &watched, move |number| {
            let fleet = Arc::clone(&fleet_of_calls);
            async move { fleet.call_nothing(number).await }
        })
        .await?;
        let fresh =
            drive("recoveries, full handshake each", plan, &watched, recovering(fleet, Connections::New)).await?;
        for one in [&renewals, &recoveries, &fewer, &calls, &fresh] {
            nobody_refused(one)?;
        }
        renewal.push(renewals.cpu.joind() / f64::midpoint(before.renewal_us(), between.renewal_us()));
        recovery.push(recoveries.cpu.joind() / f64::midpoint(between.recovery_us(), after.recovery_us()));
        recovery_64.push(fewer.cpu.joind() / f64::midpoint(after.recovery_us(), last.recovery_us()));
        renewal_raw.push(renewals.cpu.joind());
        recovery_raw.push(recoveries.cpu.joind());
        empty.push(calls.cpu.joind());
        full.push(renewals.joins_per_s);
        kept.push(recoveries.joins_per_s);
        kept_64.push(fewer.joins_per_s);
        new.push(fresh.joins_per_s);
        floors.extend([before, between, after, last]);
        [renewals, recoveries, fewer, calls, fresh].into_iter().for_each(|done| report.add(done));
    }
    report.spread("renewal_cpu_vs_floor", renewal);
    report.spread("recovery_cpu_vs_floor", recovery);
    report.spread("recovery_cpu_vs_floor_64_at_once", recovery_64);
    report.spread("renewal_cpu_us", renewal_raw);
    report.spread("recovery_cpu_us", recovery_raw);
    report.spread("empty_call_cpu_us", empty);
    report.spread("full_handshake_joins_per_s", full);
    report.spread("kept_joins_per_s", kept);
    report.spread("kept_joins_per_s_64_at_once", kept_64);
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
    let mut stored: [Vec<f64>; 3] = Default::default();
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
        authority.settle().await?;
        let before = (stored_bytes(authority).await?, fleet.accepted().await);
        let done = drive("renewals, half of peak", plan, &watched, renewing(fleet)).await?;
        nobody_refused(&done)?;
        renewed.push(done.p99_ms);
        report.add(done);
        authority.settle().await?;
        let after = (stored_bytes(authority).await?, fleet.accepted().await);
        let joins = to_f64(after.1 - before.1);
        for (at, each) in stored.iter_mut().enumerate() {
            each.push(to_f64(after.0[at].saturating_sub(before.0[at])) / joins);
        }
    }
    for (what, each) in ["database", "log", "wal"].into_iter().zip(stored) {
        report.spread(&format!("renewal_{what}_bytes"), each);
    }
    report.spread("kept_p99_ms_at_half_peak", kept);
    report.spread("renewal_p99_ms_at_half_peak", renewed);
    Ok(())
}

/// What the database, the log directory and the write-ahead log hold.
async fn stored_bytes(authority: &Authority) -> anyhow::Result<[u64; 3]> {
    Ok([authority.database_bytes().await?, authority.log_bytes()?, authority.wal_bytes().await?])
}

/// The node is stopped and started again, so that it remembers nobody, and the whole fleet comes back at once.
async fn storms(
    options: &Options,
    authority: &mut Authority,
    fleet: &mut Arc<Fleet>,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut storms = Vec::new();
    for _ in 0..options.rounds {
        authority.stop_node().await?;
        authority.start_node().await?;
        Arc::get_mut(fleet).context("the fleet still joins")?.move_to(authority.target()?);
        storms.push(storm(&authority.watched()?, fleet).await?);
        authority.settle().await?;
    }
    report.spread("storm_s", storms.iter().map(|storm| storm.seconds).collect());
    report.rates("storm", &storms);
    report.checked(&format!("all {} bots came back at once after each of {} restarts", fleet.size(), storms.len()));
    storms.into_iter().for_each(|storm| report.add(storm));
    Ok(())
}

/// HTTP, sessions that ask to be resumed, registration by secret, rotation, clones, and administrators at work. Returns
/// the tokens that were cloned.
async fn others(
    options: &Options,
    authority: &Authority,
    fleet: &Arc<Fleet>,
    report: &mut Report,
) -> anyhow::Result<BTreeSet<String>> {
    let watched = authority.watched()?;
    let seconds = options.seconds.min(4);
    let plan = options.plan(Load::Closed(AT_ONCE), seconds);
    let seed = options.seed;
    let first = options.bots.next_multiple_of(GROUP);
    import(&authority.superuser(), Import { seed, first, count: 2 * GROUP + COPIED, joined: false }).await?;

    // Over HTTP.
    let mut http = Fleet::preregistered(authority.target()?, seed, first..first + GROUP)?.over(Transport::Http);
    http.keep_connections(KEPT).await?;
    let http = Arc::new(http);
    let done = drive("recoveries, JSON over HTTP, kept", plan, &watched, recovering(&http, Connections::Kept)).await?;
    nobody_refused(&done)?;
    report.add(done);
    let done = drive("renewals, JSON over HTTP", plan, &watched, renewing(&http)).await?;
    nobody_refused(&done)?;
    report.add(done);
    let over_http = verified(authority, &http).await?;

    // Asking for resumption: what the handshakes were is counted, not assumed.
    let resumed = Arc::new(Fleet::preregistered(authority.target()?, seed, first + GROUP..first + 2 * GROUP)?);
    let done =
        drive("recoveries, resumption asked for", plan, &watched, recovering(&resumed, Connections::Resumed)).await?;
    nobody_refused(&done)?;
    report.add(done);
    let [_, seen] = handshakes(&resumed);
    report.figure("resumed_handshakes_seen", seen);
    ensure!(seen == 0.0, "the authority resumed {seen} sessions that asked for it, and should not");
    let asking = verified(authority, &resumed).await?;
    report.checked(&format!(
        "all {over_http} joins over HTTP and all {asking} of those who asked for resumption are in the ledger and no other"
    ));

    let administrator = Arc::new(Administrator::connect(authority).await?);
    registrations(authority, &administrator, report).await?;
    rotations(options, &administrator, &watched, fleet, report).await?;
    let cloned = clones(options, authority, first + 2 * GROUP, report).await?;
    administrators(options, authority, &administrator, fleet, report).await?;
    Ok(cloned)
}

async fn verified(authority: &Authority, fleet: &Fleet) -> anyhow::Result<u64> {
    let ledger = authority.ledger().await?;
    let joins = verify::fleet(&ledger, fleet).await?;
    ledger.close().await;
    Ok(joins)
}

/// Bots that are made by an administrator, and register by secret.
async fn registrations(
    authority: &Authority,
    administrator: &Arc<Administrator>,
    report: &mut Report,
) -> anyhow::Result<()> {
    administrator.create_bot(&json!({ "name": "registering" })).await?;
    let tokens: Vec<_> = (0..REGISTERING).map(|number| (format!("registering-{number}"), random_hex::<32>())).collect();
    let mut fleet = Fleet::registering(authority.target()?, tokens.clone())?;
    administer("tokens made", REGISTERING, administrator, move |administrator, number| {
        let (token, secret) = tokens[usize::try_from(number).unwrap_or_default()].clone();
        Box::pin(async move { administrator.create_token(&json!({ "name": token }), "registering", &secret).await })
    })
    .await?;
    fleet.keep_connections(KEPT).await?;
    let fleet = Arc::new(fleet);
    let done = every_bot_joins("first joins by secret", AT_ONCE, &authority.watched()?, &fleet).await?;
    compare_with_authority(administrator, &fleet).await?;
    report.rates("registration", std::slice::from_ref(&done));
    report.checked(&format!("{} bots registered by secret", done.joins));
    report.add(done);
    Ok(())
}

/// Each bot of the main fleet gets a new key, again and again.
async fn rotations(
    options: &Options,
    administrator: &Arc<Administrator>,
    watched: &Watched,
    fleet: &Arc<Fleet>,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut rotations = Vec::new();
    for _ in 0..options.rounds {
        rotations.push(rotation(administrator, AT_ONCE, watched, fleet).await?);
    }
    report.rates("rotation", &rotations);
    report.checked(&format!("{} bots rotated their keys each time it was due, {} times", fleet.size(), options.rounds));
    rotations.into_iter().for_each(|rotation| report.add(rotation));
    Ok(())
}

/// A third of a fleet is copied; copies come after the owners have recovered.
async fn clones(
    options: &Options,
    authority: &Authority,
    first: u64,
    report: &mut Report,
) -> anyhow::Result<BTreeSet<String>> {
    let watched = authority.watched()?;
    let mut fleet = Fleet::preregistered(authority.target()?, options.seed, first..first + COPIED)?;
    fleet.keep_connections(KEPT).await?;
    let fleet = Arc::new(fleet);
    every_bot_joins("a fleet that will be copied", AT_ONCE, &watched, &fleet).await?;
    let cloned = clone_storm(AT_ONCE, &watched, &fleet).await?;
    verify::locks(&authority.superuser(), &cloned.tokens).await?;
    verified(authority, &fleet).await?;
    let locked = cloned.tokens.len();
    report.rates("clone", std::slice::from_ref(&cloned.refused));
    report.checked(&format!("{locked} cloned tokens are locked, once each, and no other of {}", fleet.size()));
    report.add(cloned.refused);
    Ok(cloned.tokens)
}

/// Administrators at work while bots renew, at a third of their peak.
async fn administrators(
    options: &Options,
    authority: &Authority,
    administrator: &Administrator,
    fleet: &Arc<Fleet>,
    report: &mut Report,
) -> anyhow::Result<()> {
    const WORKED_ON: &str = "worked-on";
    administrator.create_bot(&json!({ "name": WORKED_ON })).await?;
    administrator.create_token(&json!({ "name": WORKED_ON }), WORKED_ON, &random_hex::<32>()).await?;
    let work = Work::start(async || Administrator::connect(authority).await, WORKED_ON).await?;
    let load = Load::Open(report.value("full_handshake_joins_per_s") / 3.0);
    let plan = options.plan(load, options.seconds.min(4) * 2);
    let done = drive("renewals, administrators at work", plan, &authority.watched()?, renewing(fleet)).await?;
    report.work(done, work.stop().await?)
}

/// What a reader must know to judge the figures.
pub(crate) fn describe(options: &Options) -> serde_json::Value {
    json!({
        "seed": options.seed,
        "bots": options.bots,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "joins_at_once": AT_ONCE,
        "recoveries_at_once_over_kept_connections": KEPT_AT_ONCE,
        "kept_connections": KEPT,
        "writers": options.setup.writers(),
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
