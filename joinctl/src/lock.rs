//! `joinctl lock`: stops joins at once.

use clap::Args;
use join_proto::v1::{Lock, LockSpec, LockTarget, Metadata};

use crate::{
    cli::Context,
    output,
    resource::{Kind, Resource},
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

    /// How long the lock holds, such as 2h; without, until it is lifted.
    #[arg(long, value_name = "DURATION")]
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
            spec: Some(LockSpec { target: Some(target), message: self.message }),
            status: None,
        };
        let created = client.create(Resource::Lock(lock)).await?;
        output::print(context.format, &created.tree(), || format!("{} created\n", created.reference()))
    }
}
