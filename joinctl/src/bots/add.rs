//! `joinctl bots add`: a bot and its token, and how it joins.

use std::collections::HashMap;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use join_proto::v1::{Bot, BotSpec, BoundKeypairSpec, Metadata, Recovery, Token, TokenSpec, Trait};

use crate::{
    cli::Context,
    connection::Client,
    exit::is_outcome_unknown,
    output::{self, tree::mapping},
    resource::{Kind, Reference, Resource, vain},
    token::{JoinAddress, joining_command},
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

    #[command(flatten)]
    join: JoinAddress,
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
        let join = self.join.clone();
        let (bot, token) = self.resources()?;
        bot.check()?;
        token.check()?;
        let client = join.or_of(context.connect().await?);
        let (bot, token, uri) = add(&client, bot, token).await?;
        let printed = output::print(context.format, &tree(&bot, &token, &uri), || {
            format!(
                "{} created\n{} created\n\n\
                 joining URI (it holds a secret that is good for one join):\n  {uri}\n\n\
                 on the bot's host:\n  {}\n",
                bot.reference(),
                token.reference(),
                joining_command(&uri)
            )
        });
        printed.with_context(|| {
            let (bot, token) = (bot.reference(), token.reference());
            format!("{bot} and {token} are created: `joinctl get {token} --format json` shows its secret")
        })?;
        join.warn(&client);
        vain::warn(&client, &token).await
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

/// Creates both, or none of them, or says what may be there. The URI is where the bot joins.
async fn add(client: &Client, bot: Resource, token: Resource) -> anyhow::Result<(Resource, Resource, String)> {
    let (bot_name, token_name) = (bot.reference(), token.reference());
    for reference in [&bot_name, &token_name] {
        if client.find(reference.kind, &reference.name).await?.is_some() {
            bail!("{reference} exists already; nothing was created");
        }
    }
    // Without it nobody could be told how the bot joins.
    let ca = client.ca().await?;
    let bot = match create(client, bot).await {
        Err(error) if is_outcome_unknown(&error) => return Err(error.context(not_known(&[&bot_name]))),
        answered => answered?,
    };
    let created = match create(client, token).await {
        Ok(created) => created,
        Err(error) if is_outcome_unknown(&error) => return Err(error.context(not_known(&[&token_name, &bot_name]))),
        Err(error) => return Err(error.context(undo(client, &bot).await)),
    };
    let Resource::Token(token) = &created else { bail!("the authority answered with a {}", created.kind()) };
    let uri = client.joining_uri(token, &ca);
    let uri =
        uri.with_context(|| format!("{bot_name} and {token_name} are created, but the joining URI is not known"))?;
    Ok((bot, created, uri))
}

/// Creates. Where no answer says whether it was created, what has the name is it: a moment ago nothing had.
async fn create(client: &Client, resource: Resource) -> anyhow::Result<Resource> {
    let Reference { kind, name } = resource.reference();
    let unanswered = match client.create(resource).await {
        Err(error) if is_outcome_unknown(&error) => error,
        answered => return answered,
    };
    // One that is not there may come yet: nobody knows where the request is.
    client.find(kind, &name).await.ok().flatten().ok_or(unanswered)
}

/// What to do when the first is there or not, and the others are there.
fn not_known(created: &[&Reference]) -> String {
    let remove: Vec<_> = created.iter().map(|reference| format!("`joinctl rm {reference}`")).collect();
    format!(
        "whether {0} was created is not known: `joinctl get {0}` tells; to begin anew, {1}",
        created[0],
        remove.join(" and ")
    )
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
    mapping([("bot", bot.tree()), ("token", token.tree()), ("join_uri", uri.into())])
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use join_proto::v1::{BoundKeypairStatus, Ca, Empty, TokenStatus};
    use rstest::rstest;
    use tonic::Status;

    use super::*;
    use crate::connection::scripted::{Answer, answer, authority};

    /// What becomes of a request.
    #[derive(Clone, Copy, PartialEq)]
    enum Fate {
        Done,
        /// Done, and the answer does not arrive.
        AnswerLost,
        /// It does not arrive itself.
        Lost,
        Refused,
    }

    impl Fate {
        fn of(self, created: &Resource, there: &mut Vec<String>) -> Answer {
            if matches!(self, Self::Done | Self::AnswerLost) {
                there.push(created.reference().to_string());
            }
            match self {
                Self::Done => shown(created),
                Self::AnswerLost | Self::Lost => Err(Status::unavailable("the authority is away")),
                Self::Refused => Err(Status::invalid_argument("no such role")),
            }
        }
    }

    fn shown(resource: &Resource) -> Answer {
        match resource {
            Resource::Bot(bot) => answer(bot),
            Resource::Token(token) => answer(token),
            _ => Err(Status::unimplemented("no other kind")),
        }
    }

    /// What is added: the URI or the error, and what is there afterwards.
    async fn added(of_bot: Fate, of_token: Fate) -> (String, Vec<String>) {
        let metadata = || Some(Metadata { name: "web".into(), ..Default::default() });
        let secret = BoundKeypairStatus { registration_secret: "s3cret".into(), ..Default::default() };
        let status = Some(TokenStatus { bound_keypair: Some(secret) });
        let bot = Resource::Bot(Bot { metadata: metadata(), ..Default::default() });
        let token = Resource::Token(Token { metadata: metadata(), status, ..Default::default() });

        let there = Arc::new(Mutex::new(Vec::new()));
        let (all, wanted) = (there.clone(), (bot.clone(), token.clone()));
        let client = authority(move |method| {
            let mut all = all.lock().unwrap();
            let get = |resource: &Resource| match all.contains(&resource.reference().to_string()) {
                true => shown(resource),
                false => Err(Status::not_found("there is none")),
            };
            match method {
                "GetCa" => answer(&Ca { pins: vec!["sha256:aa".into()], ..Default::default() }),
                "GetBot" => get(&wanted.0),
                "GetToken" => get(&wanted.1),
                "CreateBot" => of_bot.of(&wanted.0, &mut all),
                "CreateToken" => of_token.of(&wanted.1, &mut all),
                "DeleteBot" => {
                    all.retain(|name| name != "bot/web");
                    answer(&Empty {})
                }
                _ => Err(Status::unimplemented("not in this script")),
            }
        })
        .await;
        let told = match add(&client, bot, token).await {
            Ok((_, _, uri)) => uri,
            Err(error) => format!("{error:#}"),
        };
        let there = there.lock().unwrap().clone();
        (told, there)
    }

    #[rstest]
    #[case(Fate::Done, Fate::Done)]
    #[case(Fate::AnswerLost, Fate::Done)]
    #[case(Fate::Done, Fate::AnswerLost)]
    #[tokio::test]
    async fn what_was_created_is_found_where_its_answer_was_lost(#[case] bot: Fate, #[case] token: Fate) {
        let (told, there) = added(bot, token).await;
        assert!(told.starts_with("tbot+auth+bound-keypair://web:s3cret@"), "{told}");
        assert_eq!(there, ["bot/web", "token/web"]);
    }

    #[tokio::test]
    async fn what_may_come_yet_is_told_and_nothing_is_undone() {
        let (told, there) = added(Fate::Lost, Fate::Done).await;
        let of_bot = "whether bot/web was created is not known: `joinctl get bot/web` tells; \
                      to begin anew, `joinctl rm bot/web`: ";
        assert!(told.starts_with(of_bot), "{told}");
        assert!(there.is_empty());

        let (told, there) = added(Fate::Done, Fate::Lost).await;
        let of_token = "whether token/web was created is not known: `joinctl get token/web` tells; \
                        to begin anew, `joinctl rm token/web` and `joinctl rm bot/web`: ";
        assert!(told.starts_with(of_token), "{told}");
        assert_eq!(there, ["bot/web"]);
    }

    #[tokio::test]
    async fn a_bot_whose_token_is_refused_goes_with_it() {
        let (told, there) = added(Fate::Done, Fate::Refused).await;
        assert!(told.starts_with("the token was refused, and bot/web is deleted again: "), "{told}");
        assert!(there.is_empty());
    }
}
