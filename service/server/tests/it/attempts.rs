//! A lost answer never locks (protocol, section 6).

use chrono::TimeDelta;
use rstest::rstest;

use crate::world::{
    Asked, Bot, FIRST, Key, RECOVERED, RECOVERED_AND_ROTATED, REFUSED, REFUSED_AND_LOCKED, REGISTERED, RENEWED,
    RENEWED_AND_ROTATED, RESUMED, Transport, World,
};

/// A join whose answer can be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    FirstBySecret,
    FirstByKey,
    Renewal,
    Recovery,
    RotationInRenewal,
    RotationInRecovery,
}

impl Kind {
    /// A bot whose next join is of this kind.
    async fn bot(self, world: &World, over: Transport) -> Bot {
        let onboarding = world.bot("example").limit(2).over(over);
        let mut bot = if self == Self::FirstByKey { onboarding.preregistered().await } else { onboarding.await };
        if !matches!(self, Self::FirstBySecret | Self::FirstByKey) {
            bot.join().await.unwrap();
        }
        if matches!(self, Self::RotationInRenewal | Self::RotationInRecovery) {
            world.admin.rotate("example").await.unwrap();
        }
        if matches!(self, Self::Recovery | Self::RotationInRecovery) {
            world.advance(TimeDelta::hours(2));
        }
        world.catch_up("example").await;
        bot
    }

    fn recorded(self) -> &'static [&'static str] {
        match self {
            Self::FirstBySecret => REGISTERED,
            Self::FirstByKey => FIRST,
            Self::Renewal => RENEWED,
            Self::Recovery => RECOVERED,
            Self::RotationInRenewal => RENEWED_AND_ROTATED,
            Self::RotationInRecovery => RECOVERED_AND_ROTATED,
        }
    }
}

#[rstest]
#[tokio::test]
async fn a_lost_answer_is_given_again(
    #[values(Transport::Grpc, Transport::Json)] over: Transport,
    #[values(
        Kind::FirstBySecret,
        Kind::FirstByKey,
        Kind::Renewal,
        Kind::Recovery,
        Kind::RotationInRenewal,
        Kind::RotationInRecovery
    )]
    kind: Kind,
    #[values(false, true)] restarted: bool,
) {
    let mut world = World::start().await;
    let mut bot = kind.bot(&world, over).await;
    let lost = bot.joining().losing_the_answer().await.unwrap();
    assert_eq!(world.news("example").await, kind.recorded());
    let before = world.token("example").await;
    if restarted {
        world.restart().await;
        // Nothing is left of the agent but its disk.
        bot = bot.clone();
    }

    let resumed = bot.join().await.unwrap();

    assert_eq!(resumed.asked, [Asked::Challenge], "a rotation is not repeated");
    assert_eq!(resumed.serial(), lost.serial());
    assert_eq!(resumed.certificate.not_after(), lost.certificate.not_after());
    assert_eq!((resumed.instance(), resumed.generation()), (lost.instance(), lost.generation()));
    assert_eq!(resumed.join_state_claims(), lost.join_state_claims());
    assert_eq!(resumed.credentials.key, lost.credentials.key);
    assert_eq!(world.news("example").await, RESUMED);
    assert_eq!(world.token("example").await, before, "counts are as if it had happened once");
    assert_eq!(world.locks().await, 0);

    let next = bot.join().await.expect("life goes on");
    assert_eq!((next.instance(), next.generation()), (lost.instance(), lost.generation() + 1));
    assert_eq!(world.locks().await, 0);
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn a_resume_twice_gives_the_same_certificate_twice(#[values(Transport::Grpc, Transport::Json)] over: Transport) {
    let world = World::start().await;
    let mut bot = Kind::Recovery.bot(&world, over).await;
    let lost = bot.joining().losing_the_answer().await.unwrap();
    world.catch_up("example").await;
    world.advance(TimeDelta::minutes(10));
    let first = bot.joining().losing_the_answer().await.unwrap();
    world.advance(TimeDelta::minutes(10));

    let second = bot.join().await.unwrap();

    for resumed in [&first, &second] {
        assert_eq!(resumed.serial(), lost.serial());
        assert_eq!(resumed.certificate.not_after(), lost.certificate.not_after());
    }
    assert_eq!(world.news("example").await, [RESUMED, RESUMED].concat());
    assert_eq!(world.token("example").await.recovery_count, 2);
    assert_eq!(world.locks().await, 0);
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn the_same_attempt_with_other_subject_keys_is_no_resume(
    #[values(Transport::Grpc, Transport::Json)] over: Transport,
) {
    let world = World::start().await;
    let mut bot = Kind::Recovery.bot(&world, over).await;
    let lost = bot.joining().losing_the_answer().await.unwrap();
    world.catch_up("example").await;

    let refused = bot.joining().for_subject(Key::p256()).await.unwrap_err();

    // By the plain rules its documents are those of one join earlier.
    assert_eq!(refused, "JOIN_STATE_INVALID");
    assert_eq!(world.news("example").await, REFUSED_AND_LOCKED);
    assert_eq!(world.token("example").await.bound_bot_instance_id, lost.instance());
    assert_eq!(world.locks().await, 1);
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn the_same_subject_keys_with_another_attempt_are_no_resume(
    #[values(Transport::Grpc, Transport::Json)] over: Transport,
) {
    let world = World::start().await;
    let mut bot = Kind::Renewal.bot(&world, over).await;
    bot.joining().losing_the_answer().await.unwrap();
    world.catch_up("example").await;

    let refused = bot.joining().with_attempt(&crate::world::attempt_id()).await.unwrap_err();

    assert_eq!(refused, "GENERATION_MISMATCH");
    assert_eq!(world.news("example").await, REFUSED_AND_LOCKED);
    assert_eq!(world.locks().await, 1);
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn past_the_window_the_same_attempt_is_a_recovery(
    #[values(Transport::Grpc, Transport::Json)] over: Transport,
    #[values(Kind::FirstBySecret, Kind::Renewal, Kind::RotationInRenewal)] kind: Kind,
) {
    let world = World::start().await;
    let mut bot = kind.bot(&world, over).await;
    let lost = bot.joining().losing_the_answer().await.unwrap();
    world.catch_up("example").await;
    world.advance(TimeDelta::hours(1) + TimeDelta::seconds(1));

    let joined = bot.join().await.unwrap();

    assert_ne!(joined.instance(), lost.instance());
    assert_eq!(world.news("example").await, RECOVERED);
    assert_eq!(world.token("example").await.recovery_count, 2);
    assert_eq!(world.locks().await, 0);
    world.check().await;
}

#[tokio::test]
async fn past_the_window_without_a_recovery_an_administrator_helps() {
    let world = World::start().await;
    let mut bot = Kind::Recovery.bot(&world, Transport::Grpc).await;
    bot.joining().losing_the_answer().await.unwrap();
    world.advance(TimeDelta::hours(2));

    assert_eq!(bot.join().await.unwrap_err(), "RECOVERY_LIMIT_EXHAUSTED");

    assert_eq!(world.locks().await, 0, "the same match never locks");
    world.admin.set_limit("example", 3).await;
    bot.join().await.unwrap();
    assert_eq!(world.token("example").await.recovery_count, 3);
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn the_window_is_judged_by_the_time_of_the_challenge(
    #[values(Transport::Grpc, Transport::Json)] over: Transport,
) {
    let world = World::start().await;
    let mut bot = Kind::Renewal.bot(&world, over).await;
    let lost = bot.joining().losing_the_answer().await.unwrap();
    world.catch_up("example").await;
    world.advance(TimeDelta::minutes(60) - TimeDelta::seconds(1));
    let challenged = bot.joining().begin().await.unwrap();
    world.advance(TimeDelta::seconds(30));

    let resumed = challenged.finish().await.unwrap();

    assert_eq!(resumed.serial(), lost.serial());
    assert_eq!(world.news("example").await, RESUMED);
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn an_attempt_that_is_no_longer_the_latest_locks(#[values(Transport::Grpc, Transport::Json)] over: Transport) {
    let world = World::start().await;
    let mut bot = Kind::Renewal.bot(&world, over).await;
    let ask = bot.joining().ask().clone();
    bot.join().await.unwrap();
    bot.join().await.unwrap();
    world.catch_up("example").await;

    // Everything is new but the attempt.
    let refused = bot.joining().with_attempt(&ask.attempt).for_subject(ask.subject).await.unwrap_err();

    assert_eq!(refused, "JOIN_STATE_INVALID");
    assert_eq!(world.news("example").await, REFUSED_AND_LOCKED);
    assert_eq!(world.locks().await, 1);
    world.check().await;
}

#[tokio::test]
async fn a_client_without_attempts_gets_the_plain_rules() {
    let world = World::start().await;
    let mut bot = world.bot("example").limit(9).await;
    bot.joining().like_a_plain_client().await.unwrap();
    bot.joining().like_a_plain_client().await.unwrap();
    world.advance(TimeDelta::hours(2));
    bot.joining().like_a_plain_client().await.unwrap();
    bot.joining().like_a_plain_client().losing_the_answer().await.unwrap();

    let refused = bot.joining().like_a_plain_client().await.unwrap_err();

    assert_eq!(refused, "GENERATION_MISMATCH", "without an attempt nobody can tell it from a theft");
    assert_eq!(world.locks().await, 1);
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn a_refusal_ends_no_attempt(#[values(Transport::Grpc, Transport::Json)] over: Transport) {
    let world = World::start().await;
    let mut bot = Kind::Renewal.bot(&world, over).await;
    let attempt = bot.joining().ask().attempt.clone();
    for _ in 0..3 {
        assert_eq!(bot.joining().signed_by(&Key::ed25519()).await.unwrap_err(), "CHALLENGE_FAILED");
    }

    assert_eq!(bot.joining().ask().attempt, attempt);
    bot.join().await.unwrap();
    assert_eq!(world.locks().await, 0);
    world.check().await;
}

#[tokio::test]
async fn a_resume_waits_for_no_rotation() {
    let world = World::start().await;
    let mut bot = Kind::Renewal.bot(&world, Transport::Grpc).await;
    bot.joining().losing_the_answer().await.unwrap();
    world.admin.rotate("example").await.unwrap();

    assert_eq!(bot.join().await.unwrap().asked, [Asked::Challenge], "a due rotation waits for the next join");
    assert_eq!(bot.join().await.unwrap().asked, [Asked::Challenge, Asked::Key, Asked::Challenge]);
    world.check().await;
}

#[tokio::test]
async fn a_resume_needs_token_and_bot() {
    let world = World::start().await;
    let mut bot = Kind::Renewal.bot(&world, Transport::Grpc).await;
    bot.joining().losing_the_answer().await.unwrap();
    let end = crate::world::wire_time(world.now() + TimeDelta::minutes(1));
    world.admin.edit("example", |token| token.metadata.as_mut().unwrap().expires = Some(end)).await.unwrap();
    world.advance(TimeDelta::minutes(1));

    assert_eq!(bot.join().await.unwrap_err(), "ACCESS_DENIED");

    world.admin.edit("example", |token| token.metadata.as_mut().unwrap().expires = None).await.unwrap();
    bot.join().await.unwrap();
    assert_eq!(world.token("example").await.generation, 2);
    world.check().await;
}

#[tokio::test]
async fn only_locks_apply_to_a_resume() {
    let world = World::start().await;
    let mut bot = Kind::Renewal.bot(&world, Transport::Grpc).await;
    bot.joining().losing_the_answer().await.unwrap();
    world.admin.set_limit("example", 0).await;
    let target = join_proto::v1::LockTarget { join_token: "example".to_owned(), ..Default::default() };
    let lock = world.operator.lock(target).await.unwrap();
    world.catch_up("example").await;

    assert_eq!(bot.joining().without_join_state().await.unwrap_err(), "LOCKED");
    assert_eq!(world.news("example").await, REFUSED);

    world.operator.unlock(&lock.metadata.unwrap().name).await.unwrap();
    world.catch_up("example").await;
    bot.joining().without_join_state().without_certificate().await.unwrap();
    assert_eq!(world.news("example").await, RESUMED);
    world.check().await;
}
