//! Recoveries by mode, count and limit (protocol, sections 3 and 11; `m/c/l` = mode, recovery count, limit).

use join_domain::{
    event::{JoinCase, JoinStateSeen},
    refusal::Code,
    resource::RecoveryMode::{self, Insecure, Relaxed, Standard},
};
use rstest::rstest;

use crate::scenario::{Client, Outcome, Scenario, spec};

/// What the client shows as its join state.
#[derive(Debug, Clone, Copy)]
enum Document {
    Newest,
    Missing,
    Outdated,
}

use Document::{Missing, Newest, Outdated};

#[derive(Debug, Clone, Copy)]
enum Then {
    Joins,
    Refused(Code),
    Locked(Code),
}

use Then::{Joins, Locked, Refused};

/// A token with this many recoveries, and its owner without a live certificate.
fn recovered(mode: RecoveryMode, count: u32, limit: u32) -> (Scenario, Client, JoinStateSeen) {
    let (mut authority, mut owner) = Scenario::bound(spec(mode, count));
    let mut outdated = JoinStateSeen::Missing;
    for _ in 1..count {
        authority.pass_until_expired();
        outdated = owner.join_state.clone();
        let _ = authority.join(&mut owner).accepted();
    }
    authority.set_limit(limit);
    authority.pass_until_expired();
    (authority, owner, outdated)
}

#[rstest]
#[case(Standard, 1, 2, Newest, Joins)]
#[case(Standard, 2, 3, Newest, Joins)]
#[case(Standard, 1, 1, Newest, Refused(Code::RecoveryLimitExhausted))]
#[case(Standard, 2, 2, Newest, Refused(Code::RecoveryLimitExhausted))]
#[case(Standard, 3, 1, Newest, Refused(Code::RecoveryLimitExhausted))]
#[case(Standard, 1, 0, Newest, Refused(Code::RecoveryLimitExhausted))]
#[case(Standard, 1, 2, Missing, Refused(Code::JoinStateRequired))]
#[case(Standard, 2, 2, Missing, Refused(Code::JoinStateRequired))]
#[case(Standard, 2, 3, Outdated, Locked(Code::JoinStateInvalid))]
#[case(Standard, 2, 2, Outdated, Locked(Code::JoinStateInvalid))]
#[case(Relaxed, 1, 0, Newest, Joins)]
#[case(Relaxed, 5, 1, Newest, Joins)]
#[case(Relaxed, 1, 0, Missing, Refused(Code::JoinStateRequired))]
#[case(Relaxed, 2, 0, Outdated, Locked(Code::JoinStateInvalid))]
#[case(Insecure, 1, 0, Newest, Joins)]
#[case(Insecure, 5, 0, Missing, Joins)]
#[case(Insecure, 2, 0, Outdated, Joins)]
fn a_recovery(
    #[case] mode: RecoveryMode,
    #[case] count: u32,
    #[case] limit: u32,
    #[case] document: Document,
    #[case] then: Then,
) {
    let (mut authority, mut owner, outdated) = recovered(mode, count, limit);
    let before = authority.token.instance();
    match document {
        Newest => {}
        Missing => owner.join_state = JoinStateSeen::Missing,
        Outdated => owner.join_state = outdated,
    }

    let outcome = authority.join(&mut owner);

    match then {
        Joins => {
            let join = outcome.accepted();
            assert_eq!((join.case, join.generation), (JoinCase::Recovery, 1));
            assert_eq!(join.recovery_count, count + 1);
            assert_eq!(join.previous_instance, before, "linked to the old instance");
            assert_ne!(Some(join.instance), before);
            assert_eq!((join.recovery_limit, join.recovery_mode), (limit, mode));
            assert_eq!(authority.token.recovery_count, count + 1);
            assert_eq!(authority.token.last_recovered_at, Some(authority.now));
        }
        Refused(code) => {
            let _ = outcome.refused(code);
            assert_eq!((authority.token.recovery_count, authority.open_locks()), (count, 0));
        }
        Locked(code) => {
            let _ = outcome.locked_with(code);
            assert_eq!((authority.token.recovery_count, authority.open_locks()), (count, 1));
        }
    }
}

#[test]
fn a_raised_limit_lets_the_same_client_in_with_nothing_changed_on_its_side() {
    let (mut authority, mut owner, _) = recovered(Standard, 2, 2);
    let _ = authority.join(&mut owner).refused(Code::RecoveryLimitExhausted);
    authority.set_limit(3);
    assert_eq!(authority.join(&mut owner).accepted().recovery_count, 3);
}

#[test]
fn a_lowered_limit_stops_further_recoveries_only() {
    let (mut authority, mut owner) = Scenario::bound(spec(Standard, 5));
    authority.set_limit(0);
    assert_eq!(authority.join(&mut owner).accepted().case, JoinCase::Renewal);
    authority.pass_until_expired();
    let _ = authority.join(&mut owner).refused(Code::RecoveryLimitExhausted);
}

#[rstest]
fn a_renewal_is_free_in_every_mode(#[values(Standard, Relaxed, Insecure)] mode: RecoveryMode) {
    let (mut authority, mut owner) = Scenario::bound(spec(mode, 0));
    for generation in 2..=11 {
        let join = authority.join(&mut owner).accepted();
        assert_eq!((join.case, join.generation, join.recovery_count), (JoinCase::Renewal, generation, 1));
    }
}

#[rstest]
fn a_renewal_needs_the_join_state_outside_insecure(#[values(Standard, Relaxed, Insecure)] mode: RecoveryMode) {
    let (mut authority, owner) = Scenario::bound(spec(mode, 1));
    let outcome = authority.join(&mut owner.with_join_state(JoinStateSeen::Missing));
    match (mode, outcome) {
        (Insecure, Outcome::Accepted(_)) => {}
        (Standard | Relaxed, outcome) => {
            let _ = outcome.refused(Code::JoinStateRequired);
        }
        (Insecure, other) => panic!("{other:?}"),
    }
}

#[test]
fn hosts_that_share_a_static_key_in_insecure_mode_do_not_disturb_each_other() {
    let (mut authority, mut first) = Scenario::bound(spec(Insecure, 0));
    let mut second = Client { subject_keys: "of the second host".to_owned(), ..first.clone().without_certificate() };
    assert_eq!(authority.join(&mut second).accepted().case, JoinCase::Recovery);
    let join = authority.join(&mut first).accepted();
    assert_eq!(join.case, JoinCase::Recovery, "a certificate of an earlier instance counts as none");
    assert_eq!(authority.join(&mut second).accepted().case, JoinCase::Recovery);
    assert_eq!(authority.open_locks(), 0);
}

#[test]
fn a_lost_answer_in_insecure_mode_is_retried_past_the_joins_of_other_hosts() {
    let (mut authority, mut first) = Scenario::bound(spec(Insecure, 0));
    let mut second = Client { subject_keys: "of the second host".to_owned(), ..first.clone().without_certificate() };
    let _ = authority.join_without_answer(&mut first).accepted();
    let _ = authority.join(&mut second).accepted();
    assert_eq!(authority.join(&mut first).accepted().case, JoinCase::Recovery);
    assert_eq!(authority.open_locks(), 0);
}
