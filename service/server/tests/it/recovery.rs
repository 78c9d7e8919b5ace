//! Joins without a live certificate of the bound instance (protocol, section 3).

use chrono::TimeDelta;
use rstest::rstest;

use crate::world::{Asked, NOTHING, RECOVERED, REFUSED, RENEWED, Transport, World};

#[rstest]
#[tokio::test]
async fn a_recovery_begins_a_new_instance(#[values(Transport::Grpc, Transport::Json)] over: Transport) {
    let world = World::start().await;
    let mut bot = world.bot("example").limit(2).over(over).await;
    let first = bot.join().await.unwrap();
    world.catch_up("example").await;
    world.advance(TimeDelta::hours(2));

    let second = bot.join().await.unwrap();

    assert_eq!(second.asked, [Asked::Challenge]);
    assert_ne!(second.instance(), first.instance());
    assert_eq!(second.generation(), 1);
    assert_eq!(second.join_state_claims()["recovery_sequence"], 2);
    let token = world.token("example").await;
    assert_eq!((token.recovery_count, token.generation), (2, 1));
    assert_eq!(token.bound_bot_instance_id, second.instance());
    assert_eq!(world.news("example").await, RECOVERED);
    assert_eq!(world.locks().await, 0);
    let instances = world.admin.instances().await;
    let second_shown = instances.iter().find(|shown| shown.metadata.as_ref().unwrap().name == second.instance());
    assert_eq!(second_shown.unwrap().spec.as_ref().unwrap().previous_instance_id, first.instance());
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn a_used_up_limit_can_be_raised_with_nothing_changed_on_the_host(
    #[values(Transport::Grpc, Transport::Json)] over: Transport,
) {
    let world = World::start().await;
    let mut bot = world.bot("example").limit(2).over(over).await;
    bot.join().await.unwrap();
    world.advance(TimeDelta::hours(2));
    bot.join().await.unwrap();
    world.advance(TimeDelta::hours(2));
    world.catch_up("example").await;

    let refused = bot.join().await.unwrap_err();

    assert_eq!(refused, "RECOVERY_LIMIT_EXHAUSTED");
    assert!(refused.message.contains("joinctl edit token/example"), "{}", refused.message);
    assert_eq!(world.token("example").await.recovery_count, 2);
    assert_eq!(world.news("example").await, REFUSED);
    assert_eq!(world.locks().await, 0);

    world.admin.set_limit("example", 3).await;
    world.catch_up("example").await;
    bot.join().await.unwrap();
    assert_eq!(world.token("example").await.recovery_count, 3);
    assert_eq!(world.news("example").await, RECOVERED);
    world.check().await;
}

#[tokio::test]
async fn a_limit_below_the_count_only_stops_further_recoveries() {
    let world = World::start().await;
    let mut bot = world.bot("example").limit(3).await;
    bot.join().await.unwrap();
    world.advance(TimeDelta::hours(2));
    bot.join().await.unwrap();

    world.admin.set_limit("example", 1).await;

    bot.join().await.expect("a renewal costs nothing");
    world.advance(TimeDelta::hours(2));
    assert_eq!(bot.join().await.unwrap_err(), "RECOVERY_LIMIT_EXHAUSTED");
    assert_eq!(world.token("example").await.recovery_count, 2);
    assert_eq!(world.locks().await, 0);
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn a_recovery_needs_the_join_state(
    #[values(Transport::Grpc, Transport::Json)] over: Transport,
    #[values("standard", "relaxed")] mode: &str,
) {
    let world = World::start().await;
    let mut bot = world.bot("example").limit(5).over(over).await;
    bot.join().await.unwrap();
    world.admin.set_mode("example", mode).await;
    world.catch_up("example").await;
    world.advance(TimeDelta::hours(2));

    let refused = bot.joining().without_join_state().await.unwrap_err();

    assert_eq!(refused, "JOIN_STATE_REQUIRED");
    assert_eq!(world.token("example").await.recovery_count, 1);
    assert_eq!(world.news("example").await, REFUSED);
    assert_eq!(world.locks().await, 0);

    bot.join().await.expect("nothing is locked");
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn relaxed_knows_no_limit(#[values(Transport::Grpc, Transport::Json)] over: Transport) {
    let world = World::start().await;
    let mut bot = world.bot("example").mode("relaxed").limit(0).over(over).await;
    bot.join().await.unwrap();
    world.catch_up("example").await;
    world.advance(TimeDelta::hours(2));

    bot.join().await.unwrap();

    assert_eq!(world.token("example").await.recovery_count, 2);
    assert_eq!(world.news("example").await, RECOVERED);
    assert_eq!(world.locks().await, 0);
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn insecure_needs_neither_limit_nor_join_state(#[values(Transport::Grpc, Transport::Json)] over: Transport) {
    let world = World::start().await;
    let mut bot = world.bot("example").mode("insecure").limit(0).preregistered().over(over).await;
    for count in 1..=4 {
        world.catch_up("example").await;
        bot.forget_attempt();

        bot.joining().without_certificate().without_join_state().await.unwrap();

        let token = world.token("example").await;
        assert_eq!((token.recovery_count, token.generation), (count, 1));
        if count > 1 {
            assert_eq!(world.news("example").await, RECOVERED);
        }
    }
    assert_eq!(world.locks().await, 0);
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn insecure_takes_a_certificate_of_an_earlier_instance_for_none(
    #[values(Transport::Grpc, Transport::Json)] over: Transport,
) {
    let world = World::start().await;
    let mut one = world.bot("example").mode("insecure").preregistered().over(over).await;
    let mut two = one.clone();
    one.join().await.unwrap();
    two.join().await.unwrap();
    world.catch_up("example").await;

    one.join().await.expect("hosts with one static key take turns");

    let token = world.token("example").await;
    assert_eq!((token.recovery_count, token.generation), (3, 1));
    assert_eq!(world.news("example").await, RECOVERED);
    assert_eq!(world.locks().await, 0);
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn renewals_after_a_recovery_count_from_one(#[values(Transport::Grpc, Transport::Json)] over: Transport) {
    let world = World::start().await;
    let mut bot = world.bot("example").limit(2).over(over).await;
    bot.join().await.unwrap();
    bot.join().await.unwrap();
    world.advance(TimeDelta::hours(2));
    let recovered = bot.join().await.unwrap();
    world.catch_up("example").await;

    for generation in 2..=4 {
        let renewed = bot.join().await.unwrap();
        assert_eq!((renewed.instance(), renewed.generation()), (recovered.instance(), generation));
        assert_eq!(world.news("example").await, RENEWED);
    }

    let token = world.token("example").await;
    assert_eq!((token.recovery_count, token.generation), (2, 4));
    assert_eq!(world.locks().await, 0);
    world.check().await;
}

#[tokio::test]
async fn who_proves_nothing_learns_nothing() {
    let world = World::start().await;
    let mut bot = world.bot("example").limit(1).await;
    bot.join().await.unwrap();
    world.advance(TimeDelta::hours(2));
    bot.secret.clear();
    world.catch_up("example").await;
    let mut stranger = bot.clone();

    let refused = stranger.joining().signed_by(&crate::world::Key::ed25519()).await.unwrap_err();

    assert_eq!(refused, "CHALLENGE_FAILED", "not RECOVERY_LIMIT_EXHAUSTED, which the owner gets");
    assert_eq!(world.news("example").await, NOTHING);
    assert_eq!(bot.join().await.unwrap_err(), "RECOVERY_LIMIT_EXHAUSTED");
    world.check().await;
}
