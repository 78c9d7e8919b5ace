//! `joinctl reinstate`: admits a locked bot again.

use std::io;

use clap::Args;
use join_proto::v1::{ReasonRequest, SelectedReasonRequest};

use super::{Which, name};
use crate::{
    cli::Context,
    output::{self, Format, Items},
    resource::Resource,
};

/// Which tokens, and why.
#[derive(Args, Debug)]
#[command(after_long_help = "Releases the token's own locks and lets its next join pass once, whatever became \
outdated meanwhile. \
Check the host first: whoever comes first with the key is admitted.

Examples:
  joinctl reinstate example --reason 'disk image was restored on purpose, ticket 4711'
  joinctl reinstate --selector rack=12 --reason 'rack 12 was restored from backup'")]
pub(crate) struct Reinstate {
    #[command(flatten)]
    which: Which,

    /// Why; it stands in the ledger.
    #[arg(long)]
    reason: String,
}

impl Reinstate {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let Self { which, reason } = self;
        let mut calls = context.connect().await?.resources();
        let answer = match (which.token, which.selector) {
            (Some(name), _) => calls.reinstate(ReasonRequest { name: name.clone(), reason }).await?,
            (None, selector) => {
                let selector = selector.unwrap_or_default();
                calls.reinstate_selected(SelectedReasonRequest { selector, reason }).await?
            }
        };
        let tokens = answer.into_inner().tokens;
        if context.format == Format::Text {
            if tokens.is_empty() {
                eprintln!("no token matches: nothing was done");
            }
            return tokens.iter().try_for_each(|token| {
                output::line(&format!("token/{} reinstated: its next join is admitted", name(token)))
            });
        }
        let mut items = Items::begin(io::stdout(), context.format);
        for token in tokens {
            items.push(&Resource::Token(token).tree())?;
        }
        Ok(items.end()?)
    }
}
