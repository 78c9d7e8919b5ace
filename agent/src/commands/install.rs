//! `joinbot install`

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use join_agent::systemd::Unit;

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
        let config = std::path::absolute(&self.config)?;
        super::load_config(&config)?;
        let program = std::env::current_exe().context("cannot find this program's own path")?;
        let unit = Unit { program: &program, config: &config, user: &self.user, group: &self.group };
        let text = unit.render().map_err(anyhow::Error::msg)?;
        if !self.write {
            print!("{text}");
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
        eprintln!(
            "wrote {}\nnow type: systemctl daemon-reload && systemctl enable --now {}",
            path.display(),
            self.name
        );
        Ok(ExitCode::SUCCESS)
    }
}
