//! Renewals and recoveries of a bound token: join state and certificate (protocol, sections 3 and 5).

use chrono::TimeDelta;
use join_domain::{
    event::{Event, JoinCase, JoinStateSeen},
    id::{InstanceId, TokenId},
    proof::JoinStateError,
    refusal::Code,
};
use rstest::rstest;
use uuid::Uuid;

use crate::scenario::{Client, Scenario, relaxed, standard};

#[test]
fn a_renewal_moves_the_generation_and_nothing_else() {
    let (mut authority, mut owner) = Scenario::bound(standard(1));
    let instance = owner.instance();
    let join = authority.join(&mut owner).accepted();
    assert_eq!((join.case, join.generation, join.recovery_count), (JoinCase::Renewal, 2, 1));
    assert_eq!((join.instance, join.previous_instance), (instance, None));
    assert_eq!(authority.kinds(), ["challenge.issued", "challenge.solved", "generation.bumped", "join.accepted"]);
}

#[test]
fn a_recovery_begins_a_new_instance_whose_generations_count_from_one() {
    let (mut authority, mut owner) = Scenario::bound(standard(2));
    let first = owner.instance();
    let _ = authority.join(&mut owner).accepted();
    authority.pass_until_expired();
    let join = authority.join(&mut owner).accepted();
    assert_eq!((join.case, join.generation, join.previous_instance), (JoinCase::Recovery, 1, Some(first)));
    assert_eq!(authority.kinds()[4..], ["challenge.issued", "challenge.solved", "recovery.consumed", "join.accepted"]);
    let renewal = authority.join(&mut owner).accepted();
    assert_eq!((renewal.instance, renewal.generation), (join.instance, 2));
    assert_eq!(renewal.previous_instance, Some(first), "the link to the predecessor stays");
}

#[test]
fn an_older_certificate_locks_and_then_the_newest_is_locked_too() {
    let (mut authority, mut owner) = Scenario::bound(standard(1));
    let mut thief = owner.clone();
    let _ = authority.join(&mut owner).accepted();
    let _ = authority.join(&mut thief).locked_with(Code::GenerationMismatch);
    let _ = authority.join(&mut owner).refused(Code::Locked);
    assert_eq!(authority.open_locks(), 1);
}

#[test]
fn a_thief_who_recovered_is_found_when_the_owner_renews() {
    let (mut authority, mut owner) = Scenario::bound(standard(2));
    let mut thief = owner.clone().without_certificate();
    let _ = authority.join(&mut thief).accepted();
    let _ = authority.join(&mut owner).locked_with(Code::JoinStateInvalid);
    let _ = authority.join(&mut thief).refused(Code::Locked);
}

#[test]
fn both_holders_are_in_the_record_of_the_lock() {
    let (mut authority, mut owner) = Scenario::bound(standard(2));
    let mut thief = owner.clone().without_certificate();
    let stolen = authority.join(&mut thief).accepted();
    let at = authority.now;
    authority.pass(TimeDelta::minutes(1));
    let refusal = authority.join(&mut owner).locked_with(Code::JoinStateInvalid);
    let Some(Event::JoinRefused(refused)) = authority.history.last() else { panic!("a refusal is recorded last") };
    assert_eq!(refused.seen.certificate, owner.certificate.map(|(certificate, _)| certificate));
    assert_eq!(refused.seen.join_state, owner.join_state);
    assert_eq!(refused.lock, refusal.lock);
    let other = refused.other_holder.as_ref().unwrap();
    assert_eq!((other.at, other.instance, other.generation), (at, stolen.instance, 1));
    assert_eq!((other.serial.as_str(), other.address.as_deref()), (stolen.serial.as_str(), Some("192.0.2.7:51000")));
    let lock = authority.locks.last().unwrap();
    assert_eq!((lock.cause, lock.expires), (Some(Code::JoinStateInvalid), None));
}

#[rstest]
#[case::of_an_earlier_recovery(|given: &Scenario, owner: &Client| given.join_state(owner.instance(), 1))]
#[case::of_another_instance(|given: &Scenario, _: &Client| given.join_state(InstanceId(Uuid::from_u128(9)), 2))]
#[case::of_another_bot(|given: &Scenario, owner: &Client| {
    let token = Some(given.token.id);
    JoinStateSeen::Authentic { bot: "other".to_owned(), token, instance: owner.instance(), sequence: 2 }
})]
#[case::of_another_token(|_: &Scenario, owner: &Client| {
    let token = Some(TokenId(Uuid::from_u128(0x71)));
    JoinStateSeen::Authentic { bot: "example".to_owned(), token, instance: owner.instance(), sequence: 2 }
})]
#[case::of_no_token(|_: &Scenario, owner: &Client| {
    JoinStateSeen::Authentic { bot: "example".to_owned(), token: None, instance: owner.instance(), sequence: 2 }
})]
#[case::not_a_jwt(|_: &Scenario, _: &Client| JoinStateSeen::NotAuthentic(JoinStateError::Malformed))]
#[case::signed_by_another_key(|_: &Scenario, _: &Client| JoinStateSeen::NotAuthentic(JoinStateError::BadSignature))]
#[case::of_an_unknown_key(|_: &Scenario, _: &Client| JoinStateSeen::NotAuthentic(JoinStateError::UnknownKey))]
#[case::of_another_cluster(|_: &Scenario, _: &Client| JoinStateSeen::NotAuthentic(JoinStateError::OtherCluster))]
fn a_wrong_join_state_locks_once(
    #[case] wrong: fn(&Scenario, &Client) -> JoinStateSeen,
    #[values(false, true)] with_certificate: bool,
) {
    let (mut authority, mut owner) = Scenario::bound(standard(5));
    authority.pass_until_expired();
    let _ = authority.join(&mut owner).accepted();
    let document = wrong(&authority, &owner);
    let mut client = owner.clone().with_join_state(document);
    if !with_certificate {
        client = client.without_certificate();
    }
    let _ = authority.join(&mut client).locked_with(Code::JoinStateInvalid);
    for _ in 0..3 {
        let _ = authority.join(&mut client).refused(Code::Locked);
    }
    assert_eq!(authority.open_locks(), 1);
    assert_eq!(authority.token.recovery_count, 2);
}

#[test]
fn a_missing_join_state_is_refused_without_a_lock() {
    let (mut authority, mut owner) = Scenario::bound(relaxed());
    let kept = std::mem::replace(&mut owner.join_state, JoinStateSeen::Missing);
    authority.pass_until_expired();
    let _ = authority.join(&mut owner).refused(Code::JoinStateRequired);
    let _ = authority.join(&mut owner.with_join_state(kept)).accepted();
}

#[test]
fn a_certificate_of_another_tokens_instance_is_refused_and_without_it_the_join_is_a_recovery() {
    let (mut authority, mut owner) = Scenario::bound(standard(2));
    let (certificate, _) = owner.certificate.as_mut().unwrap();
    certificate.token = TokenId(Uuid::from_u128(0x71));
    let _ = authority.join(&mut owner).refused(Code::InstanceMismatch);
    assert_eq!(authority.join(&mut owner.without_certificate()).accepted().case, JoinCase::Recovery);
}

#[test]
fn a_certificate_of_the_instance_but_another_token_is_not_of_the_bound_instance() {
    let (mut authority, mut owner) = Scenario::bound(standard(2));
    owner.certificate.as_mut().unwrap().0.token = TokenId(Uuid::from_u128(0x71));
    let _ = authority.join(&mut owner).refused(Code::InstanceMismatch);
}

#[test]
fn an_expired_certificate_counts_as_none() {
    let (mut authority, mut owner) = Scenario::bound(standard(2));
    authority.pass_until_expired();
    assert_eq!(authority.join(&mut owner).accepted().case, JoinCase::Recovery);
}

#[test]
fn a_certificate_is_live_until_its_very_end() {
    let (mut authority, mut owner) = Scenario::bound(standard(1));
    authority.now = owner.certificate.as_ref().unwrap().1 - TimeDelta::microseconds(1);
    assert_eq!(authority.join(&mut owner).accepted().case, JoinCase::Renewal);
}
