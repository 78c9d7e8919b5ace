//! Exit codes, help, and where the server is looked for.

use std::{
    fs::{self, Permissions},
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Stdio,
};

use rstest::rstest;

use crate::{command, joinctl, run};

#[rstest]
#[case(&["get"], "<KIND[/NAME]>")]
#[case(&["get", "node"], "unknown kind")]
#[case(&["rm", "token"], "KIND/NAME is wanted")]
#[case(&["lock"], "--join-token <NAME>")]
#[case(&["lock", "--join-token", "a", "--user", "bot-b"], "cannot be used with")]
#[case(&["exempt", "a", "--kind", "everything", "--reason", "r"], "possible values: recoveries, join_state, generation")]
#[case(&["exempt", "a", "--kind", "recoveries"], "--reason")]
#[case(&["reinstate", "--reason", "r"], "TOKEN")]
#[case(&["audit", "ls", "--since", "yesterday"], "neither a time")]
#[case(&["audit", "ls", "--token", "a", "--bot", "a"], "cannot be used with")]
#[case(&["lock", "--join-token", "a", "--ttl", "5"], "a duration with its unit is wanted, such as 90s")]
#[case(&["audit", "ls", "--kind", "join.refuse"], "there are join.accepted, join.resumed, join.refused")]
#[case(&["get", "bot/example", "-l", "team=zz"], "--selector selects among all of a kind, and bot/example is one by name")]
#[case(&["bots", "add", "web", "--labels", "rack"], "a label is written KEY=VALUE")]
#[case(&["bots", "add", "web", "--labels", "rack=12,rack=13"], "rack is both")]
#[case(&["bots", "add", "web", "--labels", "=12"], "a label has a key")]
#[case(&["frobnicate"], "unrecognized subcommand")]
fn wrong_usage_ends_with_1_and_says_what_is_wanted(#[case] arguments: &[&str], #[case] told: &str) {
    let ran = joinctl(arguments);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains(told), "{}", ran.stderr);
    assert_eq!(ran.stdout, "");
}

#[test]
fn a_page_is_explained_in_the_shape_that_is_asked_for() {
    let text = joinctl(&["explain", "locked"]).stdout;
    let ran = joinctl(&["explain", "locked", "--format", "json"]);
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&ran.stdout).unwrap(),
        serde_json::json!({"code": "LOCKED", "text": text})
    );
}

/// What is set in the environment need not be given.
#[test]
fn usage_is_the_same_whatever_the_environment_has() {
    let folder = tempfile::tempdir().unwrap();
    let ran = run(command(folder.path(), &["bots", "add"]).env("JOINCTL_ADDR", "a:1").env("JOINCTL_IDENTITY", "id"));
    assert_eq!(ran.code, 1);
    assert_eq!(ran.stderr, joinctl(&["bots", "add"]).stderr);
    assert!(ran.stderr.contains("Usage: joinctl bots add <NAME>"), "{}", ran.stderr);
}

#[test]
fn help_and_version_are_data() {
    for argument in ["--help", "--version"] {
        let ran = joinctl(&[argument]);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
        assert!(ran.stdout.contains("joinctl") || ran.stdout.contains("Administers"), "{}", ran.stdout);
    }
}

#[test]
fn without_a_server_it_says_how_to_get_one() {
    let ran = joinctl(&["get", "tokens"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("joind dev") && ran.stderr.contains("joind admin issue"), "{}", ran.stderr);
}

#[test]
fn an_identity_without_an_address_asks_for_the_address() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join(".config/joinctl");
    fs::create_dir_all(&home).unwrap();
    for name in ["ca.crt", "tls.crt", "tls.key"] {
        fs::write(home.join(name), "").unwrap();
    }
    let ran = run(&mut command(folder.path(), &["get", "tokens"]));
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.starts_with("error: no address of the authority: "), "{}", ran.stderr);
    assert!(ran.stderr.contains("--addr HOST:PORT or JOINCTL_ADDR, or write HOST:PORT into "), "{}", ran.stderr);
    assert!(!ran.stderr.contains("neither"), "{}", ran.stderr);
}

#[test]
fn an_identity_that_does_not_exist_or_is_incomplete_is_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("identity")).unwrap();
    for (identity, told) in [("nowhere", "nowhere is not a directory"), ("identity", "cannot read identity/ca.crt")] {
        let ran = run(&mut command(folder.path(), &["--addr", "localhost:1", "--identity", identity, "status"]));
        assert_eq!(ran.code, 1);
        assert!(ran.stderr.contains(told), "{}", ran.stderr);
    }
}

#[test]
fn an_identity_that_is_no_pem_is_refused_before_a_connection_is_made() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["ca.crt", "tls.crt", "tls.key"] {
        fs::write(folder.path().join(name), "not a certificate").unwrap();
    }
    let ran = run(&mut command(folder.path(), &["--addr", "localhost:1", "--identity", ".", "status"]));
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("can't be used"), "{}", ran.stderr);
}

/// What `joind dev` writes, in a directory of our own.
fn write_dev_env(data: &Path, exports: &str) {
    let env = data.join("env");
    fs::write(&env, exports).unwrap();
    fs::set_permissions(env, Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn a_directory_of_others_leads_nobody_in_silence() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("joind-data");
    fs::create_dir(&data).unwrap();
    write_dev_env(&data, "export JOINCTL_ADDR=authority.invalid:1\nexport JOINCTL_IDENTITY=/nowhere\n");
    let told = || run(&mut command(folder.path(), &["status", "--format", "json"])).stderr;

    let led = told();
    let note = "note: joind-data/env leads to authority.invalid:1, which is not this machine's loopback; ";
    assert!(led.starts_with(note), "{led}");

    fs::set_permissions(data.join("env"), Permissions::from_mode(0o620)).unwrap();
    let passed_over = told();
    let warning = "warning: joind-data/env is passed over, because other users can write it: ";
    assert!(passed_over.starts_with(warning), "{passed_over}");
    assert!(passed_over.contains("error: no address of the authority"), "{passed_over}");
}

#[test]
fn a_server_that_is_not_there_ends_with_2() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("joind-data");
    let identity = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::create_dir_all(data.join("identity")).unwrap();
    for (name, pem) in [
        ("ca.crt", identity.cert.pem()),
        ("tls.crt", identity.cert.pem()),
        ("tls.key", identity.signing_key.serialize_pem()),
    ] {
        fs::write(data.join("identity").join(name), pem).unwrap();
    }
    // Bound for a moment, so that nobody listens there now.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let exports = format!("export JOINCTL_ADDR=127.0.0.1:{port}\nexport JOINCTL_IDENTITY=joind-data/identity\n");
    write_dev_env(&data, &exports);

    let ran = run(&mut command(folder.path(), &["get", "tokens", "--format", "json"]));
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert!(ran.stderr.contains(&format!("could not reach the authority at 127.0.0.1:{port}: ")), "{}", ran.stderr);
    assert_eq!(ran.stdout, "");
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let mut child =
        command(folder.path(), &["completions", "bash"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

#[test]
fn a_stderr_that_takes_nothing_changes_no_outcome() {
    let folder = tempfile::tempdir().unwrap();
    let (reader, broken) = std::io::pipe().unwrap();
    drop(reader);
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    for stderr in [Stdio::from(broken), Stdio::from(full)] {
        let status = command(folder.path(), &["get", "tokens"]).stderr(stderr).status().unwrap();
        assert_eq!(status.code(), Some(1), "refused, and no panic");
    }
}

#[test]
fn a_stdout_that_takes_nothing_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = command(folder.path(), &["completions", "bash"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(told, "error: cannot write to standard output: No space left on device (os error 28)\n");
}

#[rstest]
#[case("bash")]
#[case("zsh")]
#[case("fish")]
fn completions_are_printed(#[case] shell: &str) {
    let ran = joinctl(&["completions", shell]);
    assert_eq!(ran.code, 0);
    assert!(ran.stdout.contains("reinstate"));
}

#[test]
fn manual_pages_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let ran = run(&mut command(folder.path(), &["man", "man/man1"]));
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    for page in ["joinctl.1", "joinctl-audit-ls.1", "joinctl-bound-keypair-rotate.1"] {
        assert!(folder.path().join("man/man1").join(page).is_file(), "{page}");
    }
}

#[test]
fn an_unknown_code_lists_those_there_are() {
    let ran = joinctl(&["explain", "NO_SUCH_CODE"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("there is no code NO_SUCH_CODE"), "{}", ran.stderr);
}
