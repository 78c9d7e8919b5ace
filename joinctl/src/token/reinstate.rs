//! `joinctl reinstate`: admits a locked bot again.

use anyhow::Context as _;
use clap::Args;
use join_proto::v1::{Lock, ReasonRequest, SelectedReasonRequest, Token};

use super::{Which, is_bound, name};
use crate::{
    cli::Context,
    connection::walk,
    output::{self, Format, Items},
    resource::{
        Resource, columns,
        locks::{Locks, lock_name, message},
    },
};

/// Which tokens, and why.
#[derive(Args, Debug)]
#[command(after_long_help = "Releases the token's own locks and lets its next join pass once, whatever became \
outdated meanwhile. Locks on the bot's user, on the instance or on the key stay: they are told, with the command that \
removes each. \
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
        let client = context.connect().await?;
        let before = Locks::fetch(&client, None).await?;
        let mut calls = client.resources();
        let answer = match (which.token, which.selector) {
            (Some(name), _) => calls.reinstate(ReasonRequest { name, reason }).await?,
            (None, selector) => {
                let selector = selector.unwrap_or_default();
                calls.reinstate_selected(walk(SelectedReasonRequest { selector, reason })).await?
            }
        };
        let tokens = answer.into_inner().tokens;
        let after = Locks::fetch(&client, None).await.context("reinstated, but the locks that stay can't be told")?;
        for token in &tokens {
            for lock in after.on(token) {
                output::say(format!("warning: {}", still_stopped(token, lock)));
            }
        }
        if context.format == Format::Text {
            return tokens.iter().try_for_each(|token| output::line(&told(token, &before, &after)));
        }
        let mut items = Items::begin(crate::output::stdout(), context.format);
        for token in tokens {
            output::say(told(&token, &before, &after));
            items.push(&Resource::Token(token).tree())?;
        }
        Ok(items.end()?)
    }
}

/// What became of the token, and a line for each lock that was released.
fn told(token: &Token, before: &Locks, after: &Locks) -> String {
    let outcome = match (is_bound(token), after.on(token).next()) {
        (_, Some(_)) => "reinstated, but its next join is not admitted while other locks stop it",
        (true, None) => "reinstated: its next join is admitted",
        (false, None) => {
            "has nothing bound, so that there is nothing to reinstate yet; the grant stands for its next join"
        }
    };
    let mut lines = vec![format!("token/{} {outcome}", name(token))];
    let released = before.on_name(token).filter(|lock| !after.has(lock_name(lock)));
    lines.extend(released.map(|lock| format!("lock/{} released: {}", lock_name(lock), message(lock))));
    lines.join("\n")
}

fn still_stopped(token: &Token, lock: &Lock) -> String {
    let target = lock.spec.as_ref().and_then(|spec| spec.target.as_ref()).map(columns::target).unwrap_or_default();
    let id = lock_name(lock);
    format!(
        "lock/{id} on {target} still stops token/{} ({}); `joinctl rm lock/{id}` removes it",
        name(token),
        message(lock)
    )
}
