//! `joinbot keypair create`.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    process::{Command, Stdio},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use join_agent::key::PrivateKey;

use crate::{
    cli::{configuration, run, stderr, stdout},
    host::Host,
};

#[tokio::test]
async fn a_preregistered_keypair_is_made_once() {
    let root = tempfile::tempdir().unwrap();
    let host = Host::new().await;
    let path = configuration(&host, root.path());
    let storage = root.path().join("storage");
    let create = ["keypair", "create", "--storage", storage.to_str().unwrap(), "--format", "json"];
    let created = run(&create).await;
    assert_eq!(created.status.code(), Some(0), "{}", stderr(&created));
    assert!(!stderr(&created).contains("already"), "{}", stderr(&created));
    let again = run(&create).await;
    assert_eq!(stdout(&created), stdout(&again), "again it is the same");
    let note = format!("this key was in {} already; for a new one, name a directory that is empty", storage.display());
    assert!(stderr(&again).contains(&note), "{}", stderr(&again));
    let elsewhere = root.path().join("elsewhere");
    let another = run(&["keypair", "create", "--storage", elsewhere.to_str().unwrap(), "--format", "json"]).await;
    assert_ne!(stdout(&another), stdout(&created));
    let document: serde_json::Value = serde_json::from_slice(&created.stdout).unwrap();
    let public = document["public_key"].as_str().unwrap();
    assert!(public.starts_with("ssh-ed25519 "), "{public}");

    host.authority.book().bound = Some(join_domain::key::PublicKey::from_authorized_key(public.as_bytes()).unwrap());
    let joined = run(&["start", "-c", path.to_str().unwrap(), "--oneshot"]).await;
    assert_eq!(joined.status.code(), Some(0), "{}", stderr(&joined));
}

#[tokio::test]
async fn a_static_keypair_is_printed_or_written_and_never_overwritten() {
    let printed = run(&["keypair", "create", "--static", "--format", "json"]).await;
    let document: serde_json::Value = serde_json::from_slice(&printed.stdout).unwrap();
    let pem = STANDARD.decode(document["private_key"].as_str().unwrap()).unwrap();
    let key = PrivateKey::from_pem(std::str::from_utf8(&pem).unwrap()).unwrap();
    assert_eq!(document["public_key"], key.public().to_authorized_key());

    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("key.pem");
    let create = ["keypair", "create", "--static", "--static-key-path", path.to_str().unwrap()];
    let written = run(&create).await;
    assert_eq!(written.status.code(), Some(0), "{}", stderr(&written));
    assert!(!stdout(&written).contains("PRIVATE"));
    let before = fs::read(&path).unwrap();
    assert_eq!(run(&create).await.status.code(), Some(1));
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1, "nothing else is left behind");
}

#[tokio::test]
async fn a_static_key_that_could_not_be_written_leaves_nothing_in_its_place() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("key.pem");
    let path = path.to_str().unwrap();
    // No file may grow, as on a disk that is full.
    let script = "trap '' XFSZ; ulimit -f 0; exec \"$@\"";
    let create = ["keypair", "create", "--static-key-path", path];
    let full = Command::new("sh")
        .args(["-c", script, "sh", env!("CARGO_BIN_EXE_joinbot")])
        .args(create)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(full.status.code(), Some(1));
    assert!(stderr(&full).contains(&format!("cannot write {path}")), "{}", stderr(&full));
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    let created = run(&create).await;
    assert_eq!(created.status.code(), Some(0), "{}", stderr(&created));
}

#[tokio::test]
async fn what_a_keypair_is_for_has_to_be_said_once() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("key.pem");
    let path = path.to_str().unwrap();

    let nothing = run(&["keypair", "create"]).await;
    assert_eq!(nothing.status.code(), Some(1));
    let said = stderr(&nothing);
    assert!(said.contains("one of --storage DIR, --static or --static-key-path FILE is needed"), "{said}");

    let both = run(&["keypair", "create", "--storage", "x", "--static-key-path", path]).await;
    assert_eq!(both.status.code(), Some(1));
    assert!(stderr(&both).contains("cannot be used with"), "{}", stderr(&both));

    let alone = run(&["keypair", "create", "--static-key-path", path]).await;
    assert_eq!(alone.status.code(), Some(0), "{}", stderr(&alone));
    assert!(fs::read_to_string(path).unwrap().contains("PRIVATE KEY"));
}
