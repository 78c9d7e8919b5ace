//! Those who prove nothing: they are limited and summed up, and stop nobody else.

use std::num::NonZero;

use chrono::TimeDelta;
use join_domain::Timestamp;
use join_proto::{
    teleport::{GivingUp, join_request::Payload},
    v1::LockTarget,
};
use join_server::config::Limits;
use rstest::rstest;

use crate::world::{Bot, Conversation, Key, NOTHING, REFUSED_AFTER_SECRET, Transport, World, data};

fn strict() -> Limits {
    Limits {
        failures_per_address: NonZero::new(20).unwrap(),
        failures_per_token_and_address: NonZero::new(4).unwrap(),
        ..Limits::default()
    }
}

/// Fails until it is told to slow down.
async fn knock(bot: &mut Bot) {
    for _ in 0..100 {
        let refused = bot.joining().signed_by(&Key::ed25519()).await.unwrap_err();
        if refused == "RATE_LIMITED" {
            assert!(refused.retry_after.is_some_and(|seconds| seconds > 0), "{refused:?}");
            assert!(["ResourceExhausted", "429"].contains(&refused.status.as_str()));
            return;
        }
        assert_eq!(refused, "CHALLENGE_FAILED");
    }
    panic!("nobody was limited");
}

#[rstest]
#[tokio::test]
async fn a_limit_never_refuses_who_solves_the_challenge(#[values(Transport::Grpc, Transport::Json)] over: Transport) {
    let world = World::with(strict()).await;
    let mut bot = world.bot("example").limit(9).over(over).await;
    bot.join().await.unwrap();
    bot.secret.clear();
    let mut preregistered = world.bot("second").preregistered().over(over).await;
    world.catch_up("example").await;
    let (mut stranger, mut another) = (bot.clone(), preregistered.clone());
    another.secret.clear();

    knock(&mut stranger).await;
    knock(&mut another).await;

    bot.join().await.expect("a renewal from the same address");
    bot.joining().without_certificate().await.expect("a recovery");
    preregistered.join().await.expect("a first join");
    assert_eq!(stranger.joining().signed_by(&Key::ed25519()).await.unwrap_err(), "RATE_LIMITED");
    assert_eq!(world.locks().await, 0);
    world.check().await;
}

#[tokio::test]
async fn strangers_write_nothing_to_a_tokens_history() {
    let mut world = World::with(strict()).await;
    let mut bot = world.bot("example").await;
    bot.join().await.unwrap();
    bot.secret.clear();
    world.catch_up("example").await;
    let before = world.token("example").await;
    let mut stranger = bot.clone();
    knock(&mut stranger).await;
    let mut unknown = bot.clone();
    for invented in ["a", "b", "not a name", "A"] {
        unknown.token = invented.to_owned();
        assert_eq!(unknown.join().await.unwrap_err(), "ACCESS_DENIED");
    }
    assert_eq!(world.news("example").await, NOTHING);
    assert_eq!(world.token("example").await, before);

    let begun = world.now();
    world.advance(TimeDelta::minutes(1));
    // They are summed up, at the latest when the node stops.
    world.restart().await;
    world.settle().await;
    let request =
        join_proto::v1::ListEventsRequest { kinds: vec!["refusals.summarised".to_owned()], ..Default::default() };
    let told: Vec<_> = world.auditor.events(request).await.events.iter().map(data).collect();
    let count = |token: serde_json::Value, code: &str| {
        let of = told.iter().filter(|summary| summary["token"] == token && summary["code"] == code);
        of.map(|summary| summary["count"].as_u64().unwrap()).sum::<u64>()
    };
    for summary in &told {
        let times = ["since", "until"].map(|time| summary[time].as_str().unwrap().parse::<Timestamp>().unwrap());
        assert_eq!(times, [begun, world.now()], "the first summary, too, begins when counting began");
    }
    assert_eq!(count("example".into(), "CHALLENGE_FAILED"), 4);
    assert_eq!(count("example".into(), "RATE_LIMITED"), 1);
    assert_eq!(count(serde_json::Value::Null, "ACCESS_DENIED"), 4, "inventions are not told apart");
    assert_eq!(world.news("example").await, NOTHING);
    world.check().await;
}

#[tokio::test]
async fn guesses_of_a_secret_are_limited() {
    let world = World::with(strict()).await;
    let mut bot = world.bot("example").await;
    let mut other = world.bot("other").await;
    let mut answers = Vec::new();
    for guess in 0..10 {
        let Err(refused) = bot.joining().with_secret(&format!("guess {guess}")).begin().await else {
            panic!("guessed")
        };
        answers.push(refused.code);
    }
    assert_eq!(answers.iter().filter(|code| *code == "REGISTRATION_SECRET_REQUIRED").count(), 4);
    assert_eq!(answers.iter().filter(|code| *code == "RATE_LIMITED").count(), 6);

    other.join().await.expect("another token's bot joins from the same address");
    assert_eq!(world.locks().await, 0);
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn a_used_up_secret_is_not_found_by_its_answer(#[values(Transport::Grpc, Transport::Json)] over: Transport) {
    let world =
        World::with(Limits { failures_per_token_and_address: NonZero::new(1).unwrap(), ..Limits::default() }).await;
    let mut bot = world.bot("example").limit(9).over(over).await;
    bot.join().await.unwrap();
    world.catch_up("example").await;
    let mut stranger = bot.clone();
    stranger.secret.clear();
    knock(&mut stranger).await;

    let mut guess =
        async |secret: &str| stranger.joining().with_secret(secret).signed_by(&Key::ed25519()).await.unwrap_err().code;
    let (wrong, right) = (guess("open sesame").await, guess(&bot.secret).await);

    assert_eq!([right.as_str(), wrong.as_str()], ["RATE_LIMITED"; 2]);
    assert_eq!(world.news("example").await, REFUSED_AFTER_SECRET, "who found it is on record");
    for _ in 0..3 {
        bot.join().await.expect("an honest agent sends the secret in its configuration each time");
    }
    world.check().await;
}

/// Clients of the field give up when they don't hold the challenged key, so a guess may end like that, too.
#[tokio::test]
async fn a_used_up_secret_is_not_found_by_giving_up() {
    let world = World::with(strict()).await;
    let mut bot = world.bot("example").await;
    bot.join().await.unwrap();
    world.catch_up("example").await;
    let mut stranger = bot.clone();
    stranger.disk.certificate = None;

    for secret in ["open sesame", &bot.secret, "open sesame", &bot.secret] {
        let challenged = stranger.joining().with_secret(secret).without_join_state().begin().await.unwrap();
        let Conversation::Stream(mut stream) = challenged.conversation else { panic!("a stream was opened") };
        stream.send(Payload::GivingUp(GivingUp { reason: 3, msg: String::new() })).await;
        assert!(stream.receive().await.unwrap().is_none(), "it ends, right or wrong");
    }

    assert_eq!(world.news("example").await, NOTHING);
    let next = stranger.joining().with_secret("open sesame").signed_by(&Key::ed25519()).await;
    assert_eq!(next.unwrap_err(), "RATE_LIMITED", "each was a guess");
    bot.join().await.expect("an honest agent");
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn a_right_secret_that_comes_too_late_is_not_found_by_its_answer(
    #[values(Transport::Grpc, Transport::Json)] over: Transport,
) {
    let world = World::with(strict()).await;
    let end = world.now() + TimeDelta::hours(1);
    let mut bot = world.bot("example").must_register_before(end).over(over).await;
    world.advance(TimeDelta::hours(1));
    world.catch_up("example").await;
    let right = bot.secret.clone();
    let mut guess =
        async |secret: &str| bot.joining().with_secret(secret).await.map(|_| ()).expect_err("it is too late").code;
    for _ in 0..4 {
        assert_eq!(guess("").await, "REGISTRATION_SECRET_REQUIRED");
    }

    let (wrong, right) = (guess("open sesame").await, guess(&right).await);

    assert_eq!([right.as_str(), wrong.as_str()], ["RATE_LIMITED"; 2]);
    assert_eq!(world.news("example").await, REFUSED_AFTER_SECRET, "who found it is on record");
    world.check().await;
}

/// Reading takes time, which who opens a join can measure: it must not tell what strangers may not know.
#[tokio::test]
async fn a_node_reads_the_same_for_every_stranger() {
    let world = World::start().await;
    let mut bot = world.bot("example").limit(9).await;
    bot.join().await.unwrap();
    let mut stranger = bot.clone();
    stranger.disk.certificate = None;
    let (ledger, used_up) = (world.ledger(), bot.secret.clone());

    for is_locked in [false, true] {
        if is_locked {
            world.operator.lock(LockTarget { join_token: "example".to_owned(), ..Default::default() }).await.unwrap();
        }
        for secret in ["", "open sesame", &used_up] {
            for join_state in ["", "no document"] {
                assert_eq!(bot.join().await.is_err(), is_locked, "the node remembers the token, and its lock");
                let before = ledger.token_reads();
                drop(stranger.joining().with_secret(secret).with_join_state(join_state).begin().await.unwrap());
                assert_eq!(ledger.token_reads() - before, 1, "{is_locked} {secret:?} {join_state:?}");
            }
        }
        assert_eq!(bot.join().await.is_err(), is_locked);
        let before = ledger.token_reads();
        drop(stranger.joining().begin().await.unwrap());
        assert_eq!(ledger.token_reads(), before, "a document that fits is no proof, either: {is_locked}");
    }
    world.check().await;
}

#[tokio::test]
async fn a_node_that_remembers_a_token_reads_nothing_for_its_bot() {
    let world = World::start().await;
    let mut bot = world.bot("example").limit(9).await;
    let mut rejoin = async || {
        bot.join().await.unwrap();
        bot.joining().without_certificate().await.unwrap();
    };
    // By then it has its place in the memory, as large as it stays.
    rejoin().await;
    let reads = world.ledger().token_reads();

    for _ in 0..3 {
        rejoin().await;
    }

    assert_eq!(world.ledger().token_reads(), reads, "renewals and recoveries, with the used-up secret beside");
    world.check().await;
}

#[tokio::test]
async fn a_flood_of_inventions_stops_no_bot() {
    let world = World::with(strict()).await;
    let mut bot = world.bot("example").limit(9).await;
    bot.join().await.unwrap();
    let mut flood = bot.clone();
    flood.disk.certificate = None;
    let mut limited = 0;
    for number in 0..40 {
        flood.token = format!("invented-{number}");
        let refused = flood.join().await.unwrap_err();
        if refused == "RATE_LIMITED" { limited += 1 } else { assert_eq!(refused, "ACCESS_DENIED") }
    }
    assert!(limited >= 15, "{limited} were limited");
    bot.join().await.unwrap();
    bot.joining().without_certificate().await.unwrap();
    world.check().await;
}
