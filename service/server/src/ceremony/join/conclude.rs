//! The end of a join: decide, append, answer.

use std::time::Instant;

use chrono::TimeDelta;
use join_credential::Serial;
use join_domain::{
    Timestamp,
    decision::{
        Known,
        join::{self, Answer, Fresh, Proven, Record, Solved, Verdict, shown_targets},
    },
    envelope::StreamId,
    event::Event,
    id::{InstanceId, LockId, TokenId},
    proof,
    refusal::{Code, Refusal},
    state::{BotState, Namespace, TokenState},
};
use join_ledger::{Append, AppendError, Change, KnownToken, SecretChange, Stored, StreamAppend, TokenSlot};

use super::Step;
use crate::{
    caller::Peer,
    ceremony::{
        Ceremonies, OrRefuse as _, internal,
        pending::{Pending, Stage},
        secret::REGISTRATION_SECRET,
    },
    telemetry::METRICS,
};

/// How often a decision is made again from fresh state before the client is told to retry.
const MAX_TRIES: usize = 8;

impl Ceremonies {
    /// Possession is proven: decide, append, issue.
    pub(super) async fn conclude(
        &self,
        mut pending: Box<Pending>,
        proven: Proven,
        peer: &Peer,
    ) -> Result<Step, Refusal> {
        self.keyring.usable()?;
        let started = Instant::now();
        let mut look = Look::at(self.ledger.token(&pending.token).await.or_refuse()?, pending.token_id);
        for _ in 0..MAX_TRIES {
            let now = self.ledger.now();
            let Some(known) = look.known() else {
                if look.slot.is_fresh() {
                    drop(look);
                    let denied = Refusal::access_denied();
                    return Err(self.proven_failed(&pending, Some(&proven.solved), denied, peer).await);
                }
                look.slot.reload(&[], None).await.or_refuse()?;
                continue;
            };
            let era = known.token.era;
            let Some(Verdict { record, answer }) = self.decide(&look, known, &proven, now) else {
                look.again(&proven, era).await?;
                continue;
            };
            match &answer {
                Answer::RotateFirst => {
                    pending.stage = Stage::RotationKey(proven.solved);
                    pending.expires = now + TimeDelta::seconds(proof::CHALLENGE_LIFE);
                    return Ok(Step::Asked(pending));
                }
                Answer::Refuse(refusal) if record.events.is_empty() => return Err(self.refused(refusal, &pending)),
                Answer::Refuse(_) if record.lock.is_none() => self.strangers.check_refusals(&pending.token, peer)?,
                Answer::Refuse(_) | Answer::Accept(_) | Answer::Resume(_) => {}
            }
            let locks = record.lock.is_some();
            let append = append_of(known, record, now, peer);
            match look.slot.append(append).await {
                Ok(recorded) => {
                    // Whoever waits for the token need not wait for signatures.
                    drop(look);
                    METRICS.decided(started.elapsed().as_secs_f64());
                    if let Answer::Refuse(refusal) = &answer
                        && locks
                    {
                        METRICS.locked();
                        tracing::warn!(join.token = %pending.token, join.refusal = refusal.code.as_str(),
                            "token {} is locked: {}", pending.token, refusal.message);
                    }
                    let token = recorded.first().and_then(Stored::token);
                    let token = token.ok_or_else(|| internal("an append of a token recorded none"))?;
                    return self.answer(&answer, token, &pending);
                }
                Err(AppendError::ClaimTaken { namespace: Namespace::Key, .. }) => {
                    let taken = Refusal::new(
                        Code::KeyAlreadyBound,
                        "the key belongs to another token: one key binds one token, so make a new keypair",
                    );
                    drop(look);
                    return Err(self.proven_failed(&pending, Some(&proven.solved), taken, peer).await);
                }
                Err(AppendError::Conflict | AppendError::AttemptSeen | AppendError::ClaimTaken { .. }) => {
                    look.again(&proven, era).await?;
                }
                Err(error) => return Err(error).or_refuse(),
            }
        }
        Err(Refusal::new(Code::Conflict, "too many joins of this token at once: retry the same attempt"))
    }

    /// Decides from what is known; none when all that concerns the attempt is to be read first.
    fn decide(&self, look: &Look, known: &KnownToken, proven: &Proven, now: Timestamp) -> Option<Verdict> {
        let is_thorough = look.thorough == Some(known.token.era);
        if !is_thorough && !is_routine(known, proven) {
            return None;
        }
        let context = Known {
            token: &known.token,
            bot: known.bot.as_ref(),
            locks: &known.locks,
            attempt_accepted_before: look.slot.attempt_accepted_before(),
        };
        let verdict = join::decide(context, proven, self.fresh(now), self.policy, now);
        // Nobody is refused, or asked for a new key, by what this node remembers.
        let admits = matches!(verdict.answer, Answer::Accept(_) | Answer::Resume(_));
        (is_thorough || admits).then_some(verdict)
    }

    fn answer(&self, answer: &Answer, token: &TokenState, pending: &Pending) -> Result<Step, Refusal> {
        let join = match answer {
            Answer::Accept(join) => {
                METRICS.accepted(Some(join.case));
                self.behind.admitted(&pending.token);
                join
            }
            Answer::Resume(join) => {
                METRICS.accepted(None);
                join
            }
            Answer::Refuse(refusal) => return Err(self.refused(refusal, pending)),
            Answer::RotateFirst => return Err(internal("a rotation was recorded before there was one")),
        };
        self.issue(join, token, pending).map(|joined| Step::Joined(Box::new(joined)))
    }

    /// Records a failure of a client that had proven the key or the secret; strangers are only counted.
    pub(crate) async fn failed(&self, pending: &Pending, refusal: Refusal, peer: &Peer) -> Refusal {
        if !pending.is_proven() {
            // Perhaps the wrong question was asked, from what this node remembers.
            self.ledger.doubt_token(&pending.token);
            return self.strangers.refused_from(&pending.token, peer, refusal);
        }
        self.proven_failed(pending, pending.solved(), refusal, peer).await
    }

    /// Records a failure of a client that had proven the key, when `solved` says so, or else the secret.
    async fn proven_failed(
        &self,
        pending: &Pending,
        solved: Option<&Solved>,
        refusal: Refusal,
        peer: &Peer,
    ) -> Refusal {
        // On the heap, as it is rare, and would make every join's future larger.
        let recorded = Box::pin(self.record_failure(pending, solved, &refusal, peer)).await;
        match (solved, recorded) {
            // What could not be written is at least counted. One above the limit was already.
            (None, Err(unrecorded)) if unrecorded.code != Code::RateLimited => {
                self.strangers.refused_from(&pending.token, peer, refusal)
            }
            // Recorded or not, it is answered like a wrong secret: neither one that was used up nor a right one that comes
            // too late is to be found by the answer.
            (None, _) => self.strangers.told(&pending.token, peer, refusal),
            (Some(_), Ok(())) => refusal,
            // A refusal after a proof never passes unseen, so nothing was decided yet.
            (Some(_), Err(unrecorded)) => unrecorded,
        }
    }

    async fn record_failure(
        &self,
        pending: &Pending,
        solved: Option<&Solved>,
        refusal: &Refusal,
        peer: &Peer,
    ) -> Result<(), Refusal> {
        self.strangers.check_refusals(&pending.token, peer)?;
        self.append_failure(pending, solved, refusal, peer).await.inspect_err(|error| {
            tracing::error!(join.token = %pending.token, "a refusal could not be recorded: {error}");
        })?;
        METRICS.refused(refusal.code, true);
        Ok(())
    }

    async fn append_failure(
        &self,
        pending: &Pending,
        solved: Option<&Solved>,
        refusal: &Refusal,
        peer: &Peer,
    ) -> Result<(), Refusal> {
        let failure = |token: &TokenState, bot: Option<&BotState>| {
            let attempt = pending.attempt.as_ref();
            let now = self.ledger.now();
            let context = Known { token, bot, locks: &[], attempt_accepted_before: false };
            let denied = (refusal.code == Code::AccessDenied).then(|| context.why_denied(now));
            let refusal = denied.as_ref().unwrap_or(refusal);
            let events = join::refuse_unfinished(token, solved, attempt, pending.seen.clone(), refusal);
            (!events.is_empty()).then(|| change_of(token, events, now, peer))
        };
        let mut look = Look::at(self.ledger.token(&pending.token).await.or_refuse()?, pending.token_id);
        for _ in 0..MAX_TRIES {
            let appended = if let Some(known) = look.known() {
                let Some(change) = failure(&known.token, known.bot.as_ref()) else { return Ok(()) };
                let append = known.following(change);
                look.slot.append(append).await
            } else {
                // It was deleted meanwhile, and its name may be another's. Its history stays, and this belongs to it.
                let stored = self.ledger.load(StreamId::from(pending.token_id)).await.or_refuse()?;
                let append =
                    stored.and_then(|stored| Some(StreamAppend::following(&stored, failure(stored.token()?, None)?)));
                let Some(append) = append else { return Ok(()) };
                self.ledger.append(append).await
            };
            match appended {
                Ok(_) => return Ok(()),
                Err(AppendError::Conflict) => look.slot.reload(&[], None).await.or_refuse()?,
                Err(error) => return Err(error).or_refuse(),
            }
        }
        Err(Refusal::new(Code::Conflict, "the token is too busy"))
    }

    fn fresh(&self, now: Timestamp) -> Fresh {
        Fresh {
            instance: InstanceId(self.entropy.uuid_of(now)),
            lock: LockId(self.entropy.uuid()),
            serial: Serial::from_random(self.entropy.bytes()).to_string(),
        }
    }

    /// Counts a refusal by a rule, and tells the operator of those that need one.
    fn refused(&self, refusal: &Refusal, pending: &Pending) -> Refusal {
        METRICS.refused(refusal.code, true);
        if refusal.code == Code::AuthorityBehind {
            self.behind.shown(&pending.token, self.ledger.now());
            tracing::error!(join.token = %pending.token, "the authority lost history: {}", refusal.message);
        }
        refusal.clone()
    }
}

/// What is known of a token while somebody joins with it.
struct Look {
    slot: TokenSlot,
    /// The token by id: one made again under the name is another.
    token: TokenId,
    /// The era of the token for which everything that concerns the attempt was read.
    thorough: Option<u64>,
}

impl Look {
    fn at(slot: TokenSlot, token: TokenId) -> Self {
        Self { slot, token, thorough: None }
    }

    fn known(&self) -> Option<&KnownToken> {
        self.slot.known().filter(|known| known.token.id == self.token)
    }

    /// Reads the token anew, with everything that concerns the attempt in this era.
    async fn again(&mut self, proven: &Proven, era: u64) -> Result<(), Refusal> {
        let attempt = proven.attempt.as_ref().map(|id| id.hash(self.token, era));
        self.slot.reload(&shown_targets(proven), attempt).await.or_refuse()?;
        self.thorough = Some(era);
        Ok(())
    }
}

/// True when the remembered locks are all that concern the attempt: the bound key, and no certificate of another instance.
fn is_routine(known: &KnownToken, proven: &Proven) -> bool {
    let instance = known.token.instance();
    proven.rotated.is_none()
        && known.token.binding.as_ref().is_some_and(|binding| binding.key == proven.solved.key)
        && proven.seen.certificate.as_ref().is_none_or(|certificate| Some(certificate.instance) == instance)
}

/// Everything that a decision about a token records: its entry and, with a lock, the lock's own.
fn append_of(known: &KnownToken, record: Record, decided_at: Timestamp, peer: &Peer) -> Append {
    let Record { events, uses_up, lock } = record;
    let spends_secret = events.iter().any(|event| matches!(event, Event::RegistrationSecretSpent(_)));
    let change = change_of(&known.token, events, decided_at, peer);
    let lock = lock.map(|lock| {
        let (id, created) = *lock;
        let events = vec![Event::LockCreated(created)];
        StreamAppend::begin(StreamId::from(id), Change { events, decided_at, origin: change.origin.clone() })
    });
    let mut first = known.following(change).using_up(uses_up);
    if spends_secret {
        first = first.with_secret(SecretChange::Delete { purpose: REGISTRATION_SECRET });
    }
    Append::all([first].into_iter().chain(lock).collect())
}

/// What is recorded of a join in its token's stream.
fn change_of(token: &TokenState, events: Vec<Event>, decided_at: Timestamp, peer: &Peer) -> Change {
    let attempt = events.iter().find_map(Event::attempt);
    Change { events, decided_at, origin: peer.origin(&token.spec.bot_name, attempt) }
}
