//! The decision of a join, once possession of the challenged key is proven (protocol, sections 3, 5, 6 and 7).
//!
//! The order is the protocol's: resume, locks, key, age of the evidence, first join, earlier attempt, join state,
//! certificate, recovery limit, rotation, acceptance. Each step either refuses by name or hands on what it found.

mod check;
mod record;

use std::sync::Arc;

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use self::check::key_reused;
pub use self::record::refuse_unfinished;
use super::Known;
use crate::{
    Timestamp,
    event::{ChallengePurpose, Event, JoinAccepted, JoinResumed, LockCreated, Sighting},
    id::{AttemptHash, AttemptId, ChallengeId, GrantId, InstanceId, LockId},
    key::PublicKey,
    refusal::{Code, Refusal},
    resource::{ExemptionKind, LockTarget, RecoveryMode},
    state::{BotState, token::Accepted},
};

/// How far back certificates are valid, in seconds, for relying parties whose clocks are behind.
pub const BACKDATED_SECONDS: i64 = 120;

/// A challenge that was solved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Solved {
    /// The challenge.
    pub challenge: ChallengeId,
    /// The key that signed.
    pub key: PublicKey,
    /// Why that key was challenged.
    pub purpose: ChallengePurpose,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// When its solution can't be replayed any more.
    pub replayable_until: Timestamp,
}

/// Everything that a client showed and proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// Its name for the attempt.
    pub attempt: Option<AttemptId>,
    /// Hash of the subject keys.
    pub subject_keys: String,
    /// Its live certificate and its join state.
    pub seen: Sighting,
    /// [`TokenState::evidence`] when the first challenge was issued.
    pub evidence: u64,
    /// The challenge that was solved first.
    pub solved: Solved,
    /// The challenge of the new key, when a rotation was asked for.
    pub rotated: Option<Solved>,
    /// Wished life of the certificates.
    pub life: Option<Life>,
}

/// How long certificates are to live, as a client says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Life {
    /// For so long from the decision on.
    For(TimeDelta),
    /// Until then, whenever it is decided.
    Until(Timestamp),
}

/// Values that the decision may use, chosen by the caller's entropy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fresh {
    /// For a new lineage.
    pub instance: InstanceId,
    /// For a lock.
    pub lock: LockId,
    /// Serial number of the certificates: 16 bytes in hex.
    pub serial: String,
}

/// Lives of certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// When the client does not say.
    pub default_life: TimeDelta,
    /// The least a client may ask for.
    pub min_life: TimeDelta,
    /// The most a client gets.
    pub max_life: TimeDelta,
}

impl Default for Policy {
    fn default() -> Self {
        Self { default_life: TimeDelta::hours(1), min_life: TimeDelta::seconds(10), max_life: TimeDelta::hours(24) }
    }
}

/// What was decided: first it is recorded, then answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What to record.
    pub record: Record,
    /// What to answer once that is done.
    pub answer: Answer,
}

/// What a decision records, in one append.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// The token's events; none when a new key is asked for first, or the client only lost a race.
    pub events: Vec<Event>,
    /// The attempt that an accepted join uses up, for the ledger's uniqueness; none when it was accepted before.
    pub uses_up: Option<AttemptHash>,
    /// The lock that a refusal creates.
    pub lock: Option<Box<(LockId, LockCreated)>>,
}

/// What a client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Credentials, signed from this record.
    Accept(Arc<JoinAccepted>),
    /// The credentials of an earlier join again, signed from its record.
    Resume(Arc<JoinAccepted>),
    /// A new key is needed first: it is challenged, and the join decided again.
    RotateFirst,
    /// No.
    Refuse(Refusal),
}

/// The targets that a client showed: locks on them concern its attempt, beside those on token, bot and lineage.
pub fn shown_targets(proven: &Proven) -> Vec<LockTarget> {
    let key = |solved: &Solved| LockTarget::PublicKey(solved.key.fingerprint());
    let instance = proven.seen.certificate.iter().map(|certificate| LockTarget::BotInstanceId(certificate.instance));
    instance.chain([key(&proven.solved)]).chain(proven.rotated.as_ref().map(key)).collect()
}

/// Decides a join.
pub fn decide(known: Known<'_>, proven: &Proven, fresh: Fresh, policy: Policy, now: Timestamp) -> Verdict {
    let attempt = proven.attempt.as_ref().map(|id| id.hash(known.token.id, known.token.era));
    let fingerprint = proven.solved.key.fingerprint();
    Judgement { known, proven, attempt, fingerprint, fresh, policy, now }.decide().unwrap_or_else(|stop| *stop)
}

/// One decision in the making.
struct Judgement<'a> {
    known: Known<'a>,
    proven: &'a Proven,
    /// Hash of the client's name for it.
    attempt: Option<AttemptHash>,
    /// Of the key that solved the first challenge.
    fingerprint: String,
    fresh: Fresh,
    policy: Policy,
    now: Timestamp,
}

/// A step that ends the decision returns the verdict as its error, so that `?` reads as the protocol's "refused".
type Step<T> = Result<T, Box<Verdict>>;

/// Exemptions that the join needs, to be consumed with it.
#[derive(Default)]
struct Spent(Vec<GrantId>);

impl Spent {
    fn add(&mut self, grant: GrantId) {
        if !self.0.contains(&grant) {
            self.0.push(grant);
        }
    }
}

impl Judgement<'_> {
    fn decide(&self) -> Step<Verdict> {
        let token = self.known.token;
        let solved = &self.proven.solved;
        if token.has_refused(solved.challenge, solved.replayable_until) {
            return Err(self.conflict("this challenge was decided already"));
        }
        let Some(bot) = self.known.admitting_bot(self.now) else {
            return Err(self.deny());
        };
        let matches = self.is_latest_attempt();
        if let (true, Some(accepted)) = (matches, token.latest())
            && solved.issued_at <= accepted.join.not_after
        {
            return self.resume(accepted);
        }
        self.check_locks()?;
        self.check_key()?;
        if self.proven.evidence != token.evidence {
            return Err(self.conflict("the token was joined, reinstated or reopened since the challenge was issued"));
        }
        if token.binding.is_none() {
            return self.first_join(bot);
        }
        let mut spent = Spent::default();
        // A late match is the owner who comes back after the window: its documents are one join behind by no fault of
        // its own, so they are not judged. It pays with a recovery.
        let certificate = if matches {
            None
        } else {
            self.check_earlier_attempt(&mut spent)?;
            let waived = self.check_join_state(&mut spent)?;
            self.check_certificate(waived, &mut spent)?
        };
        if certificate.is_none() {
            self.check_limit(&mut spent)?;
        }
        self.check_rotation(token.rotation_due(self.now))?;
        Ok(self.accept(bot, certificate, spent))
    }

    /// The recorded answer again: only locks apply to it.
    fn resume(&self, accepted: &Accepted) -> Step<Verdict> {
        self.check_locks()?;
        self.check_key()?;
        let mut events = self.proof_events();
        if let Some(attempt) = self.attempt {
            events.push(Event::JoinResumed(JoinResumed { attempt, serial: accepted.join.serial.clone() }));
        }
        let record = Record { events, ..Record::default() };
        Ok(Verdict { record, answer: Answer::Resume(Arc::clone(&accepted.join)) })
    }

    fn first_join(&self, bot: &BotState) -> Step<Verdict> {
        if self.proven.seen.certificate.is_some() {
            return Err(self.refuse(Refusal::new(
                Code::BindingNotAllowed,
                "existing credentials cannot start a binding: join without the client certificate",
            )));
        }
        if self.known.token.retired.iter().any(|retired| retired.key == self.proven.solved.key) {
            return Err(self.refuse(key_reused()));
        }
        let mut spent = Spent::default();
        self.check_limit(&mut spent)?;
        // A key that was just made for the registration secret is new enough.
        let preregistered = self.proven.solved.purpose == ChallengePurpose::Preregistered;
        self.check_rotation(preregistered && self.known.token.rotation_due(self.now))?;
        Ok(self.accept(bot, None, spent))
    }

    fn life(&self) -> TimeDelta {
        let asked = match self.proven.life {
            None => self.policy.default_life,
            Some(Life::For(life)) => life,
            Some(Life::Until(end)) => end - self.now,
        };
        asked.clamp(self.policy.min_life, self.policy.max_life)
    }

    fn mode(&self) -> RecoveryMode {
        self.known.token.spec.recovery.mode
    }

    fn is_latest_attempt(&self) -> bool {
        self.known.token.is_latest_attempt(self.attempt, &self.proven.subject_keys)
    }

    /// The reinstatement bundle, which stands for all three kinds.
    fn bundle(&self) -> Option<GrantId> {
        self.known.token.open_grant(ExemptionKind::Reinstatement, self.now).map(|grant| grant.id)
    }

    fn grant(&self, kind: ExemptionKind) -> Option<GrantId> {
        self.bundle().or_else(|| self.known.token.open_grant(kind, self.now).map(|grant| grant.id))
    }
}
