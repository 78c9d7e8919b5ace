//! SIGKILL for the service: a real `joind`, which is started again afterwards.

use std::fmt;

use anyhow::{Context as _, Result};

use super::{Aftermath, Lengths, bearable, in_time, in_worlds, set_up};
use crate::{
    database::Database,
    fault::{Act, Fault, Moment, Side},
    history::{History, happened_once},
    host::{Client, Host},
    report::{KindReport, Selection, Survived, Tally},
    scenario::Scenario,
    world::World,
};

/// Cases in one cluster, one after another, and clusters at the same time.
const IN_A_WORLD: usize = 48;
const WORLDS: usize = 2;

#[derive(Debug, Clone, Copy)]
struct Case {
    scenario: Scenario,
    side: Side,
    message: usize,
    moment: Moment,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scenario, side, message, moment } = self;
        write!(f, "kill-service/{scenario}/{}/{message}/{}", side.word(), moment.word())
    }
}

fn all(lengths: &Lengths) -> Vec<Case> {
    let of = |scenario: Scenario| {
        let places = lengths[&(Client::Grpc, scenario)].places();
        places.flat_map(move |(side, message)| Moment::BOTH.map(|moment| Case { scenario, side, message, moment }))
    };
    Scenario::ALL.into_iter().flat_map(of).collect()
}

/// Runs them.
///
/// # Errors
/// When not even that can be done.
pub async fn run(selection: &Selection, lengths: &Lengths) -> Result<KindReport> {
    let tally = Tally::new("service killed");
    let cases = selection.pick(all(lengths));
    in_worlds(&tally, "kill-service", &cases, (IN_A_WORLD, WORLDS), run_in_one_world).await;
    Ok(tally.finish())
}

async fn run_in_one_world(cases: &[Case], tally: &Tally) -> Result<()> {
    let mut world = World::of_process(Database::shared().await?).await?;
    let hosts = set_up(&world, cases, |at| (Client::Grpc, cases[at].scenario)).await?;
    for (case, host) in cases.iter().zip(&hosts) {
        let outcome = in_time(survive(&mut world, host, case)).await;
        let outcome = outcome.with_context(|| world.joind().map(|joind| joind.log()).unwrap_or_default());
        tally.count(case, outcome);
    }
    world.close().await
}

async fn survive(world: &mut World, host: &Host, case: &Case) -> Result<Survived> {
    let before = History::read(world, &host.name).await?;
    let act = Act::Strike { moment: case.moment, blow: world.joind()?.kill(), goes_on: false };
    host.proxy.arm(Some(Fault { side: case.side, message: case.message, act }));
    let joined = bearable(host.join().await)?;
    host.proxy.disarm();
    let reached = host.proxy.happened();
    let aftermath = Aftermath::of(world, host, &before).await?;
    if reached {
        world.restart().await?;
    }
    if !joined {
        host.join_at_last().await?;
    }
    let after = happened_once(world, host, case.scenario, &before, 0).await?;
    world.check().await?;
    aftermath.survived(reached, &after)
}
