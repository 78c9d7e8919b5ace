//! `joinctl audit replay`: a token's state after each event, and why each decision fell as it did.

use std::io::{self, Write as _};

use anyhow::bail;
use clap::Args;
use join_proto::v1::{ReplayRequest, ReplayStep};

use super::{row, standing::Standing};
use crate::{
    cli::Context,
    moment::{Moment, milliseconds},
    output::{Format, Items, printable, tree},
};

/// Which token, and until when.
#[derive(Args, Debug)]
#[command(
    after_long_help = "Events that stand together were recorded together: one decision, told in `why`. The state \
after each event is computed here, from the events.

Examples:
  joinctl audit replay example
  joinctl audit replay example --at 2026-01-31T12:00:00Z --format json | jq '.[-1].state.status'"
)]
pub(super) struct Replay {
    /// Name of the token.
    #[arg(value_name = "TOKEN")]
    token: String,

    /// Up to that moment: a time (RFC 3339) or a duration before now, such as 2h.
    #[arg(long, value_name = "TIME")]
    at: Option<Moment>,
}

impl Replay {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let client = context.connect().await?;
        let at = client.past(self.at).await?;
        let request = ReplayRequest { name: self.token.clone(), at };
        let mut pages = client.ledger().replay(request).await?.into_inner();

        let Some(first) = pages.message().await? else {
            let at = at.as_ref().map(milliseconds).unwrap_or_default();
            bail!("there was no token `{}` at {at}: its history begins later", self.token);
        };
        let mut page = Some(first);
        let mut out = io::BufWriter::new(crate::output::stdout());
        if context.format == Format::Text {
            let mut told = Told::default();
            while let Some(shown) = page {
                out.write_all(told.page(&shown.steps).as_bytes())?;
                page = pages.message().await?;
            }
            return Ok(out.flush()?);
        }
        let mut items = Items::begin(out, context.format);
        while let Some(shown) = page {
            for step in &shown.steps {
                items.push(&tree::of(step))?;
            }
            page = pages.message().await?;
        }
        Ok(items.end()?)
    }
}

/// What was told so far.
#[derive(Default)]
struct Told {
    /// The token after it; none before the first step.
    standing: Option<Standing>,
}

impl Told {
    fn page(&mut self, steps: &[ReplayStep]) -> String {
        let mut text = String::new();
        for step in steps {
            if self.standing.is_some() {
                text.push('\n');
            }
            let standing = self.standing.get_or_insert_with(Standing::begin);
            for event in &step.events {
                let state = standing.after(event);
                text += &format!("{}\n  state: {}\n", row::line_without_log(event), printable(&state));
            }
            if !step.why.is_empty() {
                text += &format!("  why:   {}\n", printable(&step.why).replace('\n', "\n         "));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use join_proto::v1::Event;

    use super::*;

    fn step(kind: &str) -> ReplayStep {
        let event = Event { kind: kind.into(), ..Default::default() };
        ReplayStep { events: vec![event.clone(), event], why: "the generation fits".into(), state: None }
    }

    #[test]
    fn each_event_has_its_state_and_each_decision_its_reason() {
        let mut told = Told::default();
        let text = told.page(&[step("join.accepted")]) + &told.page(&[step("join.refused")]);
        let begins: Vec<_> = text.lines().map(|line| line.get(..9).unwrap_or_default()).collect();
        let one = ["-        ", "  state: ", "-        ", "  state: ", "  why:   "];
        assert_eq!(begins, [&one[..], &[""], &one].concat(), "{text}");
    }
}
