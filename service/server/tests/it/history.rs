//! What auditors read: who did what, from where, in which attempt, and why it was decided so.

use std::time::Duration;

use chrono::TimeDelta;
use join_proto::v1;
use rstest::rstest;
use tokio::task::JoinHandle;

use crate::world::{Held, Http, Key, RENEWED, Transport, World, data, until, wire_time};

#[tokio::test]
async fn each_event_says_who_did_it_from_where_and_in_which_attempt() {
    let world = World::start().await;
    let mut bot = world.bot("example").limit(9).await;
    let by_admin = world.new_events("example").await;
    assert_eq!(by_admin[0].actor, "admin/ada");
    assert!(by_admin[0].remote_addr.starts_with("127.0.0.1:") && !by_admin[0].request_id.is_empty());

    bot.join().await.unwrap();
    bot.joining().losing_the_answer().await.unwrap();
    let first = world.new_events("example").await;
    bot.join().await.unwrap();
    let resumed = world.new_events("example").await;

    for (version, event) in (2..).zip(first.iter().chain(&resumed)) {
        assert_eq!(event.version, version, "versions have no gaps");
        assert_eq!((event.actor.as_str(), event.token.as_str()), ("bot-example", "example"));
        assert!(event.remote_addr.starts_with("127.0.0.1:"));
        assert!(!event.request_id.is_empty() && event.log_index.is_some());
        assert_eq!(event.attempt.len(), 64, "the hash of the attempt");
    }
    let accepted = first.iter().rfind(|event| event.kind == "join.accepted").unwrap();
    assert!(resumed.iter().all(|event| event.attempt == accepted.attempt), "one attempt");
    assert_eq!(data(resumed.last().unwrap())["serial"], data(accepted)["serial"]);
    world.check().await;
}

#[tokio::test]
async fn a_trace_that_a_client_sends_stands_in_its_events() {
    use http::{Method, header};
    use http_body_util::Full;

    let world = World::start().await;
    let mut bot = world.bot("example").over(Transport::Json).await;
    bot.join().await.unwrap();
    world.catch_up("example").await;
    let key = bot.key().clone();
    let ceremony = bot.joining().begin().await.unwrap();
    let solution = key.solve(ceremony.document());
    let crate::world::Conversation::Calls(calls) = ceremony.conversation else { panic!("calls") };
    let body = serde_json::json!({ "continuation": calls.continuation, "solution": solution }).to_string();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let request = http::Request::builder()
        .method(Method::POST)
        .uri("/v1/join/continue")
        .header(header::HOST, "authority")
        .header(header::CONTENT_TYPE, "application/json")
        .header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"))
        .body(Full::from(body))
        .unwrap();

    let answer = Http::connect(&world.network, 0, None).await.unwrap().raw(request).await.unwrap();

    answer.json().unwrap();
    let told = world.new_events("example").await;
    assert_eq!(told.iter().map(|event| event.kind.as_str()).collect::<Vec<_>>(), RENEWED);
    assert!(told.iter().all(|event| event.trace_id == trace));
    world.check().await;
}

#[tokio::test]
async fn a_replay_tells_why() {
    let world = World::start().await;
    let mut bot = world.bot("example").limit(1).await;
    bot.join().await.unwrap();
    bot.join().await.unwrap();
    let mut thief = bot.clone();
    thief.join().await.unwrap();
    bot.join().await.unwrap_err();
    world.operator.reinstate("example").await.unwrap();
    world.settle().await;
    let request = v1::ReplayRequest { name: "example".to_owned(), at: None };

    let steps = world.auditor.replay(request).await.unwrap();

    let told: Vec<_> = steps.iter().map(|step| step.why.split([':', ' ']).next().unwrap()).collect();
    assert_eq!(told, ["created", "first", "renewal", "renewal", "refused", "reinstated"]);
    let places: Vec<_> = steps.iter().map(|step| step.events[0].log_index.unwrap()).collect();
    assert!(places.is_sorted_by(|a, b| a < b), "each entry has its own place in the log: {places:?}");
    assert!(steps[4].why.contains("GENERATION_MISMATCH") && steps[4].why.contains("other holder"), "{}", steps[4].why);
    let generation = |step: &v1::ReplayStep| {
        step.state.as_ref().unwrap().status.as_ref().unwrap().bound_keypair.as_ref().unwrap().generation
    };
    assert_eq!(steps.iter().map(generation).collect::<Vec<_>>(), [0, 1, 2, 3, 3, 3]);
    let never = v1::ReplayRequest { name: "never".to_owned(), at: None };
    assert!(world.auditor.replay(never).await.is_err());
    world.check().await;
}

#[tokio::test]
async fn a_replay_goes_on_for_as_long_as_the_history_does() {
    let world = World::start().await;
    let mut bot = world.bot("example").limit(1).await;
    for _ in 0..420 {
        bot.join().await.unwrap();
    }
    let at = Some(wire_time(world.now()));
    world.advance(TimeDelta::minutes(1));
    world.admin.delete_token("example").await.unwrap();
    bot = world.bot("example").await;
    bot.join().await.unwrap();

    let all = v1::ReplayRequest { name: "example".to_owned(), at: None };
    let steps = world.auditor.replay(all).await.unwrap();
    let until_then = world.auditor.replay(v1::ReplayRequest { name: "example".to_owned(), at }).await.unwrap();

    assert_eq!((steps.len(), until_then.len()), (424, 421), "both tokens of that name");
    let generation = |step: &v1::ReplayStep| {
        step.state.as_ref().unwrap().status.as_ref().unwrap().bound_keypair.as_ref().unwrap().generation
    };
    assert!(until_then.iter().map(generation).eq(0..=420));
    world.check().await;
}

#[tokio::test]
async fn a_follower_sees_what_is_there_and_what_comes() {
    let world = World::start().await;
    let mut bot = world.bot("example").await;
    bot.join().await.unwrap();
    world.settle().await;
    let request = v1::ListEventsRequest {
        token: "example".to_owned(),
        kinds: vec!["join.*".to_owned()],
        ..v1::ListEventsRequest::default()
    };
    let mut following = world.auditor.ledger().await.follow_events(request).await.unwrap().into_inner();
    let mut seen = Vec::new();
    seen.extend(following.message().await.unwrap().unwrap().events);
    bot.join().await.unwrap();
    while seen.len() < 2 {
        seen.extend(following.message().await.unwrap().unwrap().events);
    }

    let kinds: Vec<_> = seen.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, ["join.accepted", "join.accepted"]);
    drop(following);
    world.check().await;
}

#[rstest]
#[case::of_a_token_and_a_bot("?token=example&bot=example", "bot: name a token or a bot, not both")]
#[case::of_a_kind_that_is_none("?kinds=join.accepted,join.acepted", "kinds: no event is of the kind `join.acepted`")]
#[case::of_kinds_that_are_none("?kinds=joins.*", "kinds: no event is of the kind `joins.*`")]
#[tokio::test]
async fn a_search_that_can_find_nothing_is_refused(#[case] query: &str, #[case] why: &str) {
    let world = World::start().await;

    let refused = world.auditor.http().await.get(&format!("/v1/events{query}")).await.json().unwrap_err();

    assert_eq!(refused, "INVALID_REQUEST");
    assert!(refused.message.starts_with(why), "{}", refused.message);
    world.check().await;
}

#[rstest]
#[case::kinds("?token=example&kinds=")]
#[case::between_commas("?token=example&kinds=token.created,")]
#[tokio::test]
async fn an_empty_kind_is_none(#[case] query: &str) {
    let world = World::start().await;
    world.bot("example").await;
    world.settle().await;

    let list = world.auditor.http().await.get(&format!("/v1/events{query}")).await.json().unwrap();

    assert_eq!(list["events"][0]["kind"], "token.created");
    world.check().await;
}

#[tokio::test]
async fn a_cursor_beyond_the_logs_end_is_refused_and_one_at_its_end_is_not() {
    let world = World::start().await;
    world.bot("example").await.join().await.unwrap();
    world.settle().await;
    let end = world.auditor.status().await.log_next_index;
    let mut ledger = world.auditor.ledger().await;
    // By streams, and by what stands in each entry.
    for (token, kinds) in [("example", vec![]), ("", vec!["join.*".to_owned()])] {
        let from = |cursor: u64| v1::ListEventsRequest {
            token: token.to_owned(),
            kinds: kinds.clone(),
            cursor: cursor.to_string(),
            ..v1::ListEventsRequest::default()
        };
        let rest = ledger.list_events(from(end)).await.unwrap().into_inner();
        assert_eq!((rest.events.len(), rest.cursor, rest.more), (0, end.to_string(), false));
        for beyond in [end + 1, u64::MAX] {
            let refused = ledger.list_events(from(beyond)).await.unwrap_err();
            let mut following = ledger.follow_events(from(beyond)).await.unwrap().into_inner();
            for refused in [refused, following.message().await.unwrap_err()] {
                assert_eq!(refused.code(), tonic::Code::NotFound);
                assert!(refused.message().contains("history was lost"), "{refused}");
            }
        }
    }
    world.check().await;
}

#[tokio::test]
async fn an_export_ends_with_its_end() {
    let world = World::start().await;
    let mut bot = world.bot("example").await;
    bot.join().await.unwrap();
    bot.joining().signed_by(&Key::ed25519()).await.unwrap_err();
    world.settle().await;
    let mut export = world.auditor.ledger().await.export(v1::ExportRequest::default()).await.unwrap().into_inner();
    let (mut entries, mut end) = (Vec::new(), None);
    while let Some(chunk) = export.message().await.unwrap() {
        assert_eq!(end, None, "nothing follows the end");
        entries.extend(chunk.entries);
        end = chunk.end;
    }

    let indices: Vec<u64> = entries.iter().map(|entry| entry.log_index).collect();
    assert_eq!(indices, (0..end.unwrap()).collect::<Vec<_>>(), "the log has no gaps");
    assert!(entries.iter().all(|entry| entry.envelope.starts_with('{')));
    let lines = world.auditor.http().await.get("/v1/export").await;
    assert!(lines.text().lines().last().unwrap().contains(&format!("\"end\":{}", end.unwrap())));
    drop(export);
    world.check().await;
}

#[tokio::test]
async fn views_can_be_verified_by_an_auditor() {
    let world = World::start().await;
    let mut bot = world.bot("example").await;
    bot.join().await.unwrap();
    world.settle().await;

    let report = world.auditor.cluster().await.verify_views(v1::Empty {}).await.unwrap().into_inner();

    assert!(report.differences.is_empty());
    assert!(report.streams_checked >= 6, "cluster, three administrators, bot and token");
    let status = world.auditor.status().await;
    assert_eq!((status.bots, status.tokens, status.instances_live, status.locks), (1, 1, 1, 0));
    assert_eq!(status.cluster_name, crate::world::CLUSTER);
    world.check().await;
}

/// Views are being verified, and that takes long.
async fn verifying(world: &World) -> (Held, JoinHandle<Result<tonic::Response<v1::ViewsReport>, tonic::Status>>) {
    let held = world.database.hold_comparisons().await;
    let mut cluster = world.auditor.cluster().await;
    let verifying = tokio::spawn(async move { cluster.verify_views(v1::Empty {}).await });
    until("it compares", async || world.database.somebody_waits().await).await;
    (held, verifying)
}

#[tokio::test]
async fn views_are_verified_for_as_long_as_somebody_waits_for_it() {
    let world = World::start().await;
    let (held, verifying) = verifying(&world).await;
    verifying.abort();
    until("nothing is compared any more", async || !world.database.somebody_waits().await).await;
    held.release().await;
    world.check().await;
}

#[tokio::test]
async fn a_node_that_verifies_its_views_stops_all_the_same() {
    let mut world = World::start().await;
    let (held, verifying) = verifying(&world).await;
    tokio::time::timeout(Duration::from_secs(15), world.restart()).await.expect("it stops");
    assert!(verifying.await.unwrap().is_err());
    held.release().await;
    world.check().await;
}

#[tokio::test]
async fn the_locks_on_a_token_are_in_its_history() {
    let world = World::start().await;
    world.bot("example").await.join().await.unwrap();
    world.catch_up("example").await;
    let target = v1::LockTarget { join_token: "example".to_owned(), ..v1::LockTarget::default() };
    let lock = world.operator.lock(target).await.unwrap();
    world.operator.unlock(&lock.metadata.unwrap().name).await.unwrap();
    let other = v1::LockTarget { join_token: "another".to_owned(), ..v1::LockTarget::default() };
    world.operator.lock(other).await.unwrap();

    assert_eq!(world.news("example").await, ["lock.created", "lock.deleted"]);
    world.check().await;
}

#[tokio::test]
async fn shown_states_follow_from_as_many_entries_as_they_say() {
    let world = World::start().await;
    let mut bot = world.bot("example").limit(9).await;
    bot.join().await.unwrap();
    world.settle().await;
    let size = world.auditor.status().await.log_next_index;
    bot.join().await.unwrap();
    world.settle().await;

    let mut chunks =
        world.auditor.ledger().await.export_views(v1::ExportViewsRequest { size }).await.unwrap().into_inner();
    let (mut views, mut end) = (Vec::new(), None);
    while let Some(chunk) = chunks.message().await.unwrap() {
        end = end.or(chunk.end);
        views.extend(chunk.views);
    }

    assert_eq!(end, Some(2), "a bot and a token, and then an explicit end");
    let token = views.iter().find(|view| view.stream.starts_with("token/")).unwrap();
    let state: serde_json::Value = serde_json::from_str(&token.state).unwrap();
    assert_eq!(state["binding"]["latest"]["join"]["generation"], 1, "the second join came after it");
    world.check().await;
}
