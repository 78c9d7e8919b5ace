//! `joinctl audit`: reads, replays and verifies the ledger. It changes nothing.

mod archive;
mod export;
mod kinds;
mod ls;
mod progress;
mod proof;
mod prove;
mod replay;
mod row;
mod sealed;
mod standing;
mod temporary;
mod trust;
mod verify;

use std::{fs, io, path::Path};

use clap::{Args, Subcommand};

use crate::cli::Context;

/// `joinctl audit …`
#[derive(Args, Debug)]
pub(crate) struct Audit {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List events, oldest first.
    Ls(ls::Ls),
    /// Tell a token's state after each event, and why each decision fell as it did.
    Replay(replay::Replay),
    /// Verify the ledger: proofs, checkpoints, order, and what follows from it.
    Verify(verify::Verify),
    /// Export the ledger into a directory.
    Export(export::Export),
    /// Prove that an event stands in the ledger.
    Prove(prove::Prove),
}

impl Audit {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        match self.command {
            Command::Ls(command) => command.run(context).await,
            Command::Replay(command) => command.run(context).await,
            Command::Verify(command) => command.run(context).await,
            Command::Export(command) => command.run(context).await,
            Command::Prove(command) => command.run(context).await,
        }
    }
}

/// A file that is to be checked. What is no text in it stays wrong, and the check says so.
fn read_text(file: &Path) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&fs::read(file)?).into_owned())
}
