//! State is a fold of events: nothing else decides who may join.
//!
//! A fold takes every time from the record, so a replay next year gives today's answer.

pub mod administrator;
pub mod bot;
pub mod lock;
pub mod token;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use self::{administrator::AdministratorState, bot::BotState, lock::LockState, token::TokenState};
use crate::{
    Timestamp,
    envelope::{Entry, StreamId, StreamKind},
    event::Event,
    id::{BotId, LockId, Name, TokenId},
    resource::LockTarget,
};

/// What a fold knows of the entry that an event stands in.
#[derive(Debug, Clone, Copy)]
pub struct Recorded<'a> {
    /// When it was decided.
    pub at: Timestamp,
    /// From where, when there was a remote address.
    pub address: Option<&'a str>,
    /// Who.
    pub actor: &'a str,
}

/// A history that no version of the rules can have written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{event}` cannot follow what stream {stream} holds at version {version}")]
pub struct FoldError {
    /// The stream.
    pub stream: String,
    /// Version of the event that does not fit.
    pub version: u64,
    /// Its kind.
    pub event: &'static str,
}

/// The current state of any stream, as its guard row keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "of", rename_all = "snake_case")]
pub enum State {
    /// A token.
    Token(Arc<TokenState>),
    /// A bot.
    Bot(BotState),
    /// A lock.
    Lock(LockState),
    /// An administrator's identity.
    Administrator(AdministratorState),
    /// The cluster keeps a history, but nothing is decided from it.
    #[serde(rename = "record")]
    Cluster,
}

/// Something that only one live stream may have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Claim {
    /// What kind of thing.
    pub namespace: Namespace,
    /// The thing.
    pub value: String,
}

/// Kinds of things that are unique.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Namespace {
    /// Names of tokens.
    TokenName,
    /// Names of bots.
    BotName,
    /// Fingerprints of keys: one key, one token.
    Key,
}

impl Namespace {
    /// The namespace as it is stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TokenName => "token_name",
            Self::BotName => "bot_name",
            Self::Key => "key",
        }
    }
}

impl State {
    /// The state after one more entry; `before` is none for the first entry of a stream.
    ///
    /// # Errors
    /// [`FoldError`] when the entry cannot follow.
    pub fn after(before: Option<Self>, entry: &Entry) -> Result<Self, FoldError> {
        let recorded =
            Recorded { at: entry.decided_at, address: entry.origin.address.as_deref(), actor: &entry.origin.actor };
        let mut state = before;
        for (version, event) in (entry.first_version..).zip(&entry.events) {
            state = Some(Self::step(state, entry.stream, version, event, recorded).ok_or_else(|| FoldError {
                stream: entry.stream.to_string(),
                version,
                event: event.kind().0,
            })?);
        }
        state.ok_or_else(|| FoldError {
            stream: entry.stream.to_string(),
            version: entry.first_version,
            event: "an entry without events",
        })
    }

    fn step(
        before: Option<Self>,
        stream: StreamId,
        version: u64,
        event: &Event,
        recorded: Recorded<'_>,
    ) -> Option<Self> {
        Some(match (before, stream.kind) {
            (None, StreamKind::Token) => Self::Token(Arc::new(TokenState::begin(TokenId(stream.id), event, recorded)?)),
            (None, StreamKind::Bot) => Self::Bot(BotState::begin(BotId(stream.id), event, recorded)?),
            (None, StreamKind::Lock) => Self::Lock(LockState::begin(LockId(stream.id), event, recorded)?),
            (None, StreamKind::Administrator) => Self::Administrator(AdministratorState::begin(event)?),
            (None, StreamKind::Cluster) => Self::Cluster,
            (Some(Self::Token(mut token)), StreamKind::Token) => {
                Arc::make_mut(&mut token).apply(version, event, recorded)?;
                Self::Token(token)
            }
            (Some(Self::Bot(mut bot)), StreamKind::Bot) => {
                bot.apply(event)?;
                Self::Bot(bot)
            }
            (Some(Self::Lock(mut lock)), StreamKind::Lock) => {
                lock.apply(event)?;
                Self::Lock(lock)
            }
            (Some(Self::Administrator(mut administrator)), StreamKind::Administrator) => {
                administrator.apply(event)?;
                Self::Administrator(administrator)
            }
            (Some(Self::Cluster), StreamKind::Cluster) => Self::Cluster,
            _ => return None,
        })
    }

    /// What the stream claims for itself alone. A pure function of the state, so a rebuild gives the same directory.
    pub fn claims(&self) -> Vec<Claim> {
        match self {
            Self::Token(token) => token.claims(),
            Self::Bot(bot) if bot.live => {
                vec![Claim { namespace: Namespace::BotName, value: bot.name.to_string() }]
            }
            Self::Bot(_) | Self::Lock(_) | Self::Administrator(_) | Self::Cluster => Vec::new(),
        }
    }

    /// The name it goes by, if it has one.
    pub fn name(&self) -> Option<&Name> {
        match self {
            Self::Token(token) => Some(&token.name),
            Self::Bot(bot) => Some(&bot.name),
            Self::Lock(_) | Self::Administrator(_) | Self::Cluster => None,
        }
    }

    /// False once it is deleted.
    pub fn is_live(&self) -> bool {
        match self {
            Self::Token(token) => token.live,
            Self::Bot(bot) => bot.live,
            Self::Lock(lock) => lock.live,
            Self::Administrator(administrator) => administrator.live,
            Self::Cluster => true,
        }
    }

    /// What a lock locks.
    pub fn lock_target(&self) -> Option<&LockTarget> {
        match self {
            Self::Lock(lock) => Some(&lock.target),
            _ => None,
        }
    }
}
