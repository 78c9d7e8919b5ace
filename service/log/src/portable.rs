//! The portable proof of one entry: a text that convinces offline (c2sp.org/tlog-proof@v1, extension `.tlog-proof`).

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::note::{NoteError, SignedNote};
use crate::proof::{ProofError, TileReader, prove_inclusion};

/// Why there is no portable proof.
#[derive(Debug, thiserror::Error)]
pub enum PortableError {
    /// The note to prove against is not a checkpoint.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// There is no inclusion proof.
    #[error(transparent)]
    Proof(#[from] ProofError),
}

/// Proves that entry `index` is in the tree of a signed, and better also cosigned, checkpoint.
///
/// `extra` travels along unauthenticated; empty means none.
pub fn prove(reader: &impl TileReader, index: u64, note: &SignedNote, extra: &[u8]) -> Result<String, PortableError> {
    let hashes = prove_inclusion(reader, index, note.checkpoint()?.size)?;
    let mut text = String::from("c2sp.org/tlog-proof@v1\n");
    let mut line = |line: std::fmt::Arguments<'_>| writeln!(text, "{line}").expect("a string takes all");
    if !extra.is_empty() {
        line(format_args!("extra {}", BASE64.encode(extra)));
    }
    line(format_args!("index {index}"));
    hashes.iter().for_each(|hash| line(format_args!("{}", BASE64.encode(hash))));
    text.push('\n');
    text.push_str(&note.to_string());
    Ok(text)
}
