//! What administrators may do to a token, and what it means (protocol, sections 2 and 7).

use chrono::TimeDelta;

use crate::{
    Timestamp,
    event::{
        Event, ExemptionGranted, ExemptionRef, LockDeleted, Nothing, SecretHash, TokenCreated, TokenReinstated,
        TokenReopened, TokenUpdated,
    },
    id::{BotId, GrantId, LockId, Name},
    refusal::{Code, Refusal},
    resource::{ExemptionKind, LockTarget, MAX_TEXT, RecoveryMode, TokenSpec, is_text},
    state::{LockState, TokenState},
};

/// How long an exemption lasts when nobody says, in hours.
pub const GRANT_HOURS: i64 = 24;
/// The most uses, and the most recoveries, of one grant.
pub const MAX_USES: u32 = 1000;

/// Where the registration secret of a written token comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretSource {
    /// There is none: a key is preregistered, or bound already.
    None,
    /// The one that is stored.
    Kept,
    /// The one that the administrator wrote.
    Written,
    /// A new one.
    Generated,
}

/// The revision of what is written once and never changed: of exemptions and bot instances.
pub const ONLY_REVISION: u64 = 1;

/// A lock as written.
#[derive(Debug)]
pub struct LockWritten {
    /// Its id, when one was written.
    pub id: Option<LockId>,
    /// What it locks.
    pub target: LockTarget,
    /// Why.
    pub message: String,
    /// When it ends.
    pub expires: Option<Timestamp>,
    /// The revision that was edited.
    pub revision: String,
}

/// A token as written by an administrator, with hashes of the secrets that it may get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenWritten {
    /// Its name.
    pub name: Name,
    /// The bot, by id.
    pub bot: BotId,
    /// Its specification.
    pub spec: TokenSpec,
    /// Hash of the secret that the administrator wrote.
    pub written_secret: Option<SecretHash>,
    /// Hash of a new secret, should one be needed.
    pub generated_secret: SecretHash,
}

/// Creates a token.
///
/// # Errors
/// A [`Refusal`] that names the field.
pub fn create_token(written: TokenWritten) -> Result<(Event, SecretSource), Refusal> {
    check_token(&written.spec, written.written_secret.is_some())?;
    let (source, secret) = secret_of(&written, None);
    let TokenWritten { name, bot, spec, .. } = written;
    Ok((Event::TokenCreated(TokenCreated { name, bot, spec, secret }), source))
}

/// Replaces a token's specification. The status stays, unless bot or roles change: then it is a new binding.
///
/// # Errors
/// A [`Refusal`] that names the field.
pub fn update_token(token: &TokenState, mut written: TokenWritten) -> Result<(Event, SecretSource), Refusal> {
    let rebind = token.bot != written.bot || token.spec.roles != written.spec.roles;
    if token.binding.is_some() && !rebind {
        // After the first join, onboarding is no longer looked at.
        written.spec.initial_public_key.clone_from(&token.spec.initial_public_key);
        written.spec.must_register_before = token.spec.must_register_before;
        let TokenWritten { bot, spec, .. } = written;
        let event = TokenUpdated { bot, spec, secret: token.secret.clone(), rebind };
        return Ok((Event::TokenUpdated(event), SecretSource::None));
    }
    check_token(&written.spec, written.written_secret.is_some())?;
    let bound = token.binding.as_ref().map(|binding| &binding.key);
    if let Some(key) = &written.spec.initial_public_key
        && (bound == Some(key) || token.retired.iter().any(|retired| retired.key == *key))
    {
        return Err(Refusal::new(
            Code::KeyReused,
            "spec.bound_keypair.onboarding.initial_public_key is a key that this token had before: make a new keypair",
        ));
    }
    let (source, secret) = secret_of(&written, token.secret.clone().filter(|_| !rebind));
    let TokenWritten { bot, spec, .. } = written;
    Ok((Event::TokenUpdated(TokenUpdated { bot, spec, secret, rebind }), source))
}

/// Refuses a specification that no token can begin with.
///
/// # Errors
/// A [`Refusal`] that names the field.
pub fn check_token(spec: &TokenSpec, has_secret: bool) -> Result<(), Refusal> {
    if spec.roles != ["Bot"] {
        return Err(Refusal::invalid("spec.roles", "must be [Bot]: a bound keypair admits bots only"));
    }
    if has_secret && spec.initial_public_key.is_some() {
        return Err(Refusal::invalid(
            "spec.bound_keypair.onboarding",
            "it has both registration_secret and initial_public_key: give one of them",
        ));
    }
    Ok(())
}

fn secret_of(written: &TokenWritten, kept: Option<SecretHash>) -> (SecretSource, Option<SecretHash>) {
    match (&written.spec.initial_public_key, &written.written_secret, kept) {
        (Some(_), ..) => (SecretSource::None, None),
        (None, Some(secret), _) => (SecretSource::Written, Some(secret.clone())),
        (None, None, Some(secret)) => (SecretSource::Kept, Some(secret)),
        (None, None, None) => (SecretSource::Generated, Some(written.generated_secret.clone())),
    }
}

/// Asks for a new key at the next join.
///
/// # Errors
/// INVALID_REQUEST for a static key, which can't be rotated.
pub fn rotate(token: &TokenState, now: Timestamp) -> Result<Event, Refusal> {
    if token.spec.recovery.mode == RecoveryMode::Insecure {
        return Err(Refusal::new(
            Code::InvalidRequest,
            "the token's mode is insecure: its static key can't be rotated, and a join would only fail",
        ));
    }
    let spec = TokenSpec { rotate_after: Some(now), ..token.spec.clone() };
    Ok(Event::TokenUpdated(TokenUpdated { bot: token.bot, spec, secret: token.secret.clone(), rebind: false }))
}

/// Deletes a token; its history stays.
pub fn delete_token() -> Event {
    Event::TokenDeleted(Nothing {})
}

/// The locks that end with a binding, when the token is deleted or gets another bot by this event: those that a rule made,
/// because of its holders. What an administrator locked by name stays locked, whoever has the name next.
pub fn locks_ended_by(event: &Event, token: &TokenState, locks: &[LockState]) -> Vec<(LockId, Event)> {
    let why = match event {
        Event::TokenDeleted(_) => "the token was deleted",
        Event::TokenUpdated(updated) if updated.rebind => "the token got another bot",
        _ => return Vec::new(),
    };
    let ended = own_locks(token, locks).filter(|lock| lock.cause.is_some());
    let deleted = || Event::LockDeleted(LockDeleted { reason: Some(why.to_owned()) });
    ended.map(|lock| (lock.id, deleted())).collect()
}

/// A grant as asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantAsked {
    /// What it lets pass.
    pub kind: ExemptionKind,
    /// Recoveries for each use; only for [`ExemptionKind::Recoveries`].
    pub count: u32,
    /// How many joins may spend it.
    pub uses: u32,
    /// When it ends; none for [`GRANT_HOURS`].
    pub expires: Option<Timestamp>,
    /// Why; required.
    pub reason: String,
}

/// Grants an exemption.
///
/// # Errors
/// A [`Refusal`] that names the field.
pub fn grant(asked: &GrantAsked, id: GrantId, now: Timestamp) -> Result<Event, Refusal> {
    let uses = check_grant(asked)?;
    let expires = asked.expires.unwrap_or(now + TimeDelta::hours(GRANT_HOURS));
    if expires <= now {
        return Err(Refusal::invalid("metadata.expires", "it is past: an exemption must end in the future"));
    }
    let reason = asked.reason.trim().to_owned();
    Ok(Event::ExemptionGranted(ExemptionGranted { grant: id, exemption: asked.kind, uses, expires, reason }))
}

/// How many joins may spend what is asked for, of whatever token.
///
/// # Errors
/// A [`Refusal`] that names the field.
pub fn check_grant(asked: &GrantAsked) -> Result<u32, Refusal> {
    check_reason("spec.reason", &asked.reason)?;
    if asked.kind == ExemptionKind::Reinstatement {
        return Err(Refusal::invalid(
            "spec.kind",
            "must be recoveries, join_state or generation: a bundle comes of `joinctl reinstate`",
        ));
    }
    if asked.kind != ExemptionKind::Recoveries && asked.count > 1 {
        return Err(Refusal::invalid("spec.count", "it is for the kind recoveries only: use spec.uses for the others"));
    }
    let uses = asked.count.max(1).saturating_mul(asked.uses.max(1));
    if uses > MAX_USES {
        let why = format!("count and uses allow more than {MAX_USES} joins together: grant less");
        return Err(Refusal::invalid("spec.uses", why));
    }
    Ok(uses)
}

/// Revokes a grant that is not spent.
///
/// # Errors
/// NOT_FOUND when the token has no such open grant.
pub fn revoke(token: &TokenState, id: GrantId, now: Timestamp) -> Result<Event, Refusal> {
    if token.grants.iter().any(|grant| grant.id == id && grant.is_open(now)) {
        Ok(Event::ExemptionRevoked(ExemptionRef { grant: id }))
    } else {
        Err(Refusal::new(Code::NotFound, format!("exemption {id} is not open: it is spent, revoked or expired")))
    }
}

/// What an administrator does to a token and its own locks together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenAct {
    /// Of the token's stream.
    pub events: Vec<Event>,
    /// Of the streams of the token's own locks.
    pub released: Vec<(LockId, Event)>,
}

/// Admits a locked bot again: releases the token's own locks, forgets the latest attempt and the retired keys, and lets
/// the next join pass.
///
/// # Errors
/// INVALID_REQUEST without a reason.
pub fn reinstate(
    token: &TokenState,
    locks: &[LockState],
    reason: &str,
    id: GrantId,
    now: Timestamp,
) -> Result<TokenAct, Refusal> {
    check_reason("reason", reason)?;
    let released: Vec<LockId> = own_locks(token, locks).map(|lock| lock.id).collect();
    let replaced = token.grants.iter().filter(|grant| grant.kind == ExemptionKind::Reinstatement && grant.is_open(now));
    let mut events: Vec<Event> =
        replaced.map(|grant| Event::ExemptionRevoked(ExemptionRef { grant: grant.id })).collect();
    let reason = reason.trim().to_owned();
    events.push(Event::TokenReinstated(TokenReinstated { reason: reason.clone(), released: released.clone() }));
    events.push(Event::ExemptionGranted(ExemptionGranted {
        grant: id,
        exemption: ExemptionKind::Reinstatement,
        uses: 1,
        expires: now + TimeDelta::hours(GRANT_HOURS),
        reason: reason.clone(),
    }));
    let release = |id| (id, Event::LockDeleted(LockDeleted { reason: Some(format!("reinstated: {reason}")) }));
    Ok(TokenAct { events, released: released.into_iter().map(release).collect() })
}

/// Unbinds key and instance, and opens registration again with a new secret.
///
/// # Errors
/// INVALID_REQUEST without a reason.
pub fn reopen(token: &TokenState, locks: &[LockState], reason: &str, secret: SecretHash) -> Result<TokenAct, Refusal> {
    check_reason("reason", reason)?;
    let reason = reason.trim().to_owned();
    let release =
        |lock: &LockState| (lock.id, Event::LockDeleted(LockDeleted { reason: Some(format!("reopened: {reason}")) }));
    let released = own_locks(token, locks).map(release).collect();
    Ok(TokenAct { events: vec![Event::TokenReopened(TokenReopened { reason, secret })], released })
}

/// The live locks on the token itself.
fn own_locks<'a>(token: &TokenState, locks: &'a [LockState]) -> impl Iterator<Item = &'a LockState> {
    let own = LockTarget::JoinToken(token.name.clone());
    locks.iter().filter(move |lock| lock.live && lock.target == own)
}

fn check_reason(field: &str, reason: &str) -> Result<(), Refusal> {
    match reason.trim() {
        "" => Err(Refusal::invalid(field, "missing; it stands in the ledger")),
        reason if !is_text(reason) => {
            Err(Refusal::invalid(field, format!("not up to {MAX_TEXT} printable bytes: shorten it, or type it anew")))
        }
        _ => Ok(()),
    }
}
