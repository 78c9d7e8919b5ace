//! `joinctl exempt`: lets a token pass a rule a number of times.

use std::collections::BTreeSet;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use join_proto::v1::{Exemption, ExemptionSpec, GrantExemptionRequest, Metadata};

use super::{Which, open_outcome, reinstate::still_stopped};
use crate::{
    cli::Context,
    connection::{Client, Selection, walk},
    exit::is_outcome_unknown,
    interrupt::{Interrupted, interruptible},
    moment::{duration, seconds},
    output::{self, Format, Items},
    resource::{Kind, Resource, ends::ExpiredBots, locks::Locks},
};

/// Which tokens, which rule, how often and why.
#[derive(Args, Debug)]
#[command(after_long_help = "A grant is spent by the join that needs it, and only then. `joinctl rm exemption/ID` \
revokes it before.

Examples:
  joinctl exempt example --kind recoveries --count 2 --reason 'two planned reinstalls'
  joinctl exempt --selector rack=12 --kind join_state --ttl 8h --reason 'rack 12 was restored from backup'")]
pub(crate) struct Exempt {
    #[command(flatten)]
    which: Which,

    /// The rule to pass.
    #[arg(long, value_enum)]
    kind: Rule,

    /// How many recoveries each use adds; for --kind recoveries. The grant has them as so many more uses.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    count: Option<u32>,

    /// How many joins of each token may spend it.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    uses: u32,

    /// How long it may be used, such as 30m (minutes; M is months), 2h or 7d; 24h when not given.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    ttl: Option<humantime::Duration>,

    /// Why; it stands in the ledger.
    #[arg(long)]
    reason: String,
}

/// The rules that can be passed.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Rule {
    /// Further recoveries after the limit is used up.
    Recoveries,
    /// A join state that is missing or outdated.
    JoinState,
    /// A certificate generation that is not the newest.
    Generation,
}

impl Exempt {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        if self.count.is_some() && self.kind != Rule::Recoveries {
            anyhow::bail!("--count is for --kind recoveries; --uses says how many joins may spend the grant");
        }
        let client = context.connect().await?;
        let kind = match self.kind {
            Rule::Recoveries => "recoveries",
            Rule::JoinState => "join_state",
            Rule::Generation => "generation",
        };
        let spec = ExemptionSpec {
            token_name: self.which.token.unwrap_or_default(),
            kind: kind.to_owned(),
            count: self.count.unwrap_or(1),
            uses: self.uses,
            reason: self.reason,
        };
        let exemption = Exemption {
            kind: Kind::Exemption.name().to_owned(),
            version: Kind::Exemption.version().to_owned(),
            metadata: Some(Metadata { expires: client.expiry(self.ttl).await?, ..Default::default() }),
            spec: Some(spec),
            status: None,
        };
        let selector = self.which.selector;
        let granted = grant(&client, exemption, selector.clone()).await?;
        let shown = selector.as_ref().map_or_else(String::new, |selector| format!(" --selector '{selector}'"));
        let names: BTreeSet<_> = granted.iter().filter_map(|it| Some(it.spec.as_ref()?.token_name.clone())).collect();
        print(context.format, granted).with_context(|| {
            format!("granted: `joinctl get exemptions{shown}` shows what is, and a repeat grants again")
        })?;
        match interruptible(warn(&client, &names, selector)).await {
            Err(error) if !error.is::<Interrupted>() => {
                // A script that took this for a failure would grant again.
                output::say(format!("warning: granted, but what else stops the next join can't be told: {error:#}"));
                Ok(())
            }
            warned => warned,
        }
    }
}

/// Tells what stops the next join of the tokens all the same: no exemption passes a lock or an expiry.
async fn warn(client: &Client, names: &BTreeSet<String>, selector: Option<String>) -> anyhow::Result<()> {
    let found = match (selector, names.first()) {
        (_, None) => return Ok(()),
        (Some(selector), _) => client.all(Kind::Token, &Selection { selector, ..Default::default() }).await?,
        (None, Some(name)) => vec![client.get(Kind::Token, name, None).await?],
    };
    let tokens = found.into_iter().filter_map(|found| match found {
        Resource::Token(token) if names.contains(super::name(&token)) => Some(token),
        _ => None,
    });
    let tokens: Vec<_> = tokens.collect();
    let locks = Locks::fetch(client, None).await?;
    let bots = ExpiredBots::of(client, &tokens, None, &locks.now()).await?;
    for token in &tokens {
        if let Some(ended) = bots.ended(token, &locks.now()) {
            output::say(format!("warning: token/{} admits nobody: {}", super::name(token), ended.told()));
        }
        for lock in locks.on(token) {
            output::say(format!("warning: {}", still_stopped(token, lock)));
        }
    }
    Ok(())
}

/// Grants. A repeat grants again, so that whoever has no answer is told how to see what was granted.
async fn grant(client: &Client, exemption: Exemption, selector: Option<String>) -> anyhow::Result<Vec<Exemption>> {
    let request = GrantExemptionRequest { exemption: Some(exemption), selector: selector.clone().unwrap_or_default() };
    let answer = async { Ok(client.resources().grant_exemption(walk(request)).await?.into_inner().exemptions) };
    interruptible(answer).await.map_err(|error| match selector {
        Some(selector) => {
            let shown = format!("`joinctl get exemptions --selector '{selector}'` shows what is granted");
            open_outcome(error, &format!("{shown}; a repeat grants to the same tokens again"))
        }
        None if is_outcome_unknown(&error) => error.context(
            "whether it is granted is not known: `joinctl get exemptions` shows what is; a repeat may grant twice",
        ),
        None => error,
    })
}

fn print(format: Format, granted: Vec<Exemption>) -> anyhow::Result<()> {
    if format == Format::Text {
        if granted.is_empty() {
            output::say("no token matches: nothing was granted");
        }
        for exemption in granted {
            let token = exemption.spec.as_ref().map(|spec| spec.token_name.clone()).unwrap_or_default();
            let until = seconds(exemption.metadata.as_ref().and_then(|metadata| metadata.expires.as_ref()));
            let reference = Resource::Exemption(exemption).reference();
            output::line(&format!("{reference} granted to token/{token} until {until}"))?;
        }
        return Ok(());
    }
    let mut items = Items::begin(crate::output::stdout(), format);
    for exemption in granted {
        items.push(&Resource::Exemption(exemption).tree())?;
    }
    Ok(items.end()?)
}

#[cfg(test)]
mod tests {
    use tonic::{Code, Status};
    use tonic_types::{ErrorDetails, StatusExt as _};

    use super::*;
    use crate::connection::scripted::authority;

    /// What is told of an answer that is none.
    async fn told(selector: Option<&str>, answer: Status) -> String {
        let client = authority(move |_| Err(answer.clone())).await;
        let refused = grant(&client, Exemption::default(), selector.map(str::to_owned)).await;
        format!("{:#}", refused.unwrap_err())
    }

    #[tokio::test]
    async fn a_grant_whose_answer_is_lost_asks_for_a_look_and_for_no_repeat() {
        let lost = || Status::unavailable("the connection broke");
        let of_rack = told(Some("rack=12"), lost()).await;
        let goes_on = "no answer came, and the authority goes on to the last token while it runs: \
                       `joinctl get exemptions --selector 'rack=12'` shows what is granted; \
                       a repeat grants to the same tokens again: ";
        assert!(of_rack.starts_with(goes_on), "{of_rack}");
        let of_one = told(None, lost()).await;
        assert!(of_one.starts_with("whether it is granted is not known: `joinctl get exemptions` shows"), "{of_one}");
    }

    #[tokio::test]
    async fn what_the_authority_says_is_told_as_it_is() {
        let said = |code, reason: &str| {
            let details = ErrorDetails::with_error_info(reason, join_proto::ERROR_DOMAIN, []);
            Status::with_error_details(code, "granted so far: web", details)
        };
        let stopped = told(Some("rack=12"), said(Code::Unavailable, "UNAVAILABLE")).await;
        assert!(stopped.starts_with("it may be done in part: "), "{stopped}");
        for selector in [Some("rack=12"), None] {
            let refused = told(selector, said(Code::PermissionDenied, "ROLE_REQUIRED")).await;
            assert!(!refused.contains("joinctl"), "{refused}");
        }
    }
}
