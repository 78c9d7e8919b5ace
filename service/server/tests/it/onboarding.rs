//! First joins (protocol, sections 2 and 3).

use chrono::TimeDelta;
use join_server::ceremony::secret::REGISTRATION_SECRET;
use rstest::rstest;

use crate::world::{
    Asked, CLUSTER, FIRST, Key, NOTHING, REFUSED, REFUSED_AFTER_SECRET, REGISTERED, Transport, World, onboarding_of,
    wire_time,
};

#[rstest]
#[tokio::test]
async fn a_preregistered_key_joins(#[values(Transport::Grpc, Transport::Json)] over: Transport) {
    let world = World::start().await;
    let mut bot = world.bot("example").preregistered().over(over).await;
    world.catch_up("example").await;

    let joined = bot.join().await.unwrap();

    assert_eq!(joined.asked, [Asked::Challenge]);
    let token = world.token("example").await;
    assert_eq!((token.recovery_count, token.generation), (1, 1));
    assert_eq!(token.bound_public_key, bot.key().line());
    assert_eq!(token.bound_bot_instance_id, joined.instance());
    assert_eq!(world.news("example").await, FIRST);
    assert_eq!(world.locks().await, 0);
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn only_the_preregistered_key_solves_the_challenge(#[values(Transport::Grpc, Transport::Json)] over: Transport) {
    let world = World::start().await;
    let mut bot = world.bot("example").preregistered().over(over).await;
    world.catch_up("example").await;

    let refused = bot.joining().signed_by(&Key::ed25519()).await.unwrap_err();

    assert_eq!(refused, "CHALLENGE_FAILED");
    let token = world.token("example").await;
    assert_eq!((token.recovery_count, token.bound_public_key.as_str()), (0, ""));
    assert_eq!(world.news("example").await, NOTHING);
    assert_eq!(world.locks().await, 0);
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn a_registration_secret_is_no_substitute_for_a_preregistered_key(
    #[values(Transport::Grpc, Transport::Json)] over: Transport,
) {
    let world = World::start().await;
    let mut bot = world.bot("example").preregistered().over(over).await;
    world.catch_up("example").await;

    let refused = bot.joining().with_secret("open sesame").signed_by(&Key::ed25519()).await.unwrap_err();

    assert_eq!(refused, "CHALLENGE_FAILED");
    assert_eq!(world.token("example").await.bound_public_key, "");
    assert_eq!(world.news("example").await, NOTHING);
    assert_eq!(world.locks().await, 0);
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn a_registration_secret_registers_a_new_key(
    #[values(Transport::Grpc, Transport::Json)] over: Transport,
    #[values(Key::ed25519, Key::p256)] keygen: fn() -> Key,
) {
    let world = World::start().await;
    let mut bot = world.bot("example").with_keys(keygen).over(over).await;
    world.catch_up("example").await;
    assert_eq!(world.token("example").await.registration_secret, bot.secret);

    let joined = bot.join().await.unwrap();

    assert_eq!(joined.asked, [Asked::Key, Asked::Challenge]);
    let token = world.token("example").await;
    assert_eq!(token.registration_secret, "");
    assert!(!token.registration_secret_pending);
    assert_eq!(token.bound_public_key, bot.key().line());
    assert_eq!((token.recovery_count, token.generation), (1, 1));
    assert!(token.last_recovered_at.is_some());
    assert_eq!(token.last_rotated_at, None, "a registration is no rotation");
    assert_eq!(world.news("example").await, REGISTERED);
    assert_eq!(world.locks().await, 0);
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn a_registration_secret_must_be_right(
    #[values(Transport::Grpc, Transport::Json)] over: Transport,
    #[values("", "chosen by an administrator")] written: &str,
) {
    let world = World::start().await;
    let mut bot = world.bot("example").secret(written).over(over).await;
    world.catch_up("example").await;

    for wrong in ["", "wrong", &"0".repeat(64)] {
        let Err(refused) = bot.joining().with_secret(wrong).begin().await else { panic!("a key was asked for") };
        assert_eq!(refused, "REGISTRATION_SECRET_REQUIRED");
    }

    let token = world.token("example").await;
    assert_eq!((token.recovery_count, token.bound_public_key.as_str()), (0, ""));
    assert_eq!(token.registration_secret, bot.secret);
    assert_eq!(world.news("example").await, NOTHING);
    assert_eq!(world.locks().await, 0);
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn a_registration_secret_is_refused_after_its_time(#[values(Transport::Grpc, Transport::Json)] over: Transport) {
    let world = World::start().await;
    let end = world.now() + TimeDelta::hours(1);
    let mut bot = world.bot("example").must_register_before(end).over(over).await;
    world.catch_up("example").await;
    world.advance(TimeDelta::hours(1));

    let Err(refused) = bot.joining().begin().await else { panic!("a key was asked for") };

    assert_eq!(refused, "REGISTRATION_SECRET_REQUIRED");
    let token = world.token("example").await;
    assert_eq!(token.registration_secret, "", "it is shown until it expires");
    assert_eq!(token.bound_public_key, "");
    assert_eq!(world.news("example").await, REFUSED_AFTER_SECRET, "whoever knows the secret does not pass unseen");
    assert_eq!(world.locks().await, 0);

    let later = world.now() + TimeDelta::hours(1);
    world
        .admin
        .edit("example", |token| onboarding_of(token).must_register_before = Some(wire_time(later)))
        .await
        .unwrap();
    assert_ne!(world.token("example").await.registration_secret, "", "and again when it counts again");
    bot.join().await.expect("it is the one that the bot was given");
    world.check().await;
}

/// The end can still be moved, and until then nothing else tells how the bot joins anew.
#[tokio::test]
async fn a_token_past_its_end_shows_the_secret_that_it_got_when_it_was_reopened() {
    let world = World::start().await;
    let end = world.now() + TimeDelta::hours(1);
    let mut bot = world.bot("example").expires(end).await;
    bot.join().await.unwrap();
    world.advance(TimeDelta::hours(1));

    let secret = world.admin.reopen("example").await.unwrap();

    assert!(!secret.is_empty() && secret != bot.secret);
    assert_eq!(world.token("example").await.registration_secret, secret);
    world.check().await;
}

/// Until then the time can be moved, and the secret is shown again.
#[tokio::test]
async fn a_registration_secret_that_ended_is_deleted_a_day_later() {
    let world = World::start().await;
    let end = world.now() + TimeDelta::hours(1);
    let mut bot = world.bot("example").must_register_before(end).await;
    world.bot("other").await;
    let ceremonies = &world.node(0).app.ceremonies;
    let kept_after = async |hours: i64| {
        world.advance(TimeDelta::hours(hours));
        assert_eq!(ceremonies.forget_ended_secrets(None).await.unwrap(), None);
        world.ledger().with_secret(REGISTRATION_SECRET, None, 10).await.unwrap().len()
    };

    assert_eq!(kept_after(24).await, 2);
    assert_eq!(kept_after(1).await, 1);

    let later = world.now() + TimeDelta::hours(1);
    world
        .admin
        .edit("example", |token| onboarding_of(token).must_register_before = Some(wire_time(later)))
        .await
        .unwrap();
    assert_eq!(world.token("example").await.registration_secret, "");
    assert_ne!(world.token("other").await.registration_secret, "");
    bot.join().await.expect("who has it can still use it");
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn a_spent_registration_secret_opens_nothing(#[values(Transport::Grpc, Transport::Json)] over: Transport) {
    let world = World::start().await;
    let mut bot = world.bot("example").over(over).await;
    let mut other = bot.clone();
    bot.join().await.unwrap();
    let before = world.token("example").await;
    world.catch_up("example").await;

    let refused = other.joining().signed_by(&Key::ed25519()).await.unwrap_err();

    assert_eq!(refused, "CHALLENGE_FAILED");
    let token = world.token("example").await;
    assert_eq!(token.contested_at, Some(wire_time(world.now())), "it never passes unseen");
    assert_eq!(join_proto::v1::BoundKeypairStatus { contested_at: None, ..token }, before);
    assert_eq!(world.news("example").await, REFUSED_AFTER_SECRET);
    assert_eq!(world.locks().await, 0);
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn existing_credentials_cannot_start_a_binding(#[values(Transport::Grpc, Transport::Json)] over: Transport) {
    let world = World::start().await;
    let mut other = world.bot("other").over(over).await;
    other.join().await.unwrap();
    let mut bot = world.bot("example").over(over).await;
    world.catch_up("example").await;

    let refused = bot.joining().with_certificate(other.certificate()).await.unwrap_err();

    assert_eq!(refused, "BINDING_NOT_ALLOWED");
    assert_eq!(world.token("example").await.bound_public_key, "");
    assert_eq!(world.news("example").await, REFUSED_AFTER_SECRET);
    assert_eq!(world.locks().await, 0);

    bot.join().await.unwrap();
    assert_eq!(world.news("example").await, REGISTERED);
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn the_first_join_is_the_first_recovery(#[values(Transport::Grpc, Transport::Json)] over: Transport) {
    let world = World::start().await;
    let mut bot = world.bot("example").limit(1).over(over).await;

    let joined = bot.join().await.unwrap();

    let claims = joined.join_state_claims();
    assert_eq!(claims["recovery_sequence"], 1);
    assert_eq!(claims["recovery_limit"], 1);
    assert_eq!(claims["recovery_mode"], "standard");
    assert_eq!(claims["bot_instance_id"], joined.instance());
    assert_eq!(claims["token_id"], world.token("example").await.token_id);
    assert_eq!(claims["sub"], "example");
    assert_eq!((&claims["iss"], &claims["aud"]), (&CLUSTER.into(), &CLUSTER.into()));
    assert!(claims.get("exp").is_none());
    assert_eq!(world.locks().await, 0);
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn a_limit_of_zero_admits_nobody(
    #[values(Transport::Grpc, Transport::Json)] over: Transport,
    #[values(false, true)] preregistered: bool,
) {
    let world = World::start().await;
    let onboarding = world.bot("example").limit(0).over(over);
    let mut bot = if preregistered { onboarding.preregistered().await } else { onboarding.await };
    world.catch_up("example").await;

    let refused = bot.join().await.unwrap_err();

    assert_eq!(refused, "RECOVERY_LIMIT_EXHAUSTED");
    let token = world.token("example").await;
    assert_eq!((token.recovery_count, token.bound_public_key.as_str()), (0, ""));
    assert_eq!(token.registration_secret, bot.secret, "the secret is not spent");
    assert_eq!(world.news("example").await, REFUSED);
    assert_eq!(world.locks().await, 0);

    world.admin.set_limit("example", 1).await;
    bot.join().await.unwrap();
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn a_token_past_its_end_admits_nobody(#[values(Transport::Grpc, Transport::Json)] over: Transport) {
    let world = World::start().await;
    let end = world.now() + TimeDelta::minutes(30);
    let mut bot = world.bot("example").limit(5).expires(end).over(over).await;
    bot.join().await.unwrap();
    world.catch_up("example").await;
    world.advance(TimeDelta::minutes(30));

    let refused = bot.joining().with_secret("").await.unwrap_err();

    assert_eq!(refused, "ACCESS_DENIED");
    let mut unknown = bot.clone();
    unknown.token = "unknown".to_owned();
    let of_unknown = unknown.join().await.unwrap_err();
    assert_eq!((&refused.code, &refused.message, &refused.status), {
        (&of_unknown.code, &of_unknown.message, &of_unknown.status)
    });
    assert_eq!(world.news("example").await, NOTHING);
    assert_eq!(world.token("example").await.recovery_count, 1, "its history stays");
    world.check().await;
}

#[tokio::test]
async fn a_bot_past_its_end_is_admitted_by_no_token() {
    let world = World::start().await;
    let mut bot = world.bot("example").limit(9).await;
    bot.join().await.unwrap();
    let mut resource = world.admin.get_bot("example").await.unwrap();
    resource.metadata.as_mut().unwrap().expires = Some(wire_time(world.now() + TimeDelta::minutes(1)));
    let mut resource = world.admin.upsert_bot(resource).await.unwrap();
    bot.join().await.unwrap();
    world.advance(TimeDelta::minutes(1));

    assert_eq!(bot.join().await.unwrap_err(), "ACCESS_DENIED");

    resource.metadata.as_mut().unwrap().expires = None;
    world.admin.upsert_bot(resource).await.unwrap();
    bot.join().await.unwrap();
    assert_eq!(world.locks().await, 0);
    world.check().await;
}
