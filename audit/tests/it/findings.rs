//! What honest exports give, and the form of reports.

use join_audit::{Fault, Progress, Step, verify};
use rstest::rstest;

use crate::export::Export;
use crate::history::History;
use crate::keys::{log_policy, signed};

#[rstest]
fn an_honest_export_is_clean(
    #[values(0, 1, 2, 100, 255, 256, 257, 600)] entries: usize,
    #[values(true, false)] tiles: bool,
    #[values(true, false)] views: bool,
) {
    let history = History::of(entries);
    let mut export = Export::of(&history);
    export.tiles = tiles;
    let count = export.views.as_ref().map_or(0, Vec::len) as u64;
    if !views {
        export.views = None;
    }
    let report = export.audited();
    assert!(report.is_clean(), "{:?}", report.findings);
    assert_eq!((report.entries, report.tiles), (entries as u64, tiles && entries > 0));
    assert_eq!((report.streams, report.views), (count, views.then_some(count)));
    assert_eq!(report.events, history.entries.iter().map(|entry| entry.events.len() as u64).sum::<u64>());
    assert_eq!(report.checkpoint.unwrap().size, entries as u64);
}

#[test]
fn a_large_log_has_tiles_of_the_second_level() {
    let export = Export::of(&History::of(66_000));
    let directory = export.written();
    assert!(directory.path().join("tile/1/000").exists() && directory.path().join("tile/2/000.p/1").exists());
    assert!(verify(directory.path(), &log_policy(), None, &mut |_| {}).unwrap().is_clean());
}

#[test]
fn views_of_streams_from_which_nothing_is_decided_may_be_left_out() {
    let mut export = Export::of(&History::of(20));
    export.views.as_mut().unwrap().retain(|view| !view["stream"].as_str().unwrap().starts_with("administrator/"));
    assert_eq!(export.faults(), []);
}

#[test]
fn progress_tells_how_far_it_is() {
    let directory = Export::of(&History::of(2100)).written();
    let mut seen: Vec<Progress> = Vec::new();
    verify(directory.path(), &log_policy(), None, &mut |progress| seen.push(progress)).unwrap();
    let entries: Vec<_> = seen
        .iter()
        .filter(|progress| progress.step == Step::Entries)
        .map(|progress| (progress.done, progress.total))
        .collect();
    assert_eq!(entries, [(1024, Some(2100)), (2048, Some(2100)), (2100, Some(2100))]);
    let last = seen.last().unwrap();
    assert_eq!((last.step, Some(last.done)), (Step::Views, last.total));
}

#[test]
fn a_finding_reads_well_and_serialises() {
    let mut export = Export::of(&History::of(20));
    let index = 4;
    export.lines[index].1 = export.lines[index].1.replace("disk lost again", "disk found again");
    let report = export.audited();
    let finding = &report.findings[0];
    assert_eq!(finding.to_string(), "log index 4: this is not the entry that the log sealed here");
    let json = serde_json::to_value(finding).unwrap();
    let expected = serde_json::json!({
        "fault": "changed_entry",
        "log_index": 4,
        "what": "this is not the entry that the log sealed here",
    });
    assert_eq!((json, finding.fault), (expected, Fault::ChangedEntry));
}

#[test]
fn what_cannot_be_read_is_an_error_and_not_a_finding() {
    let missing = verify("does/not/exist".as_ref(), &log_policy(), None, &mut |_| {}).unwrap_err();
    assert!(missing.to_string().starts_with("cannot read does/not/exist"), "{missing}");
    let directory = Export::of(&History::of(3)).written();
    let other = signed(&join_log::Tree::default()).to_string().replace("log-a", "log-b");
    let untrusted = verify(directory.path(), &log_policy(), Some(&other), &mut |_| {}).unwrap_err();
    assert!(untrusted.to_string().contains("older checkpoint"), "{untrusted}");
}
