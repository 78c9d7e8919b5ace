//! `joinctl lock`: stops joins at once.

use anyhow::Context as _;
use clap::Args;
use join_proto::v1::{Lock, LockSpec, LockTarget, Metadata};

use crate::{
    cli::Context,
    connection::{Client, Selection},
    moment::duration,
    output,
    resource::{
        Kind, Reference, Resource,
        locks::{is_on, lock_name},
    },
};

/// What to lock, and why.
#[derive(Args, Debug)]
#[command(after_long_help = "The lock's name is printed; `joinctl rm lock/NAME` lifts it.

Examples:
  joinctl lock --join-token example --message 'host is being examined'
  joinctl lock --user bot-example --ttl 2h")]
pub(crate) struct LockCommand {
    #[command(flatten)]
    target: Target,

    /// Shown to those who are refused.
    #[arg(long, short, default_value = "", hide_default_value = true)]
    message: String,

    /// How long the lock holds, such as 30m (minutes; M is months), 2h or 7d; without, until it is lifted.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    ttl: Option<humantime::Duration>,
}

/// Exactly one of them.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct Target {
    /// A join token.
    #[arg(long, value_name = "NAME")]
    join_token: Option<String>,

    /// A bot's user, bot-NAME.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,

    /// One instance of a bot.
    #[arg(long, value_name = "ID")]
    bot_instance_id: Option<String>,

    /// A public key, in authorized_keys form or as its SHA256: fingerprint.
    #[arg(long, value_name = "KEY")]
    public_key: Option<String>,
}

impl LockCommand {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let client = context.connect().await?;
        let Target { join_token, user, bot_instance_id, public_key } = self.target;
        let target = LockTarget {
            user: user.unwrap_or_default(),
            bot_instance_id: bot_instance_id.unwrap_or_default(),
            join_token: join_token.unwrap_or_default(),
            public_key: public_key.unwrap_or_default(),
        };
        let lock = Lock {
            kind: Kind::Lock.name().to_owned(),
            version: Kind::Lock.version().to_owned(),
            metadata: Some(Metadata { expires: client.expiry(self.ttl).await?, ..Default::default() }),
            spec: Some(LockSpec { target: Some(target.clone()), message: self.message }),
            status: None,
        };
        let created = client.create(Resource::Lock(lock)).await?;
        output::print(context.format, &created.tree(), || format!("{} created\n", created.reference()))
            .with_context(|| format!("{} is in force", created.reference()))?;
        // What nobody has may be locked for later; it may be a slip of the pen, too.
        match (named(&target), &created) {
            (Some(locked), _) => warn_when_missing(&client, &locked, &created.reference()).await,
            (None, Resource::Lock(lock)) => warn_when_unbound(&client, lock).await,
            (None, _) => {}
        }
        Ok(())
    }
}

/// The resource that the target names; a key is none.
fn named(target: &LockTarget) -> Option<Reference> {
    let LockTarget { user, bot_instance_id, join_token, .. } = target;
    let bot = user.strip_prefix("bot-").unwrap_or_default();
    [(Kind::Token, join_token.as_str()), (Kind::Bot, bot), (Kind::BotInstance, bot_instance_id)]
        .into_iter()
        .find(|(_, name)| !name.is_empty())
        .map(|(kind, name)| Reference { kind, name: name.to_owned() })
}

/// The lock stands whatever comes of this, so nothing here is an error.
async fn warn_when_missing(client: &Client, locked: &Reference, lock: &Reference) {
    let warning = match client.find(locked.kind, &locked.name).await {
        Ok(Some(_)) => return,
        Ok(None) => format!("there is no {locked} now: {lock} locks nothing until there is one of that name"),
        Err(_) => format!("whether there is a {locked} could not be seen"),
    };
    output::say(format!("warning: {warning}"));
}

/// Warns when no token's next join would prove the locked key: the key of a bot's certificate, which its outputs have, looks
/// like the one that is bound, and is another.
async fn warn_when_unbound(client: &Client, lock: &Lock) {
    let warning = match is_on_a_token(client, lock).await {
        Ok(true) => return,
        Ok(false) => format!(
            "no token has this key bound now, so lock/{} stops no bot that joins with the key it has; it is for certificates \
             that were issued to this key, and for whoever shows it. `joinbot status` on the bot's host, or bound_public_key \
             in `joinctl get token/NAME --format json`, shows the key that is bound",
            lock_name(lock)
        ),
        Err(_) => "whether a token has this key bound could not be seen".to_owned(),
    };
    output::say(format!("warning: {warning}"));
}

async fn is_on_a_token(client: &Client, lock: &Lock) -> anyhow::Result<bool> {
    let (every, mut cursor) = (Selection::default(), String::new());
    loop {
        let (tokens, next) = client.page(Kind::Token, &every, cursor).await?;
        if tokens.iter().any(|found| matches!(found, Resource::Token(token) if is_on(lock, token))) {
            return Ok(true);
        }
        if next.is_empty() {
            return Ok(false);
        }
        cursor = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_names_a_token_a_bot_or_an_instance() {
        let told = |target: LockTarget| named(&target).map(|it| it.to_string());
        let none = LockTarget::default();
        assert_eq!(told(LockTarget { join_token: "web".into(), ..none.clone() }).as_deref(), Some("token/web"));
        assert_eq!(told(LockTarget { user: "bot-web".into(), ..none.clone() }).as_deref(), Some("bot/web"));
        let id = LockTarget { bot_instance_id: "0b6c".into(), ..none.clone() };
        assert_eq!(told(id).as_deref(), Some("bot_instance/0b6c"));
        assert_eq!(told(LockTarget { public_key: "SHA256:abc".into(), ..none }), None);
    }
}
