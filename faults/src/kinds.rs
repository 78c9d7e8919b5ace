//! The kinds of things that go wrong.

pub mod clones;
pub mod kill_agent;
pub mod kill_database;
pub mod kill_service;
pub mod network;
pub mod storage;

use std::{collections::HashMap, time::Duration};

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};

use crate::{
    database::Database,
    fault::{Counts, Side},
    history::{History, happened_once},
    host::{Client, Disk, Failure, Host},
    report::{Survived, Tally},
    scenario::Scenario,
    world::World,
};

/// Cases that run at the same time in one cluster.
const AT_ONCE: usize = 6;
/// Longer than any case takes, so that one that hangs fails.
const PATIENCE: Duration = Duration::from_secs(120);

/// How many messages an undisturbed join has, for each kind of it.
pub type Lengths = HashMap<(Client, Scenario), Counts>;

/// Measures undisturbed joins.
///
/// # Errors
/// When one does not succeed.
pub async fn lengths(clients: &[Client]) -> Result<Lengths> {
    let world = World::here(Database::shared().await?, None).await?;
    let kinds: Vec<_> = clients.iter().flat_map(|client| Scenario::ALL.map(|scenario| (*client, scenario))).collect();
    let hosts = set_up(&world, &kinds, |at| kinds[at]).await?;
    let mut lengths = Lengths::new();
    for ((client, scenario), host) in kinds.iter().zip(&hosts) {
        let before = History::read(&world, &host.name).await?;
        host.proxy.arm(None);
        host.join().await.with_context(|| format!("{client} {scenario}"))?;
        happened_once(&world, host, *scenario, &before, 0).await.with_context(|| format!("{client} {scenario}"))?;
        let counts = host.proxy.counts();
        ensure!(Side::BOTH.into_iter().all(|side| counts.of(side) > 0), "no message of {client} {scenario} is seen");
        lengths.insert((*client, *scenario), counts);
    }
    world.close().await?;
    Ok(lengths)
}

/// A host for each case, on which its scenario's join is the next.
async fn set_up<C>(world: &World, cases: &[C], kind: impl Fn(usize) -> (Client, Scenario)) -> Result<Vec<Host>> {
    set_up_on(world, cases, kind, |_| Disk::Memory(Default::default())).await
}

async fn set_up_on<C>(
    world: &World,
    cases: &[C],
    kind: impl Fn(usize) -> (Client, Scenario),
    disk: impl Fn(usize) -> Disk,
) -> Result<Vec<Host>> {
    let setting_up = (0..cases.len()).map(|at| {
        let ((client, scenario), disk) = (kind(at), disk(at));
        async move { scenario.set_up(world, &format!("bot-{at}"), client, disk).await }
    });
    let mut hosts: Vec<Host> = stream::iter(setting_up).buffered(AT_ONCE).try_collect().await?;
    world.let_expire().await;
    for (at, host) in hosts.iter_mut().enumerate() {
        kind(at).1.make_due(world, host).await?;
    }
    Ok(hosts)
}

/// Runs cases, so many in one cluster, and so many clusters at the same time.
async fn in_worlds<C>(
    tally: &Tally,
    kind: &str,
    cases: &[C],
    (in_a_world, worlds): (usize, usize),
    run: impl AsyncFn(&[C], &Tally) -> Result<()>,
) {
    stream::iter(cases.chunks(in_a_world))
        .for_each_concurrent(worlds, async |cases| tally.fail(kind, run(cases, tally).await))
        .await;
}

/// What a case must bear: an error that needs nobody.
fn bearable(outcome: Result<(), Failure>) -> Result<bool> {
    match outcome {
        Ok(()) => Ok(true),
        Err(Failure::Again(_)) => Ok(false),
        Err(Failure::Stuck(why)) => anyhow::bail!("the interrupted join needs an administrator: {why}"),
    }
}

/// What a fault has left behind, before anybody tries again.
struct Aftermath {
    /// The answer was lost after the join was recorded.
    answer_lost: bool,
    /// The result is stored.
    stored: bool,
}

impl Aftermath {
    async fn of(world: &World, host: &Host, before: &History) -> Result<Self> {
        let joined = History::read(world, &host.name).await?.has_joined_since(before);
        let stored = host.state().context("what the fault has left on the disk")?.pending.is_none();
        Ok(Self { answer_lost: joined && !stored, stored: joined && stored })
    }

    fn survived(&self, reached: bool, after: &History) -> Result<Survived> {
        ensure!(!self.answer_lost || after.resumed() > 0, "the answer was lost and is not recorded as given again");
        let noted = if self.answer_lost { vec!["answers lost after the commit"] } else { Vec::new() };
        Ok(Survived { reached, noted })
    }
}

async fn in_time<T>(case: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(PATIENCE, case).await.context("it hangs")?
}
