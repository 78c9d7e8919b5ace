//! Many at once: exactly one wins, and nobody is locked who should not be.

use std::{collections::HashMap, num::NonZero};

use futures::future::join_all;
use join_proto::v1::LockTarget;
use join_server::config::Limits;
use rstest::rstest;

use crate::world::{Bot, Joined, Key, REFUSED, Refused, Transport, World};

const MANY: usize = 64;

/// How often each answer was given.
fn tally(answers: &[Result<Joined, Refused>]) -> HashMap<&str, usize> {
    let mut tally = HashMap::new();
    for answer in answers {
        *tally.entry(answer.as_ref().map_or_else(|refused| refused.code.as_str(), |_| "joined")).or_default() += 1;
    }
    tally
}

/// All are asked before any of them answers.
async fn all_at_once(bots: &mut [Bot]) -> Vec<Result<Joined, Refused>> {
    let challenged = join_all(bots.iter_mut().map(|bot| bot.joining().begin())).await;
    join_all(challenged.into_iter().map(async |ceremony| ceremony?.finish().await)).await
}

async fn renewing(world: &World, over: Transport) -> Bot {
    let mut bot = world.bot("example").limit(9).over(over).await;
    bot.join().await.unwrap();
    bot.secret.clear();
    world.catch_up("example").await;
    bot
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_64_renewals_with_one_certificate_one_is_accepted(
    #[values(Transport::Grpc, Transport::Json)] over: Transport,
) {
    let world = World::start().await;
    let bot = renewing(&world, over).await;
    let mut bots = vec![bot; MANY];

    let answers = all_at_once(&mut bots).await;

    assert_eq!(tally(&answers), HashMap::from([("joined", 1), ("CONFLICT", MANY - 1)]));
    assert_eq!(world.locks().await, 0);
    assert_eq!(world.token("example").await.generation, 2);
    let accepted = world.news("example").await.iter().filter(|kind| *kind == "join.accepted").count();
    assert_eq!(accepted, 1);

    // Whoever tries again with the old certificate is a second holder.
    let loser = answers.iter().position(Result::is_err).unwrap();
    assert_eq!(bots[loser].join().await.unwrap_err(), "GENERATION_MISMATCH");
    let winner = answers.iter().position(Result::is_ok).unwrap();
    assert_eq!(bots[winner].join().await.unwrap_err(), "LOCKED");
    assert_eq!(world.locks().await, 1);
    world.check().await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_64_retries_of_losers_one_lock_comes(#[values(Transport::Grpc, Transport::Json)] over: Transport) {
    let world = World::start().await;
    let mut bot = renewing(&world, over).await;
    let mut bots = vec![bot.clone(); MANY];
    bot.join().await.unwrap();

    let answers = join_all(bots.iter_mut().map(Bot::join)).await;

    let tally = tally(&answers);
    assert_eq!(tally["GENERATION_MISMATCH"], 1, "{tally:?}");
    assert_eq!(tally["LOCKED"], MANY - 1, "{tally:?}");
    assert_eq!(world.locks().await, 1);
    world.check().await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_64_requests_with_one_attempt_all_get_one_answer(
    #[values(Transport::Grpc, Transport::Json)] over: Transport,
) {
    let world = World::start().await;
    let mut bot = renewing(&world, over).await;
    bot.joining();
    let mut bots = vec![bot; MANY];

    let mut answers = all_at_once(&mut bots).await;
    for (bot, answer) in bots.iter_mut().zip(&mut answers) {
        if let Err(refused) = answer {
            assert_eq!(*refused, "CONFLICT");
            *answer = bot.join().await;
        }
    }

    let mut serials: Vec<String> = answers.into_iter().map(|answer| answer.unwrap().serial()).collect();
    serials.dedup();
    assert_eq!(serials.len(), 1, "one certificate");
    let told = world.news("example").await;
    assert_eq!(told.iter().filter(|kind| *kind == "join.accepted").count(), 1);
    assert_eq!(told.iter().filter(|kind| *kind == "join.resumed").count(), MANY - 1);
    assert_eq!(world.token("example").await.generation, 2);
    assert_eq!(world.locks().await, 0);
    world.check().await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_32_clients_with_one_secret_one_registers(#[values(Transport::Grpc, Transport::Json)] over: Transport) {
    let world =
        World::with(Limits { failures_per_token_and_address: NonZero::new(1000).unwrap(), ..Limits::default() }).await;
    let bot = world.bot("example").limit(99).over(over).await;
    world.catch_up("example").await;
    let mut bots = vec![bot; 32];

    let answers = join_all(bots.iter_mut().map(Bot::join)).await;

    let tally = tally(&answers);
    assert_eq!(tally["joined"], 1, "{tally:?}");
    let lost = ["CONFLICT", "CHALLENGE_FAILED"].iter().filter_map(|code| tally.get(code)).sum::<usize>();
    assert_eq!(lost, 31, "{tally:?}");
    let winner = answers.iter().position(Result::is_ok).unwrap();
    let token = world.token("example").await;
    assert_eq!(token.bound_public_key, bots[winner].key().line());
    assert_eq!(token.recovery_count, 1);
    assert_eq!(world.news("example").await.iter().filter(|kind| *kind == "keypair.bound").count(), 1);
    assert_eq!(world.locks().await, 0);
    bots[winner].join().await.unwrap();
    world.check().await;
}

/// A lock races against the whole of a join, or against its last step. What the join was answered, and the places of events
/// in the log by their kinds.
async fn race_for_a_lock(
    world: &World,
    over: Transport,
    round: u32,
) -> (Result<Joined, Refused>, HashMap<String, u64>) {
    let name = format!("example-{round}");
    let mut bot = world.bot(&name).over(over).await;
    bot.join().await.unwrap();
    bot.secret.clear();
    world.catch_up(&name).await;
    let lock = world.operator.lock(LockTarget { join_token: name.clone(), ..LockTarget::default() });

    let (locked, joined) = if round.is_multiple_of(2) {
        tokio::join!(lock, bot.join())
    } else {
        let challenged = bot.joining().begin().await.unwrap();
        tokio::join!(lock, challenged.finish())
    };

    locked.unwrap();
    let events = world.new_events(&name).await;
    assert_eq!(bot.join().await.unwrap_err(), "LOCKED");
    (joined, events.into_iter().map(|event| (event.kind, event.log_index.unwrap())).collect())
}

/// The lock is there before or after each join, never beside it.
#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_and_a_join_have_an_order(#[values(Transport::Grpc, Transport::Json)] over: Transport) {
    let world = World::start().await;
    for round in 0..8 {
        let (joined, places) = race_for_a_lock(&world, over, round).await;
        match joined {
            Ok(_) => {
                assert!(places.contains_key("join.accepted") && !places.contains_key("join.refused"), "{places:?}")
            }
            Err(refused) => {
                assert_eq!(refused, "LOCKED");
                assert!(!places.contains_key("join.accepted"), "{places:?}");
                assert!(places["join.refused"] > places["lock.created"], "refused for a lock to come: {places:?}");
            }
        }
    }
    world.check().await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_join_is_accepted_after_a_lock_in_the_log(#[values(Transport::Grpc, Transport::Json)] over: Transport) {
    let world = World::start().await;
    for round in 0..32 {
        let (joined, places) = race_for_a_lock(&world, over, round).await;
        if joined.is_ok() {
            assert!(places["join.accepted"] < places["lock.created"], "{places:?}");
        }
    }
    world.check().await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_lowered_against_a_recovery_has_an_order(#[values(Transport::Grpc, Transport::Json)] over: Transport) {
    let world = World::start().await;
    for round in 0..8 {
        let name = format!("example-{round}");
        let mut bot = world.bot(&name).limit(2).over(over).await;
        bot.join().await.unwrap();
        bot.secret.clear();

        let (_, recovered) = tokio::join!(world.admin.set_limit(&name, 1), bot.joining().without_certificate());

        let count = world.token(&name).await.recovery_count;
        match recovered {
            Ok(_) => assert_eq!(count, 2),
            Err(refused) => {
                assert_eq!(refused, "RECOVERY_LIMIT_EXHAUSTED");
                assert_eq!(count, 1);
            }
        }
        bot.forget_attempt();
        let again = bot.joining().without_certificate().await.unwrap_err();
        assert_eq!(again, "RECOVERY_LIMIT_EXHAUSTED");
    }
    assert_eq!(world.locks().await, 0);
    world.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_tokens_that_register_one_key_at_once_one_gets_it() {
    let world = World::start().await;
    for round in 0..4 {
        let (mut one, mut two) = (world.bot(&format!("one-{round}")).await, world.bot(&format!("two-{round}")).await);
        let key = if round % 2 == 0 { Key::ed25519() } else { Key::p256() };
        for bot in [&mut one, &mut two] {
            bot.disk.keys.push(key.clone());
        }
        let line = key.line();

        let (first, second) =
            tokio::join!(one.joining().offering(&line).signed_by(&key), two.joining().offering(&line).signed_by(&key));

        let (loser, refused) = match (first, second) {
            (Ok(_), Err(refused)) => (two, refused),
            (Err(refused), Ok(_)) => (one, refused),
            other => panic!("one key binds one token: {other:?}"),
        };
        assert_eq!(refused, "KEY_ALREADY_BOUND");
        assert_eq!(world.news(&loser.token).await[1..], *REFUSED, "after the token was created");
    }
    assert_eq!(world.locks().await, 0);
    world.check().await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_accept_one_of_many(#[values(Transport::Grpc, Transport::Json)] over: Transport) {
    let mut world = World::start().await;
    let second = world.another_node().await;
    let bot = renewing(&world, over).await;
    let mut bots = vec![bot; 16];
    bots.iter_mut().skip(8).for_each(|bot| bot.node = second);

    let answers = all_at_once(&mut bots).await;

    assert_eq!(tally(&answers), HashMap::from([("joined", 1), ("CONFLICT", 15)]));
    assert_eq!(world.locks().await, 0);
    assert_eq!(world.token("example").await.generation, 2);
    world.check().await;
}
