//! Replacing the bound keypair (protocol, section 3, step 6).

use std::time::Duration;

use chrono::TimeDelta;
use join_proto::v1;
use rstest::rstest;

use crate::world::{
    Asked, Bot, Conversation, Key, NOTHING, RECOVERED_AND_ROTATED, REFUSED, RENEWED, RENEWED_AND_ROTATED, Transport,
    World, data, wire_time,
};

/// A bot that has joined and must rotate at the next join.
async fn due(world: &World, over: Transport) -> Bot {
    let mut bot = world.bot("example").limit(9).over(over).await;
    bot.join().await.unwrap();
    bot.secret.clear();
    world.admin.set_rotate_after("example", Some(wire_time(world.now()))).await;
    world.advance(TimeDelta::seconds(1));
    world.catch_up("example").await;
    bot
}

/// Nothing of the binding has changed.
async fn unchanged(world: &World, bot: &Bot) {
    let token = world.token("example").await;
    assert_eq!(token.bound_public_key, bot.key().line());
    assert_eq!((token.recovery_count, token.generation, token.last_rotated_at), (1, 1, None));
    assert_eq!(world.locks().await, 0);
}

#[rstest]
#[tokio::test]
async fn a_renewal_rotates_when_it_is_due(
    #[values(Transport::Grpc, Transport::Json)] over: Transport,
    #[values(Key::ed25519, Key::p256)] keygen: fn() -> Key,
) {
    let world = World::start().await;
    let mut bot = due(&world, over).await;
    let old = bot.key().clone();
    bot.keygen = keygen;

    let joined = bot.join().await.unwrap();

    assert_eq!(joined.asked, [Asked::Challenge, Asked::Key, Asked::Challenge]);
    assert_eq!(joined.generation(), 2);
    assert_ne!(bot.key(), &old);
    let token = world.token("example").await;
    assert_eq!(token.bound_public_key, bot.key().line());
    assert_eq!(token.last_rotated_at, Some(wire_time(world.now())));
    assert_eq!(token.recovery_count, 1);
    assert_eq!(world.news("example").await, RENEWED_AND_ROTATED);
    assert_eq!(world.locks().await, 0);

    let next = bot.join().await.unwrap();
    assert_eq!(next.asked, [Asked::Challenge], "it is rotated already");
    assert_eq!(world.news("example").await, RENEWED);
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn a_recovery_rotates_when_it_is_due(#[values(Transport::Grpc, Transport::Json)] over: Transport) {
    let world = World::start().await;
    let mut bot = due(&world, over).await;
    world.advance(TimeDelta::hours(2));

    let joined = bot.join().await.unwrap();

    assert_eq!(joined.asked, [Asked::Challenge, Asked::Key, Asked::Challenge]);
    let token = world.token("example").await;
    assert_eq!((token.recovery_count, token.generation), (2, 1));
    assert_eq!(token.bound_public_key, bot.key().line());
    assert_eq!(world.news("example").await, RECOVERED_AND_ROTATED);
    assert_eq!(world.locks().await, 0);
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn a_first_join_with_a_preregistered_key_rotates_when_it_is_due(
    #[values(Transport::Grpc, Transport::Json)] over: Transport,
) {
    let world = World::start().await;
    let past = world.now() - TimeDelta::hours(1);
    let mut bot = world.bot("example").preregistered().rotate_after(past).over(over).await;

    let joined = bot.join().await.unwrap();

    assert_eq!(joined.asked, [Asked::Challenge, Asked::Key, Asked::Challenge]);
    let token = world.token("example").await;
    assert_eq!(token.bound_public_key, bot.key().line());
    assert_eq!(token.last_rotated_at, Some(wire_time(world.now())));
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn a_rotation_waits_for_its_time(#[values(Transport::Grpc, Transport::Json)] over: Transport) {
    let world = World::start().await;
    let mut bot = world.bot("example").rotate_after(world.now() + TimeDelta::minutes(30)).over(over).await;
    bot.join().await.unwrap();
    let key = bot.key().clone();
    world.catch_up("example").await;

    let joined = bot.join().await.unwrap();
    assert_eq!(joined.asked, [Asked::Challenge]);
    assert_eq!(bot.key(), &key);
    assert_eq!(world.token("example").await.last_rotated_at, None);
    assert_eq!(world.news("example").await, RENEWED);

    world.advance(TimeDelta::minutes(30));
    let joined = bot.join().await.unwrap();
    assert_eq!(joined.asked, [Asked::Challenge, Asked::Key, Asked::Challenge]);
    assert_ne!(bot.key(), &key);
    assert_eq!(world.news("example").await, RENEWED_AND_ROTATED);
    assert_eq!(world.locks().await, 0);
    world.check().await;
}

#[tokio::test]
async fn each_request_for_a_rotation_rotates_once() {
    let world = World::start().await;
    let mut bot = world.bot("example").await;
    bot.join().await.unwrap();
    for _ in 0..3 {
        let before = bot.key().clone();
        world.advance(TimeDelta::seconds(1));
        world.admin.rotate("example").await.unwrap();
        bot.join().await.unwrap();
        assert_ne!(bot.key(), &before);
        assert_eq!(bot.join().await.unwrap().asked, [Asked::Challenge]);
    }
    assert_eq!(world.locks().await, 0);
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn the_old_key_is_no_new_key(#[values(Transport::Grpc, Transport::Json)] over: Transport) {
    let world = World::start().await;
    let mut bot = due(&world, over).await;
    let old = bot.key().line();

    assert_eq!(bot.joining().offering(&old).await.unwrap_err(), "KEY_REUSED");

    unchanged(&world, &bot).await;
    assert_eq!(world.news("example").await, REFUSED);
    bot.join().await.unwrap();
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn no_key_of_the_past_is_a_new_key(#[values(Transport::Grpc, Transport::Json)] over: Transport) {
    let world = World::start().await;
    let mut bot = due(&world, over).await;
    let old = bot.key().clone();
    bot.join().await.unwrap();
    world.advance(TimeDelta::seconds(1));
    world.admin.rotate("example").await.unwrap();
    let second = bot.key().clone();

    // Held again, so that it can be proven.
    bot.disk.keys.insert(0, old.clone());
    assert_eq!(bot.joining().offering(&old.line()).await.unwrap_err(), "KEY_REUSED");

    assert_eq!(world.token("example").await.bound_public_key, second.line());
    assert_eq!(world.locks().await, 0);
    bot.join().await.unwrap();
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn a_key_of_another_token_is_no_new_key(#[values(Transport::Grpc, Transport::Json)] over: Transport) {
    let world = World::start().await;
    let mut bot = due(&world, over).await;
    let other = world.bot("other").preregistered().await;
    let theirs = other.key().clone();
    bot.disk.keys.insert(0, theirs.clone());

    let refused = bot.joining().offering(&theirs.line()).await.unwrap_err();

    assert_eq!(refused, "KEY_ALREADY_BOUND");
    unchanged(&world, &bot).await;
    assert_eq!(world.news("example").await, REFUSED);
    bot.join().await.unwrap();
    world.check().await;
}

/// A client refuses in many ways: without a key, with something else, with words, or by leaving.
#[rstest]
#[case::with_no_key("", "ROTATION_FAILED")]
#[case::with_nonsense("ssh-ed25519 nonsense", "INVALID_REQUEST")]
#[case::with_a_key_of_another_kind(RSA, "UNSUPPORTED_KEY")]
#[tokio::test]
async fn a_rotation_needs_a_usable_key(
    #[values(Transport::Grpc, Transport::Json)] over: Transport,
    #[case] line: &str,
    #[case] code: &str,
) {
    let world = World::start().await;
    let mut bot = due(&world, over).await;

    assert_eq!(bot.joining().offering(line).await.unwrap_err(), code);

    unchanged(&world, &bot).await;
    assert_eq!(world.news("example").await, REFUSED);
    bot.join().await.unwrap();
    world.check().await;
}

#[tokio::test]
async fn a_client_that_gives_up_on_a_rotation_has_failed() {
    use join_proto::teleport::{GivingUp, join_request::Payload};

    let world = World::start().await;
    let mut bot = due(&world, Transport::Grpc).await;
    let asked = bot.joining().begin().await.unwrap().answer().await.unwrap();
    let crate::world::Conversation::Stream(mut stream) = asked.conversation else { panic!("a stream was opened") };

    stream.send(Payload::GivingUp(GivingUp { reason: 2, msg: "my keys are for ever".to_owned() })).await;

    assert_eq!(stream.step().await.unwrap_err(), "ROTATION_FAILED");
    unchanged(&world, &bot).await;
    let told = world.new_events("example").await;
    assert_eq!(told.iter().map(|event| event.kind.as_str()).collect::<Vec<_>>(), REFUSED);
    assert_eq!(data(&told[2])["code"], "ROTATION_FAILED");
    bot.join().await.unwrap();
    world.check().await;
}

#[tokio::test]
async fn a_client_that_leaves_a_rotation_is_recorded() {
    let world = World::start().await;
    let mut bot = due(&world, Transport::Grpc).await;

    drop(bot.joining().begin().await.unwrap().answer().await.unwrap());

    let told = world.next_events("example").await;
    assert_eq!(told.iter().map(|event| event.kind.as_str()).collect::<Vec<_>>(), REFUSED);
    assert_eq!(data(&told[2])["code"], "ROTATION_FAILED");
    unchanged(&world, &bot).await;
    bot.join().await.unwrap();
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn a_rotation_is_answered_in_time(
    #[values(Transport::Grpc, Transport::Json)] over: Transport,
    #[values(1, 2)] answered: usize,
) {
    let world = World::start().await;
    let mut bot = due(&world, over).await;
    let mut asked = bot.joining().begin().await.unwrap();
    for _ in 0..answered {
        asked = asked.answer().await.unwrap();
    }
    world.advance(TimeDelta::seconds(122));

    let Err(refused) = asked.answer().await else { panic!("it came too late") };

    assert_eq!(refused, "ROTATION_FAILED");
    unchanged(&world, &bot).await;
    assert_eq!(world.news("example").await, REFUSED);
    bot.join().await.unwrap();
    world.check().await;
}

#[tokio::test]
async fn who_is_silent_when_a_new_key_is_asked_for_has_failed() {
    let world = World::start().await;
    let mut bot = due(&world, Transport::Grpc).await;
    let asked = bot.joining().begin().await.unwrap().answer().await.unwrap();
    let Conversation::Stream(mut stream) = asked.conversation else { panic!("a stream was opened") };

    // So much time passes for the service's timers.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();

    let refused = stream.step().await.unwrap_err();
    assert_eq!(refused, "ROTATION_FAILED");
    assert!(refused.message.contains("silent"), "{}", refused.message);
    assert_eq!(world.news("example").await, REFUSED);
    bot.join().await.unwrap();
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn the_new_key_must_be_held(#[values(Transport::Grpc, Transport::Json)] over: Transport) {
    let world = World::start().await;
    let mut bot = due(&world, over).await;
    let old = bot.key().clone();

    let refused = bot.joining().signed_by(&old).await.unwrap_err();

    assert_eq!(refused, "ROTATION_FAILED");
    unchanged(&world, &bot).await;
    assert_eq!(world.news("example").await, REFUSED);
    bot.join().await.unwrap();
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn a_static_key_cannot_rotate(#[values(Transport::Grpc, Transport::Json)] over: Transport) {
    let world = World::start().await;
    let mut bot = world.bot("example").mode("insecure").preregistered().over(over).await;
    bot.join().await.unwrap();
    assert_eq!(world.admin.rotate("example").await.unwrap_err(), "INVALID_REQUEST");
    world.admin.set_rotate_after("example", Some(wire_time(world.now()))).await;
    world.catch_up("example").await;

    let refused = bot.join().await.unwrap_err();

    assert_eq!(refused, "ROTATION_FAILED");
    assert!(refused.message.contains("rotate_after"), "{}", refused.message);
    assert_eq!(world.news("example").await, REFUSED);
    unchanged(&world, &bot).await;

    world.admin.set_rotate_after("example", None).await;
    bot.join().await.unwrap();
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn a_rotation_costs_no_recovery_that_it_fails(#[values(Transport::Grpc, Transport::Json)] over: Transport) {
    let world = World::start().await;
    let mut bot = due(&world, over).await;
    world.advance(TimeDelta::hours(2));
    let old = bot.key().line();

    for _ in 0..3 {
        assert_eq!(bot.joining().offering(&old).await.unwrap_err(), "KEY_REUSED");
    }

    unchanged(&world, &bot).await;
    world.check().await;
}

#[tokio::test]
async fn a_stranger_is_not_asked_for_a_new_key() {
    let world = World::start().await;
    let mut bot = due(&world, Transport::Grpc).await;

    let Err(refused) = bot.joining().signed_by(&Key::ed25519()).begin().await.unwrap().answer().await else {
        panic!("the challenge was not solved")
    };

    assert_eq!(refused, "CHALLENGE_FAILED");
    assert_eq!(world.news("example").await, NOTHING);
    world.check().await;
}

const RSA: &str = include_str!("keys/rsa3072.pub");

/// Its last challenge was issued long after the first, and can be solved for as much longer.
#[tokio::test]
async fn a_refused_rotation_is_not_decided_again() {
    let world = World::start().await;
    let mut bot = due(&world, Transport::Json).await;
    let next = Key::ed25519();
    let asked = bot.joining().offering(&next.line()).begin().await.unwrap();
    world.advance(TimeDelta::seconds(100));
    let asked = asked.answer().await.unwrap().answer().await.unwrap();
    let solution = next.solve(asked.document());
    let Conversation::Calls(mut calls) = asked.conversation else { panic!("calls were made") };
    let replay = serde_json::json!({ "continuation": calls.continuation, "solution": solution });
    let target = v1::LockTarget { join_token: "example".to_owned(), ..Default::default() };
    let lock = world.admin.lock(target).await.unwrap();
    assert_eq!(calls.http.post("/v1/join/continue", &replay).await.unwrap_err(), "LOCKED");
    world.admin.unlock(&lock.metadata.unwrap().name).await.unwrap();

    // Whatever is refused now ends what is remembered of challenges that can't be solved any more.
    world.advance(TimeDelta::seconds(85));
    let other = bot.joining().without_certificate().without_join_state().await;
    assert_eq!(other.err().unwrap(), "JOIN_STATE_REQUIRED");
    world.advance(TimeDelta::seconds(10));
    assert_eq!(calls.http.post("/v1/join/continue", &replay).await.unwrap_err(), "CONFLICT");

    assert_eq!(world.token("example").await.bound_public_key, bot.key().line());
    bot.join().await.unwrap();
    assert_ne!(bot.key(), &next);
    world.check().await;
}
