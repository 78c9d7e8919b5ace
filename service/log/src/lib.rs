//! The writer's side of the verifiable log: a C2SP tiled transparency log in a directory of files.
//!
//! The ledger gives every append a gapless log index; this crate seals what was indexed, in three steps that may each be repeated:
//!
//! 1. [`LogDirectory::integrate`] writes entry bundles and hash tiles (c2sp.org/tlog-tiles).
//! 2. [`rollback::decide`] says whether a checkpoint may be signed, [`SignedNote::sign`] signs it (c2sp.org/tlog-checkpoint),
//!    and [`witness::Submission`] collects cosignatures (c2sp.org/tlog-witness).
//! 3. [`LogDirectory::publish`] shows it to the world, last of all.
//!
//! Nothing here knows SQL, the network or the time. What proves the log right shares no code with it: see `join-audit`.

pub mod directory;
pub mod files;
pub mod note;
pub mod portable;
pub mod proof;
pub mod rollback;
pub mod tile;
pub mod tree;
pub mod witness;

pub use directory::{DirectoryError, LogDirectory, LogReader};
pub use note::{Checkpoint, NoteError, NoteSigner, SignatureLine, SignedNote, VerifierKey};
pub use proof::{ProofError, TileReader, leaf_at, prove_consistency, prove_inclusion, root_at};
pub use tile::{Layer, MAX_ENTRY, Tile};
pub use tree::{Hash, Tree, leaf_hash, node_hash};
