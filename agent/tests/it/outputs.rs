//! What other programs find.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use chrono::TimeDelta;
use join_agent::{error::JoinError, output::Identity, run};

use crate::host::Host;

async fn joined(directory: &Path) -> Host {
    let mut host = Host::new().await;
    host.config.outputs = vec![Identity::new(directory).unwrap()];
    run::once(&mut host.agent()).await.unwrap();
    host
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn an_identity_is_whole_and_its_key_private() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("identity");
    joined(&directory).await;
    for (name, mode) in [
        ("key", 0o600),
        ("key.pub", 0o644),
        ("tlscert", 0o644),
        ("key-cert.pub", 0o644),
        ("tlscas", 0o644),
        ("known_hosts", 0o644),
        ("ssh_config", 0o644),
    ] {
        assert_eq!(fs::metadata(directory.join(name)).unwrap().permissions().mode() & 0o7777, mode, "{name}");
    }
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 7, "nothing else is left behind");
    let known_hosts = fs::read_to_string(directory.join("known_hosts")).unwrap();
    assert!(known_hosts.starts_with("@cert-authority * ssh-ed25519 "), "{known_hosts}");
}

#[tokio::test]
async fn openssh_and_openssl_can_use_it() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("with space and 100%");
    joined(&directory).await;
    let file = |name: &str| directory.join(name).to_str().unwrap().to_owned();

    let certificate = run("ssh-keygen", &["-L", "-f", &file("key-cert.pub")]);
    assert!(certificate.contains("user certificate") && certificate.contains("deploy"), "{certificate}");
    assert_eq!(
        run("ssh-keygen", &["-y", "-f", &file("key")]).trim(),
        fs::read_to_string(file("key.pub")).unwrap().trim()
    );
    let effective = run("ssh", &["-G", "-F", &file("ssh_config"), "host.example"]);
    assert!(
        effective.contains("identitiesonly yes") && effective.contains("stricthostkeychecking true"),
        "{effective}"
    );
    assert!(effective.contains(&format!("certificatefile {}", file("key-cert.pub").replace('%', "%%"))), "{effective}");

    run("openssl", &["verify", "-CAfile", &file("tlscas"), "-purpose", "sslclient", &file("tlscert")]);
    let of_key = run("openssl", &["pkey", "-in", &file("key"), "-pubout"]);
    assert_eq!(run("openssl", &["x509", "-in", &file("tlscert"), "-noout", "-pubkey"]), of_key);
}

#[tokio::test]
async fn an_output_that_cannot_be_written_is_found_out_before_the_join() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    fs::write(&file, "x").unwrap();
    let mut host = Host::new().await;
    host.config.outputs = vec![Identity::new(&file).unwrap()];
    let error = host.agent().join_once().await.unwrap_err();
    assert!(matches!(error, JoinError::Output(_)) && error.to_string().contains("file"), "{error}");
    assert_eq!(host.authority.book().streams, 0);
}

#[tokio::test]
async fn a_directory_in_the_place_of_an_outputs_file_is_found_out_before_the_join() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("tlscert")).unwrap();
    let mut host = Host::new().await;
    host.config.outputs = vec![Identity::new(root.path()).unwrap()];
    let error = host.agent().join_once().await.unwrap_err();
    assert!(error.to_string().ends_with("/tlscert: is a directory"), "{error}");
    assert_eq!(host.authority.book().streams, 0);
}

#[tokio::test]
async fn a_missing_output_is_restored_from_the_storage() {
    let root = tempfile::tempdir().unwrap();
    let host = joined(root.path()).await;
    let before = fs::read(root.path().join("tlscert")).unwrap();
    fs::remove_file(root.path().join("tlscert")).unwrap();
    host.agent().restore_outputs().unwrap();
    assert_eq!(fs::read(root.path().join("tlscert")).unwrap(), before);

    fs::remove_file(root.path().join("tlscert")).unwrap();
    host.let_certificate_expire();
    host.agent().restore_outputs().unwrap();
    assert!(!root.path().join("tlscert").exists(), "an expired certificate is of no use");
}

#[tokio::test]
async fn an_output_of_an_earlier_join_is_brought_up_to_the_storage() {
    let root = tempfile::tempdir().unwrap();
    let host = joined(root.path()).await;
    // As after a loss of power in the middle of writing: the key is new, and all that belongs to it old.
    let certificate = root.path().join("tlscert");
    let old = fs::read(&certificate).unwrap();
    run::once(&mut host.agent()).await.unwrap();
    let new = fs::read(&certificate).unwrap();
    fs::write(&certificate, old).unwrap();

    host.agent().restore_outputs().unwrap();

    assert_eq!(fs::read(&certificate).unwrap(), new);
}

#[tokio::test]
async fn near_the_end_of_its_certificate_a_bot_renews_though_one_output_is_broken() {
    let (root, broken) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut host = joined(root.path()).await;
    fs::write(broken.path().join("file"), "").unwrap();
    host.config.outputs.insert(0, Identity::new(&broken.path().join("file")).unwrap());
    let before = fs::read(root.path().join("tlscert")).unwrap();
    let joins = || host.authority.book().accepted;

    let early = run::once(&mut host.agent()).await.unwrap_err();
    assert!(matches!(early, JoinError::Output(_)), "{early}");
    assert_eq!(joins(), 1, "there is time to mend it");
    host.clock.advance(TimeDelta::minutes(50));
    let late = run::once(&mut host.agent()).await.unwrap_err();

    assert!(matches!(late, JoinError::Output(_)), "{late}");
    assert_eq!((joins(), host.authority.book().recoveries), (2, 1));
    assert_ne!(fs::read(root.path().join("tlscert")).unwrap(), before, "the other output is new");
}

#[tokio::test]
async fn every_join_replaces_it() {
    let root = tempfile::tempdir().unwrap();
    let host = joined(root.path()).await;
    let before = fs::read(root.path().join("tlscert")).unwrap();
    run::once(&mut host.agent()).await.unwrap();
    assert_ne!(fs::read(root.path().join("tlscert")).unwrap(), before);
}
