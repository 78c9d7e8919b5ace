//! What administrators write (protocol, section 2).

use chrono::TimeDelta;
use futures::future::join_all;
use join_proto::v1;
use rstest::rstest;
use serde_json::json;

use crate::world::{
    Conversation, Disk, Key, NOTHING, REFUSED, REGISTERED, Refused, Transport, World, bot_resource, bound_keypair,
    data, delete, onboarding_of, recovery, wire_time,
};

#[tokio::test]
async fn an_edit_keeps_the_status() {
    let world = World::start().await;
    let mut bot = world.bot("example").limit(1).await;
    bot.join().await.unwrap();
    let before = world.token("example").await;
    world.catch_up("example").await;

    let edited = world.admin.edit("example", |token| {
        recovery(token).limit = Some(7);
        recovery(token).mode = Some("relaxed".to_owned());
        bound_keypair(token).rotate_after = Some(wire_time(world.now() + TimeDelta::days(1)));
        token.metadata.as_mut().unwrap().labels.insert("team".to_owned(), "infra".to_owned());
        token.status = None;
    });

    let edited = edited.await.unwrap();
    assert_eq!(edited.status.unwrap().bound_keypair.unwrap(), before);
    assert_eq!(edited.spec.unwrap().bound_keypair.unwrap().recovery.unwrap().limit, Some(7));
    assert_eq!(world.news("example").await, ["token.updated"]);
    bot.join().await.expect("a renewal goes on");
    world.check().await;
}

#[tokio::test]
async fn a_status_that_a_user_sends_is_ignored() {
    let world = World::start().await;
    world.bot("example").await;
    let before = world.token("example").await;

    let edited = world.admin.edit("example", |token| {
        let status = token.status.as_mut().unwrap().bound_keypair.as_mut().unwrap();
        status.recovery_count = 0;
        status.bound_public_key = Key::ed25519().line();
        status.registration_secret = "mine".to_owned();
    });

    assert_eq!(edited.await.unwrap().status.unwrap().bound_keypair.unwrap(), before);
    world.check().await;
}

#[tokio::test]
async fn before_the_first_join_a_changed_credential_revokes_the_old_one() {
    let world = World::start().await;
    let mut bot = world.bot("example").await;
    let old = bot.secret.clone();

    world.admin.edit("example", |token| recovery(token).limit = Some(2)).await.unwrap();
    assert_eq!(world.token("example").await.registration_secret, old, "a secret that is left out is unchanged");

    let written = "chosen by an administrator";
    world.admin.edit("example", |token| onboarding_of(token).registration_secret = written.to_owned()).await.unwrap();
    assert_eq!(world.token("example").await.registration_secret, written);
    assert_eq!(bot.joining().with_secret(&old).await.unwrap_err(), "REGISTRATION_SECRET_REQUIRED");

    let key = Key::ed25519();
    world.admin.edit("example", |token| onboarding_of(token).initial_public_key = key.line()).await.unwrap();
    assert_eq!(world.token("example").await.registration_secret, "");
    assert_eq!(bot.joining().with_secret(written).signed_by(&Key::ed25519()).await.unwrap_err(), "CHALLENGE_FAILED");

    world.admin.edit("example", |token| onboarding_of(token).initial_public_key.clear()).await.unwrap();
    let generated = world.token("example").await.registration_secret;
    assert!(![old.as_str(), written, ""].contains(&generated.as_str()));
    bot.disk.keys.push(key.clone());
    let first = bot.joining().with_secret("").signed_by(&key).await.unwrap_err();
    assert_eq!(first, "REGISTRATION_SECRET_REQUIRED", "the preregistered key is not asked for any more");
    bot.disk.keys.clear();
    bot.joining().with_secret(&generated).await.unwrap();
    world.check().await;
}

#[tokio::test]
async fn a_registration_under_way_does_not_outlive_its_secret() {
    let world = World::start().await;
    let mut bot = world.bot("example").await;
    let challenged = bot.joining().begin().await.unwrap().answer().await.unwrap();
    world.admin.edit("example", |token| onboarding_of(token).registration_secret = "another".to_owned()).await.unwrap();

    assert_eq!(challenged.finish().await.unwrap_err(), "CONFLICT");

    assert_eq!(world.token("example").await.bound_public_key, "");
    world.check().await;
}

#[tokio::test]
async fn after_the_first_join_onboarding_is_no_longer_looked_at() {
    let world = World::start().await;
    let mut bot = world.bot("example").limit(9).await;
    bot.join().await.unwrap();
    let other = Key::ed25519();

    world
        .admin
        .edit("example", |token| {
            onboarding_of(token).registration_secret = "another".to_owned();
            onboarding_of(token).must_register_before = Some(wire_time(world.now()));
        })
        .await
        .unwrap();
    world.admin.edit("example", |token| onboarding_of(token).initial_public_key = other.line()).await.unwrap();

    let token = world.token("example").await;
    assert_eq!(token.bound_public_key, bot.key().line());
    assert!(!token.registration_secret_pending);
    bot.join().await.unwrap();
    world.bot("second").await;
    let preregister = world.admin.edit("second", |token| onboarding_of(token).initial_public_key = other.line());
    preregister.await.expect("the key that was not looked at is free");
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn another_bot_is_a_new_binding(#[values(Transport::Grpc, Transport::Json)] over: Transport) {
    let world = World::start().await;
    let mut bot = world.bot("example").limit(9).over(over).await;
    bot.join().await.unwrap();
    let serial = bot.certificate().read(|certificate| certificate.raw_serial_as_string());
    world.admin.create_bot(bot_resource("another")).await.unwrap();
    world.catch_up("example").await;

    let rebound = world.admin.edit("example", |token| token.spec.as_mut().unwrap().bot_name = "another".to_owned());

    let status = rebound.await.unwrap().status.unwrap().bound_keypair.unwrap();
    assert_eq!((status.recovery_count, status.bound_public_key.as_str()), (0, ""));
    assert!(!status.registration_secret.is_empty());
    world.settle().await;
    let list = world.stranger().http().await.get("/crl").await;
    assert!(crate::public::revoked_serials(&list).contains(&serial), "its certificates end with the binding");
    bot.forget_attempt();
    assert_eq!(bot.join().await.unwrap_err(), "BINDING_NOT_ALLOWED");
    assert_eq!(bot.joining().without_certificate().await.unwrap_err(), "REGISTRATION_SECRET_REQUIRED");
    world.catch_up("example").await;

    let key = Key::ed25519();
    let joining = bot.joining().without_certificate().with_secret(&status.registration_secret);
    bot = joining
        .offering(&key.line())
        .signed_by(&key)
        .losing_the_answer()
        .await
        .map(|joined| {
            assert_eq!(joined.certificate.uri().split('/').nth_back(1), Some("another"));
            bot.clone()
        })
        .unwrap();
    assert_eq!(world.news("example").await, REGISTERED);
    assert_eq!(world.locks().await, 0);
    drop(bot);
    world.check().await;
}

/// They stopped the holders of a binding that is no more; what an administrator locked by name stays locked.
#[tokio::test]
async fn another_bot_ends_the_locks_that_rules_made() {
    let world = World::start().await;
    let mut owner = world.bot("example").limit(9).await;
    owner.join().await.unwrap();
    let mut thief = owner.clone();
    thief.join().await.unwrap();
    let locked = owner.join().await.unwrap_err();
    assert_eq!(locked, "GENERATION_MISMATCH");
    let by_name = world.operator.lock(v1::LockTarget { join_token: "example".to_owned(), ..Default::default() });
    let by_name = by_name.await.unwrap().metadata.unwrap().name;
    world.admin.create_bot(bot_resource("another")).await.unwrap();
    world.catch_up("example").await;

    let rebound = world.admin.edit("example", |token| token.spec.as_mut().unwrap().bot_name = "another".to_owned());
    let status = rebound.await.unwrap().status.unwrap().bound_keypair.unwrap();

    assert_eq!(status.contested_at, None, "nobody has refused its holder yet");
    assert_eq!(world.news("example").await, ["token.updated", "lock.deleted"]);
    let left = world.admin.locks().await.into_iter().map(|lock| lock.metadata.unwrap().name);
    assert_eq!(left.collect::<Vec<_>>(), [by_name.as_str()]);
    world.admin.unlock(&by_name).await.unwrap();
    let mut other = owner.clone();
    other.disk = Disk::default();
    other.secret = status.registration_secret;
    other.join().await.unwrap();
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn one_key_binds_one_token(#[values(Transport::Grpc, Transport::Json)] over: Transport) {
    let world = World::start().await;
    let mut bot = world.bot("example").over(over).await;
    bot.join().await.unwrap();
    let preregistered = world.bot("waiting").preregistered().over(over).await;
    let mut other = world.bot("other").over(over).await;
    world.catch_up("other").await;

    for taken in [bot.key(), preregistered.key()] {
        let preregister = world.admin.edit("other", |token| onboarding_of(token).initial_public_key = taken.line());
        assert_eq!(preregister.await.unwrap_err(), "KEY_ALREADY_BOUND");
        let registered = other.joining().offering(&taken.line()).signed_by(taken).await.unwrap_err();
        assert_eq!(registered, "KEY_ALREADY_BOUND");
        assert_eq!(world.news("other").await, REFUSED);
    }

    let token = world.token("other").await;
    assert_eq!((token.bound_public_key.as_str(), token.recovery_count), ("", 0));
    assert_eq!(token.registration_secret, other.secret, "the secret is not spent");
    assert_eq!(world.locks().await, 0);
    other.forget_attempt();
    other.join().await.unwrap();
    world.check().await;
}

#[tokio::test]
async fn a_refused_registration_is_not_decided_again() {
    let world = World::start().await;
    let bot = world.bot("example").preregistered().await;
    let taken = bot.key().clone();
    let mut other = world.bot("other").over(Transport::Json).await;
    world.catch_up("other").await;
    let asked = other.joining().offering(&taken.line()).begin().await.unwrap().answer().await.unwrap();
    let solution = taken.solve(asked.document());
    let Conversation::Calls(mut calls) = asked.conversation else { panic!("calls were made") };
    let answer = json!({ "continuation": calls.continuation, "solution": solution });

    assert_eq!(calls.http.post("/v1/join/continue", &answer).await.unwrap_err(), "KEY_ALREADY_BOUND");
    let told = world.new_events("other").await;
    assert_eq!(told.iter().map(|event| event.kind.as_str()).collect::<Vec<_>>(), REFUSED);
    let why = data(&told[2])["why"].as_str().unwrap().to_owned();
    assert!(why.ends_with("the token's own secret was shown, and a new key proven"), "{why}");

    assert_eq!(calls.http.post("/v1/join/continue", &answer).await.unwrap_err(), "CONFLICT");
    assert_eq!(world.news("other").await, NOTHING, "an answer that is sent again tells nothing new");
    other.forget_attempt();
    other.join().await.unwrap();
    world.check().await;
}

#[tokio::test]
async fn a_second_token_with_the_same_key_is_not_created() {
    let world = World::start().await;
    let bot = world.bot("example").preregistered().await;
    let mut second = world.admin.get_token("example").await.unwrap();
    second.metadata = Some(v1::Metadata { name: "second".to_owned(), ..v1::Metadata::default() });

    assert_eq!(world.admin.create_token(second.clone()).await.unwrap_err(), "KEY_ALREADY_BOUND");

    assert_eq!(world.admin.get_token("second").await.unwrap_err(), "NOT_FOUND");
    world.admin.delete_token("example").await.unwrap();
    world.admin.create_token(second).await.expect("a deleted token leaves its key free");
    drop(bot);
    world.check().await;
}

#[tokio::test]
async fn an_edit_of_an_outdated_revision_is_refused() {
    let world = World::start().await;
    let mut bot = world.bot("example").limit(9).await;
    let first = world.admin.get_token("example").await.unwrap();
    let first_bot = world.admin.get_bot("example").await.unwrap();
    bot.join().await.unwrap();
    bot.join().await.unwrap();

    world.admin.upsert_token(first.clone()).await.expect("joins don't outdate an edit");
    assert_eq!(world.admin.upsert_token(first.clone()).await.unwrap_err(), "STALE_REVISION");
    world.admin.upsert_bot(first_bot.clone()).await.unwrap();
    assert_eq!(world.admin.upsert_bot(first_bot).await.unwrap_err(), "STALE_REVISION");

    let revision = first.metadata.as_ref().unwrap().revision.clone();
    let stale = v1::DeleteRequest { revision, ..delete("example") };
    let mut resources = world.admin.resources().await;
    for status in [
        resources.delete_token(stale.clone()).await.unwrap_err(),
        resources.delete_bot(v1::DeleteRequest { revision: "99".to_owned(), ..stale }).await.unwrap_err(),
    ] {
        assert_eq!(Refused::from(status), "STALE_REVISION");
    }

    let blind =
        v1::Token { metadata: Some(v1::Metadata { name: "example".to_owned(), ..Default::default() }), ..first };
    world.admin.upsert_token(blind).await.expect("without a revision it is of whatever there is");
    world.check().await;
}

#[tokio::test]
async fn names_are_taken_once_and_free_again_after_deletion() {
    let world = World::start().await;
    world.bot("example").await;
    let token = world.admin.get_token("example").await.unwrap();

    assert_eq!(world.admin.create_bot(bot_resource("example")).await.unwrap_err(), "ALREADY_EXISTS");
    assert_eq!(world.admin.create_token(token.clone()).await.unwrap_err(), "ALREADY_EXISTS");
    let in_use = world.admin.delete_bot("example").await.unwrap_err();
    assert_eq!(in_use, "INVALID_REQUEST");
    assert!(in_use.message.contains("token `example`"), "{}", in_use.message);

    world.admin.delete_token("example").await.unwrap();
    world.admin.delete_bot("example").await.unwrap();
    assert_eq!(world.admin.delete_token("example").await.unwrap_err(), "NOT_FOUND");
    assert_eq!(world.admin.delete_bot("example").await.unwrap_err(), "NOT_FOUND");
    world.admin.create_bot(bot_resource("example")).await.unwrap();
    let again = world.admin.create_token(token.clone()).await.unwrap();
    let id = |token: v1::Token| token.status.unwrap().bound_keypair.unwrap().token_id;
    assert_ne!(id(again), id(token));
    world.check().await;
}

#[rstest]
#[case::no_bot(|token: &mut v1::Token| spec(token).bot_name = "nobody".into(), "INVALID_REQUEST", "spec.bot_name")]
#[case::no_name(|token: &mut v1::Token| named(token, ""), "INVALID_REQUEST", "metadata.name")]
#[case::no_real_name(|token: &mut v1::Token| named(token, "Ex ample"), "INVALID_REQUEST", "metadata.name")]
#[case::a_long_name(|token: &mut v1::Token| named(token, &"a".repeat(64)), "INVALID_REQUEST", "metadata.name")]
#[case::a_label_that_does_not_print(|token: &mut v1::Token| labelled(token, "rack", "a\0"), "INVALID_REQUEST", "metadata.labels")]
#[case::a_label_that_no_selector_names(|token: &mut v1::Token| labelled(token, "a=b", "c"), "INVALID_REQUEST", "metadata.labels")]
#[case::another_kind(|token: &mut v1::Token| token.kind = "bot".into(), "INVALID_REQUEST", "kind")]
#[case::another_version(|token: &mut v1::Token| token.version = "v1".into(), "INVALID_REQUEST", "version")]
#[case::another_method(|token: &mut v1::Token| spec(token).join_method = "iam".into(), "INVALID_REQUEST", "spec.join_method")]
#[case::another_role(|token: &mut v1::Token| spec(token).roles = vec!["Node".into()], "INVALID_REQUEST", "spec.roles")]
#[case::no_role(|token: &mut v1::Token| spec(token).roles.clear(), "INVALID_REQUEST", "spec.roles")]
#[case::no_mode(|token: &mut v1::Token| recovery(token).mode = Some("lax".into()), "INVALID_REQUEST", "spec.bound_keypair.recovery.mode")]
#[case::no_key(|token: &mut v1::Token| onboarding_of(token).initial_public_key = "key".into(), "INVALID_REQUEST", "spec.bound_keypair.onboarding.initial_public_key")]
#[case::an_rsa_key(|token: &mut v1::Token| onboarding_of(token).initial_public_key = include_str!("keys/rsa3072.pub").into(), "UNSUPPORTED_KEY", "spec.bound_keypair.onboarding.initial_public_key")]
#[case::both(|token: &mut v1::Token| {
    onboarding_of(token).registration_secret = "secret".into();
    onboarding_of(token).initial_public_key = Key::ed25519().line();
}, "INVALID_REQUEST", "spec.bound_keypair.onboarding")]
#[case::a_long_secret(|token: &mut v1::Token| onboarding_of(token).registration_secret = "s".repeat(257), "INVALID_REQUEST", "spec.bound_keypair.onboarding.registration_secret")]
#[case::no_time(|token: &mut v1::Token| bound_keypair(token).rotate_after = Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 }), "INVALID_REQUEST", "spec.bound_keypair.rotate_after")]
#[tokio::test]
async fn a_token_that_cannot_be_names_its_field(
    #[case] spoil: fn(&mut v1::Token),
    #[case] code: &str,
    #[case] field: &str,
) {
    let world = World::start().await;
    world.bot("example").await;
    let mut token = world.admin.get_token("example").await.unwrap();
    token.metadata = Some(v1::Metadata { name: "spoiled".to_owned(), ..v1::Metadata::default() });
    spoil(&mut token);

    let refused = world.admin.create_token(token).await.unwrap_err();

    assert_eq!(refused, code);
    assert!(refused.message.starts_with(field), "{}", refused.message);
    let tokens = world.admin.resources().await.list_tokens(v1::ListRequest::default()).await.unwrap().into_inner();
    assert_eq!(tokens.tokens.len(), 1, "nothing half done");
    world.check().await;
}

fn spec(token: &mut v1::Token) -> &mut v1::TokenSpec {
    token.spec.as_mut().unwrap()
}

fn labelled(token: &mut v1::Token, key: &str, value: &str) {
    token.metadata.get_or_insert_default().labels.insert(key.into(), value.into());
}

fn named(token: &mut v1::Token, name: &str) {
    token.metadata.as_mut().unwrap().name = name.to_owned();
}

#[tokio::test]
async fn the_path_names_the_resource() {
    let world = World::start().await;
    world.bot("example").await;
    let token = world.admin.get_token("example").await.unwrap();
    let request = v1::UpsertTokenRequest { name: "another".to_owned(), token: Some(token) };

    let status = world.admin.resources().await.upsert_token(request).await.unwrap_err();

    assert_eq!(Refused::from(status), "INVALID_REQUEST");
    world.check().await;
}

#[tokio::test]
async fn a_bots_roles_and_logins_stand_in_its_certificates() {
    let world = World::start().await;
    let mut bot = world.bot("example").await;
    let joined = bot.join().await.unwrap();
    let ssh = |joined: &crate::world::Joined| {
        let certificate = ssh_key::Certificate::from_openssh(&joined.credentials.ssh).unwrap();
        (certificate.valid_principals().to_vec(), certificate.key_id().to_owned())
    };
    assert_eq!(joined.certificate.claims()["roles"], serde_json::json!(["deployer"]));
    let (principals, id) = ssh(&joined);
    assert_eq!(principals, ["deploy"]);
    assert!(id.contains("bot-example") && id.contains(&joined.instance()) && id.ends_with("generation=1"), "{id}");
    let name = joined.certificate.read(|certificate| certificate.subject().to_string());
    assert_eq!(name, "CN=bot-example");
    assert_eq!(
        joined.certificate.uri(),
        format!("spiffe://{}/bot/example/{}", crate::world::CLUSTER, joined.instance())
    );

    let mut resource = bot_resource("example");
    *resource.spec.as_mut().unwrap() = v1::BotSpec::default();
    world.admin.upsert_bot(resource).await.unwrap();
    let joined = bot.join().await.unwrap();
    assert_eq!(joined.certificate.claims()["roles"], serde_json::json!([]));
    assert_eq!(ssh(&joined).0, ["-bot-example"], "never an empty list");
    world.check().await;
}

#[tokio::test]
async fn lists_select_by_labels_and_page() {
    let world = World::start().await;
    for (name, team) in [("a", "infra"), ("b", "apps"), ("c", "infra"), ("d", "infra")] {
        world.bot(name).of_bot("shared").labels(&[("team", team)]).await;
    }
    let mut resources = world.auditor.resources().await;
    let mut names = Vec::new();
    let mut list = v1::ListRequest { selector: "team=infra".to_owned(), page_size: 2, ..v1::ListRequest::default() };
    loop {
        let page = resources.list_tokens(list.clone()).await.unwrap().into_inner();
        assert!(page.tokens.len() <= 2);
        names.extend(page.tokens.into_iter().map(|token| token.metadata.unwrap().name));
        if page.next_cursor.is_empty() {
            break;
        }
        list.cursor = page.next_cursor;
    }
    assert_eq!(names, ["a", "c", "d"]);
    let leap_second = prost_types::Timestamp { seconds: 1_483_228_799, nanos: 1_000_000_000 };
    for spoiled in [
        v1::ListRequest { cursor: "nonsense".to_owned(), ..v1::ListRequest::default() },
        v1::ListRequest { cursor: format!("a\0/{}", uuid::Uuid::nil()), ..v1::ListRequest::default() },
        v1::ListRequest { selector: "team".to_owned(), ..v1::ListRequest::default() },
        v1::ListRequest { selector: "team=\0".to_owned(), ..v1::ListRequest::default() },
        v1::ListRequest { selector: "team=infra,team=apps".to_owned(), ..v1::ListRequest::default() },
        v1::ListRequest { at: Some(leap_second), ..v1::ListRequest::default() },
    ] {
        let refused = Refused::from(resources.list_tokens(spoiled.clone()).await.unwrap_err());
        assert_eq!(refused, "INVALID_REQUEST", "{spoiled:?}");
    }
    world.check().await;
}

#[tokio::test]
async fn the_past_can_be_asked_for() {
    let world = World::start().await;
    let mut bot = world.bot("example").limit(1).await;
    bot.join().await.unwrap();
    let then = wire_time(world.now());
    world.advance(TimeDelta::minutes(1));
    world.admin.set_limit("example", 9).await;
    bot.join().await.unwrap();
    world.admin.delete_token("example").await.unwrap();
    let at = |name: &str| v1::GetRequest { name: name.to_owned(), at: Some(then) };

    let token = world.auditor.resources().await.get_token(at("example")).await.unwrap().into_inner();

    let status = token.status.unwrap().bound_keypair.unwrap();
    assert_eq!((status.generation, status.recovery_count), (1, 1));
    assert_eq!(token.spec.unwrap().bound_keypair.unwrap().recovery.unwrap().limit, Some(1));
    let listed = v1::ListRequest { at: Some(then), ..v1::ListRequest::default() };
    let listed = world.auditor.resources().await.list_tokens(listed).await.unwrap().into_inner();
    assert_eq!(listed.tokens.len(), 1);
    assert_eq!(world.auditor.get_token("example").await.unwrap_err(), "NOT_FOUND");
    let never = world.auditor.resources().await.get_token(at("never")).await.unwrap_err();
    assert_eq!(Refused::from(never), "NOT_FOUND");
    world.check().await;
}

#[tokio::test]
async fn what_was_open_at_a_moment_is_judged_by_that_moment() {
    let world = World::start().await;
    let then = world.now();
    world.bot("example").must_register_before(then + TimeDelta::minutes(1)).await;
    let created = Some(wire_time(world.now()));
    world.advance(TimeDelta::minutes(2));
    let mut resources = world.auditor.resources().await;

    let got = resources.get_token(v1::GetRequest { name: "example".to_owned(), at: created }).await.unwrap();
    let listed = v1::ListRequest { at: created, ..v1::ListRequest::default() };
    let listed = resources.list_tokens(listed).await.unwrap().into_inner().tokens.remove(0);

    for shown in [got.into_inner(), listed] {
        assert!(shown.status.unwrap().bound_keypair.unwrap().registration_secret_pending);
    }
    assert!(!world.token("example").await.registration_secret_pending);
    world.check().await;
}

#[tokio::test]
async fn who_replaces_what_is_made_at_that_moment_replaces_it() {
    let world = World::start().await;
    let upserted = join_all((0..8).map(|_| world.admin.upsert_bot(bot_resource("example")))).await;
    assert!(upserted.iter().all(Result::is_ok), "{upserted:?}");
    world.bot("example").await;
    let mut token = world.admin.get_token("example").await.unwrap();
    token.metadata = Some(v1::Metadata { name: "another".to_owned(), ..v1::Metadata::default() });

    let upserted = join_all((0..8).map(|_| world.admin.upsert_token(token.clone()))).await;

    assert!(upserted.iter().all(Result::is_ok), "{upserted:?}");
    world.check().await;
}

#[tokio::test]
async fn everything_can_be_done_as_json_over_http() {
    let world = World::start().await;
    let mut admin = world.admin.http().await;
    let mut send = async |verb: &str, path: &str, body: Option<serde_json::Value>| {
        let answer = admin.send(verb.parse().unwrap(), path, body.as_ref()).await.unwrap();
        answer.json().unwrap_or_else(|refused| panic!("{verb} {path}: {refused:?}"))
    };
    let bot = json!({
        "kind": "bot", "version": "v1", "metadata": { "name": "example", "labels": { "team": "infra" } },
        "spec": { "roles": [], "traits": [{ "name": "logins", "values": ["deploy"] }] }
    });
    assert_eq!(send("POST", "/v1/bots", Some(bot)).await["status"]["user_name"], "bot-example");
    let token = json!({
        "kind": "token", "version": "v2", "metadata": { "name": "example" },
        "spec": {
            "roles": ["Bot"], "bot_name": "example", "join_method": "bound_keypair",
            "bound_keypair": { "recovery": { "mode": "standard", "limit": 2 } }
        }
    });
    let created = send("POST", "/v1/tokens", Some(token)).await;
    let secret = created["status"]["bound_keypair"]["registration_secret"].as_str().unwrap().to_owned();
    let mut bot = world.bot("unused").over(Transport::Json).await;
    (bot.token, bot.secret) = ("example".to_owned(), secret);
    bot.join().await.unwrap();

    let mut edited = send("GET", "/v1/tokens/example", None).await;
    edited["spec"]["bound_keypair"]["recovery"]["limit"] = json!(5);
    let edited = send("PUT", "/v1/tokens/example", Some(edited)).await;
    assert_eq!(edited["spec"]["bound_keypair"]["recovery"]["limit"], 5);
    assert_eq!(edited["status"]["bound_keypair"]["recovery_count"], 1);
    send("POST", "/v1/tokens/example/rotate", None).await;
    let lock = json!({ "spec": { "target": { "join_token": "example" }, "message": "checked" } });
    let lock = send("POST", "/v1/locks", Some(lock)).await["metadata"]["name"].as_str().unwrap().to_owned();
    assert_eq!(send("GET", "/v1/locks", None).await["locks"][0]["metadata"]["name"], lock);
    send("DELETE", &format!("/v1/locks/{lock}"), None).await;
    let spec = json!({ "token_name": "example", "kind": "recoveries", "count": 2, "reason": "moved" });
    let granted = send("POST", "/v1/exemptions", Some(json!({ "exemption": { "spec": spec } }))).await;
    let exemption = granted["exemptions"][0]["metadata"]["name"].as_str().unwrap().to_owned();
    assert_eq!(send("GET", &format!("/v1/exemptions/{exemption}"), None).await["status"]["state"], "open");
    send("DELETE", &format!("/v1/exemptions/{exemption}"), None).await;
    send("POST", "/v1/tokens/example/reinstate", Some(json!({ "reason": "checked" }))).await;
    let reopened = send("POST", "/v1/tokens/example/reopen", Some(json!({ "reason": "reinstalled" }))).await;
    assert_eq!(reopened["status"]["bound_keypair"]["bound_public_key"], "");
    world.settle().await;
    assert_eq!(send("GET", "/v1/bot_instances", None).await["bot_instances"].as_array().unwrap().len(), 1);
    let events = send("GET", "/v1/events?token=example&kinds=token.*", None).await;
    let kinds: Vec<_> =
        events["events"].as_array().unwrap().iter().map(|event| event["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["token.created", "token.updated", "token.updated", "token.reinstated", "token.reopened"]);
    send("DELETE", "/v1/tokens/example", None).await;
    send("DELETE", "/v1/bots/example", None).await;
    assert_eq!(world.admin.get_bot("example").await.unwrap_err(), "NOT_FOUND");
    world.check().await;
}
