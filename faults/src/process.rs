//! Processes, and their sudden end.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

/// SIGKILL. A process that has ended already is no error: that is what was wanted.
pub fn kill(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, Signal::KILL);
    }
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
