//! Writes exports, honest ones and others, and audits them.

use std::fs;
use std::path::Path;

use join_audit::{Fault, Policy, Report, verify};
use join_log::{LogDirectory, SignedNote};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::history::History;
use crate::keys::{log_policy, signed};

/// Entries in one file.
const PER_FILE: usize = 100;

/// An export that can be tampered with before it is written.
#[derive(Debug, Clone)]
pub(crate) struct Export {
    /// Log index and envelope, line by line.
    pub(crate) lines: Vec<(u64, String)>,
    pub(crate) views: Option<Vec<Value>>,
    pub(crate) end: Option<Value>,
    /// What the log really sealed: checkpoint and tiles follow from it.
    pub(crate) sealed: Vec<String>,
    pub(crate) checkpoint: Option<String>,
    pub(crate) tiles: bool,
}

impl Export {
    /// What an honest service exports.
    pub(crate) fn of(history: &History) -> Self {
        let sealed = history.envelopes();
        Self {
            lines: (0..).zip(sealed.clone()).collect(),
            views: Some(history.views()),
            end: Some(json!({ "entries": sealed.len() })),
            checkpoint: Some(note_of(&sealed).to_string()),
            sealed,
            tiles: true,
        }
    }

    /// The envelopes as they stand, sealed by the log itself: only what they say can be wrong.
    pub(crate) fn resealed(mut self) -> Self {
        self.renumber();
        self.sealed = self.lines.iter().map(|(_, envelope)| envelope.clone()).collect();
        self.checkpoint = Some(note_of(&self.sealed).to_string());
        self
    }

    /// Makes indices and end marker fit the lines, as a careful forger does.
    pub(crate) fn renumber(&mut self) {
        (0..).zip(&mut self.lines).for_each(|(index, line)| line.0 = index);
        self.end = Some(json!({ "entries": self.lines.len() }));
    }

    pub(crate) fn without_tiles(mut self) -> Self {
        self.tiles = false;
        self
    }

    pub(crate) fn without_views(mut self) -> Self {
        self.views = None;
        self
    }

    pub(crate) fn written(&self) -> TempDir {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        for (number, lines) in self.lines.chunks(PER_FILE).enumerate() {
            let line = |(index, envelope): &(u64, String)| json!({ "log_index": index, "envelope": envelope });
            write_lines(&root.join(format!("entries-{number:06}.jsonl")), lines.iter().map(line));
        }
        if let Some(views) = &self.views {
            write_lines(&root.join("views.jsonl"), views.iter().cloned());
        }
        if self.tiles {
            let log = tempfile::tempdir().unwrap();
            let mut writer = LogDirectory::open(log.path()).unwrap();
            writer.integrate(&self.sealed).unwrap();
            if !self.sealed.is_empty() {
                fs::rename(log.path().join("tile"), root.join("tile")).unwrap();
            }
        }
        if let Some(checkpoint) = &self.checkpoint {
            fs::write(root.join("checkpoint"), checkpoint).unwrap();
        }
        if let Some(end) = &self.end {
            fs::write(root.join("end.json"), end.to_string()).unwrap();
        }
        directory
    }

    pub(crate) fn audited(&self) -> Report {
        self.audited_by(&log_policy(), None)
    }

    pub(crate) fn audited_by(&self, policy: &Policy, trusted: Option<&str>) -> Report {
        audit(self.written().path(), policy, trusted)
    }

    /// The faults found, with the log index of each.
    pub(crate) fn faults(&self) -> Vec<(Fault, Option<u64>)> {
        faults(&self.audited())
    }
}

pub(crate) fn audit(root: &Path, policy: &Policy, trusted: Option<&str>) -> Report {
    verify(root, policy, trusted, &mut |_| {}).unwrap()
}

pub(crate) fn faults(report: &Report) -> Vec<(Fault, Option<u64>)> {
    report.findings.iter().map(|finding| (finding.fault, finding.place.log_index)).collect()
}

pub(crate) fn note_of(envelopes: &[String]) -> SignedNote {
    signed(&envelopes.iter().map(|envelope| join_log::leaf_hash(envelope.as_bytes())).collect())
}

fn write_lines(path: &Path, lines: impl Iterator<Item = Value>) {
    let text: String = lines.map(|line| format!("{line}\n")).collect();
    fs::write(path, text).unwrap();
}
