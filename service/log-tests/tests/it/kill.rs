//! A process that is killed in the middle of an integration.

use std::{path::Path, process::Command, time::Duration};

use join_log::{Checkpoint, LogDirectory, NoteSigner, SignedNote};

use crate::nodes::files;

const DIRECTORY: &str = "JOIN_LOG_TESTS_DIRECTORY";
const ENTRIES: u32 = 40_000;

fn integrate(directory: &Path) {
    let mut log = LogDirectory::open(directory).unwrap();
    let signer = || NoteSigner::from_seed("kill.example/log", &[3; 32]).unwrap();
    while log.size() < u64::from(ENTRIES) {
        let from = u32::try_from(log.size()).unwrap();
        let step = (from..ENTRIES.min(from + 777)).map(|number| format!("entry {number}"));
        log.integrate(step).unwrap();
        let checkpoint =
            Checkpoint { origin: "kill.example/log".to_owned(), size: log.size(), root: log.tree().root() };
        log.publish(&SignedNote::sign(&checkpoint, &[signer()])).unwrap();
    }
}

/// Not a test: what the one below kills.
#[test]
#[ignore = "run by a_killed_integration_goes_on_as_if_nothing_had_been"]
fn victim() {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        integrate(directory.as_ref());
    }
}

#[test]
fn a_killed_integration_goes_on_as_if_nothing_had_been() {
    let folder = tempfile::tempdir().unwrap();
    let (killed, whole) = (folder.path().join("killed"), folder.path().join("whole"));
    integrate(&whole);
    let mut kills = 0;
    for pause in (1..).map(|round| Duration::from_millis(20 + round * 37 % 160)) {
        let mut victim = Command::new(std::env::current_exe().unwrap());
        victim.args(["--exact", "kill::victim", "--ignored"]).env(DIRECTORY, &killed);
        let mut victim = victim.stdout(std::process::Stdio::null()).spawn().unwrap();
        std::thread::sleep(pause);
        if let Some(ended) = victim.try_wait().unwrap() {
            assert!(ended.success());
            break;
        }
        victim.kill().unwrap();
        victim.wait().unwrap();
        kills += 1;
        assert!(kills < 1000, "it never comes to an end");
    }
    assert!(kills > 2, "it was killed {kills} times only");
    // Left-overs cost space, nothing else: unfinished files, and partial tiles of sizes that were published.
    let compared = |directory: &Path| {
        let mut files = files(directory);
        files.retain(|name, _| !name.ends_with(".tmp") && !name.contains(".p/"));
        files
    };
    assert!(compared(&killed) == compared(&whole), "the files differ");
    let log = LogDirectory::open(&killed).unwrap();
    assert_eq!(log.size(), u64::from(ENTRIES));
    // From its entries alone, once more.
    assert_eq!(log.tree().root(), LogDirectory::open(&whole).unwrap().tree().root());
}
