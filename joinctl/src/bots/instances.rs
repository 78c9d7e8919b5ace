//! `joinctl bots instances`: the joined lineages of bots, live and expired.

use clap::{Args, Subcommand, ValueEnum};

use crate::{
    cli::Context,
    connection::Selection,
    resource::{Kind, get},
};

/// `joinctl bots instances …`
#[derive(Args, Debug)]
pub(crate) struct Instances {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List instances.
    Ls(Ls),
}

/// Which instances.
#[derive(Args, Debug)]
#[command(after_long_help = "Example:
  joinctl bots instances ls --health expired")]
struct Ls {
    /// Only those that are in this state.
    #[arg(long, value_enum)]
    health: Option<Health>,

    /// Only those of this bot.
    #[arg(long, value_name = "NAME")]
    bot: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Health {
    /// The certificate is good.
    Active,
    /// The certificate is about to expire.
    Expiring,
    /// The certificate has expired.
    Expired,
    /// A lock is in force.
    Locked,
    /// A proven holder was refused.
    Contested,
}

impl Instances {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let Command::Ls(Ls { health, bot }) = self.command;
        let health = health.and_then(|health| health.to_possible_value());
        let selection = Selection {
            bot: bot.unwrap_or_default(),
            health: health.map(|word| word.get_name().to_owned()).unwrap_or_default(),
            ..Default::default()
        };
        get::list(context, Kind::BotInstance, &selection).await
    }
}
