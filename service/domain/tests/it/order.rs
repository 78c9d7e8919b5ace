//! The order of the checks after a proof (protocol, section 3): which answer wins when several would do.

use join_domain::{
    decision::opening::FirstStep,
    event::{ChallengePurpose, JoinStateSeen},
    refusal::Code,
    resource::{ExemptionKind, LockTarget},
};

use crate::scenario::{Client, Scenario, key, standard};

/// A token at its limit, its owner, and a thief who took the last recovery with a copy of the owner's disk.
fn stolen() -> (Scenario, Client, Client) {
    let (mut authority, owner) = Scenario::bound(standard(2));
    let mut thief = owner.clone().without_certificate();
    let _ = authority.join(&mut thief).accepted();
    (authority, owner, thief)
}

#[test]
fn a_used_up_limit_cannot_hide_a_clone() {
    let (mut authority, owner, _) = stolen();
    let _ = authority.join(&mut owner.without_certificate()).locked_with(Code::JoinStateInvalid);
}

#[test]
fn a_used_up_limit_cannot_hide_an_outdated_generation() {
    let (mut authority, mut owner) = Scenario::bound(standard(1));
    let mut thief = owner.clone();
    let _ = authority.join(&mut owner).accepted();
    let _ = authority.join(&mut thief).locked_with(Code::GenerationMismatch);
}

#[test]
fn the_join_state_is_looked_at_before_the_certificate() {
    let (mut authority, mut owner, _) = stolen();
    let _ = authority.join(&mut owner).locked_with(Code::JoinStateInvalid);
}

#[test]
fn a_missing_join_state_is_said_before_a_foreign_certificate_and_a_used_up_limit() {
    let (mut authority, owner, _) = stolen();
    let mut client = owner.with_join_state(JoinStateSeen::Missing);
    let _ = authority.join(&mut client).refused(Code::JoinStateRequired);
    let _ = authority.join(&mut client.without_certificate()).refused(Code::JoinStateRequired);
}

#[test]
fn a_foreign_certificate_is_said_before_a_used_up_limit() {
    let (mut authority, owner, thief) = stolen();
    let mut mixed = thief.with_certificate_of(&owner);
    let _ = authority.join(&mut mixed).refused(Code::InstanceMismatch);
    let _ = authority.join(&mut mixed.without_certificate()).refused(Code::RecoveryLimitExhausted);
}

#[test]
fn a_used_up_limit_is_said_before_a_key_is_asked_for() {
    let (mut authority, mut owner) = Scenario::bound(standard(1));
    authority.request_rotation();
    authority.pass_until_expired();
    let _ = authority.join(&mut owner).refused(Code::RecoveryLimitExhausted);
}

#[test]
fn locked_is_said_before_anything_that_could_lock_again() {
    let (mut authority, mut owner, _) = stolen();
    let _ = authority.lock(LockTarget::User("example".parse().unwrap()), None);
    let _ = authority.join(&mut owner).refused(Code::Locked);
    let _ = authority.join(&mut owner.clone().without_certificate()).refused(Code::Locked);
    let _ = authority.join(&mut owner.with_join_state(JoinStateSeen::Missing)).refused(Code::Locked);
    assert_eq!(authority.open_locks(), 0);
}

#[test]
fn locked_is_said_before_a_retired_key_is_judged() {
    let (mut authority, mut thief) = Scenario::bound(standard(2));
    let mut owner = thief.clone();
    authority.request_rotation();
    thief = thief.offering(2);
    let _ = authority.join(&mut thief).accepted();
    let _ = authority.lock(LockTarget::User("example".parse().unwrap()), None);
    let _ = authority.join(&mut owner).refused(Code::Locked);
    authority.unlock();
    let _ = authority.join(&mut owner).locked_with(Code::RetiredKey);
}

#[test]
fn locked_is_said_before_a_retired_key_that_comes_with_the_latest_attempt() {
    // The copy was taken while the attempt was pending, and before its new key was made.
    let (mut authority, mut owner) = Scenario::bound(standard(2));
    let _ = authority.solve(&mut owner);
    let mut thief = owner.clone();
    authority.request_rotation();
    let _ = authority.join(&mut owner.offering(2)).accepted();
    let _ = authority.lock(LockTarget::User("example".parse().unwrap()), None);
    let _ = authority.join(&mut thief).refused(Code::Locked);
    assert_eq!(authority.open_locks(), 0);
}

#[test]
fn a_resume_is_looked_for_before_every_rule_but_locks() {
    // Everything else would refuse: no join state, no certificate, no recovery left, a rotation due, older evidence.
    let (mut authority, mut owner) = Scenario::bound(standard(1));
    let early = authority.solve(&mut owner);
    let accepted = authority.join_without_answer(&mut owner).accepted();
    authority.request_rotation();
    owner.join_state = JoinStateSeen::Missing;
    owner.certificate = None;
    assert_eq!(authority.join(&mut owner.clone()).resumed(), accepted);
    assert_eq!(authority.decide(&early).resumed(), accepted);
    let lock = authority.lock(LockTarget::JoinToken("example".parse().unwrap()), None);
    assert_eq!(authority.join(&mut owner.clone()).refused(Code::Locked).lock, Some(lock));
    authority.unlock();
    assert_eq!(authority.join(&mut owner).resumed(), accepted);
}

#[test]
fn strangers_learn_nothing_of_locks_limits_and_counts() {
    let (authority, _, _) = stolen();
    let stranger = Client { secret: None, ..Client::new(9) };
    let asked = authority.open(&stranger);
    assert_eq!(asked, Ok(FirstStep::Challenge(key(1), ChallengePurpose::Bound)));
    let mut locked = authority.clone();
    let _ = locked.lock(LockTarget::JoinToken("example".parse().unwrap()), None);
    let _ = locked.grant(ExemptionKind::Recoveries);
    assert_eq!(locked.open(&stranger), asked);
}
