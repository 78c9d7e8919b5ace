//! What an audit can find wrong, and where.

use std::fmt;

use serde::Serialize;

/// The kinds of things that can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The export has no end marker, or holds another number of entries than it says: it is not whole.
    CutOff,
    /// A line or file does not have the form it should have.
    Unreadable,
    /// No known log signed the checkpoint, or a signature of a known key is wrong.
    ForgedCheckpoint,
    /// Too few witnesses cosigned the checkpoint.
    TooFewWitnesses,
    /// Log indices are not 0, 1, 2, ….
    LogIndex,
    /// An entry is not the one that the log sealed at this index.
    ChangedEntry,
    /// The entries are not those that the checkpoint seals. Where they differ is not known.
    WrongRoot,
    /// The checkpoint seals more entries than are there.
    MissingTail,
    /// There are entries that the checkpoint does not seal.
    Unsealed,
    /// The log no longer begins with what an older checkpoint sealed.
    Rewritten,
    /// A hash tile is missing or does not follow from the entries.
    WrongTile,
    /// An envelope is not canonical JSON of the known form.
    BadEnvelope,
    /// A stream's versions are not 1, 2, 3, ….
    StreamVersion,
    /// Events that cannot follow what came before.
    ImpossibleHistory,
    /// The rules did not allow what was recorded.
    ForbiddenHistory,
    /// What an entry says of its time can't be at its place in the log: it was backdated, or a clock was wrong.
    TimeWentBack,
    /// An event of a kind or version that is not known here, as a newer version writes it: nothing is said of its stream,
    /// nor of what depends on it.
    Newer,
    /// A claimed view is not what follows from the events.
    WrongView,
    /// The state of a stream was not claimed.
    MissingView,
    /// A portable proof does not lead from the entry to the checkpoint.
    NotIncluded,
}

/// Where something is wrong, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The first log index concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_index: Option<u64>,
    /// The stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// The first version of that stream concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
}

impl Place {
    /// Nowhere in particular.
    pub(crate) const UNKNOWN: Self = Self { log_index: None, stream: None, version: None };

    pub(crate) fn entry(log_index: u64) -> Self {
        Self { log_index: Some(log_index), ..Self::UNKNOWN }
    }
}

/// Something wrong: the first of its kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What kind of thing.
    pub fault: Fault,
    /// How many more of this kind there are.
    #[serde(skip_serializing_if = "is_zero")]
    pub more: u64,
    /// Where.
    #[serde(flatten)]
    pub place: Place,
    /// A sentence for people.
    pub what: String,
}

impl Finding {
    pub(crate) fn new(fault: Fault, place: Place, what: impl Into<String>) -> Self {
        Self { fault, more: 0, place, what: what.into() }
    }
}

/// The sentence, after the place.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(index) = self.place.log_index {
            write!(f, "log index {index}: ")?;
        }
        match (&self.place.stream, self.place.version) {
            (Some(stream), Some(version)) => write!(f, "{stream} version {version}: ")?,
            (Some(stream), None) => write!(f, "{stream}: ")?,
            (None, _) => {}
        }
        f.write_str(&self.what)?;
        if self.more > 0 { write!(f, " (and {} more like it)", self.more) } else { Ok(()) }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands references")]
fn is_zero(more: &u64) -> bool {
    *more == 0
}

/// Collects the first finding of each kind: what follows is mostly a consequence, and memory stays bounded.
#[derive(Debug, Default)]
pub(crate) struct Findings(Vec<Finding>);

impl Findings {
    pub(crate) fn add(&mut self, finding: Finding) {
        match self.0.iter_mut().find(|known| known.fault == finding.fault) {
            Some(first) => first.more = first.more.saturating_add(1),
            None => self.0.push(finding),
        }
    }

    /// Those with a log index first, in log order: the first is the first wrong event.
    pub(crate) fn into_sorted(mut self) -> Vec<Finding> {
        self.0.sort_by_key(|finding| (finding.place.log_index.unwrap_or(u64::MAX), finding.fault));
        self.0
    }
}
