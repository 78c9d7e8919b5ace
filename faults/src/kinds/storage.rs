//! The agent's disk: full, torn, or left behind by a crash, at every write.

use std::{
    fmt,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::{Result, ensure};
use futures::{FutureExt as _, StreamExt as _, stream};
use join_agent::storage::Storage;

use super::{AT_ONCE, Aftermath, bearable, in_time, set_up_on};
use crate::{
    database::Database,
    disk::{Crash, Failing, Mishap},
    history::{History, happened_once},
    host::{Client, Disk, Failure, Host},
    report::{KindReport, Selection, Survived, Tally},
    scenario::Scenario,
    world::World,
};

/// Cases in one cluster.
const IN_A_WORLD: usize = 64;
/// How often a bot tries while its disk stays full.
const TRIES_WHILE_FULL: usize = 3;

#[derive(Debug, Clone, Copy)]
struct Case {
    scenario: Scenario,
    write: usize,
    mishap: Mishap,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mishap = match self.mishap {
            Mishap::Full => "full".to_owned(),
            Mishap::StaysFull => "stays-full".to_owned(),
            Mishap::NotSynced => "not-synced".to_owned(),
            Mishap::CrashBefore => "crash-before".to_owned(),
            Mishap::CrashWithin(quarters) => format!("crash-within-{quarters}-of-4"),
            Mishap::CrashAfter => "crash-after".to_owned(),
        };
        write!(f, "storage/{}/{}/{mishap}", self.scenario, self.write)
    }
}

/// Runs them.
///
/// # Errors
/// When not even that can be done.
pub async fn run(selection: &Selection) -> Result<KindReport> {
    let tally = Tally::new("agent's disk");
    let of = |(scenario, writes): (Scenario, usize)| {
        (1..=writes).flat_map(move |write| Mishap::ALL.map(|mishap| Case { scenario, write, mishap }))
    };
    let cases = selection.pick(writes().await?.into_iter().flat_map(of).collect());
    for cases in cases.chunks(IN_A_WORLD) {
        tally.fail("storage", run_in_one_world(cases, &tally).await);
    }
    Ok(tally.finish())
}

/// How often an undisturbed join of each kind writes.
pub(super) async fn writes() -> Result<Vec<(Scenario, usize)>> {
    let world = World::here(Database::shared().await?, None).await?;
    let hosts = super::set_up(&world, &Scenario::ALL, |at| (Client::Grpc, Scenario::ALL[at])).await?;
    let mut writes = Vec::new();
    for (scenario, host) in Scenario::ALL.into_iter().zip(&hosts) {
        let disk = Arc::new(failing(host, usize::MAX, Mishap::Full)?);
        host.join_on(Arc::clone(&disk) as Arc<dyn Storage>).await?;
        let written = disk.written.load(Ordering::SeqCst);
        ensure!(written > 0, "{scenario} writes nothing");
        writes.push((scenario, written));
    }
    world.close().await?;
    Ok(writes)
}

fn failing(host: &Host, write: usize, mishap: Mishap) -> Result<Failing> {
    let directory = match &host.disk {
        Disk::Memory(_) => None,
        Disk::Directory(path) => Some(path.clone()),
    };
    let disk = host.storage()?;
    Ok(Failing { disk, directory, mishap, write, ends: host.proxy.cutter(), written: AtomicUsize::new(0) })
}

/// One try with a disk on which something goes wrong; none when the process crashed.
pub(super) async fn join_on_failing(host: &Host, write: usize, mishap: Mishap) -> Result<Option<Result<(), Failure>>> {
    let disk = Arc::new(failing(host, write, mishap)?);
    match AssertUnwindSafe(host.join_on(disk)).catch_unwind().await {
        Ok(outcome) => Ok(Some(outcome)),
        Err(panic) if panic.is::<Crash>() => Ok(None),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

async fn run_in_one_world(cases: &[Case], tally: &Tally) -> Result<()> {
    let world = World::here(Database::shared().await?, None).await?;
    let folder = tempfile::tempdir()?;
    let disk = |at: usize| Disk::Directory(folder.path().join(format!("bot-{at}")));
    let hosts = set_up_on(&world, cases, |at| (Client::Grpc, cases[at].scenario), disk).await?;
    stream::iter(cases.iter().zip(&hosts))
        .for_each_concurrent(AT_ONCE, async |(case, host)| {
            tally.count(case, in_time(survive(&world, host, case)).await)
        })
        .await;
    world.close().await
}

async fn survive(world: &World, host: &Host, case: &Case) -> Result<Survived> {
    let before = History::read(world, &host.name).await?;
    let outcome = join_on_failing(host, case.write, case.mishap).await?;
    let reached = !matches!(outcome, Some(Ok(())));
    if let Some(outcome) = outcome {
        bearable(outcome)?;
    }
    if case.mishap == Mishap::StaysFull && reached {
        for _ in 0..TRIES_WHILE_FULL {
            let still_full = join_on_failing(host, 1, Mishap::StaysFull).await?;
            ensure!(matches!(still_full, Some(Err(Failure::Again(_)))), "it joins with a full disk");
        }
    }
    let aftermath = Aftermath::of(world, host, &before).await?;
    let state = host.state()?;
    let bound = History::read(world, &host.name).await?.token.binding.map(|binding| binding.key);
    ensure!(bound.is_none_or(|bound| state.held().any(|key| *key.public() == bound)), "the bound key is lost");

    let mut renewals = 0;
    if reached {
        host.join_at_last().await?;
        // Whoever has stored the result, told of it or not, renews with the next run.
        renewals = usize::from(aftermath.stored);
    }
    let after = happened_once(world, host, case.scenario, &before, renewals).await?;
    world.check().await?;
    aftermath.survived(reached, &after)
}
