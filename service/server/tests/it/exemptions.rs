//! Exemptions, reinstating and reopening (protocol, section 7).

use chrono::TimeDelta;
use join_proto::v1;
use rstest::rstest;

use crate::world::{Asked, Bot, RECOVERED, REFUSED_AND_LOCKED, RENEWED, Transport, World, exemption_spec, wire_time};

fn with_exemption(kinds: &[&str]) -> Vec<String> {
    let (last, first) = kinds.split_last().unwrap();
    first.iter().chain(&["exemption.consumed", last]).map(|kind| (*kind).to_owned()).collect()
}

/// A token that two holders have locked; the owner's documents are those of before.
async fn locked(world: &World, over: Transport) -> (Bot, Bot) {
    let mut owner = world.bot("example").limit(1).over(over).await;
    owner.join().await.unwrap();
    let mut thief = owner.clone();
    thief.join().await.unwrap();
    assert_eq!(owner.join().await.unwrap_err(), "GENERATION_MISMATCH");
    assert_eq!(world.locks().await, 1);
    world.catch_up("example").await;
    (owner, thief)
}

#[rstest]
#[tokio::test]
async fn a_reinstated_bot_joins_with_nothing_changed_on_its_host(
    #[values(Transport::Grpc, Transport::Json)] over: Transport,
    #[values("live", "expired", "deleted")] certificate: &str,
) {
    let world = World::start().await;
    let (mut owner, mut thief) = locked(&world, over).await;

    world.operator.reinstate("example").await.unwrap();

    assert_eq!(world.locks().await, 0);
    assert_eq!(world.news("example").await, ["token.reinstated", "exemption.granted", "lock.deleted"]);
    assert_eq!(world.admin.exemptions().await, [("reinstatement".to_owned(), "open".to_owned(), 1)]);
    match certificate {
        "expired" => world.advance(TimeDelta::hours(2)),
        "deleted" => owner.disk.certificate = None,
        _ => {}
    }
    owner.join().await.unwrap();
    let expected = if certificate == "live" { RENEWED } else { RECOVERED };
    assert_eq!(world.news("example").await, with_exemption(expected));
    assert_eq!(world.admin.exemptions().await, [("reinstatement".to_owned(), "spent".to_owned(), 0)]);
    owner.join().await.expect("life goes on");

    let refused = thief.join().await.unwrap_err();
    assert!(["GENERATION_MISMATCH", "JOIN_STATE_INVALID"].contains(&refused.code.as_str()), "{refused:?}");
    assert_eq!(world.locks().await, 1, "a second stale client locks again");
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn a_bot_whose_instance_a_thief_replaced_is_reinstated(
    #[values(Transport::Grpc, Transport::Json)] over: Transport,
    #[values(false, true)] holds_certificate: bool,
) {
    let world = World::start().await;
    let mut owner = world.bot("example").limit(2).over(over).await;
    owner.join().await.unwrap();
    let mut thief = owner.clone();
    thief.joining().without_certificate().await.unwrap();
    assert_eq!(owner.join().await.unwrap_err(), "JOIN_STATE_INVALID");
    world.operator.reinstate("example").await.unwrap();
    if !holds_certificate {
        owner.disk.certificate = None;
    }
    world.catch_up("example").await;

    let joined = owner.join().await.unwrap();

    assert_eq!(joined.generation(), 1);
    let token = world.token("example").await;
    assert_eq!((token.recovery_count, token.bound_bot_instance_id), (3, joined.instance()));
    assert_eq!(world.news("example").await, with_exemption(RECOVERED));
    assert_eq!(thief.join().await.unwrap_err(), "JOIN_STATE_INVALID");
    assert_eq!(world.locks().await, 1);
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn of_two_reinstated_holders_the_first_joins_and_the_other_locks(
    #[values(Transport::Grpc, Transport::Json)] over: Transport,
    #[values(false, true)] thief_first: bool,
) {
    let world = World::start().await;
    let (mut owner, mut thief) = locked(&world, over).await;
    world.operator.reinstate("example").await.unwrap();
    world.catch_up("example").await;
    let (first, second) = if thief_first { (&mut thief, &mut owner) } else { (&mut owner, &mut thief) };

    first.join().await.unwrap();
    assert_eq!(world.news("example").await, with_exemption(RENEWED), "the bundle is spent whole, needed or not");
    let refused = second.join().await.unwrap_err();

    assert_eq!(refused, "GENERATION_MISMATCH");
    assert_eq!(world.locks().await, 1);
    assert_eq!(world.news("example").await, REFUSED_AND_LOCKED);
    assert_eq!(first.join().await.unwrap_err(), "LOCKED");
    world.check().await;
}

#[tokio::test]
async fn reinstating_releases_the_tokens_own_locks_only() {
    let world = World::start().await;
    let (mut owner, _) = locked(&world, Transport::Grpc).await;
    let user = v1::LockTarget { user: "bot-example".to_owned(), ..v1::LockTarget::default() };
    let lock = world.operator.lock(user).await.unwrap();

    world.operator.reinstate("example").await.unwrap();

    assert_eq!(world.locks().await, 1);
    assert_eq!(owner.join().await.unwrap_err(), "LOCKED");
    world.operator.unlock(&lock.metadata.unwrap().name).await.unwrap();
    owner.join().await.expect("the grant was not spent by a refusal");
    world.check().await;
}

#[tokio::test]
async fn a_reinstatement_ends_after_a_day() {
    let world = World::start().await;
    let (mut owner, _) = locked(&world, Transport::Grpc).await;
    world.operator.reinstate("example").await.unwrap();
    world.advance(TimeDelta::hours(24));

    assert_eq!(world.admin.exemptions().await, [("reinstatement".to_owned(), "expired".to_owned(), 1)]);
    assert_eq!(owner.join().await.unwrap_err(), "RECOVERY_LIMIT_EXHAUSTED");
    world.check().await;
}

#[tokio::test]
async fn a_second_reinstatement_replaces_the_first() {
    let world = World::start().await;
    let (mut owner, mut thief) = locked(&world, Transport::Grpc).await;
    world.operator.reinstate("example").await.unwrap();
    world.operator.reinstate("example").await.unwrap();

    owner.join().await.unwrap();
    assert_eq!(thief.join().await.unwrap_err(), "GENERATION_MISMATCH", "one bundle, not two");
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn a_reopened_token_registers_anew(
    #[values(Transport::Grpc, Transport::Json)] over: Transport,
    #[values(false, true)] was_locked: bool,
) {
    let world = World::start().await;
    let mut owner = if was_locked {
        locked(&world, over).await.0
    } else {
        let mut bot = world.bot("example").limit(1).over(over).await;
        bot.join().await.unwrap();
        bot
    };
    owner.forget_attempt();
    let (old_key, old_secret) = (owner.key().clone(), owner.secret.clone());
    let old_instance = owner.certificate().instance();
    world.catch_up("example").await;

    let secret = world.admin.reopen("example").await.unwrap();

    let freed: &[&str] = if was_locked { &["token.reopened", "lock.deleted"] } else { &["token.reopened"] };
    assert_eq!(world.news("example").await, freed);
    let token = world.token("example").await;
    assert_eq!(
        (token.recovery_count, token.bound_public_key.as_str(), token.bound_bot_instance_id.as_str()),
        (0, "", "")
    );
    assert_eq!(token.registration_secret, secret);
    assert_ne!(secret, old_secret);
    assert_eq!(world.locks().await, 0);

    // Nothing old opens it, and nothing old locks it.
    assert_eq!(owner.join().await.unwrap_err(), "BINDING_NOT_ALLOWED");
    assert_eq!(owner.joining().without_certificate().await.unwrap_err(), "REGISTRATION_SECRET_REQUIRED");
    let again = owner.joining().without_certificate().with_secret(&secret).offering(&old_key.line());
    assert_eq!(again.signed_by(&old_key).await.unwrap_err(), "KEY_REUSED");
    assert_eq!(world.locks().await, 0);
    world.catch_up("example").await;

    let mut host = owner.clone();
    host.disk = crate::world::Disk::default();
    host.secret = secret;
    let joined = host.join().await.unwrap();
    assert_eq!(joined.asked, [Asked::Key, Asked::Challenge]);
    let token = world.token("example").await;
    assert_eq!((token.recovery_count, token.generation), (1, 1));
    assert_ne!(joined.instance(), old_instance);

    let refused = owner.joining().with_secret("").await.unwrap_err();
    assert_eq!(refused, "CHALLENGE_FAILED", "the old key is not asked for any more");
    assert_eq!(world.locks().await, 0);
    host.join().await.unwrap();
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn recoveries_are_granted_one_by_one(#[values(Transport::Grpc, Transport::Json)] over: Transport) {
    let world = World::start().await;
    let mut bot = world.bot("example").limit(1).over(over).await;
    bot.join().await.unwrap();
    let spec = v1::ExemptionSpec { count: 2, ..exemption_spec("example", "recoveries") };
    let exemption = v1::Exemption { spec: Some(spec), ..v1::Exemption::default() };
    world.operator.grant_as(exemption, "").await.unwrap();
    world.catch_up("example").await;

    bot.join().await.expect("a renewal needs none");
    assert_eq!(world.news("example").await, RENEWED, "it is consumed only if needed");
    for count in 2..=3 {
        world.advance(TimeDelta::hours(2));
        bot.join().await.unwrap();
        assert_eq!(world.news("example").await, with_exemption(RECOVERED));
        assert_eq!(world.token("example").await.recovery_count, count);
    }

    world.advance(TimeDelta::hours(2));
    assert_eq!(bot.join().await.unwrap_err(), "RECOVERY_LIMIT_EXHAUSTED");
    assert_eq!(world.admin.exemptions().await, [("recoveries".to_owned(), "spent".to_owned(), 0)]);
    assert_eq!(world.locks().await, 0);
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn a_missing_join_state_is_let_pass_once(#[values(Transport::Grpc, Transport::Json)] over: Transport) {
    let world = World::start().await;
    let mut bot = world.bot("example").limit(9).over(over).await;
    bot.join().await.unwrap();
    world.operator.grant("example", "join_state").await.unwrap();
    world.catch_up("example").await;

    bot.joining().without_certificate().without_join_state().await.unwrap();

    assert_eq!(world.news("example").await, with_exemption(RECOVERED));
    assert_eq!(bot.joining().without_certificate().without_join_state().await.unwrap_err(), "JOIN_STATE_REQUIRED");
    bot.join().await.expect("it got a fresh one");
    assert_eq!(world.locks().await, 0);
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn an_older_join_state_is_let_pass_once(
    #[values(Transport::Grpc, Transport::Json)] over: Transport,
    #[values(false, true)] holds_certificate: bool,
) {
    let world = World::start().await;
    let mut owner = world.bot("example").limit(9).over(over).await;
    owner.join().await.unwrap();
    let mut thief = owner.clone();
    thief.joining().without_certificate().await.unwrap();
    world.operator.grant("example", "join_state").await.unwrap();
    if !holds_certificate {
        owner.disk.certificate = None;
    }
    world.catch_up("example").await;

    owner.join().await.unwrap();

    assert_eq!(world.news("example").await, with_exemption(RECOVERED), "a foreign certificate counts as none");
    assert_eq!(thief.join().await.unwrap_err(), "JOIN_STATE_INVALID");
    assert_eq!(world.locks().await, 1);
    world.check().await;
}

#[tokio::test]
async fn a_join_state_that_is_not_authentic_is_not_let_pass() {
    let world = World::start().await;
    let mut bot = world.bot("example").limit(9).await;
    bot.join().await.unwrap();
    world.operator.grant("example", "join_state").await.unwrap();

    assert_eq!(bot.joining().with_join_state("nonsense").await.unwrap_err(), "JOIN_STATE_INVALID");

    assert_eq!(world.locks().await, 1);
    assert_eq!(world.admin.exemptions().await, [("join_state".to_owned(), "open".to_owned(), 1)]);
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn a_generation_is_let_pass_once(#[values(Transport::Grpc, Transport::Json)] over: Transport) {
    let world = World::start().await;
    let mut owner = world.bot("example").limit(9).over(over).await;
    owner.join().await.unwrap();
    let mut thief = owner.clone();
    thief.join().await.unwrap();
    thief.join().await.unwrap();
    world.operator.grant("example", "generation").await.unwrap();
    world.catch_up("example").await;

    let joined = owner.join().await.unwrap();

    assert_eq!(joined.generation(), 4, "counting goes on from the larger value");
    assert_eq!(world.news("example").await, with_exemption(RENEWED));
    assert_eq!(thief.join().await.unwrap_err(), "GENERATION_MISMATCH");
    assert_eq!(world.locks().await, 1);
    world.check().await;
}

#[tokio::test]
async fn an_exemption_ends_with_its_time_or_when_it_is_revoked() {
    let world = World::start().await;
    let mut bot = world.bot("example").limit(1).await;
    bot.join().await.unwrap();
    world.advance(TimeDelta::hours(2));
    let exemption = v1::Exemption {
        metadata: Some(v1::Metadata {
            expires: Some(wire_time(world.now() + TimeDelta::minutes(5))),
            ..v1::Metadata::default()
        }),
        spec: Some(exemption_spec("example", "recoveries")),
        ..v1::Exemption::default()
    };
    world.operator.grant_as(exemption, "").await.unwrap();
    world.advance(TimeDelta::minutes(5));
    assert_eq!(bot.join().await.unwrap_err(), "RECOVERY_LIMIT_EXHAUSTED");

    let granted = world.operator.grant("example", "recoveries").await.unwrap();
    let v1::Metadata { name, revision, .. } = granted.metadata.clone().unwrap();
    assert_eq!(
        granted.metadata.unwrap().expires,
        Some(wire_time(world.now() + TimeDelta::hours(24))),
        "a day when nobody says"
    );
    assert_eq!(granted.status.unwrap().granted_by, "admin/oscar");
    let mut resources = world.operator.resources().await;
    let of = |revision: &str| v1::DeleteRequest { name: name.clone(), revision: revision.to_owned() };
    let stale = resources.revoke_exemption(of("99")).await.unwrap_err();
    assert_eq!(crate::world::Refused::from(stale), "STALE_REVISION");
    resources.revoke_exemption(of(&revision)).await.unwrap();
    assert_eq!(bot.join().await.unwrap_err(), "RECOVERY_LIMIT_EXHAUSTED");
    assert_eq!(world.operator.revoke(&name).await.unwrap_err(), "NOT_FOUND");

    let states: Vec<_> = world.admin.exemptions().await.into_iter().map(|(_, state, _)| state).collect();
    assert_eq!(states, ["expired", "revoked"]);
    world.check().await;
}

#[tokio::test]
async fn a_selector_grants_to_each_token_that_matches_now() {
    let world = World::start().await;
    let labels = |team: &'static str| [("team", team), ("site", "north")];
    let mut infra =
        vec![world.bot("one").labels(&labels("infra")).await, world.bot("two").labels(&labels("infra")).await];
    let mut other = world.bot("three").labels(&labels("apps")).await;
    for bot in infra.iter_mut().chain([&mut other]) {
        bot.join().await.unwrap();
    }
    world.advance(TimeDelta::hours(2));
    let selected = v1::Exemption { spec: Some(exemption_spec("", "recoveries")), ..v1::Exemption::default() };

    let granted = world.operator.grant_as(selected.clone(), "team=infra, site=north").await.unwrap();

    let mut names: Vec<_> = granted.into_iter().map(|granted| granted.spec.unwrap().token_name).collect();
    names.sort();
    assert_eq!(names, ["one", "two"]);
    let mut late = world.bot("four").labels(&labels("infra")).limit(0).await;
    assert_eq!(late.join().await.unwrap_err(), "RECOVERY_LIMIT_EXHAUSTED", "it did not match then");
    for bot in &mut infra {
        bot.join().await.unwrap();
    }
    assert_eq!(other.join().await.unwrap_err(), "RECOVERY_LIMIT_EXHAUSTED");
    assert_eq!(world.operator.grant_as(selected.clone(), "team=nobody").await.unwrap_err(), "NOT_FOUND");
    assert_eq!(world.operator.grant_as(selected, "nonsense").await.unwrap_err(), "INVALID_REQUEST");
    world.check().await;
}

#[tokio::test]
async fn a_fleet_is_reinstated_at_once() {
    let world = World::start().await;
    let mut fleet = Vec::new();
    for name in ["one", "two", "three"] {
        let mut owner = world.bot(name).labels(&[("team", "infra")]).await;
        owner.join().await.unwrap();
        let mut thief = owner.clone();
        thief.join().await.unwrap();
        assert_eq!(owner.join().await.unwrap_err(), "GENERATION_MISMATCH");
        fleet.push(owner);
    }
    assert_eq!(world.locks().await, 3);
    let request = v1::SelectedReasonRequest { selector: "team=infra".to_owned(), reason: "checked".to_owned() };

    let tokens = world.operator.resources().await.reinstate_selected(request).await.unwrap().into_inner().tokens;

    assert_eq!(tokens.len(), 3);
    assert_eq!(world.locks().await, 0);
    for bot in &mut fleet {
        bot.join().await.unwrap();
    }
    world.check().await;
}

#[rstest]
#[case::no_reason(v1::ExemptionSpec { reason: " ".into(), ..exemption_spec("example", "recoveries") })]
#[case::no_kind(exemption_spec("example", ""))]
#[case::an_unknown_kind(exemption_spec("example", "everything"))]
#[case::a_bundle(exemption_spec("example", "reinstatement"))]
#[case::a_count_of_something_else(v1::ExemptionSpec { count: 2, ..exemption_spec("example", "generation") })]
#[case::too_many(v1::ExemptionSpec { uses: 1001, ..exemption_spec("example", "recoveries") })]
#[tokio::test]
async fn a_grant_that_says_too_little_or_too_much_is_refused(#[case] spec: v1::ExemptionSpec) {
    let world = World::start().await;
    world.bot("example").await;
    world.catch_up("example").await;
    let exemption = v1::Exemption { spec: Some(spec), ..v1::Exemption::default() };

    assert_eq!(world.operator.grant_as(exemption, "").await.unwrap_err(), "INVALID_REQUEST");

    assert!(world.news("example").await.is_empty());
    let missing = world.operator.grant("unknown", "recoveries").await.unwrap_err();
    assert_eq!(missing, "NOT_FOUND");
    world.check().await;
}

#[tokio::test]
async fn reinstating_and_reopening_need_a_reason() {
    let world = World::start().await;
    world.bot("example").await;
    let silent = || v1::ReasonRequest { name: "example".to_owned(), reason: "  ".to_owned() };
    let mut resources = world.admin.resources().await;

    for status in [resources.reinstate(silent()).await.unwrap_err(), resources.reopen(silent()).await.unwrap_err()] {
        assert_eq!(crate::world::Refused::from(status), "INVALID_REQUEST");
    }
    world.check().await;
}
