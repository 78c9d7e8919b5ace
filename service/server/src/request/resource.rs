//! Resources on the wire ↔ the domain's own types. Bad input is refused here, with the field's name.

use std::collections::BTreeMap;

use join_domain::{
    Timestamp,
    decision::administer::GrantAsked,
    id::{Name, user_name},
    key::PublicKey,
    refusal::Refusal,
    resource::{
        BotSpec, ExemptionKind, Labels, LockTarget, MAX_ITEMS, MAX_SECRET, MAX_TEXT, MAX_VALUE, Recovery, RecoveryMode,
        TokenSpec, is_label, is_secret, is_text, is_value,
    },
    state::{BotState, LockState, TokenState, token::Grant},
};
use join_proto::{JOIN_METHOD, v1};

use super::values::{optional_time, to_wire_time};
use crate::ceremony::administer::{LockWritten, ONLY_REVISION};

/// The most bytes of a specification, as JSON.
pub(crate) const MAX_SPEC: usize = 16 * 1024;

/// What stands around a specification.
#[derive(Debug, Clone, Default)]
pub struct Head {
    /// The name; empty when none was written.
    pub name: String,
    /// Labels.
    pub labels: Labels,
    /// Expiry.
    pub expires: Option<Timestamp>,
    /// The revision that was edited; empty when none was written.
    pub revision: String,
}

impl Head {
    /// Reads kind, version and metadata.
    fn read(
        expected: (&str, &str),
        kind: &str,
        version: &str,
        metadata: Option<&v1::Metadata>,
    ) -> Result<Self, Refusal> {
        for (field, written, expected) in [("kind", kind, expected.0), ("version", version, expected.1)] {
            if !written.is_empty() && written != expected {
                return Err(Refusal::invalid(field, format!("`{written}` must be `{expected}` here")));
            }
        }
        let metadata = metadata.cloned().unwrap_or_default();
        if metadata.labels.len() > MAX_ITEMS {
            return Err(Refusal::invalid("metadata.labels", format!("more than {MAX_ITEMS} labels")));
        }
        for (key, value) in &metadata.labels {
            if !is_label(key, value) {
                let rule = "is not a label: key and value have up to";
                let what = format!("{key:?} {rule} {MAX_VALUE} printable bytes, the key without = and ,");
                return Err(Refusal::invalid("metadata.labels", what));
            }
        }
        Ok(Self {
            name: metadata.name,
            labels: metadata.labels.into_iter().collect(),
            expires: optional_time("metadata.expires", metadata.expires.as_ref())?,
            revision: metadata.revision,
        })
    }

    /// The name, which must be one.
    ///
    /// # Errors
    /// INVALID_REQUEST.
    pub fn name(&self) -> Result<Name, Refusal> {
        self.name.parse().map_err(|error| Refusal::invalid("metadata.name", error))
    }

    fn write(name: String, labels: &Labels, expires: Option<Timestamp>, revision: u64) -> v1::Metadata {
        v1::Metadata {
            name,
            labels: labels.clone().into_iter().collect(),
            expires: expires.map(to_wire_time),
            revision: revision.to_string(),
        }
    }
}

/// Reads a bot.
///
/// # Errors
/// INVALID_REQUEST with the field.
pub fn read_bot(bot: v1::Bot) -> Result<(Head, BotSpec), Refusal> {
    let head = Head::read(("bot", "v1"), &bot.kind, &bot.version, bot.metadata.as_ref())?;
    let spec = bot.spec.unwrap_or_default();
    check_list("spec.roles", &spec.roles)?;
    let mut traits = BTreeMap::new();
    for (at, named) in spec.traits.into_iter().enumerate() {
        check_list(&format!("spec.traits[{at}].values"), &named.values)?;
        if !is_value(&named.name) {
            return Err(Refusal::invalid(
                &format!("spec.traits[{at}].name"),
                format!("a trait needs a name of up to {MAX_VALUE} printable bytes"),
            ));
        }
        if traits.insert(named.name.clone(), named.values).is_some() {
            return Err(Refusal::invalid("spec.traits", format!("`{}` is there twice", named.name)));
        }
    }
    let spec = BotSpec { roles: spec.roles, traits, labels: head.labels.clone(), expires: head.expires };
    check_size(&spec)?;
    Ok((head, spec))
}

/// Each join records its bot's roles and logins, so what a resource holds must fit into an entry of the log many times.
fn check_size(spec: &impl serde::Serialize) -> Result<(), Refusal> {
    match serde_json::to_vec(spec) {
        Ok(text) if text.len() <= MAX_SPEC => Ok(()),
        _ => Err(Refusal::invalid("spec", format!("larger than {MAX_SPEC} bytes with its labels"))),
    }
}

fn check_list(field: &str, values: &[String]) -> Result<(), Refusal> {
    if values.len() > MAX_ITEMS {
        return Err(Refusal::invalid(field, format!("more than {MAX_ITEMS} values")));
    }
    match values.iter().find(|value| !is_value(value)) {
        Some(value) => Err(Refusal::invalid(
            field,
            format!("`{}` is not a value of 1 to {MAX_VALUE} printable bytes", value.escape_debug()),
        )),
        None => Ok(()),
    }
}

/// Writes a bot.
pub fn write_bot(bot: &BotState, revision: u64) -> v1::Bot {
    let traits = bot.spec.traits.iter();
    v1::Bot {
        kind: "bot".to_owned(),
        version: "v1".to_owned(),
        metadata: Some(Head::write(bot.name.to_string(), &bot.spec.labels, bot.spec.expires, revision)),
        spec: Some(v1::BotSpec {
            roles: bot.spec.roles.clone(),
            traits: traits.map(|(name, values)| v1::Trait { name: name.clone(), values: values.clone() }).collect(),
        }),
        status: Some(v1::BotStatus { user_name: user_name(&bot.name) }),
    }
}

/// Reads a token: its specification, and the registration secret that was written, if any.
///
/// # Errors
/// INVALID_REQUEST or UNSUPPORTED_KEY with the field.
pub fn read_token(token: v1::Token) -> Result<(Head, TokenSpec, Option<String>), Refusal> {
    let head = Head::read(("token", "v2"), &token.kind, &token.version, token.metadata.as_ref())?;
    let spec = token.spec.unwrap_or_default();
    if spec.join_method != JOIN_METHOD {
        return Err(Refusal::invalid(
            "spec.join_method",
            format!("`{}` is not served: use bound_keypair", spec.join_method.escape_debug()),
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

/// Reads a lock.
///
/// # Errors
/// INVALID_REQUEST or UNSUPPORTED_KEY with the field.
pub fn read_lock(lock: v1::Lock) -> Result<LockWritten, Refusal> {
    let head = Head::read(("lock", "v2"), &lock.kind, &lock.version, lock.metadata.as_ref())?;
    let id = match head.name.as_str() {
        "" => None,
        name => Some(
            name.parse().map_err(|_| Refusal::invalid("metadata.name", "the name of a lock is a UUID, or left out"))?,
        ),
    };
    let spec = lock.spec.unwrap_or_default();
    if !is_text(&spec.message) {
        return Err(Refusal::invalid("spec.message", format!("not up to {MAX_TEXT} printable bytes")));
    }
    let target = spec.target.unwrap_or_default();
    let written: Vec<Result<LockTarget, Refusal>> = [
        (!target.user.is_empty())
            .then(|| LockTarget::user(&target.user).map_err(|error| Refusal::invalid("spec.target.user", error))),
        (!target.bot_instance_id.is_empty()).then(|| {
            let id = target.bot_instance_id.parse();
            id.map(LockTarget::BotInstanceId).map_err(|_| Refusal::invalid("spec.target.bot_instance_id", "not a UUID"))
        }),
        (!target.join_token.is_empty()).then(|| {
            let name = target.join_token.parse();
            name.map(LockTarget::JoinToken).map_err(|error| Refusal::invalid("spec.target.join_token", error))
        }),
        (!target.public_key.is_empty()).then(|| {
            LockTarget::public_key(&target.public_key)
                .map_err(|error| Refusal::of_key("spec.target.public_key", &error))
        }),
    ]
    .into_iter()
    .flatten()
    .collect();
    let [target] = <[_; 1]>::try_from(written).map_err(|_| {
        Refusal::invalid("spec.target", "give exactly one of user, bot_instance_id, join_token and public_key")
    })?;
    Ok(LockWritten { id, target: target?, message: spec.message, expires: head.expires, revision: head.revision })
}

/// Writes a lock.
pub fn write_lock(lock: &LockState, revision: u64) -> v1::Lock {
    let mut target = v1::LockTarget::default();
    match &lock.target {
        LockTarget::User(bot) => target.user = user_name(bot),
        LockTarget::BotInstanceId(id) => target.bot_instance_id = id.to_string(),
        LockTarget::JoinToken(name) => target.join_token = name.to_string(),
        LockTarget::PublicKey(fingerprint) => target.public_key.clone_from(fingerprint),
    }
    v1::Lock {
        kind: "lock".to_owned(),
        version: "v2".to_owned(),
        metadata: Some(Head::write(lock.id.to_string(), &Labels::new(), lock.expires, revision)),
        spec: Some(v1::LockSpec { target: Some(target), message: lock.message.clone() }),
        status: Some(v1::LockStatus {
            created_at: Some(to_wire_time(lock.created_at)),
            created_by: lock.by.clone(),
            cause: lock.cause.map(|code| code.as_str().to_owned()).unwrap_or_default(),
        }),
    }
}

/// Reads an exemption: the token's name (empty with a selector) and what is asked for.
///
/// # Errors
/// INVALID_REQUEST with the field.
pub fn read_exemption(exemption: v1::Exemption) -> Result<(String, GrantAsked), Refusal> {
    let head = Head::read(("exemption", "v1"), &exemption.kind, &exemption.version, exemption.metadata.as_ref())?;
    let spec = exemption.spec.unwrap_or_default();
    let kind = spec.kind.parse::<ExemptionKind>().map_err(|error| Refusal::invalid("spec.kind", error))?;
    let asked = GrantAsked { kind, count: spec.count, uses: spec.uses, expires: head.expires, reason: spec.reason };
    Ok((spec.token_name, asked))
}

/// Writes an exemption of a token.
pub fn write_exemption(token: &TokenState, grant: &Grant, now: Timestamp) -> v1::Exemption {
    let state = if grant.revoked {
        "revoked"
    } else if grant.uses_left == 0 {
        "spent"
    } else if now >= grant.expires {
        "expired"
    } else {
        "open"
    };
    v1::Exemption {
        kind: "exemption".to_owned(),
        version: "v1".to_owned(),
        metadata: Some(Head::write(grant.id.to_string(), &token.spec.labels, Some(grant.expires), ONLY_REVISION)),
        spec: Some(v1::ExemptionSpec {
            token_name: token.name.to_string(),
            kind: grant.kind.as_str().to_owned(),
            count: 1,
            uses: grant.uses,
            reason: grant.reason.clone(),
        }),
        status: Some(v1::ExemptionStatus {
            granted_by: grant.granted_by.clone(),
            granted_at: Some(to_wire_time(grant.granted_at)),
            uses_left: grant.uses_left,
            state: state.to_owned(),
        }),
    }
}
