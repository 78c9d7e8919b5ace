//! The network between bot and service.

use std::fmt;

use anyhow::Result;
use futures::{StreamExt as _, stream};

use super::{AT_ONCE, Aftermath, Lengths, bearable, in_time, in_worlds, set_up};
use crate::{
    database::Database,
    fault::{Act, Fault, How, Moment, Side},
    history::{History, happened_once},
    host::{Client, Host},
    report::{KindReport, Selection, Survived, Tally},
    scenario::Scenario,
    world::World,
};

/// Cases in one cluster, and clusters at the same time.
const IN_A_WORLD: usize = 48;
const WORLDS: usize = 2;

#[derive(Debug, Clone, Copy)]
struct Case {
    client: Client,
    scenario: Scenario,
    side: Side,
    message: usize,
    trouble: Trouble,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    Cut(Moment, How),
    /// Everything that the service says is lost, from here on.
    Deafen,
    /// The message arrives after the bot has joined on another connection.
    Late,
    /// And after the join that follows that one.
    Later,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let trouble = match self.trouble {
            Trouble::Cut(moment, How::End) => format!("cut-{}", moment.word()),
            Trouble::Cut(moment, How::Reset) => format!("reset-{}", moment.word()),
            Trouble::Deafen => "deaf".to_owned(),
            Trouble::Late => "late".to_owned(),
            Trouble::Later => "later".to_owned(),
        };
        write!(f, "network/{}/{}/{}/{}/{trouble}", self.client, self.scenario, self.side.word(), self.message)
    }
}

/// Every case.
fn all(lengths: &Lengths) -> Vec<Case> {
    let mut cases = Vec::new();
    for client in [Client::Grpc, Client::Json] {
        for scenario in Scenario::ALL {
            for (side, message) in lengths[&(client, scenario)].places() {
                let troubles = [
                    Trouble::Cut(Moment::Before, How::End),
                    Trouble::Cut(Moment::Before, How::Reset),
                    Trouble::Cut(Moment::After, How::End),
                ];
                let further = match side {
                    Side::Server => [Trouble::Deafen].as_slice(),
                    Side::Client => &[Trouble::Late, Trouble::Later],
                };
                let troubles = troubles.iter().chain(further);
                cases.extend(troubles.map(|trouble| Case { client, scenario, side, message, trouble: *trouble }));
            }
        }
    }
    cases
}

/// Runs them.
///
/// # Errors
/// When not even that can be done.
pub async fn run(selection: &Selection, lengths: &Lengths) -> Result<KindReport> {
    let tally = Tally::new("network");
    let cases = selection.pick(all(lengths));
    in_worlds(&tally, "network", &cases, (IN_A_WORLD, WORLDS), run_in_one_world).await;
    Ok(tally.finish())
}

async fn run_in_one_world(cases: &[Case], tally: &Tally) -> Result<()> {
    let world = World::here(Database::shared().await?, None).await?;
    let hosts = set_up(&world, cases, |at| (cases[at].client, cases[at].scenario)).await?;
    stream::iter(cases.iter().zip(&hosts))
        .for_each_concurrent(AT_ONCE, async |(case, host)| {
            tally.count(case, in_time(survive(&world, host, case)).await)
        })
        .await;
    world.close().await
}

async fn survive(world: &World, host: &Host, case: &Case) -> Result<Survived> {
    let before = History::read(world, &host.name).await?;
    let act = match case.trouble {
        Trouble::Cut(moment, how) => Act::Cut(moment, how),
        Trouble::Deafen => Act::Deafen,
        Trouble::Late | Trouble::Later => Act::Hold,
    };
    host.proxy.arm(Some(Fault { side: case.side, message: case.message, act }));
    let joined = bearable(host.join().await)?;
    host.proxy.disarm();
    let aftermath = Aftermath::of(world, host, &before).await?;
    if !joined {
        host.join_at_last().await?;
    }
    let mut renewals = 0;
    if matches!(case.trouble, Trouble::Late | Trouble::Later) && host.proxy.happened() {
        if case.trouble == Trouble::Later {
            host.join_at_last().await?;
            renewals += 1;
        }
        host.proxy.release().await;
        happened_once(world, host, case.scenario, &before, renewals).await?;
        // And whatever came late does not stand in the way of the next join.
        host.join_at_last().await?;
        renewals += 1;
    }
    let after = happened_once(world, host, case.scenario, &before, renewals).await?;
    world.check().await?;
    aftermath.survived(host.proxy.happened(), &after)
}
