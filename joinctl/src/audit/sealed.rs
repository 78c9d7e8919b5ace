//! The log's newest checkpoint, waiting for one that seals enough, and the tiles that it needs.

use std::time::{Duration, Instant};

use join_log::{SignedNote, Tile};
use tonic::{Code, Status};

use crate::{connection::Client, exit::Fault};

/// How long to wait for a checkpoint: the log signs one every few seconds.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(500);

/// A checkpoint as it was served. Whether the signature is good, `join-audit` says.
pub(super) struct Sealed {
    pub(super) note: SignedNote,
    /// How many entries it seals.
    pub(super) size: u64,
}

/// A checkpoint that seals `wanted` entries, or the newest there is when none comes in time.
pub(super) async fn checkpoint(client: &Client, wanted: u64) -> anyhow::Result<Sealed> {
    let begun = Instant::now();
    loop {
        let newest = newest(client).await?;
        match newest {
            Some(sealed) if sealed.size >= wanted || begun.elapsed() > PATIENCE => return Ok(sealed),
            None if begun.elapsed() > PATIENCE => {
                return Err(not_in_time("the log has no checkpoint: nothing is sealed"));
            }
            _ => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// What was there, and was not sealed within the patience: neither good nor bad, but not to be judged now.
pub(super) fn not_in_time(what: &str) -> anyhow::Error {
    Status::unavailable(format!(
        "{what}, though {} s were waited for it: see whether the log stands still (`joinctl status`, alarm log_stalled; the \
         node's log says why), or ask another node, and try again then",
        PATIENCE.as_secs()
    ))
    .into()
}

async fn newest(client: &Client) -> anyhow::Result<Option<Sealed>> {
    let Some(bytes) = client.log_file("checkpoint").await? else {
        return Ok(None);
    };
    let wrong = |why: &dyn std::fmt::Display| Fault(format!("what is served as the log's checkpoint is none: {why}"));
    let text = String::from_utf8(bytes).map_err(|error| wrong(&error))?;
    let note: SignedNote = text.parse().map_err(|error| wrong(&error))?;
    let size = note.checkpoint().map_err(|error| wrong(&error))?.size;
    Ok(Some(Sealed { note, size }))
}

/// A tile that a checkpoint of `size` entries needs, with its name: a partial one may have given way to the full one.
pub(super) async fn tile(client: &Client, tile: Tile, size: u64) -> anyhow::Result<(String, Vec<u8>)> {
    if let Some(found) = served(client, tile).await? {
        return Ok(found);
    }
    let has = newest(client).await?.map_or(0, |newest| newest.size);
    // It may have come between the two.
    let found = if has < size { None } else { served(client, tile).await? };
    found.ok_or_else(|| missing(tile, size, has))
}

async fn served(client: &Client, tile: Tile) -> anyhow::Result<Option<(String, Vec<u8>)>> {
    for name in [tile, tile.full()].map(|tile| tile.to_string()) {
        if let Some(bytes) = client.log_file(&name).await? {
            return Ok(Some((name, bytes)));
        }
    }
    Ok(None)
}

/// Why a tile is not there. Behind a load balancer another node may answer than the one whose checkpoint needs it, and its
/// log, of which it `has` published so much, may not reach there yet.
fn missing(tile: Tile, size: u64, has: u64) -> anyhow::Error {
    if has < size {
        let what =
            format!("the checkpoint of {size} entries needs the log's {tile}, and the node that answers now has");
        let what = format!("{what} published {has} entries only: it lags behind; ask another node, or try again later");
        return Status::unavailable(what).into();
    }
    Fault(format!("the log's {tile} is missing, and the checkpoint of {size} entries needs it")).into()
}

/// An authority that fails to read its own ledger: to an auditor that is a finding.
pub(super) fn unreadable(status: Status) -> anyhow::Error {
    if status.code() != Code::Internal || std::error::Error::source(&status).is_some() {
        return status.into();
    }
    Fault(format!("the authority can't read its own ledger: {}", crate::exit::refusal(&status))).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tile_is_missing_only_where_the_log_reaches_that_far() {
        let tile = join_log::tile::Layer::Hashes(0).partial(300).unwrap();
        for has in [0, 299] {
            let error = missing(tile, 300, has);
            let status: &Status = error.downcast_ref().unwrap();
            assert_eq!(status.code(), Code::Unavailable);
            assert!(status.message().contains("it lags behind; ask another node"), "{status}");
        }
        for has in [300, 400] {
            let error = missing(tile, 300, has);
            assert_eq!(
                error.downcast_ref::<Fault>().unwrap().0,
                "the log's tile/0/001.p/44 is missing, and the checkpoint \
                 of 300 entries needs it"
            );
        }
    }
}
