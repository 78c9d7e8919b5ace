//! `joinload run`: one profile against an authority that runs already. It makes a bot and tokens of its own there, by the
//! identity of an administrator, and removes them at the end.

use std::{
    collections::BTreeSet,
    net::{SocketAddr, ToSocketAddrs as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail, ensure};
use chrono::{SecondsFormat, Utc};
use clap::{Args, ValueEnum};
use join_proto::Address;
use serde_json::{Value, json};

use crate::{
    administration::{Administrator, Work, refusal},
    authority::roots,
    ceremony::Transport,
    connection::Target,
    fleet::{Connections, Fleet},
    key::random_hex,
    measured::{Cut, Measured},
    pace::{Load, Plan, Watched, drive},
    process::{Processes, told_to_end},
    profiles::{
        AT_ONCE, KEPT, administer, clone_storm, compare_locks, compare_with_authority, every_bot_joins, handshakes,
        nobody_refused, recovering, renewing, rotation, storm, waited,
    },
    report::Report,
};

const SECONDS: u64 = 30;
const WARM_UP: u64 = 5;
/// How much longer than its measurements a run may take until its tokens end by themselves.
const GRACE: Duration = Duration::from_secs(3600);
/// What a bot may take in all that is done once for each.
const EACH: Duration = Duration::from_millis(50);
/// How often it is tried to remove a bot whose tokens are still being made.
const TRIES: u32 = 5;
/// How long a measurement may take to say what it saw, once it is interrupted.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// The label of all that a run makes; its value is the run's.
const LABEL: &str = "joinload";

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Profile {
    /// Steady renewals, each over a new connection with the newest certificate.
    Renewals,
    /// Recoveries, again and again.
    Recoveries,
    /// First joins by secret alone: each bot once.
    Registrations,
    /// Each bot recovers once over a new connection, all of them due at once, as after an outage.
    Storm,
    /// Each bot gets a new key at its next join.
    Rotation,
    /// A third of the bots is copied: the copies are refused, and their owners locked.
    Clones,
    /// Renewals while administrators lock, exempt, list, follow the history and export the whole ledger.
    Administrators,
}

impl Profile {
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// How its figures are named, as in `bench` where that has the same.
    fn figures(self) -> &'static str {
        match self {
            Self::Renewals => "renewal",
            Self::Recoveries => "recovery",
            Self::Registrations => "registration",
            Self::Storm => "storm",
            Self::Rotation => "rotation",
            Self::Clones => "clone",
            Self::Administrators => "administrators_renewal",
        }
    }

    /// True when it goes on for a given time; the others end when each bot had its turn.
    fn takes_time(self) -> bool {
        matches!(self, Self::Renewals | Self::Recoveries | Self::Administrators)
    }
}

/// Puts one profile on an authority that runs already.
///
/// For this it makes a bot without roles or logins, and a token for each of --bots (for `administrators` one more, on
/// which locks and exemptions come and go). Their names begin with `joinload-` and eight random digits, and the label
/// `joinload` has the same digits. Secrets and keys are random and known to this process alone, and all of it
/// expires by itself an hour or so after the run.
///
/// At the end, after a failure and on Ctrl-C it writes what was measured so far, and removes the tokens, the locks on them,
/// and the bot, unless --keep is given. Their history stays in the ledger, as all history does. It fails unless every join
/// was accepted, nothing broke, and everything is removed.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The authority, such as `join.example.com:3025`.
    #[arg(long, value_name = "HOST:PORT")]
    addr: Address,
    /// An identity with the role admin: the directory with ca.crt, tls.crt and tls.key.
    #[arg(long, value_name = "DIR")]
    identity: PathBuf,
    /// What is done.
    #[arg(long, value_enum, default_value = "renewals")]
    profile: Profile,
    /// How many bots there are.
    #[arg(long, value_name = "COUNT", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    bots: u64,
    /// Joins at once: a closed loop, for the peak [default: 64].
    #[arg(long, value_name = "COUNT", conflicts_with = "rate", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    at_once: Option<u64>,
    /// Joins each second: an open loop, for latency. For renewals, recoveries and administrators.
    #[arg(long, value_name = "JOINS", value_parser = rate)]
    rate: Option<f64>,
    /// How long it is measured, in seconds [default: 30]. For renewals, recoveries and administrators.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: Option<u64>,
    /// How long it goes on before it is measured, in seconds [default: 5]. For renewals, recoveries and administrators.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=3600))]
    warm_up: Option<u64>,
    /// How bots speak.
    #[arg(long, value_enum, default_value = "grpc")]
    transport: Transport,
    /// How joins without a certificate are connected [default: kept]. For recoveries.
    #[arg(long, value_enum)]
    connections: Option<Connections>,
    /// Process id of joind, where it runs on this host: for its CPU time and memory.
    #[arg(long, value_name = "PID", value_parser = process)]
    joind_pid: Option<u32>,
    /// Process id of PostgreSQL's first process, where it runs on this host: for the CPU time and memory of all of them.
    #[arg(long, value_name = "PID", value_parser = process)]
    postgres_pid: Option<u32>,
    /// The same seed lets the bots come in the same order.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Leaves bot, tokens and locks where they are.
    #[arg(long)]
    keep: bool,
}

/// A process of this host.
fn process(text: &str) -> Result<u32, String> {
    let pid = text.parse().map_err(|_| "it is no process id".to_owned())?;
    if Processes::One(pid).is_running() { Ok(pid) } else { Err("no such process runs on this host".to_owned()) }
}

/// A rate that something can have.
fn rate(text: &str) -> Result<f64, String> {
    const RANGE: std::ops::RangeInclusive<f64> = 0.01..=1_000_000.0;
    match text.parse() {
        Ok(rate) if RANGE.contains(&rate) => Ok(rate),
        Ok(_) => Err(format!("it is not from {} to {} a second", RANGE.start(), RANGE.end())),
        Err(_) => Err("it is no number".to_owned()),
    }
}

impl Options {
    /// Refuses what a profile has no use for.
    fn check(&self) -> anyhow::Result<()> {
        let profile = self.profile.name();
        let timed = [
            ("--rate", self.rate.is_some()),
            ("--seconds", self.seconds.is_some()),
            ("--warm-up", self.warm_up.is_some()),
        ];
        if let Some((option, _)) = timed.iter().find(|(_, given)| *given && !self.profile.takes_time()) {
            anyhow::bail!(
                "{option} is not for --profile {profile}, in which each bot has one turn: --bots says how many there are"
            );
        }
        ensure!(
            self.at_once.is_none() || self.profile != Profile::Storm,
            "--at-once is not for --profile storm, in which all bots are due at once"
        );
        ensure!(
            self.connections.is_none() || self.profile == Profile::Recoveries,
            "--connections is not for --profile {profile}: only recoveries have a choice"
        );
        ensure!(
            self.profile != Profile::Clones || self.bots >= 3,
            "--profile clones copies a third of the bots: --bots must be 3 or more"
        );
        ensure!(
            self.at_once.is_none_or(|at_once| at_once <= self.bots),
            "--at-once is more than --bots {}: a bot joins once at a time",
            self.bots
        );
        Ok(())
    }

    fn at_once(&self) -> u64 {
        self.at_once.unwrap_or(AT_ONCE).min(self.bots)
    }

    fn plan(&self) -> Plan {
        Plan {
            load: self.rate.map_or(Load::Closed(self.at_once()), Load::Open),
            warm_up: Duration::from_secs(self.warm_up.unwrap_or(WARM_UP)),
            measured: Duration::from_secs(self.seconds.unwrap_or(SECONDS)),
        }
    }

    fn watched(&self) -> Watched {
        Watched {
            joind: self.joind_pid.map(Processes::One),
            postgres: self.postgres_pid.map(Processes::Family),
            ..Watched::default()
        }
    }

    fn target(&self) -> anyhow::Result<Target> {
        let Address { host, port } = &self.addr;
        let addresses = (host.as_str(), *port).to_socket_addrs().with_context(|| format!("--addr {}", self.addr))?;
        let address: SocketAddr = addresses.into_iter().next().context("the host of --addr has no address")?;
        Target::new(address, host, &roots(&self.identity.join("ca.crt"))?)
    }

    async fn administrator(&self) -> anyhow::Result<Administrator> {
        let connected = Administrator::with_identity(self.target()?, &self.identity).await;
        connected.with_context(|| format!("{} can't be reached as an administrator", self.addr))
    }

    /// What an administrator was answered, with a word for those who took the wrong identity.
    fn allowed<T>(&self, answer: anyhow::Result<T>) -> anyhow::Result<T> {
        answer.map_err(|why| match refusal(&why) {
            Some("ROLE_REQUIRED") => {
                why.context(format!("--identity {} lacks the role admin", self.identity.display()))
            }
            _ => why,
        })
    }
}

/// Runs one profile, writes its report, and removes what it made, whatever came of it.
///
/// # Errors
/// What went wrong first, and then the rest.
pub(crate) async fn run(options: &Options, directory: &Path) -> anyhow::Result<()> {
    options.check()?;
    let administrator = Arc::new(options.administrator().await?);
    let made = Made::new(options);
    let mut report = Report::new("run", options.seed);
    let measured = measure_until_told_to_end(options, &administrator, &made, &mut report).await;
    if let Err(why) = &measured {
        if made.may_be_there() {
            // Removing may take a while, or fail.
            eprintln!("{why:#}");
        }
        add_what_was_seen(&mut report, why);
    }
    let written = if report.has_rows() { crate::finish(report, directory) } else { Ok(()) };
    let removed = made.leave(options, &administrator).await;
    let mut errors = [measured, written, removed].into_iter().filter_map(Result::err);
    let Some(cause) = errors.next() else { return Ok(()) };
    Err(errors.fold(cause, |all, next| anyhow!("{all:#}; besides, {next:#}")))
}

/// A measurement that is interrupted says what it saw; anything else is left at once.
async fn measure_until_told_to_end(
    options: &Options,
    administrator: &Arc<Administrator>,
    made: &Made,
    report: &mut Report,
) -> anyhow::Result<()> {
    let watched = options.watched();
    let measuring = measure(options, administrator, made, &watched, report);
    tokio::pin!(measuring);
    let why = tokio::select! {
        done = &mut measuring => return done,
        why = told_to_end() => why,
    };
    watched.interrupt.cancel();
    tokio::time::timeout(LAST_WORDS, measuring).await.unwrap_or_else(|_| Err(anyhow!(why)))
}

/// Adds the row of a measurement that was cut, marked as such.
fn add_what_was_seen(report: &mut Report, why: &anyhow::Error) {
    let Some(Cut { how, measured, .. }) = why.downcast_ref() else { return };
    if measured.joins > 0 || !measured.refusals.is_empty() {
        report.note(how, &format!("{why:#}"));
        report.add(Measured { what: format!("{} ({how})", measured.what), ..measured.clone() });
    }
}

async fn measure(
    options: &Options,
    administrator: &Arc<Administrator>,
    made: &Made,
    watched: &Watched,
    report: &mut Report,
) -> anyhow::Result<()> {
    report.settings(json!({ "options": format!("{options:?}"), "run": made.run }));
    let status = options.allowed(administrator.get("/v1/status").await)?;
    report.service(format!("joind {}", status["version"].as_str().unwrap_or("of an unknown version")));
    let tokens = made.make(options, administrator).await?;
    let fleet = Fleet::registering(options.target()?, tokens)?;
    let mut fleet = fleet.over(options.transport).shuffled(options.seed);
    fleet.keep_connections(KEPT).await?;
    let fleet = Arc::new(fleet);
    let at_once = options.at_once();

    let registered = every_bot_joins("first joins by secret, kept connections", at_once, watched, &fleet).await?;
    let mut cloned = BTreeSet::new();
    let done = match options.profile {
        Profile::Registrations => registered,
        Profile::Renewals => drive("renewals, full handshake each", options.plan(), watched, renewing(&fleet)).await?,
        Profile::Recoveries => {
            let connections = options.connections.unwrap_or(Connections::Kept);
            let what = format!("recoveries, {}", connections.words());
            drive(&what, options.plan(), watched, recovering(&fleet, connections)).await?
        }
        Profile::Storm => storm(watched, &fleet).await?,
        Profile::Rotation => rotation(administrator, at_once, watched, &fleet).await?,
        Profile::Clones => {
            let storm = clone_storm(at_once, watched, &fleet).await?;
            cloned = storm.tokens;
            storm.refused
        }
        Profile::Administrators => {
            let work = Work::start(async || options.administrator().await, &made.worked_on()).await?;
            let what = "renewals, full handshake each, administrators at work";
            let done = drive(what, options.plan(), watched, renewing(&fleet)).await?;
            match work.stop().await {
                Ok(calls) => calls.into_iter().for_each(|call| report.add(call)),
                Err(why) => return Err(Cut::new("broken", done, why).into()),
            }
            done
        }
    };
    report.rates(options.profile.figures(), std::slice::from_ref(&done));
    let accepted = nobody_refused(&done);
    if let Err(why) = &accepted {
        report.note("refused", &format!("{why:#}"));
    }
    report.add(done);
    let [full, resumed] = handshakes(&fleet);
    report.figure("full_handshakes_seen", full);
    report.figure("resumed_handshakes_seen", resumed);
    report.figure("joins_that_waited_for_their_bot", waited(&fleet));
    // A refusal may be why the books differ, so it is told first.
    match (accepted, compare(options, administrator, &fleet, &cloned, report).await) {
        (Err(refused), Err(differ)) => bail!("{refused:#}; besides, {differ:#}"),
        (accepted, compared) => accepted.and(compared),
    }
}

/// The authority knows of the fleet what the fleet knows of itself.
async fn compare(
    options: &Options,
    administrator: &Arc<Administrator>,
    fleet: &Arc<Fleet>,
    cloned: &BTreeSet<String>,
    report: &mut Report,
) -> anyhow::Result<()> {
    compare_locks(administrator, fleet, cloned).await?;
    report.checked(&match cloned.len() {
        0 => "the authority itself locked no token".to_owned(),
        cloned => format!("{cloned} cloned tokens are locked, once each, and no other"),
    });
    let joins = compare_with_authority(administrator, fleet).await?;
    report.checked(&format!(
        "of each of {} bots the authority counts as many recoveries as the bot, and knows the generation of its last \
         certificate, after {joins} joins",
        options.bots
    ));
    Ok(())
}

/// What a run makes at an authority.
struct Made {
    /// Random, so that no two runs meet.
    run: String,
    bot: String,
    tokens: Vec<String>,
    expires: String,
    /// False until the bot may be there: without it there are no tokens.
    begun: AtomicBool,
}

impl Made {
    fn new(options: &Options) -> Self {
        let run = random_hex::<4>();
        let bot = format!("joinload-{run}");
        let mut tokens: Vec<String> = (0..options.bots).map(|number| format!("{bot}-{number}")).collect();
        if options.profile == Profile::Administrators {
            tokens.push(format!("{bot}-worked-on"));
        }
        let plan = options.plan();
        let each = EACH * u32::try_from(options.bots).unwrap_or(u32::MAX);
        let expires = Utc::now() + GRACE + each + plan.warm_up + plan.measured;
        Self {
            run,
            bot,
            tokens,
            expires: expires.to_rfc3339_opts(SecondsFormat::Secs, true),
            begun: AtomicBool::new(false),
        }
    }

    /// The token on which locks and exemptions come and go; nobody joins with it.
    fn worked_on(&self) -> String {
        self.tokens.last().cloned().unwrap_or_default()
    }

    fn metadata(&self, name: &str) -> Value {
        json!({ "name": name, "labels": { LABEL: self.run }, "expires": self.expires })
    }

    /// Makes bot and tokens; returns each bot's token with its secret.
    async fn make(
        &self,
        options: &Options,
        administrator: &Arc<Administrator>,
    ) -> anyhow::Result<Vec<(String, String)>> {
        self.begun.store(true, Ordering::Relaxed);
        let bot = administrator.create_bot(&self.metadata(&self.bot)).await;
        if bot.as_ref().is_err_and(|why| refusal(why).is_some()) {
            self.begun.store(false, Ordering::Relaxed);
        }
        options.allowed(bot)?;
        let tokens: Vec<_> = self.tokens.iter().map(|token| (token.clone(), random_hex::<32>())).collect();
        let written: Arc<[_]> = tokens.iter().map(|(token, secret)| (self.metadata(token), secret.clone())).collect();
        let bot = self.bot.clone();
        administer("tokens made", u64::try_from(written.len())?, administrator, move |administrator, number| {
            let (written, bot) = (Arc::clone(&written), bot.clone());
            Box::pin(async move {
                let (metadata, secret) = &written[usize::try_from(number)?];
                administrator.create_token(metadata, &bot, secret).await
            })
        })
        .await?;
        Ok(tokens.into_iter().filter(|(token, _)| !token.ends_with("-worked-on")).collect())
    }

    /// Whether there may be anything to remove.
    fn may_be_there(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    /// Removes what was made, where something was, or says that it is kept.
    async fn leave(&self, options: &Options, administrator: &Arc<Administrator>) -> anyhow::Result<()> {
        let Self { bot, run, expires, .. } = self;
        if !self.may_be_there() {
            return Ok(());
        }
        if options.keep {
            eprintln!("kept: bot {bot} and its tokens, with the label {LABEL}={run}");
            return Ok(());
        }
        let removed = tokio::select! {
            removed = self.remove(administrator) => removed,
            why = told_to_end() => Err(anyhow!(why)),
        };
        removed.with_context(|| {
            format!(
                "bot {bot} or tokens of it may be left: remove what has the label {LABEL}={run}, or let it expire at {expires}"
            )
        })
    }

    /// Removes tokens, locks on them, and the bot. What was asked for just before an interruption may still be made
    /// meanwhile, but not once the bot is gone, which goes only when no token is left.
    async fn remove(&self, administrator: &Arc<Administrator>) -> anyhow::Result<()> {
        let mut tries = 1;
        loop {
            let tokens: Arc<[String]> = self.tokens.iter().map(|token| format!("/v1/tokens/{token}")).collect();
            removing("tokens removed", tokens, administrator).await?;
            let locks = administrator.locks().await?.into_iter().filter(|lock| self.tokens.contains(&lock.token));
            removing("locks removed", locks.map(|lock| format!("/v1/locks/{}", lock.name)).collect(), administrator)
                .await?;
            match administrator.delete(&format!("/v1/bots/{}", self.bot)).await {
                Err(_) if tries < TRIES => tries += 1,
                outcome => return outcome,
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

async fn removing(what: &str, paths: Arc<[String]>, administrator: &Arc<Administrator>) -> anyhow::Result<()> {
    administer(what, u64::try_from(paths.len())?, administrator, move |administrator, number| {
        let paths = Arc::clone(&paths);
        Box::pin(async move { administrator.delete(&paths[usize::try_from(number)?]).await })
    })
    .await
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn read(arguments: &str) -> Result<Options, String> {
        let common = ["joinload", "--addr", "join.example.com:3025", "--identity", "admin"];
        let line = Line::try_parse_from(common.into_iter().chain(arguments.split_whitespace()));
        let options = line.map_err(|error| error.to_string())?.options;
        options.check().map_err(|error| error.to_string())?;
        Ok(options)
    }

    #[test]
    fn what_can_not_be_is_refused_in_words() {
        for (arguments, expected) in [
            ("--rate 0", "0.01 to 1000000"),
            ("--rate=-5", "0.01 to 1000000"),
            ("--rate NaN", "0.01 to 1000000"),
            ("--rate inf", "0.01 to 1000000"),
            ("--rate fast", "no number"),
            ("--bots 0", "1..=1000000"),
            ("--seconds 0", "1..=86400"),
            ("--at-once 0", "1..=10000"),
            ("--rate 5 --at-once 5", "cannot be used with"),
            ("--profile registrations --rate 5", "--rate is not for --profile registrations"),
            ("--profile rotation --seconds 5", "--seconds is not for --profile rotation"),
            ("--profile storm --at-once 5", "--at-once is not for --profile storm"),
            ("--profile renewals --connections new", "--connections is not for --profile renewals"),
            ("--profile clones --bots 2", "--bots must be 3 or more"),
            ("--bots 10 --at-once 11", "--at-once is more than --bots 10"),
            ("--joind-pid 0", "no such process"),
        ] {
            let told = read(arguments).expect_err(arguments);
            assert!(told.contains(expected), "{arguments}: {told}");
        }
    }

    #[test]
    fn what_has_a_use_is_taken() {
        for arguments in ["--rate 0.5 --seconds 1", "--profile registrations --at-once 5", "--profile administrators"] {
            assert!(read(arguments).is_ok(), "{arguments}");
        }
        let options = read("--profile recoveries --connections new").unwrap();
        assert!(matches!(options.plan().load, Load::Closed(AT_ONCE)));
    }
}
