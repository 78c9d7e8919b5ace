//! The program as people run it: it joins once, says how it stands, and ends.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use join_agent::key::PrivateKey;
use join_domain::refusal::Code;

use crate::{
    authority::{SECRET, Trouble},
    host::{Host, given_away},
};

pub(crate) fn joinbot(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_joinbot"));
    command.args(arguments).env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// Runs to the end without holding up the authority, which lives in this thread's runtime.
pub(crate) async fn run(arguments: &[&str]) -> Output {
    let mut command = joinbot(arguments);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A configuration file in `root`, for `host`'s authority.
pub(crate) fn configuration(host: &Host, root: &Path) -> PathBuf {
    let path = root.join("joinbot.yaml");
    let text = format!(
        "version: v2\nauth_server: {}\nca_pins: [\"{}\"]\nonboarding:\n  join_method: bound_keypair\n  token: example\n  \
         bound_keypair: {{registration_secret: {SECRET}}}\nstorage: {{type: directory, path: {root}/storage}}\noutputs:\n  \
         - type: identity\n    destination: {{type: directory, path: {root}/identity}}\n",
        host.authority.address,
        host.authority.pin(),
        root = root.display(),
    );
    fs::write(&path, text).unwrap();
    path
}

#[tokio::test]
async fn one_shot_joins_and_status_shows_it() {
    let root = tempfile::tempdir().unwrap();
    let host = Host::new().await;
    let path = configuration(&host, root.path());
    let path = path.to_str().unwrap();

    let before = run(&["status", "-c", path]).await;
    assert_eq!(before.status.code(), Some(1), "{}", stderr(&before));
    assert!(stdout(&before).contains("not joined yet"));

    let joined = run(&["start", "-c", path, "--oneshot"]).await;
    assert_eq!(joined.status.code(), Some(0), "{}", stderr(&joined));
    assert!(!stderr(&joined).contains(SECRET));
    assert!(root.path().join("identity/tlscert").exists());

    let status = run(&["status", "-c", path, "--format", "json"]).await;
    assert_eq!(status.status.code(), Some(0));
    let report: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(report["certificate"]["user"], "bot-robot");
    assert_eq!(report["certificate"]["generation"], 1);
    assert_eq!(report["live"], true);
    assert!(!stdout(&status).contains("PRIVATE"));
}

#[tokio::test]
async fn a_life_that_the_authority_does_not_grant_is_told() {
    let root = tempfile::tempdir().unwrap();
    let host = Host::new().await;
    let path = configuration(&host, root.path());
    let joined = async |ttl: &str| {
        let text = fs::read_to_string(&path).unwrap();
        let wish = format!("version: v2\ncertificate_ttl: {ttl}\n");
        let path = root.path().join("wish.yaml");
        fs::write(&path, text.replace("version: v2\n", &wish)).unwrap();
        let output = run(&["start", "-c", path.to_str().unwrap(), "--oneshot"]).await;
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        stderr(&output)
    };
    let told = joined("100h").await;
    assert!(told.contains("certificate_ttl is 4days 4h, and the authority grants less"), "{told}");
    assert!(!joined("2h").await.contains("certificate_ttl"));
}

#[tokio::test]
async fn a_certificate_of_the_future_is_a_matter_of_the_clock() {
    let root = tempfile::tempdir().unwrap();
    let host = Host::new().await;
    let path = configuration(&host, root.path());
    let path = path.to_str().unwrap();
    host.clock.advance(chrono::TimeDelta::minutes(50));
    let joined = run(&["start", "-c", path, "--oneshot"]).await;
    assert_eq!(joined.status.code(), Some(0), "{}", stderr(&joined));
    let status = run(&["status", "-c", path]).await;
    assert_eq!(status.status.code(), Some(1));
    assert!(stdout(&status).contains("\ncertificate  not valid yet: check this host's clock, "), "{}", stdout(&status));
}

#[tokio::test]
async fn a_reader_that_has_left_is_no_failure() {
    let root = tempfile::tempdir().unwrap();
    let host = Host::new().await;
    let path = configuration(&host, root.path());
    let path = path.to_str().unwrap();
    let unread = |arguments: &[&str]| {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = joinbot(arguments).stdout(writer).output().unwrap();
        assert!(!stderr(&output).contains("error") && !stderr(&output).contains("panicked"), "{}", stderr(&output));
        output.status.code()
    };
    assert_eq!(unread(&["status", "-c", path]), Some(1), "as the state is: not joined yet");
    assert_eq!(run(&["start", "-c", path, "--oneshot"]).await.status.code(), Some(0));
    assert_eq!(unread(&["status", "-c", path]), Some(0));
    assert_eq!(unread(&["status", "-c", path, "--format", "json"]), Some(0));
    let key = root.path().join("keys");
    assert_eq!(unread(&["keypair", "create", "--storage", key.to_str().unwrap()]), Some(0));
    assert_eq!(unread(&["keypair", "create", "--static", "--format", "json"]), Some(0));
    let accounts = ["--config", path, "--user", "root", "--group", "root"];
    assert_eq!(unread(&[&["install", "systemd"] as &[&str], &accounts].concat()), Some(0));
}

#[tokio::test]
async fn what_could_not_be_printed_is_a_failure_and_what_could_not_be_remarked_is_none() {
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    let create = || joinbot(&["keypair", "create", "--static"]);
    let lost = create().stdout(full()).output().unwrap();
    assert_eq!(lost.status.code(), Some(1));
    assert!(stderr(&lost).contains("error: cannot write to standard output: "), "{}", stderr(&lost));
    let printed = create().stderr(full()).output().unwrap();
    assert_eq!((printed.status.code(), stdout(&printed).lines().count()), (Some(0), 2));
}

#[tokio::test]
async fn a_storage_that_others_can_look_into_is_warned_of() {
    let root = tempfile::tempdir().unwrap();
    let host = Host::new().await;
    let path = configuration(&host, root.path());
    let path = path.to_str().unwrap();
    let storage = root.path().join("storage");
    let warning = format!(
        "other users can look into {storage}, where the bot's private keys are; close it with `chmod go= {storage}`",
        storage = storage.display()
    );
    for (mode, warned) in [(0o700, false), (0o711, true), (0o750, true), (0o755, true)] {
        fs::DirBuilder::new().recursive(true).create(&storage).unwrap();
        fs::set_permissions(&storage, fs::Permissions::from_mode(mode)).unwrap();
        let joined = run(&["start", "-c", path, "--oneshot"]).await;
        let status = run(&["status", "-c", path]).await;
        for output in [joined, status] {
            assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
            assert_eq!(stderr(&output).contains(&warning), warned, "{mode:o}: {}", stderr(&output));
        }
    }
}

#[tokio::test]
async fn a_static_key_that_others_can_read_is_warned_of_once() {
    let root = tempfile::tempdir().unwrap();
    let host = Host::new().await;
    let path = configuration(&host, root.path());
    let (key, key_path) = (PrivateKey::generate_ed25519(), root.path().join("key.pem"));
    host.authority.book().bound = Some(key.public().clone());
    fs::write(&key_path, key.to_pem().as_bytes()).unwrap();
    let fixed = format!("static_private_key_path: {}", key_path.display());
    let text = fs::read_to_string(&path).unwrap().replace(&format!("registration_secret: {SECRET}"), &fixed);
    fs::write(&path, text).unwrap();
    let warnings = async |mode: u32, text: &str| {
        fs::set_permissions(&key_path, fs::Permissions::from_mode(mode)).unwrap();
        let joined = run(&["start", "-c", path.to_str().unwrap(), "--oneshot"]).await;
        assert_eq!(joined.status.code(), Some(0), "{}", stderr(&joined));
        stderr(&joined).matches(text).count()
    };
    let shown = key_path.display();
    let warning = format!("other users can read {shown}, the bot's private key; close it with `chmod go= {shown}`");
    for (mode, warned) in [(0o600, 0), (0o400, 0), (0o640, 1), (0o604, 1), (0o644, 1)] {
        assert_eq!(warnings(mode, &warning).await, warned, "{mode:o}");
    }

    if given_away(&key_path).is_some() {
        let warning = format!("give it to this agent's user, and close it with `chmod go= {shown}`");
        for (mode, warned) in [(0o640, 0), (0o644, 1)] {
            assert_eq!(warnings(mode, &warning).await, warned, "lent through its group: {mode:o}");
        }
    }
}

#[tokio::test]
async fn a_secret_that_cannot_be_read_later_is_told_and_one_that_is_gone_is_not() {
    let root = tempfile::tempdir().unwrap();
    let host = Host::new().await;
    let (path, secret) = (configuration(&host, root.path()), root.path().join("secret"));
    let from_file = format!("registration_secret_path: {}", secret.display());
    let text = fs::read_to_string(&path).unwrap().replace(&format!("registration_secret: {SECRET}"), &from_file);
    fs::write(&path, text).unwrap();
    let told = async || {
        let joined = run(&["start", "-c", path.to_str().unwrap(), "--oneshot"]).await;
        assert_eq!(joined.status.code(), Some(0), "{}", stderr(&joined));
        stderr(&joined)
    };
    fs::write(&secret, SECRET).unwrap();
    told().await;
    fs::remove_file(&secret).unwrap();
    let gone = told().await;
    assert!(!gone.contains("registration_secret_path"), "{gone}");
    fs::create_dir(&secret).unwrap();
    let unreadable = told().await;
    assert!(unreadable.contains(&format!("cannot read {}", secret.display())), "{unreadable}");
}

/// The flag is the same as the key: nothing is renewed.
#[tokio::test]
async fn who_joins_once_may_have_any_renewal_interval() {
    let root = tempfile::tempdir().unwrap();
    let host = Host::new().await;
    let path = configuration(&host, root.path());
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{text}certificate_ttl: 10m\nrenewal_interval: 20m\n")).unwrap();
    let path = path.to_str().unwrap();
    let refused = run(&["start", "-c", path]).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        stderr(&refused).contains(&format!("{path}: renewal_interval: 20m is not shorter")),
        "{}",
        stderr(&refused)
    );
    let joined = run(&["start", "-c", path, "--oneshot"]).await;
    assert_eq!(joined.status.code(), Some(0), "{}", stderr(&joined));
}

#[tokio::test]
async fn a_joining_uri_is_enough() {
    let root = tempfile::tempdir().unwrap();
    let host = Host::new().await;
    let secret = SECRET.replace(' ', "%20");
    let uri = format!(
        "tbot+auth+bound-keypair://example:{secret}@{}?ca-pin={}",
        host.authority.address,
        host.authority.pin()
    );
    let at = |name: &str| root.path().join(name).to_str().unwrap().to_owned();
    let joined = run(&[
        "start",
        "identity",
        "--join-uri",
        &uri,
        "--storage",
        &at("storage"),
        "--destination",
        &at("identity"),
        "--oneshot",
    ])
    .await;
    assert_eq!(joined.status.code(), Some(0), "{}", stderr(&joined));
    assert!(root.path().join("identity/key").exists());
}

#[tokio::test]
async fn a_refusal_names_the_administrators_command_and_fails() {
    let root = tempfile::tempdir().unwrap();
    let host = Host::new().await;
    let path = configuration(&host, root.path());
    host.authority.trouble([Trouble::refuse(Code::RecoveryLimitExhausted)]);
    let refused = run(&["start", "-c", path.to_str().unwrap(), "--oneshot"]).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("RECOVERY_LIMIT_EXHAUSTED"), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("joinctl edit token/example"), "{}", stderr(&refused));
}

#[tokio::test]
async fn wrong_usage_exits_with_one() {
    for arguments in [&["start"] as &[&str], &["surprise"], &["keypair", "create"], &["start", "-c", "/does/not/exist"]]
    {
        let output = run(arguments).await;
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(!output.stderr.is_empty());
    }
    assert_eq!(run(&["--help"]).await.status.code(), Some(0));
}

#[tokio::test]
async fn an_identity_without_a_pin_or_in_the_storage_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let host = Host::new().await;
    let secret = SECRET.replace(' ', "%20");
    let uri = format!("tbot+auth+bound-keypair://example:{secret}@{}", host.authority.address);
    let (storage, identity) = (root.path().join("storage"), root.path().join("identity"));
    let start = async |destination: &Path| {
        let storage = storage.to_str().unwrap();
        let to = ["--storage", storage, "--destination", destination.to_str().unwrap(), "--oneshot"];
        let output = run(&[&["start", "identity", "--join-uri", &uri] as &[&str], &to].concat()).await;
        assert_eq!(output.status.code(), Some(1));
        stderr(&output)
    };
    let said = start(&identity).await;
    assert!(said.contains("the join URI lacks `ca-pin=…`"), "{said}");
    let said = start(&storage).await;
    assert!(said.contains("is the storage directory"), "{said}");
    assert!(!storage.join("tlscert").exists());
}
