//! A program that ends with us, however we end.
//!
//! Between us and the program stands a small shell, in a process group of its own so that Ctrl-C in a terminal doesn't
//! reach it. It reads a pipe whose other end only we hold: when we die, by SIGKILL too, the pipe closes, and the shell
//! ends the program.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::Error;
use crate::owner::Owner;

const SCRIPT: &str = include_str!("supervise.sh");

/// How long a program may take to end when it is dropped; after that it is left to the shell.
const DROP_LIMIT: Duration = Duration::from_secs(10);
/// How often we look whether something has happened.
pub(crate) const PAUSE: Duration = Duration::from_millis(10);

/// What we send to a program.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Signal {
    /// To PostgreSQL: end all sessions and stop properly.
    Interrupt,
    /// To PostgreSQL: stop at once and recover at the next start.
    Quit,
    /// To initdb: remove what was made and stop.
    Terminate,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "INT",
            Self::Quit => "QUIT",
            Self::Terminate => "TERM",
        }
    }
}

/// What every program of one cluster has in common.
#[derive(Debug)]
pub(crate) struct Supervisor<'a> {
    /// Who runs the program.
    pub(crate) owner: &'a Owner,
    /// Where its output is appended.
    pub(crate) log: &'a Path,
    /// A lock that the program holds while it or one of its children lives.
    pub(crate) lock: &'a File,
    /// A directory to remove in the end if we have died.
    pub(crate) litter: Option<&'a Path>,
}

impl Supervisor<'_> {
    /// Starts `program`, which gets `last_signal` when we die.
    pub(crate) fn start(
        &self,
        program: &Path,
        arguments: &[OsString],
        last_signal: Signal,
    ) -> Result<Supervised, Error> {
        let shell = Path::new("/bin/sh");
        let lock = self.lock.try_clone().map_err(Error::io("share the lock with", program))?;
        let mut command = Command::new(shell);
        command
            .args(["-c", &without_comments(SCRIPT), "supervise", last_signal.name()])
            .arg(self.log)
            .arg(self.litter.unwrap_or(Path::new("")))
            .arg(program)
            .args(arguments)
            .current_dir("/")
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(lock)
            .stderr(Stdio::null())
            .process_group(0);
        // PGDATA, PGPORT and the like are about somebody else's cluster.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
            command.env_remove(name);
        }
        self.owner.runs(&mut command);
        let mut shell = command.spawn().map_err(Error::io("start", shell))?;
        Ok(Supervised { pipe: shell.stdin.take(), shell })
    }
}

/// The script as it may stand in a list of processes.
fn without_comments(script: &str) -> String {
    let lines = script.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.collect::<Vec<_>>().join("\n")
}

/// A running program and the shell that watches over it. Dropping it ends the program.
#[derive(Debug)]
pub(crate) struct Supervised {
    shell: Child,
    pipe: Option<ChildStdin>,
}

impl Supervised {
    /// Sends a signal; does nothing when the program has ended.
    pub(crate) fn signal(&mut self, signal: Signal) {
        if let Some(pipe) = &mut self.pipe {
            // It fails only when nobody is left to receive it.
            let _ = writeln!(pipe, "{}", signal.name());
        }
    }

    /// How the program ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.shell.try_wait().ok().flatten()
    }

    /// Waits until the program has ended, at most for `limit`.
    pub(crate) fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            match self.ended() {
                None if Instant::now() < deadline => sleep(PAUSE),
                status => return status,
            }
        }
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        self.pipe = None;
        self.wait(DROP_LIMIT);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A program under supervision that ends at SIGTERM and tells of it in its log.
    fn start(directory: &Path, litter: Option<&Path>) -> Supervised {
        let log = directory.join("log");
        let lock = File::create(directory.join("lock")).unwrap();
        lock.lock().unwrap();
        let supervisor = Supervisor { owner: &Owner::Ourselves, log: &log, lock: &lock, litter };
        let script = "trap 'echo told; exit 7' TERM; echo ready; while :; do sleep 0.01; done";
        let supervised =
            supervisor.start("/bin/sh".as_ref(), &["-c".into(), script.into()], Signal::Terminate).unwrap();
        until(|| log_of(directory).contains("ready"));
        supervised
    }

    fn log_of(directory: &Path) -> String {
        fs::read_to_string(directory.join("log")).unwrap_or_default()
    }

    fn until(condition: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !condition() {
            assert!(Instant::now() < deadline, "it did not happen within 10 s");
            sleep(PAUSE);
        }
    }

    #[test]
    fn signals_reach_the_program_and_its_status_comes_back() {
        let directory = tempfile::tempdir().unwrap();
        let mut supervised = start(directory.path(), None);
        supervised.signal(Signal::Terminate);
        assert_eq!(supervised.wait(Duration::from_secs(10)).and_then(|status| status.code()), Some(7));
        assert_eq!(log_of(directory.path()), "ready\ntold\n");
    }

    #[test]
    fn the_closed_pipe_ends_the_program_and_removes_its_litter() {
        let directory = tempfile::tempdir().unwrap();
        let litter = directory.path().join("litter");
        fs::create_dir(&litter).unwrap();
        drop(start(directory.path(), Some(&litter)));
        until(|| !litter.exists());
        assert_eq!(log_of(directory.path()), "ready\ntold\n");
    }

    #[test]
    fn what_the_caller_ends_itself_it_cleans_up_itself() {
        let directory = tempfile::tempdir().unwrap();
        let litter = directory.path().join("litter");
        fs::create_dir(&litter).unwrap();
        let mut supervised = start(directory.path(), Some(&litter));
        supervised.signal(Signal::Terminate);
        supervised.wait(Duration::from_secs(10)).unwrap();
        assert!(litter.exists());
    }

    #[test]
    fn the_lock_lasts_as_long_as_the_program() {
        let directory = tempfile::tempdir().unwrap();
        let supervised = start(directory.path(), None);
        let lock = File::open(directory.path().join("lock")).unwrap();
        assert!(lock.try_lock().is_err(), "the starting code has closed its own handle, the program holds the lock");
        drop(supervised);
        until(|| lock.try_lock().is_ok());
    }
}
