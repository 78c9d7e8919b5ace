//! Where the agent keeps what it must not lose.

mod directory;
mod memory;

use std::{io, path::PathBuf};

pub use self::{directory::Directory, memory::Memory};

/// A place for a few small named documents.
///
/// The agent writes each document through [`Storage::replace`] and relies on it: the write is durable when it returns,
/// and leaves the old contents when it fails. After a failure the agent reads again before it goes on, so a write that
/// failed only after it took effect does no harm.
pub trait Storage: Send + Sync + 'static {
    /// The contents of `name`, or nothing when there is none.
    ///
    /// # Errors
    /// When it is there but can't be read.
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>>;

    /// Replaces the contents of `name`, atomically and durably.
    ///
    /// # Errors
    /// When the new contents could not be made durable.
    fn replace(&self, name: &str, contents: &[u8]) -> io::Result<()>;

    /// The place in words, for messages.
    fn place(&self) -> String;
}

/// Storage that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// Another process has it.
    #[error("{0} is in use by another joinbot; stop that one first, or give each bot a storage directory of its own")]
    InUse(PathBuf),
    /// Others could change what is in it.
    #[error("{0} can be written by other users; close it first with `chmod go-w {0}`")]
    Open(PathBuf),
    /// It is another user's, who could not read what this one writes.
    #[error(
        "{path} belongs to another user (uid {owner}), and this runs as uid {user}: run as that user \
         (`sudo -u '#{owner}' joinbot …`), or give it to this one with `chown -R {user} {path}`", path = .path.display()
    )]
    OtherOwner {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Whose files are that this process writes.
        user: u32,
    },
    /// It can't be created, read or written.
    #[error("cannot {action} {place}: {error}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        place: String,
        /// What the system said.
        error: io::Error,
    },
    /// What is stored is not what was written.
    #[error("{place} is damaged ({why}); nothing of it was sent")]
    Damaged {
        /// Where.
        place: String,
        /// What does not fit.
        why: String,
    },
}
