//! Histories that were not allowed, made of one that was: what the auditor says of them.

use chrono::TimeDelta;
use join_audit::{Fault, verify_history};
use join_proto::v1::LockTarget;
use serde_json::{Value, json};

use crate::world::World;

/// First join, renewal whose answer was given again, rotation, recovery, one by an exemption, and a lock that came and went.
async fn lived_through() -> Vec<Value> {
    let world = World::start().await;
    let mut bot = world.bot("example").limit(2).await;
    bot.join().await.unwrap();
    bot.joining().losing_the_answer().await.unwrap();
    bot.join().await.unwrap();
    world.admin.rotate("example").await.unwrap();
    world.advance(TimeDelta::seconds(1));
    bot.join().await.unwrap();
    world.advance(TimeDelta::hours(2));
    bot.join().await.unwrap();
    world.admin.grant("example", "recoveries").await.unwrap();
    world.advance(TimeDelta::hours(2));
    bot.join().await.unwrap();
    let target = LockTarget { join_token: "example".to_owned(), ..LockTarget::default() };
    let lock = world.admin.lock(target).await.unwrap();
    world.advance(TimeDelta::minutes(10));
    world.admin.unlock(&lock.metadata.unwrap().name).await.unwrap();
    bot.join().await.unwrap();
    world.settle().await;
    let envelopes = world.envelopes().await;
    world.check().await;
    envelopes.iter().map(|envelope| serde_json::from_str(envelope).unwrap()).collect()
}

fn events(entry: &mut Value) -> &mut Vec<Value> {
    entry["events"].as_array_mut().unwrap()
}

fn holds(entry: &Value, kind: &str) -> bool {
    entry["events"].as_array().unwrap().iter().any(|event| event["kind"] == kind)
}

/// The data of the event of that kind, in the last entry with a join that has all of `kinds`.
fn data<'h>(history: &'h mut [Value], kinds: &[&str], kind: &str) -> &'h mut Value {
    let entry = entry(history, kinds);
    &mut events(entry).iter_mut().find(|event| event["kind"] == kind).unwrap()["data"]
}

fn entry<'h>(history: &'h mut [Value], kinds: &[&str]) -> &'h mut Value {
    history.iter_mut().rev().find(|entry| kinds.iter().all(|kind| holds(entry, kind))).unwrap()
}

const RENEWED: &[&str] = &["generation.bumped", "join.accepted"];
const RECOVERED: &[&str] = &["recovery.consumed", "join.accepted"];
const FIRST: &[&str] = &["keypair.bound"];
const ROTATED: &[&str] = &["keypair.rotated"];
const RESUMED: &[&str] = &["join.resumed"];

const UNREGISTERED: &str = "the key is neither preregistered nor bound in time by the token's secret";

type Forgery = fn(&mut Vec<Value>);

const FORGERIES: &[(&str, Forgery)] = &[
    ("its recovery is not counted as the next", |history| {
        data(history, RECOVERED, "recovery.consumed")["count"] = json!(2);
        data(history, RECOVERED, "join.accepted")["recovery_count"] = json!(2);
    }),
    ("no recovery was left, and no exemption was spent", |history| {
        data(history, &["exemption.granted"], "exemption.granted")["exemption"] = json!("generation");
    }),
    ("its generation is not the next", |history| {
        data(history, RENEWED, "generation.bumped")["generation"] = json!(9);
        data(history, RENEWED, "join.accepted")["generation"] = json!(9);
    }),
    ("its certificate was not of the latest generation", |history| {
        data(history, RENEWED, "join.accepted")["seen"]["certificate"]["generation"] = json!(7);
    }),
    ("it renews without a certificate", |history| {
        data(history, RENEWED, "join.accepted")["seen"]["certificate"] = Value::Null;
    }),
    ("it does not begin a lineage that follows the latest", |history| {
        data(history, RECOVERED, "join.accepted")["previous_instance"] = Value::Null;
    }),
    ("it is called a first join, a renewal or a recovery, and is none", |history| {
        data(history, RECOVERED, "join.accepted")["case"] = json!("first_join");
    }),
    ("it did not show the join state of the latest join", |history| {
        data(history, RECOVERED, "join.accepted")["seen"]["join_state"]["authentic"]["sequence"] = json!(1);
    }),
    ("a challenge is not solved", |history| {
        let other = data(history, FIRST, "challenge.solved")["challenge"].clone();
        data(history, RENEWED, "challenge.solved")["challenge"] = other;
    }),
    ("the key that was proven is not the bound one", |history| {
        let other = data(history, FIRST, "challenge.issued")["key"].clone();
        data(history, RENEWED, "challenge.issued")["key"] = other;
    }),
    (UNREGISTERED, |history| {
        data(history, &["token.created"], "token.created")["secret"] = Value::Null;
    }),
    (UNREGISTERED, |history| {
        data(history, &["token.created"], "token.created")["spec"]["must_register_before"] =
            json!("2020-01-01T00:00:00Z");
    }),
    ("a join is part of the first entry of its stream", |history| {
        let first = history.iter().position(|entry| holds(entry, FIRST[0])).unwrap();
        let mut join = history.remove(first);
        events(entry(history, &["token.created"])).append(events(&mut join));
    }),
    ("no new key was due", |history| {
        let due = entry(history, &["token.updated"]);
        events(due)[0]["data"]["spec"]["rotate_after"] = Value::Null;
    }),
    ("its roles or principals are not those of the bot, or the bot was deleted", |history| {
        data(history, RENEWED, "join.accepted")["roles"] = json!(["root"]);
    }),
    ("its certificates don't begin when it was decided", |history| {
        data(history, RENEWED, "join.accepted")["not_before"] = json!("2020-01-01T00:00:00Z");
    }),
    ("it is not recorded as the bot's", |history| {
        entry(history, RENEWED)["actor"] = json!("nobody");
    }),
    ("its limit or mode are not the token's", |history| {
        data(history, RENEWED, "join.accepted")["recovery_limit"] = json!(9);
    }),
    ("was in force", |history| history.retain(|entry| !holds(entry, "lock.deleted"))),
    ("`generation.bumped` is part of an accepted join, and none is there", |history| {
        events(entry(history, RENEWED)).retain(|event| event["kind"] != "join.accepted");
    }),
    ("what was given again is not the answer of the latest join", |history| {
        data(history, RESUMED, "join.resumed")["serial"] = json!("0123456789abcdef0123456789abcdef");
    }),
    ("no key was proven", |history| {
        events(entry(history, RESUMED)).retain(|event| event["kind"] == "join.resumed");
    }),
    ("the key that was proven is not the bound one", |history| {
        let other = data(history, RECOVERED, "challenge.issued")["key"].clone();
        data(history, RESUMED, "challenge.issued")["key"] = other;
    }),
    ("what was given again had ended when it was asked for", |history| {
        data(history, RESUMED, "challenge.issued")["at"] = json!("2100-01-01T00:00:00Z");
    }),
    ("one append gives two answers", |history| {
        let again = events(entry(history, RESUMED)).clone();
        events(entry(history, RESUMED)).extend(again);
    }),
    ("the token had the new key before", |history| {
        let old = data(history, ROTATED, "keypair.rotated")["old"].clone();
        let key = events(entry(history, ROTATED))[0]["data"]["key"].clone();
        data(history, ROTATED, "keypair.rotated")["new"] = old;
        data(history, ROTATED, "join.accepted")["key"] = key.clone();
        events(entry(history, ROTATED))[2]["data"]["key"] = key;
    }),
];

#[tokio::test]
async fn what_was_not_allowed_is_found() {
    let history = lived_through().await;
    for (why, forge) in FORGERIES {
        let mut forged = history.clone();
        forge(&mut forged);
        let envelopes: Vec<String> = forged.iter().map(Value::to_string).collect();

        let findings = verify_history(envelopes.iter().map(String::as_str));

        let forbidden = findings.iter().find(|finding| finding.fault == Fault::ForbiddenHistory);
        assert!(forbidden.is_some_and(|finding| finding.what.contains(why)), "{why}: {findings:#?}");
    }
}
