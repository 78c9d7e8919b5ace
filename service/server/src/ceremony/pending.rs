//! A join between two of its steps. A stream keeps it in memory; over HTTP it travels sealed in the continuation.

use chrono::TimeDelta;
use join_credential::Subject;
use join_domain::{
    Timestamp,
    decision::{
        join::{Life, Proven, Solved},
        opening::SecretShown,
    },
    event::{ChallengePurpose, Sighting},
    id::{AttemptId, Name, TokenId},
    key::PublicKey,
    proof::{self, Challenge, SubjectKeys},
    refusal::{Code, Refusal},
};
use serde::{Deserialize, Serialize};

/// A join between two steps.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Pending {
    /// The token's name.
    pub token: Name,
    /// The token's id: one made again under the name is another.
    pub token_id: TokenId,
    /// The client's name for the attempt.
    pub attempt: Option<AttemptId>,
    /// The subject keys as sent.
    #[serde(flatten)]
    pub subject_keys: SubjectKeys,
    /// Both, read and checked; who opens a sealed ceremony reads them again.
    #[serde(skip)]
    pub subject: Option<Subject>,
    /// The live certificate of the connection on which the join began, and what was shown as join state.
    #[serde(flatten)]
    pub seen: Sighting,
    /// [`TokenState::evidence`](join_domain::state::TokenState::evidence) at the first step.
    pub evidence: u64,
    /// How the registration secret that was shown compared.
    pub secret: SecretShown,
    /// Wished life of the certificates.
    pub life: Option<Life>,
    /// What is asked next.
    pub stage: Stage,
    /// When this step can't be answered any more.
    pub expires: Timestamp,
}

/// What a client was asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Stage {
    /// A key to bind: the registration secret was right.
    RegistrationKey,
    /// A signature.
    Challenge(Issued),
    /// A key that replaces the bound one.
    RotationKey(Solved),
    /// A signature by the new key.
    RotationChallenge(Solved, Issued),
}

/// A challenge as it was sent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Issued {
    /// Its claims.
    pub challenge: Challenge,
    /// The document, byte for byte.
    pub document: String,
    /// The key to sign with.
    pub key: PublicKey,
    /// Why that key.
    pub purpose: ChallengePurpose,
    /// When.
    pub at: Timestamp,
}

impl Issued {
    /// This challenge, solved.
    pub fn solved(&self) -> Solved {
        Solved {
            challenge: self.challenge.id(),
            key: self.key.clone(),
            purpose: self.purpose,
            issued_at: self.at,
            replayable_until: self.at + TimeDelta::seconds(proof::REPLAYABLE),
        }
    }
}

impl Pending {
    /// All that is proven once the last challenge is solved: by the bound key, or by one that replaces it.
    pub fn proven(&self, last: &Issued, bound: Option<Solved>) -> Proven {
        let (solved, rotated) = match bound {
            None => (last.solved(), None),
            // What was sent is good for as long as the last challenge is.
            Some(bound) => {
                let last = last.solved();
                (Solved { replayable_until: last.replayable_until, ..bound }, Some(last))
            }
        };
        Proven {
            attempt: self.attempt.clone(),
            subject_keys: last.challenge.subject_keys.clone(),
            seen: self.seen.clone(),
            evidence: self.evidence,
            solved,
            rotated,
            life: self.life,
        }
    }

    /// True once possession of the key or the secret was proven: from then on nothing passes unseen.
    pub fn is_proven(&self) -> bool {
        matches!(self.secret, SecretShown::Right | SecretShown::Spent) || self.solved().is_some()
    }

    /// True when nothing was proven but knowledge of a registration secret that is used up.
    pub fn has_shown_only_a_spent_secret(&self) -> bool {
        self.secret == SecretShown::Spent && self.solved().is_none()
    }

    /// How the bound key was proven, once a new one is asked for.
    pub fn solved(&self) -> Option<&Solved> {
        match &self.stage {
            Stage::RotationKey(solved) | Stage::RotationChallenge(solved, _) => Some(solved),
            Stage::RegistrationKey | Stage::Challenge(_) => None,
        }
    }

    /// The refusal of a client that does not answer what it was asked.
    pub fn unanswered(&self, why: &str) -> Refusal {
        let code = if self.solved().is_some() { Code::RotationFailed } else { Code::ChallengeFailed };
        Refusal::new(code, why)
    }
}
