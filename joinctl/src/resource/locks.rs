//! Locks, and which of them stop a token.

use std::collections::HashMap;

use join_domain::{id::Name, key::PublicKey};
use join_proto::v1::{Lock, LockTarget, Token};
use prost_types::Timestamp;

use super::{Kind, Resource};
use crate::{
    connection::{Client, Selection},
    moment::is_before,
    token,
};

/// The locks that were there at a moment, by what they lock.
pub(crate) struct Locks {
    now: Timestamp,
    by_target: HashMap<LockTarget, Vec<Lock>>,
}

impl Locks {
    /// The locks as they are, or as they were at a moment.
    pub(crate) async fn fetch(client: &Client, at: Option<Timestamp>) -> anyhow::Result<Self> {
        let now = moment(client, at).await?;
        let found = client.all(Kind::Lock, &Selection { at, ..Default::default() }).await?;
        let locks = found.into_iter().filter_map(|found| match found {
            Resource::Lock(lock) => Some(lock),
            _ => None,
        });
        Ok(Self::of(now, locks))
    }

    pub(super) fn of(now: Timestamp, locks: impl IntoIterator<Item = Lock>) -> Self {
        let mut by_target: HashMap<_, Vec<_>> = HashMap::new();
        for lock in locks {
            let target = lock.spec.as_ref().and_then(|spec| spec.target.clone()).unwrap_or_default();
            by_target.entry(target).or_default().push(lock);
        }
        Self { now, by_target }
    }

    /// The moment of which they are.
    pub(crate) fn now(&self) -> Timestamp {
        self.now
    }

    /// Those in force that stop the token's next join: on its name, on the user of its bot, on the instance and the key
    /// that it is bound to.
    pub(crate) fn on(&self, token: &Token) -> impl Iterator<Item = &Lock> {
        let on_targets = targets(token).into_iter().filter_map(|target| self.by_target.get(&target)).flatten();
        on_targets.filter(|lock| self.is_in_force(lock))
    }

    /// False for one that has expired.
    pub(crate) fn is_in_force(&self, lock: &Lock) -> bool {
        let expires = lock.metadata.as_ref().and_then(|metadata| metadata.expires.as_ref());
        expires.is_none_or(|end| is_before(&self.now, end))
    }

    /// Those on the token's name, which a reinstatement releases.
    pub(crate) fn on_name(&self, token: &Token) -> impl Iterator<Item = &Lock> {
        self.by_target.get(&named(token)).into_iter().flatten()
    }

    /// True while there is a lock of that name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.by_target.values().flatten().any(|lock| lock_name(lock) == name)
    }
}

/// The authority's time, where no other moment is asked for.
pub(super) async fn moment(client: &Client, at: Option<Timestamp>) -> anyhow::Result<Timestamp> {
    match at {
        Some(at) => Ok(at),
        None => client.now().await,
    }
}

/// The lock's name, a UUID.
pub(crate) fn lock_name(lock: &Lock) -> &str {
    lock.metadata.as_ref().map_or("", |metadata| metadata.name.as_str())
}

/// True when the lock's target is the token's name, its bot's user, or the instance or key that it is bound to.
pub(crate) fn is_on(lock: &Lock, token: &Token) -> bool {
    lock.spec.as_ref().and_then(|spec| spec.target.as_ref()).is_some_and(|target| targets(token).contains(target))
}

/// The token that a rule locked, and why: its error code. None of a lock that an administrator made.
pub(crate) fn locked_by_rule(lock: &Lock) -> Option<(&str, &str)> {
    let cause = lock.status.as_ref().map(|status| status.cause.as_str()).filter(|cause| !cause.is_empty())?;
    let token = lock.spec.as_ref()?.target.as_ref()?.join_token.as_str();
    (!token.is_empty()).then_some((token, cause))
}

/// What the lock says to those who are refused, in one line.
pub(crate) fn message(lock: &Lock) -> String {
    let message = lock.spec.as_ref().map(|spec| spec.message.as_str()).unwrap_or_default();
    if message.is_empty() { "no message".to_owned() } else { message.replace('\n', " ") }
}

fn named(token: &Token) -> LockTarget {
    LockTarget { join_token: token::name(token).to_owned(), ..Default::default() }
}

fn targets(token: &Token) -> Vec<LockTarget> {
    let spec = token.spec.clone().unwrap_or_default();
    let bound = token.status.clone().and_then(|status| status.bound_keypair).unwrap_or_default();
    let mut targets = vec![named(token)];
    if let Ok(bot) = spec.bot_name.parse::<Name>() {
        targets.push(LockTarget { user: join_domain::id::user_name(&bot), ..Default::default() });
    }
    if !bound.bound_bot_instance_id.is_empty() {
        targets.push(LockTarget { bot_instance_id: bound.bound_bot_instance_id, ..Default::default() });
    }
    // A first join proves the preregistered key.
    let preregistered = spec.bound_keypair.and_then(|settings| settings.onboarding).unwrap_or_default();
    let key = Some(bound.bound_public_key).filter(|key| !key.is_empty()).unwrap_or(preregistered.initial_public_key);
    if let Ok(key) = PublicKey::from_authorized_key(key.as_bytes()) {
        targets.push(LockTarget { public_key: key.fingerprint(), ..Default::default() });
    }
    targets
}

#[cfg(test)]
pub(super) mod tests {
    use join_proto::v1::{BoundKeypairStatus, LockSpec, Metadata, TokenSpec, TokenStatus};
    use rstest::rstest;

    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFi1AGLjk14Nr+eEm4PJbOG5yiYj+eEAsrZDo6l0y8d+";

    pub(in crate::resource) fn lock(target: LockTarget, expires: Option<&str>) -> Lock {
        let expires = expires.map(|time| time.parse().unwrap());
        Lock {
            metadata: Some(Metadata { name: "0b6c".into(), expires, ..Default::default() }),
            spec: Some(LockSpec { target: Some(target), message: String::new() }),
            ..Default::default()
        }
    }

    fn bound() -> Token {
        let status = BoundKeypairStatus {
            bound_public_key: KEY.into(),
            bound_bot_instance_id: "6f0c".into(),
            ..Default::default()
        };
        Token {
            metadata: Some(Metadata { name: "web-1".into(), ..Default::default() }),
            spec: Some(TokenSpec { bot_name: "web".into(), ..Default::default() }),
            status: Some(TokenStatus { bound_keypair: Some(status) }),
            ..Default::default()
        }
    }

    fn stops(target: LockTarget, expires: Option<&str>) -> bool {
        let locks = Locks::of("2026-01-31T12:00:00Z".parse().unwrap(), [lock(target, expires)]);
        locks.on(&bound()).next().is_some()
    }

    fn fingerprint() -> String {
        PublicKey::from_authorized_key(KEY.as_bytes()).unwrap().fingerprint()
    }

    #[rstest]
    #[case(LockTarget { join_token: "web-1".into(), ..Default::default() }, true)]
    #[case(LockTarget { join_token: "web".into(), ..Default::default() }, false)]
    #[case(LockTarget { user: "bot-web".into(), ..Default::default() }, true)]
    #[case(LockTarget { user: "bot-web-1".into(), ..Default::default() }, false)]
    #[case(LockTarget { bot_instance_id: "6f0c".into(), ..Default::default() }, true)]
    #[case(LockTarget { public_key: fingerprint(), ..Default::default() }, true)]
    #[case(LockTarget::default(), false)]
    fn a_token_is_stopped_by_locks_on_name_user_instance_and_key(#[case] target: LockTarget, #[case] stopped: bool) {
        assert_eq!(stops(target, None), stopped);
    }

    #[test]
    fn a_lock_that_has_expired_stops_nothing() {
        let target = || LockTarget { join_token: "web-1".into(), ..Default::default() };
        assert!(stops(target(), Some("2026-01-31T12:00:01Z")));
        assert!(!stops(target(), Some("2026-01-31T12:00:00Z")));
    }
}
