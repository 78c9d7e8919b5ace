//! `joinctl audit replay`: a token's state after each entry, and why.

use std::io::{self, Write as _};

use clap::Args;
use join_proto::v1::{ReplayRequest, ReplayStep, Token};

use super::row;
use crate::{
    cli::Context,
    moment::{Moment, seconds},
    output::{Format, Items, printable, tree},
};

/// Which token, and until when.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  joinctl audit replay example
  joinctl audit replay example --at 2026-01-31T12:00:00Z --format json | jq '.[-1].state.status'")]
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

        let mut out = io::BufWriter::new(io::stdout());
        if context.format == Format::Text {
            for (i, step) in steps.iter().enumerate() {
                write!(out, "{}{}", if i == 0 { "" } else { "\n" }, render(step))?;
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

fn render(step: &ReplayStep) -> String {
    let mut text: String = step.events.iter().map(|event| row::line(event) + "\n").collect();
    if !step.why.is_empty() {
        text += &format!("  why:   {}\n", printable(&step.why).replace('\n', "\n         "));
    }
    if let Some(token) = &step.state {
        text += &format!("  state: {}\n", printable(&state(token)));
    }
    text
}

/// The state in one line.
fn state(token: &Token) -> String {
    let settings = token.spec.as_ref().and_then(|spec| spec.bound_keypair.clone()).unwrap_or_default();
    let recovery = settings.recovery.unwrap_or_default();
    let status = token.status.as_ref().and_then(|status| status.bound_keypair.clone()).unwrap_or_default();
    let mode = recovery.mode.unwrap_or_else(|| "standard".to_owned());
    let limit = recovery.limit.unwrap_or(1);
    let mut facts = vec![format!("mode {mode}"), format!("recoveries {} of {limit}", status.recovery_count)];
    if status.bound_public_key.is_empty() {
        facts.push("no key bound".to_owned());
    } else {
        facts.push(format!("instance {}", status.bound_bot_instance_id));
        facts.push(format!("generation {}", status.generation));
        facts.push(format!("certificate until {}", seconds(status.certificate_expires.as_ref())));
    }
    if status.registration_secret_pending {
        facts.push("a registration secret waits".to_owned());
    }
    for (what, when) in [
        ("rotation due at", settings.rotate_after),
        ("rotated", status.last_rotated_at),
        ("contested", status.contested_at),
    ] {
        facts.extend(when.map(|when| format!("{what} {}", seconds(Some(&when)))));
    }
    facts.join(", ")
}

#[cfg(test)]
mod tests {
    use join_proto::v1::{BoundKeypairStatus, Event, TokenStatus};

    use super::*;

    #[test]
    fn a_step_tells_event_reason_and_state() {
        let status = BoundKeypairStatus {
            bound_public_key: "ssh-ed25519 AAAA".into(),
            bound_bot_instance_id: "0b6c".into(),
            recovery_count: 1,
            generation: 3,
            ..Default::default()
        };
        let state = Token { status: Some(TokenStatus { bound_keypair: Some(status) }), ..Default::default() };
        let event = Event { kind: "join.accepted".into(), ..Default::default() };
        let text = render(&ReplayStep { events: vec![event], why: "the generation fits".into(), state: Some(state) });
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].contains("join.accepted"));
        assert_eq!(lines[1], "  why:   the generation fits");
        assert_eq!(
            lines[2],
            "  state: mode standard, recoveries 1 of 1, instance 0b6c, generation 3, certificate until -"
        );
    }
}
