//! A real authority on a real PostgreSQL, for one test; all of it goes with the test.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use join_agent::{Agent, clock, config::Config, entropy, storage::Memory};
use join_credential::{MasterKey, Role};
use join_domain::id::Name;
use join_ledger::{Ledger, PgConnectOptions, Settings, provision};
use join_server::{
    administrators, cluster,
    service::{self, Node, Parts},
};
use sqlx::Connection as _;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::{Ran, command, run};

pub(crate) struct Authority {
    runtime: Runtime,
    node: Option<Node>,
    superuser: PgConnectOptions,
    database: String,
    address: String,
    folder: TempDir,
}

impl Authority {
    pub(crate) fn start() -> Self {
        Self::serving(Some("log"))
    }

    /// One whose node writes no log files.
    pub(crate) fn without_log() -> Self {
        Self::serving(None)
    }

    fn serving(log: Option<&str>) -> Self {
        let superuser: PgConnectOptions = join_embedded::for_tests().url("postgres", "postgres").parse().unwrap();
        let runtime = Runtime::new().unwrap();
        let database = unused_name();
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("work")).unwrap();
        let node = runtime.block_on(serve(&superuser, &database, folder.path(), log));
        Self { runtime, address: node.address.to_string(), node: Some(node), superuser, database, folder }
    }

    /// Where its node writes the log's files.
    pub(crate) fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// The directory in which `joinctl` runs.
    pub(crate) fn directory(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    /// Writes a file there.
    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.directory().join(name), text).unwrap();
    }

    pub(crate) fn command(&self, role: Role, arguments: &[&str]) -> Command {
        let mut command = command(&self.directory(), arguments);
        let identity = self.folder.path().join(role.to_string());
        command.env("JOINCTL_ADDR", &self.address).env("JOINCTL_IDENTITY", identity);
        command
    }

    /// What an administrator's `joinctl` does.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        self.run_as(Role::Admin, arguments)
    }

    pub(crate) fn run_as(&self, role: Role, arguments: &[&str]) -> Ran {
        run(&mut self.command(role, arguments))
    }

    /// The stdout of a command that must succeed.
    pub(crate) fn done(&self, arguments: &[&str]) -> String {
        let ran = self.run(arguments);
        assert_eq!(ran.code, 0, "{arguments:?}: {}", ran.stderr);
        ran.stdout
    }

    /// The JSON of a command that must succeed.
    pub(crate) fn json(&self, arguments: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.done(&[arguments, &["--format", "json"]].concat())).unwrap()
    }

    /// A bot and its token of the same name.
    pub(crate) fn with_bot(self, name: &str) -> Self {
        self.done(&["bots", "add", name]);
        self
    }

    /// A bot that has joined once, and its token of the same name.
    pub(crate) fn with_joined_bot(self, name: &str) -> Self {
        let uri = self.json(&["bots", "add", name])["join_uri"].as_str().unwrap().parse().unwrap();
        let config = Config::from_uri(uri, &|_| None).unwrap();
        let mut agent = Agent::new(config, Arc::new(Memory::default()), clock::SystemClock, entropy::SystemEntropy);
        self.runtime.block_on(agent.join_once()).unwrap();
        self
    }

    /// What somebody does who has the database to themselves.
    pub(crate) fn sql(&self, statement: &'static str) {
        let database = self.superuser.clone().database(&self.database);
        self.runtime.block_on(async {
            let mut connection = sqlx::PgConnection::connect_with(&database).await.unwrap();
            let done = sqlx::query(statement).execute(&mut connection).await.unwrap();
            assert!(done.rows_affected() > 0, "it changes nothing");
        });
    }

    /// Keeps every node from writing the log on, until what is returned is dropped.
    pub(crate) fn holding_the_log(&self) -> sqlx::PgConnection {
        let database = self.superuser.clone().database(&self.database);
        self.runtime.block_on(async {
            let mut connection = sqlx::PgConnection::connect_with(&database).await.unwrap();
            sqlx::raw_sql("BEGIN; SELECT FROM log_head FOR UPDATE").execute(&mut connection).await.unwrap();
            connection
        })
    }

    /// Waits until the log holds all that was written.
    pub(crate) fn settle(&self) {
        let begun = Instant::now();
        while self.json(&["status"])["unsequenced"] != 0 {
            assert!(begun.elapsed() < Duration::from_secs(30), "nothing orders the log");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        if let Some(node) = self.node.take() {
            self.runtime.block_on(node.stop());
        }
        let removed = self.runtime.block_on(provision::remove(&self.superuser, &self.database));
        assert!(removed.is_ok() || std::thread::panicking(), "{removed:?}");
    }
}

async fn serve(superuser: &PgConnectOptions, database: &str, folder: &Path, log: Option<&str>) -> Node {
    let roles = provision::fresh(superuser, database).await.unwrap();
    let ledger = Ledger::connect(roles.service, Settings { connections: 6, ..Settings::default() }).await.unwrap();
    let name: Name = "test.example".parse().unwrap();
    let master = MasterKey::create(&folder.join("master.key")).unwrap();
    cluster::create(&ledger, &name, &master).await.unwrap();

    for role in [Role::Admin, Role::Operator, Role::Auditor] {
        let directory = folder.join(role.to_string());
        let who: Name = role.to_string().parse().unwrap();
        let issued = administrators::issue(&ledger, &master, &who, role, &directory);
        issued.await.unwrap();
    }
    let node = service::start(Parts {
        cluster: Some(name),
        log_directory: log.map(|log| folder.join(log)),
        ..Parts::on_loopback(ledger, master)
    });
    node.await.unwrap()
}

fn unused_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("joinctl_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}
