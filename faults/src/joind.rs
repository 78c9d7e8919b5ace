//! The programs as processes of their own.

use std::{
    fs::{self, File},
    net::SocketAddr,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use join_embedded::Address;
use join_ledger::provision;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStderr, Command},
    sync::OnceCell,
    time::timeout,
};

use crate::{fault::Blow, process, world::CLUSTER};

/// How long `joind` may take to be ready.
const START: Duration = Duration::from_secs(60);

/// The programs.
pub struct Programs {
    /// The service.
    pub joind: Program,
    /// The agent.
    pub joinbot: Program,
}

/// A program that stays the one it was when somebody builds it anew: the file is held open and started by its handle.
pub struct Program {
    name: &'static str,
    file: File,
}

impl Program {
    fn open(name: &'static str, executables: &[PathBuf]) -> Result<Self> {
        let built = executables.iter().find(|path| path.file_name().is_some_and(|file| file == name));
        let built = built.with_context(|| format!("cargo says nothing of {name}"))?;
        Ok(Self { name, file: File::open(built).with_context(|| built.display().to_string())? })
    }

    /// A command that runs it, and ends it when it is dropped.
    pub fn command(&self) -> Command {
        let mut command = Command::new(format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()));
        command.arg0(self.name).env_remove("RUST_LOG").stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(Stdio::piped()).kill_on_drop(true);
        command
    }
}

/// Builds the programs, once.
///
/// # Errors
/// When they can't be built.
pub async fn programs() -> Result<&'static Programs> {
    static PROGRAMS: OnceCell<Programs> = OnceCell::const_new();
    PROGRAMS.get_or_try_init(build).await
}

async fn build() -> Result<Programs> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        // The same as for the demo, so that neither builds again what the other has built.
        .args(["build", "--quiet", "-p", "join-server", "-p", "joinctl", "-p", "join-agent", "--bins"])
        .args(["--message-format", "json-render-diagnostics"])
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output()
        .await?;
    if !built.status.success() {
        bail!("the programs can't be built");
    }
    let messages = String::from_utf8(built.stdout)?;
    let executables: Vec<PathBuf> = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok()?["executable"].as_str().map(PathBuf::from))
        .collect();
    Ok(Programs { joind: Program::open("joind", &executables)?, joinbot: Program::open("joinbot", &executables)? })
}

/// A running `joind serve`.
pub struct Joind {
    child: Child,
    address: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
}

impl Joind {
    /// Starts it and waits until it is ready. The master key is in `folder`.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(folder: &Path, database: &str, server: &Address) -> Result<Self> {
        let config = folder.join("joind.yaml");
        let text = format!(
            "cluster_name: {CLUSTER}\nlisten: 127.0.0.1:0\nmetrics_listen: 127.0.0.1:0\npublic_addresses: [127.0.0.1]\n\
             database: {{service_url: \"{}\", max_connections: 6}}\nmaster_key: {{file: {}}}\n\
             telemetry: {{log_format: text, log_level: \"warn,join_server=info\"}}\n\
             limits: {{failures_per_address: 1000000}}\n",
            server.url(provision::SERVICE, database),
            folder.join("master.key").display(),
        );
        fs::write(&config, text)?;
        let mut child = programs().await?.joind.command().args(["serve", "-c"]).arg(&config).spawn()?;
        let mut lines = BufReader::new(child.stderr.take().context("stderr is piped")?).lines();
        let log = Arc::<Mutex<Vec<String>>>::default();
        let ready = timeout(START, ready(&mut lines, &log)).await;
        let Ok(Some(address)) = ready else {
            bail!("joind does not start: {:?}", log.lock().unwrap_or_else(PoisonError::into_inner));
        };
        let kept = Arc::clone(&log);
        tokio::spawn(async move { while next(&mut lines, &kept).await.is_some() {} });
        Ok(Self { child, address, log })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// SIGKILL, when the time comes.
    pub fn kill(&self) -> Blow {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok());
        Blow::new(move || pid.is_some_and(process::kill))
    }

    /// The last lines of its log.
    pub fn log(&self) -> String {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.iter().rev().take(20).rev().map(|line| format!("\n    {line}")).collect()
    }
}

async fn ready(lines: &mut Lines<BufReader<ChildStderr>>, log: &Mutex<Vec<String>>) -> Option<SocketAddr> {
    loop {
        let line = next(lines, log).await?;
        if let Some((_, rest)) = line.split_once("ready on ") {
            return rest.split(',').next()?.parse().ok();
        }
    }
}

async fn next(lines: &mut Lines<BufReader<ChildStderr>>, log: &Mutex<Vec<String>>) -> Option<String> {
    let line = lines.next_line().await.ok()??;
    log.lock().unwrap_or_else(PoisonError::into_inner).push(line.clone());
    Some(line)
}
