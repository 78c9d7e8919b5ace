//! Every state within the bounds, under the real rules: no promise is broken.

use std::time::Instant;

use join_domain::resource::RecoveryMode::{Insecure, Relaxed, Standard};
use join_model::{
    Bounds, Setup,
    Start::{Joined, Unbound},
    story,
    world::Copies,
};
use stateright::{Checker as _, Model as _};

const BOUNDS: Bounds =
    Bounds { attempts: 4, in_flight: 2, ticks: 2, lives: 1, rotations: 0, reinstatements: 0, raises: 0, restores: 0 };

/// Visits every state, prints how many there were, and fails with the story of a broken promise.
#[track_caller]
fn holds(setup: Setup) {
    let (started, thread) = (Instant::now(), std::thread::current());
    let name = thread.name().unwrap_or_default();
    let checker = setup.checker().spawn_bfs().join();
    let model = checker.model();
    let (tokens, decisions) = model.authority.size();
    println!(
        "{name}: {} states, {} steps, {} deep, {tokens} token states, {decisions} decisions, {:.1} s",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        started.elapsed().as_secs_f64(),
    );
    if let Some((promise, path)) = checker.discoveries().into_iter().next() {
        panic!("{name}: not \"{promise}\":\n{}", story::tell(model, path));
    }
}

#[test]
fn an_owner_alone_from_its_first_join_on() {
    holds(Setup::new(Standard, 1, Unbound, Copies::None, Bounds { rotations: 2, raises: 1, ..BOUNDS }));
}

#[test]
fn an_owner_alone_with_three_messages_on_the_way() {
    holds(Setup::new(Standard, 3, Unbound, Copies::None, Bounds { in_flight: 3, attempts: 3, rotations: 1, ..BOUNDS }));
}

#[test]
fn an_owner_alone_with_certificates_of_different_lives() {
    holds(Setup::new(Standard, 3, Joined, Copies::None, Bounds { ticks: 3, lives: 2, ..BOUNDS }));
}

#[test]
fn an_owner_whose_authority_is_restored_from_a_backup() {
    holds(Setup::new(Standard, 3, Joined, Copies::None, Bounds { restores: 1, rotations: 1, ..BOUNDS }));
}

#[test]
fn a_copy_at_any_moment() {
    holds(Setup::new(Standard, 3, Joined, Copies::Clone, BOUNDS));
}

#[test]
fn a_copy_before_the_first_join() {
    holds(Setup::new(Standard, 3, Unbound, Copies::Clone, Bounds { ticks: 1, ..BOUNDS }));
}

#[test]
fn a_copy_with_a_rotation() {
    holds(Setup::new(Standard, 3, Joined, Copies::Clone, Bounds { ticks: 1, rotations: 1, ..BOUNDS }));
}

#[test]
fn a_copy_with_no_recovery_left() {
    holds(Setup::new(Standard, 1, Joined, Copies::Clone, Bounds { ticks: 1, ..BOUNDS }));
}

#[test]
fn a_copy_with_certificates_of_different_lives() {
    holds(Setup::new(Standard, 3, Joined, Copies::Clone, Bounds { attempts: 3, lives: 2, ..BOUNDS }));
}

#[test]
fn a_copy_and_a_reinstatement() {
    holds(Setup::new(Standard, 2, Joined, Copies::Clone, Bounds { ticks: 1, reinstatements: 1, ..BOUNDS }));
}

#[test]
fn a_copy_in_mode_relaxed() {
    holds(Setup::new(Relaxed, 0, Joined, Copies::Clone, Bounds { ticks: 1, ..BOUNDS }));
}

#[test]
fn a_copy_in_mode_insecure() {
    holds(Setup::new(Insecure, 0, Joined, Copies::Clone, Bounds { ticks: 1, attempts: 3, in_flight: 1, ..BOUNDS }));
}

#[test]
fn a_cunning_thief() {
    holds(Setup::new(Standard, 3, Joined, Copies::Cunning, Bounds { ticks: 1, in_flight: 1, ..BOUNDS }));
}

#[test]
fn a_cunning_thief_with_two_messages_on_the_way() {
    holds(Setup::new(Standard, 3, Joined, Copies::Cunning, Bounds { ticks: 1, attempts: 3, ..BOUNDS }));
}

#[test]
fn a_cunning_thief_and_a_rotation() {
    holds(Setup::new(Standard, 3, Joined, Copies::Cunning, Bounds { ticks: 1, in_flight: 1, rotations: 1, ..BOUNDS }));
}

#[test]
fn a_cunning_thief_and_a_reinstatement() {
    holds(Setup::new(
        Standard,
        2,
        Joined,
        Copies::Cunning,
        Bounds { ticks: 1, in_flight: 1, reinstatements: 1, ..BOUNDS },
    ));
}
