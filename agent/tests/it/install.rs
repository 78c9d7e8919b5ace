//! `joinbot install systemd`.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use crate::{
    cli::{configuration, run, stderr, stdout},
    host::Host,
};

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
