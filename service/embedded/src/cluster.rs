//! A PostgreSQL cluster in one directory, from its making to its end.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::owner::Owner;
use crate::socket::{SocketDir, make_private, short_directory};
use crate::supervisor::{PAUSE, Signal, Supervised, Supervisor};
use crate::{Address, Binaries, Error, Options};

/// How long initdb may take, and PostgreSQL from its start until it is ready, a recovery included.
const START_LIMIT: Duration = Duration::from_secs(120);
/// How long we wait for PostgreSQL of an earlier start to end.
const EARLIER_LIMIT: Duration = Duration::from_secs(30);
/// How long a proper stop may take, then an immediate one.
const STOP_LIMITS: [(Signal, Duration); 2] =
    [(Signal::Interrupt, Duration::from_secs(30)), (Signal::Quit, Duration::from_secs(10))];
/// How many lines of the log an error carries.
const TAIL_LINES: usize = 12;

/// A running PostgreSQL that belongs to us alone. It stops when this is dropped and when our process dies.
#[derive(Debug)]
pub struct Cluster {
    files: Files,
    version: String,
    address: Address,
    postgres: Supervised,
    // What follows is only kept: directories to remove and the lock to release, after PostgreSQL has ended.
    _socket_dir: SocketDir,
    _claim: Claim,
    _temporary: Option<TempDir>,
}

impl Cluster {
    /// Starts the cluster in `directory`, and makes it there first when the directory is missing or empty. Waits until
    /// it is ready, at most two minutes; blocks the thread.
    ///
    /// # Errors
    /// Any [`Error`]; nothing is left running then.
    pub fn start(directory: &Path, options: &Options) -> Result<Self, Error> {
        Self::start_in(directory, options, None)
    }

    /// Starts a new cluster in a temporary directory, which is removed in the end, also when our process dies.
    ///
    /// # Errors
    /// Any [`Error`]; nothing is left running then.
    pub fn temporary(options: &Options) -> Result<Self, Error> {
        let owner = Owner::of_new()?;
        let directory = short_directory("pg-", "run", &owner)?;
        let path = directory.path().to_owned();
        Self::start_in(&path, options, Some(directory))
    }

    fn start_in(directory: &Path, options: &Options, temporary: Option<TempDir>) -> Result<Self, Error> {
        let binaries = match (&options.binaries, Files::in_directory(directory).major()?) {
            (Some(binaries), _) => binaries.clone().new_enough()?,
            (None, Some(major)) => Binaries::find_for(major)?,
            (None, None) => Binaries::find()?,
        };
        let (files, owner) = prepare(directory)?;
        owner.can_reach(&binaries.program("postgres"))?;
        let claim = files.claim(&owner)?;
        let server_lock = files.server_lock(&owner)?;
        let socket_dir = SocketDir::make(files.directory.join("run"), &owner)?;
        let supervisor = Supervisor {
            owner: &owner,
            log: &files.log,
            lock: &server_lock,
            litter: match (&temporary, &socket_dir) {
                (Some(directory), _) => Some(directory.path()),
                (None, SocketDir::Apart(directory)) => Some(directory.path()),
                (None, SocketDir::Inside(_)) => None,
            },
        };

        files.begin_log()?;
        match files.major()? {
            None => create(&files, &binaries, options, &supervisor)?,
            Some(major) if major == binaries.major() => {}
            Some(major) => {
                return Err(Error::VersionMismatch {
                    data: files.data,
                    cluster: major,
                    directory: binaries.directory().to_owned(),
                    binaries: binaries.major(),
                });
            }
        }
        let postgres = launch(&files, &binaries, options, &supervisor, socket_dir.path())?;
        Ok(Self {
            address: Address::new(socket_dir.path().to_owned()),
            version: binaries.version().to_owned(),
            files,
            postgres,
            _socket_dir: socket_dir,
            _claim: claim,
            _temporary: temporary,
        })
    }

    /// Where it can be reached.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The version of PostgreSQL: `15.13`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// PostgreSQL's log since this start.
    pub fn log(&self) -> &Path {
        &self.files.log
    }

    /// Stops PostgreSQL: sessions end, what was committed is on disk. At most 30 s, then the hard way. Dropping does the
    /// same without telling of failure.
    ///
    /// # Errors
    /// [`Error::DoesNotStop`].
    pub fn stop(mut self) -> Result<(), Error> {
        self.shut_down()
    }

    fn shut_down(&mut self) -> Result<(), Error> {
        for (signal, limit) in STOP_LIMITS {
            self.postgres.signal(signal);
            if self.postgres.wait(limit).is_some() {
                return Ok(());
            }
        }
        Err(Error::DoesNotStop { directory: self.files.directory.clone(), log: self.files.log.clone() })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // There is nobody to tell.
        let _ = self.shut_down();
    }
}

/// The lock that keeps other processes off. Closing the file would not do: a program that another thread starts at that
/// moment has it open, too, until it is another program.
#[derive(Debug)]
struct Claim(File);

impl Drop for Claim {
    fn drop(&mut self) {
        // The lock ends with our process at the latest.
        let _ = self.0.unlock();
    }
}

/// The files of a cluster.
#[derive(Debug)]
struct Files {
    directory: PathBuf,
    data: PathBuf,
    log: PathBuf,
    lock: PathBuf,
    server_lock: PathBuf,
}

impl Files {
    fn in_directory(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            data: directory.join("data"),
            log: directory.join("postgres.log"),
            lock: directory.join("lock"),
            server_lock: directory.join("server.lock"),
        }
    }

    /// The major version that made the cluster; none when there is no cluster yet.
    fn major(&self) -> Result<Option<u32>, Error> {
        let path = self.data.join("PG_VERSION");
        match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().map(Some).map_err(|_| Error::Io {
                action: "understand the version in",
                path,
                reason: std::io::ErrorKind::InvalidData.into(),
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read", &path)(error)),
        }
    }

    /// Claims the cluster for our process.
    fn claim(&self, owner: &Owner) -> Result<Claim, Error> {
        let lock = try_lock(&self.lock, owner)?;
        lock.map(Claim).ok_or_else(|| Error::InUse { directory: self.directory.clone() })
    }

    /// Claims the cluster for a server; waits while one of an earlier start, whose process was killed, shuts down.
    fn server_lock(&self, owner: &Owner) -> Result<File, Error> {
        let deadline = Instant::now() + EARLIER_LIMIT;
        loop {
            if let Some(lock) = try_lock(&self.server_lock, owner)? {
                return Ok(lock);
            }
            if Instant::now() >= deadline {
                let pid = self.pid_file().and_then(|lines| lines.into_iter().next());
                return Err(Error::StillRunning { directory: self.directory.clone(), pid });
            }
            sleep(PAUSE);
        }
    }

    /// Begins a new log and keeps the one before.
    fn begin_log(&self) -> Result<(), Error> {
        match fs::rename(&self.log, self.log.with_extension("log.old")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("rename", &self.log)(error)),
            _ => Ok(()),
        }
    }

    /// The lines of PostgreSQL's `postmaster.pid`: process id, data directory, start time, ..., status.
    fn pid_file(&self) -> Option<Vec<String>> {
        let text = fs::read_to_string(self.data.join("postmaster.pid")).ok()?;
        Some(text.lines().map(|line| line.trim().to_owned()).collect())
    }

    /// Whether a server says that it is ready, in another `postmaster.pid` than the one `before`. `pg_ctl --wait` looks
    /// at the same line.
    fn is_ready(&self, before: &Option<Vec<String>>) -> bool {
        let now = self.pid_file();
        now != *before && now.is_some_and(|lines| lines.get(7).is_some_and(|status| status == "ready"))
    }

    /// Removes a `postmaster.pid` that is left from a killed server. PostgreSQL does that too, unless its number belongs
    /// to another process by now, as happens after the restart of a container.
    ///
    /// The server lock says that no server of ours runs. One that somebody started by hand shows its working directory;
    /// where that can't be seen, the file stays and PostgreSQL decides.
    fn remove_stale_pid_file(&self) -> Result<(), Error> {
        let Some(pid) = self.pid_file().and_then(|lines| lines.into_iter().next()) else { return Ok(()) };
        match fs::read_link(format!("/proc/{pid}/cwd")) {
            Ok(working_directory) if working_directory != self.data => {
                let path = self.data.join("postmaster.pid");
                fs::remove_file(&path).map_err(Error::io("remove", &path))
            }
            _ => Ok(()),
        }
    }

    fn failed(&self, program: &'static str, reason: String) -> Error {
        let text = String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
        Error::Failed { program, reason, log: self.log.clone(), tail }
    }
}

/// Makes the directory, unless it is there and ours, and closes it to everybody but the user who will run PostgreSQL.
fn prepare(directory: &Path) -> Result<(Files, Owner), Error> {
    let directory = std::path::absolute(directory).map_err(Error::io("understand the path", directory))?;
    let owner = Owner::of(&directory.join("data"))?;
    owner.can_reach(&directory)?;
    fs::create_dir_all(&directory).map_err(Error::io("make the directory", &directory))?;
    let directory = directory.canonicalize().map_err(Error::io("look at", &directory))?;
    let files = Files::in_directory(&directory);
    let mut entries = fs::read_dir(&directory).map_err(Error::io("list", &directory))?;
    if !files.lock.exists() && entries.next().is_some() {
        return Err(Error::Occupied { directory });
    }
    // Once more, for links on the way and for directories that have just been made.
    owner.can_reach(&directory)?;
    make_private(&directory, &owner)?;
    Ok((files, owner))
}

/// The locked file, or none when somebody else holds it.
fn try_lock(path: &Path, owner: &Owner) -> Result<Option<File>, Error> {
    let open = File::options().create(true).truncate(false).write(true).open(path);
    let file = open.map_err(Error::io("open", path))?;
    owner.takes(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(Error::io("lock", path)(error)),
    }
}

/// Makes a cluster under another name, so that a half-made one is never taken for a whole one.
fn create(files: &Files, binaries: &Binaries, options: &Options, supervisor: &Supervisor<'_>) -> Result<(), Error> {
    let unfinished = files.directory.join("data.new");
    match fs::remove_dir_all(&unfinished) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::io("remove", &unfinished)(error));
        }
        _ => {}
    }
    let mut arguments = vec!["-D".into(), unfinished.clone().into_os_string()];
    arguments.extend(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C"].map(Into::into));
    arguments.push("--no-instructions".into());
    if !options.durable {
        arguments.push("--no-sync".into());
    }
    let mut initdb = supervisor.start(&binaries.program("initdb"), &arguments, Signal::Terminate)?;
    match initdb.wait(START_LIMIT) {
        Some(status) if status.success() => {}
        Some(status) => return Err(files.failed("initdb", status.to_string())),
        None => return Err(files.failed("initdb", format!("not done after {} s", START_LIMIT.as_secs()))),
    }
    fs::rename(&unfinished, &files.data).map_err(Error::io("rename", &unfinished))?;
    let directory = File::open(&files.directory).and_then(|directory| directory.sync_all());
    directory.map_err(Error::io("write to disk", &files.directory))
}

/// Starts the server and waits until it is ready.
fn launch(
    files: &Files,
    binaries: &Binaries,
    options: &Options,
    supervisor: &Supervisor<'_>,
    socket_dir: &Path,
) -> Result<Supervised, Error> {
    files.remove_stale_pid_file()?;
    let mut arguments = vec!["-D".into(), files.data.clone().into_os_string()];
    arguments.extend(options.arguments());
    // The setting is a list: quotes keep a comma or space in the path.
    let mut socket_setting = std::ffi::OsString::from("unix_socket_directories=\"");
    socket_setting.push(socket_dir);
    socket_setting.push("\"");
    arguments.extend(["-c".into(), socket_setting, "-c".into(), "unix_socket_permissions=0700".into()]);

    let before = files.pid_file();
    let mut postgres = supervisor.start(&binaries.program("postgres"), &arguments, Signal::Interrupt)?;
    let deadline = Instant::now() + START_LIMIT;
    while !files.is_ready(&before) {
        if let Some(status) = postgres.ended() {
            return Err(files.failed("postgres", status.to_string()));
        }
        if Instant::now() >= deadline {
            return Err(files.failed("postgres", format!("not ready after {} s", START_LIMIT.as_secs())));
        }
        sleep(PAUSE);
    }
    Ok(postgres)
}
