//! The portable proof of one entry (c2sp.org/tlog-proof@v1).

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::checkpoint::Checkpoint;
use crate::finding::{Fault, Finding, Place};
use crate::merkle::{Hash, is_included, leaf};
use crate::note::MAX_NOTE;
use crate::policy::Policy;

/// What a portable proof proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// The entry's place in the log.
    pub index: u64,
    /// The checkpoint whose tree holds it.
    pub checkpoint: Checkpoint,
}

/// Checks that `entry`, byte for byte, is in a log that the policy trusts, under a checkpoint cosigned as the policy asks.
///
/// # Errors
/// The finding says which step fails.
pub fn verify_portable(proof: &str, entry: &[u8], policy: &Policy) -> Result<Proven, Finding> {
    let (index, hashes, note) = parse(proof).map_err(|why| {
        Finding::new(Fault::Unreadable, Place::UNKNOWN, format!("this is not a portable proof: {why}"))
    })?;
    let checkpoint = policy.signed(note)?;
    policy.witnessed(note)?;
    if !is_included(leaf(entry), index, checkpoint.size, checkpoint.root, &hashes) {
        let what = format!("the proof does not lead from this entry to the checkpoint of {} entries", checkpoint.size);
        return Err(Finding::new(Fault::NotIncluded, Place::entry(index), what));
    }
    Ok(Proven { index, checkpoint })
}

fn parse(proof: &str) -> Result<(u64, Vec<Hash>, &str), &'static str> {
    if proof.len() > MAX_NOTE {
        return Err("it is too long");
    }
    let (head, note) = proof.split_once("\n\n").ok_or("it has no empty line before the checkpoint")?;
    let mut lines = head.split('\n').peekable();
    if lines.next() != Some("c2sp.org/tlog-proof@v1") {
        return Err("its first line is not c2sp.org/tlog-proof@v1");
    }
    if let Some(extra) = lines.next_if(|line| line.starts_with("extra ")) {
        BASE64.decode(&extra["extra ".len()..]).map_err(|_| "its extra data are not base64")?;
    }
    let decimal = lines.next().and_then(|line| line.strip_prefix("index ")).ok_or("it has no index")?;
    let index: u64 = decimal.parse().map_err(|_| "its index is not a number")?;
    if index.to_string() != decimal {
        return Err("its index is not a plain decimal");
    }
    let hash =
        |line| BASE64.decode(line).ok().and_then(|hash| hash.try_into().ok()).ok_or("a hash is not 32 bytes in base64");
    Ok((index, lines.map(hash).collect::<Result<_, _>>()?, note))
}
