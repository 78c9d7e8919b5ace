//! `joinctl audit ls`: events, those that are there and those that come.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use clap::Args;
use join_proto::v1::{Event, EventList, ListEventsRequest};
use tonic::{Code, Status};

use super::{kinds::KindPattern, row};
use crate::{
    cli::Context,
    connection::{Client, PAGE_SIZE, is_not_found},
    exit::{Fault, is_unreachable, refusal},
    moment::Moment,
    output::{Format, Items, json_line, say, tree},
    resource::Kind,
};

/// How long to wait before a broken list is followed on.
const RECONNECT: Duration = Duration::from_secs(2);

/// Which events.
#[derive(Args, Debug)]
#[command(after_long_help = "With --follow and --format json each event is one line.

Examples:
  joinctl audit ls --token example
  joinctl audit ls --kind join.refused --since 2h
  joinctl audit ls --follow --format json | jq .kind")]
pub(super) struct Ls {
    /// Only those of this token: its whole history, that of deleted namesakes too.
    #[arg(long, value_name = "NAME")]
    token: Option<String>,

    /// Only those of this bot, such as a change of its roles; its joins stand in its token's history.
    #[arg(long, value_name = "NAME", conflicts_with = "token")]
    bot: Option<String>,

    /// Only these kinds, such as join.refused or join.*; several with commas.
    #[arg(long = "kind", value_name = "KIND", value_delimiter = ',')]
    kinds: Vec<KindPattern>,

    /// Not before: a time (RFC 3339) or a duration before now, such as 2h.
    #[arg(long, value_name = "TIME")]
    since: Option<Moment>,

    /// Before: a time (RFC 3339) or a duration before now.
    #[arg(long, value_name = "TIME", conflicts_with = "follow")]
    until: Option<Moment>,

    /// Go on with what comes, until Ctrl-C.
    #[arg(long, short)]
    follow: bool,

    /// At most so many, the oldest that match.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
}

impl Ls {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let client = context.connect().await?;
        for (kind, name) in [(Kind::Token, &self.token), (Kind::Bot, &self.bot)] {
            if let Some(name) = name {
                refuse_unknown(&client, kind, name).await?;
            }
        }
        let request = ListEventsRequest {
            token: self.token.unwrap_or_default(),
            bot: self.bot.unwrap_or_default(),
            kinds: self.kinds.into_iter().map(String::from).collect(),
            since: client.resolve(self.since).await?,
            until: client.resolve(self.until).await?,
            page_size: PAGE_SIZE,
            cursor: String::new(),
        };
        let limit = self.limit.unwrap_or(u64::MAX);
        if self.follow {
            let mut printer = Printer::begin(context.format, true)?;
            follow(&client, request, limit, &mut printer).await?;
            printer.end()
        } else {
            let mut printer = Printer::begin(context.format, false)?;
            list(&client, request, limit, &mut printer).await?;
            printer.end()
        }
    }
}

/// A name that nothing ever had is a mistake, and no empty history.
async fn refuse_unknown(client: &Client, kind: Kind, name: &str) -> anyhow::Result<()> {
    let missing = match client.get(kind, name, None).await {
        Ok(_) => return Ok(()),
        Err(error) if is_not_found(&error) => error,
        Err(error) => return Err(error),
    };
    let mut request = ListEventsRequest { page_size: 1, ..Default::default() };
    let field = if kind == Kind::Token { &mut request.token } else { &mut request.bot };
    name.clone_into(field);
    loop {
        let page = page(client, &request).await?;
        match (page.events.is_empty(), page.more) {
            (false, _) => return Ok(()),
            (true, false) => return Err(missing.context("nothing ever had this name")),
            (true, true) => request.cursor = page.cursor,
        }
    }
}

/// A page of what there is.
pub(super) async fn page(client: &Client, request: &ListEventsRequest) -> anyhow::Result<EventList> {
    let page = client.ledger().list_events(request.clone()).await;
    Ok(page.map_err(|status| lost(status, &request.cursor))?.into_inner())
}

/// An authority that no longer has what it gave a cursor for: to an auditor that is a finding.
fn lost(status: Status, cursor: &str) -> anyhow::Error {
    if cursor.is_empty() || status.code() != Code::NotFound {
        return status.into();
    }
    Fault(format!("the authority has less than what was read of it before: {}", refusal(&status))).into()
}

async fn list(
    client: &Client,
    mut request: ListEventsRequest,
    mut left: u64,
    printer: &mut Printer,
) -> anyhow::Result<()> {
    loop {
        request.page_size = u32::try_from(left).unwrap_or(PAGE_SIZE).min(PAGE_SIZE);
        let page = page(client, &request).await?;
        left = print(&page, left, printer)?;
        if !page.more || left == 0 {
            return Ok(());
        }
        request.cursor = page.cursor;
    }
}

/// Follows on from the last cursor when the connection breaks: nothing is skipped, nothing comes twice.
async fn follow(
    client: &Client,
    mut request: ListEventsRequest,
    mut left: u64,
    printer: &mut Printer,
) -> anyhow::Result<()> {
    let mut was_connected = false;
    loop {
        let broken = match client.ledger().follow_events(request.clone()).await {
            Ok(answer) => {
                was_connected = true;
                let mut pages = answer.into_inner();
                loop {
                    match pages.message().await {
                        Ok(Some(page)) => {
                            left = print(&page, left, printer)?;
                            if left == 0 {
                                return Ok(());
                            }
                            request.cursor = page.cursor;
                        }
                        Ok(None) => break Status::unavailable("the authority ended the list"),
                        Err(status) => break status,
                    }
                }
            }
            Err(status) => status,
        };
        if !was_connected || !is_unreachable(&broken) {
            return Err(lost(broken, &request.cursor));
        }
        say(format!("{}; following on in {} s", refusal(&broken), RECONNECT.as_secs()));
        tokio::time::sleep(RECONNECT).await;
    }
}

/// Prints a page and returns how many events may still come.
fn print(page: &EventList, left: u64, printer: &mut Printer) -> anyhow::Result<u64> {
    let count = usize::try_from(left).unwrap_or(usize::MAX).min(page.events.len());
    page.events[..count].iter().try_for_each(|event| printer.push(event))?;
    printer.flush()?;
    Ok(left - count as u64)
}

enum Printer {
    Lines { out: io::BufWriter<crate::output::Stdout>, is_headed: bool },
    JsonLines(io::BufWriter<crate::output::Stdout>),
    Items(Items<io::BufWriter<crate::output::Stdout>>),
}

impl Printer {
    /// Begins; whoever follows sees the headings before the first event, however long that takes.
    fn begin(format: Format, follow: bool) -> io::Result<Self> {
        let out = io::BufWriter::new(crate::output::stdout());
        Ok(match format {
            Format::Text => {
                let mut lines = Self::Lines { out, is_headed: false };
                if follow {
                    lines.head()?;
                    lines.flush()?;
                }
                lines
            }
            Format::Json if follow => Self::JsonLines(out),
            Format::Json | Format::Yaml => Self::Items(Items::begin(out, format)),
        })
    }

    fn head(&mut self) -> io::Result<()> {
        if let Self::Lines { out, is_headed } = self
            && !std::mem::replace(is_headed, true)
        {
            writeln!(out, "{}", row::headings())?;
        }
        Ok(())
    }

    fn push(&mut self, event: &Event) -> io::Result<()> {
        self.head()?;
        match self {
            Self::Lines { out, .. } => writeln!(out, "{}", row::line(event)),
            Self::JsonLines(out) => writeln!(out, "{}", json_line(&tree::of(event))?),
            Self::Items(items) => items.push(&tree::of(event)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Lines { out, .. } | Self::JsonLines(out) => out.flush(),
            Self::Items(items) => items.flush(),
        }
    }

    fn end(mut self) -> anyhow::Result<()> {
        if let Self::Lines { is_headed: false, .. } = self {
            say("no events");
        }
        match self {
            Self::Items(items) => Ok(items.end()?),
            _ => Ok(self.flush()?),
        }
    }
}
