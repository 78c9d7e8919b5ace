//! Locks.

use join_domain::{
    decision::administer::LockWritten,
    id::user_name,
    refusal::Refusal,
    resource::{Labels, LockTarget, MAX_TEXT, is_text},
    state::LockState,
};
use join_proto::v1;

use crate::{Head, shown, time::to_wire_time};

/// Reads a lock.
///
/// # Errors
/// INVALID_REQUEST or UNSUPPORTED_KEY with the field.
pub fn read_lock(lock: v1::Lock) -> Result<LockWritten, Refusal> {
    let head = Head::read(("lock", "v2"), &lock.kind, &lock.version, lock.metadata)?;
    head.has_none("labels", head.labels.is_empty())?;
    let id = match head.name.as_str() {
        "" => None,
        name => Some(
            name.parse().map_err(|_| Refusal::invalid("metadata.name", "the name of a lock is a UUID, or left out"))?,
        ),
    };
    let target = lock_target(lock.spec.as_ref())?;
    let message = lock.spec.unwrap_or_default().message;
    if !is_text(&message) {
        return Err(Refusal::invalid("spec.message", format!("not up to {MAX_TEXT} printable bytes")));
    }
    Ok(LockWritten { id, target, message, expires: head.expires, revision: head.revision })
}

/// The one thing that a lock locks.
///
/// # Errors
/// INVALID_REQUEST or UNSUPPORTED_KEY with the field.
pub fn lock_target(spec: Option<&v1::LockSpec>) -> Result<LockTarget, Refusal> {
    let target = spec.and_then(|spec| spec.target.clone()).unwrap_or_default();
    let mut given = [
        ("user", target.user),
        ("bot_instance_id", target.bot_instance_id),
        ("join_token", target.join_token),
        ("public_key", target.public_key),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_empty());
    let (Some((field, value)), None) = (given.next(), given.next()) else {
        let wanted = "give exactly one of user, bot_instance_id, join_token and public_key";
        return Err(Refusal::invalid("spec.target", wanted));
    };
    let path = format!("spec.target.{field}");
    match field {
        "user" => LockTarget::user(&value).map_err(|error| Refusal::invalid(&path, error)),
        "bot_instance_id" => value
            .parse()
            .map(LockTarget::BotInstanceId)
            .map_err(|_| Refusal::invalid(&path, format!("`{}` is not a UUID", shown(&value)))),
        "join_token" => value.parse().map(LockTarget::JoinToken).map_err(|error| Refusal::invalid(&path, error)),
        _ => LockTarget::public_key(&value).map_err(|error| Refusal::of_key(&path, &error)),
    }
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
