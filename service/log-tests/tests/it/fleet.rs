//! What the rest is tested with is a history that the rules allow.

use std::collections::HashMap;

use join_domain::state::State;
use join_log_tests::Fleet;

#[test]
fn a_fleet_is_possible() {
    let mut states: HashMap<_, State> = HashMap::new();
    for entry in Fleet::new(7, "2026-01-01T00:00:00Z".parse().unwrap()).take(7 * 20) {
        let state = State::after(states.remove(&entry.stream), &entry).unwrap();
        states.insert(entry.stream, state);
    }
    assert_eq!(states.len(), 14);
    let generation = |state: &State| match state {
        State::Token(token) => token.latest().map(|latest| latest.join.generation),
        _ => None,
    };
    assert_eq!(states.values().filter_map(generation).max(), Some(18));
}
