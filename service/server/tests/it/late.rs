//! Evidence has an age: what was asked before the latest accepted join decides nothing any more (protocol, section 3).

use chrono::TimeDelta;
use rstest::rstest;

use crate::world::{NOTHING, RECOVERED, REFUSED, RENEWED, RESUMED, Transport, World};

#[rstest]
#[tokio::test]
async fn a_late_duplicate_of_the_latest_join_resumes(
    #[values(Transport::Grpc, Transport::Json)] over: Transport,
    #[values(false, true)] recovers: bool,
) {
    let world = World::start().await;
    let mut bot = world.bot("example").limit(9).over(over).await;
    bot.join().await.unwrap();
    if recovers {
        world.advance(TimeDelta::hours(2));
    }
    let attempt = bot.joining().ask().attempt.clone();
    let mut twin = bot.clone();
    let late = twin.joining().begin().await.unwrap();
    let joined = bot.join().await.unwrap();
    world.catch_up("example").await;
    let before = world.token("example").await;

    let resumed = late.finish().await.unwrap();

    assert!(!attempt.is_empty());
    assert_eq!(resumed.serial(), joined.serial());
    assert_eq!(world.token("example").await, before);
    assert_eq!(world.news("example").await, RESUMED);
    assert_eq!(world.locks().await, 0);
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn a_late_duplicate_of_an_older_join_is_a_conflict(
    #[values(Transport::Grpc, Transport::Json)] over: Transport,
    #[values(false, true)] recovers: bool,
) {
    let world = World::start().await;
    let mut bot = world.bot("example").limit(9).over(over).await;
    bot.join().await.unwrap();
    if recovers {
        world.advance(TimeDelta::hours(2));
    }
    bot.joining();
    let mut twin = bot.clone();
    let late = twin.joining().begin().await.unwrap();
    bot.join().await.unwrap();
    bot.join().await.unwrap();
    world.catch_up("example").await;
    let before = world.token("example").await;

    let refused = late.finish().await.unwrap_err();

    assert_eq!(refused, "CONFLICT");
    assert_eq!(world.token("example").await, before, "nothing is consumed");
    assert_eq!(world.news("example").await, NOTHING);
    assert_eq!(world.locks().await, 0);
    bot.join().await.unwrap();
    assert_eq!(world.news("example").await, RENEWED);
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn late_evidence_of_a_clone_does_not_lock_yet(#[values(Transport::Grpc, Transport::Json)] over: Transport) {
    let world = World::start().await;
    let mut owner = world.bot("example").limit(9).over(over).await;
    owner.join().await.unwrap();
    let mut thief = owner.clone();
    let late = thief.joining().begin().await.unwrap();
    owner.join().await.unwrap();

    assert_eq!(late.finish().await.unwrap_err(), "CONFLICT", "it was asked before the owner joined");

    assert_eq!(world.locks().await, 0);
    assert_eq!(thief.join().await.unwrap_err(), "GENERATION_MISMATCH", "now it is new evidence");
    assert_eq!(world.locks().await, 1);
    world.check().await;
}

#[tokio::test]
async fn a_continuation_is_decided_once() {
    let world = World::start().await;
    let mut bot = world.bot("example").limit(9).over(Transport::Json).await;
    bot.join().await.unwrap();
    bot.secret.clear();
    world.catch_up("example").await;
    let key = bot.key().clone();
    let challenged = bot.joining().begin().await.unwrap();
    let solution = key.solve(challenged.document());
    let mut conversation = challenged.conversation;
    let crate::world::Conversation::Calls(calls) = &mut conversation else { panic!("calls were made") };
    let replay = serde_json::json!({ "continuation": calls.continuation, "solution": solution });

    let first = calls.http.post("/v1/join/continue", &replay).await.unwrap();
    let second = calls.http.post("/v1/join/continue", &replay).await.unwrap();
    assert_eq!(first["result"]["join_state"], second["result"]["join_state"]);
    assert_eq!(world.news("example").await, [RENEWED, RESUMED].concat());

    // After another join it is outdated, and after its time it is nothing.
    bot.join().await.unwrap();
    bot.join().await.unwrap();
    world.catch_up("example").await;
    assert_eq!(calls.http.post("/v1/join/continue", &replay).await.unwrap_err(), "CONFLICT");
    world.advance(TimeDelta::seconds(121));
    assert_eq!(calls.http.post("/v1/join/continue", &replay).await.unwrap_err(), "CHALLENGE_FAILED");
    assert_eq!(world.news("example").await, NOTHING);
    assert_eq!(world.token("example").await.generation, 3);
    assert_eq!(world.locks().await, 0);
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn a_refused_challenge_is_not_decided_again(#[values("standard", "relaxed")] mode: &str) {
    let world = World::start().await;
    let mut bot = world.bot("example").limit(9).mode(mode).over(Transport::Json).await;
    bot.join().await.unwrap();
    world.advance(TimeDelta::hours(2));
    world.catch_up("example").await;
    let key = bot.key().clone();
    let challenged = bot.joining().without_join_state().begin().await.unwrap();
    let solution = key.solve(challenged.document());
    let crate::world::Conversation::Calls(mut calls) = challenged.conversation else { panic!("calls were made") };
    let replay = serde_json::json!({ "continuation": calls.continuation, "solution": solution });

    assert_eq!(calls.http.post("/v1/join/continue", &replay).await.unwrap_err(), "JOIN_STATE_REQUIRED");
    world.catch_up("example").await;
    assert_eq!(calls.http.post("/v1/join/continue", &replay).await.unwrap_err(), "CONFLICT");

    assert_eq!(world.news("example").await, NOTHING);
    bot.join().await.unwrap();
    assert_eq!(world.news("example").await, RECOVERED);
    assert_eq!(world.locks().await, 0);
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn a_holder_whose_token_is_deleted_meanwhile_does_not_pass_unseen(
    #[values(Transport::Grpc, Transport::Json)] over: Transport,
    #[values(false, true)] is_made_again: bool,
) {
    let world = World::start().await;
    let mut bot = world.bot("example").over(over).await;
    bot.join().await.unwrap();
    bot.secret.clear();
    let deleted = world.token("example").await.token_id;
    let challenged = bot.joining().begin().await.unwrap();
    world.admin.delete_token("example").await.unwrap();
    if is_made_again {
        world.bot("example").await.join().await.unwrap();
    }
    world.catch_up("example").await;

    assert_eq!(challenged.finish().await.unwrap_err(), "ACCESS_DENIED");

    let told = world.new_events("example").await;
    assert_eq!(told.iter().map(|event| event.kind.as_str()).collect::<Vec<_>>(), REFUSED);
    assert!(told.iter().all(|event| event.stream == format!("token/{deleted}")), "{told:?}");
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn a_challenge_lives_for_a_minute_and_its_leeway(#[values(Transport::Grpc, Transport::Json)] over: Transport) {
    let world = World::start().await;
    let mut bot = world.bot("example").over(over).await;
    bot.join().await.unwrap();
    bot.secret.clear();

    let in_time = bot.joining().begin().await.unwrap();
    world.advance(TimeDelta::seconds(119));
    in_time.finish().await.unwrap();
    world.catch_up("example").await;

    let too_late = bot.joining().begin().await.unwrap();
    world.advance(TimeDelta::seconds(122));
    assert_eq!(too_late.finish().await.unwrap_err(), "CHALLENGE_FAILED");
    assert_eq!(world.news("example").await, NOTHING);
    assert_eq!(world.locks().await, 0);
    world.check().await;
}
