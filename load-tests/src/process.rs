//! What processes use: CPU time and memory, from proc(5).

use std::{fs, path::Path};

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

/// Processes that are looked at as one.
#[derive(Debug, Clone)]
pub(crate) enum Processes {
    /// One, by its id.
    One(u32),
    /// One and its children, those that ended included: PostgreSQL.
    Family(u32),
}

impl Processes {
    /// This process.
    pub(crate) fn own() -> Self {
        Self::One(std::process::id())
    }

    /// PostgreSQL, by its data directory.
    pub(crate) fn postgres(data: &Path) -> anyhow::Result<Self> {
        let file = data.join("postmaster.pid");
        let text = fs::read_to_string(&file).with_context(|| format!("{} can't be read", file.display()))?;
        let pid = text.lines().next().and_then(|line| line.trim().parse().ok());
        Ok(Self::Family(pid.context("postmaster.pid is damaged")?))
    }

    /// Whether the (first) process is there.
    pub(crate) fn is_running(&self) -> bool {
        stat(self.pid()).is_some()
    }

    /// User and system time so far, in µs. The kernel counts in ticks of 10 ms.
    pub(crate) fn cpu_us(&self) -> f64 {
        let ticks = match self {
            Self::One(pid) => stat(*pid).map_or(0, |stat| stat.own),
            Self::Family(pid) => {
                let living: u64 = children(*pid).map(|(_, child)| child.own).sum();
                stat(*pid).map_or(0, |stat| stat.own + stat.ended_children) + living
            }
        };
        to_f64(ticks) * 10_000.0
    }

    /// Resident memory, in MB. Of a family it is what each process has of its own, and what they share: as much as the
    /// one that has touched most of it.
    pub(crate) fn memory_mb(&self) -> f64 {
        match self {
            Self::One(pid) => status_mb(*pid, "VmRSS:"),
            Self::Family(parent) => {
                let pids = || children(*parent).map(|(pid, _)| pid).chain([*parent]);
                let own: f64 = pids().map(|pid| status_mb(pid, "RssAnon:")).sum();
                let shared = pids().map(|pid| status_mb(pid, "RssFile:") + status_mb(pid, "RssShmem:"));
                own + shared.fold(0.0, f64::max)
            }
        }
    }

    /// The most that the (first) process had since the last `forget_peak_memory`, as the kernel noted it: no sample can
    /// miss it.
    pub(crate) fn peak_memory_mb(&self) -> f64 {
        status_mb(self.pid(), "VmHWM:")
    }

    /// Lets the peak begin at what is resident now.
    pub(crate) fn forget_peak_memory(&self) -> anyhow::Result<()> {
        let file = format!("/proc/{}/clear_refs", self.pid());
        fs::write(&file, "5").with_context(|| format!("{file} can't be written"))
    }

    fn pid(&self) -> u32 {
        let (Self::One(pid) | Self::Family(pid)) = self;
        *pid
    }
}

fn status_mb(pid: u32, name: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kilobytes.unwrap_or_default() / 1024.0
}

struct Stat {
    parent: u32,
    own: u64,
    ended_children: u64,
}

/// The children of a process that live.
fn children(parent: u32) -> impl Iterator<Item = (u32, Stat)> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    processes.filter_map(|pid| Some((pid, stat(pid)?))).filter(move |(_, child)| child.parent == parent)
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit(')').next()?.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        own: ticks(11)? + ticks(12)?,
        ended_children: ticks(13)? + ticks(14)?,
    })
}

/// A count as a number to calculate with; those here are far below 2^52.
#[expect(clippy::cast_precision_loss, reason = "counts of a test are far below 2^52")]
pub(crate) fn to_f64(count: u64) -> f64 {
    count as f64
}

/// The machine, in words, for the report.
pub(crate) fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    described(&read("/proc/cpuinfo"), &read("/proc/meminfo"), &read("/proc/sys/kernel/osrelease"))
}

/// Clouds give processors of several families the same name.
fn described(cpus: &str, memory: &str, kernel: &str) -> String {
    let value = |name: &str| {
        let mut fields = cpus.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(field, _)| field.trim() == name).map_or("?", |(_, value)| value.trim())
    };
    let cores = cpus.lines().filter(|line| line.starts_with("processor")).count();
    let memory = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap_or("?");
    format!(
        "{cores} × {} (family {}, model {}), {} of memory, Linux {}",
        value("model name"),
        value("cpu family"),
        value("model"),
        memory.trim(),
        kernel.trim()
    )
}

/// Waits until somebody wants this process to end, and says how.
pub(crate) async fn told_to_end() -> &'static str {
    let mut terminated = match signal(SignalKind::terminate()) {
        Ok(terminated) => terminated,
        Err(_) => return "signals can't be listened to",
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => "interrupted",
        _ = terminated.recv() => "terminated",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_processors_of_one_name_are_told_apart_by_family_and_model() {
        let cpu = "processor\t: 0\ncpu family\t: 25\nmodel\t\t: 1\nmodel name\t: AMD EPYC\n";
        assert_eq!(
            described(&cpu.repeat(2), "MemTotal:       24683656 kB\n", "6.18.44\n"),
            "2 × AMD EPYC (family 25, model 1), 24683656 kB of memory, Linux 6.18.44"
        );
        assert!(described("processor : 0\n", "", "").starts_with("1 × ? (family ?, model ?), ? of memory"));
    }
}
