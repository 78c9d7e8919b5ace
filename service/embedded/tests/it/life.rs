//! A cluster is made, used, stopped and used again.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use join_embedded::{Cluster, Error, Options};

use crate::world::{is_alive, open_directory, query, query_url, until};

#[test]
fn data_survives_a_stop() {
    let base = open_directory();
    let directory = base.path().join("not/yet/there");
    let cluster = Cluster::start(&directory, &Options::durable()).unwrap();
    query(cluster.address(), "create table kept as select 42 as answer");
    cluster.stop().unwrap();
    assert!(!is_alive(&directory));

    let cluster = Cluster::start(&directory, &Options::durable()).unwrap();
    assert_eq!(query(cluster.address(), "select answer from kept"), "42");
}

#[test]
fn it_is_what_it_promises_to_be() {
    let base = open_directory();
    let options = Options::durable().set("work_mem", "7MB");
    let cluster = Cluster::start(&base.path().join("pg"), &options).unwrap();
    let show = |name: &str| query(cluster.address(), &format!("show {name}"));
    assert_eq!(show("server_encoding"), "UTF8");
    assert_eq!(show("listen_addresses"), "");
    assert_eq!(show("fsync"), "on");
    assert_eq!(show("synchronous_commit"), "on");
    assert_eq!(show("work_mem"), "7MB");
    assert_eq!(show("max_connections"), "100");
    assert_eq!(show("timezone"), "UTC");
    assert_eq!(
        query(cluster.address(), "select current_user || ' ' || rolsuper from pg_roles where rolname = current_user"),
        "postgres true"
    );
    assert!(show("server_version").starts_with(cluster.version()));
    let mode = fs::metadata(cluster.address().socket_dir()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn a_temporary_cluster_leaves_nothing() {
    let cluster = Cluster::temporary(&Options::fast()).unwrap();
    assert_eq!(query(cluster.address(), "show fsync"), "off");
    let directory = cluster.log().parent().unwrap().to_owned();
    assert!(is_alive(&directory));
    drop(cluster);
    assert!(!directory.exists());
    assert!(!is_alive(&directory));
}

#[test]
fn stopping_ends_open_sessions() {
    let cluster = Cluster::temporary(&Options::fast()).unwrap();
    let url = cluster.address().url("postgres", "postgres");
    let session =
        std::thread::spawn(move || std::panic::catch_unwind(|| query_url(&url, "select pg_sleep(600)")).is_err());
    until("the session is there", || {
        query(cluster.address(), "select count(*) from pg_stat_activity where query like '%sleep(600)'") != "0"
    });
    cluster.stop().unwrap();
    assert!(session.join().unwrap(), "the session was cut off");
}

#[test]
fn a_failed_start_shows_the_log_and_leaves_nothing_running() {
    let base = open_directory();
    let directory = base.path().join("pg");
    let error = Cluster::start(&directory, &Options::fast().set("shared_buffers", "lots")).unwrap_err();
    assert!(matches!(error, Error::Failed { program: "postgres", .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("shared_buffers") && text.contains("postgres.log"), "{text}");
    assert!(!is_alive(&directory));

    Cluster::start(&directory, &Options::fast()).unwrap();
}

#[test]
fn an_interrupted_initdb_is_begun_again() {
    let base = open_directory();
    let directory = base.path().join("pg");
    Cluster::start(&directory, &Options::fast()).unwrap().stop().unwrap();
    // What is left when the machine goes down in the middle: files, but no finished data directory.
    fs::rename(directory.join("data"), directory.join("data.new")).unwrap();
    fs::remove_file(directory.join("data.new/PG_VERSION")).unwrap();

    let cluster = Cluster::start(&directory, &Options::fast()).unwrap();
    assert_eq!(query(cluster.address(), "select 1"), "1");
    assert!(!directory.join("data.new").exists());
}

#[test]
fn another_major_version_is_refused_with_both_named() {
    let base = open_directory();
    let directory = base.path().join("pg");
    let cluster = Cluster::start(&directory, &Options::fast()).unwrap();
    let ours = cluster.version().split('.').next().unwrap().to_owned();
    cluster.stop().unwrap();
    fs::write(directory.join("data/PG_VERSION"), "11\n").unwrap();

    let error = Cluster::start(&directory, &Options::fast()).unwrap_err();
    assert!(matches!(error, Error::VersionMismatch { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("made by PostgreSQL 11") && text.contains(&format!("is version {ours}")), "{text}");
}

#[test]
fn all_tests_of_a_process_share_a_server() {
    let first = join_embedded::for_tests();
    assert_eq!(query(first, "select 1"), "1");
    assert_eq!(first, join_embedded::for_tests());
}
