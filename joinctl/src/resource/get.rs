//! `joinctl get`: resources as tables, JSON or YAML, as they are or as they were.

use std::{io, str::FromStr};

use clap::Args;

use super::{Kind, Reference, Resource, columns};
use crate::{
    cli::Context,
    connection::{Client, Selection},
    moment::Moment,
    output::{Format, Items},
};

/// What to get, and of when.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  joinctl get tokens
  joinctl get token/example --format=json | jq -r '.[0].status.bound_keypair.registration_secret'
  joinctl get bots,tokens --selector team=infra --format yaml
  joinctl get token/example --at 2026-01-31T12:00:00Z")]
pub(crate) struct Get {
    /// Kinds, or single resources; several with commas. Kinds: bot, token, bot_instance, lock, exemption.
    #[arg(value_name = "KIND[/NAME]", required = true, value_delimiter = ',')]
    wanted: Vec<Wanted>,

    /// As of that moment, replayed from the ledger: a time (RFC 3339) or a duration before now, such as 2h.
    #[arg(long, value_name = "TIME")]
    at: Option<Moment>,

    /// Only resources with this label; several with commas.
    #[arg(long, short = 'l', value_name = "KEY=VALUE", default_value = "", hide_default_value = true)]
    selector: String,
}

/// All of a kind, or one.
#[derive(Clone, Debug)]
enum Wanted {
    All(Kind),
    One(Reference),
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains('/') { text.parse().map(Self::One) } else { text.parse().map(Self::All) }
    }
}

impl Get {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let client = context.connect().await?;
        let at = client.resolve(self.at).await?;
        let selection = Selection { selector: self.selector, at, ..Default::default() };

        // Those that are named are looked for first: when one is missing, nothing is printed.
        let mut found = Vec::new();
        for wanted in self.wanted {
            found.push(match wanted {
                Wanted::All(kind) => (kind, None),
                Wanted::One(Reference { kind, name }) => (kind, Some(client.get(kind, &name, at).await?)),
            });
        }
        let mut printer = Printer::begin(context.format);
        for (kind, one) in found {
            match one {
                Some(one) => printer.print(kind, &[one])?,
                None => print_all(&client, kind, &selection, &mut printer).await?,
            }
        }
        printer.end()
    }
}

/// Prints all of one kind and nothing else: what `bots ls` does.
pub(crate) async fn list(context: &Context, kind: Kind, selection: &Selection) -> anyhow::Result<()> {
    let client = context.connect().await?;
    let mut printer = Printer::begin(context.format);
    print_all(&client, kind, selection, &mut printer).await?;
    printer.end()
}

/// Prints page by page, so that a million tokens take no more memory than a thousand.
async fn print_all(client: &Client, kind: Kind, selection: &Selection, printer: &mut Printer) -> anyhow::Result<()> {
    let mut cursor = String::new();
    loop {
        let (resources, next) = client.page(kind, selection, cursor).await?;
        printer.print(kind, &resources)?;
        if next.is_empty() {
            return Ok(());
        }
        cursor = next;
    }
}

enum Printer {
    Tables { is_first: bool },
    Items(Items<io::BufWriter<io::Stdout>>),
}

impl Printer {
    fn begin(format: Format) -> Self {
        match format {
            Format::Text => Self::Tables { is_first: true },
            format => Self::Items(Items::begin(io::BufWriter::new(io::stdout()), format)),
        }
    }

    fn print(&mut self, kind: Kind, resources: &[Resource]) -> anyhow::Result<()> {
        use io::Write as _;
        match self {
            Self::Tables { is_first } => {
                let gap = if std::mem::replace(is_first, false) { "" } else { "\n" };
                write!(io::stdout(), "{gap}{}", columns::render(kind, resources))?;
            }
            Self::Items(items) => resources.iter().try_for_each(|resource| items.push(&resource.tree()))?,
        }
        Ok(())
    }

    fn end(self) -> anyhow::Result<()> {
        match self {
            Self::Tables { .. } => Ok(()),
            Self::Items(items) => Ok(items.end()?),
        }
    }
}
