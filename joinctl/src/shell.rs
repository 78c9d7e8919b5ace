//! Completions and manual pages, out of the command line itself.

use std::{fs, io::Write as _, path::PathBuf};

use anyhow::Context as _;
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::{cli::Cli, output};

/// Which shell.
#[derive(Args, Debug)]
pub(crate) struct Completions {
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        // Into memory first: the generator panics when its reader goes away.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "joinctl", &mut script);
        Ok(crate::output::stdout().write_all(&script)?)
    }
}

/// Where to.
#[derive(Args, Debug)]
pub(crate) struct Man {
    /// Made when it is not there.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

impl Man {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let shown = self.directory.display();
        fs::create_dir_all(&self.directory)
            .and_then(|()| clap_mangen::generate_to(Cli::command(), &self.directory))
            .with_context(|| format!("cannot write manual pages into {shown}"))?;
        output::line(&format!("manual pages written into {shown}"))
    }
}
