//! `joinctl audit replay`: a token's state after each event, and why each decision fell as it did.

use std::io::{self, Write as _};

use clap::Args;
use join_proto::v1::{ReplayRequest, ReplayStep};

use super::{row, standing::Standing};
use crate::{
    cli::Context,
    moment::Moment,
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
        let request = ReplayRequest { name: self.token.clone(), at: client.resolve(self.at).await? };
        let steps = client.ledger().replay(request).await?.into_inner().steps;

        let mut out = io::BufWriter::new(crate::output::stdout());
        if context.format == Format::Text {
            out.write_all(render(&steps).as_bytes())?;
            if steps.is_empty() {
                eprintln!("no events");
            }
            return Ok(out.flush()?);
        }
        let mut items = Items::begin(out, context.format);
        for step in &steps {
            items.push(&tree::of(step))?;
        }
        Ok(items.end()?)
    }
}

fn render(steps: &[ReplayStep]) -> String {
    let is_sequenced = steps.iter().flat_map(|step| &step.events).any(|event| event.log_index.is_some());
    let line = if is_sequenced { row::line } else { row::line_without_log };
    let mut standing = Standing::begin();
    let mut told = Vec::new();
    for step in steps {
        let mut text = String::new();
        for event in &step.events {
            text += &format!("{}\n  state: {}\n", line(event), printable(&standing.after(event)));
        }
        if !step.why.is_empty() {
            text += &format!("  why:   {}\n", printable(&step.why).replace('\n', "\n         "));
        }
        told.push(text);
    }
    told.join("\n")
}

#[cfg(test)]
mod tests {
    use join_proto::v1::Event;

    use super::*;

    fn step(kind: &str, log_index: Option<u64>) -> ReplayStep {
        let event = Event { kind: kind.into(), log_index, ..Default::default() };
        ReplayStep { events: vec![event.clone(), event], why: "the generation fits".into(), state: None }
    }

    #[test]
    fn each_event_has_its_state_and_each_decision_its_reason() {
        let text = render(&[step("join.accepted", None), step("join.refused", None)]);
        let begins: Vec<_> = text.lines().map(|line| line.get(..9).unwrap_or_default()).collect();
        let one = ["-        ", "  state: ", "-        ", "  state: ", "  why:   "];
        assert_eq!(begins, [&one[..], &[""], &one].concat(), "{text}");
    }

    #[test]
    fn the_place_in_the_log_is_shown_where_there_is_one() {
        let (with, without) = (render(&[step("join.accepted", Some(17))]), render(&[step("join.accepted", None)]));
        let place = |text: &str| text.lines().next().unwrap().find("join.accepted");
        assert!(with.contains("  17  ") && place(&with) > place(&without), "{with}{without}");
    }
}
