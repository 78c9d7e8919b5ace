//! A join, step by step: load → decide → append → issue. gRPC streams and HTTP calls both come through here.

mod conclude;
mod issue;

use chrono::TimeDelta;
use join_credential::{Subject, subject::SubjectError};
use join_domain::{
    decision::{
        Known,
        join::Life,
        opening::{self, FirstStep, Opening, SecretShown},
    },
    event::{ChallengePurpose, JoinStateSeen, Sighting},
    id::{AttemptId, Name},
    key::PublicKey,
    proof::{self, Challenge, JoinState, SubjectKeys},
    refusal::{Code, Refusal},
    resource::MAX_SECRET,
    state::TokenState,
};
use join_ledger::KnownToken;

pub use self::issue::Joined;
use super::{
    Ceremonies, OrRefuse as _,
    pending::{Issued, Pending, Stage},
};
use crate::caller::Peer;

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
    pub life: Option<Life>,
    /// True when another node may take the next steps.
    pub is_portable: bool,
}

/// What comes next.
pub enum Step {
    /// The client is asked for what the stage says.
    Asked(Box<Pending>),
    /// Joined.
    Joined(Box<Joined>),
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
            id => Some(id.parse::<AttemptId>().map_err(|error| Refusal::invalid("attempt_id", error))?),
        };
        let held_keys = held_keys(&ask.held_keys)?;
        let subject = Subject::read(&ask.subject).map_err(refused_subject)?;
        if ask.secret.len() > MAX_SECRET {
            return Err(Refusal::invalid("registration_secret", format!("longer than {MAX_SECRET} bytes")));
        }
        let join_state = self.read_join_state(&ask.join_state).await?;

        let sent_secret = self.sent_secret(&ask.secret);

        // What this node remembers may be outdated. Who concludes the join finds that out, and reads the token again; but
        // another node can't have this one forget it.
        let mut remembered = if ask.is_portable { None } else { self.ledger.remembered_token(&token) };
        let mut is_counted = false;
        loop {
            let is_fresh = remembered.is_none();
            let known = match remembered.take() {
                Some(known) => known,
                None => self.ledger.read_token(&token).await.or_refuse()?.ok_or_else(unknown)?,
            };
            let now = self.ledger.now();
            let state = &known.token;
            if state.secret.is_some() && !ask.secret.is_empty() && !std::mem::replace(&mut is_counted, true) {
                self.strangers.check_guess(&token, peer)?;
            }
            let secret = sent_secret.compare(state.secret.as_deref(), state.spent_secret.as_deref());
            let opening = Opening { certificate: peer.certificate.as_ref(), secret, held_keys: &held_keys };
            let context = Known { token: state, bot: known.bot.as_ref(), locks: &[], attempt_accepted_before: false };
            let first = opening::open(context, opening, now);
            if !is_fresh && (first.is_err() || may_know_more(&known, opening, &join_state)) {
                // A refusal is never given from the cache alone, and a client that joined on another node since, or was
                // reinstated there, is not asked by what this one remembers: the token is read.
                continue;
            }
            let mut pending = Box::new(Pending {
                token: token.clone(),
                token_id: state.id,
                attempt,
                subject_keys: ask.subject,
                subject: Some(subject),
                seen: Sighting { certificate: peer.certificate.clone(), join_state },
                evidence: state.evidence,
                secret,
                life: ask.life,
                stage: Stage::RegistrationKey,
                expires: now + TimeDelta::seconds(proof::CHALLENGE_LIFE),
            });
            return match first {
                Ok(FirstStep::RequestKey) => Ok(Step::Asked(pending)),
                Ok(FirstStep::Challenge(key, purpose)) => {
                    pending.stage = Stage::Challenge(self.challenge(&pending, key, purpose));
                    Ok(Step::Asked(pending))
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
            PublicKey::from_authorized_key(key).map_err(|error| Refusal::of_key("public_key", &error))
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
                let refusal = Refusal::invalid("public_key", "no key was asked for: a solution is");
                return Err(self.failed(&pending, refusal, peer).await);
            }
        };
        pending.expires = self.ledger.now() + TimeDelta::seconds(proof::CHALLENGE_LIFE);
        Ok(Step::Asked(pending))
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
                let refusal = Refusal::invalid("solution", "no challenge is open: a public key was asked for");
                return Err(self.failed(&pending, refusal, peer).await);
            }
        };
        if let Err(error) = issued.challenge.check(&issued.document, &issued.key, solution, now) {
            tracing::debug!(join.token = %pending.token, "solution refused: {error}");
            let refusal = if solved.is_some() {
                Refusal::new(Code::RotationFailed, format!("the new key's challenge failed: {error}"))
            } else if issued.purpose != ChallengePurpose::Retired && self.has_moved_on(&pending, &issued.key).await? {
                Refusal::new(
                    Code::Conflict,
                    "the token has got another key since this node read it: retry the same attempt",
                )
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

    /// The client says that it will not answer. It is refused for it after it had proven something; not for a used-up secret
    /// alone, or that would be found by the answer. A secret that was shown was a guess all the same, and is counted as one
    /// when it was not right.
    pub fn gave_up(&self, pending: &Pending, peer: &Peer) -> Option<Refusal> {
        let refusal = pending.unanswered("the client gave up");
        if pending.is_proven() && !pending.has_shown_only_a_spent_secret() {
            return Some(refusal);
        }
        if pending.secret != SecretShown::None {
            self.strangers.refused_from(&pending.token, peer, refusal);
        }
        None
    }

    /// The client went away; after it had proven something, that is recorded too. A used-up secret alone does not count:
    /// an honest agent sends the one in its configuration each time, and its connections break now and then.
    pub async fn abandoned(&self, pending: &Pending, peer: &Peer) {
        if pending.is_proven() && !pending.has_shown_only_a_spent_secret() {
            self.failed(pending, pending.unanswered("the client went away before it answered"), peer).await;
        } else {
            self.ledger.doubt_token(&pending.token);
        }
    }

    fn challenge(&self, pending: &Pending, key: PublicKey, purpose: ChallengePurpose) -> Issued {
        let at = self.ledger.now();
        let subject_keys = pending.subject_keys.hash();
        let nonce = self.entropy.bytes();
        let challenge = Challenge::issue(&self.cluster, &key, pending.attempt.clone(), subject_keys, nonce, at);
        Issued { document: challenge.to_document(), challenge, key, purpose, at }
    }

    /// True when the token, read again, would not be asked for this key any more. What this node remembered when it asked may
    /// have been outdated, and nobody is refused by that.
    async fn has_moved_on(&self, pending: &Pending, asked: &PublicKey) -> Result<bool, Refusal> {
        let known = self.ledger.read_token(&pending.token).await.or_refuse()?;
        Ok(known.is_none_or(|known| {
            known.token.id != pending.token_id || expected_key(&known.token).is_some_and(|key| key != asked)
        }))
    }

    fn in_time(&self, pending: &Pending) -> Result<(), Refusal> {
        if self.ledger.now() <= pending.expires + TimeDelta::seconds(proof::LEEWAY) {
            return Ok(());
        }
        Err(pending.unanswered("the answer came too late: start the attempt again"))
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
            keyring = self.keyring.newest(&self.ledger).await?;
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
}

/// True when another node may have joined, rotated, reopened or reinstated the token since: a client shows what does not
/// fit the token as it is known, or nothing that could confirm it.
///
/// A client can measure whether the token was read. So for those who show nothing that confirms it, that depends on nothing
/// that strangers may not know: neither on locks nor on how a guessed secret compared. Locks count with a live certificate of
/// the bound instance alone, whose key the connection has proven.
fn may_know_more(known: &KnownToken, opening: Opening<'_>, join_state: &JoinStateSeen) -> bool {
    let token = &known.token;
    let latest = token.latest().map(|latest| &latest.join);
    let newer_certificate = opening.certificate.is_some_and(|shown| {
        latest.is_none_or(|latest| shown.instance != latest.instance || shown.generation > latest.generation)
    });
    let newer_join_state = matches!(join_state, JoinStateSeen::Authentic { instance, sequence, .. }
        if *sequence > token.recovery_count || latest.is_none_or(|latest| *instance != latest.instance));
    let nothing_confirms = opening.certificate.is_none() && !matches!(join_state, JoinStateSeen::Authentic { .. });
    let other_keys = expected_key(token).is_some_and(|key| {
        !opening.held_keys.is_empty() && !opening.held_keys.contains(key) || opening.secret == SecretShown::Wrong
    });
    let reinstated = opening.certificate.is_some() && !known.locks.is_empty();
    newer_certificate || newer_join_state || nothing_confirms || other_keys || reinstated
}

/// The key that a client of this token is challenged for; none before one is bound, or was registered in advance.
fn expected_key(token: &TokenState) -> Option<&PublicKey> {
    token.binding.as_ref().map(|binding| &binding.key).or(token.spec.initial_public_key.as_ref())
}

fn refused_subject(why: SubjectError) -> Refusal {
    let code = match why {
        SubjectError::UnsupportedTls | SubjectError::UnsupportedSsh => Code::UnsupportedKey,
        SubjectError::MissingTls
        | SubjectError::MissingSsh
        | SubjectError::MalformedTls
        | SubjectError::MalformedSsh => Code::InvalidRequest,
    };
    Refusal::new(code, format!("public_keys: {why}"))
}

fn held_keys(lines: &[Vec<u8>]) -> Result<Vec<PublicKey>, Refusal> {
    if lines.len() > MAX_HELD_KEYS {
        return Err(Refusal::invalid("held_keys", format!("more than {MAX_HELD_KEYS} keys")));
    }
    lines
        .iter()
        .enumerate()
        .map(|(at, line)| {
            PublicKey::from_authorized_key(line).map_err(|error| Refusal::of_key(&format!("held_keys[{at}]"), &error))
        })
        .collect()
}
