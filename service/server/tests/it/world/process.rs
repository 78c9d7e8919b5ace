//! `joind` in a process of its own, as people run it.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::SystemTime,
};

use join_ledger::{ManualClock, provision};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use super::{CLUSTER, PATIENCE, administrator::Administrator, database::Database, network::Network, random_bytes};

/// `joind` with these arguments, and with nothing of the test's own environment that it would listen to.
pub(crate) fn joind(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_joind"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"JOIND_")) {
        command.env_remove(name);
    }
    command.args(arguments).env_remove("RUST_LOG").stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// A directory that an unprivileged user can pass through: root runs PostgreSQL as one.
pub(crate) fn open_directory() -> TempDir {
    tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().unwrap()
}

/// A command that has ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    pub(crate) async fn of(mut command: Command) -> Self {
        let output = timeout(PATIENCE, command.output()).await.expect("the command comes to an end").unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { status: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// What it printed, when it did what it was asked.
    pub(crate) fn done(self) -> String {
        assert_eq!(self.status, Some(0), "{self:?}");
        self.stdout
    }

    /// What it said, when it refused.
    pub(crate) fn refused(self) -> String {
        assert_eq!(self.status, Some(1), "{self:?}");
        self.stderr
    }
}

/// A configuration and its database.
pub(crate) struct Installed {
    pub(crate) database: Database,
    folder: TempDir,
}

impl Installed {
    /// With a schema, without a cluster.
    pub(crate) async fn new() -> Self {
        Self::on(Database::fresh().await)
    }

    pub(crate) fn on(database: Database) -> Self {
        let installed = Self { database, folder: tempfile::tempdir().unwrap() };
        let text = format!(
            "cluster_name: {CLUSTER}\nlisten: 127.0.0.1:0\nmetrics_listen: 127.0.0.1:0\n\
             public_addresses: [127.0.0.1]\n\
             database: {{service_url: \"{}\", owner_url: \"{}\", max_connections: 6}}\nmaster_key: {{file: {}}}\n\
             telemetry: {{log_format: text, log_level: warn}}\n",
            installed.database.url(provision::SERVICE),
            installed.database.url(provision::OWNER),
            installed.path("master.key").display(),
        );
        fs::write(installed.path("joind.yaml"), text).unwrap();
        fs::write(installed.path("master.key"), hex::encode(random_bytes::<32>())).unwrap();
        installed
    }

    /// With a cluster, whose first administrator's identity is in `admin`.
    pub(crate) async fn with_cluster() -> Self {
        let installed = Self::new().await;
        installed.run(&["init", "--admin-identity", &installed.text("admin")]).await.done();
        installed
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// A command with this configuration.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        joind(&[arguments, &["-c", &self.text("joind.yaml")]].concat())
    }

    pub(crate) async fn run(&self, arguments: &[&str]) -> Finished {
        Finished::of(self.command(arguments)).await
    }

    pub(crate) async fn serve(&self) -> Running {
        Running::start(self.command(&["serve"]), 1, &self.path("joind.log")).await
    }

    /// The same with the verifiable log's files.
    pub(crate) async fn serve_with_log(&self) -> Running {
        self.serve_with("JOIND_LOG__DIRECTORY", &self.path("log").display().to_string()).await
    }

    /// The same with one setting more, as a variable.
    pub(crate) async fn serve_with(&self, variable: &str, value: &str) -> Running {
        let mut command = self.command(&["serve"]);
        command.env(variable, value);
        Running::start(command, 1, &self.path("joind.log")).await
    }
}

/// A `joind` that serves.
pub(crate) struct Running {
    child: Child,
    /// Where it is, and how to know it.
    pub(crate) network: Arc<Network>,
    /// What it printed when it was ready.
    pub(crate) printed: Vec<String>,
    /// It may print more.
    _stdout: Lines<BufReader<ChildStdout>>,
}

impl Running {
    pub(crate) async fn dev(directory: &Path) -> Self {
        let log = directory.with_extension("log");
        let directory = directory.display().to_string();
        let mut command = joind(&["dev", "--data-dir", &directory, "--listen", "127.0.0.1:0"]);
        // As for another server; its own has no TLS.
        command.env("PGSSLMODE", "require");
        Self::start(command, 3, &log).await
    }

    /// Waits until it has printed so many lines, of which the first says that it is ready.
    pub(crate) async fn start(mut command: Command, lines: usize, log: &Path) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(File::create(log).unwrap()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut printed = Vec::new();
        while printed.len() < lines {
            match timeout(PATIENCE, stdout.next_line()).await {
                Ok(Ok(Some(line))) => printed.push(line),
                ended => panic!("joind is not ready ({ended:?}): {}", fs::read_to_string(log).unwrap()),
            }
        }
        let ready: Vec<_> = printed[0].split(' ').collect();
        let ["ready", address, pin] = ready[..] else { panic!("not a line that says ready: {}", printed[0]) };
        let network = Network {
            clock: Arc::new(ManualClock::new(SystemTime::now().into())),
            pin: pin.strip_prefix("ca-pin=").unwrap().to_owned(),
            nodes: Mutex::new(vec![address.parse().unwrap()]),
        };
        Self { child, network: Arc::new(network), printed, _stdout: stdout }
    }

    /// Whoever has the identity in this directory.
    pub(crate) fn administrator(&self, directory: &Path) -> Administrator {
        Administrator::with_identity(Arc::clone(&self.network), directory)
    }

    /// Its memory, in MB.
    pub(crate) fn resident_mb(&self) -> u64 {
        let pages = fs::read_to_string(format!("/proc/{}/statm", self.child.id().unwrap())).unwrap();
        pages.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4096 / 1_000_000
    }

    /// SIGKILL.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// SIGTERM, and it ends.
    pub(crate) async fn stop(self) -> ExitStatus {
        terminate(self.child).await
    }
}

/// SIGTERM, and the process ends.
pub(crate) async fn terminate(mut child: Child) -> ExitStatus {
    let pid = child.id().unwrap().to_string();
    let sent = Command::new("sh").args(["-c", "kill -TERM \"$0\"", &pid]).status().await.unwrap();
    assert!(sent.success());
    timeout(PATIENCE, child.wait()).await.expect("it stops").unwrap()
}
