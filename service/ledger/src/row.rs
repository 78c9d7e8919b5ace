//! Streams as they are stored: columns of guard rows, and snapshots of states.

use join_domain::{
    Timestamp,
    envelope::{Entry, StreamId, StreamKind},
    state::{AdministratorState, BotState, LockState, State, TokenState},
};
use uuid::Uuid;

use crate::LedgerError;

/// A query for streams with their states: what comes after `FROM folded`, and its arguments.
macro_rules! folded {
    ($which:tt $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            $crate::row::StreamRow,
            r#"SELECT stream_id AS "stream_id!", kind AS "kind!", version AS "version!", fence AS "fence!",
                 state AS "state!", snapshot_version AS "snapshot_version!", since AS "since!", server AS "server!"
               FROM folded "# + $which
            $(, $argument)*
        )
    };
}
pub(crate) use folded;

/// One run of one PostgreSQL server, told by the moment when it started. What is known of the database holds for the run
/// in which it was read: a standby that was promoted, or a backup that was restored, may lack the newest commits, and
/// counts on with the same versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerRun(pub(crate) Timestamp);

/// A stream as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The stream.
    pub stream: StreamId,
    /// Version of its newest event.
    pub version: u64,
    /// Moved by what concerns the stream from outside: a lock, its bot.
    pub fence: u64,
    /// The fold of its events.
    pub state: State,
    /// Where it was read or written; none when it was folded from its history, and nothing can follow it.
    pub server: Option<ServerRun>,
}

impl Stored {
    /// The token, if it is one.
    pub fn token(&self) -> Option<&TokenState> {
        match &self.state {
            State::Token(token) => Some(token),
            _ => None,
        }
    }

    /// The bot, if it is one.
    pub fn bot(&self) -> Option<&BotState> {
        match &self.state {
            State::Bot(bot) => Some(bot),
            _ => None,
        }
    }

    /// The lock, if it is one.
    pub fn lock(&self) -> Option<&LockState> {
        match &self.state {
            State::Lock(lock) => Some(lock),
            _ => None,
        }
    }

    /// The administrator's identity, if it is one.
    pub fn administrator(&self) -> Option<&AdministratorState> {
        match &self.state {
            State::Administrator(administrator) => Some(administrator),
            _ => None,
        }
    }
}

/// The state of a joined token is about as large, in bytes.
const USUAL_SIZE: usize = 2048;

/// What is read of a stream.
#[derive(sqlx::FromRow)]
pub(crate) struct StreamRow {
    pub(crate) stream_id: Uuid,
    pub(crate) kind: String,
    pub(crate) version: i64,
    pub(crate) fence: i64,
    /// The snapshot.
    pub(crate) state: String,
    /// Version of the newest event in it.
    pub(crate) snapshot_version: i64,
    /// Envelopes since then.
    pub(crate) since: Vec<String>,
    pub(crate) server: Timestamp,
}

impl StreamRow {
    pub(crate) fn stored(self) -> Result<Stored, LedgerError> {
        let stream = StreamId { kind: kind(&self.kind)?, id: self.stream_id };
        let version = unsigned(self.version)?;
        let mut state = state_from_text(stream, &self.state)?;
        let mut reached = unsigned(self.snapshot_version)?;
        for envelope in &self.since {
            let entry = Entry::from_envelope(envelope)?;
            if entry.first_version != reached.saturating_add(1) {
                break;
            }
            reached = entry.last_version();
            state = State::after(Some(state), &entry)?;
        }
        if reached != version {
            let why = format!("the state of {stream} leads to version {reached}, not {version}; rebuild it");
            return Err(LedgerError::Corrupt(why));
        }
        Ok(Stored { stream, version, fence: unsigned(self.fence)?, state, server: Some(ServerRun(self.server)) })
    }
}

/// The columns of a guard row, each a function of the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Columns {
    pub(crate) name: String,
    pub(crate) live: bool,
    pub(crate) bot_id: Option<Uuid>,
    pub(crate) instance_id: Option<Uuid>,
    pub(crate) lock_target: Option<String>,
    pub(crate) expires_at: Option<Timestamp>,
}

impl Columns {
    pub(crate) fn of(state: &State) -> Self {
        let (bot_id, instance_id) = match state {
            State::Token(token) => (Some(token.bot.0), token.instance().map(|instance| instance.0)),
            _ => (None, None),
        };
        let expires_at = match state {
            State::Lock(lock) => lock.expires,
            _ => None,
        };
        Self {
            name: state.name().map(ToString::to_string).unwrap_or_default(),
            live: state.is_live(),
            bot_id,
            instance_id,
            lock_target: state.lock_target().map(ToString::to_string),
            expires_at,
        }
    }
}

/// A state as a snapshot keeps it.
pub(crate) fn state_text(state: &State) -> Result<String, LedgerError> {
    let mut text = Vec::with_capacity(USUAL_SIZE);
    let written = serde_json::to_writer(&mut text, state).map_err(|error| error.to_string());
    written
        .and_then(|()| String::from_utf8(text).map_err(|error| error.to_string()))
        .map_err(|error| LedgerError::Corrupt(format!("a state has no JSON form: {error}")))
}

pub(crate) fn state_from_text(stream: StreamId, text: &str) -> Result<State, LedgerError> {
    serde_json::from_str(text)
        .map_err(|error| LedgerError::Corrupt(format!("the state of {stream} does not read: {error}; rebuild it")))
}

pub(crate) fn kind(text: &str) -> Result<StreamKind, LedgerError> {
    StreamKind::ALL
        .into_iter()
        .find(|kind| kind.as_str() == text)
        .ok_or_else(|| LedgerError::Corrupt(format!("`{text}` is not a kind of stream that this version knows")))
}

/// A count as PostgreSQL keeps it.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A count as PostgreSQL kept it.
pub(crate) fn unsigned(number: i64) -> Result<u64, LedgerError> {
    u64::try_from(number).map_err(|_| LedgerError::Corrupt(format!("{number} is no count")))
}
