//! `joinctl exempt`: lets a token pass a rule a number of times.

use clap::{Args, ValueEnum};
use join_proto::v1::{Exemption, ExemptionSpec, GrantExemptionRequest, Metadata};

use super::Which;
use crate::{
    cli::Context,
    connection::walk,
    moment::seconds,
    output::{self, Format, Items},
    resource::{Kind, Resource},
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

    /// How many recoveries each use adds; for --kind recoveries.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    count: Option<u32>,

    /// How many joins of each token may spend it.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    uses: u32,

    /// How long it may be used; 24h when not given.
    #[arg(long, value_name = "DURATION")]
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
        let selector = self.which.selector.unwrap_or_default();
        let request = walk(GrantExemptionRequest { exemption: Some(exemption), selector });
        let granted = client.resources().grant_exemption(request).await?.into_inner().exemptions;
        print(context.format, granted)
    }
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
