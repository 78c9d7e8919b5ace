//! Attempts (protocol, section 6): a lost answer never locks.

use chrono::TimeDelta;
use join_domain::{
    decision::administer,
    event::{JoinCase, JoinStateSeen},
    refusal::Code,
    resource::{ExemptionKind, TokenSpec},
};
use rstest::rstest;

use crate::scenario::{Client, Outcome, Scenario, key, standard};

/// A token and a client that is about to join it, in every case that there is.
fn about_to_join(case: &str) -> (Scenario, Client) {
    match case {
        "first join by secret" => (Scenario::unbound(standard(1)), Client::new(1)),
        "first join of a preregistered key" => {
            let spec = TokenSpec { initial_public_key: Some(key(1)), ..standard(1) };
            (Scenario::unbound(spec), Client::new(1))
        }
        "renewal" => Scenario::bound(standard(1)),
        "recovery" => {
            let (mut authority, owner) = Scenario::bound(standard(2));
            authority.pass_until_expired();
            (authority, owner)
        }
        "rotation during a renewal" => {
            let (mut authority, owner) = Scenario::bound(standard(1));
            authority.request_rotation();
            (authority, owner.offering(2))
        }
        "rotation during a recovery" => {
            let (mut authority, owner) = Scenario::bound(standard(2));
            authority.request_rotation();
            authority.pass_until_expired();
            (authority, owner.offering(2))
        }
        other => panic!("no such case: {other}"),
    }
}

#[rstest]
fn a_lost_answer_is_given_again(
    #[values(
        "first join by secret",
        "first join of a preregistered key",
        "renewal",
        "recovery",
        "rotation during a renewal",
        "rotation during a recovery"
    )]
    case: &str,
) {
    let (mut authority, mut client) = about_to_join(case);
    let accepted = authority.join_without_answer(&mut client).accepted();
    let token = authority.token.clone();
    authority.history.clear();

    for _ in 0..3 {
        authority.pass(TimeDelta::minutes(1));
        let resumed = authority.join(&mut client.clone()).resumed();
        assert_eq!(resumed, accepted, "same instance, generation, count, serial and not_after");
    }
    let _ = authority.join(&mut client).resumed();

    assert_eq!(authority.token, token, "counts are as if it had happened once");
    assert_eq!(authority.kinds()[..3], ["challenge.issued", "challenge.solved", "join.resumed"]);
    assert_eq!(authority.open_locks(), 0);
    let next = authority.join(&mut client).accepted();
    assert_eq!((next.case, next.generation), (JoinCase::Renewal, accepted.generation + 1));
}

#[test]
fn a_client_that_names_no_attempt_gets_the_plain_rules() {
    let (mut authority, owner) = Scenario::bound(standard(5));
    let mut owner = Client { names_attempts: false, ..owner };
    let _ = authority.join_without_answer(&mut owner).accepted();
    let _ = authority.join(&mut owner).locked_with(Code::GenerationMismatch);
}

#[test]
fn other_subject_keys_are_no_resume() {
    let (mut authority, mut owner) = Scenario::bound(standard(5));
    let _ = authority.join_without_answer(&mut owner).accepted();
    let mut other = Client { subject_keys: "other".to_owned(), ..owner };
    let _ = authority.join(&mut other).locked_with(Code::GenerationMismatch);
}

#[test]
fn other_subject_keys_with_the_newest_documents_get_the_plain_rules() {
    let (mut authority, mut owner) = Scenario::bound(standard(1));
    let attempt = authority.solve(&mut owner).attempt.unwrap();
    let _ = authority.join(&mut owner).accepted();
    let mut other = Client { subject_keys: "other".to_owned(), ..owner.retrying(attempt) };
    assert_eq!(authority.join(&mut other).accepted().generation, 3);
}

#[rstest]
#[case::documents_of_its_time(false)]
#[case::newest_documents(true)]
fn an_attempt_that_was_accepted_earlier_locks_join_state_or_not(#[case] newest: bool) {
    let (mut authority, mut owner) = Scenario::bound(standard(5));
    let attempt = authority.solve(&mut owner).attempt.unwrap();
    let thief = owner.clone();
    let _ = authority.join(&mut owner).accepted();
    let _ = authority.join(&mut owner).accepted();
    let mut late = if newest { owner.retrying(attempt) } else { thief.without_certificate() };
    let _ = authority.join(&mut late).locked_with(Code::JoinStateInvalid);
}

#[test]
fn an_earlier_attempt_is_admitted_by_a_grant_that_it_spends() {
    let (mut authority, mut owner) = Scenario::bound(standard(5));
    let attempt = authority.solve(&mut owner).attempt.unwrap();
    let _ = authority.join(&mut owner).accepted();
    let _ = authority.join(&mut owner).accepted();
    let grant = authority.grant(ExemptionKind::JoinState);
    let mut late = owner.retrying(attempt);
    let _ = authority.join(&mut late).accepted();
    assert_eq!(authority.uses_left(grant), 0);
}

#[test]
fn past_the_window_the_latest_attempt_is_a_recovery_and_never_locks() {
    let (mut authority, mut owner) = Scenario::bound(standard(2));
    let lost = authority.join_without_answer(&mut owner).accepted();
    authority.now = lost.not_after + TimeDelta::microseconds(1);
    let join = authority.join_without_answer(&mut owner).accepted();
    assert_eq!((join.case, join.generation, join.recovery_count), (JoinCase::Recovery, 1, 2));
    assert_eq!(join.previous_instance, Some(lost.instance));
    assert_eq!(authority.join(&mut owner).resumed(), join, "it is the latest attempt again");
    assert_eq!(authority.join(&mut owner).accepted().generation, 2);
}

#[test]
fn a_lost_recovery_past_its_window_is_a_second_recovery() {
    let (mut authority, mut owner) = Scenario::bound(standard(3));
    authority.pass_until_expired();
    let lost = authority.join_without_answer(&mut owner).accepted();
    assert_eq!(lost.recovery_count, 2);
    authority.pass_until_expired();
    assert_eq!(authority.join(&mut owner).accepted().recovery_count, 3);
}

#[test]
fn past_the_window_with_no_recovery_left_an_administrator_raises_the_limit() {
    let (mut authority, mut owner) = Scenario::bound(standard(1));
    let _ = authority.join_without_answer(&mut owner).accepted();
    authority.pass_until_expired();
    for _ in 0..3 {
        let _ = authority.join(&mut owner).refused(Code::RecoveryLimitExhausted);
    }
    authority.set_limit(2);
    assert_eq!(authority.join(&mut owner).accepted().case, JoinCase::Recovery);
    assert_eq!(authority.open_locks(), 0);
}

#[test]
fn the_window_lasts_as_long_as_the_certificate() {
    let (mut authority, owner) = Scenario::bound(standard(2));
    let mut owner = Client { life: Some(TimeDelta::seconds(10)), ..owner };
    let lost = authority.join_without_answer(&mut owner).accepted();
    authority.now = lost.not_after;
    assert_eq!(authority.join(&mut owner.clone()).resumed(), lost);
    authority.pass(TimeDelta::microseconds(1));
    let join = authority.join(&mut owner).accepted();
    assert_eq!(join.case, JoinCase::Recovery, "though the certificate before it still lives");
}

#[test]
fn the_window_is_judged_by_the_time_of_the_challenge() {
    let (mut authority, mut owner) = Scenario::bound(standard(2));
    let lost = authority.join_without_answer(&mut owner).accepted();
    authority.now = lost.not_after;
    let proven = authority.solve(&mut owner);
    authority.pass(TimeDelta::seconds(60));
    assert_eq!(authority.decide(&proven).resumed(), lost);
}

#[test]
fn a_late_match_may_have_to_rotate() {
    let (mut authority, mut owner) = Scenario::bound(standard(2));
    let _ = authority.join_without_answer(&mut owner).accepted();
    authority.request_rotation();
    authority.pass_until_expired();
    let join = authority.join(&mut owner.offering(2)).accepted();
    assert_eq!((join.case, &join.key), (JoinCase::Recovery, &key(2).fingerprint()));
}

#[test]
fn a_due_rotation_does_not_delay_a_resume() {
    let (mut authority, mut owner) = Scenario::bound(standard(1));
    let lost = authority.join_without_answer(&mut owner).accepted();
    authority.request_rotation();
    assert_eq!(authority.join(&mut owner).resumed(), lost);
    let next = authority.join(&mut owner.offering(2)).accepted();
    assert_eq!(next.key, key(2).fingerprint());
}

#[test]
fn a_match_is_only_within_one_binding() {
    let (mut authority, mut owner) = Scenario::bound(standard(1));
    let attempt = authority.solve(&mut owner).attempt.unwrap();
    let _ = authority.join(&mut owner).accepted();
    authority.reopen("hash of the second secret");
    let mut new_host = Client {
        secret: Some("hash of the second secret".to_owned()),
        pending: Some(attempt),
        subject_keys: owner.subject_keys,
        ..Client::new(2)
    };
    let join = authority.join(&mut new_host).accepted();
    assert_eq!((join.case, join.recovery_count), (JoinCase::FirstJoin, 1));
}

#[test]
fn a_reinstatement_forgets_the_latest_attempt() {
    let (mut authority, mut owner) = Scenario::bound(standard(1));
    let mut thief = owner.clone().without_certificate();
    authority.set_limit(2);
    let _ = authority.join_without_answer(&mut thief).accepted();
    let _ = authority.join(&mut owner).locked_with(Code::JoinStateInvalid);
    let grant = authority.reinstate();
    let join = authority.join(&mut thief.clone()).accepted();
    assert_eq!(join.recovery_count, 3, "not the answer that the thief lost, but a join that spends the bundle");
    assert_eq!(authority.uses_left(grant), 0);
    assert_eq!(authority.join(&mut thief).resumed(), join, "and that one can be resumed");
}

#[rstest]
#[case::token_expired(|given: &mut Scenario| given.token.spec.expires = Some(given.now))]
#[case::token_deleted(|given: &mut Scenario| given.record(vec![administer::delete_token()]))]
#[case::bot_deleted(|given: &mut Scenario| given.bot.live = false)]
fn token_and_bot_must_still_be_there_for_a_resume(#[case] gone: fn(&mut Scenario)) {
    let (mut authority, mut owner) = Scenario::bound(standard(1));
    let _ = authority.join_without_answer(&mut owner).accepted();
    let proven = authority.solve(&mut owner);
    gone(&mut authority);
    let _ = authority.decide(&proven).refused(Code::AccessDenied);
}

#[test]
fn one_attempt_sent_many_times_at_once_is_one_join_with_equal_answers() {
    let (mut authority, mut owner) = Scenario::bound(standard(1));
    let at_once: Vec<_> = (0..64).map(|_| authority.solve(&mut owner)).collect();
    let mut answers = at_once.iter().map(|proven| authority.decide(proven));
    let accepted = answers.next().unwrap().accepted();
    for answer in answers {
        assert_eq!(answer.resumed(), accepted);
    }
    assert_eq!(authority.token.latest().unwrap().join.generation, 2);
}

#[test]
fn one_attempt_of_a_rotation_sent_many_times_at_once_is_one_join_and_the_retries_get_its_answer() {
    let (mut authority, mut owner) = Scenario::bound(standard(1));
    authority.request_rotation();
    owner = owner.offering(2);
    let at_once: Vec<_> = (0..8)
        .map(|_| {
            let proven = authority.solve(&mut owner);
            authority.rotate_in(proven, 2)
        })
        .collect();
    let mut answers = at_once.iter().map(|proven| authority.decide(proven));
    let accepted = answers.next().unwrap().accepted();
    for answer in answers {
        // The challenge names the key that is bound by now.
        let _ = answer.refused(Code::Conflict);
    }
    assert_eq!(authority.join(&mut owner).resumed(), accepted);
}

#[test]
fn different_attempts_with_one_certificate_are_one_join_and_their_retries_lock() {
    let (mut authority, owner) = Scenario::bound(standard(1));
    let mut copies: Vec<Client> = (0..64).map(|_| owner.clone()).collect();
    let at_once: Vec<_> = copies.iter_mut().map(|copy| authority.solve(copy)).collect();
    let outcomes: Vec<Outcome> = at_once.iter().map(|proven| authority.decide(proven)).collect();
    let accepted = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Accepted(_))).count();
    assert_eq!((accepted, authority.open_locks()), (1, 0));
    for outcome in outcomes.into_iter().skip(1) {
        let _ = outcome.refused(Code::Conflict);
    }
    let retry = copies.last_mut().unwrap();
    let _ = authority.join(retry).locked_with(Code::GenerationMismatch);
}

#[test]
fn a_late_duplicate_consumes_nothing_and_locks_nothing() {
    let (mut authority, mut owner) = Scenario::bound(standard(3));
    authority.pass_until_expired();
    let duplicate = authority.solve(&mut owner);
    let _ = authority.join(&mut owner).accepted();
    let _ = authority.decide(&duplicate).resumed();
    let _ = authority.join(&mut owner).accepted();
    let token = authority.token.clone();
    let _ = authority.decide(&duplicate).refused(Code::Conflict);
    assert_eq!(authority.token, token);
}

#[test]
fn a_refusal_does_not_end_an_attempt() {
    let (mut authority, mut owner) = Scenario::bound(standard(1));
    authority.pass_until_expired();
    let _ = authority.join(&mut owner).refused(Code::RecoveryLimitExhausted);
    let attempt = owner.pending.clone();
    authority.set_limit(2);
    let join = authority.join_without_answer(&mut owner).accepted();
    assert_eq!(owner.pending, attempt);
    owner.join_state = JoinStateSeen::Missing;
    assert_eq!(authority.join(&mut owner).resumed(), join);
}

#[test]
fn two_copies_of_one_disk_share_a_pending_attempt_and_get_the_same_certificate() {
    let (mut authority, mut owner) = Scenario::bound(standard(5));
    let _ = authority.solve(&mut owner);
    let mut copy = owner.clone();
    let accepted = authority.join(&mut owner).accepted();
    assert_eq!(authority.join(&mut copy).resumed(), accepted);
    let _ = authority.join(&mut owner).accepted();
    let _ = authority.join(&mut copy).locked_with(Code::GenerationMismatch);
}
