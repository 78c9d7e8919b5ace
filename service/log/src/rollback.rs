//! Whether a checkpoint may be signed: never one that is inconsistent with another signed before, in any process, ever.
//!
//! A database restored from an older backup has forgotten checkpoints that the world has seen, and will give their log indices
//! to other events. So the last signed checkpoint is kept outside of it too: on every node, and by the witnesses.

use std::io;

use crate::note::Checkpoint;
use crate::tree::Hash;

/// What is known about the log's past.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// The log's configured name.
    pub origin: &'a str,
    /// The entries integrated from the database, so far as it still has them: what would be signed now.
    pub integrated: u64,
    /// The last checkpoint published in this node's directory.
    pub on_disk: Option<&'a Checkpoint>,
    /// The last checkpoint that the database says was signed; it is recorded there before it goes anywhere else.
    pub recorded: Option<&'a Checkpoint>,
    /// The largest size that a witness claims to have cosigned.
    pub witnessed: Option<u64>,
    /// True when somebody decided that nothing is signed under this name any more.
    pub ended: bool,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Decision {
    /// All evidence agrees: sign.
    Sign,
    /// Something contradicts: sign nothing, raise an alarm, wait for an operator.
    Refuse(Rollback),
}

/// A contradiction between the log and its past. Its text is for the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rollback {
    /// This name is used up.
    #[error(
        "the log {origin} was ended, and this history must not go by its name: set log.origin to one that was never \
         used, and log.directory to an empty directory"
    )]
    Ended {
        /// The origin configured.
        origin: String,
    },
    /// A checkpoint of another log.
    #[error(
        "a checkpoint of the log {found} is kept where one of {expected} belongs: every origin has its own directory, \
         and the database goes on to another only when somebody decides so with `joind log begin`"
    )]
    OtherOrigin {
        /// The origin found.
        found: String,
        /// The origin configured.
        expected: String,
    },
    /// This node has a newer checkpoint than the database.
    #[error(
        "this node keeps a signed checkpoint of {on_disk} entries, the database knows of {recorded}: \
         the database was restored from an older backup; restore a newer one, or start a new origin"
    )]
    DatabaseForgot {
        /// Entries in this node's checkpoint.
        on_disk: u64,
        /// Entries in the database's last one, 0 for none.
        recorded: u64,
    },
    /// Signed entries are missing.
    #[error(
        "a checkpoint of {signed} entries was signed, only {integrated} are there: \
         the log lost its tail; restore a newer backup, or start a new origin"
    )]
    Shorter {
        /// Entries there.
        integrated: u64,
        /// Entries signed.
        signed: u64,
    },
    /// Signed entries were replaced.
    #[error(
        "the first {size} entries are not those that were signed: \
         history was rewritten; find out by whom, then restore a backup, or start a new origin"
    )]
    Rewritten {
        /// The size of the checkpoint that does not fit.
        size: u64,
    },
    /// A witness has seen more than was ever signed, as far as the database knows. However much the log grows since, that
    /// stays so.
    #[error(
        "a witness has seen {witnessed} entries, the database knows of {recorded}: \
         database and this node were both restored from older backups; restore newer ones, or start a new origin"
    )]
    WitnessAhead {
        /// Entries in the database's last checkpoint, 0 for none.
        recorded: u64,
        /// Entries seen by the witness.
        witnessed: u64,
    },
}

impl Rollback {
    /// Whether one node is set up for another log, which says nothing of the history.
    pub fn is_misconfigured(&self) -> bool {
        matches!(self, Self::Ended { .. } | Self::OtherOrigin { .. })
    }
}

/// Decides. `root_at` tells the root that the integrated tree had at a size up to `integrated`; if it cannot, nothing may be signed.
pub fn decide(evidence: &Evidence<'_>, mut root_at: impl FnMut(u64) -> io::Result<Hash>) -> io::Result<Decision> {
    let Evidence { origin, integrated, on_disk, recorded, witnessed, ended } = *evidence;
    if ended {
        return Ok(refuse(Rollback::Ended { origin: origin.to_owned() }));
    }
    let signed = || recorded.into_iter().chain(on_disk);
    if let Some(other) = signed().find(|checkpoint| checkpoint.origin != origin) {
        return Ok(refuse(Rollback::OtherOrigin { found: other.origin.clone(), expected: origin.to_owned() }));
    }
    let size = |checkpoint: Option<&Checkpoint>| checkpoint.map_or(0, |checkpoint| checkpoint.size);
    if on_disk.is_some() && (recorded.is_none() || size(on_disk) > size(recorded)) {
        return Ok(refuse(Rollback::DatabaseForgot { on_disk: size(on_disk), recorded: size(recorded) }));
    }
    for checkpoint in signed() {
        if checkpoint.size > integrated {
            return Ok(refuse(Rollback::Shorter { integrated, signed: checkpoint.size }));
        }
        if root_at(checkpoint.size)? != checkpoint.root {
            return Ok(refuse(Rollback::Rewritten { size: checkpoint.size }));
        }
    }
    match (witnessed, size(recorded)) {
        (Some(witnessed), recorded) if witnessed > recorded => {
            Ok(refuse(Rollback::WitnessAhead { recorded, witnessed }))
        }
        _ => Ok(Decision::Sign),
    }
}

fn refuse(why: Rollback) -> Decision {
    Decision::Refuse(why)
}
