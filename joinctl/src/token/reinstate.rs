//! `joinctl reinstate`: admits a locked bot again.

use anyhow::Context as _;
use clap::Args;
use join_proto::v1::{Lock, ReasonRequest, SelectedReasonRequest, Token};

use super::{Which, is_bound, name, open_outcome};
use crate::{
    cli::Context,
    connection::{Client, walk},
    interrupt::interruptible,
    output::{self, Format, Items},
    resource::{
        Resource, columns,
        ends::ExpiredBots,
        locks::{Locks, lock_name, locked_by_rule, message},
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
        let tokens = match which.token {
            Some(name) => client.resources().reinstate(ReasonRequest { name, reason }).await?.into_inner().tokens,
            None => reinstate_selected(&client, which.selector.unwrap_or_default(), reason).await?,
        };
        let after = interruptible(async {
            let locks = Locks::fetch(&client, None).await?;
            let bots = ExpiredBots::of(&client, &tokens, None, &locks.now()).await?;
            Ok(After { locks, bots })
        });
        let after = after.await.context("reinstated, but what else stops the next join can't be told")?;
        for token in &tokens {
            for lock in after.locks.on(token) {
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

/// Reinstates each token that the selector matches. A repeat is not for nothing: it releases what locked a token since.
async fn reinstate_selected(client: &Client, selector: String, reason: String) -> anyhow::Result<Vec<Token>> {
    let request = walk(SelectedReasonRequest { selector, reason });
    let answer = async { Ok(client.resources().reinstate_selected(request).await?.into_inner().tokens) };
    interruptible(answer).await.map_err(|error| {
        open_outcome(
            error,
            "`joinctl audit ls --kind token.reinstated --since 1h` shows which are reinstated; a repeat also releases \
             locks that came since",
        )
    })
}

/// What may stop the next join once it is reinstated.
struct After {
    locks: Locks,
    bots: ExpiredBots,
}

/// What became of the token, and a line for each lock that was released.
fn told(token: &Token, before: &Locks, after: &After) -> String {
    let ended = after.bots.ended(token, &after.locks.now());
    let outcome = match (is_bound(token), after.locks.on(token).next(), ended) {
        (_, _, Some(ended)) => format!("reinstated, but its next join is not admitted: {}", ended.told()),
        (_, Some(_), None) => "reinstated, but its next join is not admitted while other locks stop it".to_owned(),
        (true, None, None) => "reinstated: its next join is admitted".to_owned(),
        (false, None, None) => {
            "has nothing bound, so that there is nothing to reinstate yet; the grant stands for its next join"
                .to_owned()
        }
    };
    let mut lines = vec![format!("token/{} {outcome}", name(token))];
    let released = before.on_name(token).filter(|lock| !after.locks.has(lock_name(lock)));
    lines.extend(released.map(|lock| format!("lock/{} released: {}", lock_name(lock), message(lock))));
    lines.join("\n")
}

/// That a lock stops the token all the same, and what ends it.
pub(super) fn still_stopped(token: &Token, lock: &Lock) -> String {
    let target = lock.spec.as_ref().and_then(|spec| spec.target.as_ref()).map(columns::target).unwrap_or_default();
    let (id, name) = (lock_name(lock), name(token));
    let end = match locked_by_rule(lock) {
        Some((token, _)) => format!("check its host, then `joinctl reinstate {token} --reason …` admits it again"),
        None => format!("`joinctl rm lock/{id}` removes it"),
    };
    format!("lock/{id} on {target} still stops token/{name} ({}); {end}", message(lock))
}

#[cfg(test)]
mod tests {
    use join_proto::v1::{LockSpec, LockStatus, LockTarget, Metadata};
    use tonic::Status;

    use super::*;
    use crate::connection::scripted::authority;

    #[test]
    fn what_a_rule_locked_is_reinstated_and_what_an_administrator_locked_is_removed() {
        let told = |cause: &str| {
            let metadata = |name: &str| Some(Metadata { name: name.into(), ..Default::default() });
            let target = Some(LockTarget { join_token: "web".into(), ..Default::default() });
            let lock = Lock {
                metadata: metadata("0b6c"),
                spec: Some(LockSpec { target, message: String::new() }),
                status: Some(LockStatus { cause: cause.into(), ..Default::default() }),
                ..Default::default()
            };
            still_stopped(&Token { metadata: metadata("web"), ..Default::default() }, &lock)
        };
        let by_rule = told("JOIN_STATE_OUTDATED");
        assert!(
            by_rule.ends_with("check its host, then `joinctl reinstate web --reason …` admits it again"),
            "{by_rule}"
        );
        assert!(told("").ends_with("`joinctl rm lock/0b6c` removes it"));
    }

    #[tokio::test]
    async fn whoever_has_no_answer_is_told_where_to_look() {
        let client = authority(|_| Err(Status::unavailable("the connection broke"))).await;
        let told = reinstate_selected(&client, "rack=12".into(), "restored".into()).await.unwrap_err();
        let told = format!("{told:#}");
        assert!(told.starts_with("no answer came, and the authority goes on to the last token"), "{told}");
        assert!(told.contains("`joinctl audit ls --kind token.reinstated --since 1h` shows"), "{told}");
    }
}
