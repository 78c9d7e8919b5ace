//! A private authority: `joind serve` as a process of its own, on a PostgreSQL of its own that keeps what it commits.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use join_embedded::{Cluster, Options};
use join_ledger::{Ledger, PgConnectOptions, Settings, provision};
use rustix::process::{Pid, Signal, kill_process};
use rustls::pki_types::CertificateDer;
use sqlx::{Connection as _, PgConnection};
use tempfile::TempDir;

use crate::{ceremony, connection::Target, pace::Watched, process::Processes};

/// The name under which the authority is reached.
const NAME: &str = "127.0.0.1";
const DATABASE: &str = "join_authority";
/// How long a node may take until it is ready.
const START: Duration = Duration::from_secs(120);
/// Segments of 16 MB that a private PostgreSQL has ready: more than one measurement fills.
const SEGMENTS: u32 = 160;

/// PostgreSQL's settings beside its defaults, for everything that is compared: memory, and a checkpoint less often than
/// every few seconds.
pub(crate) fn postgres_settings() -> Vec<(String, String)> {
    [("shared_buffers", "512MB"), ("max_wal_size", "8GB"), ("min_wal_size", "8GB")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
}

/// A private PostgreSQL with these settings, as one that has run for a while: what it logs goes to segments that are used
/// again, and its buffers are memory that was in use. One that makes both as it goes writes each segment twice, and has the
/// machine find and clear a page for each buffer: who writes most in a second pays most for it.
pub(crate) async fn private_postgres(settings: &[(String, String)]) -> anyhow::Result<Cluster> {
    let options = settings.iter().fold(Options::durable(), |options, (name, value)| options.set(name, value));
    let cluster = tokio::task::spawn_blocking(move || Cluster::temporary(&options)).await??;
    let mut connection = PgConnection::connect_with(&superuser(&cluster, "postgres")).await?;
    for _ in 0..SEGMENTS {
        sqlx::query("SELECT pg_logical_emit_message(false, 'joinload', ''), pg_switch_wal()")
            .execute(&mut connection)
            .await?;
    }
    // One row fills a page.
    let rows = "INSERT INTO buffers SELECT repeat('.', 700)
        FROM generate_series(1, (SELECT setting::int8 FROM pg_settings WHERE name = 'shared_buffers'))";
    let table = "CREATE TABLE buffers (content text) WITH (fillfactor = 10)";
    for sql in [table, rows, "DROP TABLE buffers", "CHECKPOINT"] {
        sqlx::query(sql).execute(&mut connection).await?;
    }
    connection.close().await?;
    Ok(cluster)
}

/// Connects as PostgreSQL's superuser.
pub(crate) fn superuser(cluster: &Cluster, database: &str) -> PgConnectOptions {
    let address = cluster.address();
    let options = PgConnectOptions::new_without_pgpass();
    options.socket(address.socket_dir()).port(address.port()).username("postgres").database(database)
}

/// How the authority is run.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    /// The service's program.
    pub(crate) joind: PathBuf,
    /// Writers of the ledger; none for the service's default.
    pub(crate) writers: Option<usize>,
    /// PostgreSQL's settings beside its defaults.
    pub(crate) postgres: Vec<(String, String)>,
    /// Whether the node keeps the verifiable log's files.
    pub(crate) log: bool,
}

impl Setup {
    /// How many writers, in words.
    pub(crate) fn writers(&self) -> String {
        self.writers.map_or("the service's default".to_owned(), |writers| writers.to_string())
    }
}

/// A private authority; it stops when this is dropped.
pub(crate) struct Authority {
    setup: Setup,
    node: Option<Node>,
    cluster: Cluster,
    directory: TempDir,
}

struct Node {
    process: Child,
    address: std::net::SocketAddr,
    ready_after: Duration,
}

impl Authority {
    /// Makes everything from nothing.
    pub(crate) async fn start(setup: Setup) -> anyhow::Result<Self> {
        let cluster = private_postgres(&setup.postgres).await?;
        let mut authority = Self { setup, node: None, cluster, directory: tempfile::tempdir()? };
        provision::provision(&authority.superuser(), DATABASE).await?;
        join_credential::MasterKey::create(&authority.master_key())?;
        authority.configure()?;
        let identity = authority.identity();
        let mut init = authority.joind(&["init", "--admin-identity"]);
        let made = init.arg(&identity).stdout(Stdio::null()).status().context("joind can't be run: build it first")?;
        ensure!(made.success(), "joind init failed");
        authority.start_node().await?;
        Ok(authority)
    }

    fn configure(&self) -> anyhow::Result<()> {
        let directory = self.directory.path();
        let writers = self.setup.writers.map(|writers| format!("  writers: {writers}\n")).unwrap_or_default();
        let log = match self.setup.log {
            true => format!("log:\n  directory: {}\n", directory.join("log").display()),
            false => String::new(),
        };
        let url = |role| self.cluster.address().url(role, DATABASE);
        let configuration = format!(
            "cluster_name: load.example\nlisten: 127.0.0.1:0\nmetrics_listen: 127.0.0.1:0\npublic_addresses: [{NAME}]\n\
             database:\n  service_url: \"{}\"\n  owner_url: \"{}\"\n{writers}master_key:\n  file: {}\n{log}",
            url(provision::SERVICE),
            url(provision::OWNER),
            self.master_key().display(),
        );
        Ok(fs::write(self.configuration(), configuration)?)
    }

    fn master_key(&self) -> PathBuf {
        self.directory.path().join("master.key")
    }

    /// Whether the next node keeps the verifiable log's files.
    pub(crate) fn keep_log(&mut self, log: bool) -> anyhow::Result<()> {
        self.setup.log = log;
        self.configure()
    }

    /// Starts a node and waits until it is ready.
    pub(crate) async fn start_node(&mut self) -> anyhow::Result<()> {
        let log = self.directory.path().join("joind.log");
        let started = Instant::now();
        let process = self.joind(&["serve"]).stdout(Stdio::null()).stderr(fs::File::create(&log)?).spawn()?;
        // A node that isn't ready in time is stopped as it is dropped.
        let mut node = Node { process, address: ([0, 0, 0, 0], 0).into(), ready_after: Duration::ZERO };
        while started.elapsed() < START {
            let text = fs::read_to_string(&log)?;
            let address = text.lines().find_map(|line| line.split_once("ready on ")?.1.split([',', '"']).next());
            if let Some(address) = address {
                node.address = address.parse()?;
                let target = Target::new(node.address, NAME, &roots(&self.identity().join("ca.crt"))?)?;
                let connection = target.connect(None).await?;
                while ceremony::status_of(&connection.requests, "/readyz").await? != http::StatusCode::OK {
                    ensure!(started.elapsed() < START, "joind listens, and is not ready after {} s", START.as_secs());
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                node.ready_after = started.elapsed();
                self.node = Some(node);
                return Ok(());
            }
            if let Some(status) = node.process.try_wait()? {
                bail!("joind ended with {status}: {text}");
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        bail!("joind was not ready after {} s", START.as_secs())
    }

    /// From the start of the process until `/readyz` said that it is ready.
    pub(crate) fn ready_after(&self) -> Duration {
        self.node.as_ref().map(|node| node.ready_after).unwrap_or_default()
    }

    /// Stops the node as an operator does, and waits for its end.
    pub(crate) async fn stop_node(&mut self) -> anyhow::Result<()> {
        let Some(mut node) = self.node.take() else { return Ok(()) };
        kill_process(Pid::from_child(&node.process), Signal::TERM)?;
        tokio::task::spawn_blocking(move || node.process.wait()).await??;
        Ok(())
    }

    fn joind(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.setup.joind);
        command.arg(arguments[0]).arg("-c").arg(self.configuration()).args(&arguments[1..]);
        command
    }

    fn configuration(&self) -> PathBuf {
        self.directory.path().join("joind.yaml")
    }

    /// The directory of the first administrator's identity.
    pub(crate) fn identity(&self) -> PathBuf {
        self.directory.path().join("admin")
    }

    /// How bots reach it.
    pub(crate) fn target(&self) -> anyhow::Result<Target> {
        let node = self.node.as_ref().context("no node runs")?;
        Target::new(node.address, NAME, &roots(&self.identity().join("ca.crt"))?)
    }

    /// A connection past all privileges, for imports and checks.
    pub(crate) fn superuser(&self) -> PgConnectOptions {
        superuser(&self.cluster, DATABASE)
    }

    /// A ledger on its database, as the service's role: for checks.
    pub(crate) async fn ledger(&self) -> anyhow::Result<Ledger> {
        let settings = Settings { node: "joinload".to_owned(), ..Settings::default() };
        Ok(Ledger::connect(self.superuser().username(provision::SERVICE), settings).await?)
    }

    /// Its processes.
    pub(crate) fn watched(&self) -> anyhow::Result<Watched> {
        Ok(Watched {
            joind: self.node.as_ref().map(|node| Processes::One(node.process.id())),
            postgres: Some(postgres_of(&self.cluster)?),
            ..Watched::default()
        })
    }

    /// What the database holds, its write-ahead log not counted.
    pub(crate) async fn database_bytes(&self) -> anyhow::Result<u64> {
        let mut connection = PgConnection::connect_with(&self.superuser()).await?;
        let bytes: i64 =
            sqlx::query_scalar("SELECT pg_database_size(current_database())").fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok(u64::try_from(bytes)?)
    }

    /// How far the write-ahead log has come, in bytes.
    pub(crate) async fn wal_bytes(&self) -> anyhow::Result<u64> {
        let mut connection = PgConnection::connect_with(&self.superuser()).await?;
        let position = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint";
        let bytes: i64 = sqlx::query_scalar(position).fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok(u64::try_from(bytes)?)
    }

    /// What the node's log directory holds.
    pub(crate) fn log_bytes(&self) -> anyhow::Result<u64> {
        let (mut bytes, mut directories) = (0, vec![self.directory.path().join("log")]);
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory)? {
                let entry = entry?;
                match entry.metadata()? {
                    of if of.is_dir() => directories.push(entry.path()),
                    of => bytes += of.len(),
                }
            }
        }
        Ok(bytes)
    }

    /// Waits until log and views have caught up, so that what comes next is measured alone.
    pub(crate) async fn settle(&self) -> anyhow::Result<()> {
        let ledger = self.ledger().await?;
        loop {
            let positions = ledger.positions().await?;
            let integrated = !self.setup.log || positions.signed == positions.next_index;
            if positions.unsequenced == 0 && positions.views == positions.next_index && integrated {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        ledger.close().await;
        Ok(())
    }
}

/// What the service's program says of its version.
pub(crate) fn version(joind: &Path) -> anyhow::Result<String> {
    let output = Command::new(joind).arg("--version").output();
    let output = output.with_context(|| format!("{} can't be run: build it first", joind.display()))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The processes of a cluster.
pub(crate) fn postgres_of(cluster: &Cluster) -> anyhow::Result<Processes> {
    let data = cluster.log().parent().context("the cluster has a directory")?.join("data");
    Processes::postgres(&data)
}

impl Drop for Node {
    fn drop(&mut self) {
        // It has ended already, or ends now.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The certificates of a PEM file.
pub(crate) fn roots(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    use rustls::pki_types::pem::PemObject as _;
    let certificates =
        CertificateDer::pem_file_iter(path).with_context(|| format!("{} can't be read", path.display()))?;
    Ok(certificates.collect::<Result<_, _>>()?)
}
