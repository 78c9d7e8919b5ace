//! The audit of a whole export.

use std::cmp::Reverse;
use std::path::Path;

use serde::Serialize;

use crate::checkpoint::Checkpoint;
use crate::comparison::Comparison;
use crate::envelope::Envelope;
use crate::export::{EntryLine, Export, ReadError};
use crate::finding::{Fault, Finding, Findings, Place};
use crate::merkle::{Accumulator, leaf};
use crate::policy::Policy;
use crate::streams::{Streams, View};

/// How many lines pass between two calls of the progress callback.
const PROGRESS_EVERY: u64 = 1024;

/// Why there was no audit. What an audit finds wrong is in the [`Report`] instead.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// A file could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The older checkpoint to compare with is not one.
    #[error("the older checkpoint to compare with cannot be used: {0}")]
    Trusted(String),
}

/// What an audit is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Reading entries.
    Entries,
    /// Comparing views.
    Views,
}

/// How far an audit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// At what.
    pub step: Step,
    /// Lines done.
    pub done: u64,
    /// Lines in all, as far as it is known.
    pub total: Option<u64>,
}

/// What an audit found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Entries read.
    pub entries: u64,
    /// Events in them.
    pub events: u64,
    /// Streams that they belong to.
    pub streams: u64,
    /// Views compared; none when the export claims no views.
    pub views: Option<u64>,
    /// Whether there were hash tiles to compare with.
    pub tiles: bool,
    /// The checkpoint that seals the entries, when a known log signed it.
    pub checkpoint: Option<Checkpoint>,
    /// The first finding of each kind, the first wrong event first. Empty when all is well.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether nothing is wrong, and nothing unknown.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    /// The first thing that is wrong, whatever else is unknown here.
    pub fn first_fault(&self) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.fault != Fault::Newer)
    }
}

/// Audits an export. `trusted` is the text of an older checkpoint that the auditor kept: the log must begin with what it sealed,
/// as with what each of those sealed that the export kept.
///
/// # Errors
/// [`AuditError`] when a file cannot be read at all, or `trusted` is no checkpoint of a log that the policy knows.
pub fn verify(
    export: &Path,
    policy: &Policy,
    trusted: Option<&str>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Report, AuditError> {
    let trusted = trusted.map(|note| policy.signed(note)).transpose();
    let trusted = trusted.map_err(|finding| AuditError::Trusted(finding.what))?;
    let export = Export::open(export);
    let mut findings = Findings::default();
    let checkpoint = checkpoint(&export, policy, &mut findings)?;
    let mut older: Vec<Checkpoint> = trusted.into_iter().chain(kept(&export, policy, &mut findings)?).collect();
    older.sort_by_key(|older| Reverse(older.size));
    let end = export.end()?.map(|end| end.entries);
    let mut audit = Audit {
        comparison: checkpoint
            .as_ref()
            .filter(|_| export.has_tiles())
            .map(|checkpoint| Comparison::new(&export, checkpoint.size)),
        older,
        tree: Accumulator::default(),
        streams: Streams::default(),
        events: 0,
        findings,
    };

    let files = export.entry_files()?;
    let mut readable = true;
    let mut report = |step, done, total| progress(Progress { step, done, total });
    files.each(|line| {
        readable = audit.entry(line)?;
        if audit.tree.size().is_multiple_of(PROGRESS_EVERY) {
            report(Step::Entries, audit.tree.size(), end);
        }
        Ok::<_, AuditError>(readable)
    })?;
    report(Step::Entries, audit.tree.size(), end);
    if readable {
        audit.must_be_whole(end, files.missing.as_deref());
        audit.must_be_sealed(checkpoint.as_ref())?;
        audit.streams.end(&mut audit.findings);
    }
    let views = match export.views()? {
        // Without all entries every view would seem wrong.
        Some(mut lines) if readable => {
            let mut views = 0;
            while let Some(line) = lines.next()? {
                views += 1;
                audit.view(views, line);
                if views.is_multiple_of(PROGRESS_EVERY) {
                    report(Step::Views, views, None);
                }
            }
            audit.streams.all_claimed(&mut audit.findings);
            report(Step::Views, views, Some(views));
            Some(views)
        }
        _ => None,
    };
    Ok(Report {
        entries: audit.tree.size(),
        events: audit.events,
        streams: audit.streams.count(),
        views,
        tiles: export.has_tiles(),
        checkpoint,
        findings: audit.findings.into_sorted(),
    })
}

/// Follows envelopes that stand in log order, without what seals them: versions, forms, and what the rules allow.
pub fn verify_history<'e>(envelopes: impl IntoIterator<Item = &'e str>) -> Vec<Finding> {
    let (mut streams, mut findings) = (Streams::default(), Findings::default());
    for (index, text) in (0..).zip(envelopes) {
        match Envelope::parse(text) {
            Ok(envelope) => streams.follow(index, &envelope, text, &mut findings),
            Err(why) => findings.add(Finding::new(Fault::BadEnvelope, Place::entry(index), why)),
        }
    }
    streams.end(&mut findings);
    findings.into_sorted()
}

/// The export's checkpoint, when a known log signed it.
fn checkpoint(export: &Export, policy: &Policy, findings: &mut Findings) -> Result<Option<Checkpoint>, ReadError> {
    let Some(note) = export.checkpoint()? else {
        findings.add(Finding::new(
            Fault::CutOff,
            Place::UNKNOWN,
            "the export has no checkpoint: nothing seals its entries",
        ));
        return Ok(None);
    };
    match policy.signed(&note) {
        Ok(checkpoint) => {
            policy.witnessed(&note).unwrap_or_else(|finding| findings.add(finding));
            Ok(Some(checkpoint))
        }
        Err(finding) => {
            findings.add(finding);
            Ok(None)
        }
    }
}

/// The checkpoints that the export had before. One that no known log signed is not as it was kept.
fn kept(export: &Export, policy: &Policy, findings: &mut Findings) -> Result<Vec<Checkpoint>, ReadError> {
    let mut kept = Vec::new();
    for (file, note) in export.kept()? {
        match policy.signed(&note) {
            Ok(checkpoint) => kept.push(checkpoint),
            Err(finding) => {
                let what = format!("checkpoints/{file}: {}", finding.what);
                findings.add(Finding { what, ..finding });
            }
        }
    }
    Ok(kept)
}

/// An audit under way.
struct Audit<'a> {
    tree: Accumulator,
    comparison: Option<Comparison<'a>>,
    /// Older checkpoints that are still to be compared with, the smallest last.
    older: Vec<Checkpoint>,
    streams: Streams,
    events: u64,
    findings: Findings,
}

impl Audit<'_> {
    fn find(&mut self, fault: Fault, place: Place, what: impl Into<String>) {
        self.findings.add(Finding::new(fault, place, what));
    }

    /// Takes a line; `false` when it cannot be read, so that nothing can be said of the log from here on.
    fn entry(&mut self, line: &[u8]) -> Result<bool, AuditError> {
        let index = self.tree.size();
        let entry: EntryLine = match serde_json::from_slice(line) {
            Ok(entry) => entry,
            Err(error) => {
                self.find(Fault::Unreadable, Place::entry(index), format!("the line cannot be read: {error}"));
                return Ok(false);
            }
        };
        if entry.log_index != index {
            let what = format!("the entry says that it has log index {}", entry.log_index);
            self.find(Fault::LogIndex, Place::entry(index), what);
        }
        self.must_begin_as_before();
        let hash = leaf(entry.envelope.as_bytes());
        self.tree.push(hash);
        if let Some(comparison) = &mut self.comparison {
            comparison.take(index, hash)?;
        }
        match Envelope::parse(&entry.envelope) {
            Ok(envelope) => {
                self.events += envelope.len();
                self.streams.follow(index, &envelope, &entry.envelope, &mut self.findings);
            }
            Err(why) => self.find(Fault::BadEnvelope, Place::entry(index), why),
        }
        Ok(true)
    }

    /// At the size of an older checkpoint: the root has to be its root.
    fn must_begin_as_before(&mut self) {
        let size = self.tree.size();
        while let Some(older) = self.older.pop_if(|older| older.size == size) {
            if older.root != self.tree.root() {
                let what = format!(
                    "the first {size} entries are not those that the older checkpoint sealed: history was rewritten"
                );
                self.find(Fault::Rewritten, Place::UNKNOWN, what);
            }
        }
    }

    fn must_be_whole(&mut self, end: Option<u64>, missing_file: Option<&str>) {
        let entries = self.tree.size();
        if let Some(file) = missing_file {
            self.find(Fault::CutOff, Place::UNKNOWN, format!("the file {file} is missing"));
        }
        match end {
            None => {
                let what = "the export has no end marker: it was cut off; export again, which goes on where it stopped";
                self.find(Fault::CutOff, Place::entry(entries), what);
            }
            Some(end) if end != entries => {
                let what = format!("the export says that it holds {end} entries, and holds {entries}");
                self.find(Fault::CutOff, Place::entry(entries.min(end)), what);
            }
            Some(_) => {}
        }
    }

    /// After the last entry: the checkpoint seals these entries, all of them and no others.
    fn must_be_sealed(&mut self, checkpoint: Option<&Checkpoint>) -> Result<(), AuditError> {
        let entries = self.tree.size();
        self.must_begin_as_before();
        if let Some(largest) = self.older.first() {
            let what =
                format!("the older checkpoint sealed {} entries, {entries} are there: history was cut", largest.size);
            self.find(Fault::Rewritten, Place::entry(entries), what);
        }
        let Some(checkpoint) = checkpoint else { return Ok(()) };
        if entries < checkpoint.size {
            let what = format!("the checkpoint seals {} entries, {entries} are there", checkpoint.size);
            self.find(Fault::MissingTail, Place::entry(entries), what);
        } else if entries > checkpoint.size {
            let what = format!("the checkpoint seals {} entries only, {entries} are there", checkpoint.size);
            self.find(Fault::Unsealed, Place::entry(checkpoint.size), what);
        }
        let mut is_found = entries != checkpoint.size || self.tree.root() == checkpoint.root;
        if let Some(comparison) = self.comparison.take() {
            let tiles = comparison.finish(entries)?;
            let are_genuine = tiles.root == checkpoint.root;
            if let (Some(index), true) = (tiles.first_difference, are_genuine) {
                self.find(Fault::ChangedEntry, Place::entry(index), "this is not the entry that the log sealed here");
                is_found = true;
            }
            if !are_genuine || tiles.wrong_tile.is_some() {
                let place = Place { log_index: tiles.first_difference.filter(|_| !are_genuine), ..Place::UNKNOWN };
                let what =
                    tiles.wrong_tile.unwrap_or_else(|| "the hash tiles are not those of the checkpoint".to_owned());
                self.find(Fault::WrongTile, place, what);
            }
        }
        if !is_found {
            let what =
                "the entries are not those that the checkpoint seals; an export with good hash tiles tells which";
            self.find(Fault::WrongRoot, Place::UNKNOWN, what);
        }
        Ok(())
    }

    fn view(&mut self, number: u64, line: &[u8]) {
        match serde_json::from_slice::<View>(line) {
            Ok(view) => self.streams.compare(&view, &mut self.findings),
            Err(error) => {
                self.find(
                    Fault::Unreadable,
                    Place::UNKNOWN,
                    format!("line {number} of views.jsonl cannot be read: {error}"),
                );
            }
        }
    }
}
