//! `joinbot install`

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use join_agent::{
    config::{Config, StorageConfig},
    systemd::{self, Unit},
};

use super::terminal;

#[derive(Debug, Subcommand)]
pub(crate) enum Install {
    /// Print a systemd unit, or write it
    Systemd(Systemd),
}

#[derive(Debug, Args)]
pub(crate) struct Systemd {
    /// Write the unit instead of printing it
    #[arg(long)]
    write: bool,
    /// Overwrite a unit that differs
    #[arg(long, requires = "write")]
    force: bool,
    /// The agent's configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The user to run as
    #[arg(long)]
    user: String,
    /// The group to run as
    #[arg(long)]
    group: String,
    /// The unit's name
    #[arg(long, default_value = "joinbot")]
    name: String,
    /// Where units are
    #[arg(long, default_value = "/etc/systemd/system", value_name = "DIR")]
    systemd_directory: PathBuf,
}

impl Install {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let Self::Systemd(systemd) = self;
        systemd.run()
    }
}

impl Systemd {
    fn run(self) -> Result<ExitCode> {
        let path = std::path::absolute(&self.config)?;
        let text = super::read_config(&path)?;
        Config::refuse_relative_paths(&text).with_context(|| path.display().to_string())?;
        let config = super::parse_config(&path, &text)?;
        config.check_renewal().with_context(|| path.display().to_string())?;
        let storage = match &config.storage {
            StorageConfig::Directory(storage) => Some(storage.as_path()),
            StorageConfig::Memory => None,
        };
        let program = std::env::current_exe().context("cannot find this program's own path")?;
        let unit = Unit {
            program: &program,
            config: &path,
            user: &self.user,
            group: &self.group,
            storage,
            outputs: &config.outputs,
        };
        let text = unit.render().map_err(anyhow::Error::msg)?;
        self.warn(&unit, &config);
        if !self.write {
            terminal::print(&text)?;
            return Ok(ExitCode::SUCCESS);
        }
        if !self.name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@')) {
            bail!("`{}` is not a unit's name", self.name);
        }
        let path = self.systemd_directory.join(format!("{}.service", self.name));
        let differs = fs::read_to_string(&path).is_ok_and(|there| there != text);
        if differs && !self.force {
            bail!("{} exists and differs; --force overwrites it", path.display());
        }
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        terminal::say(format_args!(
            "wrote {}\nnow type: systemctl daemon-reload && systemctl enable --now {}",
            path.display(),
            self.name
        ));
        Ok(ExitCode::SUCCESS)
    }

    /// Says what the unit would fail for at its start, with the commands that help: whoever installs it can type them.
    fn warn(&self, unit: &Unit<'_>, config: &Config) {
        let Self { user, group, .. } = self;
        let (user_id, group_id) = (id("passwd", user), id("group", group));
        let missing = |what: &str, name: &str, command: &str| {
            terminal::say(format_args!(
                "warning: there is no {what} `{name}` on this machine; make it with: {command}"
            ));
        };
        let both = user == group && user_id == Id::Missing && group_id == Id::Missing;
        if group_id == Id::Missing && !both {
            missing("group", group, &format!("groupadd --system {group}"));
        }
        if user_id == Id::Missing {
            let group = if both { "--user-group".to_owned() } else { format!("--gid {group}") };
            missing("user", user, &format!("useradd --system {group} --shell /usr/sbin/nologin {user}"));
        }
        let storage = unit.storage.filter(|_| unit.state_directory().is_none());
        let storage = storage.map(|directory| (directory, true));
        let outputs = config.outputs.iter().map(|output| (output.directory(), false));
        for (directory, is_storage) in outputs.chain(storage) {
            if let Some(trouble) = self.trouble_with(directory, is_storage, user_id, group_id) {
                terminal::say(format_args!("warning: {} {trouble} '{}'", directory.display(), quoted(directory)));
            }
        }
    }

    /// Why the agent could not write into this directory, and the command that helps, without its last word.
    fn trouble_with(&self, directory: &Path, is_storage: bool, user_id: Id, group_id: Id) -> Option<String> {
        let Self { user, group, .. } = self;
        let Ok(found) = fs::metadata(directory) else {
            let may_make = user == "root" || user_id == Id::Unknown || user_id == Id::of_owner(directory);
            let mode = if is_storage { "-m 700 " } else { "" };
            return (!may_make || systemd::opened(directory).is_some()).then(|| {
                format!(
                    "is not there, and `{user}` cannot make it; make it with: install -d {mode}-o {user} -g {group}"
                )
            });
        };
        let is_anothers = user_id != Id::Unknown && user_id != Id::Known(found.uid());
        let by_group = found.mode() & 0o020 != 0 && group_id == Id::Known(found.gid());
        // The storage has to be the user's own, with what is in it.
        let can_write = !is_storage && (user == "root" || by_group || found.mode() & 0o002 != 0);
        let all = if is_storage { "-R " } else { "" };
        (is_anothers && !can_write).then(|| {
            format!(
                "belongs to another user, and `{user}` has to write there; hand it over with: chown {all}{user}:{group}"
            )
        })
    }
}

/// The inside of a word in single quotes.
fn quoted(path: &Path) -> String {
    path.display().to_string().replace('\'', r"'\''")
}

/// A user or group, as this machine knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Id {
    Known(u32),
    Missing,
    /// It could not be asked for, so nothing is said about it.
    Unknown,
}

impl Id {
    /// Whoever may make this directory: the owner of the nearest one that is there.
    fn of_owner(directory: &Path) -> Self {
        let there = directory.ancestors().find_map(|directory| fs::metadata(directory).ok());
        there.map_or(Self::Unknown, |there| Self::Known(there.uid()))
    }
}

/// Asks `getent`, since users may be kept elsewhere than in files.
fn id(database: &str, name: &str) -> Id {
    let answer = Command::new("getent").args(["--", database, name]).stdin(Stdio::null()).output();
    match answer {
        Ok(answer) if answer.status.code() == Some(2) => Id::Missing,
        // name:password:id:…
        Ok(answer) => {
            let id = String::from_utf8_lossy(&answer.stdout).split(':').nth(2).and_then(|id| id.trim().parse().ok());
            id.map_or(Id::Unknown, Id::Known)
        }
        Err(_) => Id::Unknown,
    }
}
