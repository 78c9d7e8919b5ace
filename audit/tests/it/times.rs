//! What entries say of their times, beside the order of the log.

use chrono::TimeDelta;
use join_audit::{Fault, verify_history};
use join_domain::envelope::{Entry, StreamId, StreamKind};
use join_domain::event::{Event, Nothing};

use crate::history::{History, stream, token_created};
use crate::joins::lived;

const HOUR: TimeDelta = TimeDelta::hours(1);

/// The faults of a history whose entry `index` was changed, each with its place and sentence.
fn found(index: usize, change: impl FnOnce(&mut Entry)) -> Vec<(Fault, Option<u64>, String)> {
    let mut history = History::of(200);
    change(&mut history.entries[index]);
    let findings = verify_history(history.envelopes().iter().map(String::as_str));
    findings.into_iter().map(|finding| (finding.fault, finding.place.log_index, finding.what)).collect()
}

#[test]
fn an_entry_that_is_older_than_what_stands_before_it_is_found() {
    type Change = fn(&mut Entry);
    let changes: [Change; 3] = [
        |entry| (entry.decided_at, entry.recorded_at) = (entry.decided_at - HOUR, entry.recorded_at - HOUR),
        |entry| entry.decided_at -= HOUR,
        |entry| entry.recorded_at -= HOUR,
    ];
    for change in changes {
        let found = found(120, change);
        let [(Fault::TimeWentBack, Some(120), what)] = found.as_slice() else { panic!("{found:?}") };
        // Both ways in which it comes about.
        assert!(what.contains("it was backdated, or a clock was set back"), "{what}");
    }
    // One that was dated into the future makes all that follow too old.
    let found = found(120, |entry| entry.recorded_at += HOUR);
    assert!(matches!(found.as_slice(), [(Fault::TimeWentBack, Some(120 | 121), _)]), "{found:?}");
}

#[test]
fn what_was_recorded_at_once_stands_in_either_order() {
    let some = TimeDelta::seconds(50);
    assert_eq!(
        found(120, |entry| (entry.decided_at, entry.recorded_at) = (entry.decided_at - some, entry.recorded_at - some)),
        []
    );
    assert_eq!(found(120, |entry| entry.recorded_at += some), []);
}

#[test]
fn an_entry_that_was_decided_after_it_was_recorded_is_found() {
    let found = found(199, |entry| entry.decided_at += HOUR);
    let [(Fault::TimeWentBack, Some(199), what)] = found.as_slice() else { panic!("{found:?}") };
    assert!(what.contains("and recorded before that"), "{what}");
}

/// What was counted about the cluster while the database was away is recorded when it is back.
#[test]
fn sums_may_wait_for_the_database() {
    let mut story = lived();
    story.passes(3600);
    story.happens(StreamId::CLUSTER, Event::MasterKeyChanged(Nothing {}));
    story.history.entries.last_mut().unwrap().decided_at -= HOUR;
    story.is_allowed();
}

#[test]
fn a_join_that_was_backdated_is_found() {
    let mut story = lived();
    story.passes(7200);
    story.happens(stream(StreamKind::Lock, 77), lock());
    story.now -= HOUR;
    story.joins();
    let found = story.found();
    let [(Fault::TimeWentBack, what)] = found.as_slice() else { panic!("{found:?}") };
    assert!(what.contains("it was backdated"), "{what}");
}

/// As by a node whose clock had stood still: that is all that is wrong with it.
#[test]
fn a_join_that_says_it_was_before_the_last_one_is_told_as_a_time_that_went_back() {
    let mut story = lived();
    story.passes(7200);
    story.joins();
    story.now -= HOUR;
    story.joins();
    let found = story.found();
    let [(Fault::TimeWentBack, _)] = found.as_slice() else { panic!("{found:?}") };
}

fn lock() -> Event {
    Event::LockCreated(join_domain::event::LockCreated {
        target: join_domain::resource::LockTarget::JoinToken("another".parse().unwrap()),
        message: String::new(),
        expires: None,
        cause: None,
        by: "admin/example".into(),
    })
}

/// A name that was given up long after another had it was not given up at that moment, whatever the entry says.
#[test]
fn a_name_that_is_given_up_too_late_is_found_by_the_order() {
    let [first, second, third] = [1, 2, 3].map(|number| stream(StreamKind::Token, number));
    let named = |number| vec![token_created(number, stream(StreamKind::Bot, number))];
    let mut history = History::default();
    history.append(first, named(1));
    history.append(second, named(1));
    history.append(third, named(3));
    history.append(first, vec![Event::TokenDeleted(Nothing {})]);
    let faults = |history: &History| {
        let findings = verify_history(history.envelopes().iter().map(String::as_str));
        findings.iter().map(|finding| finding.fault).collect::<Vec<_>>()
    };
    assert_eq!(faults(&history), []);
    for third_at in [70, 100] {
        let mut late = history.clone();
        let at = late.entries[2].recorded_at + TimeDelta::seconds(third_at);
        (late.entries[2].decided_at, late.entries[2].recorded_at) = (at, at);
        assert!(faults(&late).contains(&Fault::ForbiddenHistory), "{third_at}");
    }
}
