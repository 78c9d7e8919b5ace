//! What an accepted join hands out, signed from its record.

use std::{borrow::Cow, sync::Arc};

use join_credential::{BotGrant, Subject};
use join_domain::{
    decision::join::BACKDATED_SECONDS, event::JoinAccepted, key::PublicKey, proof::JoinState, refusal::Refusal,
    state::TokenState,
};

use crate::{
    ceremony::{Ceremonies, internal, pending::Pending},
    keyring::Opened,
};

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
    /// Whose keys signed it.
    pub keyring: Arc<Opened>,
}

impl Ceremonies {
    /// Signs what was recorded of a join; `token` is the state after it.
    pub(super) fn issue(&self, join: &JoinAccepted, token: &TokenState, pending: &Pending) -> Result<Joined, Refusal> {
        let bound_key = token.binding.as_ref().ok_or_else(|| internal("the accepted token has no key"))?.key.clone();
        let bot = &token.spec.bot_name;
        let issued_at = join.not_before.timestamp() + BACKDATED_SECONDS;
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
            None => Cow::Owned(
                Subject::read(&pending.subject_keys).map_err(|error| Refusal::invalid("public_keys", error))?,
            ),
        };
        let keyring = self.keyring.get();
        let credentials = keyring
            .issuer
            .issue(&BotGrant {
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
            keyring,
        })
    }
}
