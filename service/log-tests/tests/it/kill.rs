//! A process that is killed in the middle of an integration.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use join_log::{Checkpoint, LogDirectory, NoteSigner, SignedNote};
use join_log_tests::files;

const DIRECTORY: &str = "JOIN_LOG_TESTS_DIRECTORY";
const PUBLISHED: &str = "published";
const ENTRIES: u32 = 40_000;
const STEP: u32 = 777;

/// Takes up to `steps` steps towards all entries, and says so after each.
fn integrate(directory: &Path, steps: usize) {
    let mut log = LogDirectory::open(directory).unwrap();
    let signer = || NoteSigner::from_seed("kill.example/log", &[3; 32]).unwrap();
    for _ in 0..steps {
        // With all entries there it still publishes and says so: the one before may have been killed
        // between its last entries and its last word.
        let from = u32::try_from(log.size()).unwrap();
        let step = (from..ENTRIES.min(from + STEP)).map(|number| format!("entry {number}"));
        log.integrate(step).unwrap();
        let checkpoint =
            Checkpoint { origin: "kill.example/log".to_owned(), size: log.size(), root: log.tree().root() };
        log.publish(&SignedNote::sign(&checkpoint, &[signer()])).unwrap();
        println!("{PUBLISHED} {}", log.size());
        if log.size() == u64::from(ENTRIES) {
            break;
        }
    }
}

/// Not a test: what the one below kills.
#[test]
#[ignore = "run by a_killed_integration_goes_on_as_if_nothing_had_been"]
fn victim() {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        integrate(directory.as_ref(), 5);
    }
}

#[test]
fn a_killed_integration_goes_on_as_if_nothing_had_been() {
    let folder = tempfile::tempdir().unwrap();
    let (killed, whole) = (folder.path().join("killed"), folder.path().join("whole"));
    integrate(&whole, usize::MAX);
    let all_is_published = format!("{PUBLISHED} {ENTRIES}");
    let mut kills = 0;
    // No run gets further than five steps, so that however fast the machine is there are many to kill.
    for round in 0.. {
        assert!(round < 1000, "it never comes to an end");
        let mut victim = Command::new(std::env::current_exe().unwrap());
        victim.args(["--exact", "kill::victim", "--ignored", "--nocapture"]).env(DIRECTORY, &killed);
        let mut victim = victim.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines().map(Result::unwrap);
        let published = lines.by_ref().find(|line| line.starts_with(PUBLISHED));
        thread::sleep(Duration::from_micros(round * 3_700 % 13_000));
        victim.kill().unwrap();
        let ended = victim.wait().unwrap();
        kills += u32::from(!ended.success());
        if published.into_iter().chain(lines).any(|line| line == all_is_published) {
            break;
        }
    }
    assert!(kills > 2, "it was killed {kills} times only");
    // Left-overs cost space, nothing else: unfinished files, and partial tiles of sizes that were published.
    let compared = |directory: &Path| {
        let mut files = files(directory).unwrap();
        files.retain(|name, _| !name.ends_with(".tmp") && !name.contains(".p/"));
        files
    };
    assert!(compared(&killed) == compared(&whole), "the files differ");
    let log = LogDirectory::open(&killed).unwrap();
    assert_eq!(log.size(), u64::from(ENTRIES));
    // From its entries alone, once more.
    assert_eq!(log.tree().root(), LogDirectory::open(&whole).unwrap().tree().root());
}
