//! SIGKILL for PostgreSQL, whole or one process of it, and lost connections to it. The service lives on.

use std::fmt;

use anyhow::{Result, ensure};
use tempfile::TempDir;

use super::{Aftermath, Lengths, bearable, in_time, in_worlds, set_up};
use crate::{
    database::{Database, Server},
    fault::{Act, Blow, Counts, Fault, How, Moment, Side},
    history::{History, happened_once},
    host::{Client, Host},
    proxy::Proxy,
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
    place: Place,
    side: Side,
    message: usize,
    moment: Moment,
    trouble: Trouble,
}

/// Whose messages are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Between bot and service.
    Service,
    /// Between service and PostgreSQL, where it appends: so that a commit is made whose answer is lost.
    Database,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// SIGKILL for all of PostgreSQL's processes.
    KillAll,
    /// SIGKILL for one that serves the service.
    KillOne,
    /// The connection ends.
    Cut,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scenario, place, side, message, moment, trouble } = self;
        let place = match place {
            Place::Service => "",
            Place::Database => "append/",
        };
        let trouble = match trouble {
            Trouble::KillAll => "kill-database",
            Trouble::KillOne => "kill-backend",
            Trouble::Cut => "cut-database",
        };
        write!(f, "{trouble}/{scenario}/{place}{}/{message}/{}", side.word(), moment.word())
    }
}

fn all(lengths: &Lengths, appends: &[(Scenario, Counts)]) -> Vec<Case> {
    let mut cases = Vec::new();
    for (scenario, append) in appends {
        let mut add = |place, trouble, counts: Counts| {
            cases.extend(counts.places().flat_map(|(side, message)| {
                Moment::BOTH.map(|moment| Case { scenario: *scenario, place, side, message, moment, trouble })
            }));
        };
        add(Place::Service, Trouble::KillAll, lengths[&(Client::Grpc, *scenario)]);
        for trouble in [Trouble::KillAll, Trouble::KillOne, Trouble::Cut] {
            add(Place::Database, trouble, *append);
        }
    }
    cases
}

/// Runs them.
///
/// # Errors
/// When not even that can be done.
pub async fn run(selection: &Selection, lengths: &Lengths) -> Result<KindReport> {
    let tally = Tally::new("database killed or cut off");
    let cases = selection.pick(all(lengths, &measure().await?));
    in_worlds(&tally, "kill-database", &cases, (IN_A_WORLD, WORLDS), run_in_one_world).await;
    Ok(tally.finish())
}

/// A cluster whose PostgreSQL can be killed, with a way to it on which things go wrong.
struct Killable {
    world: World,
    way: Proxy,
    server: Server,
    _socket: TempDir,
}

impl Killable {
    async fn start() -> Result<Self> {
        let server = Server::start().await?;
        let socket = tempfile::tempdir()?;
        let way = Proxy::to_database(socket.path(), server.address().socket_dir().to_owned())?;
        let world = World::here(Database::on(server.address()).await?, Some(socket.path())).await?;
        Ok(Self { world, way, server, _socket: socket })
    }

    async fn close(self) -> Result<()> {
        self.world.close().await?;
        self.server.stop().await
    }
}

/// How many messages the appends of an undisturbed join have.
async fn measure() -> Result<Vec<(Scenario, Counts)>> {
    let killable = Killable::start().await?;
    let hosts = set_up(&killable.world, &Scenario::ALL, |at| (Client::Grpc, Scenario::ALL[at])).await?;
    let mut appends = Vec::new();
    for (scenario, host) in Scenario::ALL.into_iter().zip(&hosts) {
        killable.way.arm(None);
        host.join_at_last().await?;
        let counts = killable.way.counts();
        ensure!(
            Side::BOTH.into_iter().all(|side| counts.of(side) > 0),
            "no message of {scenario} is seen on connections that append: they are known by what they ask for at the \
             start, see `proxy::is_writer`"
        );
        appends.push((scenario, counts));
    }
    killable.close().await?;
    Ok(appends)
}

async fn run_in_one_world(cases: &[Case], tally: &Tally) -> Result<()> {
    let mut killable = Killable::start().await?;
    let hosts = set_up(&killable.world, cases, |at| (Client::Grpc, cases[at].scenario)).await?;
    for (case, host) in cases.iter().zip(&hosts) {
        tally.count(case, in_time(survive(&mut killable, host, case)).await);
    }
    killable.close().await
}

async fn survive(killable: &mut Killable, host: &Host, case: &Case) -> Result<Survived> {
    let Killable { world, way, server, .. } = killable;
    let before = History::read(world, &host.name).await?;
    let way = match case.place {
        Place::Service => &host.proxy,
        Place::Database => &*way,
    };
    let (processes, database) = (server.processes(), world.database.name.clone());
    let strike = |blow| Act::Strike { moment: case.moment, blow, goes_on: true };
    let act = match case.trouble {
        Trouble::KillAll => strike(Blow::new(move || processes.kill_all())),
        Trouble::KillOne => strike(Blow::new(move || processes.kill_backend(&database))),
        Trouble::Cut => Act::Cut(case.moment, How::End),
    };
    way.arm(Some(Fault { side: case.side, message: case.message, act }));
    let joined = bearable(host.join().await)?;
    way.disarm();
    let reached = way.happened();
    if reached && case.trouble == Trouble::KillAll {
        server.restart().await?;
    }
    let aftermath = Aftermath::of(world, host, &before).await?;
    if !joined {
        host.join_at_last().await?;
    }
    let after = happened_once(world, host, case.scenario, &before, 0).await?;
    world.check().await?;
    aftermath.survived(reached, &after)
}
