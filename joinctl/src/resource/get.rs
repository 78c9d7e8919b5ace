//! `joinctl get`: resources as tables, JSON or YAML, as they are or as they were.

use std::{
    io::{self, Write as _},
    str::FromStr,
};

use anyhow::bail;
use clap::Args;
use prost_types::Timestamp;

use super::{
    Kind, Reference, Resource, columns,
    ends::ExpiredBots,
    locks::{self, Locks},
};
use crate::{
    cli::Context,
    connection::{Client, Selection},
    moment::Moment,
    output::{Format, Items, Table, say},
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
        for wanted in &self.wanted {
            if let Wanted::One(reference) = wanted
                && !self.selector.is_empty()
            {
                bail!(
                    "--selector selects among all of a kind, and {reference} is one by name: leave one of the two out"
                );
            }
        }
        let client = context.connect().await?;
        let selection = Selection { selector: self.selector, at: client.past(self.at).await?, ..Default::default() };

        // Those that are named are looked for first: when one is missing, nothing is printed.
        let mut found = Vec::new();
        for wanted in self.wanted {
            found.push(match wanted {
                Wanted::All(kind) => (kind, None),
                Wanted::One(Reference { kind, name }) => (kind, Some(client.get(kind, &name, selection.at).await?)),
            });
        }
        let mut printer = Printer::begin(context.format);
        for (kind, one) in found {
            let mut list = printer.list(&client, kind, &selection).await?;
            match one {
                Some(one) => list.print(&client, &[one], selection.at).await?,
                None => print_all(&client, kind, &selection, &mut list).await?,
            }
        }
        printer.end()
    }
}

/// Prints all of one kind and nothing else: what `bots ls` does.
pub(crate) async fn list(context: &Context, kind: Kind, selection: &Selection) -> anyhow::Result<()> {
    let client = context.connect().await?;
    let mut printer = Printer::begin(context.format);
    let mut list = printer.list(&client, kind, selection).await?;
    print_all(&client, kind, selection, &mut list).await?;
    printer.end()
}

/// Prints page by page, so that a million tokens take no more memory than a thousand.
async fn print_all(client: &Client, kind: Kind, selection: &Selection, list: &mut List<'_>) -> anyhow::Result<()> {
    let mut cursor = String::new();
    loop {
        let (resources, next) = client.page(kind, selection, cursor).await?;
        list.print(client, &resources, selection.at).await?;
        if next.is_empty() {
            return list.end();
        }
        cursor = next;
    }
}

enum Printer {
    Tables { is_first: bool },
    Items(Items<io::BufWriter<crate::output::Stdout>>),
}

impl Printer {
    fn begin(format: Format) -> Self {
        match format {
            Format::Text => Self::Tables { is_first: true },
            format => Self::Items(Items::begin(io::BufWriter::new(crate::output::stdout()), format)),
        }
    }

    /// Begins a list of one kind. A table shows which tokens are locked, for which it needs the locks of the same moment, and
    /// which locks are in force, for which it needs the moment alone.
    async fn list(&mut self, client: &Client, kind: Kind, selection: &Selection) -> anyhow::Result<List<'_>> {
        let locks = match (&self, kind) {
            (Self::Tables { .. }, Kind::Token) => Some(Locks::fetch(client, selection.at).await?),
            (Self::Tables { .. }, Kind::Lock) => Some(Locks::of(locks::moment(client, selection.at).await?, [])),
            _ => None,
        };
        let bots = ExpiredBots::default();
        Ok(List { printer: self, kind, locks, bots, table: columns::table(kind), is_empty: true })
    }

    fn end(self) -> anyhow::Result<()> {
        match self {
            Self::Tables { .. } => Ok(()),
            Self::Items(items) => Ok(items.end()?),
        }
    }
}

/// Resources of one kind, as they come.
struct List<'a> {
    printer: &'a mut Printer,
    kind: Kind,
    locks: Option<Locks>,
    bots: ExpiredBots,
    table: Table,
    is_empty: bool,
}

impl List<'_> {
    async fn print(&mut self, client: &Client, resources: &[Resource], at: Option<Timestamp>) -> anyhow::Result<()> {
        if resources.is_empty() {
            return Ok(());
        }
        if let (Kind::Token, Some(locks)) = (self.kind, &self.locks) {
            let tokens = resources.iter().filter_map(|resource| match resource {
                Resource::Token(token) => Some(token),
                _ => None,
            });
            self.bots.learn(client, tokens, at, &locks.now()).await?;
        }
        let begins = std::mem::replace(&mut self.is_empty, false);
        match self.printer {
            Printer::Tables { is_first } => {
                let gap = if begins && !std::mem::replace(is_first, false) { "\n" } else { "" };
                let rows = resources.iter().map(|resource| columns::cells(resource, self.locks.as_ref(), &self.bots));
                write!(crate::output::stdout(), "{gap}{}", self.table.rows(rows))?;
            }
            Printer::Items(items) => resources.iter().try_for_each(|resource| items.push(&resource.tree()))?,
        }
        Ok(())
    }

    /// An empty table is told in words, where no pipe takes it for data.
    fn end(&self) -> anyhow::Result<()> {
        if self.is_empty && matches!(self.printer, Printer::Tables { .. }) {
            say(format!("no {}", self.kind.plural()));
        }
        Ok(())
    }
}
