//! Exemptions, reinstate and reopen (protocol, section 7).

use chrono::TimeDelta;
use join_domain::{
    decision::administer::{self, GrantAsked},
    event::{JoinCase, JoinStateSeen},
    id::{BotId, GrantId, TokenId},
    proof::JoinStateError,
    refusal::Code,
    resource::{ExemptionKind, LockTarget, MAX_TEXT, TokenSpec},
};
use rstest::rstest;
use uuid::Uuid;

use crate::scenario::{Client, SECRET, Scenario, beginning, relaxed, standard};

fn asked(kind: ExemptionKind) -> GrantAsked {
    GrantAsked { kind, count: 1, uses: 1, expires: None, reason: "checked".to_owned() }
}

fn id() -> GrantId {
    GrantId(Uuid::from_u128(1))
}

#[test]
fn recoveries_admit_that_many_after_the_limit() {
    let (mut authority, mut owner) = Scenario::bound(standard(1));
    let grant = authority.grant_as(GrantAsked { count: 2, ..asked(ExemptionKind::Recoveries) });
    for left in [1, 0] {
        authority.pass(TimeDelta::hours(2));
        let _ = authority.join(&mut owner).accepted();
        assert_eq!(authority.uses_left(grant), left);
    }
    authority.pass(TimeDelta::hours(2));
    let _ = authority.join(&mut owner).refused(Code::RecoveryLimitExhausted);
}

#[test]
fn recoveries_admit_a_first_join_at_limit_zero() {
    let mut authority = Scenario::unbound(standard(0));
    let _ = authority.grant(ExemptionKind::Recoveries);
    let _ = authority.join(&mut Client::new(1)).accepted();
}

#[rstest]
#[case::recoveries(ExemptionKind::Recoveries)]
#[case::join_state(ExemptionKind::JoinState)]
#[case::generation(ExemptionKind::Generation)]
fn a_grant_is_spent_only_when_it_is_needed(#[case] kind: ExemptionKind) {
    let (mut authority, mut owner) = Scenario::bound(standard(9));
    let grant = authority.grant(kind);
    let _ = authority.join(&mut owner).accepted();
    authority.pass(TimeDelta::hours(2));
    let _ = authority.join(&mut owner).accepted();
    assert_eq!(authority.uses_left(grant), 1);
    assert!(!authority.kinds().contains(&"exemption.consumed"));
}

#[rstest]
#[case::missing(|_: &Scenario, _: &Client| JoinStateSeen::Missing, true)]
#[case::older(|given: &Scenario, owner: &Client| given.join_state(owner.instance(), 1), true)]
#[case::newer(|given: &Scenario, owner: &Client| given.join_state(owner.instance(), 7), true)]
#[case::forged(|_: &Scenario, _: &Client| JoinStateSeen::NotAuthentic(JoinStateError::BadSignature), false)]
#[case::of_another_bot(|given: &Scenario, owner: &Client| {
    let (token, instance) = (Some(given.token.id), owner.instance());
    JoinStateSeen::Authentic { bot: "other".to_owned(), token, instance, sequence: 1 }
}, false)]
#[case::of_another_token(|_: &Scenario, owner: &Client| {
    let (token, instance) = (Some(TokenId(Uuid::from_u128(0x71))), owner.instance());
    JoinStateSeen::Authentic { bot: "example".to_owned(), token, instance, sequence: 1 }
}, false)]
fn a_join_state_grant_admits_what_is_authentic_or_missing(
    #[case] document: fn(&Scenario, &Client) -> JoinStateSeen,
    #[case] admitted: bool,
) {
    let (mut authority, mut owner) = Scenario::bound(standard(9));
    authority.pass_until_expired();
    let _ = authority.join(&mut owner).accepted();
    let grant = authority.grant(ExemptionKind::JoinState);
    owner.join_state = document(&authority, &owner);
    let outcome = authority.join(&mut owner);
    if admitted {
        assert_eq!(outcome.accepted().case, JoinCase::Renewal);
        assert_eq!(authority.uses_left(grant), 0);
        assert_eq!(owner.join_state, authority.join_state(owner.instance(), 2), "it gets a fresh one");
    } else {
        let _ = outcome.locked_with(Code::JoinStateInvalid);
        assert_eq!(authority.uses_left(grant), 1, "a refusal spends nothing");
    }
}

#[test]
fn a_join_state_grant_makes_a_certificate_of_another_instance_count_as_none() {
    let (mut authority, owner) = Scenario::bound(standard(9));
    let mut restored = owner.clone();
    let _ = authority.join(&mut owner.without_certificate()).accepted();
    let _ = authority.grant(ExemptionKind::JoinState);
    assert_eq!(authority.join(&mut restored).accepted().case, JoinCase::Recovery);
}

#[test]
fn a_join_state_grant_that_is_not_needed_does_not_excuse_a_certificate() {
    let (mut authority, owner) = Scenario::bound(standard(9));
    let old = owner.clone();
    let mut newest = owner.without_certificate();
    let _ = authority.join(&mut newest).accepted();
    let _ = authority.grant(ExemptionKind::JoinState);
    let _ = authority.join(&mut newest.with_certificate_of(&old)).refused(Code::InstanceMismatch);
}

#[test]
fn a_join_state_grant_does_not_excuse_a_generation() {
    let (mut authority, mut owner) = Scenario::bound(standard(9));
    let mut copy = owner.clone();
    let _ = authority.join(&mut owner).accepted();
    let _ = authority.grant(ExemptionKind::JoinState);
    let _ = authority.join(&mut copy).locked_with(Code::GenerationMismatch);
}

#[test]
fn a_generation_grant_admits_the_next_mismatch_and_counts_on_from_the_larger_value() {
    let (mut authority, mut owner) = Scenario::bound(standard(9));
    let mut copy = owner.clone();
    let _ = authority.join(&mut owner).accepted();
    let _ = authority.join(&mut owner).accepted();
    let grant = authority.grant(ExemptionKind::Generation);
    let join = authority.join(&mut copy).accepted();
    assert_eq!((join.case, join.generation), (JoinCase::Renewal, 4));
    assert_eq!(authority.uses_left(grant), 0);
    let _ = authority.join(&mut owner).locked_with(Code::GenerationMismatch);
}

#[test]
fn one_join_may_need_several_grants_and_spends_each_once() {
    let (mut authority, owner) = Scenario::bound(standard(1));
    let mut restored = owner.clone().without_certificate().with_join_state(JoinStateSeen::Missing);
    let join_state = authority.grant(ExemptionKind::JoinState);
    let recoveries = authority.grant(ExemptionKind::Recoveries);
    let unneeded = authority.grant(ExemptionKind::Generation);
    let _ = authority.join(&mut restored).accepted();
    let left = [join_state, recoveries, unneeded].map(|grant| authority.uses_left(grant));
    assert_eq!(left, [0, 0, 1]);
}

#[test]
fn a_grant_of_several_uses_is_spent_use_by_use() {
    let (mut authority, mut owner) = Scenario::bound(standard(9));
    let grant = authority.grant_as(GrantAsked { uses: 2, ..asked(ExemptionKind::JoinState) });
    for left in [1, 0] {
        owner.join_state = JoinStateSeen::Missing;
        let _ = authority.join(&mut owner).accepted();
        assert_eq!(authority.uses_left(grant), left);
    }
    owner.join_state = JoinStateSeen::Missing;
    let _ = authority.join(&mut owner).refused(Code::JoinStateRequired);
}

#[test]
fn a_grant_ends_by_its_expiry_which_is_a_day_unless_said() {
    let (mut authority, mut owner) = Scenario::bound(standard(1));
    let _ = authority.grant(ExemptionKind::Recoveries);
    assert_eq!(authority.token.grants.last().unwrap().expires, beginning() + TimeDelta::hours(24));
    authority.pass(TimeDelta::hours(24));
    let _ = authority.join(&mut owner).refused(Code::RecoveryLimitExhausted);
}

#[test]
fn a_grant_can_be_revoked_before_it_is_spent() {
    let (mut authority, mut owner) = Scenario::bound(standard(1));
    let grant = authority.grant(ExemptionKind::Recoveries);
    authority.record(vec![administer::revoke(&authority.token, grant, authority.now).unwrap()]);
    authority.pass(TimeDelta::hours(2));
    let _ = authority.join(&mut owner).refused(Code::RecoveryLimitExhausted);
    assert_eq!(administer::revoke(&authority.token, grant, authority.now).unwrap_err().code, Code::NotFound);
}

#[test]
fn what_is_spent_expired_or_unknown_cannot_be_revoked() {
    let (mut authority, mut owner) = Scenario::bound(standard(1));
    let spent = authority.grant(ExemptionKind::Recoveries);
    authority.pass(TimeDelta::hours(2));
    let _ = authority.join(&mut owner).accepted();
    let expired = authority.grant(ExemptionKind::Generation);
    authority.pass(TimeDelta::hours(24));
    for grant in [spent, expired, id()] {
        assert_eq!(administer::revoke(&authority.token, grant, authority.now).unwrap_err().code, Code::NotFound);
    }
}

#[rstest]
#[case::no_reason(GrantAsked { reason: "  ".to_owned(), ..asked(ExemptionKind::Recoveries) })]
#[case::unprintable_reason(GrantAsked { reason: "checked\0".to_owned(), ..asked(ExemptionKind::Recoveries) })]
#[case::long_reason(GrantAsked { reason: "x".repeat(MAX_TEXT + 1), ..asked(ExemptionKind::Recoveries) })]
#[case::past(GrantAsked { expires: Some(beginning()), ..asked(ExemptionKind::Recoveries) })]
#[case::count_of_another_kind(GrantAsked { count: 2, ..asked(ExemptionKind::JoinState) })]
#[case::too_many(GrantAsked { count: 100, uses: 11, ..asked(ExemptionKind::Recoveries) })]
#[case::overflowing(GrantAsked { count: u32::MAX, uses: u32::MAX, ..asked(ExemptionKind::Recoveries) })]
#[case::a_bundle(asked(ExemptionKind::Reinstatement))]
fn a_grant_that_makes_no_sense_is_refused(#[case] asked: GrantAsked) {
    assert_eq!(administer::grant(&asked, id(), beginning()).unwrap_err().code, Code::InvalidRequest);
}

/// A token that a clone locked: the owner's disk, and the thief's, who took the last recovery.
fn locked() -> (Scenario, Client, Client) {
    let (mut authority, mut owner) = Scenario::bound(standard(2));
    let mut thief = owner.clone().without_certificate();
    let _ = authority.join(&mut thief).accepted();
    let _ = authority.join(&mut owner).locked_with(Code::JoinStateInvalid);
    (authority, owner, thief)
}

#[rstest]
#[case::holding_a_live_certificate_of_the_old_instance(TimeDelta::zero())]
#[case::holding_none(TimeDelta::hours(2))]
fn after_a_reinstatement_the_same_client_joins_with_nothing_changed_on_its_side(#[case] later: TimeDelta) {
    let (mut authority, mut owner, mut thief) = locked();
    let grant = authority.reinstate();
    authority.pass(later);
    let join = authority.join(&mut owner).accepted();
    assert_eq!((join.case, join.recovery_count), (JoinCase::Recovery, 3), "one recovery past the limit");
    assert_eq!((authority.uses_left(grant), authority.open_locks()), (0, 0));
    let _ = authority.join(&mut owner).accepted();
    let _ = authority.join(&mut thief).locked_with(Code::JoinStateInvalid);
}

#[test]
fn after_a_reinstatement_the_first_to_come_spends_the_bundle_and_the_other_locks() {
    let (mut authority, mut owner, mut thief) = locked();
    let _ = authority.reinstate();
    let _ = authority.join(&mut thief).accepted();
    let _ = authority.join(&mut owner).locked_with(Code::JoinStateInvalid);
}

#[test]
fn a_bundle_is_spent_whole_needed_or_not() {
    let (mut authority, mut owner) = Scenario::bound(standard(9));
    let grant = authority.reinstate();
    let _ = authority.join(&mut owner).accepted();
    assert_eq!(authority.uses_left(grant), 0);
    assert_eq!(authority.kinds().iter().filter(|kind| **kind == "exemption.consumed").count(), 1);
}

#[test]
fn a_bundle_covers_a_generation() {
    let (mut authority, mut owner) = Scenario::bound(standard(1));
    let mut copy = owner.clone();
    let _ = authority.join(&mut owner).accepted();
    let _ = authority.join(&mut copy).locked_with(Code::GenerationMismatch);
    let _ = authority.reinstate();
    assert_eq!(authority.join(&mut copy).accepted().generation, 3);
    let _ = authority.join(&mut owner).locked_with(Code::GenerationMismatch);
}

#[test]
fn a_bundle_is_taken_before_grants_of_a_kind() {
    let (mut authority, owner) = Scenario::bound(standard(1));
    let single = authority.grant(ExemptionKind::JoinState);
    let bundle = authority.reinstate();
    let _ = authority.join(&mut owner.with_join_state(JoinStateSeen::Missing)).accepted();
    assert_eq!((authority.uses_left(single), authority.uses_left(bundle)), (1, 0));
}

#[test]
fn a_bundle_ends_after_a_day() {
    let (mut authority, mut owner, _) = locked();
    let _ = authority.reinstate();
    authority.pass(TimeDelta::hours(24) - TimeDelta::seconds(1));
    let _ = authority.clone().join(&mut owner.clone()).accepted();
    authority.pass(TimeDelta::seconds(1));
    let _ = authority.join(&mut owner).locked_with(Code::JoinStateInvalid);
}

#[test]
fn reinstating_twice_does_not_admit_two() {
    let (mut authority, mut owner, mut thief) = locked();
    let first = authority.reinstate();
    let second = authority.reinstate();
    assert_eq!((authority.uses_left(first), authority.uses_left(second)), (0, 1));
    let _ = authority.join(&mut owner).accepted();
    let _ = authority.join(&mut thief).locked_with(Code::JoinStateInvalid);
}

#[test]
fn a_bundle_does_not_excuse_a_forged_join_state() {
    let (mut authority, owner, _) = locked();
    let _ = authority.reinstate();
    let forged = JoinStateSeen::NotAuthentic(JoinStateError::BadSignature);
    let _ = authority.join(&mut owner.with_join_state(forged)).locked_with(Code::JoinStateInvalid);
}

#[test]
fn a_reinstatement_releases_the_tokens_own_locks_only() {
    let (mut authority, mut owner, _) = locked();
    let user = authority.lock(LockTarget::User("example".parse().unwrap()), None);
    let _ = authority.reinstate();
    assert_eq!(authority.join(&mut owner).refused(Code::Locked).lock, Some(user));
    assert_eq!(authority.locks.len(), 1);
}

#[test]
fn a_reinstatement_ends_the_contest() {
    let (mut authority, _, _) = locked();
    assert!(authority.token.contested_at.is_some());
    let _ = authority.reinstate();
    assert_eq!(authority.token.contested_at, None);
}

/// Whatever ends a binding: who is bound next has not been refused.
#[rstest]
#[case::another_bot(|authority: &mut Scenario| {
    let _ = authority.upsert(|written| written.bot = BotId(Uuid::from_u128(0xb1))).unwrap();
})]
#[case::reopened(|authority: &mut Scenario| authority.reopen(SECOND))]
#[case::deleted(|authority: &mut Scenario| authority.record(vec![administer::delete_token()]))]
fn the_contest_ends_with_the_binding(#[case] end: fn(&mut Scenario)) {
    let (mut authority, _, _) = locked();
    end(&mut authority);
    assert_eq!(authority.token.contested_at, None);
}

#[test]
fn a_reason_is_required() {
    let (authority, _, _) = locked();
    let reinstated = administer::reinstate(&authority.token, &authority.locks, " ", id(), authority.now);
    assert_eq!(reinstated.unwrap_err().code, Code::InvalidRequest);
    let reopened = administer::reopen(&authority.token, &authority.locks, "", SECRET.to_owned());
    assert_eq!(reopened.unwrap_err().code, Code::InvalidRequest);
}

const SECOND: &str = "hash of the second secret";

fn new_host(key: u8) -> Client {
    Client { secret: Some(SECOND.to_owned()), ..Client::new(key) }
}

#[test]
fn a_reopened_token_registers_a_new_key_and_counts_from_one() {
    let (mut authority, _, _) = locked();
    authority.reopen(SECOND);
    assert_eq!((authority.token.recovery_count, authority.token.instance()), (0, None));
    let join = authority.join(&mut new_host(2)).accepted();
    assert_eq!((join.case, join.recovery_count, join.previous_instance), (JoinCase::FirstJoin, 1, None));
}

#[test]
fn what_the_old_host_holds_is_refused_without_a_lock_after_a_reopening() {
    let (mut authority, mut owner, mut thief) = locked();
    authority.reopen(SECOND);
    for client in [&mut owner, &mut thief] {
        let _ = authority.join(client).refused(Code::BindingNotAllowed);
        let _ = authority.join(&mut client.clone().without_certificate()).refused(Code::RegistrationSecretRequired);
    }
    let _ = authority.join(&mut new_host(2)).accepted();
    for client in [&mut owner, &mut thief] {
        let _ = authority.join(client).refused(Code::ChallengeFailed);
    }
    assert_eq!(authority.open_locks(), 0);
}

#[test]
fn a_reopening_replaces_an_expired_registration() {
    let end = beginning() + TimeDelta::minutes(5);
    let (mut authority, _) = Scenario::bound(TokenSpec { must_register_before: Some(end), ..standard(1) });
    authority.pass(TimeDelta::hours(1));
    authority.reopen(SECOND);
    let _ = authority.join(&mut new_host(2)).accepted();
}

#[test]
fn a_reopening_replaces_a_preregistered_key() {
    let spec = TokenSpec { initial_public_key: Some(crate::scenario::key(1)), ..standard(1) };
    let (mut authority, _) = Scenario::bound(spec);
    authority.reopen(SECOND);
    let _ = authority.join(&mut new_host(2)).accepted();
}

#[test]
fn grants_of_the_old_binding_end_with_it() {
    let (mut authority, mut owner) = Scenario::bound(relaxed());
    let grant = authority.grant(ExemptionKind::JoinState);
    let bundle = authority.reinstate();
    authority.reopen(SECOND);
    assert_eq!((authority.uses_left(grant), authority.uses_left(bundle)), (0, 0));
    let mut host = new_host(2);
    let _ = authority.join(&mut host).accepted();
    let _ = authority.join(&mut host.with_join_state(JoinStateSeen::Missing)).refused(Code::JoinStateRequired);
    let _ = authority.join(&mut owner).refused(Code::ChallengeFailed);
}
