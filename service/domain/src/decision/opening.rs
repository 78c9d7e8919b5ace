//! The first step of a join: which key is challenged, or that a new one is asked for (protocol, section 3).

use serde::{Deserialize, Serialize};

use super::Known;
use crate::{
    Timestamp,
    event::{ChallengePurpose, ClientCertificate},
    key::PublicKey,
    refusal::{Code, Refusal},
};

/// How the registration secret that a client sent compares with the token's; compared outside, in constant time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SecretShown {
    /// None was sent.
    None,
    /// It is the one that can still be used.
    Right,
    /// It was the right one, and is used up.
    Spent,
    /// It is none of the token's.
    Wrong,
}

/// What a client shows at the start.
#[derive(Debug, Clone, Copy)]
pub struct Opening<'a> {
    /// Its certificate, when live, of this cluster and naming an instance.
    pub certificate: Option<&'a ClientCertificate>,
    /// Its registration secret.
    pub secret: SecretShown,
    /// The keys it says it holds; empty when it does not say.
    pub held_keys: &'a [PublicKey],
}

/// What to ask of the client first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirstStep {
    /// A new public key: the registration secret was right.
    RequestKey,
    /// A signature by this key.
    Challenge(PublicKey, ChallengePurpose),
}

/// Says what to ask first.
///
/// # Errors
/// A [`Refusal`] that tells a stranger nothing about locks, limits or counts.
pub fn open(known: Known<'_>, opening: Opening<'_>, now: Timestamp) -> Result<FirstStep, Refusal> {
    known.admitting_bot(now).ok_or_else(Refusal::access_denied)?;
    let token = known.token;
    let Some(binding) = &token.binding else {
        if opening.certificate.is_some() {
            return Err(Refusal::new(
                Code::BindingNotAllowed,
                "the token has no bound key, and a client that already has credentials cannot start a binding: join \
                 without the client certificate",
            ));
        }
        if let Some(key) = &token.spec.initial_public_key {
            return Ok(FirstStep::Challenge(key.clone(), ChallengePurpose::Preregistered));
        }
        return match opening.secret {
            SecretShown::Right if token.takes_secret(now) => Ok(FirstStep::RequestKey),
            _ => Err(Refusal::new(
                Code::RegistrationSecretRequired,
                "the registration secret is missing, wrong, used or expired",
            )),
        };
    };
    let held = |key: &PublicKey| opening.held_keys.contains(key);
    let retired = token.retired.iter().find(|retired| retired.is_evidence && held(&retired.key));
    match retired {
        // Without this, a thief who was the first to answer a rotation would have taken over in silence.
        Some(retired) if !held(&binding.key) => {
            Ok(FirstStep::Challenge(retired.key.clone(), ChallengePurpose::Retired))
        }
        _ => Ok(FirstStep::Challenge(binding.key.clone(), ChallengePurpose::Bound)),
    }
}
