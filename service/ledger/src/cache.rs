//! Tokens on the join path: cached, and used by one join at a time.
//!
//! A cached token may be outdated, which costs a conflict and a reload, never a wrong answer: the append checks version
//! and fence, and that the server is the one where they were read, as another may have lost the newest commits. A refusal
//! is not checked by an append, so who refuses has read the token with all that concerns the attempt before: see
//! [`TokenSlot::reload`].

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use join_domain::{
    envelope::StreamId,
    id::{AttemptHash, Name},
    resource::LockTarget,
    state::{BotState, LockState, State, TokenState},
};
use quick_cache::{Weighter, sync::Cache};

use crate::{
    Append, AppendError, Change, Ledger, LedgerError, Stored, StreamAppend,
    append::Prepared,
    reader::{Found, Wanted},
    row::ServerRun,
    turns::{Turn, Turns},
};

/// How long what was read into a new place is not doubted.
const UNDOUBTED: Duration = Duration::from_secs(1);
/// A token that had to be read will be again, so its state is stored when so many entries had to be folded.
const MANY_FOLDED: usize = 3;
/// Memory of a token, about, in bytes.
const TOKEN: u64 = 2048;

/// A token and all that a decision about it needs, as they were at one moment.
#[derive(Debug, Clone)]
pub struct KnownToken {
    /// The token.
    pub token: Arc<TokenState>,
    /// Version of its newest event.
    pub version: u64,
    /// Moved by what concerns it from outside.
    pub fence: u64,
    /// Its bot, while there is one.
    pub bot: Option<BotState>,
    /// Locks in force on the token, its bot's user, the bound instance, its keys, and on what was asked for beside.
    pub locks: Vec<LockState>,
    /// Where it was read.
    server: Option<ServerRun>,
    /// Entries that had to be folded when it was read; none once this node has appended.
    folded: usize,
    /// Memory that it takes, roughly.
    weight: u32,
}

impl KnownToken {
    /// A change of the token, which conflicts when anything here is outdated.
    pub fn following(&self, change: Change) -> StreamAppend {
        let stream = StreamId::from(self.token.id);
        let state = State::Token(Arc::clone(&self.token));
        let (version, fence, server) = (self.version, self.fence, self.server);
        StreamAppend::after(Stored { stream, version, fence, state, server }, change)
            .with_snapshot_if(self.folded >= MANY_FOLDED)
    }

    /// True when `other` is of the same moment or of a later one; also when the two can't be compared, for then what was
    /// read last counts.
    fn is_no_newer_than(&self, other: &Self) -> bool {
        let comparable = self.server == other.server && self.token.id == other.token.id;
        !comparable || (self.version <= other.version && self.fence <= other.fence)
    }
}

/// Tokens of this node.
#[derive(Debug)]
pub(crate) struct Tokens {
    turns: Arc<Turns>,
    memory: Cache<Name, Arc<Place>, ByMemory>,
    reads: AtomicU64,
}

#[derive(Debug, Clone)]
struct ByMemory;

impl Weighter<Name, Arc<Place>> for ByMemory {
    fn weight(&self, _: &Name, place: &Arc<Place>) -> u64 {
        place.weight.into()
    }
}

/// A token's place in the memory. What stands in it is replaced by each join, which is cheaper than another place; one
/// who was given up in the meantime writes into a place that nobody looks into any more.
#[derive(Debug)]
struct Place {
    weight: u32,
    /// When it was read into this place.
    made: Instant,
    known: Mutex<Option<Arc<KnownToken>>>,
}

impl Place {
    fn of(known: Arc<KnownToken>) -> Self {
        Self { weight: known.weight, made: Instant::now(), known: Mutex::new(Some(known)) }
    }

    /// What has grown needs another place, or more is kept than was meant.
    fn fits(&self, known: &KnownToken) -> bool {
        known.weight <= self.weight.saturating_add(self.weight / 8)
    }

    fn known(&self) -> MutexGuard<'_, Option<Arc<KnownToken>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tokens {
    pub(crate) fn new(bytes: u64) -> Self {
        let tokens = usize::try_from(bytes / TOKEN).unwrap_or(usize::MAX);
        Self {
            turns: Arc::default(),
            memory: Cache::with_weighter(tokens, bytes, ByMemory),
            reads: AtomicU64::default(),
        }
    }

    /// What is known of a token, if anything.
    pub(crate) fn remembered(&self, name: &Name) -> Option<Arc<KnownToken>> {
        self.memory.get(name)?.known().clone()
    }

    /// Remembers what was read without a turn. A join may be under way, and know more or change it now: then it is left
    /// to that.
    fn remember(&self, name: &Name, read: &Arc<KnownToken>) {
        let Some(place) = self.memory.get(name) else {
            return self.memory.insert(name.clone(), Arc::new(Place::of(Arc::clone(read))));
        };
        let mut known = place.known();
        if known.as_ref().is_some_and(|known| known.is_no_newer_than(read)) {
            match place.fits(read) {
                true => *known = Some(Arc::clone(read)),
                // Whoever asks next reads it into a place that fits. A join that goes on meanwhile has this one.
                false => self.forget(name),
            }
        }
    }

    /// Forgets what another path changed.
    pub(crate) fn forget(&self, name: &Name) {
        self.memory.remove(name);
    }

    /// Forgets what may be outdated, at most once a second: a stranger may give reason to doubt as often as it likes.
    pub(crate) fn doubt(&self, name: &Name) {
        self.memory.remove_if(name, |place| place.made.elapsed() >= UNDOUBTED);
    }

    /// Tokens that are known, about.
    pub(crate) fn len(&self) -> usize {
        self.memory.len()
    }

    /// How often one was read.
    pub(crate) fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }
}

/// One token's turn: while this is held, nobody else on this node decides about the token.
pub struct TokenSlot {
    ledger: Ledger,
    name: Name,
    place: Option<Arc<Place>>,
    known: Option<Arc<KnownToken>>,
    fresh: bool,
    attempt_accepted_before: bool,
    _turn: Turn,
}

impl TokenSlot {
    pub(crate) async fn take(ledger: &Ledger, name: &Name) -> Result<Self, LedgerError> {
        let tokens = ledger.tokens();
        let turn = tokens.turns.take(name).await;
        let place = tokens.memory.get(name);
        let known = place.as_ref().and_then(|place| place.known().clone());
        let mut slot = Self {
            ledger: ledger.clone(),
            name: name.clone(),
            fresh: false,
            place,
            known,
            attempt_accepted_before: false,
            _turn: turn,
        };
        if slot.known.is_none() {
            slot.reload(&[], None).await?;
        }
        Ok(slot)
    }

    /// The token; none when there is no live token of that name.
    pub fn known(&self) -> Option<&KnownToken> {
        self.known.as_deref()
    }

    /// True when it was read while this slot was held, but perhaps not with all that concerns the attempt; false when it is
    /// what the node remembered.
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// True when the attempt that the last [`reload`](Self::reload) asked about was accepted before; false also when it
    /// asked about none.
    pub fn attempt_accepted_before(&self) -> bool {
        self.attempt_accepted_before
    }

    /// Reads the token again, with locks on `extra` targets and whether `attempt` was accepted before.
    ///
    /// # Errors
    /// [`LedgerError`]; what was known is forgotten then.
    pub async fn reload(&mut self, extra: &[LockTarget], attempt: Option<AttemptHash>) -> Result<(), LedgerError> {
        self.forget();
        let (known, accepted) = Box::pin(load(&self.ledger, &self.name, extra, attempt)).await?;
        self.attempt_accepted_before = accepted;
        self.fresh = true;
        if let Some(known) = known {
            self.know(Arc::new(known));
        }
        Ok(())
    }

    /// Appends what was decided about the token, and knows the outcome from then on. After an error, or a change that
    /// concerns more than this token, nothing is known until the next [`reload`](Self::reload).
    ///
    /// # Errors
    /// [`AppendError`].
    pub async fn append(&mut self, append: impl Into<Append>) -> Result<Vec<Stored>, AppendError> {
        // Before the append: it may succeed even if nobody waits for it any more. And with nobody else to hold the token's
        // state, it is changed in its place.
        let known = self.known.take();
        self.forget();
        let beside = known
            .map(Arc::unwrap_or_clone)
            .map(|KnownToken { token, bot, locks, weight, .. }| (StreamId::from(token.id), bot, locks, weight));
        let prepared = self.ledger.prepare(append.into())?;
        let beside = beside.filter(|(stream, ..)| leaves_alone_what_is_beside(*stream, &prepared.parts));
        let snapshot = prepared.parts.first().and_then(|part| part.row.state.as_deref()).map(weight_of_text);
        let recorded = self.ledger.append_prepared(prepared).await?;
        if let (
            Some((_, bot, locks, weight)),
            Some(Stored { version, fence, state: State::Token(token), server, .. }),
        ) = (beside, recorded.first())
        {
            let (token, version, fence, server) = (Arc::clone(token), *version, *fence, *server);
            let weight = snapshot.unwrap_or(weight);
            let known = KnownToken { token, version, fence, bot, locks, server, folded: 0, weight };
            self.know(Arc::new(known));
        }
        Ok(recorded)
    }

    fn know(&mut self, known: Arc<KnownToken>) {
        match self.place.as_ref().filter(|place| place.fits(&known)) {
            Some(place) => *place.known() = Some(Arc::clone(&known)),
            None => {
                let place = Arc::new(Place::of(Arc::clone(&known)));
                self.ledger.tokens().memory.insert(self.name.clone(), Arc::clone(&place));
                self.place = Some(place);
            }
        }
        self.known = Some(known);
    }

    fn forget(&mut self) {
        self.known = None;
        if let Some(place) = &self.place {
            *place.known() = None;
        }
    }
}

/// Reads a token for whoever decides nothing about it yet, and remembers it. It takes no turn: strangers, who can ask for
/// a token as often as they like, don't keep its bot waiting.
///
/// # Errors
/// [`LedgerError`].
pub(crate) async fn read(ledger: &Ledger, name: &Name) -> Result<Option<Arc<KnownToken>>, LedgerError> {
    let (known, _) = Box::pin(load(ledger, name, &[], None)).await?;
    let known = known.map(Arc::new);
    if let Some(known) = &known {
        ledger.tokens().remember(name, known);
    }
    Ok(known)
}

/// True when an append of the token leaves bot and locks as they are known. A key that is bound by it may have been
/// locked at the same moment, and neither append saw the other.
fn leaves_alone_what_is_beside(token: StreamId, prepared: &[Prepared]) -> bool {
    match prepared {
        [only] => only.after.stream == token && only.row.claimed.is_empty() && only.new_bot.is_none(),
        _ => false,
    }
}

/// Structures take about as much again as their text.
fn weight_of_text(state: &str) -> u32 {
    u32::try_from(state.len().saturating_mul(2)).unwrap_or(u32::MAX)
}

/// Callers keep it on the heap: it is rare while the memory is warm, and every join would carry its room along.
async fn load(
    ledger: &Ledger,
    name: &Name,
    extra: &[LockTarget],
    attempt: Option<AttemptHash>,
) -> Result<(Option<KnownToken>, bool), LedgerError> {
    let targets = extra.iter().map(ToString::to_string).collect();
    let attempt = attempt.map(|attempt| attempt.key());
    ledger.tokens().reads.fetch_add(1, Ordering::Relaxed);
    let found = ledger.reader().read(Wanted { name: name.clone(), targets, attempt }).await?;

    let (mut token, mut bot, mut locks, mut accepted, mut weight) = (None, None, Vec::new(), false, 0_u32);
    for Found { row, accepted: has_accepted } in found {
        weight = weight.saturating_add(weight_of_text(&row.state));
        let folded = row.since.len();
        let stored = row.stored()?;
        match stored.state {
            State::Token(found) => {
                accepted = has_accepted;
                token = Some((found, stored.version, stored.fence, stored.server, folded));
            }
            State::Bot(found) if found.live => bot = Some(found),
            State::Bot(_) | State::Administrator(_) | State::Cluster => {}
            State::Lock(found) => locks.push(found),
        }
    }
    let known = token.map(|(token, version, fence, server, folded)| KnownToken {
        token,
        version,
        fence,
        bot,
        locks,
        server,
        folded,
        weight,
    });
    Ok((known, accepted))
}
