//! Tokens.

use join_domain::{
    Timestamp,
    key::PublicKey,
    refusal::Refusal,
    resource::{MAX_SECRET, Recovery, RecoveryMode, TokenSpec, is_secret},
    state::TokenState,
};
use join_proto::{JOIN_METHOD, v1};

use crate::{
    Head, check_size, shown,
    time::{optional_time, to_wire_time},
};

/// Reads a token: its specification, and the registration secret that was written, if any.
///
/// # Errors
/// INVALID_REQUEST or UNSUPPORTED_KEY with the field.
pub fn read_token(token: v1::Token) -> Result<(Head, TokenSpec, Option<String>), Refusal> {
    let head = Head::read(("token", "v2"), &token.kind, &token.version, token.metadata)?;
    let spec = token.spec.unwrap_or_default();
    if spec.join_method != JOIN_METHOD {
        return Err(Refusal::invalid(
            "spec.join_method",
            format!("`{}` is not served: use {JOIN_METHOD}", shown(&spec.join_method)),
        ));
    }
    let bound_keypair = spec.bound_keypair.unwrap_or_default();
    let onboarding = bound_keypair.onboarding.unwrap_or_default();
    let field = "spec.bound_keypair.onboarding.initial_public_key";
    let initial_public_key = match onboarding.initial_public_key.as_str() {
        "" => None,
        line => Some(PublicKey::from_authorized_key(line.as_bytes()).map_err(|error| Refusal::of_key(field, &error))?),
    };
    let secret = onboarding.registration_secret;
    if !secret.is_empty() && !is_secret(&secret) {
        return Err(Refusal::invalid(
            "spec.bound_keypair.onboarding.registration_secret",
            format!("not 1 to {MAX_SECRET} printable bytes"),
        ));
    }
    let recovery = bound_keypair.recovery.unwrap_or_default();
    let defaults = Recovery::default();
    let mode = match recovery.mode.as_deref() {
        None | Some("") => defaults.mode,
        Some(mode) => {
            mode.parse::<RecoveryMode>().map_err(|error| Refusal::invalid("spec.bound_keypair.recovery.mode", error))?
        }
    };
    let spec = TokenSpec {
        roles: spec.roles,
        bot_name: spec.bot_name.parse().map_err(|error| Refusal::invalid("spec.bot_name", error))?,
        initial_public_key,
        must_register_before: optional_time(
            "spec.bound_keypair.onboarding.must_register_before",
            onboarding.must_register_before.as_ref(),
        )?,
        recovery: Recovery { mode, limit: recovery.limit.unwrap_or(defaults.limit) },
        rotate_after: optional_time("spec.bound_keypair.rotate_after", bound_keypair.rotate_after.as_ref())?,
        labels: head.labels.clone(),
        expires: head.expires,
    };
    check_size(&spec)?;
    Ok((head, spec, Some(secret).filter(|secret| !secret.is_empty())))
}

/// Writes a token. The registration secret is shown in the status, to those who may see it.
pub fn write_token(token: &TokenState, secret: Option<String>, now: Timestamp) -> v1::Token {
    let spec = &token.spec;
    let latest = token.latest();
    v1::Token {
        kind: "token".to_owned(),
        version: "v2".to_owned(),
        metadata: Some(Head::write(token.name.to_string(), &spec.labels, spec.expires, token.revision)),
        spec: Some(v1::TokenSpec {
            roles: spec.roles.clone(),
            bot_name: spec.bot_name.to_string(),
            join_method: JOIN_METHOD.to_owned(),
            bound_keypair: Some(v1::BoundKeypairSpec {
                onboarding: Some(v1::Onboarding {
                    registration_secret: String::new(),
                    must_register_before: spec.must_register_before.map(to_wire_time),
                    initial_public_key: spec.initial_public_key.as_ref().map(ToString::to_string).unwrap_or_default(),
                }),
                recovery: Some(v1::Recovery {
                    mode: Some(spec.recovery.mode.as_str().to_owned()),
                    limit: Some(spec.recovery.limit),
                }),
                rotate_after: spec.rotate_after.map(to_wire_time),
            }),
        }),
        status: Some(v1::TokenStatus {
            bound_keypair: Some(v1::BoundKeypairStatus {
                registration_secret: secret.unwrap_or_default(),
                registration_secret_pending: token.takes_secret(now),
                bound_public_key: token.binding.as_ref().map(|binding| binding.key.to_string()).unwrap_or_default(),
                bound_bot_instance_id: token.instance().map(|id| id.to_string()).unwrap_or_default(),
                recovery_count: token.recovery_count,
                last_recovered_at: token.last_recovered_at.map(to_wire_time),
                last_rotated_at: token.last_rotated_at.map(to_wire_time),
                generation: latest.map(|latest| latest.join.generation).unwrap_or_default(),
                certificate_expires: latest.map(|latest| to_wire_time(latest.join.not_after)),
                contested_at: token.contested_at.map(to_wire_time),
                token_id: token.id.to_string(),
            }),
        }),
    }
}
