//! Rotation and retired keys (protocol, section 3).

use chrono::TimeDelta;
use join_domain::{
    decision::{administer, opening::FirstStep},
    event::{ChallengePurpose, JoinCase, JoinStateSeen},
    proof::JoinStateError,
    refusal::Code,
    resource::{RecoveryMode, TokenSpec},
};
use rstest::rstest;

use crate::scenario::{Client, Outcome, Scenario, beginning, key, standard};

#[rstest]
#[case::renewal(false)]
#[case::recovery(true)]
fn a_due_rotation_asks_for_a_new_key_and_binds_it(#[case] recovery: bool) {
    let (mut authority, owner) = Scenario::bound(standard(2));
    let mut owner = owner.offering(2);
    authority.request_rotation();
    if recovery {
        authority.pass_until_expired();
    }
    authority.history.clear();
    let join = authority.join(&mut owner).accepted();
    assert_eq!(join.case == JoinCase::Recovery, recovery);
    assert_eq!(join.key, key(2).fingerprint());
    assert_eq!(authority.token.binding.as_ref().unwrap().key, key(2));
    assert_eq!(authority.token.last_rotated_at, Some(authority.now));
    let counted = if recovery { "recovery.consumed" } else { "generation.bumped" };
    assert_eq!(
        authority.kinds(),
        [
            "challenge.issued",
            "challenge.solved",
            "challenge.issued",
            "challenge.solved",
            "keypair.rotated",
            counted,
            "join.accepted"
        ]
    );
    let next = authority.join(&mut owner).accepted();
    assert_eq!(next.key, key(2).fingerprint(), "it is not asked for again");
}

#[rstest]
#[case::never(None, None, false)]
#[case::in_the_future(Some(60), None, false)]
#[case::now(Some(0), None, true)]
#[case::past(Some(-60), None, true)]
#[case::past_and_rotated_before_it(Some(-60), Some(-120), true)]
#[case::past_and_rotated_at_it(Some(-60), Some(-60), false)]
#[case::past_and_rotated_after_it(Some(-60), Some(-30), false)]
fn a_rotation_is_due(#[case] after: Option<i64>, #[case] rotated: Option<i64>, #[case] due: bool) {
    let (mut authority, mut owner) = Scenario::bound(standard(1));
    authority.pass(TimeDelta::minutes(10));
    let moment = |seconds: i64| authority.now + TimeDelta::seconds(seconds);
    let (after, rotated) = (after.map(moment), rotated.map(moment));
    authority.token.spec.rotate_after = after;
    authority.token.last_rotated_at = rotated;
    let proven = authority.solve(&mut owner);
    match authority.decide(&proven) {
        Outcome::RotateFirst => assert!(due),
        Outcome::Accepted(_) => assert!(!due),
        other => panic!("{other:?}"),
    }
}

#[test]
fn asking_for_a_new_key_records_nothing() {
    let (mut authority, mut owner) = Scenario::bound(standard(1));
    authority.request_rotation();
    let token = authority.token.clone();
    let proven = authority.solve(&mut owner);
    assert!(matches!(authority.decide(&proven), Outcome::RotateFirst));
    assert_eq!(authority.token, token);
}

#[rstest]
#[case::the_bound_key(1)]
#[case::a_retired_key(2)]
fn a_key_that_the_token_had_is_refused_and_changes_nothing(#[case] old: u8) {
    let mut authority = Scenario::unbound(standard(3));
    let mut owner = Client::new(2);
    let _ = authority.join(&mut owner).accepted();
    authority.request_rotation();
    let _ = authority.join(&mut owner.clone().offering(1)).accepted();
    authority.pass(TimeDelta::seconds(1));
    authority.request_rotation();
    let latest = authority.token.latest().unwrap().join.clone();
    owner = Client { keys: vec![1], ..owner };
    owner.certificate = Some((
        join_domain::event::ClientCertificate { generation: latest.generation, ..owner.certificate.unwrap().0 },
        latest.not_after,
    ));
    let mut offering = owner.clone().offering(old);
    let _ = authority.join(&mut offering).refused(Code::KeyReused);
    assert_eq!(authority.token.binding.as_ref().unwrap().key, key(1));
    assert_eq!(authority.token.latest().unwrap().join, latest, "no recovery and no generation is consumed");
    let mut offering = Client { pending: None, ..owner.offering(5) };
    let _ = authority.join(&mut offering).accepted();
}

#[test]
fn a_static_key_cannot_be_rotated_and_the_join_says_so() {
    let (mut authority, mut owner) = Scenario::bound(standard(1));
    authority.token.spec.rotate_after = Some(authority.now);
    authority.set_mode(RecoveryMode::Insecure);
    let refusal = authority.join(&mut owner).refused(Code::RotationFailed);
    assert!(refusal.message.contains("rotate_after"), "{refusal}");
    assert_eq!(administer::rotate(&authority.token, authority.now).unwrap_err().code, Code::InvalidRequest);
}

#[test]
fn a_rotation_that_was_called_off_is_a_conflict() {
    let (mut authority, mut owner) = Scenario::bound(standard(1));
    authority.request_rotation();
    let proven = authority.solve(&mut owner);
    let proven = authority.rotate_in(proven, 2);
    authority.upsert(|written| written.spec.rotate_after = None).unwrap();
    let _ = authority.decide(&proven).refused(Code::Conflict);
    let _ = authority.join(&mut owner).accepted();
    assert_eq!(authority.token.binding.as_ref().unwrap().key, key(1));
}

/// The owner's disk, and a thief with a copy of it who was the first to answer a rotation.
fn rotated_away() -> (Scenario, Client, Client) {
    let (mut authority, owner) = Scenario::bound(standard(5));
    let mut thief = owner.clone().offering(2);
    authority.request_rotation();
    let _ = authority.join(&mut thief).accepted();
    (authority, owner, thief)
}

#[test]
fn a_retired_key_is_challenged_when_it_is_held_instead_of_the_bound_one() {
    let (authority, owner, _) = rotated_away();
    assert_eq!(authority.open(&owner), Ok(FirstStep::Challenge(key(1), ChallengePurpose::Retired)));
    let both = owner.clone().offering(2);
    assert_eq!(authority.open(&both), Ok(FirstStep::Challenge(key(2), ChallengePurpose::Bound)));
    let silent = Client { names_keys: false, ..owner.clone() };
    assert_eq!(authority.open(&silent), Ok(FirstStep::Challenge(key(2), ChallengePurpose::Bound)));
    let other = Client::new(9);
    assert_eq!(authority.open(&other), Ok(FirstStep::Challenge(key(2), ChallengePurpose::Bound)));
}

#[test]
fn a_thief_who_answers_a_rotation_first_is_found_when_the_owner_comes() {
    let (mut authority, mut owner, mut thief) = rotated_away();
    let _ = authority.join(&mut owner).locked_with(Code::RetiredKey);
    let _ = authority.join(&mut thief).refused(Code::Locked);
    assert_eq!(authority.open_locks(), 1);
}

#[test]
fn a_retired_key_locks_at_most_once() {
    let (mut authority, mut owner, mut thief) = rotated_away();
    let _ = authority.join(&mut owner).locked_with(Code::RetiredKey);
    authority.unlock();
    assert_eq!(authority.open(&owner), Ok(FirstStep::Challenge(key(2), ChallengePurpose::Bound)));
    let _ = authority.join(&mut owner).refused(Code::ChallengeFailed);
    let _ = authority.join(&mut thief).accepted();
}

#[test]
fn two_proofs_of_one_retired_key_at_once_lock_once() {
    let (mut authority, mut owner, _) = rotated_away();
    let (one, two) = (authority.solve(&mut owner), authority.solve(&mut owner));
    let _ = authority.decide(&one).locked_with(Code::RetiredKey);
    let _ = authority.decide(&two).refused(Code::Locked);
    authority.unlock();
    assert_eq!(authority.open(&owner), Ok(FirstStep::Challenge(key(2), ChallengePurpose::Bound)));
}

#[rstest]
#[case::missing(JoinStateSeen::Missing)]
#[case::forged(JoinStateSeen::NotAuthentic(JoinStateError::BadSignature))]
fn a_retired_key_without_an_authentic_join_state_proves_nothing(#[case] document: JoinStateSeen) {
    let (mut authority, owner, mut thief) = rotated_away();
    let _ = authority.join(&mut owner.clone().with_join_state(document)).refused(Code::ChallengeFailed);
    let _ = authority.join(&mut thief).accepted();
    let _ = authority.join(&mut owner.clone()).locked_with(Code::RetiredKey);
}

#[test]
fn an_outdated_join_state_of_this_token_is_authentic_enough_for_a_retired_key() {
    let (mut authority, mut owner, mut thief) = rotated_away();
    authority.pass_until_expired();
    let _ = authority.join(&mut thief).accepted();
    let _ = authority.join(&mut owner).locked_with(Code::RetiredKey);
}

#[test]
fn old_evidence_of_a_retired_key_gets_conflict() {
    let (mut authority, mut owner, mut thief) = rotated_away();
    let proven = authority.solve(&mut owner);
    let _ = authority.join(&mut thief).accepted();
    let _ = authority.decide(&proven).refused(Code::Conflict);
}

#[test]
fn a_reinstatement_forgets_the_retired_keys_but_they_stay_retired() {
    let (mut authority, owner, thief) = rotated_away();
    let _ = authority.reinstate();
    assert_eq!(authority.open(&owner), Ok(FirstStep::Challenge(key(2), ChallengePurpose::Bound)));
    authority.pass(TimeDelta::seconds(1));
    authority.request_rotation();
    let _ = authority.join(&mut Client { new_key: 1, ..thief }).refused(Code::KeyReused);
}

#[test]
fn a_key_that_was_retired_by_a_reopening_is_no_evidence() {
    let (mut authority, owner, _) = rotated_away();
    authority.reopen("hash of the second secret");
    let mut new_host = Client { secret: Some("hash of the second secret".to_owned()), ..Client::new(7) };
    let _ = authority.join(&mut new_host).accepted();
    assert_eq!(authority.open(&owner), Ok(FirstStep::Challenge(key(7), ChallengePurpose::Bound)));
}

#[test]
fn a_copy_that_shares_the_attempt_but_not_its_new_key_locks() {
    let (mut authority, mut owner) = Scenario::bound(standard(5));
    let _ = authority.solve(&mut owner);
    let mut thief = owner.clone();
    authority.request_rotation();
    let _ = authority.join(&mut owner.offering(2)).accepted();
    let _ = authority.join(&mut thief).locked_with(Code::RetiredKey);
}

#[test]
fn a_rotation_after_a_late_key_request_uses_the_time_of_the_decision() {
    let spec = TokenSpec { rotate_after: Some(beginning() + TimeDelta::seconds(30)), ..standard(1) };
    let mut authority = Scenario::unbound(spec);
    let mut owner = Client::new(1);
    let _ = authority.join(&mut owner).accepted();
    let proven = authority.solve(&mut owner);
    authority.pass(TimeDelta::seconds(30));
    assert!(matches!(authority.decide(&proven), Outcome::RotateFirst));
}
