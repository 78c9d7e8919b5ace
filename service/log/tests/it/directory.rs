//! The log's directory on a real disk.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use join_log::files::Disk;
use join_log::{DirectoryError, Layer, LogDirectory, LogReader, MAX_ENTRY, Tile, Tree, root_at};

use crate::fsck::fsck;
use crate::{checkpoint, log_signer, numbers, signed};

fn grown(root: &Path, size: u64) -> LogDirectory {
    let mut log = LogDirectory::open(root).unwrap();
    log.integrate(numbers(log.size()..size)).unwrap();
    log.publish(&signed(&log.tree())).unwrap();
    log
}

fn refusal(outcome: Result<(), DirectoryError>) -> String {
    outcome.unwrap_err().to_string()
}

#[test]
fn a_log_is_reopened_where_it_was_published() {
    let root = tempfile::tempdir().unwrap();
    let mut log = LogDirectory::open(root.path()).unwrap();
    assert_eq!((log.size(), log.published()), (0, None));
    for size in [0, 1, 2, 255, 256, 257, 300, 511, 512, 1000] {
        log.integrate(numbers(log.size()..size)).unwrap();
        log.publish(&signed(&log.tree())).unwrap();
        log.integrate(numbers(size..size + 7)).unwrap();
        drop(log);
        log = LogDirectory::open(root.path()).unwrap();
        assert_eq!(log.size(), size, "what was not published is integrated again");
        assert_eq!(log.published(), Some(&checkpoint(&log.tree())));
        assert_eq!(fsck(&Disk, root.path()), numbers(0..size));
    }
}

#[test]
fn only_its_user_and_group_get_to_the_entries() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("log");
    drop(grown(&root, 3));
    assert_eq!(fs::metadata(root).unwrap().permissions().mode() & 0o027, 0);
}

/// A database that failed over has lost what nobody had seen, and goes on with other entries.
#[test]
fn what_was_not_published_is_never_read_again() {
    for published in [0, 3, 100, 256, 300, 511] {
        lose_what_came_after(published);
    }
}

fn lose_what_came_after(published: u64) {
    let root = tempfile::tempdir().unwrap();
    let mut log = grown(root.path(), published);
    for size in [published + 50, published + 130, published + 1000] {
        log.integrate(numbers(log.size()..size).into_iter().map(|lost| [b"lost ", &*lost].concat())).unwrap();
    }
    log.rewind().unwrap();
    log.integrate(numbers(published..published + 600)).unwrap();
    let mut naive = Tree::default();
    for (size, entry) in (1..).zip(numbers(0..published + 600)) {
        naive.append(&entry);
        assert_eq!(root_at(log.reader(), size).unwrap(), naive.root(), "of {size} entries");
        let bundle = Layer::Entries.partial(size).map(|tile| log.reader().tile(tile).unwrap());
        assert!(bundle.is_none_or(|bundle| !bundle.windows(5).any(|bytes| bytes == b"lost ")), "of {size} entries");
    }
    log.publish(&signed(&log.tree())).unwrap();
    assert_eq!(fsck(&Disk, root.path()), numbers(0..published + 600));
}

#[test]
fn only_the_published_log_is_given_out() {
    let root = tempfile::tempdir().unwrap();
    let reader = LogReader::open(root.path());
    let of = |index, width| Tile { layer: Layer::Hashes(0), index, width };
    assert_eq!(reader.published(of(0, 1)).unwrap(), None, "nothing is");
    let mut log = grown(root.path(), 300);
    log.integrate(numbers(300..400)).unwrap();
    for (index, width) in [(0, 1), (0, 255), (0, 256), (1, 1), (1, 43), (1, 44)] {
        let bytes = reader.published(of(index, width)).unwrap().unwrap();
        assert_eq!(bytes, log.reader().tile(of(index, width)).unwrap(), "{index} {width}");
        assert_eq!(bytes.len(), usize::from(width) * 32);
    }
    for (index, width) in [(1, 45), (1, 144), (1, 256), (2, 1), (u64::MAX, 1)] {
        assert_eq!(reader.published(of(index, width)).unwrap(), None, "{index} {width}");
    }
    let bundle = Tile { layer: Layer::Entries, index: 1, width: 2 };
    assert_eq!(reader.published(bundle).unwrap().unwrap(), b"\0\x03256\0\x03257");
}

#[test]
fn partial_tiles_go_when_the_full_one_is_published() {
    let root = tempfile::tempdir().unwrap();
    let mut log = grown(root.path(), 100);
    log.integrate(numbers(100..200)).unwrap();
    log.integrate(numbers(200..255)).unwrap();
    log.publish(&signed(&log.tree())).unwrap();
    let partials = |layer: &str| root.path().join(format!("tile/{layer}/000.p"));
    assert_eq!(fs::read_dir(partials("0")).unwrap().count(), 3, "100, 200 and 255");
    log.integrate(numbers(255..256)).unwrap();
    assert!(partials("0").exists() && partials("entries").exists(), "a reader may still ask for them");
    log.publish(&signed(&log.tree())).unwrap();
    assert!(!partials("0").exists() && !partials("entries").exists());
    assert!(partials("1").exists());

    let cut = Tile { layer: Layer::Entries, index: 0, width: 3 };
    assert_eq!(log.reader().tile(cut).unwrap(), b"\0\x010\0\x011\0\x012", "cut from the full one");
}

#[test]
fn a_smaller_checkpoint_than_what_is_integrated_can_be_published() {
    for (signed_size, size) in [(5, 9), (5, 300), (255, 256), (256, 300), (300, 1000), (513, 600), (512, 513)] {
        let other = tempfile::tempdir().unwrap();
        let note = signed(&grown(other.path(), signed_size).tree());
        let root = tempfile::tempdir().unwrap();
        let mut log = LogDirectory::open(root.path()).unwrap();
        log.integrate(numbers(0..size)).unwrap();
        log.publish(&note).unwrap();
        assert_eq!(fsck(&Disk, root.path()), numbers(0..signed_size));
        log.publish(&signed(&log.tree())).unwrap();
        assert_eq!(fsck(&Disk, root.path()), numbers(0..size));
    }
}

#[test]
fn only_what_continues_the_log_is_published() {
    let root = tempfile::tempdir().unwrap();
    let mut log = grown(root.path(), 10);
    let ten = signed(&log.tree());
    let on_disk = fs::read(root.path().join("checkpoint")).unwrap();

    let other = tempfile::tempdir().unwrap();
    let eleven = signed(&grown(other.path(), 11).tree());
    assert!(refusal(log.publish(&eleven)).contains("not all integrated"));
    log.integrate([b"something else"]).unwrap();
    assert!(refusal(log.publish(&eleven)).contains("its root is not that"));
    let mut renamed = checkpoint(&log.tree());
    renamed.origin = "join.example/log-b".into();
    let renamed = join_log::SignedNote::sign(&renamed, &[log_signer()]);
    assert!(refusal(log.publish(&renamed)).contains("another origin"));
    assert_eq!(fs::read(root.path().join("checkpoint")).unwrap(), on_disk);

    log.publish(&signed(&log.tree())).unwrap();
    assert!(refusal(log.publish(&ten)).contains("a larger one was published before"));
}

#[test]
fn what_was_left_unpublished_goes_when_the_log_is_rewound() {
    let root = tempfile::tempdir().unwrap();
    grown(root.path(), 300).integrate(numbers(300..1000)).unwrap();
    let left = root.path().join(Tile { layer: Layer::Entries, index: 2, width: 256 }.to_string());

    let mut log = LogDirectory::open_as_left(root.path()).unwrap();
    assert_eq!((log.size(), left.exists()), (300, true));
    log.rewind().unwrap();
    assert_eq!((log.size(), left.exists()), (300, false));
    log.integrate(numbers(300..600)).unwrap();
    log.publish(&signed(&log.tree())).unwrap();
    assert_eq!(fsck(&Disk, root.path()), numbers(0..600));
}

#[test]
fn a_long_entry_is_refused_and_nothing_is_half_done() {
    let root = tempfile::tempdir().unwrap();
    let mut log = grown(root.path(), 2);
    let before = log.tree();
    let refused = log.integrate([vec![0; 5], vec![0; MAX_ENTRY + 1]]).unwrap_err();
    assert_eq!(refused.to_string(), "entry 3 has 65536 bytes, the limit is 65535");
    assert_eq!(log.tree(), before);
    log.integrate([vec![0; MAX_ENTRY]]).unwrap();
    log.publish(&signed(&log.tree())).unwrap();
    assert_eq!(fsck(&Disk, root.path())[2].len(), MAX_ENTRY);
}

#[test]
fn a_second_writer_is_kept_out_and_readers_are_not() {
    let root = tempfile::tempdir().unwrap();
    let log = grown(root.path(), 2);
    assert!(matches!(LogDirectory::open(root.path()), Err(DirectoryError::InUse(_))));
    let reader = LogReader::open(root.path());
    assert_eq!(reader.checkpoint().unwrap(), Some(signed(&log.tree())));
    drop(log);
    LogDirectory::open(root.path()).unwrap();
}

#[test]
fn damage_is_noticed_on_opening() {
    let damages = ["tile/0/001.p/44", "tile/1/000.p/1", "tile/entries/001.p/44"];
    for damaged in damages {
        for remove in [true, false] {
            let root = tempfile::tempdir().unwrap();
            drop(grown(root.path(), 300));
            let path = root.path().join(damaged);
            if remove {
                fs::remove_file(&path).unwrap();
            } else {
                let mut bytes = fs::read(&path).unwrap();
                *bytes.last_mut().unwrap() ^= 1;
                fs::write(&path, bytes).unwrap();
            }
            let error = LogDirectory::open(root.path()).unwrap_err();
            assert!(matches!(error, DirectoryError::Damaged(_)), "{damaged}: {error}");
        }
    }
}

#[test]
fn a_checkpoint_that_cannot_be_read_stops_everything() {
    let root = tempfile::tempdir().unwrap();
    drop(grown(root.path(), 3));
    fs::write(root.path().join("checkpoint"), "join.example/log-a\n3\n").unwrap();
    let error = LogDirectory::open(root.path()).unwrap_err();
    assert!(error.to_string().contains("checkpoint: this is not a signed note"), "{error}");
}
