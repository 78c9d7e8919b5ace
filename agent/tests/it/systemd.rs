//! The unit that is installed.

use std::{io::Write as _, path::Path, process::Command};

use join_agent::{output::Identity, systemd::Unit};

fn unit<'a>(program: &'a str, config: &'a str, user: &'a str) -> Unit<'a> {
    Unit { program: Path::new(program), config: Path::new(config), user, group: "joinbot", storage: None, outputs: &[] }
}

fn with_storage(storage: &str) -> String {
    Unit { storage: Some(Path::new(storage)), ..unit("/bin/true", "/etc/joinbot.yaml", "joinbot") }.render().unwrap()
}

#[test]
fn names_and_paths_stand_in_it_safely() {
    let text = unit("/usr/bin/joinbot", "/etc/a b/100%.yaml", "joinbot").render().unwrap();
    assert!(text.contains("\nExecStart=\"/usr/bin/joinbot\" start -c \"/etc/a b/100%%.yaml\"\n"), "{text}");
    assert!(text.contains("\nUser=joinbot\nGroup=joinbot\n"), "{text}");

    assert!(unit("joinbot", "/etc/x", "joinbot").render().unwrap_err().contains("absolute"));
    assert!(unit("/usr/bin/joinbot", "/etc/x\nExecStartPre=/bin/sh", "joinbot").render().is_err());
    assert!(unit("/usr/bin/joinbot", "/etc/x", "a\nb").render().is_err());
    assert!(unit("/usr/bin/joinbot", "/etc/x", "").render().is_err());
}

#[test]
fn a_storage_below_var_lib_is_made_for_the_user_before_the_start() {
    for (storage, name) in [
        ("/var/lib/joinbot", Some("joinbot")),
        ("/var/lib/joinbot/", Some("joinbot")),
        ("/var/lib/joinbot/web-1", Some("joinbot/web-1")),
        ("/var/lib", None),
        ("/var/lib/../cache", None),
        ("/var/lib/a b", None),
        ("/var/lib/a%b", None),
        ("/srv/joinbot", None),
    ] {
        let text = with_storage(storage);
        let line = text.lines().find_map(|line| line.strip_prefix("StateDirectory="));
        assert_eq!(line, name, "{storage}");
        assert_eq!(text.contains("\nStateDirectoryMode=0700\n"), name.is_some(), "{storage}");
    }
    assert!(!unit("/bin/true", "/etc/x", "joinbot").render().unwrap().contains("StateDirectory"), "memory");
}

#[test]
fn what_it_writes_in_places_that_are_read_only_otherwise_is_opened() {
    let root = tempfile::tempdir().unwrap();
    let link = root.path().join("link");
    std::os::unix::fs::symlink("/etc", &link).unwrap();
    let outputs = ["/opt/app/identity", "/etc/a b/100%$x", "/etcetera", "/srv/../usr/x"].map(Path::new);
    let below_link = link.join("none");
    let outputs = [outputs.as_slice(), &[&below_link]].concat();
    let outputs: Vec<_> = outputs.into_iter().map(|path| Identity::new(path).unwrap()).collect();
    let unit = unit("/bin/true", "/etc/x", "joinbot");

    let text = Unit { storage: Some(Path::new("/boot/joinbot")), outputs: &outputs, ..unit }.render().unwrap();

    let opened: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("ReadWritePaths=")).collect();
    assert_eq!(opened, [r#""/etc/a b/100%%$x""#, r#""/usr/x""#, r#""/etc/none""#, r#""/boot/joinbot""#]);
    assert!(!with_storage("/var/lib/joinbot").contains("ReadWritePaths"));
}

#[test]
fn a_bot_that_was_refused_is_not_started_again_at_once() {
    let installed = unit("/bin/true", "/etc/x", "joinbot").render().unwrap();
    for text in [installed.as_str(), include_str!("../../../deploy/joinbot@.service")] {
        assert!(text.contains("\nRestart=on-failure\nRestartSec=5min\n"), "{text}");
    }
}

#[test]
fn a_crash_writes_no_keys_to_disk() {
    let installed = unit("/bin/true", "/etc/x", "joinbot").render().unwrap();
    for text in [installed.as_str(), include_str!("../../../deploy/joinbot@.service")] {
        assert!(text.contains("\nLimitCORE=0\n"), "{text}");
    }
}

#[test]
fn each_bot_of_a_host_has_a_user_of_its_own() {
    let shipped = include_str!("../../../deploy/joinbot@.service");
    let installed = unit("/bin/true", "/etc/x", "joinbot-%i");
    assert!(installed.render().is_err(), "a unit for a single bot names its user");
    let installed = Unit { group: "joinbot-web", ..unit("/bin/true", "/etc/x", "joinbot-web") }.render().unwrap();
    assert!(installed.contains(&"\nUser=joinbot-%i\nGroup=joinbot-%i\n".replace("%i", "web")), "{installed}");
    assert!(shipped.contains("\nUser=joinbot-%i\nGroup=joinbot-%i\n"), "{shipped}");
    // What is typed before makes that user.
    let made = shipped.lines().find(|line| line.starts_with("#   useradd ")).unwrap();
    assert!(made.contains(" --user-group ") && made.ends_with(" joinbot-NAME"), "{made}");
}

#[test]
fn systemd_accepts_it() {
    let Ok(version) = Command::new("systemd-analyze").arg("--version").output() else {
        // Not with `eprintln!`: of a test that passes, nobody would see it. Not every machine has systemd, so that this is
        // never a failure.
        let word = b"SKIPPED: systemd-analyze is not installed, so it was not asked for its opinion\n";
        return std::io::stderr().write_all(word).unwrap();
    };
    assert!(version.status.success());
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("joinbot.service");
    let outputs = [Identity::new(Path::new("/etc/a b/100%$x")).unwrap()];
    let storage = Some(Path::new("/var/lib/joinbot"));
    let unit = Unit { storage, outputs: &outputs, ..unit("/bin/true", "/etc/joinbot.yaml", "root") };
    std::fs::write(&path, unit.render().unwrap().replace("\nGroup=joinbot\n", "\nGroup=root\n")).unwrap();
    let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path).output().unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !complaints.contains("joinbot.service"), "{}: {complaints}", output.status);
}
