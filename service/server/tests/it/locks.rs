//! Locks (protocol, sections 2, 3 and 8).

use chrono::TimeDelta;
use join_proto::v1::{self, LockTarget};
use rstest::rstest;

use crate::world::{Bot, FIRST, Key, NOTHING, REFUSED, Transport, World, wire_time};

/// What can be locked.
#[derive(Debug, Clone, Copy)]
enum Target {
    Token,
    User,
    Instance,
    Key,
    Fingerprint,
}

impl Target {
    fn of(self, bot: &Bot) -> LockTarget {
        let mut target = LockTarget::default();
        match self {
            Self::Token => target.join_token = bot.token.clone(),
            Self::User => target.user = format!("bot-{}", bot.token),
            Self::Instance => target.bot_instance_id = bot.certificate().instance(),
            Self::Key => target.public_key = bot.key().line(),
            Self::Fingerprint => target.public_key = bot.key().fingerprint(),
        }
        target
    }
}

#[rstest]
#[case::token(Target::Token)]
#[case::user(Target::User)]
#[case::instance(Target::Instance)]
#[case::key(Target::Key)]
#[case::fingerprint(Target::Fingerprint)]
#[tokio::test]
async fn a_lock_stops_renewals_and_recoveries(
    #[values(Transport::Grpc, Transport::Json)] over: Transport,
    #[case] target: Target,
) {
    let world = World::start().await;
    let mut bot = world.bot("example").limit(9).over(over).await;
    bot.join().await.unwrap();
    world.catch_up("example").await;
    let lock = world.operator.lock(target.of(&bot)).await.unwrap();
    world.catch_up("example").await;
    let name = lock.metadata.unwrap().name;
    assert_eq!(lock.status.unwrap().created_by, "admin/oscar");

    for _ in 0..2 {
        let refused = bot.join().await.unwrap_err();
        assert_eq!(refused, "LOCKED");
        assert_eq!(refused.lock.as_ref(), Some(&name));
        assert!(refused.message.contains("the host is being checked"), "{}", refused.message);
        assert_eq!(world.news("example").await, REFUSED);
    }
    assert_eq!(bot.joining().without_certificate().await.unwrap_err(), "LOCKED");
    assert_eq!(world.locks().await, 1, "refusals by a lock make no other");

    world.operator.unlock(&name).await.unwrap();
    bot.join().await.unwrap();
    assert_eq!(world.token("example").await.recovery_count, 1);
    assert_eq!(world.locks().await, 0);
    world.check().await;
}

#[rstest]
#[case::token(Target::Token)]
#[case::user(Target::User)]
#[case::key(Target::Key)]
#[tokio::test]
async fn a_lock_stops_a_first_join(
    #[values(Transport::Grpc, Transport::Json)] over: Transport,
    #[case] target: Target,
) {
    let world = World::start().await;
    let mut bot = world.bot("example").preregistered().over(over).await;
    let lock = world.operator.lock(target.of(&bot)).await.unwrap();
    world.catch_up("example").await;

    assert_eq!(bot.join().await.unwrap_err(), "LOCKED");

    assert_eq!(world.token("example").await.bound_public_key, "");
    assert_eq!(world.news("example").await, REFUSED);
    world.operator.unlock(&lock.metadata.unwrap().name).await.unwrap();
    world.catch_up("example").await;
    bot.join().await.unwrap();
    assert_eq!(world.news("example").await, FIRST);
    world.check().await;
}

#[tokio::test]
async fn a_locked_instance_does_not_join_another_token() {
    let world = World::start().await;
    let mut other = world.bot("other").await;
    other.join().await.unwrap();
    let mut bot = world.bot("example").limit(9).await;
    bot.join().await.unwrap();
    world.operator.lock(Target::Instance.of(&other)).await.unwrap();

    assert_eq!(bot.joining().with_certificate(other.certificate()).await.unwrap_err(), "LOCKED");
    bot.join().await.expect("its own instance is not locked");
    world.check().await;
}

#[tokio::test]
async fn a_new_key_that_is_locked_is_not_bound() {
    let world = World::start().await;
    let mut bot = world.bot("example").limit(9).await;
    bot.join().await.unwrap();
    let old = bot.key().line();
    world.admin.rotate("example").await.unwrap();
    let ceremony = bot.joining().begin().await.unwrap().answer().await.unwrap();
    // The key is offered, and locked before it is proven.
    let challenged = ceremony.answer().await.unwrap();
    let crate::world::Step::Challenge { key, .. } = &challenged.step else { panic!("a challenge") };
    let target = LockTarget { public_key: key.clone(), ..LockTarget::default() };
    world.operator.lock(target).await.unwrap();

    assert_eq!(challenged.finish().await.unwrap_err(), "LOCKED");

    assert_eq!(world.token("example").await.bound_public_key, old);
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn a_lock_ends_by_itself(#[values(Transport::Grpc, Transport::Json)] over: Transport) {
    let world = World::start().await;
    let mut bot = world.bot("example").limit(9).over(over).await;
    bot.join().await.unwrap();
    let end = wire_time(world.now() + TimeDelta::minutes(10));
    world.operator.lock_until(Target::Token.of(&bot), Some(end)).await.unwrap();
    assert_eq!(bot.join().await.unwrap_err(), "LOCKED");
    world.advance(TimeDelta::minutes(10) - TimeDelta::microseconds(1));
    assert_eq!(bot.join().await.unwrap_err(), "LOCKED");

    world.advance(TimeDelta::microseconds(1));

    bot.join().await.unwrap();
    world.check().await;
}

#[tokio::test]
async fn a_lock_is_not_seen_by_those_who_prove_nothing() {
    let world = World::start().await;
    let mut bot = world.bot("example").await;
    bot.join().await.unwrap();
    bot.secret.clear();
    world.operator.lock(Target::Token.of(&bot)).await.unwrap();
    world.catch_up("example").await;

    assert_eq!(bot.joining().signed_by(&Key::ed25519()).await.unwrap_err(), "CHALLENGE_FAILED");

    assert_eq!(world.news("example").await, NOTHING);
    world.check().await;
}

#[tokio::test]
async fn a_locks_message_and_end_can_be_changed_but_not_its_target() {
    let world = World::start().await;
    let mut bot = world.bot("example").await;
    bot.join().await.unwrap();
    let mut lock = world.operator.lock(Target::Token.of(&bot)).await.unwrap();
    let mut resources = world.operator.resources().await;
    let mut upsert = async |lock: &v1::Lock| {
        let name = lock.metadata.as_ref().unwrap().name.clone();
        let request = v1::UpsertLockRequest { name, lock: Some(lock.clone()) };
        resources.upsert_lock(request).await.map(|answer| answer.into_inner()).map_err(crate::world::Refused::from)
    };

    lock.spec.as_mut().unwrap().message = "somebody else has a copy".to_owned();
    let stale = lock.clone();
    lock = upsert(&lock).await.unwrap();
    assert!(bot.join().await.unwrap_err().message.contains("somebody else has a copy"));
    assert_eq!(upsert(&stale).await.unwrap_err(), "STALE_REVISION");

    let mut elsewhere = lock.clone();
    elsewhere.spec.as_mut().unwrap().target = Some(LockTarget { join_token: "other".to_owned(), ..Default::default() });
    assert_eq!(upsert(&elsewhere).await.unwrap_err(), "INVALID_REQUEST");

    lock.metadata.as_mut().unwrap().expires = Some(wire_time(world.now() + TimeDelta::minutes(1)));
    lock = upsert(&lock).await.unwrap();
    world.advance(TimeDelta::minutes(1));
    bot.join().await.unwrap();
    let name = lock.metadata.unwrap().name;
    world.operator.unlock(&name).await.unwrap();
    assert_eq!(world.operator.unlock(&name).await.unwrap_err(), "NOT_FOUND");
    world.check().await;
}

#[rstest]
#[case::nothing(LockTarget::default(), "spec.target")]
#[case::two(LockTarget { join_token: "a".into(), user: "bot-a".into(), ..Default::default() }, "spec.target")]
#[case::no_user(LockTarget { user: "root".into(), ..Default::default() }, "spec.target.user")]
#[case::no_id(LockTarget { bot_instance_id: "x".into(), ..Default::default() }, "spec.target.bot_instance_id")]
#[case::no_name(LockTarget { join_token: "A b".into(), ..Default::default() }, "spec.target.join_token")]
#[case::no_key(LockTarget { public_key: "SHA256:x".into(), ..Default::default() }, "spec.target.public_key")]
#[case::no_fingerprint(LockTarget { public_key: format!("SHA256:{}", "\0".repeat(43)), ..Default::default() }, "spec.target.public_key")]
#[tokio::test]
async fn a_lock_has_one_target_that_can_be_one(#[case] target: LockTarget, #[case] field: &str) {
    let world = World::start().await;

    let refused = world.operator.lock(target).await.unwrap_err();

    assert_eq!(refused, "INVALID_REQUEST");
    assert!(refused.message.starts_with(&format!("{field}: ")), "{}", refused.message);
    assert_eq!(world.locks().await, 0);
    world.check().await;
}

#[tokio::test]
async fn a_key_that_nobody_can_have_is_not_locked() {
    let world = World::start().await;
    let target = LockTarget { public_key: include_str!("keys/rsa3072.pub").to_owned(), ..LockTarget::default() };

    let refused = world.operator.lock(target).await.unwrap_err();

    assert_eq!(refused, "UNSUPPORTED_KEY");
    assert!(refused.message.starts_with("spec.target.public_key: "), "{}", refused.message);
    world.check().await;
}

#[tokio::test]
async fn the_longest_message_reaches_who_is_refused() {
    let world = World::start().await;
    let mut bot = world.bot("example").await;
    bot.join().await.unwrap();
    let mut lock = v1::Lock {
        spec: Some(v1::LockSpec { target: Some(Target::Token.of(&bot)), message: "🔒".repeat(500) }),
        ..v1::Lock::default()
    };
    world.operator.resources().await.create_lock(lock.clone()).await.unwrap();

    let refused = bot.join().await.unwrap_err();

    assert_eq!(refused, "LOCKED");
    assert!(refused.message.ends_with(&"🔒".repeat(500)), "{}", refused.message);
    lock.spec.as_mut().unwrap().message.push('!');
    let longer = world.operator.resources().await.create_lock(lock).await.unwrap_err();
    assert_eq!(crate::world::Refused::from(longer), "INVALID_REQUEST");
    world.check().await;
}

#[tokio::test]
async fn a_lock_that_would_lock_nothing_is_refused() {
    let world = World::start().await;
    let target = LockTarget { join_token: "example".to_owned(), ..LockTarget::default() };

    let refused = world.operator.lock_until(target, Some(wire_time(world.now()))).await.unwrap_err();

    assert_eq!(refused, "INVALID_REQUEST");
    assert!(refused.message.starts_with("metadata.expires: "), "{}", refused.message);
    world.check().await;
}
