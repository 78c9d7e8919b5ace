//! `joinbot start` in a process of its own: signals, disks that are full, and its end.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::DirBuilderExt as _,
    process::{Child, Command, Stdio},
    time::Duration,
};

use join_domain::refusal::Code;

use crate::{
    authority::Trouble,
    cli::{configuration, joinbot, run, stderr},
    host::Host,
};

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
