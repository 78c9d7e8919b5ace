//! A join, step by step: load → decide → append → issue. gRPC streams and HTTP calls both come through here.

use std::{borrow::Cow, time::Instant};

use chrono::TimeDelta;
use join_credential::{Grant, Serial, Subject};
use join_domain::{
    Timestamp,
    decision::{
        Known,
        join::{self, Fresh, Proven, Verdict, shown_targets},
        opening::{self, FirstStep, Opening, SecretShown},
    },
    envelope::StreamId,
    event::{ChallengePurpose, Event, JoinAccepted, JoinStateSeen, LockCreated},
    id::{AttemptId, InstanceId, LockId, Name},
    key::{KeyError, PublicKey},
    proof::{self, Challenge, JoinState, SubjectKeys},
    refusal::{Code, Refusal},
    state::{Namespace, TokenState},
};
use join_ledger::{Append, AppendError, Change, KnownToken, SecretChange, Stored, StreamAppend, TokenSlot};
use subtle::ConstantTimeEq as _;

use super::{
    Answer as _, Ceremonies, REGISTRATION_SECRET,
    pending::{Issued, Pending, Stage},
};
use crate::{
    request::{caller::Peer, problem::invalid},
    telemetry::{self, METRICS},
};

/// How often a decision is made again from fresh state before the client is told to retry.
const MAX_TRIES: usize = 8;
/// The most keys that a client may say it holds.
const MAX_HELD_KEYS: usize = 16;

/// What a client sends to begin.
#[derive(Debug)]
pub struct Ask {
    /// The token's name.
    pub token: String,
    /// The attempt's id; empty when the client has none.
    pub attempt: String,
    /// The registration secret; empty when there is none.
    pub secret: String,
    /// The join state document; empty when there is none.
    pub join_state: Vec<u8>,
    /// The keys that get certificates.
    pub subject: SubjectKeys,
    /// The keys that the client holds, in authorized_keys form.
    pub held_keys: Vec<Vec<u8>>,
    /// Wished life of the certificates.
    pub life: Option<TimeDelta>,
}

/// What comes next.
pub enum Step {
    /// The client must send a new public key.
    KeyRequest(Box<Pending>),
    /// The client must sign.
    Challenge(Box<Pending>),
    /// Joined.
    Joined(Box<Joined>),
}

/// What an accepted join hands out.
pub struct Joined {
    /// X.509 certificate, DER.
    pub tls_certificate: Vec<u8>,
    /// SSH certificate, wire form.
    pub ssh_certificate: Vec<u8>,
    /// Join state document.
    pub join_state: String,
    /// The key that is bound now.
    pub bound_key: PublicKey,
}

impl Ceremonies {
    /// The first step: which key to challenge, or that a key is asked for.
    ///
    /// # Errors
    /// A refusal that tells strangers nothing.
    pub async fn open(&self, ask: Ask, peer: &Peer) -> Result<Step, Refusal> {
        // Nothing is decided that can't be signed.
        self.keyring.usable()?;
        let unknown = || self.strangers.refused_unknown(peer, Refusal::access_denied());
        let token: Name = ask.token.parse().map_err(|_| unknown())?;
        let attempt = match ask.attempt.as_str() {
            "" => None,
            id => Some(id.parse::<AttemptId>().map_err(|error| invalid("attempt_id", error))?),
        };
        let held_keys = held_keys(&ask.held_keys)?;
        let subject = Subject::read(&ask.subject).map_err(|error| invalid("public_keys", error))?;
        if ask.secret.len() > 512 {
            return Err(invalid("initial_join_secret", "longer than 512 characters"));
        }
        let join_state = self.read_join_state(&ask.join_state).await?;

        let mut remembered = self.ledger.remembered_token(&token).await;
        let mut is_counted = false;
        loop {
            let is_fresh = remembered.is_none();
            let known = match remembered.take() {
                Some(known) => known,
                None => self.ledger.read_token(&token).await.answer()?.ok_or_else(unknown)?,
            };
            let now = self.ledger.now();
            let state = &known.token;
            if state.secret.is_some() && !ask.secret.is_empty() && !std::mem::replace(&mut is_counted, true) {
                self.strangers.check_guess(&token, peer)?;
            }
            let secret = self.compare_secret(&ask.secret, state.secret.as_deref(), state.spent_secret.as_deref());
            let opening = Opening { certificate: peer.certificate.as_ref(), secret, held_keys: &held_keys };
            let context = Known { token: state, bot: known.bot.as_ref(), locks: &[], attempt_accepted_before: false };
            let first = opening::open(context, opening, now);
            if !is_fresh && (first.is_err() || !known.locks.is_empty() || may_know_more(state, opening, &join_state)) {
                // A refusal is never given from the cache alone, and a client that joined on another node since, or was
                // reinstated there, is not asked by what this one remembers: the token is read.
                continue;
            }
            let mut pending = Box::new(Pending {
                token: token.clone(),
                token_id: state.id,
                attempt,
                subject_tls: ask.subject.tls,
                subject_ssh: ask.subject.ssh,
                subject: Some(subject),
                certificate: peer.certificate.clone(),
                join_state,
                evidence: state.evidence,
                secret,
                life_millis: ask.life.map(|life| life.num_milliseconds()),
                stage: Stage::RegistrationKey,
                expires: now + TimeDelta::seconds(proof::CHALLENGE_LIFE),
            });
            return match first {
                Ok(FirstStep::RequestKey) => Ok(Step::KeyRequest(pending)),
                Ok(FirstStep::Challenge(key, purpose)) => {
                    pending.stage = Stage::Challenge(self.challenge(&pending, key, purpose));
                    Ok(Step::Challenge(pending))
                }
                Err(refusal) => Err(self.failed(&pending, refusal, peer).await),
            };
        }
    }

    /// The client sent a public key: for a registration or a rotation.
    ///
    /// # Errors
    /// UNSUPPORTED_KEY, KEY_REUSED, ROTATION_FAILED, or INVALID_REQUEST when no key was asked for.
    pub async fn take_key(&self, mut pending: Box<Pending>, key: &[u8], peer: &Peer) -> Result<Step, Refusal> {
        let taken = self.in_time(&pending).and_then(|()| {
            if key.is_empty() && matches!(pending.stage, Stage::RotationKey(_)) {
                return Err(pending.unanswered("the client has no new key: the old one stays bound"));
            }
            PublicKey::from_authorized_key(key).map_err(|error| match error {
                KeyError::Unsupported(_) => Refusal::new(Code::UnsupportedKey, error.to_string()),
                KeyError::Malformed => invalid("public_key", error),
            })
        });
        let key = match taken {
            Ok(key) => key,
            Err(refusal) => return Err(self.failed(&pending, refusal, peer).await),
        };
        pending.stage = match pending.stage {
            Stage::RegistrationKey => Stage::Challenge(self.challenge(&pending, key, ChallengePurpose::Registration)),
            Stage::RotationKey(ref solved) if solved.key == key => {
                let reused = Refusal::new(
                    Code::KeyReused,
                    "the rotation was answered with the key that is to be replaced: make a new keypair",
                );
                return Err(self.failed(&pending, reused, peer).await);
            }
            Stage::RotationKey(ref solved) => {
                let issued = self.challenge(&pending, key, ChallengePurpose::Rotation);
                Stage::RotationChallenge(solved.clone(), issued)
            }
            Stage::Challenge(_) | Stage::RotationChallenge(..) => {
                let refusal = invalid("public_key", "no key was asked for: a solution is");
                return Err(self.failed(&pending, refusal, peer).await);
            }
        };
        pending.expires = self.ledger.now() + TimeDelta::seconds(proof::CHALLENGE_LIFE);
        Ok(Step::Challenge(pending))
    }

    /// The client sent a solution.
    ///
    /// # Errors
    /// CHALLENGE_FAILED, or what the decision refuses with.
    pub async fn take_solution(&self, pending: Box<Pending>, solution: &[u8], peer: &Peer) -> Result<Step, Refusal> {
        let now = self.ledger.now();
        let (issued, solved) = match &pending.stage {
            Stage::Challenge(issued) => (issued, None),
            Stage::RotationChallenge(solved, issued) => (issued, Some(solved.clone())),
            Stage::RegistrationKey | Stage::RotationKey(_) => {
                let refusal = invalid("solution", "no challenge is open: a public key was asked for");
                return Err(self.failed(&pending, refusal, peer).await);
            }
        };
        if let Err(error) = issued.challenge.check(&issued.document, &issued.key, solution, now) {
            tracing::debug!(join.token = %pending.token, "solution refused: {error}");
            let refusal = if solved.is_some() {
                Refusal::new(Code::RotationFailed, format!("the new key's challenge failed: {error}"))
            } else {
                Refusal::new(
                    Code::ChallengeFailed,
                    "the challenge was not solved: it must be signed, unchanged and in time, by exactly the key that \
                     it names",
                )
            };
            return Err(self.failed(&pending, refusal, peer).await);
        }
        let proven = pending.proven(issued, solved);
        self.conclude(pending, proven, peer).await
    }

    /// The client went away; after it had proven something, that is recorded too. A used-up secret alone does not count:
    /// an honest agent sends the one in its configuration each time, and its connections break now and then.
    pub async fn abandoned(&self, pending: &Pending, peer: &Peer) {
        if pending.is_proven() && !pending.has_shown_only_a_spent_secret() {
            self.failed(pending, pending.unanswered("the client went away before it answered"), peer).await;
        } else {
            self.ledger.doubt_token(&pending.token).await;
        }
    }

    /// Possession is proven: decide, append, issue.
    async fn conclude(&self, mut pending: Box<Pending>, proven: Proven, peer: &Peer) -> Result<Step, Refusal> {
        self.keyring.usable()?;
        let started = Instant::now();
        let mut slot = self.ledger.token(&pending.token).await.answer()?;
        // The era of the token for which everything that concerns the attempt was read.
        let mut looked = None;
        for _ in 0..MAX_TRIES {
            let now = self.ledger.now();
            let Some(known) = slot.known().filter(|known| known.token.id == pending.token_id) else {
                if slot.is_fresh() {
                    return Err(self.strangers.refused_from(&pending.token, peer, Refusal::access_denied()));
                }
                slot.reload(&[], None).await.answer()?;
                continue;
            };
            let era = known.token.era;
            if looked != Some(era) && !is_routine(&slot, &proven) {
                look_again(&mut slot, &pending, &proven, era).await?;
                looked = Some(era);
                continue;
            }
            let context = Known {
                token: &known.token,
                bot: known.bot.as_ref(),
                locks: &known.locks,
                attempt_accepted_before: slot.attempt_accepted_before(),
            };
            let mut verdict = join::decide(context, &proven, self.fresh(now), self.policy, now);
            if matches!(verdict, Verdict::Refuse { .. } | Verdict::RotateFirst) && looked != Some(era) {
                look_again(&mut slot, &pending, &proven, era).await?;
                looked = Some(era);
                continue;
            }
            let plain_refusal = matches!(verdict, Verdict::Refuse { lock: None, .. });
            let (events, uses_up, lock) = match &mut verdict {
                Verdict::RotateFirst => {
                    pending.stage = Stage::RotationKey(proven.solved.clone());
                    pending.expires = now + TimeDelta::seconds(proof::CHALLENGE_LIFE);
                    return Ok(Step::KeyRequest(pending));
                }
                Verdict::Accept { events, uses_up, .. } => (std::mem::take(events), uses_up.take(), None),
                Verdict::Resume { events, .. } => (std::mem::take(events), None, None),
                Verdict::Refuse { events, lock, .. } => (std::mem::take(events), None, lock.as_deref()),
            };
            if events.is_empty() {
                return Err(self.refused(&verdict, &pending));
            }
            if plain_refusal {
                self.strangers.check_refusals(&pending.token, peer)?;
            }
            let (first, lock) = self.token_append(known, events, lock, peer);
            let append = Append::all([first.using_up(uses_up)].into_iter().chain(lock).collect());
            match slot.append(append).await {
                Ok(recorded) => {
                    METRICS.decided(started.elapsed().as_secs_f64());
                    let token = recorded.streams.first().and_then(Stored::token);
                    let token = token.ok_or_else(|| internal("an append of a token recorded none"))?;
                    return self.answer(verdict, token, &pending).map(|joined| Step::Joined(Box::new(joined)));
                }
                Err(AppendError::ClaimTaken { namespace: Namespace::Key, .. }) => {
                    let taken = Refusal::new(
                        Code::KeyAlreadyBound,
                        "the key belongs to another token: one key binds one token, so make a new keypair",
                    );
                    drop(slot);
                    return Err(self.failed(&pending, taken, peer).await);
                }
                Err(AppendError::Conflict | AppendError::AttemptSeen | AppendError::ClaimTaken { .. }) => {
                    look_again(&mut slot, &pending, &proven, era).await?;
                    looked = Some(era);
                }
                Err(error) => return Err(error).answer(),
            }
        }
        Err(Refusal::new(Code::Conflict, "too many joins of this token at once: retry the same attempt"))
    }

    fn answer(&self, verdict: Verdict, token: &TokenState, pending: &Pending) -> Result<Joined, Refusal> {
        let join = match verdict {
            Verdict::Accept { join, .. } => {
                METRICS.accepted(Some(join.case));
                self.behind.admitted(&pending.token);
                join
            }
            Verdict::Resume { accepted, .. } => {
                METRICS.accepted(None);
                accepted.join
            }
            Verdict::Refuse { .. } | Verdict::RotateFirst => return Err(self.refused(&verdict, pending)),
        };
        let binding = token.binding.as_ref().ok_or_else(|| internal("the accepted token has no key"))?;
        self.issue(&join, &token.spec.bot_name, pending, binding.key.clone())
    }

    /// Signs what was recorded.
    fn issue(
        &self,
        join: &JoinAccepted,
        bot: &Name,
        pending: &Pending,
        bound_key: PublicKey,
    ) -> Result<Joined, Refusal> {
        let issued_at = join.not_before.timestamp() + join::BACKDATED_SECONDS;
        let join_state = JoinState {
            iss: self.cluster.to_string(),
            aud: self.cluster.to_string(),
            sub: bot.to_string(),
            iat: issued_at,
            nbf: join.not_before.timestamp(),
            bot_instance_id: join.instance,
            recovery_sequence: join.recovery_count,
            recovery_limit: join.recovery_limit,
            recovery_mode: join.recovery_mode.as_str().to_owned(),
            token_id: Some(pending.token_id),
        };
        let subject = match &pending.subject {
            Some(read) => Cow::Borrowed(read),
            None => Cow::Owned(Subject::read(&pending.subject_keys()).map_err(|error| invalid("public_keys", error))?),
        };
        let keyring = self.keyring.get();
        let credentials = keyring
            .issuer
            .issue(&Grant {
                token: pending.token_id,
                bot,
                instance: join.instance,
                generation: join.generation,
                serial: join.serial.parse().map_err(internal)?,
                not_before: join.not_before,
                not_after: join.not_after,
                roles: &join.roles,
                principals: &join.principals,
                subject: &subject,
                join_state: &join_state,
            })
            .map_err(internal)?;
        keyring.certificates.issued(&credentials.tls_certificate);
        Ok(Joined {
            tls_certificate: credentials.tls_certificate,
            ssh_certificate: credentials.ssh_certificate,
            join_state: credentials.join_state,
            bound_key,
        })
    }

    /// Everything that a decision about a token appends: its entry and, with a lock, the lock's own.
    fn token_append(
        &self,
        known: &KnownToken,
        events: Vec<Event>,
        lock: Option<&(LockId, LockCreated)>,
        peer: &Peer,
    ) -> (StreamAppend, Option<StreamAppend>) {
        let token = &known.token;
        let attempt = events.iter().find_map(Event::attempt).cloned();
        let origin = peer.origin(&token.spec.bot_name, attempt);
        let decided_at = self.ledger.now();
        let spends_secret = events.iter().any(|event| matches!(event, Event::RegistrationSecretSpent(_)));
        let lock = lock.map(|(id, created)| {
            let events = vec![Event::LockCreated(created.clone())];
            StreamAppend::begin(StreamId::from(*id), Change { events, decided_at, origin: origin.clone() })
        });
        let mut first = known.following(Change { events, decided_at, origin });
        if spends_secret {
            first = first.with_secret(SecretChange::Delete { purpose: REGISTRATION_SECRET });
        }
        (first, lock)
    }

    /// Records a failure of a client that had proven the key or the secret; strangers are only counted.
    pub(crate) async fn failed(&self, pending: &Pending, refusal: Refusal, peer: &Peer) -> Refusal {
        if !pending.is_proven() {
            // Perhaps the wrong question was asked, from what this node remembers.
            self.ledger.doubt_token(&pending.token).await;
            return self.strangers.refused_from(&pending.token, peer, refusal);
        }
        if let Err(limited) = self.strangers.check_refusals(&pending.token, peer) {
            return limited;
        }
        METRICS.refused(refusal.code, true);
        if let Err(error) = self.append_failure(pending, &refusal, peer).await {
            // The client's answer stays the same: its failure is a fact, recorded or not.
            tracing::error!(join.token = %pending.token, "a refusal could not be recorded: {error}");
        }
        refusal
    }

    async fn append_failure(&self, pending: &Pending, refusal: &Refusal, peer: &Peer) -> Result<(), Refusal> {
        let mut slot = self.ledger.token(&pending.token).await.answer()?;
        for _ in 0..MAX_TRIES {
            let Some(known) = slot.known().filter(|known| known.token.id == pending.token_id) else { return Ok(()) };
            let solved = match &pending.stage {
                Stage::RotationKey(solved) | Stage::RotationChallenge(solved, _) => Some(solved),
                Stage::RegistrationKey | Stage::Challenge(_) => None,
            };
            let events =
                join::refuse_unfinished(&known.token, solved, pending.attempt.as_ref(), pending.sighting(), refusal);
            let (append, _) = self.token_append(known, events, None, peer);
            match slot.append(append).await {
                Ok(_) => return Ok(()),
                Err(AppendError::Conflict) => slot.reload(&[], None).await.answer()?,
                Err(error) => return Err(error).answer(),
            }
        }
        Err(Refusal::new(Code::Conflict, "the token is too busy"))
    }

    fn challenge(&self, pending: &Pending, key: PublicKey, purpose: ChallengePurpose) -> Issued {
        let at = self.ledger.now();
        let subject_keys = pending.subject_keys().hash();
        let nonce = self.entropy.bytes();
        let challenge = Challenge::issue(&self.cluster, &key, pending.attempt.clone(), subject_keys, nonce, at);
        Issued { document: challenge.to_document(), challenge, key, purpose, at }
    }

    fn in_time(&self, pending: &Pending) -> Result<(), Refusal> {
        if self.ledger.now() <= pending.expires + TimeDelta::seconds(proof::LEEWAY) {
            return Ok(());
        }
        Err(Refusal::new(Code::ChallengeFailed, "the answer came too late: start the attempt again"))
    }

    fn fresh(&self, now: Timestamp) -> Fresh {
        Fresh {
            instance: InstanceId(self.entropy.uuid_of(now)),
            lock: LockId(self.entropy.uuid()),
            serial: Serial::from_random(self.entropy.bytes()).to_string(),
        }
    }

    async fn read_join_state(&self, document: &[u8]) -> Result<JoinStateSeen, Refusal> {
        if document.is_empty() {
            return Ok(JoinStateSeen::Missing);
        }
        let mut keyring = self.keyring.get();
        let mut opened = match keyring.issuer.read_own_join_state(document) {
            Some(claims) => Ok(claims),
            None => JoinState::open(document, &self.cluster, |kid| keyring.keys.join_state_key(kid)),
        };
        if matches!(opened, Err(proof::JoinStateError::UnknownKey)) {
            // Perhaps it was signed on a node that learned of a new key before this one did. In doubt nothing is decided:
            // a document that is not authentic locks.
            keyring = Box::pin(self.keyring.newest(&self.ledger)).await?;
            opened = JoinState::open(document, &self.cluster, |kid| keyring.keys.join_state_key(kid));
        }
        let under_revoked_key = || proof::key_id(document).is_some_and(|kid| keyring.keys.is_revoked(&kid));
        Ok(match opened {
            // A document under a key that was revoked as compromised proves nothing: it counts as missing.
            Err(proof::JoinStateError::UnknownKey) if under_revoked_key() => JoinStateSeen::Missing,
            Err(error) => JoinStateSeen::NotAuthentic(error),
            Ok(claims) => JoinStateSeen::Authentic {
                bot: claims.sub,
                token: claims.token_id,
                instance: claims.bot_instance_id,
                sequence: claims.recovery_sequence,
            },
        })
    }

    /// Compares keyed hashes in constant time, with the same work for every outcome.
    fn compare_secret(&self, sent: &str, open: Option<&str>, spent: Option<&str>) -> SecretShown {
        if sent.is_empty() {
            return SecretShown::None;
        }
        let hash = self.secret_hash(sent);
        let equals = |stored: Option<&str>| {
            let stored = stored.unwrap_or("0000000000000000000000000000000000000000000000000000000000000000");
            bool::from(hash.as_bytes().ct_eq(stored.as_bytes()))
        };
        match (equals(open), equals(spent)) {
            (true, _) => SecretShown::Right,
            (false, true) => SecretShown::Spent,
            (false, false) => SecretShown::Wrong,
        }
    }

    /// Counts a refusal by a rule, and tells the operator of those that need one.
    fn refused(&self, verdict: &Verdict, pending: &Pending) -> Refusal {
        let Verdict::Refuse { refusal, lock, .. } = verdict else {
            return internal("a rotation was decided where none can be");
        };
        METRICS.refused(refusal.code, true);
        if lock.is_some() {
            METRICS.locked();
            tracing::warn!(join.token = %pending.token, join.refusal = refusal.code.as_str(),
                "token {} is locked: {}", pending.token, refusal.message);
        }
        if refusal.code == Code::AuthorityBehind {
            self.behind.shown(&pending.token, self.ledger.now());
            tracing::error!(join.token = %pending.token, "the authority lost history: {}", refusal.message);
        }
        refusal.clone()
    }

    /// The keyed hash of a registration secret, as events keep it.
    pub(crate) fn secret_hash(&self, secret: &str) -> String {
        hex::encode(self.keyring.get().keys.sealer().keyed_hash(REGISTRATION_SECRET, secret.as_bytes()))
    }
}

/// Reads the token anew, with everything that concerns the attempt in this era of it.
async fn look_again(slot: &mut TokenSlot, pending: &Pending, proven: &Proven, era: u64) -> Result<(), Refusal> {
    let attempt = proven.attempt.as_ref().map(|id| id.hash(pending.token_id, era));
    slot.reload(&shown_targets(proven), attempt.as_ref()).await.answer()
}

/// True when the cached locks are all that concern the attempt: the bound key, and no certificate of another instance.
fn is_routine(slot: &TokenSlot, proven: &Proven) -> bool {
    let Some(known) = slot.known() else { return false };
    let instance = known.token.instance();
    proven.rotated.is_none()
        && known.token.binding.as_ref().is_some_and(|binding| binding.key == proven.solved.key)
        && proven.certificate.as_ref().is_none_or(|certificate| Some(certificate.instance) == instance)
}

/// True when another node may have joined, rotated or reopened the token since: a client shows what does not fit the token
/// as it is known, or nothing that could confirm it.
fn may_know_more(token: &TokenState, opening: Opening<'_>, join_state: &JoinStateSeen) -> bool {
    let latest = token.latest().map(|latest| &latest.join);
    let newer_certificate = opening.certificate.is_some_and(|shown| {
        latest.is_none_or(|latest| shown.instance != latest.instance || shown.generation > latest.generation)
    });
    let newer_join_state = matches!(join_state, JoinStateSeen::Authentic { instance, sequence, .. }
        if *sequence > token.recovery_count || latest.is_none_or(|latest| *instance != latest.instance));
    let nothing_shown = opening.certificate.is_none() && *join_state == JoinStateSeen::Missing && latest.is_some();
    let bound = token.binding.as_ref().map(|binding| &binding.key);
    let other_keys = bound.or(token.spec.initial_public_key.as_ref()).is_some_and(|key| {
        !opening.held_keys.is_empty() && !opening.held_keys.contains(key) || opening.secret == SecretShown::Wrong
    });
    newer_certificate || newer_join_state || nothing_shown || other_keys
}

fn held_keys(lines: &[Vec<u8>]) -> Result<Vec<PublicKey>, Refusal> {
    if lines.len() > MAX_HELD_KEYS {
        return Err(invalid("held_keys", format!("more than {MAX_HELD_KEYS} keys")));
    }
    lines
        .iter()
        .enumerate()
        .map(|(at, line)| PublicKey::from_authorized_key(line).map_err(|e| invalid(&format!("held_keys[{at}]"), e)))
        .collect()
}

/// Our fault: the log has the details, the client an id to look for.
pub(crate) fn internal(error: impl std::fmt::Display) -> Refusal {
    let request = telemetry::current_request().unwrap_or_else(|| "-".into());
    tracing::error!("internal error: {error}");
    Refusal::new(
        Code::Internal,
        format!("the authority failed; an administrator finds the cause in its log under request {request}"),
    )
}
