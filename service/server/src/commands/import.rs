//! `joind import`: an archive becomes a database.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use indicatif::ProgressBar;
use join_audit::{Checkpoint, Fault, Policy, Step, merkle};
use join_ledger::{Import, Progress, Stage};
use tokio::sync::mpsc;

use super::terminal::{line, progress_bar, say};
use crate::{cluster, config::Config};

/// Exit status when the archive is not what was signed.
const FAULT: u8 = 3;
/// Entries that are handed over at once.
const CHUNK: usize = 5000;
/// Chunks that wait for the database, at most.
const WAITING: usize = 2;

pub(super) async fn run(config: &Config, archive: &Path, policy: Option<&Path>) -> anyhow::Result<u8> {
    let owner = super::owner(config)?;
    let policy = policy.map_or_else(|| archive.join("policy"), Path::to_owned);
    let text = fs::read_to_string(&policy).with_context(|| {
        format!("{} can't be read: is {} an archive of `joinctl audit export`?", policy.display(), archive.display())
    })?;
    let policy: Policy = text.parse().with_context(|| policy.display().to_string())?;
    // An import that can't begin is told before an archive is read for minutes.
    let mut import = Import::begin(&owner).await?;

    let bar = progress_bar()?;
    let Some(sealed) = verified(archive.to_owned(), policy, bar.clone()).await? else {
        say("error: the archive is not what it should be; nothing was imported");
        return Ok(FAULT);
    };
    begin(&bar, "importing", sealed.checkpoint.size);
    let (sender, mut chunks) = mpsc::channel(WAITING);
    let directory = archive.to_owned();
    let reading = tokio::task::spawn_blocking(move || read(&directory, &sender));
    while let Some(chunk) = chunks.recv().await {
        import.append(&chunk).await?;
        bar.set_position(import.next());
    }
    if reading.await?? != sealed.checkpoint.root {
        bail!("the archive was changed while it was being imported; nothing was imported");
    }
    let mut shown = None;
    let entries = import.next();
    import
        .finish(&sealed.checkpoint.origin, &sealed.note, |Progress { stage, done, total }| {
            if shown != Some(stage) {
                shown = Some(stage);
                begin(&bar, if stage == Stage::Guard { "states" } else { "views" }, total);
            }
            bar.set_position(done);
        })
        .await?;
    bar.finish_and_clear();
    let origin = config.log.origin.clone().unwrap_or_else(|| cluster::default_origin(&config.cluster_name));
    let next = match origin == sealed.checkpoint.origin {
        true => "set log.origin to another".to_owned(),
        false => format!("it goes on as log.origin says, {origin}"),
    };
    line(format_args!(
        "{entries} entries are imported; they were signed as {}, and this copy can't sign under that name: {next}",
        sealed.checkpoint.origin
    ))?;
    Ok(0)
}

/// What seals the archive.
struct Sealed {
    checkpoint: Checkpoint,
    note: String,
}

/// Audits the archive; none when it is not what was signed, which is told on stderr.
async fn verified(archive: PathBuf, policy: Policy, bar: ProgressBar) -> anyhow::Result<Option<Sealed>> {
    let audit = move || -> anyhow::Result<Option<Sealed>> {
        let mut shown = None;
        let report = join_audit::verify(&archive, &policy, None, &mut |progress| {
            if shown != Some(progress.step) {
                shown = Some(progress.step);
                let what = if progress.step == Step::Entries { "verifying" } else { "comparing views" };
                begin(&bar, what, progress.total.unwrap_or(progress.done));
            }
            bar.set_position(progress.done);
        })?;
        bar.set_position(0);
        for finding in &report.findings {
            let label = match finding.fault {
                Fault::Newer => "UNKNOWN",
                Fault::TimeWentBack => "NOTE",
                _ => "WRONG",
            };
            bar.suspend(|| say(format_args!("{label}  {finding}")));
        }
        // A clock that was wrong once is part of what was signed: it is told, and no reason to lose the rest.
        let has = |is: fn(Fault) -> bool| report.findings.iter().any(|finding| is(finding.fault));
        if has(|fault| !matches!(fault, Fault::Newer | Fault::TimeWentBack)) {
            return Ok(None);
        }
        ensure!(
            !has(|fault| fault == Fault::Newer),
            "a newer version wrote the archive; nothing was imported: import it with that one"
        );
        let Some(checkpoint) = report.checkpoint else { return Ok(None) };
        let note = fs::read_to_string(archive.join("checkpoint"))?;
        Ok(Some(Sealed { checkpoint, note }))
    };
    tokio::task::spawn_blocking(audit).await?
}

/// Reads the archive's entries into the channel, and returns their root.
fn read(archive: &Path, chunks: &mpsc::Sender<Vec<String>>) -> anyhow::Result<merkle::Hash> {
    let mut tree = merkle::Accumulator::default();
    let mut chunk = Vec::with_capacity(CHUNK);
    let gone = || anyhow::anyhow!("the import ended");
    join_audit::each_envelope(archive, |envelope| {
        tree.push(merkle::leaf(envelope.as_bytes()));
        chunk.push(envelope);
        if chunk.len() == CHUNK {
            let full = std::mem::replace(&mut chunk, Vec::with_capacity(CHUNK));
            chunks.blocking_send(full).map_err(|_| gone())?;
        }
        anyhow::Ok(())
    })?;
    chunks.blocking_send(chunk).map_err(|_| gone())?;
    Ok(tree.root())
}

fn begin(bar: &ProgressBar, what: &'static str, total: u64) {
    bar.reset();
    bar.set_message(what);
    bar.set_length(total);
}
