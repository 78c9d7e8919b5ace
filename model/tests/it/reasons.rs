//! What each rule is for: without it, a promise is broken, by the shortest story that breaks it.

use join_domain::resource::RecoveryMode::{Relaxed, Standard};
use join_model::{
    Bounds, Rule, Setup, Start, property, story,
    world::Copies::{self, Clone, Cunning},
};
use stateright::{Checker as _, Model as _};

const SMALL: Bounds =
    Bounds { attempts: 4, in_flight: 2, ticks: 1, lives: 1, rotations: 0, reinstatements: 0, raises: 0, restores: 0 };

fn standard(copies: Copies, bounds: Bounds) -> Setup {
    Setup::new(Standard, 3, Start::Joined, copies, bounds)
}

/// Without the rule the promise is broken; prints the shortest story of it.
#[track_caller]
fn breaks(setup: impl Fn() -> Setup, rule: Rule, promise: &'static str) {
    let mut visited = 0;
    for depth in 2.. {
        let checker = setup().without(rule).checker().target_max_depth(depth).spawn_bfs().join();
        if let Some(path) = checker.discovery(promise) {
            println!("\nwithout {rule:?}, not \"{promise}\":\n{}", story::tell(checker.model(), path));
            return;
        }
        let states = checker.unique_state_count();
        assert!(states > visited, "without {rule:?}, `{promise}` holds in {states} states");
        visited = states;
    }
}

#[test]
fn without_attempts_a_lost_answer_locks() {
    breaks(|| standard(Copies::None, SMALL), Rule::AttemptsAreResumed, property::NO_LOCK_WITHOUT_TWO_HOLDERS);
}

#[test]
fn without_subject_keys_a_thief_gets_a_certificate_of_his_own() {
    breaks(|| standard(Cunning, SMALL), Rule::SubjectKeysAreBound, property::ONE_SUBJECT);
}

#[test]
fn without_earlier_attempts_one_attempt_is_accepted_twice() {
    breaks(|| standard(Clone, SMALL), Rule::EarlierAttemptsAreKnown, property::ATTEMPT_USED_ONCE);
}

#[test]
fn without_late_matches_an_owner_who_was_away_locks() {
    breaks(|| standard(Copies::None, SMALL), Rule::LateMatchesAreNotJudged, property::NO_LOCK_WITHOUT_TWO_HOLDERS);
}

#[test]
fn without_the_time_of_the_challenge_a_late_duplicate_locks() {
    breaks(
        || standard(Copies::None, SMALL),
        Rule::WindowsAreJudgedByTheChallenge,
        property::NO_LOCK_WITHOUT_TWO_HOLDERS,
    );
}

#[test]
fn without_an_age_of_evidence_a_late_duplicate_locks() {
    breaks(|| standard(Copies::None, SMALL), Rule::EvidenceHasAnAge, property::NO_LOCK_WITHOUT_TWO_HOLDERS);
}

#[test]
fn without_decided_challenges_a_refused_one_is_accepted_later() {
    let bounds = Bounds { raises: 1, ..SMALL };
    let setup = || Setup::new(Standard, 1, Start::Joined, Copies::None, bounds);
    breaks(setup, Rule::ChallengesAreDecidedOnce, property::DECIDED_ONCE);
}

#[test]
fn without_the_bound_key_a_thief_gets_the_answer_of_a_rotation() {
    let bounds = Bounds { rotations: 1, ..SMALL };
    breaks(|| standard(Clone, bounds), Rule::TheBoundKeySigned, property::BOUND_KEY);
}

#[test]
fn without_retired_keys_a_thief_who_rotates_first_takes_over_in_silence() {
    let bounds = Bounds { rotations: 1, ..SMALL };
    breaks(|| standard(Clone, bounds), Rule::RetiredKeysAreEvidence, property::THIRD_TRY_LOCKS);
}

#[test]
fn without_locks_first_bad_attempts_pile_up_locks() {
    breaks(|| standard(Clone, SMALL), Rule::LocksComeFirst, property::ONE_LOCK);
}

#[test]
fn without_limits_last_a_used_up_limit_hides_a_clone() {
    let setup = || Setup::new(Standard, 2, Start::Joined, Clone, SMALL);
    breaks(setup, Rule::LimitsComeLast, property::THIRD_TRY_LOCKS);
}

#[test]
fn without_join_states_clones_take_turns_for_ever() {
    let setup = || Setup::new(Relaxed, 0, Start::Joined, Clone, SMALL);
    breaks(setup, Rule::JoinStatesAreJudged, property::TWO_TURNS);
}

#[test]
fn without_generations_clones_take_turns_for_ever() {
    breaks(|| standard(Clone, SMALL), Rule::GenerationsAreJudged, property::TWO_TURNS);
}

#[test]
fn without_authority_behind_a_restored_backup_locks() {
    let bounds = Bounds { restores: 1, ..SMALL };
    breaks(|| standard(Copies::None, bounds), Rule::WhatIsAheadIsNoTheft, property::NO_LOCK_WITHOUT_TWO_HOLDERS);
}

#[test]
fn without_forgetting_a_thief_resumes_after_a_reinstatement() {
    let bounds = Bounds { reinstatements: 1, ..SMALL };
    breaks(|| standard(Clone, bounds), Rule::ReinstatementsForgetTheAttempt, property::BUNDLE_FIRST);
}

#[test]
fn without_whole_bundles_both_holders_come_back() {
    let bounds = Bounds { attempts: 4, reinstatements: 1, ..SMALL };
    breaks(|| standard(Clone, bounds), Rule::BundlesAreSpentWhole, property::TWO_TURNS);
}

#[test]
fn without_outdated_evidence_a_resumed_challenge_spends_a_reinstatement() {
    let bounds = Bounds { reinstatements: 1, ..SMALL };
    breaks(|| standard(Clone, bounds), Rule::ReinstatementsOutdateEvidence, property::DECIDED_ONCE);
}

#[test]
fn an_attempt_that_a_refusal_ends_locks() {
    let bounds = Bounds { rotations: 1, ..SMALL };
    breaks(|| standard(Copies::None, bounds), Rule::AttemptsOutliveRefusals, property::NO_LOCK_WITHOUT_TWO_HOLDERS);
}

#[test]
fn an_attempt_that_is_not_on_the_disk_locks() {
    breaks(|| standard(Copies::None, SMALL), Rule::AttemptsAreWrittenFirst, property::NO_LOCK_WITHOUT_TWO_HOLDERS);
}

#[test]
fn an_answer_of_an_older_ceremony_locks() {
    let bounds = Bounds { ticks: 2, ..SMALL };
    breaks(|| standard(Copies::None, bounds), Rule::OnlyTheNewestAnswerIsTaken, property::NO_LOCK_WITHOUT_TWO_HOLDERS);
}

#[test]
fn a_new_key_that_is_not_on_the_disk_is_lost() {
    let bounds = Bounds { rotations: 1, ..SMALL };
    breaks(|| standard(Copies::None, bounds), Rule::NewKeysAreWrittenFirst, property::NEVER_STUCK);
}

#[test]
fn an_old_key_that_is_deleted_too_early_is_lost() {
    let bounds = Bounds { rotations: 1, ..SMALL };
    breaks(|| standard(Copies::None, bounds), Rule::OldKeysAreKept, property::NEVER_STUCK);
}
