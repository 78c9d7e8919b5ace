//! However the process ends, nothing is left running, and the next start works.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

use join_embedded::{Address, Cluster, Options};

use crate::world::{Holder, is_alive, open_directory, query, query_url, signal, until};

#[test]
fn sigkill_takes_a_temporary_cluster_along() {
    let holder = Holder::start(&[]);
    let directory = holder.socket_dir.parent().unwrap().to_owned();
    assert!(is_alive(&directory));
    assert_eq!(query_url(&holder.url(), "select 1"), "1");
    holder.kill();
    until("the directory is removed", || !directory.exists());
    until("no process is left", || !is_alive(&directory));
}

#[test]
fn after_sigkill_the_next_start_finds_the_data() {
    let base = open_directory();
    let directory = base.path().join("pg");
    for round in 1..=3 {
        let holder = Holder::start(&["--durable", "--dir", directory.to_str().unwrap()]);
        query_url(&holder.url(), "create table if not exists round (number int); insert into round values (1)");
        assert_eq!(query_url(&holder.url(), "select count(*) from round"), round.to_string());
        holder.kill();
        // No pause: the next start has to cope with a PostgreSQL that is still shutting down.
    }
    let cluster = Cluster::start(&directory, &Options::durable()).unwrap();
    assert_eq!(query(cluster.address(), "select count(*) from round"), "3");
    let before = fs::read_to_string(directory.join("postgres.log.old")).unwrap();
    assert!(before.contains("fast shutdown request") && before.contains("database system is shut down"), "{before}");
}

#[test]
fn sigkill_of_everything_leaves_a_pid_file_that_does_not_matter() {
    let base = open_directory();
    let directory = base.path().join("pg");
    let cluster = Cluster::start(&directory, &Options::durable()).unwrap();
    query(cluster.address(), "create table kept as select 42 as answer");
    let pid_file = fs::read_to_string(directory.join("data/postmaster.pid")).unwrap();
    cluster.stop().unwrap();
    // As after a power cut and a restart that gave PostgreSQL's old number to another process: this one.
    let other = std::process::id().to_string();
    let lines: Vec<&str> = std::iter::once(other.as_str()).chain(pid_file.lines().skip(1)).collect();
    fs::write(directory.join("data/postmaster.pid"), lines.join("\n")).unwrap();

    let cluster = Cluster::start(&directory, &Options::durable()).unwrap();
    assert_eq!(query(cluster.address(), "select answer from kept"), "42");
}

#[test]
fn sigkill_of_postgres_itself_is_recovered_from() {
    let base = open_directory();
    let directory = base.path().join("pg");
    let cluster = Cluster::start(&directory, &Options::durable()).unwrap();
    query(cluster.address(), "create table kept as select 42 as answer");
    let pid = fs::read_to_string(directory.join("data/postmaster.pid")).unwrap().lines().next().unwrap().to_owned();
    signal("KILL", &pid);
    drop(cluster);
    assert!(directory.join("data/postmaster.pid").exists());

    let cluster = Cluster::start(&directory, &Options::durable()).unwrap();
    assert_eq!(query(cluster.address(), "select answer from kept"), "42");
}

#[test]
fn ctrl_c_does_not_reach_postgres_but_ends_it_properly() {
    let base = open_directory();
    let directory = base.path().join("pg");
    let mut command = Command::new(env!("CARGO_BIN_EXE_private-postgres"));
    command.process_group(0);
    let mut holder = Holder::start_as(command, &["--dir", directory.to_str().unwrap()]);
    signal("INT", &format!("-{}", holder.process.id()));
    assert!(!holder.process.wait().unwrap().success());
    until("no process is left", || !is_alive(&directory));
    let log = fs::read_to_string(directory.join("postgres.log")).unwrap();
    assert_eq!(log.matches("shutdown request").count(), 1, "{log}");
    assert!(log.contains("fast shutdown request") && log.contains("database system is shut down"), "{log}");
}

#[test]
fn a_long_path_leaves_no_socket_directory_after_sigkill() {
    let base = open_directory();
    let directory = base.path().join("long".repeat(40));
    let holder = Holder::start(&["--dir", directory.to_str().unwrap()]);
    let socket_dir = holder.socket_dir.clone();
    assert!(socket_dir.exists());
    holder.kill();
    until("the socket directory is removed", || !socket_dir.exists());
    assert!(directory.join("data").exists());
}

/// The part of the next test that is another process.
#[test]
fn helper_uses_the_shared_server() {
    if let Ok(file) = std::env::var("JOIN_EMBEDDED_HELPER") {
        let address: &Address = join_embedded::for_tests();
        fs::write(file, address.socket_dir().to_str().unwrap()).unwrap();
    }
}

#[test]
fn the_shared_server_ends_with_a_process_that_never_drops_it() {
    let base = open_directory();
    let file = base.path().join("socket-dir");
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "endings::helper_uses_the_shared_server", "--quiet"])
        .env("JOIN_EMBEDDED_HELPER", &file)
        .env_remove(join_embedded::TEST_SERVER_VARIABLE)
        .status()
        .unwrap();
    assert!(status.success());
    let socket_dir = fs::read_to_string(&file).unwrap();
    let directory = std::path::Path::new(&socket_dir).parent().unwrap();
    until("the directory is removed", || !directory.exists());
    until("no process is left", || !is_alive(directory));
}
