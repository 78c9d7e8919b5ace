//! Joins with a live certificate of the bound instance (protocol, section 3).

use chrono::TimeDelta;
use rstest::rstest;

use crate::world::{Asked, Key, NOTHING, RECOVERED, REFUSED, REFUSED_AND_LOCKED, RENEWED, Transport, World};

#[rstest]
#[tokio::test]
async fn ten_renewals_count_generations_and_nothing_else(#[values(Transport::Grpc, Transport::Json)] over: Transport) {
    let world = World::start().await;
    let mut bot = world.bot("example").limit(1).over(over).await;
    let first = bot.join().await.unwrap();
    let (mut serials, before) = (vec![first.serial()], world.token("example").await);
    for generation in 2..=11 {
        world.catch_up("example").await;

        let joined = bot.join().await.unwrap();

        assert_eq!(joined.asked, [Asked::Challenge]);
        assert_eq!((joined.instance(), joined.generation()), (first.instance(), generation));
        assert_eq!(joined.join_state_claims()["recovery_sequence"], 1);
        assert_eq!(world.news("example").await, RENEWED);
        serials.push(joined.serial());
    }
    let token = world.token("example").await;
    assert_eq!((token.recovery_count, token.generation), (1, 11));
    assert_eq!((token.last_recovered_at, token.bound_public_key), (before.last_recovered_at, before.bound_public_key));
    assert_eq!(world.locks().await, 0);
    serials.sort();
    serials.dedup();
    assert_eq!(serials.len(), 11, "each certificate has a serial number of its own");
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn an_older_certificate_locks_the_token(#[values(Transport::Grpc, Transport::Json)] over: Transport) {
    let world = World::start().await;
    let mut bot = world.bot("example").limit(9).over(over).await;
    bot.join().await.unwrap();
    let older = bot.certificate().clone();
    bot.join().await.unwrap();
    world.catch_up("example").await;

    let refused = bot.joining().with_certificate(&older).await.unwrap_err();

    assert_eq!(refused, "GENERATION_MISMATCH");
    assert!(refused.message.contains("joinctl reinstate example"), "{}", refused.message);
    assert_eq!(world.locks().await, 1);
    assert_eq!(world.news("example").await, REFUSED_AND_LOCKED);

    let newest = bot.join().await.unwrap_err();
    assert_eq!(newest, "LOCKED");
    assert_eq!(newest.lock, refused.lock);
    assert_eq!(world.locks().await, 1);
    assert_eq!(world.token("example").await.generation, 2);
    assert_eq!(world.news("example").await, REFUSED);
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn a_renewal_is_signed_by_the_bound_key(#[values(Transport::Grpc, Transport::Json)] over: Transport) {
    let world = World::start().await;
    let mut bot = world.bot("example").over(over).await;
    bot.join().await.unwrap();
    bot.secret.clear();
    world.catch_up("example").await;

    let refused = bot.joining().signed_by(&Key::ed25519()).await.unwrap_err();

    assert_eq!(refused, "CHALLENGE_FAILED");
    assert_eq!(world.token("example").await.generation, 1);
    assert_eq!(world.news("example").await, NOTHING);
    assert_eq!(world.locks().await, 0);

    bot.join().await.unwrap();
    assert_eq!(world.token("example").await.generation, 2);
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn a_certificate_of_another_token_does_not_renew(#[values(Transport::Grpc, Transport::Json)] over: Transport) {
    let world = World::start().await;
    let mut other = world.bot("other").over(over).await;
    other.join().await.unwrap();
    let mut bot = world.bot("example").limit(2).over(over).await;
    bot.join().await.unwrap();
    world.catch_up("example").await;

    let refused = bot.joining().with_certificate(other.certificate()).await.unwrap_err();

    assert_eq!(refused, "INSTANCE_MISMATCH");
    assert_eq!(world.news("example").await, REFUSED);
    assert_eq!(world.locks().await, 0);

    let recovered = bot.joining().without_certificate().await.unwrap();
    assert_eq!(recovered.generation(), 1);
    assert_eq!(world.token("example").await.recovery_count, 2);
    assert_eq!(world.news("example").await, RECOVERED);
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn an_expired_certificate_counts_as_none(#[values(Transport::Grpc, Transport::Json)] over: Transport) {
    let world = World::start().await;
    let mut bot = world.bot("example").limit(2).over(over).await;
    bot.joining().for_life(TimeDelta::seconds(15)).await.unwrap();
    world.advance(TimeDelta::seconds(14));
    assert_eq!(bot.joining().for_life(TimeDelta::seconds(15)).await.unwrap().generation(), 2);
    world.catch_up("example").await;

    world.advance(TimeDelta::seconds(16));
    bot.join().await.unwrap();

    assert_eq!(world.news("example").await, RECOVERED);
    assert_eq!(world.token("example").await.recovery_count, 2);
    world.check().await;
}

#[tokio::test]
async fn a_certificate_of_another_cluster_counts_as_none() {
    let (world, elsewhere) = (World::start().await, World::start().await);
    let mut foreign = elsewhere.bot("example").await;
    foreign.join().await.unwrap();
    let mut bot = world.bot("example").limit(2).await;

    bot.joining().with_certificate(foreign.certificate()).await.expect("a first join without existing credentials");
    bot.joining().with_certificate(foreign.certificate()).await.expect("a recovery");

    assert_eq!(world.token("example").await.recovery_count, 2);
    assert_eq!(world.locks().await, 0);
    elsewhere.check().await;
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn a_client_gets_the_life_that_it_asks_for_within_limits(
    #[values(Transport::Grpc, Transport::Json)] over: Transport,
) {
    let world = World::start().await;
    let mut bot = world.bot("example").over(over).await;
    let now = world.now().timestamp();

    let mut life = async |asked: Option<TimeDelta>| {
        let joining = bot.joining();
        let joined = match asked {
            Some(life) => joining.for_life(life).await,
            None => joining.await,
        };
        joined.unwrap().certificate.not_after() - now
    };

    assert_eq!(life(None).await, 3600);
    assert_eq!(life(Some(TimeDelta::minutes(10))).await, 600);
    assert_eq!(life(Some(TimeDelta::seconds(1))).await, 10);
    assert_eq!(life(Some(TimeDelta::days(30))).await, 24 * 3600);
    let not_before = bot.certificate().read(|certificate| certificate.validity().not_before.timestamp());
    assert_eq!(not_before, now - 120);
    world.check().await;
}

/// One says when they are to end, the other for how long they are to live.
#[rstest]
#[case::at_a_time(Transport::Grpc, 600)]
#[case::after_a_time(Transport::Json, 630)]
#[tokio::test]
async fn a_client_that_takes_its_time_gets_the_end_that_it_asked_for(#[case] over: Transport, #[case] life: i64) {
    let world = World::start().await;
    let mut bot = world.bot("example").over(over).await;
    bot.join().await.unwrap();
    let asked_at = world.now().timestamp();

    let challenged = bot.joining().for_life(TimeDelta::minutes(10)).begin().await.unwrap();
    world.advance(TimeDelta::seconds(30));
    let joined = challenged.finish().await.unwrap();

    assert_eq!(joined.certificate.not_after() - asked_at, life);
    world.check().await;
}

/// Its certificate is as large as they are, and it must come back with that.
#[rstest]
#[tokio::test]
async fn a_bot_with_all_the_roles_that_there_can_be_renews(
    #[values(Transport::Grpc, Transport::Json)] over: Transport,
) {
    let world = World::start().await;
    let mut bot = world.bot("example").over(over).await;
    let mut resource = crate::world::bot_resource("example");
    resource.spec.as_mut().unwrap().roles = (0..100).map(|number| format!("{number:0158}")).collect();
    world.admin.upsert_bot(resource).await.unwrap();

    bot.join().await.unwrap();
    assert!(bot.certificate().der.len() > 16 * 1024);
    let renewed = bot.join().await.unwrap();

    assert_eq!(renewed.generation(), 2);
    world.check().await;
}
