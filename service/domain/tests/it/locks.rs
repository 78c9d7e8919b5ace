//! Locks (protocol, sections 2 and 3): four targets, expiry, never a storm.

use chrono::TimeDelta;
use join_domain::{id::InstanceId, refusal::Code, resource::LockTarget};
use rstest::rstest;
use uuid::Uuid;

use crate::scenario::{Client, Scenario, key, standard};

fn instance(number: u128) -> LockTarget {
    LockTarget::BotInstanceId(InstanceId(Uuid::from_u128(number)))
}

#[rstest]
#[case::token(|_: &Client| LockTarget::JoinToken("example".parse().unwrap()), true)]
#[case::user(|_: &Client| LockTarget::User("example".parse().unwrap()), true)]
#[case::bound_instance(|owner: &Client| LockTarget::BotInstanceId(owner.instance()), true)]
#[case::challenged_key(|_: &Client| LockTarget::PublicKey(key(1).fingerprint()), true)]
#[case::another_token(|_: &Client| LockTarget::JoinToken("other".parse().unwrap()), false)]
#[case::another_user(|_: &Client| LockTarget::User("other".parse().unwrap()), false)]
#[case::another_instance(|_: &Client| instance(9), false)]
#[case::another_key(|_: &Client| LockTarget::PublicKey(key(9).fingerprint()), false)]
fn a_lock_stops_its_target_and_nothing_else(#[case] target: fn(&Client) -> LockTarget, #[case] stops: bool) {
    let (mut authority, mut owner) = Scenario::bound(standard(2));
    let lock = authority.lock(target(&owner), None);
    let outcome = authority.join(&mut owner);
    if stops {
        let refusal = outcome.refused(Code::Locked);
        assert_eq!(refusal.lock, Some(lock));
        assert!(refusal.message.contains("maintenance"), "{refusal}");
        authority.unlock();
        let _ = authority.join(&mut owner).accepted();
    } else {
        let _ = outcome.accepted();
    }
}

#[test]
fn the_instance_of_the_shown_certificate_may_be_locked() {
    let (mut authority, owner) = Scenario::bound(standard(2));
    let mut mixed = owner.clone();
    mixed.certificate.as_mut().unwrap().0.instance = InstanceId(Uuid::from_u128(9));
    let _ = authority.lock(instance(9), None);
    let _ = authority.join(&mut mixed).refused(Code::Locked);
    let _ = authority.join(&mut owner.without_certificate()).accepted();
}

#[test]
fn the_key_that_a_rotation_brings_may_be_locked() {
    let (mut authority, owner) = Scenario::bound(standard(2));
    authority.request_rotation();
    let _ = authority.lock(LockTarget::PublicKey(key(2).fingerprint()), None);
    let _ = authority.join(&mut owner.clone().offering(2)).refused(Code::Locked);
    assert_eq!(authority.token.binding.as_ref().unwrap().key, key(1));
    let _ = authority.join(&mut owner.offering(3)).accepted();
}

#[test]
fn a_lock_ends_by_its_expiry() {
    let (mut authority, mut owner) = Scenario::bound(standard(2));
    let end = authority.now + TimeDelta::minutes(5);
    let _ = authority.lock(LockTarget::JoinToken("example".parse().unwrap()), Some(end));
    let _ = authority.join(&mut owner).refused(Code::Locked);
    authority.pass(TimeDelta::minutes(5));
    let _ = authority.join(&mut owner).accepted();
}

#[test]
fn a_lock_stops_first_joins_too() {
    let mut authority = Scenario::unbound(standard(1));
    let _ = authority.lock(LockTarget::JoinToken("example".parse().unwrap()), None);
    let _ = authority.join(&mut Client::new(1)).refused(Code::Locked);
    assert_eq!(authority.token.binding, None);
    assert!(authority.token.secret.is_some());
}

#[test]
fn any_number_of_bad_attempts_leads_to_one_lock() {
    let (mut authority, mut owner) = Scenario::bound(standard(9));
    let thieves: Vec<Client> = (0..8).map(|_| owner.clone()).collect();
    let _ = authority.join(&mut owner).accepted();
    let together: Vec<_> = thieves.into_iter().map(|mut thief| authority.solve(&mut thief)).collect();
    let mut locks = 0;
    for proven in &together {
        match authority.decide(proven) {
            crate::scenario::Outcome::Refused(_, locked) => locks += usize::from(locked),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((locks, authority.open_locks()), (1, 1));
}

#[test]
fn a_refusal_after_a_proof_is_recorded_and_shown_as_contested() {
    let (mut authority, mut owner) = Scenario::bound(standard(1));
    authority.pass_until_expired();
    let _ = authority.join(&mut owner).refused(Code::RecoveryLimitExhausted);
    assert_eq!(authority.kinds(), ["challenge.issued", "challenge.solved", "join.refused"]);
    assert_eq!(authority.token.contested_at, Some(authority.now));
}
