//! The command as a user meets it: without a server, and with a real one.

mod administration;
mod auditing;
mod authority;
mod files;
mod locking;
mod tampering;
mod together;
mod usage;
mod verify;

use std::{
    path::Path,
    process::{Command, Stdio},
};

/// What a run left behind.
struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

/// `joinctl` in `directory`, with nothing of the tester's own environment that could lead it to a server.
fn command(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_joinctl"));
    command
        .args(arguments)
        .current_dir(directory)
        .env("HOME", directory)
        .env_remove("JOINCTL_ADDR")
        .env_remove("JOINCTL_IDENTITY")
        .stdin(Stdio::null());
    command
}

fn run(command: &mut Command) -> Ran {
    let output = command.output().unwrap();
    Ran {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs `joinctl` in an empty directory.
fn joinctl(arguments: &[&str]) -> Ran {
    run(&mut command(tempfile::tempdir().unwrap().path(), arguments))
}
