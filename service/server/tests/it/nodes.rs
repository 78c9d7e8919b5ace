//! Two nodes on one database: what one is told, the other knows.

use chrono::TimeDelta;
use join_proto::v1::LockTarget;
use rstest::rstest;

use crate::world::{Conversation, Disk, Key, RENEWED, Transport, World, onboarding_of};

#[rstest]
#[tokio::test]
async fn a_lock_made_on_one_node_holds_on_the_other(#[values(Transport::Grpc, Transport::Json)] over: Transport) {
    let mut world = World::start().await;
    let second = world.another_node().await;
    let mut bot = world.bot("example").over(over).await;
    bot.node = second;
    bot.join().await.unwrap();
    bot.join().await.expect("the second node remembers the token by now");
    let target = LockTarget { join_token: "example".to_owned(), ..LockTarget::default() };
    let lock = world.operator.at(0).lock(target).await.unwrap();

    let refused = bot.join().await.unwrap_err();

    assert_eq!(refused, "LOCKED");
    assert_eq!(refused.lock, Some(lock.metadata.unwrap().name));
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn everything_that_an_administrator_changes_on_one_node_counts_on_the_other(
    #[values(Transport::Grpc, Transport::Json)] over: Transport,
) {
    let mut world = World::start().await;
    let second = world.another_node().await;
    let mut bot = world.bot("example").limit(1).over(over).await;
    bot.node = second;
    bot.join().await.unwrap();
    assert_eq!(bot.certificate().claims()["roles"], serde_json::json!(["deployer"]));

    let mut resource = crate::world::bot_resource("example");
    resource.spec.as_mut().unwrap().roles = vec!["auditor".to_owned()];
    world.admin.upsert_bot(resource).await.unwrap();
    bot.join().await.unwrap();
    assert_eq!(bot.certificate().claims()["roles"], serde_json::json!(["auditor"]));

    world.advance(TimeDelta::hours(2));
    assert_eq!(bot.join().await.unwrap_err(), "RECOVERY_LIMIT_EXHAUSTED");
    world.admin.set_limit("example", 2).await;
    bot.join().await.unwrap();

    world.advance(TimeDelta::hours(2));
    world.admin.grant("example", "recoveries").await.unwrap();
    bot.join().await.unwrap();

    world.admin.rotate("example").await.unwrap();
    assert_eq!(bot.join().await.unwrap().asked.len(), 3);

    world.admin.delete_token("example").await.unwrap();
    assert_eq!(bot.join().await.unwrap_err(), "ACCESS_DENIED");
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn renewals_may_alternate_between_nodes(#[values(Transport::Grpc, Transport::Json)] over: Transport) {
    let mut world = World::start().await;
    let second = world.another_node().await;
    let mut bot = world.bot("example").over(over).await;
    bot.join().await.unwrap();
    world.catch_up("example").await;

    for generation in 2..=7 {
        bot.node = if generation % 2 == 0 { second } else { 0 };
        assert_eq!(bot.join().await.unwrap().generation(), generation);
    }

    assert_eq!(world.news("example").await, RENEWED.repeat(6));
    assert_eq!(world.locks().await, 0);
    world.check().await;
}

/// The second node remembers the token as it was, and the first has changed it: the client must not notice.
#[rstest]
#[case::joined(Change::Renewed)]
#[case::recovered(Change::Recovered)]
#[case::rotated(Change::Rotated)]
#[case::rotated_and_expired(Change::RotatedAndExpired)]
#[case::reopened(Change::Reopened)]
#[case::made_again(Change::MadeAgain)]
#[tokio::test]
async fn what_a_node_remembers_stops_nobody(
    #[values(Transport::Grpc, Transport::Json)] over: Transport,
    #[case] change: Change,
) {
    let mut world = World::start().await;
    let second = world.another_node().await;
    let mut bot = world.bot("example").limit(9).over(over).await;
    bot.node = second;
    bot.join().await.unwrap();
    bot.join().await.unwrap();
    bot.node = 0;
    match change {
        Change::Renewed => {
            bot.join().await.unwrap();
        }
        Change::Recovered => {
            world.advance(TimeDelta::hours(2));
            bot.join().await.unwrap();
        }
        Change::Rotated | Change::RotatedAndExpired => {
            world.admin.rotate("example").await.unwrap();
            bot.join().await.unwrap();
            if change == Change::RotatedAndExpired {
                world.advance(TimeDelta::hours(2));
            }
        }
        Change::Reopened => {
            bot.secret = world.admin.reopen("example").await.unwrap();
            bot.disk = Disk::default();
        }
        Change::MadeAgain => {
            world.admin.delete_token("example").await.unwrap();
            bot = world.bot("example").over(over).await;
        }
    }
    bot.node = second;

    bot.join().await.unwrap();

    assert_eq!(world.locks().await, 0);
    world.check().await;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Renewed,
    Recovered,
    Rotated,
    RotatedAndExpired,
    Reopened,
    MadeAgain,
}

/// A client that does not say which keys it holds is challenged for the wrong one once at most.
#[tokio::test]
async fn a_node_looks_again_after_a_challenge_that_nobody_could_solve() {
    let mut world = World::start().await;
    let second = world.another_node().await;
    let mut bot = world.bot("example").limit(9).await;
    bot.node = second;
    bot.joining().like_a_plain_client().await.unwrap();
    bot.joining().like_a_plain_client().await.unwrap();
    bot.node = 0;
    world.admin.rotate("example").await.unwrap();
    bot.joining().like_a_plain_client().await.unwrap();
    world.advance(TimeDelta::hours(2));
    bot.node = second;

    let first = bot.joining().like_a_plain_client().with_secret("").await.unwrap_err();

    assert_eq!(first, "CONFLICT", "nobody is refused by what a node remembers");
    bot.joining().like_a_plain_client().with_secret("").await.unwrap();
    assert_eq!(world.locks().await, 0);
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn an_answer_that_one_node_lost_is_given_by_the_other(
    #[values(Transport::Grpc, Transport::Json)] over: Transport,
) {
    let mut world = World::start().await;
    let second = world.another_node().await;
    let mut bot = world.bot("example").over(over).await;
    bot.join().await.unwrap();
    let lost = bot.joining().losing_the_answer().await.unwrap();
    bot.node = second;

    assert_eq!(bot.join().await.unwrap().serial(), lost.serial());

    assert_eq!(world.token("example").await.generation, 2);
    assert_eq!(world.locks().await, 0);
    world.check().await;
}

#[tokio::test]
async fn any_node_continues_what_another_opened() {
    let mut world = World::start().await;
    let second = world.another_node().await;
    let mut bot = world.bot("example").over(Transport::Json).await;
    bot.join().await.unwrap();
    world.admin.rotate("example").await.unwrap();
    let network = std::sync::Arc::clone(&bot.network);

    let mut ceremony = bot.joining().begin().await.unwrap();
    for node in [second, 0, second] {
        let Conversation::Calls(calls) = &mut ceremony.conversation else { panic!("calls were made") };
        // Without its certificate: the continuation says with which one the join began.
        calls.http = crate::world::Http::connect(&network, node, None).await.unwrap();
        ceremony = ceremony.answer().await.unwrap();
    }
    let joined = ceremony.finish().await.unwrap();

    assert_eq!((joined.asked.len(), joined.generation()), (3, 2));
    assert_eq!(world.token("example").await.bound_public_key, bot.key().line());
    world.check().await;
}

/// The node that opens remembers a token with which a copy has joined elsewhere since, and another concludes.
#[tokio::test]
async fn a_copy_is_found_whichever_node_takes_which_call() {
    let mut world = World::start().await;
    let second = world.another_node().await;
    let mut owner = world.bot("example").over(Transport::Json).await;
    owner.join().await.unwrap();
    owner.join().await.unwrap();
    let mut copy = owner.clone();
    copy.node = second;
    copy.join().await.unwrap();
    let network = std::sync::Arc::clone(&owner.network);

    let mut ceremony = owner.joining().begin().await.unwrap();
    let Conversation::Calls(calls) = &mut ceremony.conversation else { panic!("calls were made") };
    calls.http = crate::world::Http::connect(&network, second, None).await.unwrap();
    let refused = ceremony.answer().await.map(|_| ()).unwrap_err();

    assert_eq!(refused, "GENERATION_MISMATCH");
    assert_eq!(world.locks().await, 1);
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn a_preregistered_key_that_was_replaced_is_asked_for_by_no_node(
    #[values(Transport::Grpc, Transport::Json)] over: Transport,
) {
    let mut world = World::start().await;
    let second = world.another_node().await;
    let mut bot = world.bot("example").preregistered().over(over).await;
    bot.node = second;
    drop(bot.joining().begin().await.expect("that node remembers the token with the first key"));
    bot.forget_attempt();

    let right = Key::ed25519();
    world.admin.edit("example", |token| onboarding_of(token).initial_public_key = right.line()).await.unwrap();
    bot.disk.keys = vec![right];

    bot.join().await.expect("the key that is registered now");
    world.check().await;
}

/// Hosts with one static key and no documents show nothing that could say which of two nodes knows more.
#[rstest]
#[tokio::test]
async fn a_fleet_without_documents_joins_by_turns(#[values(Transport::Grpc, Transport::Json)] over: Transport) {
    let mut world = World::start().await;
    let second = world.another_node().await;
    let mut host = world.bot("example").mode("insecure").preregistered().over(over).await;
    for node in [0, second, 0, second, second, 0] {
        host.node = node;
        host.joining().without_certificate().without_join_state().await.unwrap();
    }
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn a_bot_that_was_reinstated_on_one_node_joins_on_the_other(
    #[values(Transport::Grpc, Transport::Json)] over: Transport,
) {
    let mut world = World::start().await;
    let second = world.another_node().await;
    let mut bot = world.bot("example").limit(9).over(over).await;
    bot.node = second;
    bot.join().await.unwrap();
    let mut thief = bot.clone();
    thief.join().await.unwrap();
    assert_eq!(bot.join().await.unwrap_err(), "GENERATION_MISMATCH");
    assert_eq!(bot.join().await.unwrap_err(), "LOCKED", "that node remembers the lock");
    bot.forget_attempt();
    world.admin.at(0).reinstate("example").await.unwrap();

    bot.join().await.unwrap();
    world.check().await;
}

/// That a node remembers a lock must not show before a key is proven. So it looks again for that after the challenge only, and
/// the challenge is of before the reinstatement.
#[tokio::test]
async fn a_bot_that_was_reinstated_on_one_node_recovers_on_the_other() {
    let mut world = World::start().await;
    let second = world.another_node().await;
    let mut bot = world.bot("example").limit(9).await;
    bot.node = second;
    bot.join().await.unwrap();
    let mut thief = bot.clone();
    thief.join().await.unwrap();
    assert_eq!(bot.join().await.unwrap_err(), "GENERATION_MISMATCH");
    assert_eq!(bot.join().await.unwrap_err(), "LOCKED", "that node remembers the lock");
    bot.forget_attempt();
    world.admin.at(0).reinstate("example").await.unwrap();
    world.advance(TimeDelta::hours(2));

    assert_eq!(bot.join().await.unwrap_err(), "CONFLICT");
    bot.join().await.expect("the same attempt, with nothing changed");
    assert_eq!(world.locks().await, 0);
    world.check().await;
}

/// What a node reads of a token that it never saw is not all that concerns an attempt.
#[tokio::test]
async fn a_lock_on_an_earlier_instance_holds_on_a_node_that_never_saw_the_token() {
    let mut world = World::start().await;
    let second = world.another_node().await;
    let mut one = world.bot("example").mode("insecure").preregistered().over(Transport::Json).await;
    let mut two = one.clone();
    one.join().await.unwrap();
    two.join().await.unwrap();
    let (network, instance) = (std::sync::Arc::clone(&one.network), one.certificate().instance());
    world.admin.lock(LockTarget { bot_instance_id: instance, ..LockTarget::default() }).await.unwrap();

    let mut ceremony = one.joining().begin().await.unwrap();
    let Conversation::Calls(calls) = &mut ceremony.conversation else { panic!("calls were made") };
    calls.http = crate::world::Http::connect(&network, second, None).await.unwrap();
    let Err(refused) = ceremony.answer().await else { panic!("it was admitted") };

    assert_eq!(refused, "LOCKED");
    world.check().await;
}

#[tokio::test]
async fn a_continuation_of_another_cluster_is_nothing() {
    let (world, elsewhere) = (World::start().await, World::start().await);
    let mut bot = world.bot("example").over(Transport::Json).await;
    bot.join().await.unwrap();
    let network = std::sync::Arc::clone(&elsewhere.network);

    let mut ceremony = bot.joining().begin().await.unwrap();
    let Conversation::Calls(calls) = &mut ceremony.conversation else { panic!("calls were made") };
    calls.http = crate::world::Http::connect(&network, 0, None).await.unwrap();
    let Err(refused) = ceremony.answer().await else { panic!("it was taken") };

    assert_eq!(refused, "CHALLENGE_FAILED");
    elsewhere.check().await;
    world.check().await;
}
