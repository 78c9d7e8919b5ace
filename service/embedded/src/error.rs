//! What can go wrong, in words for the person who has to fix it.

use std::path::{Path, PathBuf};

use crate::OLDEST_MAJOR;

/// Why there is no running cluster.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No PostgreSQL server is installed in any place we look at.
    #[error("no PostgreSQL server found (`postgres` and `initdb` in one directory); install it: {install}")]
    NotInstalled {
        /// The command that installs it on this machine.
        install: &'static str,
    },

    /// Every PostgreSQL server found is too old.
    #[error(
        "PostgreSQL {found} in {} is too old, {OLDEST_MAJOR} or newer is needed; install it: {install}",
        directory.display()
    )]
    TooOld {
        /// Its version as it reports it.
        found: String,
        /// Where it is.
        directory: PathBuf,
        /// The command that installs a newer one on this machine.
        install: &'static str,
    },

    /// The binaries can't be used.
    #[error("{} is not a PostgreSQL installation: {reason}", directory.display())]
    NotBinaries {
        /// Where they were looked for.
        directory: PathBuf,
        /// What is missing or wrong.
        reason: String,
    },

    /// The cluster was made by another major version than that of the binaries.
    #[error(
        "the database in {} was made by PostgreSQL {cluster}, but the server in {} is version {binaries}; \
         install PostgreSQL {cluster}, or upgrade the data directory with pg_upgrade",
        data.display(), directory.display()
    )]
    VersionMismatch {
        /// The data directory.
        data: PathBuf,
        /// The major version that made it.
        cluster: u32,
        /// Where the binaries are.
        directory: PathBuf,
        /// Their major version.
        binaries: u32,
    },

    /// The directory holds something else, which we would not want to give to another user or write into.
    #[error("{} is neither empty nor a database of this program; choose another directory", directory.display())]
    Occupied {
        /// The directory.
        directory: PathBuf,
    },

    /// Another process uses the cluster.
    #[error("{} is in use by another process; stop that one, or choose another directory", directory.display())]
    InUse {
        /// The cluster's directory.
        directory: PathBuf,
    },

    /// PostgreSQL of an earlier start still runs, and didn't end while we waited.
    #[error(
        "PostgreSQL{} of an earlier start still runs in {}; stop it: kill -INT {}",
        pid.as_ref().map(|pid| format!(" (process {pid})")).unwrap_or_default(),
        directory.display(),
        pid.as_deref().unwrap_or("PID")
    )]
    StillRunning {
        /// The cluster's directory.
        directory: PathBuf,
        /// Its process id, where it could be read.
        pid: Option<String>,
    },

    /// We are root, PostgreSQL refuses root, and there is nobody else to run it.
    #[error("PostgreSQL refuses to run as root, and there is neither a user `postgres` nor `nobody` in /etc/passwd")]
    NobodyToRunAs,

    /// The data directory belongs to root.
    #[error(
        "{} belongs to root, but PostgreSQL refuses to run as root; give it to another user: chown -R postgres {}",
        data.display(), data.parent().unwrap_or(data).display()
    )]
    OwnedByRoot {
        /// The data directory.
        data: PathBuf,
    },

    /// The unprivileged user can't get to a directory.
    #[error(
        "PostgreSQL runs as user `{user}` here, who can't get to {}: {} is closed to it; \
         open that one for passing through (chmod o+x {}), or choose another directory",
        target.display(), blocking.display(), blocking.display()
    )]
    Unreachable {
        /// Who PostgreSQL would run as.
        user: String,
        /// Where it has to get to.
        target: PathBuf,
        /// The directory that lets nobody through.
        blocking: PathBuf,
    },

    /// No directory for the socket has a path that is short enough.
    #[error("no directory with a short enough path for a Unix socket; set TMPDIR to one of at most {longest} bytes")]
    NoShortDirectory {
        /// The longest directory that would do, in bytes.
        longest: usize,
    },

    /// `initdb` or `postgres` failed.
    #[error("{program} did not succeed ({reason}); the end of {}:\n{tail}", log.display())]
    Failed {
        /// Which of them.
        program: &'static str,
        /// How it ended.
        reason: String,
        /// The whole log.
        log: PathBuf,
        /// Its last lines.
        tail: String,
    },

    /// PostgreSQL was asked to stop, and to stop at once, and still runs.
    #[error("PostgreSQL in {} does not stop; its log is {}", directory.display(), log.display())]
    DoesNotStop {
        /// The cluster's directory.
        directory: PathBuf,
        /// Its log.
        log: PathBuf,
    },

    /// A file operation failed.
    #[error("cannot {action} {}: {reason}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        reason: std::io::Error,
    },
}

impl Error {
    /// Names what was tried and on which file, for `map_err`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |reason| Self::Io { action, path: path.to_owned(), reason }
    }
}
