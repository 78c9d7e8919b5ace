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
fn holds(name: &str, setup: Setup) {
    let started = Instant::now();
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
fn e01_alone() {
    holds(
        "alone unbound 3 in flight",
        Setup::new(Standard, 3, Unbound, Copies::None, Bounds { in_flight: 3, rotations: 1, raises: 1, ..BOUNDS }),
    );
}
#[test]
fn e15() {
    holds(
        "alone lives 2 ticks 3",
        Setup::new(Standard, 3, Joined, Copies::None, Bounds { ticks: 3, lives: 2, ..BOUNDS }),
    );
}
#[test]
fn e16() {
    holds(
        "clone lives 2 ticks 2",
        Setup::new(Standard, 3, Joined, Copies::Clone, Bounds { ticks: 2, lives: 2, attempts: 3, ..BOUNDS }),
    );
}
#[test]
fn e02_alone() {
    holds(
        "alone limit 1 raise",
        Setup::new(Standard, 1, Unbound, Copies::None, Bounds { in_flight: 2, rotations: 2, raises: 1, ..BOUNDS }),
    );
}
#[test]
fn e03_restored() {
    holds("restored", Setup::new(Standard, 3, Joined, Copies::None, Bounds { restores: 1, rotations: 1, ..BOUNDS }));
}
#[test]
fn e04() {
    holds("clone 2 ticks", Setup::new(Standard, 3, Joined, Copies::Clone, BOUNDS));
}
#[test]
fn e05() {
    holds(
        "clone 1 tick rot",
        Setup::new(Standard, 3, Joined, Copies::Clone, Bounds { ticks: 1, rotations: 1, ..BOUNDS }),
    );
}
#[test]
fn e06() {
    holds("clone unbound 1 tick", Setup::new(Standard, 3, Unbound, Copies::Clone, Bounds { ticks: 1, ..BOUNDS }));
}
#[test]
fn e07() {
    holds(
        "clone reinst 1 tick",
        Setup::new(Standard, 2, Joined, Copies::Clone, Bounds { ticks: 1, reinstatements: 1, ..BOUNDS }),
    );
}
#[test]
fn e08() {
    holds(
        "cunning 1 tick",
        Setup::new(Standard, 3, Joined, Copies::Cunning, Bounds { ticks: 1, in_flight: 1, ..BOUNDS }),
    );
}
#[test]
fn e09() {
    holds(
        "cunning 1 tick rot",
        Setup::new(Standard, 3, Joined, Copies::Cunning, Bounds { ticks: 1, in_flight: 1, rotations: 1, ..BOUNDS }),
    );
}
#[test]
fn e10() {
    holds("relaxed clone 1 tick", Setup::new(Relaxed, 0, Joined, Copies::Clone, Bounds { ticks: 1, ..BOUNDS }));
}
#[test]
fn e11() {
    holds("insecure clone 1 tick", Setup::new(Insecure, 0, Joined, Copies::Clone, Bounds { ticks: 1, ..BOUNDS }));
}
#[test]
fn e12() {
    holds("clone limit 1", Setup::new(Standard, 1, Joined, Copies::Clone, Bounds { ticks: 1, ..BOUNDS }));
}
#[test]
fn e13() {
    holds(
        "cunning 2 flight 3 attempts",
        Setup::new(Standard, 3, Joined, Copies::Cunning, Bounds { ticks: 1, attempts: 3, rotations: 1, ..BOUNDS }),
    );
}
#[test]
fn e14() {
    holds(
        "cunning reinst",
        Setup::new(
            Standard,
            2,
            Joined,
            Copies::Cunning,
            Bounds { ticks: 1, in_flight: 1, reinstatements: 1, ..BOUNDS },
        ),
    );
}
