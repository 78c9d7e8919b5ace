//! The entry: what one append adds to one stream. It is the unit of atomicity, of the log and of proof.
//!
//! All events of a join stand in one entry, with one envelope around them. The envelope's RFC 8785 bytes are stored
//! as they are and are the leaf of the verifiable log: what an auditor hashes is what was written, byte for byte.

use std::{borrow::Cow, fmt, str::FromStr};

use chrono::SecondsFormat;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::{
    Timestamp,
    event::{Event, JoinAccepted},
    id::{AttemptHash, BotId, LockId, TokenId},
    upcast::{self, UpcastError},
};

/// The envelope of a join is a little smaller, in bytes.
const USUAL_SIZE: usize = 2048;

/// What a stream is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StreamKind {
    /// A token: its joins, its binding, its exemptions.
    Token,
    /// A bot.
    Bot,
    /// A lock.
    Lock,
    /// The cluster itself.
    Cluster,
    /// An administrator.
    Administrator,
}

impl StreamKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Token, Self::Bot, Self::Lock, Self::Cluster, Self::Administrator];

    /// The kind as it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Bot => "bot",
            Self::Lock => "lock",
            Self::Cluster => "cluster",
            Self::Administrator => "administrator",
        }
    }
}

/// A stream: events in gapless versions 1, 2, 3, …
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    /// What it is about.
    pub kind: StreamKind,
    /// Its own id; names may be reused, ids never.
    pub id: Uuid,
}

impl StreamId {
    /// The cluster's stream; there is one in a database.
    pub const CLUSTER: Self = Self { kind: StreamKind::Cluster, id: Uuid::nil() };
}

impl From<TokenId> for StreamId {
    fn from(id: TokenId) -> Self {
        Self { kind: StreamKind::Token, id: id.0 }
    }
}

impl From<BotId> for StreamId {
    fn from(id: BotId) -> Self {
        Self { kind: StreamKind::Bot, id: id.0 }
    }
}

impl From<LockId> for StreamId {
    fn from(id: LockId) -> Self {
        Self { kind: StreamKind::Lock, id: id.0 }
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.as_str(), self.id)
    }
}

/// Text that is not `kind/uuid`, or spells it otherwise than it is written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a stream: it should read like `token/6f0c2c36-…`, in lower case and with hyphens")]
pub struct StreamIdError(String);

impl FromStr for StreamId {
    type Err = StreamIdError;

    fn from_str(text: &str) -> Result<Self, StreamIdError> {
        let parse = || {
            let (kind, id) = text.split_once('/')?;
            let kind = StreamKind::ALL.into_iter().find(|known| known.as_str() == kind)?;
            let uuid: Uuid = id.parse().ok()?;
            // A UUID has many spellings and a stream has one: who goes by the text must not take it for two.
            let is_canonical = uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == id;
            is_canonical.then_some(Self { kind, id: uuid })
        };
        parse().ok_or_else(|| StreamIdError(text.chars().take(80).collect()))
    }
}

/// Who did it, and in what connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// `bot-<name>`, `admin/<name>` or `system`.
    pub actor: String,
    /// The remote address, when there was one.
    pub address: Option<String>,
    /// Hash of the attempt id.
    pub attempt: Option<AttemptHash>,
    /// Id of the request, as in the request log.
    pub request: Option<String>,
    /// OpenTelemetry trace id, hex.
    pub trace: Option<String>,
}

/// What one append adds to one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The stream.
    pub stream: StreamId,
    /// Version of the first event; the others follow without a gap.
    pub first_version: u64,
    /// What happened; never empty.
    pub events: Vec<Event>,
    /// When it was decided, by the database's time.
    pub decided_at: Timestamp,
    /// When it was handed to the database, by the database's time.
    pub recorded_at: Timestamp,
    /// Who and from where.
    pub origin: Origin,
}

impl Entry {
    /// Version of the last event.
    pub fn last_version(&self) -> u64 {
        self.first_version.saturating_add(self.events.len() as u64).saturating_sub(1)
    }

    /// The join that it accepted.
    pub fn accepted(&self) -> Option<&JoinAccepted> {
        self.events.iter().find_map(|event| match event {
            Event::JoinAccepted(join) => Some(&**join),
            _ => None,
        })
    }

    /// The canonical bytes (RFC 8785), which are stored and hashed.
    ///
    /// # Errors
    /// [`EnvelopeError`] when a value has no canonical form; none of ours has.
    pub fn to_envelope(&self) -> Result<String, EnvelopeError> {
        let written = WrittenEnvelope {
            v: 1,
            stream: AsText(self.stream),
            first_version: self.first_version,
            events: self.events.iter().map(WrittenEvent::of).collect(),
            decided_at: self.decided_at.to_rfc3339_opts(SecondsFormat::Micros, true),
            recorded_at: self.recorded_at.to_rfc3339_opts(SecondsFormat::Micros, true),
            actor: &self.origin.actor,
            address: self.origin.address.as_deref(),
            attempt: self.origin.attempt,
            request: self.origin.request.as_deref(),
            trace: self.origin.trace.as_deref(),
        };
        let json = |error: serde_json::Error| EnvelopeError::Json(error.to_string());
        let mut text = Vec::with_capacity(USUAL_SIZE);
        serde_json::to_writer(&mut text, &written).map_err(json)?;
        match String::from_utf8(text) {
            Ok(text) if text.is_ascii() => Ok(text),
            // Names beyond ASCII, such as those of labels, have an order of their own in RFC 8785.
            _ => serde_json_canonicalizer::to_string(&written).map_err(json),
        }
    }

    /// Reads a stored envelope of any version.
    ///
    /// # Errors
    /// [`EnvelopeError`] says what does not fit.
    pub fn from_envelope(text: &str) -> Result<Self, EnvelopeError> {
        let stored: Envelope<'_> =
            serde_json::from_str(text).map_err(|error| EnvelopeError::Json(error.to_string()))?;
        if stored.v != 1 {
            return Err(EnvelopeError::Version(stored.v));
        }
        let time = |text: &str| {
            chrono::DateTime::parse_from_rfc3339(text)
                .map(|time| time.to_utc())
                .map_err(|_| EnvelopeError::Json(format!("`{text}` is not a time")))
        };
        Ok(Self {
            stream: stored.stream.parse()?,
            first_version: stored.first_version,
            events: stored
                .events
                .into_iter()
                .map(|event| upcast::read(&event.kind, event.schema, event.data.get()))
                .collect::<Result<_, _>>()?,
            decided_at: time(&stored.decided_at)?,
            recorded_at: time(&stored.recorded_at)?,
            origin: Origin {
                actor: stored.actor,
                address: stored.address,
                attempt: stored.attempt,
                request: stored.request,
                trace: stored.trace,
            },
        })
    }
}

/// The stored shape, as it is read.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    v: u32,
    stream: String,
    first_version: u64,
    #[serde(borrow)]
    events: Vec<StoredEvent<'a>>,
    decided_at: String,
    recorded_at: String,
    actor: String,
    address: Option<String>,
    attempt: Option<AttemptHash>,
    request: Option<String>,
    trace: Option<String>,
}

/// One event inside an envelope, as it is read: its data is the upcasters' to understand.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredEvent<'a> {
    kind: Cow<'a, str>,
    schema: u32,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// The stored shape, as it is written: every join writes one, so nothing is copied for it, and members are sorted.
#[derive(Serialize)]
struct WrittenEnvelope<'a> {
    actor: &'a str,
    address: Option<&'a str>,
    attempt: Option<AttemptHash>,
    decided_at: String,
    events: Vec<WrittenEvent<'a>>,
    first_version: u64,
    recorded_at: String,
    request: Option<&'a str>,
    stream: AsText<StreamId>,
    trace: Option<&'a str>,
    v: u32,
}

/// Written as it is displayed.
struct AsText<T>(T);

impl<T: fmt::Display> Serialize for AsText<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// One event inside an envelope, as it is written.
#[derive(Serialize)]
struct WrittenEvent<'a> {
    data: EventData<'a>,
    kind: &'static str,
    schema: u32,
}

impl<'a> WrittenEvent<'a> {
    fn of(event: &'a Event) -> Self {
        let (kind, schema) = event.kind();
        Self { kind, schema, data: EventData(event) }
    }
}

/// An event without its kind, which stands beside it.
struct EventData<'a>(&'a Event);

impl Serialize for EventData<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize_data(serializer)
    }
}

/// An envelope that can't be written or read.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// Not the JSON it should be.
    #[error("the envelope is not what it should be: {0}")]
    Json(String),
    /// Another envelope version.
    #[error("envelope version {0} is not one that this version reads: upgrade first")]
    Version(u32),
    /// The stream's name does not parse.
    #[error(transparent)]
    Stream(#[from] StreamIdError),
    /// An event does not read.
    #[error(transparent)]
    Event(#[from] UpcastError),
}

impl EnvelopeError {
    /// True for an event that only a newer version reads.
    pub fn is_newer(&self) -> bool {
        matches!(self, Self::Event(UpcastError::Newer { .. } | UpcastError::UnknownKind(_)))
    }
}
