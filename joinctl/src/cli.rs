//! The command line: what can be typed, and where each command is.

use clap::{CommandFactory as _, Parser, Subcommand, error::ErrorKind};

use crate::{
    audit::Audit,
    bots::Bots,
    connection::{Client, Connection},
    explain::Explain,
    lock::LockCommand,
    output::Format,
    resource::{apply::Apply, create::Create, edit::Edit, get::Get, rm::Rm},
    shell::{Completions, Man},
    status,
    token::{BoundKeypair, exempt::Exempt, reinstate::Reinstate, reopen::Reopen},
};

/// Administers a join authority, and audits it.
#[derive(Debug, Parser)]
#[command(
    version,
    arg_required_else_help = true,
    after_long_help = "Data goes to stdout, everything else to stderr. Exit codes: 0 done, 1 refused or wrong usage, \
2 the server could not be reached, or did not seal in time what was to be verified, 3 a verification found a fault, 130 interrupted by Ctrl-C."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    context: Context,

    #[command(subcommand)]
    command: Command,
}

/// What every command knows.
#[derive(Debug, clap::Args)]
pub(crate) struct Context {
    #[command(flatten)]
    connection: Connection,

    /// Shape of the data on stdout.
    #[arg(long, global = true, value_enum, default_value_t, help_heading = "Global options")]
    pub(crate) format: Format,
}

impl Context {
    pub(crate) async fn connect(&self) -> anyhow::Result<Client> {
        self.connection.connect().await
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create resources out of files; -f replaces.
    Create(Create),
    /// Make resources those of a directory; --dry-run only shows the differences.
    Apply(Apply),
    /// Show resources.
    Get(Get),
    /// Edit a resource in $EDITOR.
    Edit(Edit),
    /// Delete a resource, lift a lock, revoke an exemption.
    Rm(Rm),
    /// Lock a token, bot, instance or key: it can't join any more, at once.
    Lock(LockCommand),
    /// Manage bound keypairs.
    BoundKeypair(BoundKeypair),
    /// Add and list bots and their instances.
    Bots(Bots),
    /// Let a token pass a rule a number of times.
    Exempt(Exempt),
    /// Admit a locked bot again, with nothing changed on its host.
    Reinstate(Reinstate),
    /// Open registration again with a new secret: the host was reinstalled, or its key is in doubt.
    Reopen(Reopen),
    /// Explain an error code.
    Explain(Explain),
    /// Read, replay, verify and export the ledger.
    Audit(Audit),
    /// Tell how the authority is.
    Status,
    /// Print completions for a shell.
    Completions(Completions),
    /// Write manual pages into a directory.
    Man(Man),
}

/// Reads the command line. Of wrong usage is told what it would be without the environment: usage that names what is set
/// there looks as if it had to be given.
pub(crate) fn parse() -> Result<Cli, clap::Error> {
    Cli::try_parse().map_err(|error| {
        if !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
            return error;
        }
        let by_environment = ["addr", "identity"];
        let without = by_environment
            .into_iter()
            .fold(Cli::command(), |command, option| command.mut_arg(option, |option| option.env(None::<&str>)));
        without.try_get_matches().err().unwrap_or(error)
    })
}

impl Cli {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let Self { context, command } = self;
        match command {
            Command::Create(command) => command.run(&context).await,
            Command::Apply(command) => command.run(&context).await,
            Command::Get(command) => command.run(&context).await,
            Command::Edit(command) => command.run(&context).await,
            Command::Rm(command) => command.run(&context).await,
            Command::Lock(command) => command.run(&context).await,
            Command::BoundKeypair(command) => command.run(&context).await,
            Command::Bots(command) => command.run(&context).await,
            Command::Exempt(command) => command.run(&context).await,
            Command::Reinstate(command) => command.run(&context).await,
            Command::Reopen(command) => command.run(&context).await,
            Command::Explain(command) => command.run(context.format),
            Command::Audit(command) => command.run(&context).await,
            Command::Status => status::run(&context).await,
            Command::Completions(command) => command.run(),
            Command::Man(command) => command.run(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::Cli;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_a_summary() {
        fn check(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }
}
