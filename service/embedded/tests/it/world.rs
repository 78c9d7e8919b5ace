//! What the tests share: a directory for clusters, SQL, and a way to see what still runs.

use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use join_embedded::{Address, Binaries};
use tempfile::TempDir;

/// A directory that an unprivileged user can pass through, as root needs it.
pub(crate) fn open_directory() -> TempDir {
    tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().unwrap()
}

/// What the superuser gets as answer; fails the test when the query fails.
pub(crate) fn query(address: &Address, sql: &str) -> String {
    query_url(&address.url("postgres", "postgres"), sql)
}

pub(crate) fn query_url(url: &str, sql: &str) -> String {
    let psql = Binaries::find().unwrap().directory().join("psql");
    let output = Command::new(psql).args(["-X", "-A", "-t", "-q", "-c", sql, url]).output().unwrap();
    assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Sends a signal to a process, or to a group if its number is negative. Every shell can do that; a program `kill` is not
/// on every machine.
pub(crate) fn signal(name: &str, process: &str) {
    let sent = Command::new("sh").args(["-c", "kill -s \"$1\" -- \"$2\"", "sh", name, process]).status().unwrap();
    assert!(sent.success(), "SIG{name} for {process}");
}

/// Waits for something that takes a moment.
pub(crate) fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "not within 20 s: {what}");
        sleep(Duration::from_millis(10));
    }
}

/// Whether a process of PostgreSQL, or one that watches it, lives for the cluster in `directory`.
pub(crate) fn is_alive(directory: &Path) -> bool {
    let locked = File::open(directory.join("server.lock")).is_ok_and(|file| file.try_lock().is_err());
    locked || is_mentioned_by_a_process(directory)
}

/// Whether a process has `directory` on its command line; false where there is no `/proc`.
fn is_mentioned_by_a_process(directory: &Path) -> bool {
    let directory = directory.to_string_lossy();
    let Ok(processes) = fs::read_dir("/proc") else { return false };
    processes
        .flatten()
        .filter_map(|process| fs::read(process.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).into_owned())
        .any(|line| line.contains(&*directory) && !line.starts_with(env!("CARGO_BIN_EXE_private-postgres")))
}

/// A running `private-postgres` whose command waits until we let it go.
pub(crate) struct Holder {
    pub(crate) process: Child,
    pub(crate) socket_dir: PathBuf,
    stdin: Option<ChildStdin>,
}

impl Holder {
    /// Starts one with `options` of `private-postgres run`; the cluster is ready on return.
    pub(crate) fn start(options: &[&str]) -> Self {
        Self::start_as(Command::new(env!("CARGO_BIN_EXE_private-postgres")), options)
    }

    pub(crate) fn start_as(mut command: Command, options: &[&str]) -> Self {
        let script = "echo \"$JOIN_TEST_POSTGRES\"; read -r _ || :";
        let mut process = command
            .arg("run")
            .args(options)
            .args(["--", "sh", "-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with('/'), "private-postgres did not start");
        Self { socket_dir: line.trim().into(), stdin: process.stdin.take(), process }
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres:///postgres?user=postgres&host={}", self.socket_dir.display())
    }

    /// Ends it with SIGKILL.
    pub(crate) fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Lets its command end, and waits for it.
    pub(crate) fn finish(mut self) -> std::process::ExitStatus {
        self.stdin = None;
        self.process.wait().unwrap()
    }
}
