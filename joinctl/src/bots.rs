//! `joinctl bots`: bots and their instances.

mod add;
mod instances;

use clap::{Args, Subcommand};

use crate::{
    cli::Context,
    connection::Selection,
    resource::{Kind, get},
};

/// `joinctl bots …`
#[derive(Args, Debug)]
pub(crate) struct Bots {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Add a bot and its token in one go, and print how it joins.
    Add(add::Add),
    /// List bots.
    Ls,
    /// Show what has joined.
    Instances(instances::Instances),
}

impl Bots {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        match self.command {
            Command::Add(command) => command.run(context).await,
            Command::Ls => get::list(context, Kind::Bot, &Selection::default()).await,
            Command::Instances(command) => command.run(context).await,
        }
    }
}
