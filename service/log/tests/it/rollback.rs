//! Signing is refused whenever the past says otherwise.

use join_log::rollback::{Decision, Evidence, Rollback, decide};
use join_log::{Checkpoint, Hash, Tree};

use crate::{checkpoint, numbers};

fn tree(size: u64) -> Tree {
    numbers(0..size).iter().map(|entry| join_log::leaf_hash(entry)).collect()
}

fn root_at(size: u64) -> std::io::Result<Hash> {
    Ok(tree(size).root())
}

fn at(size: u64) -> Checkpoint {
    checkpoint(&tree(size))
}

fn forked(size: u64) -> Checkpoint {
    Checkpoint { root: [9; 32], ..at(size) }
}

struct Past {
    integrated: u64,
    on_disk: Option<Checkpoint>,
    recorded: Option<Checkpoint>,
    witnessed: Option<u64>,
}

fn decided(past: Past) -> Decision {
    let evidence = Evidence {
        origin: "join.example/log-a",
        integrated: past.integrated,
        on_disk: past.on_disk.as_ref(),
        recorded: past.recorded.as_ref(),
        witnessed: past.witnessed,
        ended: false,
    };
    decide(&evidence, root_at).unwrap()
}

#[test]
fn a_past_without_contradiction_is_signed() {
    for (on_disk, recorded) in
        [(None, None), (None, Some(at(0))), (Some(at(3)), Some(at(3))), (Some(at(2)), Some(at(9))), (None, Some(at(9)))]
    {
        let signed = recorded.as_ref().map_or(0, |recorded| recorded.size);
        for witnessed in [None, Some(0), Some(signed)] {
            let past = Past { integrated: 9, on_disk: on_disk.clone(), recorded: recorded.clone(), witnessed };
            assert_eq!(decided(past), Decision::Sign);
        }
    }
}

#[test]
fn every_contradiction_is_refused() {
    let past = |on_disk, recorded| Past { integrated: 9, on_disk, recorded, witnessed: None };
    let refused = |past, why| assert_eq!(decided(past), Decision::Refuse(why));
    let foreign = Some(Checkpoint { origin: "join.example/log-b".into(), ..at(3) });
    let other = Rollback::OtherOrigin { found: "join.example/log-b".into(), expected: "join.example/log-a".into() };
    refused(past(foreign.clone(), Some(at(3))), other.clone());
    refused(past(None, foreign), other);

    refused(past(Some(at(8)), Some(at(7))), Rollback::DatabaseForgot { on_disk: 8, recorded: 7 });
    refused(past(Some(at(8)), None), Rollback::DatabaseForgot { on_disk: 8, recorded: 0 });
    refused(past(Some(at(0)), None), Rollback::DatabaseForgot { on_disk: 0, recorded: 0 });

    refused(past(None, Some(at(10))), Rollback::Shorter { integrated: 9, signed: 10 });
    refused(past(Some(at(10)), Some(at(10))), Rollback::Shorter { integrated: 9, signed: 10 });

    refused(past(None, Some(forked(5))), Rollback::Rewritten { size: 5 });
    refused(past(Some(forked(5)), Some(at(5))), Rollback::Rewritten { size: 5 });
    refused(past(Some(forked(4)), Some(at(9))), Rollback::Rewritten { size: 4 });

    let witnessed = Past { witnessed: Some(10), ..past(Some(at(9)), Some(at(9))) };
    refused(witnessed, Rollback::WitnessAhead { recorded: 9, witnessed: 10 });
    // Though the log has grown past it since.
    let outgrown = Past { witnessed: Some(8), ..past(None, Some(at(5))) };
    refused(outgrown, Rollback::WitnessAhead { recorded: 5, witnessed: 8 });
    let never_signed = Past { witnessed: Some(8), ..past(None, None) };
    refused(never_signed, Rollback::WitnessAhead { recorded: 0, witnessed: 8 });
}

#[test]
fn what_cannot_be_checked_is_not_signed() {
    let recorded = at(5);
    let evidence = Evidence {
        origin: "join.example/log-a",
        integrated: 9,
        on_disk: None,
        recorded: Some(&recorded),
        witnessed: None,
        ended: false,
    };
    assert!(decide(&evidence, |_| Err(std::io::Error::other("tile lost"))).is_err());
}
