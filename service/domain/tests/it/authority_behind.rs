//! Evidence that is ahead of the store (protocol, section 5): the authority lost history, and says so without a lock.

use join_domain::{event::JoinCase, refusal::Code, resource::ExemptionKind};

use crate::scenario::{Client, Scenario, relaxed, standard};

/// The store as it was before the owner's last join, and the owner after it.
fn restored(mut authority: Scenario, mut owner: Client) -> (Scenario, Client) {
    let backup = authority.clone();
    let _ = authority.join(&mut owner).accepted();
    (backup, owner)
}

#[test]
fn a_join_state_ahead_of_the_store_never_locks_and_is_admitted_by_a_grant() {
    let (mut authority, owner) = Scenario::bound(standard(3));
    authority.pass_until_expired();
    let (mut authority, mut owner) = restored(authority, owner);
    for _ in 0..3 {
        let _ = authority.join(&mut owner).refused(Code::AuthorityBehind);
    }
    assert_eq!(authority.kinds().last(), Some(&"join.refused"));
    assert_eq!(authority.token.contested_at, Some(authority.now));
    let grant = authority.grant(ExemptionKind::JoinState);
    let join = authority.join(&mut owner).accepted();
    assert_eq!((join.case, join.recovery_count), (JoinCase::Recovery, 2), "its certificate counts as none");
    assert_eq!(authority.uses_left(grant), 0);
    assert_eq!(authority.join(&mut owner).accepted().generation, 2);
}

#[test]
fn a_generation_ahead_of_the_store_never_locks_and_is_admitted_by_a_grant() {
    let (authority, owner) = Scenario::bound(standard(1));
    let (mut authority, mut owner) = restored(authority, owner);
    let refusal = authority.join(&mut owner).refused(Code::AuthorityBehind);
    assert!(refusal.message.contains("--kind generation"), "it names the grant that helps: {refusal}");
    let grant = authority.grant(ExemptionKind::Generation);
    let join = authority.join(&mut owner).accepted();
    assert_eq!((join.case, join.generation), (JoinCase::Renewal, 3), "it goes on from the larger value");
    assert_eq!(authority.uses_left(grant), 0);
}

#[test]
fn the_hint_names_the_grant_that_helps_a_join_state() {
    let (mut authority, owner) = Scenario::bound(relaxed());
    authority.pass_until_expired();
    let (mut authority, mut owner) = restored(authority, owner);
    let refusal = authority.join(&mut owner).refused(Code::AuthorityBehind);
    assert!(refusal.message.contains("--kind join_state"), "{refusal}");
}

#[test]
fn a_reinstatement_admits_a_bot_whose_authority_lost_history() {
    let (mut authority, owner) = Scenario::bound(standard(1));
    authority.set_limit(2);
    authority.pass_until_expired();
    let (mut authority, mut owner) = restored(authority, owner);
    let _ = authority.join(&mut owner).refused(Code::AuthorityBehind);
    let _ = authority.reinstate();
    let _ = authority.join(&mut owner).accepted();
}

#[test]
fn a_retired_key_with_evidence_ahead_of_the_store_never_locks() {
    // The owner rotated twice and keeps its first key; the backup knows the first rotation only.
    let (mut authority, owner) = Scenario::bound(standard(3));
    let mut owner = owner.offering(2);
    authority.request_rotation();
    let _ = authority.join(&mut owner).accepted();
    let backup = authority.clone();
    authority.pass(chrono::TimeDelta::seconds(1));
    authority.request_rotation();
    owner = owner.offering(3);
    let _ = authority.join(&mut owner).accepted();
    owner.keys = vec![1, 3];
    let mut authority = backup;
    let _ = authority.join(&mut owner).refused(Code::AuthorityBehind);
    assert_eq!(authority.open_locks(), 0);
}
