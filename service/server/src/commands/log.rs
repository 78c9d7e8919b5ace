//! `joind log`: somebody decides how a log goes on whose past is in doubt, under another name or as it is.

use anyhow::{Context as _, bail};
use join_log::SignedNote;

use crate::{cluster, config::Config};

pub(super) async fn begin(config: &Config, reason: &str, ended: Option<&str>) -> anyhow::Result<u8> {
    let ledger = super::ledger(config).await?;
    let next = config.log.origin.clone().unwrap_or_else(|| cluster::default_origin(&config.cluster_name));
    let head = ledger.log_head().await?;
    let recorded = match &head.checkpoint {
        Some(text) => {
            let note: SignedNote = text.parse().context("the recorded checkpoint does not read")?;
            Some(note.checkpoint().context("the recorded checkpoint does not read")?.origin)
        }
        None => None,
    };
    let Some(ended) = ended.or(recorded.as_deref()) else {
        bail!("the database knows of no checkpoint: say with --ended which log ends");
    };
    if let Some(recorded) = recorded.as_deref().filter(|recorded| *recorded != ended) {
        eprintln!("note: the newest checkpoint that the database knows is of the log `{recorded}`, not of `{ended}`");
    }
    if ended == next {
        bail!(
            "log.origin is still `{next}`: set it to a name that was never used, and log.directory to an empty \
             directory, in the configuration of every node; then try again"
        );
    }
    let past = ledger.ended_origins().await?;
    if past.contains(&next) {
        bail!("the log `{next}` was ended once: set log.origin to a name that was never used");
    }
    if past.iter().any(|origin| origin == ended) {
        bail!("the log `{ended}` was ended already; nodes with log.origin `{next}` sign");
    }
    if !ledger.end_log(&head, ended, reason).await? {
        bail!("a node signed at this very moment, so nothing was changed: stop the nodes, and try again");
    }
    ledger.close().await;
    println!("the log {ended} has ended; {next} begins with the next checkpoint that a node signs");
    Ok(0)
}

pub(super) async fn resume(config: &Config, reason: &str) -> anyhow::Result<u8> {
    let ledger = super::ledger(config).await?;
    let ended = ledger.resume_log().await?;
    ledger.close().await;
    if ended.is_empty() {
        bail!("no node has stopped the log");
    }
    for (node, found) in ended {
        println!("the stop of {node} has ended; it had found: {found}");
    }
    println!("nodes sign again: {reason}");
    Ok(0)
}
