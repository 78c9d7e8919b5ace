//! The log's newest checkpoint, and waiting for one that seals enough.

use std::time::{Duration, Instant};

use anyhow::bail;
use join_log::SignedNote;

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
            None if begun.elapsed() > PATIENCE => bail!("the log has no checkpoint yet: nothing is sealed"),
            _ => tokio::time::sleep(PAUSE).await,
        }
    }
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

/// An authority that fails to read its own ledger: to an auditor that is a finding.
pub(super) fn unreadable(status: Status) -> anyhow::Error {
    if status.code() != Code::Internal || std::error::Error::source(&status).is_some() {
        return status.into();
    }
    Fault(format!("the authority can't read its own ledger: {}", crate::exit::refusal(&status))).into()
}
