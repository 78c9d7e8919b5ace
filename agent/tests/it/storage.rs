//! The storage directory.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink},
    path::Path,
    sync::Arc,
};

use join_agent::{
    storage::{Directory, Storage as _, StorageError},
    vault::Vault,
};

use crate::host::{Host, given_away};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test]
async fn directory_and_files_are_for_the_owner_only() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("a/b");
    let host = Host::with_disk(Arc::new(Directory::open(&path).unwrap())).await;
    host.agent().join_once().await.unwrap();
    assert_eq!(mode(&path), 0o700);
    let mut names: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["lock", "state.json", "tlscert"], "nothing else is left behind");
    for name in names {
        assert_eq!(mode(&path.join(name)), 0o600);
    }
}

#[test]
fn a_second_process_is_told_so() {
    let root = tempfile::tempdir().unwrap();
    let first = Directory::open(root.path()).unwrap();
    assert!(matches!(Directory::open(root.path()), Err(StorageError::InUse(_))));
    drop(first);
    Directory::open(root.path()).unwrap();
}

#[test]
fn a_directory_that_others_can_write_is_refused() {
    let root = tempfile::tempdir().unwrap();
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let error = Directory::open(root.path()).unwrap_err();
    assert!(error.to_string().contains("chmod go-w"), "{error}");
}

#[test]
fn a_directory_of_another_user_is_refused_and_nothing_is_left_in_it() {
    let root = tempfile::tempdir().unwrap();
    let user = fs::metadata(root.path()).unwrap().uid();
    let Some(owner) = given_away(root.path()) else { return };
    let path = root.path().display();
    let error = Directory::open(root.path()).unwrap_err().to_string();
    assert!(error.starts_with(&format!("{path} belongs to another user (uid {owner}), and this runs as uid {user}")));
    assert!(error.contains(&format!("`sudo -u '#{owner}' joinbot …`")), "{error}");
    assert!(error.contains(&format!("`chown -R {user} {path}`")), "{error}");
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);

    chown(root.path(), Some(user), None).unwrap();
    Directory::open(root.path()).unwrap();
    // Where this user's own files are in it already, it has always been so.
    chown(root.path(), Some(owner), None).unwrap();
    Directory::open(root.path()).unwrap();
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let root = tempfile::tempdir().unwrap();
    let state = root.path().join("state.json");
    // A directory is what root can't read either.
    fs::create_dir(&state).unwrap();
    let error = Vault::open(Arc::new(Directory::look(root.path()))).err().unwrap();
    assert!(error.to_string().starts_with(&format!("cannot read {}: ", state.display())), "{error}");
    let lock = root.path().join("lock");
    fs::create_dir(&lock).unwrap();
    let error = Directory::open(root.path()).unwrap_err();
    assert!(error.to_string().starts_with(&format!("cannot open {}: ", lock.display())), "{error}");
}

#[test]
fn a_path_that_is_no_directory_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    fs::write(&file, "x").unwrap();
    assert!(matches!(Directory::open(&file), Err(StorageError::Io { action: "create", .. })));
    assert_eq!(fs::read(&file).unwrap(), b"x");
}

#[test]
fn what_a_crash_left_behind_is_replaced_and_never_followed() {
    let root = tempfile::tempdir().unwrap();
    let disk = Directory::open(root.path()).unwrap();
    disk.replace("state.json", b"old").unwrap();
    // Half a file of a write that was interrupted, or a link that somebody put there.
    fs::write(root.path().join(".state.json.new"), b"ha").unwrap();
    assert_eq!(disk.read("state.json").unwrap().unwrap(), b"old");
    disk.replace("state.json", b"new").unwrap();
    let elsewhere = root.path().join("elsewhere");
    symlink(&elsewhere, root.path().join(".state.json.new")).unwrap();
    disk.replace("state.json", b"newer").unwrap();
    assert_eq!(disk.read("state.json").unwrap().unwrap(), b"newer");
    assert!(!elsewhere.exists());
}

#[test]
fn looking_takes_no_lock_and_writes_nothing() {
    let root = tempfile::tempdir().unwrap();
    let _daemon = Directory::open(root.path()).unwrap();
    let look = Directory::look(root.path());
    assert_eq!(look.read("state.json").unwrap(), None);
    assert!(look.replace("state.json", b"x").is_err());
}
