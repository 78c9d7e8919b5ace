//! Directories of every kind, and those that can't be used.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use join_embedded::{Binaries, Cluster, Error, Options};

use crate::world::{Holder, is_alive, open_directory, query, query_url, until};

/// An unprivileged user that every machine has.
const NOBODY: u32 = 65534;

#[test]
fn a_long_path_gets_its_socket_elsewhere() {
    let base = open_directory();
    let directory = base.path().join("long".repeat(40));
    let cluster = Cluster::start(&directory, &Options::fast()).unwrap();
    let socket_dir = cluster.address().socket_dir().to_owned();
    assert_eq!(query(cluster.address(), "select 1"), "1");
    assert!(!socket_dir.starts_with(&directory));
    assert_eq!(fs::metadata(&socket_dir).unwrap().permissions().mode() & 0o777, 0o700);
    cluster.stop().unwrap();
    assert!(!socket_dir.exists());
}

#[test]
fn a_strange_path_works() {
    for name in ["a b", "a,b", "a'b", "a\"b", "a%2Fb", "é$HOME", "-x"] {
        let base = open_directory();
        let cluster = Cluster::start(&base.path().join(name), &Options::fast()).unwrap();
        assert_eq!(query(cluster.address(), "select 1"), "1", "{name}");
    }
}

#[test]
fn a_second_process_is_refused_by_name() {
    let base = open_directory();
    let directory = base.path().join("pg");
    let holder = Holder::start(&["--dir", directory.to_str().unwrap()]);
    let error = Cluster::start(&directory, &Options::fast()).unwrap_err();
    assert!(matches!(&error, Error::InUse { directory: named } if named.ends_with("pg")), "{error:?}");
    assert!(error.to_string().contains(directory.to_str().unwrap()));
    // The refused one did no harm.
    assert_eq!(query_url(&holder.url(), "select 1"), "1");
    assert!(holder.finish().success());
}

#[test]
fn the_same_process_is_refused_too() {
    let cluster = Cluster::temporary(&Options::fast()).unwrap();
    let directory = cluster.log().parent().unwrap();
    assert!(matches!(Cluster::start(directory, &Options::fast()), Err(Error::InUse { .. })));
}

#[test]
fn somebody_elses_directory_is_left_alone() {
    let base = open_directory();
    fs::write(base.path().join("thesis.txt"), "mine").unwrap();
    let before = fs::metadata(base.path()).unwrap();
    let error = Cluster::start(base.path(), &Options::fast()).unwrap_err();
    assert!(matches!(error, Error::Occupied { .. }), "{error:?}");
    let after = fs::metadata(base.path()).unwrap();
    assert_eq!((before.uid(), before.mode()), (after.uid(), after.mode()));
    assert_eq!(fs::read_dir(base.path()).unwrap().count(), 1);
}

#[test]
fn old_binaries_are_not_binaries_to_start_with() {
    let base = open_directory();
    let fake = |name: &str, text: &str| {
        let program = format!("#!/bin/sh\necho '{text}'\n");
        shell("printf %s \"$1\" >\"$0\" && chmod 755 \"$0\"", &[base.path().join(name).as_os_str(), program.as_ref()]);
    };
    assert!(Binaries::at(base.path()).unwrap_err().to_string().contains("is not a PostgreSQL installation"));
    fake("postgres", "postgres (PostgreSQL) 12.9");
    assert!(Binaries::at(base.path()).unwrap_err().to_string().contains("no `initdb` beside"));
    fake("initdb", "initdb (PostgreSQL) 12.9");
    assert_eq!(Binaries::at(base.path()).unwrap().major(), 12);
    let options = Options { binaries: Some(Binaries::at(base.path()).unwrap()), ..Options::fast() };
    let directory = base.path().join("pg");
    let error = Cluster::start(&directory, &options).unwrap_err();
    assert!(matches!(&error, Error::TooOld { found, .. } if found == "12.9"), "{error:?}");
    assert!(!directory.exists());
}

/// Makes a program by another process. If this one wrote the file, then a program that another test starts meanwhile
/// would have it open for writing for a moment, and such a file can't be run.
fn shell(script: &str, arguments: &[&OsStr]) {
    assert!(Command::new("sh").arg("-c").arg(script).args(arguments).status().unwrap().success());
}

fn we_are_root() -> bool {
    tempfile::tempfile().unwrap().metadata().unwrap().uid() == 0
}

#[test]
fn root_hands_over_to_somebody_else() {
    if !we_are_root() {
        return;
    }
    let base = open_directory();
    let directory = base.path().join("pg");
    let cluster = Cluster::start(&directory, &Options::fast()).unwrap();
    let owner = fs::metadata(directory.join("data")).unwrap().uid();
    assert_ne!(owner, 0);
    assert_eq!(fs::metadata(&directory).unwrap().uid(), owner);
    // Root gets through the closed socket directory.
    assert_eq!(query(cluster.address(), "select 1"), "1");
}

#[test]
fn root_runs_a_cluster_as_the_user_it_belongs_to() {
    if !we_are_root() {
        return;
    }
    let base = open_directory();
    let directory = base.path().join("pg");
    Cluster::start(&directory, &Options::fast()).unwrap().stop().unwrap();
    give(&directory, NOBODY);
    let cluster = Cluster::start(&directory, &Options::fast()).unwrap();
    assert_eq!(query(cluster.address(), "select 1"), "1");
    assert_eq!(fs::metadata(directory.join("data/postmaster.pid")).unwrap().uid(), NOBODY);
    cluster.stop().unwrap();

    give(&directory, 0);
    let error = Cluster::start(&directory, &Options::fast()).unwrap_err();
    assert!(matches!(error, Error::OwnedByRoot { .. }), "{error:?}");
}

/// Changes the owner of everything in `path`.
fn give(path: &Path, user: u32) {
    lchown(path, Some(user), Some(user)).unwrap();
    if path.is_dir() && !path.is_symlink() {
        fs::read_dir(path).unwrap().for_each(|entry| give(&entry.unwrap().path(), user));
    }
}

#[test]
fn root_is_told_which_directory_is_closed() {
    if !we_are_root() {
        return;
    }
    let base = open_directory();
    let closed = base.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
    let error = Cluster::start(&closed.join("a/pg"), &Options::fast()).unwrap_err();
    assert!(matches!(&error, Error::Unreachable { blocking, .. } if *blocking == closed), "{error:?}");
    assert!(error.to_string().contains(&format!("chmod o+x {}", closed.display())));
    assert_eq!(fs::read_dir(&closed).unwrap().count(), 0);
}

#[test]
fn a_normal_user_needs_nobody_else() {
    // Root proves it by becoming one; everybody else has proven it in every other test.
    if !we_are_root() {
        return;
    }
    let base = open_directory();
    chown(base.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    let tool = base.path().join("private-postgres");
    shell("cp \"$1\" \"$0\"", &[tool.as_os_str(), env!("CARGO_BIN_EXE_private-postgres").as_ref()]);
    let directory = base.path().join("pg");
    let mut command = Command::new(tool);
    command.uid(NOBODY).gid(NOBODY);
    let holder = Holder::start_as(command, &["--dir", directory.to_str().unwrap()]);
    assert_eq!(fs::metadata(directory.join("data")).unwrap().uid(), NOBODY);
    assert!(holder.finish().success());
    until("no process is left", || !is_alive(&directory));
}
