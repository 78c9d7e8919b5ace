//! The log under faults: after each of them it is either as before or ahead, never torn, and going on heals it.

use std::path::Path;

use join_log::{Layer, LogDirectory};
use proptest::prelude::*;

use crate::fsck::fsck;
use crate::memory_disk::MemoryDisk;
use crate::{numbers, signed};

const ROOT: &str = "log";

fn open(disk: &MemoryDisk) -> LogDirectory<MemoryDisk> {
    LogDirectory::open_on(disk.clone(), Path::new(ROOT)).unwrap()
}

/// Brings the log to `size` in portions and publishes it, as a node does it that just started.
fn grow(disk: &MemoryDisk, size: u64) -> Result<(), join_log::DirectoryError> {
    let mut log = LogDirectory::open_on(disk.clone(), Path::new(ROOT))?;
    while log.size() < size {
        let portion = log.size()..size.min(log.size() + 200);
        log.integrate(numbers(portion))?;
    }
    log.publish(&signed(&log.tree()))
}

/// Runs the growth from one size to another with a fault at every operation in turn, and checks what it leaves.
fn with_every_fault(from: u64, to: u64, check: impl Fn(&MemoryDisk)) {
    let before = MemoryDisk::with(ROOT);
    grow(&before, from).unwrap();
    for operation in 0.. {
        let disk = before.copy();
        disk.fail_at(Some(operation));
        let outcome = grow(&disk, to);
        if !disk.failed() {
            assert!(operation >= 4, "only {operation} operations were there to fail");
            return outcome.unwrap();
        }
        disk.fail_at(None);
        check(&disk);
    }
}

fn is_whole_and_goes_on(disk: &MemoryDisk, from: u64, to: u64) {
    let published = fsck(disk, Path::new(ROOT));
    assert!([from, to].contains(&(published.len() as u64)));
    assert_eq!(published, numbers(0..published.len() as u64));
    grow(disk, to + 1).unwrap();
    assert_eq!(fsck(disk, Path::new(ROOT)), numbers(0..to + 1));
}

#[test]
fn a_fault_at_any_operation_leaves_a_whole_log() {
    for (from, to) in [(0, 3), (3, 5), (200, 300), (255, 257), (256, 700), (300, 300)] {
        with_every_fault(from, to, |disk| is_whole_and_goes_on(disk, from, to));
    }
}

#[test]
fn a_fault_and_then_a_power_cut_leave_a_whole_log() {
    for (from, to) in [(0, 3), (200, 300), (255, 513)] {
        with_every_fault(from, to, |disk| {
            for survives in [false, true] {
                let disk = disk.copy();
                disk.cut_power(|| survives);
                is_whole_and_goes_on(&disk, from, to);
            }
        });
    }
}

/// What a log that was lost left behind is removed in any number of tries, each of them broken off anywhere.
#[test]
fn what_was_lost_is_removed_however_often_that_is_interrupted() {
    let before = MemoryDisk::with(ROOT);
    grow(&before, 100).unwrap();
    open(&before).integrate(numbers(100..2000).into_iter().map(|lost| [b"lost ", &*lost].concat())).unwrap();
    for operation in 0.. {
        let disk = before.copy();
        disk.fail_at(Some(operation));
        let failed = LogDirectory::open_on(disk.clone(), Path::new(ROOT)).is_err();
        disk.fail_at(None);
        let mut log = open(&disk);
        log.integrate(numbers(100..1500)).unwrap();
        for size in 1..=1500 {
            let tile = Layer::Entries.partial(size);
            let bundle = tile.map(|tile| log.reader().tile(tile).unwrap()).unwrap_or_default();
            assert!(!bundle.windows(5).any(|bytes| bytes == b"lost "), "after {operation}: of {size} entries");
        }
        log.publish(&signed(&log.tree())).unwrap();
        assert_eq!(fsck(&disk, Path::new(ROOT)), numbers(0..1500));
        if !failed {
            return assert!(operation >= 20, "only {operation} operations were there to fail");
        }
    }
}

#[test]
fn after_a_fault_the_same_writer_goes_on() {
    let before = MemoryDisk::with(ROOT);
    grow(&before, 200).unwrap();
    for operation in 0.. {
        let disk = before.copy();
        let mut log = open(&disk);
        disk.fail_at(Some(operation));
        let failed = log.integrate(numbers(200..600)).is_err();
        if failed {
            assert_eq!(log.size(), 200);
            log.integrate(numbers(200..600)).unwrap();
        }
        if log.publish(&signed(&log.tree())).is_err() {
            log.publish(&signed(&log.tree())).unwrap();
        }
        assert_eq!(fsck(&disk, Path::new(ROOT)), numbers(0..600));
        if !disk.failed() {
            return assert!(operation >= 10, "only {operation} operations were there to fail");
        }
    }
}

#[test]
fn the_disk_of_these_tests_does_lose_what_was_not_synced() {
    let disk = MemoryDisk::with(ROOT);
    let mut log = open(&disk);
    log.integrate(numbers(0..3)).unwrap();
    disk.cut_power(|| false);
    assert!(log.publish(&signed(&log.tree())).is_err(), "the tiles are gone");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_power_cut_that_loses_anything_it_may_leaves_a_whole_log(
        from in 0u64..600, growth in 0u64..600, operation in 0usize..80, luck in prop::collection::vec(any::<bool>(), 1..50),
    ) {
        let to = from + growth;
        let disk = MemoryDisk::with(ROOT);
        grow(&disk, from).unwrap();
        disk.fail_at(Some(operation));
        let _ = grow(&disk, to);
        disk.fail_at(None);
        let mut luck = luck.into_iter().cycle();
        disk.cut_power(|| luck.next().unwrap());
        is_whole_and_goes_on(&disk, from, to);
    }
}
