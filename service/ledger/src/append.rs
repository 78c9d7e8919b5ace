//! What callers append: changes of one or more streams that are recorded together or not at all.

use join_domain::{
    Timestamp,
    envelope::{Entry, Origin, StreamId},
    event::Event,
    id::{AttemptHash, BotId},
    state::{Claim, Namespace, State},
};

use uuid::Uuid;

use crate::{
    AppendError, KeyChanges, LogDecision, MAX_ENTRY, Stored,
    row::{Columns, ServerRun, state_text},
};

/// What was decided, for one stream.
#[derive(Debug, Clone)]
pub struct Change {
    /// What happens; not empty.
    pub events: Vec<Event>,
    /// When it was decided, by [`Ledger::now`](crate::Ledger::now).
    pub decided_at: Timestamp,
    /// Who and from where.
    pub origin: Origin,
}

/// A secret that comes or goes with an append. It is sealed before it gets here.
#[derive(Debug, Clone)]
pub enum SecretChange {
    /// Keep it, in the place of an older one.
    Put {
        /// What it is for; a stream has one of each.
        purpose: &'static str,
        /// The sealed secret.
        sealed: Vec<u8>,
    },
    /// Forget it, if it is there.
    Delete {
        /// What it was for.
        purpose: &'static str,
    },
}

/// One stream's part of an append.
#[derive(Debug, Clone)]
pub struct StreamAppend {
    stream: StreamId,
    version: u64,
    fence: u64,
    server: Option<ServerRun>,
    before: Option<State>,
    change: Change,
    uses_up: Option<AttemptHash>,
    secrets: Vec<SecretChange>,
    /// True when the state is to be stored whatever happens.
    is_snapshot_due: bool,
}

impl StreamAppend {
    /// Begins a stream.
    pub fn begin(stream: StreamId, change: Change) -> Self {
        Self {
            stream,
            version: 0,
            fence: 0,
            server: None,
            before: None,
            change,
            uses_up: None,
            secrets: Vec::new(),
            is_snapshot_due: false,
        }
    }

    /// Follows what was read of a stream: it conflicts when that is no longer so.
    pub fn following(read: &Stored, change: Change) -> Self {
        Self::after(read.clone(), change)
    }

    /// The same, without another copy of what was read.
    pub(crate) fn after(read: Stored, change: Change) -> Self {
        let Stored { stream, version, fence, state, server } = read;
        Self { version, fence, server, before: Some(state), ..Self::begin(stream, change) }
    }

    /// Uses up an attempt: no other append of the stream can ever use it up again.
    pub fn using_up(mut self, attempt: Option<AttemptHash>) -> Self {
        self.uses_up = attempt;
        self
    }

    /// Stores the state even if what happens is nothing but a join.
    pub(crate) fn with_snapshot_if(mut self, due: bool) -> Self {
        self.is_snapshot_due = due;
        self
    }

    /// Changes a secret with it.
    pub fn with_secret(mut self, change: SecretChange) -> Self {
        self.secrets.push(change);
        self
    }

    /// Folds the change into the state and writes out all that will be stored.
    pub(crate) fn prepare(self, recorded_at: Timestamp) -> Result<Prepared, AppendError> {
        let Self { stream, version, fence, server, before, change, uses_up, secrets, is_snapshot_due } = self;
        let Change { events, decided_at, origin } = change;
        if events.is_empty() {
            return Err(AppendError::Malformed(format!("nothing happens to {stream}")));
        }
        let first_version = version.saturating_add(1);
        let entry = Entry { stream, first_version, events, decided_at, recorded_at, origin };
        let malformed = |error: &dyn std::fmt::Display| AppendError::Malformed(error.to_string());

        let claims_before = entry
            .events
            .iter()
            .any(Event::may_move_claims)
            .then(|| before.as_ref().map(State::claims).unwrap_or_default());
        let bot_before = before.as_ref().and_then(bot_of);
        let lineage_before = before.as_ref().and_then(lineage_of);
        let after = State::after(before, &entry).map_err(|error| malformed(&error))?;
        let (claimed, released) = claims_before.map(|before| changed_claims(&before, &after)).unwrap_or_default();
        let new_bot = match &after {
            State::Token(token) if token.live && Some(token.bot) != bot_before => Some(token.bot),
            _ => None,
        };
        let envelope = entry.to_envelope().map_err(|error| malformed(&error))?;
        if envelope.len() > MAX_ENTRY {
            return Err(AppendError::TooLarge(envelope.len()));
        }
        let is_stored = is_snapshot_due || passes_a_snapshot(&entry) || !entry.events.iter().all(is_of_a_plain_join);
        let row = Row {
            columns: Columns::of(&after),
            state: is_stored.then(|| state_text(&after)).transpose()?,
            envelope,
            stream,
            first_version,
            last_version: entry.last_version(),
            fence,
            server,
            recorded_at,
            entry,
            attempt: uses_up.map(|attempt| attempt.key()),
            lineage: lineage_of(&after).filter(|now| Some(*now) != lineage_before),
            claimed,
            released,
            secrets,
        };
        let version = row.last_version;
        Ok(Prepared { row, new_bot, after: Stored { stream, version, fence, state: after, server } })
    }
}

/// Changes that are recorded together or not at all.
#[derive(Debug, Clone)]
pub struct Append {
    pub(crate) streams: Vec<StreamAppend>,
    pub(crate) keys: KeyChanges,
    pub(crate) log: Option<LogDecision>,
}

impl Append {
    /// Changes of several streams, at most one of each.
    pub fn all(streams: Vec<StreamAppend>) -> Self {
        Self { streams, keys: KeyChanges::default(), log: None }
    }

    /// Changes the authority's keys with it.
    pub fn with_keys(mut self, keys: KeyChanges) -> Self {
        self.keys = keys;
        self
    }

    /// Decides about the verifiable log with it, or conflicts when its head is another one by then.
    pub fn with_log(mut self, decision: LogDecision) -> Self {
        self.log = Some(decision);
        self
    }
}

impl From<StreamAppend> for Append {
    fn from(stream: StreamAppend) -> Self {
        Self::all(vec![stream])
    }
}

/// An append, ready to be sent.
#[derive(Debug)]
pub(crate) struct PreparedAppend {
    pub(crate) parts: Vec<Prepared>,
    pub(crate) keys: KeyChanges,
    pub(crate) log: Option<LogDecision>,
}

impl Append {
    pub(crate) fn prepare(self, recorded_at: Timestamp) -> Result<PreparedAppend, AppendError> {
        let parts = self.streams.into_iter().map(|part| part.prepare(recorded_at)).collect::<Result<_, _>>()?;
        Ok(PreparedAppend { parts, keys: self.keys, log: self.log })
    }
}

/// One stream's part, ready to be sent.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) row: Row,
    pub(crate) after: Stored,
    /// The bot that a token gets with this change.
    pub(crate) new_bot: Option<BotId>,
}

/// Everything that is stored for one stream.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) stream: StreamId,
    pub(crate) first_version: u64,
    pub(crate) last_version: u64,
    pub(crate) fence: u64,
    /// Where what it follows was read; none for a stream that begins.
    pub(crate) server: Option<ServerRun>,
    pub(crate) columns: Columns,
    /// The snapshot; none when the last one stays.
    pub(crate) state: Option<String>,
    pub(crate) recorded_at: Timestamp,
    pub(crate) envelope: String,
    /// What the envelope says.
    pub(crate) entry: Entry,
    pub(crate) attempt: Option<Uuid>,
    /// The lineage that begins.
    pub(crate) lineage: Option<Uuid>,
    pub(crate) claimed: Vec<NewClaim>,
    pub(crate) released: Vec<Claim>,
    pub(crate) secrets: Vec<SecretChange>,
}

/// A name or key that a stream gets.
#[derive(Debug)]
pub(crate) struct NewClaim {
    pub(crate) claim: Claim,
    /// True for a key that is bound by the append: no lock on it may be in force.
    pub(crate) unlocked: bool,
}

/// True for each sixty-fourth event of a stream, where its state is stored at the latest: so few entries are to be folded
/// when it is read. Ids spread where that is, as the streams of a fleet may be of the same age.
fn passes_a_snapshot(entry: &Entry) -> bool {
    const EVERY: u64 = 64;
    let offset = u64::from(entry.stream.id.as_bytes()[15]);
    let snapshots_until = |version: u64| version.saturating_add(offset) / EVERY;
    snapshots_until(entry.first_version.saturating_sub(1)) != snapshots_until(entry.last_version())
}

/// True for what each renewal and recovery does. After anything else the state is stored: administration looks for tokens
/// by what their snapshots say, such as labels and exemptions.
fn is_of_a_plain_join(event: &Event) -> bool {
    matches!(
        event,
        Event::ChallengeIssued(_)
            | Event::ChallengeSolved(_)
            | Event::RecoveryConsumed(_)
            | Event::GenerationBumped(_)
            | Event::JoinAccepted(_)
    )
}

/// Claims that come and go. None does both, so that one statement can make the change.
fn changed_claims(before: &[Claim], after: &State) -> (Vec<NewClaim>, Vec<Claim>) {
    let now = after.claims();
    let bound = match after {
        State::Token(token) => token.binding.as_ref().map(|binding| binding.key.fingerprint()),
        _ => None,
    };
    let released = before.iter().filter(|claim| !now.contains(claim)).cloned().collect();
    let claimed = now.into_iter().filter(|claim| !before.contains(claim)).map(|claim| NewClaim {
        unlocked: claim.namespace == Namespace::Key && bound.as_ref() == Some(&claim.value),
        claim,
    });
    (claimed.collect(), released)
}

fn lineage_of(state: &State) -> Option<Uuid> {
    match state {
        State::Token(token) => token.instance().map(|instance| instance.0),
        _ => None,
    }
}

fn bot_of(state: &State) -> Option<BotId> {
    match state {
        State::Token(token) => Some(token.bot),
        _ => None,
    }
}
