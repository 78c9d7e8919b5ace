//! SIGKILL for the agent: a real `joinbot` on a real directory, which is started again afterwards.

use std::{
    fmt, fs,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::Output,
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, stream};
use join_agent::output::Identity;
use tokio::process::Child;

use super::{Aftermath, Lengths, in_time, set_up_on};
use crate::{
    database::Database,
    fault::{Act, Blow, Fault, Moment, Side},
    history::{History, happened_once},
    host::{Client, Disk, Host},
    joind::programs,
    process,
    report::{KindReport, Selection, Survived, Tally},
    scenario::Scenario,
    world::World,
};

/// Cases in one cluster, and how many at the same time.
const IN_A_WORLD: usize = 64;
const AT_ONCE: usize = 3;
/// How long after the answer has arrived the agent is killed, in microseconds: around the moments at which it writes.
const AFTER_THE_ANSWER: [u64; 12] = [100, 300, 600, 1000, 1500, 2000, 3000, 4000, 6000, 9000, 14_000, 22_000];

#[derive(Debug, Clone, Copy)]
struct Case {
    scenario: Scenario,
    side: Side,
    message: usize,
    moment: Moment,
    /// How long after it, in microseconds.
    delay: u64,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scenario, side, message, moment, delay } = self;
        write!(f, "kill-agent/{scenario}/{}/{message}/{}", side.word(), moment.word())?;
        if *delay > 0 { write!(f, "-{delay}us") } else { Ok(()) }
    }
}

fn all(lengths: &Lengths) -> Vec<Case> {
    let of = |scenario: Scenario| {
        let length = lengths[&(Client::Grpc, scenario)];
        let at_once = length.places().flat_map(move |(side, message)| {
            Moment::BOTH.map(|moment| Case { scenario, side, message, moment, delay: 0 })
        });
        // The answer is one of the last messages.
        let last = length.server.saturating_sub(2)..=length.server;
        let later = last.flat_map(move |message| {
            AFTER_THE_ANSWER.map(|delay| Case { scenario, side: Side::Server, message, moment: Moment::After, delay })
        });
        at_once.chain(later)
    };
    Scenario::ALL.into_iter().flat_map(of).collect()
}

/// Runs them.
///
/// # Errors
/// When not even that can be done.
pub async fn run(selection: &Selection, lengths: &Lengths) -> Result<KindReport> {
    // On a fresh machine that takes longer than any case may.
    programs().await?;
    let tally = Tally::new("agent killed");
    let cases = selection.pick(all(lengths));
    for cases in cases.chunks(IN_A_WORLD) {
        tally.fail("kill-agent", run_in_one_world(cases, &tally).await);
    }
    Ok(tally.finish())
}

async fn run_in_one_world(cases: &[Case], tally: &Tally) -> Result<()> {
    let world = World::here_by_real_time(Database::shared().await?).await?;
    let folder = tempfile::tempdir()?;
    let disk = |at: usize| Disk::Directory(folder.path().join(format!("bot-{at}/storage")));
    for at in 0..cases.len() {
        fs::create_dir(folder.path().join(format!("bot-{at}")))?;
    }
    let hosts = set_up_on(&world, cases, |at| (Client::Grpc, cases[at].scenario), disk).await?;
    stream::iter(cases.iter().zip(&hosts).enumerate())
        .for_each_concurrent(AT_ONCE, async |(at, (case, host))| {
            let folder = folder.path().join(format!("bot-{at}"));
            tally.count(case, in_time(survive(&world, host, &folder, case)).await);
        })
        .await;
    world.close().await
}

async fn survive(world: &World, host: &Host, folder: &Path, case: &Case) -> Result<Survived> {
    let before = History::read(world, &host.name).await?;
    let configuration = configure(world, host, folder)?;
    let victim = Arc::new(AtomicI32::new(0));
    let blow = kill_later(Arc::clone(&victim), Duration::from_micros(case.delay));
    let act = Act::Strike { moment: case.moment, blow, goes_on: false };
    host.proxy.arm(Some(Fault { side: case.side, message: case.message, act }));
    let agent = start(&configuration).await?;
    victim.store(agent.id().and_then(|id| i32::try_from(id).ok()).context("it has ended")?, Ordering::SeqCst);
    let interrupted = agent.wait_with_output().await?;
    host.proxy.disarm();
    // It may have done everything and ended before the blow.
    let reached = host.proxy.happened() && interrupted.status.signal().is_some();
    ensure!(reached || interrupted.status.success(), "it failed without being killed: {}", told(&interrupted));
    let aftermath = Aftermath::of(world, host, &before).await?;

    let again = start(&configuration).await?.wait_with_output().await?;
    ensure!(again.status.success(), "started again, it does not join: {}", told(&again));
    // Whoever has stored the result, killed or not, renews with the next run.
    let renewals = usize::from(aftermath.stored);
    let after = happened_once(world, host, case.scenario, &before, renewals).await?;
    let stored = host.state()?.accepted.context("nothing is stored")?;
    ensure!(
        Identity::new(&folder.join("identity"))?.holds(&stored.credentials),
        "the outputs are not of the newest join"
    );
    world.check().await?;
    let mut survived = aftermath.survived(reached, &after)?;
    if reached && aftermath.stored {
        survived.noted.push("killed after the result was stored");
    }
    Ok(survived)
}

/// Kills the process as soon as it is known, and the time has come.
fn kill_later(victim: Arc<AtomicI32>, delay: Duration) -> Blow {
    Blow::new(move || {
        let (began, victim) = (Instant::now(), Arc::clone(&victim));
        let strike = move || {
            while victim.load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
            std::thread::sleep(delay.saturating_sub(began.elapsed()));
            process::kill(victim.load(Ordering::SeqCst))
        };
        if delay.is_zero() {
            return strike();
        }
        // Whether it still ran then shows in how it ended.
        drop(std::thread::spawn(strike));
        true
    })
}

async fn start(configuration: &Path) -> Result<Child> {
    Ok(programs().await?.joinbot.command().args(["start", "--oneshot", "-c"]).arg(configuration).spawn()?)
}

fn told(output: &Output) -> String {
    format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr))
}

fn configure(world: &World, host: &Host, folder: &Path) -> Result<PathBuf> {
    let secret = match &host.secret {
        Some(secret) => format!("{{registration_secret: {secret}}}"),
        None => "{}".to_owned(),
    };
    let text = format!(
        "version: v2\nauth_server: {way}\nca_pins: [\"{pin}\"]\nonboarding:\n  join_method: bound_keypair\n  token: {name}\n  \
         bound_keypair: {secret}\nstorage: {{type: directory, path: {folder}/storage}}\ncertificate_ttl: 1h\noutputs:\n  \
         - type: identity\n    destination: {{type: directory, path: {folder}/identity}}\n",
        way = host.way,
        pin = world.pin,
        name = host.name,
        folder = folder.display(),
    );
    let path = folder.join("joinbot.yaml");
    fs::write(&path, text)?;
    Ok(path)
}
