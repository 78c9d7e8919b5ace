//! The program as people run it.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use join_agent::key::PrivateKey;
use join_domain::refusal::Code;

use crate::{
    authority::{SECRET, Trouble},
    host::{Host, given_away},
};

fn joinbot(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_joinbot"));
    command.args(arguments).env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// Runs to the end without holding up the authority, which lives in this thread's runtime.
async fn run(arguments: &[&str]) -> Output {
    let mut command = joinbot(arguments);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A configuration file in `root`, for `host`'s authority.
fn configuration(host: &Host, root: &Path) -> PathBuf {
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
async fn a_daemon_keeps_others_out_renews_on_usr1_and_stops_on_term() {
    let root = tempfile::tempdir().unwrap();
    let host = Host::new().await;
    let path = configuration(&host, root.path());
    let path = path.to_str().unwrap();
    let mut daemon = Daemon::start(path);
    wait("the first join", || root.path().join("identity/ssh_config").exists()).await;

    let second = run(&["start", "-c", path, "--oneshot"]).await;
    assert_eq!(second.status.code(), Some(1));
    assert!(stderr(&second).contains("in use by another joinbot"), "{}", stderr(&second));
    assert_eq!(run(&["status", "-c", path]).await.status.code(), Some(0), "looking is allowed");

    wait("the second join", || {
        daemon.signal("USR1");
        host.authority.book().accepted >= 2
    })
    .await;
    daemon.signal("TERM");
    let mut status = None;
    wait("the end", || {
        status = daemon.0.try_wait().unwrap();
        status.is_some()
    })
    .await;
    assert_eq!(status.unwrap().code(), Some(0));
}

/// A storage that holds a join, and from which nothing is renewed: its disk is full, or can't be written at all.
#[tokio::test]
async fn a_daemon_whose_storage_is_full_publishes_what_is_stored_and_renews_when_there_is_room() {
    let root = tempfile::tempdir().unwrap();
    let host = Host::new().await;
    let path = configuration(&host, root.path());
    let path = path.to_str().unwrap();
    let storage = root.path().join("storage");
    // What can't be replaced by a file, for root neither.
    let obstacles = [".probe", ".state.json.new"].map(|name| storage.join(name));
    let fill = || obstacles.iter().for_each(|obstacle| fs::create_dir_all(obstacle).unwrap());
    let unwritable = format!("cannot write into {}: ", storage.display());

    fs::DirBuilder::new().mode(0o700).create(&storage).unwrap();
    fill();
    for arguments in [&["start", "-c", path] as &[&str], &["start", "-c", path, "--oneshot"]] {
        let refused = run(arguments).await;
        assert_eq!(refused.status.code(), Some(1), "{}", stderr(&refused));
        assert!(stderr(&refused).contains(&format!("error: {unwritable}")), "{}", stderr(&refused));
    }
    assert_eq!(host.authority.book().streams, 0, "a first join could not be kept, so none was tried");

    obstacles.iter().for_each(|obstacle| fs::remove_dir(obstacle).unwrap());
    assert_eq!(run(&["start", "-c", path, "--oneshot"]).await.status.code(), Some(0));
    let output = root.path().join("identity");
    fs::remove_dir_all(&output).unwrap();
    fill();
    let log = root.path().join("log");
    let mut daemon = Daemon::start_with(path, fs::File::create(&log).unwrap().into());
    wait("the output of the join before", || output.join("ssh_config").exists()).await;
    wait("a renewal that can't be stored", || {
        fs::read_to_string(&log).unwrap().contains(&format!("cannot write {}/state.json: ", storage.display()))
    })
    .await;
    assert!(fs::read_to_string(&log).unwrap().contains(&unwritable));
    assert_eq!((host.authority.book().streams, daemon.0.try_wait().unwrap()), (1, None), "nothing is sent before");
    obstacles.iter().for_each(|obstacle| fs::remove_dir(obstacle).unwrap());
    wait("a renewal by itself", || host.authority.book().accepted == 2).await;
    assert_eq!(host.authority.book().recoveries, 1, "the second was a renewal");
}

#[tokio::test]
async fn a_storage_that_is_read_only_is_held_and_published() {
    let root = tempfile::tempdir().unwrap();
    let host = Host::new().await;
    let path = configuration(&host, root.path());
    let path = path.to_str().unwrap();
    assert_eq!(run(&["start", "-c", path, "--oneshot"]).await.status.code(), Some(0));
    let (storage, output) = (root.path().join("storage"), root.path().join("identity"));
    fs::remove_dir_all(&output).unwrap();
    let script = "mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\" && shift && exec \"$@\"";
    let read_only = |arguments: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount", "sh", "-c", script, "sh"]).arg(&storage);
        command.args(arguments).env_remove("RUST_LOG").stdin(Stdio::null());
        command
    };
    if !read_only(&["true"]).output().is_ok_and(|mounted| mounted.status.success()) {
        // Not with `eprintln!`: of a test that passes, nobody would see it.
        let word = b"SKIPPED: nothing can be mounted here, so a storage that is read-only was not looked at\n";
        return std::io::stderr().write_all(word).unwrap();
    }

    let log = root.path().join("log");
    let mut command = read_only(&[env!("CARGO_BIN_EXE_joinbot"), "start", "-c", path]);
    let daemon = Daemon(command.stderr(fs::File::create(&log).unwrap()).spawn().unwrap());
    wait("the output of the join before", || output.join("ssh_config").exists()).await;
    wait("that it is said", || fs::read_to_string(&log).unwrap().contains("cannot write into ")).await;
    let second = run(&["start", "-c", path, "--oneshot"]).await;
    assert!(stderr(&second).contains("in use by another joinbot"), "{}", stderr(&second));
    drop(daemon);
}

#[tokio::test]
async fn a_killed_daemon_leaves_nothing_in_the_way() {
    let root = tempfile::tempdir().unwrap();
    let host = Host::new().await;
    let path = configuration(&host, root.path());
    host.authority.trouble(std::iter::repeat_n(Trouble::LoseAnswer, 3));
    let daemon = Daemon::start(path.to_str().unwrap());
    wait("a lost answer", || host.authority.book().accepted == 1).await;
    drop(daemon);
    let joined = run(&["start", "-c", path.to_str().unwrap(), "--oneshot"]).await;
    assert_eq!(joined.status.code(), Some(0), "{}", stderr(&joined));
    let book = host.authority.book();
    assert_eq!((book.accepted, book.recoveries, book.locked), (1, 1, None));
}

#[tokio::test]
async fn a_daemon_that_tries_again_by_itself_does_not_ask_to_be_started() {
    let root = tempfile::tempdir().unwrap();
    let host = Host::new().await;
    let path = configuration(&host, root.path());
    let log = root.path().join("log");
    let daemon = Daemon::start_with(path.to_str().unwrap(), fs::File::create(&log).unwrap().into());
    wait("the first join", || root.path().join("identity/ssh_config").exists()).await;
    host.authority.trouble([Trouble::refuse(Code::RecoveryLimitExhausted)]);
    let mut said = String::new();
    wait("a refusal", || {
        daemon.signal("USR1");
        said = fs::read_to_string(&log).unwrap();
        said.contains("RECOVERY_LIMIT_EXHAUSTED")
    })
    .await;
    assert!(said.contains("this agent then goes on by itself; nothing has to change on this host; trying"), "{said}");
}

#[tokio::test]
async fn a_daemon_whose_log_cannot_be_written_goes_on() {
    let root = tempfile::tempdir().unwrap();
    let host = Host::new().await;
    let path = configuration(&host, root.path());
    // A device that is always full, as a disk may be.
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let mut daemon = Daemon::start_with(path.to_str().unwrap(), full.into());
    wait("the first join", || root.path().join("identity/ssh_config").exists()).await;
    wait("a renewal", || {
        assert_eq!(daemon.0.try_wait().unwrap(), None, "it lives");
        daemon.signal("USR1");
        host.authority.book().accepted >= 2
    })
    .await;
    assert_eq!(host.authority.book().recoveries, 1);
}

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
    use base64::{Engine as _, engine::general_purpose::STANDARD};
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

#[tokio::test]
async fn a_unit_is_printed_or_written() {
    let root = tempfile::tempdir().unwrap();
    let host = Host::new().await;
    let path = configuration(&host, root.path());
    let units = root.path().to_str().unwrap();
    let base = [
        "install",
        "systemd",
        "--config",
        path.to_str().unwrap(),
        "--user",
        "bot",
        "--group",
        "bot",
        "--systemd-directory",
        units,
    ];
    let printed = run(&base).await;
    assert!(stdout(&printed).contains("[Service]"), "{}", stderr(&printed));
    assert!(!root.path().join("joinbot.service").exists());

    let written = run(&[&base as &[&str], &["--write"]].concat()).await;
    assert_eq!(written.status.code(), Some(0), "{}", stderr(&written));
    assert_eq!(fs::read_to_string(root.path().join("joinbot.service")).unwrap(), stdout(&printed));
    fs::write(root.path().join("joinbot.service"), "mine").unwrap();
    assert_eq!(run(&[&base as &[&str], &["--write"]].concat()).await.status.code(), Some(1));
    assert_eq!(run(&[&base as &[&str], &["--write", "--force"]].concat()).await.status.code(), Some(0));
}

#[tokio::test]
async fn what_a_unit_would_fail_for_is_said_when_it_is_installed() {
    let root = tempfile::tempdir().unwrap();
    let host = Host::new().await;
    let path = configuration(&host, root.path());
    let identity = format!("{}/identity", root.path().display());
    let install = async |user: &str, group: &str| {
        let accounts = ["--config", path.to_str().unwrap(), "--user", user, "--group", group];
        run(&[&["install", "systemd"] as &[&str], &accounts].concat()).await
    };
    let nobody = install("joinbot-none", "joinbot-none").await;
    assert_eq!(nobody.status.code(), Some(0), "{}", stderr(&nobody));
    if Command::new("getent").arg("--version").output().is_ok() {
        let said = stderr(&nobody);
        assert!(said.contains("there is no user `joinbot-none`"), "{said}");
        assert!(said.contains("useradd --system --user-group --shell /usr/sbin/nologin joinbot-none\n"), "{said}");
        let made = format!("install -d -o joinbot-none -g joinbot-none '{identity}'\n");
        assert!(said.contains(&made), "{said}");

        let said = stderr(&install("joinbot-none", "joinbot-others").await);
        assert!(said.contains("groupadd --system joinbot-others\n"), "{said}");
        assert!(said.contains("useradd --system --gid joinbot-others --shell"), "{said}");
        assert_eq!(stderr(&install("root", "root").await), "", "they exist and may do everything");

        let storage = format!("{}/storage", root.path().display());
        fs::create_dir(&identity).unwrap();
        fs::create_dir(&storage).unwrap();
        let said = stderr(&install("joinbot-none", "joinbot-others").await);
        assert!(
            said.contains(&format!("{identity} belongs to another user, and `joinbot-none` has to write there")),
            "{said}"
        );
        assert!(said.contains(&format!("chown joinbot-none:joinbot-others '{identity}'\n")), "{said}");
        assert!(said.contains(&format!("chown -R joinbot-none:joinbot-others '{storage}'\n")), "{said}");
        fs::set_permissions(&identity, fs::Permissions::from_mode(0o777)).unwrap();
        let said = stderr(&install("joinbot-none", "joinbot-none").await);
        assert!(!said.contains(&identity), "everybody can write there: {said}");
    }

    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace(root.path().to_str().unwrap(), "/etc/joinbot-none")).unwrap();
    let opened = install("root", "root").await;
    assert!(stdout(&opened).contains("\nReadWritePaths=\"/etc/joinbot-none/identity\"\n"), "{}", stdout(&opened));
    let said = stderr(&opened);
    assert!(said.contains("install -d -o root -g root '/etc/joinbot-none/identity'\n"), "{said}");
    assert!(said.contains("install -d -m 700 -o root -g root '/etc/joinbot-none/storage'\n"), "{said}");

    let storage = format!("{}/storage", root.path().display());
    fs::write(&path, text.replace(&storage, "storage")).unwrap();
    let relative = install("root", "root").await;
    assert_eq!(relative.status.code(), Some(1));
    assert!(stderr(&relative).contains("storage.path: `storage` is relative"), "{}", stderr(&relative));
    assert!(relative.stdout.is_empty());
}

/// A joinbot that runs until it is dropped: then it is killed.
struct Daemon(Child);

impl Daemon {
    fn start(configuration: &str) -> Self {
        Self::start_with(configuration, Stdio::null())
    }

    fn start_with(configuration: &str, stderr: Stdio) -> Self {
        let mut command = joinbot(&["start", "-c", configuration]);
        Self(command.stdout(Stdio::null()).stderr(stderr).spawn().unwrap())
    }

    fn signal(&self, name: &str) {
        // Every shell can send one; a program `kill` is not on every machine.
        let process = self.0.id().to_string();
        let sent = Command::new("sh").args(["-c", "kill -s \"$1\" \"$2\"", "sh", name, &process]).status().unwrap();
        assert!(sent.success(), "SIG{name}");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..400 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never: {what}");
}
