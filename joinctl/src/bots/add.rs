//! `joinctl bots add`: a bot and its token, and how it joins.

use std::collections::HashMap;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use join_proto::v1::{Bot, BotSpec, BoundKeypairSpec, Metadata, Recovery, Token, TokenSpec, Trait};

use crate::{
    cli::Context,
    connection::Client,
    output,
    resource::{Kind, Resource},
    token::joining_command,
};

/// The bot and its token.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  joinctl bots add deployer --roles deploy --logins deploy,root --recovery-limit 3
  joinctl bots add web-12-1 --labels rack=12,team=web
  joinctl bots add ci --recovery-mode insecure")]
pub(crate) struct Add {
    /// Name of the bot.
    name: String,

    /// Roles of the bot, with commas.
    #[arg(long, value_name = "ROLE", value_delimiter = ',')]
    roles: Vec<String>,

    /// Logins for which its SSH certificate is good, with commas.
    #[arg(long, value_name = "LOGIN", value_delimiter = ',')]
    logins: Vec<String>,

    /// Labels of the bot and of its token, with commas; `--selector` finds them by these.
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',', value_parser = label)]
    labels: Vec<(String, String)>,

    /// How many recoveries there may be, the first join included.
    #[arg(long, value_name = "N")]
    recovery_limit: Option<u32>,

    /// What is checked when the bot recovers.
    #[arg(long, value_enum)]
    recovery_mode: Option<Mode>,

    /// Name of the token; the bot's when not given.
    #[arg(long, value_name = "NAME")]
    token: Option<String>,
}

/// One label.
fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a label is written KEY=VALUE, such as rack=12")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Mode {
    /// Limit and join state.
    Standard,
    /// Join state, no limit.
    Relaxed,
    /// Neither; for static keys, as in CI.
    Insecure,
}

impl Add {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let (bot, token) = self.resources()?;
        bot.check()?;
        token.check()?;
        let client = context.connect().await?;
        for reference in [bot.reference(), token.reference()] {
            if client.find(reference.kind, &reference.name).await?.is_some() {
                bail!("{reference} exists already; nothing was created");
            }
        }
        // Without it nobody could be told how the bot joins.
        let ca = client.ca().await?;
        let bot = client.create(bot).await?;
        let created = match client.create(token).await {
            Ok(created) => created,
            Err(error) => return Err(error.context(undo(&client, &bot).await)),
        };
        let Resource::Token(token) = &created else { bail!("the authority answered with a {}", created.kind()) };
        let uri = client.joining_uri(token, &ca).with_context(|| {
            format!("{} and {} are created, but the joining URI is not known", bot.reference(), created.reference())
        })?;
        output::print(context.format, &tree(&bot, &created, &uri), || {
            format!(
                "{} created\n{} created\n\n\
                 joining URI (it holds a secret that is good for one join):\n  {uri}\n\n\
                 on the bot's host:\n  {}\n",
                bot.reference(),
                created.reference(),
                joining_command(&uri)
            )
        })
    }

    fn resources(self) -> anyhow::Result<(Resource, Resource)> {
        let mut labels = HashMap::new();
        for (key, value) in self.labels {
            if let Some(other) = labels.insert(key.clone(), value.clone()) {
                bail!("--labels: {key} is both {other:?} and {value:?}: give it once");
            }
        }
        let metadata =
            |name: &str| Some(Metadata { name: name.to_owned(), labels: labels.clone(), ..Default::default() });
        let traits = if self.logins.is_empty() {
            Vec::new()
        } else {
            vec![Trait { name: "logins".to_owned(), values: self.logins }]
        };
        let bot = Bot {
            kind: Kind::Bot.name().to_owned(),
            version: Kind::Bot.version().to_owned(),
            metadata: metadata(&self.name),
            spec: Some(BotSpec { roles: self.roles, traits }),
            status: None,
        };
        let mode = self.recovery_mode.and_then(|mode| mode.to_possible_value()).map(|word| word.get_name().to_owned());
        let recovery = Recovery { mode, limit: self.recovery_limit };
        let token = Token {
            kind: Kind::Token.name().to_owned(),
            version: Kind::Token.version().to_owned(),
            metadata: metadata(self.token.as_deref().unwrap_or(&self.name)),
            spec: Some(TokenSpec {
                roles: vec!["Bot".to_owned()],
                bot_name: self.name,
                join_method: join_proto::JOIN_METHOD.to_owned(),
                bound_keypair: Some(BoundKeypairSpec { recovery: Some(recovery), ..Default::default() }),
            }),
            status: None,
        };
        Ok((Resource::Bot(bot), Resource::Token(token)))
    }
}

/// A bot without its token would be half of what was asked for.
async fn undo(client: &Client, bot: &Resource) -> String {
    let reference = bot.reference();
    match client.delete(reference.kind, &reference.name, bot.revision()).await {
        Ok(()) => format!("the token was refused, and {reference} is deleted again"),
        Err(error) => format!("the token was refused, and {reference}, just created, could not be deleted ({error})"),
    }
}

fn tree(bot: &Resource, token: &Resource, uri: &str) -> serde_yaml_ng::Value {
    let fields = [("bot", bot.tree()), ("token", token.tree()), ("join_uri", uri.into())];
    fields.into_iter().map(|(name, value)| (name.into(), value)).collect::<serde_yaml_ng::Mapping>().into()
}
