//! Processes, and their sudden end.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::{Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

/// Does this, unless Ctrl-C or SIGTERM ends it: it is dropped then, and with it whatever it has started. Nothing is begun
/// after that.
///
/// # Errors
/// Its own, or that it was ended.
pub async fn unless_ended<T>(doing: impl Future<Output = Result<T>>) -> Result<T> {
    static ENDED: AtomicBool = AtomicBool::new(false);
    let (mut interrupted, mut terminated) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    if !ENDED.load(Ordering::SeqCst) {
        tokio::select! {
            done = doing => return done,
            _ = interrupted.recv() => {}
            _ = terminated.recv() => {}
        }
        ENDED.store(true, Ordering::SeqCst);
    }
    bail!("ended by a signal")
}

/// SIGKILL; returns whether there was such a process.
pub fn kill(pid: i32) -> bool {
    Pid::from_raw(pid).is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok())
}

/// The processes that `parent` has started and that live.
pub fn children(parent: i32) -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| parent_of(*pid) == Some(parent)).collect()
}

/// What a process calls itself.
pub fn title(pid: i32) -> String {
    fs::read(format!("/proc/{pid}/cmdline"))
        .map(|title| String::from_utf8_lossy(&title).into_owned())
        .unwrap_or_default()
}

fn parent_of(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it is in brackets and may hold anything.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}
