//! The unit that is installed.

use std::{path::Path, process::Command};

use join_agent::systemd::Unit;

fn unit<'a>(program: &'a str, config: &'a str, user: &'a str) -> Unit<'a> {
    Unit { program: Path::new(program), config: Path::new(config), user, group: "joinbot" }
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
fn systemd_accepts_it() {
    let Ok(version) = Command::new("systemd-analyze").arg("--version").output() else {
        eprintln!("not checked: there is no systemd-analyze on this machine");
        return;
    };
    assert!(version.status.success());
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("joinbot.service");
    std::fs::write(
        &path,
        unit("/bin/true", "/etc/joinbot.yaml", "root").render().unwrap().replace("Group=joinbot", "Group=root"),
    )
    .unwrap();
    let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path).output().unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(!complaints.contains("joinbot.service"), "{complaints}");
}
