//! Files are read and checked before any server is asked: none is there, and none is missed.

use std::{fs, io::Write as _, process::Stdio};

use crate::{command, run};

const BOT: &str = "kind: bot\nversion: v1\nmetadata: {name: example}\nspec: {roles: []}\n";
const WRONG: &str =
    "kind: token\nversion: v2\nmetadata: {name: example}\nspec: {bound_keypair: {recovery: {limt: 2}}}\n";

#[test]
fn a_mistake_is_told_with_file_document_and_field() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("both.yaml"), format!("{BOT}---\n{WRONG}")).unwrap();
    let mistake =
        "error: both.yaml, document 2: spec.bound_keypair.recovery.limt: unknown key; allowed here: mode, limit\n";
    for arguments in [&["create", "both.yaml"][..], &["create", "-f", "both.yaml"], &["apply", "-f", "both.yaml"]] {
        let ran = run(&mut command(folder.path(), arguments));
        assert_eq!((ran.code, ran.stderr.as_str()), (1, mistake));
        assert_eq!(ran.stdout, "");
    }
}

#[test]
fn stdin_is_a_file_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut child =
        command(folder.path(), &["create", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"kind: node\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.starts_with("error: stdin, document 1: kind: unknown kind node"), "{told}");
}

#[test]
fn an_empty_stdin_is_told_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let ran = run(&mut command(folder.path(), &["create", "-"]));
    assert_eq!((ran.code, ran.stderr.as_str()), (1, "error: no resource in stdin\n"));
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let ran = run(&mut command(folder.path(), &["create", "bot.yaml"]));
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.starts_with("error: cannot read bot.yaml: No such file"), "{}", ran.stderr);
}

#[test]
fn what_is_right_goes_on_to_look_for_the_server() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("bot.yaml"), BOT).unwrap();
    let ran = run(&mut command(folder.path(), &["create", "bot.yaml"]));
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("joind dev"), "{}", ran.stderr);
}
