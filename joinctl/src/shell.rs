//! Completions and manual pages, out of the command line itself.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::roff::{Roff, roman};

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
            .and_then(|()| {
                let mut command = Cli::command().disable_help_subcommand(true);
                command.build();
                write_pages(&command, &self.directory)
            })
            .with_context(|| format!("cannot write manual pages into {shown}"))?;
        output::line(&format!("manual pages written into {shown}"))
    }
}

/// Writes the pages of a command and of those below it.
fn write_pages(command: &clap::Command, directory: &Path) -> io::Result<()> {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        write_pages(below, directory)?;
    }
    // What the library makes of it by itself leaves out what options take.
    let usage = command.clone().render_usage().to_string();
    let page = clap_mangen::Man::new(command.clone().override_usage(usage.trim_start_matches("Usage: ").to_owned()));
    fs::write(directory.join(page.get_filename()), rendered(command, &page)?)
}

/// A page. What stands behind the help has sections of its own, as people look for them.
fn rendered(command: &clap::Command, page: &clap_mangen::Man) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    if command.get_subcommands().any(|below| !below.is_hide_set()) {
        page.render_subcommands_section(&mut text)?;
    }
    let behind = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
    sections(&behind).to_writer(&mut text)?;
    Ok(text)
}

fn sections(behind: &str) -> Roff {
    let examples = |text: &str| ["Examples:\n", "Example:\n"].iter().find_map(|it| split(text, it));
    let (rest, examples) = examples(behind).unwrap_or_else(|| (behind.to_owned(), String::new()));
    let (notes, exit_status) = split(&rest, "Exit codes: ").unwrap_or((rest, String::new()));
    let mut roff = Roff::new();
    for (heading, text) in [("NOTES", notes), ("EXIT STATUS", exit_status)] {
        if !text.trim().is_empty() {
            roff.control("SH", [heading]).text([roman(text.trim())]);
        }
    }
    if !examples.is_empty() {
        roff.control("SH", ["EXAMPLES"]).control("nf", []);
        for line in examples.lines() {
            roff.text([roman(line.trim())]);
        }
        roff.control("fi", []);
    }
    roff
}

fn split(text: &str, at: &str) -> Option<(String, String)> {
    text.split_once(at).map(|(before, after)| (before.to_owned(), after.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_have_the_environment_and_the_sections_that_people_look_for() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Cli::command().disable_help_subcommand(true);
        command.build();
        write_pages(&command, folder.path()).unwrap();
        let page = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        for name in ["joinctl.1", "joinctl-bots-add.1"] {
            let page = page(name);
            assert!(page.contains("JOINCTL_ADDR") && page.contains("JOINCTL_IDENTITY"), "{page}");
            assert!(!page.contains("EXTRA"), "{page}");
        }
        let add = page("joinctl-bots-add.1").replace("\\-", "-");
        assert!(add.contains("[OPTIONS] <NAME>") && !add.contains("[--addr]"), "{add}");
        assert!(page("joinctl.1").contains(".SH \"EXIT STATUS\"\n0 done"), "{}", page("joinctl.1"));
        let examples = ".SH EXAMPLES\n.nf\njoinctl bots add deployer";
        assert!(page("joinctl-bots-add.1").replace("\\-", "-").contains(examples), "{}", page("joinctl-bots-add.1"));
    }
}
