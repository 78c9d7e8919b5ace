//! Two holders of one disk: any interleaving of their joins locks the token within the bound of the protocol.
//!
//! The copies diverge at the first accepted join whose attempt is not on both. From there the accepted joins fall into
//! at most two runs, one of each holder; whoever tries a third run locks the token. Nothing locks it without two holders.

mod schedule;
mod story;

use std::fmt;

use anyhow::Result;

use self::{schedule::Schedule, story::Story};
use super::{in_time, in_worlds, storage};
use crate::{
    database::Database,
    report::{KindReport, Selection, Survived, Tally},
    scenario::Scenario,
    world::World,
};

/// Cases in one cluster, one after another, and clusters at the same time.
const IN_A_WORLD: usize = 24;
const WORLDS: usize = 4;
/// Random schedules for each moment at which a disk is copied.
const RANDOM: u64 = 12;

#[derive(Debug, Clone)]
struct Case {
    scenario: Scenario,
    /// The disk is copied after so many writes of the scenario's join.
    writes: usize,
    /// Whether the token has recoveries to spare.
    ample: bool,
    schedule: Schedule,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limit = if self.ample { "ample" } else { "tight" };
        write!(f, "clones/{}/{}/{limit}/{}", self.scenario, self.writes, self.schedule)
    }
}

fn all(writes: &[(Scenario, usize)]) -> Vec<Case> {
    let mut cases = Vec::new();
    for (scenario, most) in writes {
        for writes in 0..=*most {
            let case = |ample, schedule| Case { scenario: *scenario, writes, ample, schedule };
            cases.extend(Schedule::short().into_iter().map(|schedule| case(true, schedule)));
            let seed = |number| (*scenario as u64) << 32 | (writes as u64) << 16 | number;
            cases.extend((0..RANDOM).map(|number| case(number % 3 > 0, Schedule::random(seed(number)))));
        }
    }
    cases
}

/// Runs them.
///
/// # Errors
/// When not even that can be done.
pub async fn run(selection: &Selection) -> Result<KindReport> {
    let tally = Tally::new("clones");
    let cases = selection.pick(all(&storage::writes().await?));
    in_worlds(&tally, "clones", &cases, (IN_A_WORLD, WORLDS), run_in_one_world).await;
    Ok(tally.finish())
}

async fn run_in_one_world(cases: &[Case], tally: &Tally) -> Result<()> {
    let world = World::here(Database::shared().await?, None).await?;
    for (at, case) in cases.iter().enumerate() {
        tally.count(case, in_time(tell(&world, &format!("bot-{at}"), case)).await);
    }
    world.close_with_locks().await
}

async fn tell(world: &World, name: &str, case: &Case) -> Result<Survived> {
    let mut story = Story::begin(world, name, case.scenario, case.writes, case.ample).await?;
    for step in case.schedule.steps() {
        story.go_on(step).await?;
    }
    // In the end both are alive, and come in turns.
    for step in Schedule::both_alive() {
        story.go_on(step).await?;
    }
    story.end().await
}
