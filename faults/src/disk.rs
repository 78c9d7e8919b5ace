//! Disks: one that can be copied, and one on which a write goes wrong.

use std::{
    collections::BTreeMap,
    fs, io,
    panic::resume_unwind,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use join_agent::storage::Storage;

/// A disk in memory, which can be copied at any moment.
#[derive(Debug, Default)]
pub struct MemoryDisk(Mutex<BTreeMap<String, Vec<u8>>>);

impl MemoryDisk {
    /// What is on it now.
    pub fn copy(&self) -> Self {
        Self(Mutex::new(self.files().clone()))
    }

    fn files(&self) -> MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Storage for MemoryDisk {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.files().get(name).cloned())
    }

    fn replace(&self, name: &str, contents: &[u8]) -> io::Result<()> {
        self.files().insert(name.to_owned(), contents.to_vec());
        Ok(())
    }

    fn place(&self) -> String {
        "memory".to_owned()
    }
}

/// How a write goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mishap {
    /// The disk is full for this write; nothing of it is left.
    Full,
    /// The disk is full from this write on.
    StaysFull,
    /// It was written, and nobody knows: the last fsync failed.
    NotSynced,
    /// The process ends before it.
    CrashBefore,
    /// The process ends when a part of the new file is there, so many quarters of it, not yet under its name.
    CrashWithin(usize),
    /// The process ends after it.
    CrashAfter,
}

impl Mishap {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Full,
        Self::StaysFull,
        Self::NotSynced,
        Self::CrashBefore,
        Self::CrashWithin(0),
        Self::CrashWithin(2),
        Self::CrashWithin(4),
        Self::CrashAfter,
    ];
}

/// What a process that crashed unwinds with.
pub struct Crash;

/// A disk on which one write goes wrong.
pub struct Failing {
    /// The disk.
    pub disk: Arc<dyn Storage>,
    /// Its directory, if it has one: what a broken-off write leaves stands there.
    pub directory: Option<PathBuf>,
    /// What goes wrong.
    pub mishap: Mishap,
    /// With which write, from 1 on.
    pub write: usize,
    /// Ends the connections of the process when it crashes.
    pub ends: Arc<dyn Fn() + Send + Sync>,
    /// Writes so far.
    pub written: AtomicUsize,
}

impl Failing {
    fn crash(&self) -> ! {
        (self.ends)();
        // No destructor that would speak to anybody else runs before the connections are gone, and no panic is told of.
        resume_unwind(Box::new(Crash))
    }
}

impl Storage for Failing {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        self.disk.read(name)
    }

    fn replace(&self, name: &str, contents: &[u8]) -> io::Result<()> {
        let write = self.written.fetch_add(1, Ordering::SeqCst) + 1;
        let full = || Err(io::ErrorKind::StorageFull.into());
        if write > self.write && self.mishap == Mishap::StaysFull {
            return full();
        }
        if write != self.write {
            return self.disk.replace(name, contents);
        }
        match self.mishap {
            Mishap::Full | Mishap::StaysFull => full(),
            Mishap::NotSynced => {
                self.disk.replace(name, contents)?;
                Err(io::Error::other("fsync failed"))
            }
            Mishap::CrashBefore => self.crash(),
            Mishap::CrashWithin(quarters) => {
                if let Some(directory) = &self.directory {
                    let part = &contents[..contents.len() * quarters / 4];
                    fs::write(directory.join(format!(".{name}.new")), part)?;
                }
                self.crash()
            }
            Mishap::CrashAfter => {
                self.disk.replace(name, contents)?;
                self.crash()
            }
        }
    }

    fn place(&self) -> String {
        self.disk.place()
    }
}
