//! The command `private-postgres`.

use std::process::{Command, Output};

fn tool(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_private-postgres")).args(arguments).output().unwrap()
}

#[test]
fn the_command_sees_the_server_and_gives_the_status() {
    let script = "test -S \"$JOIN_TEST_POSTGRES/.s.PGSQL.5432\" && echo \"$JOIN_TEST_POSTGRES_URL\"; exit 7";
    let output = tool(&["run", "--", "sh", "-c", script]);
    assert_eq!(output.status.code(), Some(7));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("postgres://postgres@%2F"), "{text}");
}

#[test]
fn a_command_that_dies_of_a_signal_is_reported_as_a_shell_would() {
    assert_eq!(tool(&["run", "sh", "-c", "kill -s TERM $$"]).status.code(), Some(128 + 15));
}

#[test]
fn wrong_usage_is_explained() {
    for arguments in [&[][..], &["walk"], &["run"], &["run", "--fast", "true"], &["run", "--dir"]] {
        let output = tool(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
    let output = tool(&["run", "/no/such/command"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("cannot run /no/such/command: "));
}
