//! Storage in a directory of its own.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use super::{Storage, StorageError};
use crate::files;

/// A directory (mode 0700, files 0600), held by one process at a time.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// The lock is released when this is closed, also when the process is killed.
    lock: Option<File>,
}

impl Directory {
    /// Holds the directory, and makes sure that it can be written.
    ///
    /// # Errors
    /// [`StorageError`]: found out here, so that it is found out before a join.
    pub fn open(path: &Path) -> Result<Self, StorageError> {
        let held = Self::hold(path)?;
        held.probe()?;
        Ok(held)
    }

    /// Creates the directory when it is missing, and locks it. It need not have room for more: what a full or read-only
    /// disk holds can be read.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn hold(path: &Path) -> Result<Self, StorageError> {
        let failed_at = |action, path: &Path| {
            let place = path.display().to_string();
            move |error| StorageError::Io { action, place, error }
        };
        let failed = |action| failed_at(action, path);
        files::create_directory(path).map_err(failed("create"))?;
        let found = fs::metadata(path).map_err(failed("read"))?;
        if found.permissions().mode() & 0o022 != 0 {
            return Err(StorageError::Open(path.to_owned()));
        }
        // Before there is a file with a name: its owner could not even open a lock of root's.
        // Where nothing can be made, it would be this process's user's.
        let user = files::owner_of_new(path).or_else(|error| files::user().ok_or(error));
        let user = user.map_err(failed("write into"))?;
        // Where it has always run like this, as in some containers, nobody else's files are in the way.
        let lock_path = path.join("lock");
        let ran_before = fs::metadata(&lock_path).is_ok_and(|lock| lock.uid() == user);
        if found.uid() != user && !ran_before {
            return Err(StorageError::OtherOwner { path: path.to_owned(), owner: found.uid(), user });
        }
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(files::PRIVATE)
            .open(&lock_path)
            .or_else(|error| match error.kind() {
                // One that is there can be held all the same.
                io::ErrorKind::ReadOnlyFilesystem => File::open(&lock_path).map_err(|_| error),
                _ => Err(error),
            })
            .map_err(failed_at("open", &lock_path))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => StorageError::InUse(path.to_owned()),
            TryLockError::Error(error) => failed_at("lock", &lock_path)(error),
        })?;
        Ok(Self { path: path.to_owned(), lock: Some(lock) })
    }

    /// Makes sure that it can be written.
    ///
    /// # Errors
    /// [`StorageError::Io`] when it can't be.
    pub fn probe(&self) -> Result<(), StorageError> {
        let place = self.path.display().to_string();
        files::probe(&self.path).map_err(|error| StorageError::Io { action: "write into", place, error })
    }

    /// Looks at a directory that another process may be using. Nothing may be written through this.
    pub fn look(path: &Path) -> Self {
        Self { path: path.to_owned(), lock: None }
    }

    /// What is wrong with it though it can be used: others can look into it. Files are written for the owner alone, but one
    /// that was copied here by hand need not be.
    pub fn warning(&self) -> Option<String> {
        let path = self.path.display();
        let mode = fs::metadata(&self.path).ok()?.permissions().mode();
        (mode & 0o055 != 0).then(|| {
            format!(
                "other users can look into {path}, where the bot's private keys are; close it with `chmod go= {path}`"
            )
        })
    }
}

impl Storage for Directory {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        files::read(&self.path.join(name))
    }

    fn replace(&self, name: &str, contents: &[u8]) -> io::Result<()> {
        if self.lock.is_none() {
            return Err(io::Error::other("the directory was opened for reading"));
        }
        files::replace(&self.path, name, contents, files::PRIVATE)
    }

    fn place(&self) -> String {
        self.path.display().to_string()
    }
}
