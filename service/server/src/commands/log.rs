//! `joind log`: somebody decides how a log goes on whose past is in doubt, under another name or as it is.

use anyhow::{Context as _, bail};
use join_domain::{
    envelope::StreamId,
    event::{Event, LogEnded, LogResumed},
};
use join_ledger::{Append, AppendError, Change, Ledger, LogDecision, StreamAppend};
use join_log::SignedNote;

use super::terminal::{line, say};
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
        say(format_args!(
            "note: the newest checkpoint that the database knows is of the log `{recorded}`, not of `{ended}`"
        ));
    }
    let past = ledger.ended_origins().await?;
    if ended == next
        && head.stops.is_empty()
        && let Some(before) = past.last()
    {
        bail!(
            "the log `{next}` was begun already, after `{before}`: nothing is left to do; to end it too, set log.origin to \
             a name that was never used"
        );
    }
    if ended == next {
        bail!(
            "log.origin is still `{next}`: set it to a name that was never used, and log.directory to an empty \
             directory, in the configuration of every node; then try again"
        );
    }
    if past.contains(&next) {
        bail!("the log `{next}` was ended once: set log.origin to a name that was never used");
    }
    if past.iter().any(|origin| origin == ended) {
        bail!("this was decided already: the log `{ended}` has ended, and nodes with log.origin `{next}` sign");
    }
    let event = Event::LogEnded(LogEnded {
        next: next.clone(),
        origin: ended.to_owned(),
        reason: reason.to_owned(),
        size: head.signed,
    });
    let (origin, reason) = (ended.to_owned(), reason.to_owned());
    let decision = LogDecision::End { head, origin, reason, at: ledger.now() };
    decide(
        &ledger,
        event,
        decision,
        "a node signed, or recorded something of the cluster, at this very moment: stop the nodes, and try again",
    )
    .await?;
    ledger.close().await;
    line(format_args!("the log {ended} has ended; {next} begins with the next checkpoint that a node signs"))?;
    Ok(0)
}

pub(super) async fn resume(config: &Config, reason: &str) -> anyhow::Result<u8> {
    let ledger = super::ledger(config).await?;
    let stops = ledger.log_head().await?.stops;
    if stops.is_empty() {
        bail!("no node has stopped the log");
    }
    let event = Event::LogResumed(LogResumed { reason: reason.to_owned(), stops: stops.clone() });
    let decision = LogDecision::Resume { stops: stops.clone() };
    decide(&ledger, event, decision, "the log's stops, or the cluster, changed at this very moment: try again").await?;
    ledger.close().await;
    for (node, found) in stops {
        line(format_args!("the stop of {node} has ended; it had found: {found}"))?;
    }
    line("nodes sign again")?;
    Ok(0)
}

/// Records a decision in the cluster's history, and lets it be.
async fn decide(ledger: &Ledger, event: Event, decision: LogDecision, in_vain: &'static str) -> anyhow::Result<()> {
    let stored = ledger.load(StreamId::CLUSTER).await?.context("there is no cluster yet")?;
    let change = Change { events: vec![event], decided_at: ledger.now(), origin: cluster::system() };
    let append = Append::from(StreamAppend::following(&stored, change)).with_log(decision);
    match ledger.append(append).await {
        Err(AppendError::Conflict) => bail!("nothing was changed: {in_vain}"),
        other => other.map(drop).context("the decision is perhaps not recorded: try again, which tells"),
    }
}
