//! Evidence has an age (protocol, section 3): what is older than the latest accepted join never locks and never
//! consumes anything, and no challenge is decided twice.

use chrono::TimeDelta;
use join_domain::{
    decision::join::Proven,
    event::JoinStateSeen,
    proof::{self, JoinStateError},
    refusal::Code,
    resource::{ExemptionKind, LockTarget},
    state::token::REFUSED_CHALLENGES_KEPT,
};
use rstest::rstest;

use crate::scenario::{Scenario, standard};

#[rstest]
#[case::everything_right(|_: &mut Proven| {})]
#[case::no_join_state(|proven: &mut Proven| proven.seen.join_state = JoinStateSeen::Missing)]
#[case::forged_join_state(|proven: &mut Proven| {
    proven.seen.join_state = JoinStateSeen::NotAuthentic(JoinStateError::BadSignature);
})]
#[case::other_generation(|proven: &mut Proven| proven.seen.certificate.as_mut().unwrap().generation = 9)]
#[case::no_certificate(|proven: &mut Proven| proven.seen.certificate = None)]
fn evidence_from_before_the_latest_join_gets_conflict(#[case] change: fn(&mut Proven)) {
    let (mut authority, mut owner) = Scenario::bound(standard(5));
    let mut other = owner.clone();
    let mut proven = authority.solve(&mut other);
    change(&mut proven);
    let _ = authority.join(&mut owner).accepted();
    let token = authority.token.clone();
    let _ = authority.decide(&proven).refused(Code::Conflict);
    assert_eq!(authority.token, token, "not even a record: it only lost a race");
}

#[test]
fn evidence_from_before_a_reopening_gets_conflict() {
    let (mut authority, mut owner) = Scenario::bound(standard(5));
    let proven = authority.solve(&mut owner);
    authority.reopen("hash of the second secret");
    let _ = authority.decide(&proven).refused(Code::Conflict);
}

#[test]
fn evidence_from_before_a_rotation_gets_conflict() {
    let (mut authority, owner) = Scenario::bound(standard(5));
    let mut other = owner.clone();
    let proven = authority.solve(&mut other);
    authority.request_rotation();
    let _ = authority.join(&mut owner.clone().offering(2)).accepted();
    let _ = authority.decide(&proven).refused(Code::Conflict);
    let same_attempt = authority.solve(&mut owner.offering(2));
    assert_eq!(same_attempt.evidence, authority.token.evidence);
}

#[test]
fn a_rotation_that_takes_too_long_gets_conflict() {
    let (mut authority, owner) = Scenario::bound(standard(5));
    let mut other = owner.clone();
    authority.request_rotation();
    let proven = authority.solve(&mut other);
    let _ = authority.join(&mut owner.offering(2)).accepted();
    let proven = authority.rotate_in(proven, 3);
    let _ = authority.decide(&proven).refused(Code::Conflict);
}

#[test]
fn a_challenge_that_was_refused_is_not_decided_again() {
    let (mut authority, mut owner) = Scenario::bound(standard(1));
    authority.pass_until_expired();
    let proven = authority.solve(&mut owner);
    let _ = authority.decide(&proven).refused(Code::RecoveryLimitExhausted);
    authority.set_limit(2);
    let _ = authority.decide(&proven).refused(Code::Conflict);
    let _ = authority.join(&mut owner).accepted();
}

#[test]
fn a_challenge_that_was_refused_for_an_expired_token_is_not_decided_again() {
    let (mut authority, mut owner) = Scenario::bound(standard(1));
    let proven = authority.solve(&mut owner);
    authority.token.spec.expires = Some(authority.now);
    let _ = authority.decide(&proven).refused(Code::AccessDenied);
    let recorded = authority.history.len();
    let _ = authority.decide(&proven).refused(Code::Conflict);
    assert_eq!(authority.history.len(), recorded);
}

#[test]
fn a_challenge_that_was_accepted_is_resumed_and_then_lost() {
    let (mut authority, mut owner) = Scenario::bound(standard(1));
    let proven = authority.solve(&mut owner);
    let join = authority.decide(&proven).accepted();
    assert_eq!(authority.decide(&proven).resumed(), join);
    let _ = authority.join(&mut owner).resumed();
    let _ = authority.join(&mut owner).accepted();
    let _ = authority.decide(&proven).refused(Code::Conflict);
}

#[test]
fn a_challenge_that_was_resumed_does_not_spend_a_reinstatement() {
    let (mut authority, mut owner) = Scenario::bound(standard(1));
    let mut thief = owner.clone();
    let _ = authority.join_without_answer(&mut owner).accepted();
    let proven = authority.solve(&mut owner);
    let _ = authority.decide(&proven).resumed();
    let _ = authority.join(&mut thief).locked_with(Code::GenerationMismatch);
    let grant = authority.reinstate();
    let _ = authority.decide(&proven).refused(Code::Conflict);
    assert_eq!(authority.uses_left(grant), 1);
}

#[test]
fn refused_challenges_are_forgotten_when_they_cannot_be_replayed_any_more() {
    let (mut authority, mut owner) = Scenario::bound(standard(1));
    let _ = authority.lock(LockTarget::JoinToken("example".parse().unwrap()), None);
    for _ in 0..3 {
        let _ = authority.join(&mut owner).refused(Code::Locked);
    }
    assert_eq!(authority.token.refused_challenges.len(), 3);
    authority.pass(TimeDelta::seconds(proof::REPLAYABLE + 1));
    let _ = authority.join(&mut owner).refused(Code::Locked);
    assert_eq!(authority.token.refused_challenges.len(), 1);
    authority.unlock();
    authority.pass(TimeDelta::seconds(proof::REPLAYABLE + 1));
    let _ = authority.join(&mut owner).accepted();
    assert_eq!(authority.token.refused_challenges, []);
}

#[test]
fn nothing_is_decided_twice_however_often_the_token_is_refused() {
    let (mut authority, mut owner) = Scenario::bound(standard(1));
    let _ = authority.lock(LockTarget::JoinToken("example".parse().unwrap()), None);
    let proven: Vec<_> = (0..REFUSED_CHALLENGES_KEPT + 10)
        .map(|_| {
            authority.pass(TimeDelta::milliseconds(1));
            let proven = authority.solve(&mut owner);
            let _ = authority.decide(&proven).refused(Code::Locked);
            proven
        })
        .collect();
    assert_eq!(authority.token.refused_challenges.len(), REFUSED_CHALLENGES_KEPT);
    authority.unlock();
    for proven in &proven {
        let _ = authority.decide(proven).refused(Code::Conflict);
    }
    let _ = authority.join(&mut owner).accepted();
    authority.pass(TimeDelta::seconds(proof::REPLAYABLE + 1));
    let _ = authority.join(&mut owner).accepted();
    assert_eq!(authority.token.refused_until, None);
}

#[test]
fn who_may_join_does_so_however_often_the_token_was_refused() {
    let (mut authority, mut owner) = Scenario::bound(standard(1));
    let mut thief = owner.clone().without_certificate();
    for _ in 0..=REFUSED_CHALLENGES_KEPT {
        let _ = authority.join(&mut thief).refused(Code::RecoveryLimitExhausted);
    }
    authority.pass(TimeDelta::milliseconds(1));
    let _ = authority.join(&mut owner).accepted();
    let mut copy = owner.clone();
    let _ = authority.join(&mut owner).accepted();
    let _ = authority.join(&mut copy).locked_with(Code::GenerationMismatch);
}

#[test]
fn a_grant_and_a_limit_do_not_outdate_evidence() {
    let (mut authority, mut owner) = Scenario::bound(standard(1));
    authority.pass_until_expired();
    let proven = authority.solve(&mut owner);
    authority.set_limit(2);
    let _ = authority.grant(ExemptionKind::JoinState);
    let _ = authority.decide(&proven).accepted();
}
