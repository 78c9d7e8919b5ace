//! A cluster of a test's own, whose database can be set back.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use clap::Parser as _;
use join_credential::MasterKey;
use join_domain::{
    envelope::Origin,
    event::{BotCreated, Event},
    id::{BotId, Name},
    resource::BotSpec,
};
use join_ledger::{Change, Ledger, PgConnectOptions, Settings, StreamAppend, provision};
use join_log::{LogReader, SignedNote, VerifierKey};
use join_server::{
    cluster,
    commands::Cli,
    config,
    logbook::Pace,
    service::{self, Parts},
    telemetry::{Alarm, METRICS},
};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard};
use tokio_util::sync::CancellationToken;

/// Longer than anything here takes, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// So short that what comes with a node's next look comes at once.
const MOMENT: Duration = Duration::from_millis(20);
/// The log's name when nobody gives it another.
pub(crate) const ORIGIN: &str = "test.example/log";

/// All nodes of a process share its alarms, so one test at a time has nodes.
static TURN: Mutex<()> = Mutex::const_new(());

pub(crate) struct Authority {
    database: String,
    master: String,
    folder: TempDir,
    bots: AtomicU32,
    turn: Arc<MutexGuard<'static, ()>>,
}

/// How a node is to run.
pub(crate) struct Spec<'a> {
    pub(crate) name: &'a str,
    pub(crate) directory: &'a str,
    pub(crate) origin: Option<&'a str>,
    pub(crate) witnesses: Vec<config::Witness>,
    pub(crate) ask_again: Duration,
}

impl Default for Spec<'_> {
    fn default() -> Self {
        Self { name: "joind one", directory: "log", origin: None, witnesses: Vec::new(), ask_again: MOMENT }
    }
}

pub(crate) struct Node {
    node: service::Node,
    directory: PathBuf,
}

impl Authority {
    /// A cluster that nobody serves yet.
    pub(crate) async fn new() -> Self {
        let authority = Self::empty().await;
        let ledger = authority.ledger().await;
        cluster::create(&ledger, &name(), &authority.master_key()).await.unwrap();
        ledger.close().await;
        authority
    }

    /// A migrated database without a cluster.
    pub(crate) async fn empty() -> Self {
        Self::with(Arc::new(TURN.lock().await)).await
    }

    /// Another database, without a cluster, in the same test.
    pub(crate) async fn sibling(&self) -> Self {
        Self::with(Arc::clone(&self.turn)).await
    }

    async fn with(turn: Arc<MutexGuard<'static, ()>>) -> Self {
        let database = unused_name();
        provision::fresh(&superuser(), &database).await.unwrap();
        Self { database, master: "5a".repeat(32), folder: tempfile::tempdir().unwrap(), bots: AtomicU32::new(0), turn }
    }

    fn master_key(&self) -> MasterKey {
        MasterKey::parse(&self.master).unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn owner(&self) -> PgConnectOptions {
        superuser().username(provision::OWNER).database(&self.database)
    }

    pub(crate) fn service(&self) -> PgConnectOptions {
        superuser().username(provision::SERVICE).database(&self.database)
    }

    pub(crate) async fn ledger(&self) -> Ledger {
        self.ledger_of("joind").await
    }

    async fn ledger_of(&self, node: &str) -> Ledger {
        let settings = Settings { connections: 6, node: node.to_owned(), ..Settings::default() };
        Ledger::connect(self.service(), settings).await.unwrap()
    }

    pub(crate) async fn superuser(&self) -> PgConnection {
        PgConnection::connect_with(&superuser().database(&self.database)).await.unwrap()
    }

    pub(crate) async fn node(&self, spec: Spec<'_>) -> Node {
        let directory = self.path(spec.directory);
        let node = service::start(Parts {
            cluster: Some(name()),
            log_directory: Some(directory.clone()),
            log_origin: spec.origin.map(str::to_owned),
            witnesses: spec.witnesses,
            log_pace: Pace { period: MOMENT, after_failure: MOMENT, ask_again: spec.ask_again },
            ..Parts::on_loopback(self.ledger_of(spec.name).await, self.master_key())
        });
        Node { node: node.await.unwrap(), directory }
    }

    /// Something happens, and gets its number in the log, without a pause while this is under way.
    pub(crate) async fn happens_during(&self, work: impl Future<Output = ()>) {
        let (ledger, done) = (self.ledger().await, CancellationToken::new());
        let happening = async {
            while !done.is_cancelled() {
                self.happens(20).await;
            }
        };
        let numbering = async {
            while !done.is_cancelled() {
                ledger.sequence_once(1000).await.unwrap();
            }
        };
        let working = async {
            work.await;
            done.cancel();
        };
        tokio::join!(happening, numbering, working);
        ledger.close().await;
    }

    /// Something happens, so many times.
    pub(crate) async fn happens(&self, times: u32) {
        let ledger = self.ledger().await;
        for _ in 0..times {
            let number = self.bots.fetch_add(1, Ordering::Relaxed);
            let name: Name = format!("another-{number}").parse().unwrap();
            let created = Event::BotCreated(BotCreated { name, spec: BotSpec::default() });
            let origin = Origin { actor: "admin/test".to_owned(), ..Origin::default() };
            let change = Change { events: vec![created], decided_at: ledger.now(), origin };
            let bot = BotId(join_log_tests::id(9, u64::from(number)));
            ledger.append(StreamAppend::begin(bot.into(), change)).await.unwrap();
        }
        ledger.close().await;
    }

    /// A copy of the database; nobody may be connected.
    pub(crate) async fn backup(&self) -> String {
        let copy = unused_name();
        let mut server = PgConnection::connect_with(&superuser()).await.unwrap();
        let end = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1";
        sqlx::query(end).bind(&self.database).execute(&mut server).await.unwrap();
        let create = format!("CREATE DATABASE {copy} OWNER {} TEMPLATE {}", provision::OWNER, self.database);
        sqlx::query(AssertSqlSafe(create)).execute(&mut server).await.unwrap();
        copy
    }

    /// The database is that of the backup again. What bots are called goes on, so that history differs.
    pub(crate) async fn restore(&mut self, backup: String) {
        let lost = std::mem::replace(&mut self.database, backup);
        provision::remove(&superuser(), &lost).await.unwrap();
    }

    /// The configuration of `joind`, in a file.
    pub(crate) fn configuration(&self, origin: &str) -> String {
        let server = join_embedded::for_tests();
        let url = |role: &str| server.url(role, &self.database);
        let text = format!(
            "cluster_name: test.example\npublic_addresses: [localhost]\n\
             database: {{service_url: \"{}\", owner_url: \"{}\"}}\nmaster_key: {{env: NONE}}\n\
             log: {{origin: {origin}}}\n",
            url(provision::SERVICE),
            url(provision::OWNER),
        );
        let file = self.path("joind.yaml");
        fs::write(&file, text).unwrap();
        file.display().to_string()
    }
}

/// Runs a command of `joind`.
pub(crate) async fn joind(arguments: &[&str]) -> anyhow::Result<u8> {
    Cli::try_parse_from([&["joind"], arguments].concat()).unwrap().run().await
}

impl Drop for Authority {
    fn drop(&mut self) {
        let database = self.database.clone();
        // The test's runtime is about to end: one of its own finishes the work.
        let removal = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(provision::remove(&superuser(), &database))
        });
        let _ = removal.join();
    }
}

impl Node {
    pub(crate) async fn stop(self) {
        self.node.stop().await;
    }

    /// The log's key.
    pub(crate) fn log_key(&self) -> VerifierKey {
        self.node.app.log_key.parse().unwrap()
    }

    pub(crate) fn note(&self) -> Option<SignedNote> {
        LogReader::open(&self.directory).checkpoint().unwrap()
    }

    /// The first published checkpoint that is as it should be.
    pub(crate) async fn publishes(&self, as_it_should_be: impl Fn(&SignedNote) -> bool) -> SignedNote {
        let mut published = None;
        let found = async || {
            published = self.note().filter(&as_it_should_be);
            published.is_some()
        };
        until("it publishes what it should", found).await;
        published.unwrap()
    }

    /// Waits until everything is under a published checkpoint.
    pub(crate) async fn publishes_all(&self) -> SignedNote {
        let end = self.numbers_all().await;
        self.publishes(|note| note.checkpoint().unwrap().size >= end).await
    }

    /// Waits until everything has its number in the log; where that ends.
    async fn numbers_all(&self) -> u64 {
        let ledger = &self.node.app.ceremonies.ledger;
        until("everything has its number", async || ledger.positions().await.unwrap().unsequenced == 0).await;
        ledger.positions().await.unwrap().next_index
    }

    /// What the metrics say of the alarm that the log was rolled back; nothing before it was looked at.
    pub(crate) async fn alarm(&self) -> Option<bool> {
        self.stands(Alarm::LogRollback).await
    }

    async fn stands(&self, alarm: Alarm) -> Option<bool> {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = tokio::net::TcpStream::connect(self.node.metrics_address).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let line = text.lines().find(|line| line.contains(&format!("alarm=\"{}\"", alarm.as_str())))?;
        Some(line.ends_with(" 1"))
    }

    /// Waits until the alarm stands, or does not.
    pub(crate) async fn until_alarm(&self, standing: bool) {
        until("the alarm is as it should be", async || self.alarm().await == Some(standing)).await;
    }

    /// Waits until it finds that it is set up for another log, which is no rollback.
    pub(crate) async fn until_misconfigured(&self) {
        until("it finds that it is set up for another log", async || {
            self.stands(Alarm::LogMisconfigured).await == Some(true)
        })
        .await;
        assert_eq!(self.alarm().await, Some(false));
    }

    /// Waits until it has looked at all that happened, and raised the alarm for it. No other node runs.
    pub(crate) async fn still_finds(&self, alarm: Alarm) {
        self.numbers_all().await;
        // The first time may be the end of a look that was under way.
        for _ in 0..2 {
            METRICS.alarm(alarm, false);
            until("it raises the alarm again", async || self.stands(alarm).await == Some(true)).await;
        }
    }
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < PATIENCE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn name() -> Name {
    "test.example".parse().unwrap()
}

fn superuser() -> PgConnectOptions {
    join_embedded::for_tests().url("postgres", "postgres").parse().unwrap()
}

fn unused_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("log_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}
