//! Where a token stands after each of its events: the fold of the domain, done here and not taken on trust.

use std::time::SystemTime;

use join_domain::{
    Timestamp,
    envelope::{Entry, Origin},
    resource::RecoveryMode,
    state::{State, TokenState},
    upcast,
};
use join_proto::v1::Event;

use crate::{moment::seconds, output::tree};

/// Follows the events of one token, and of its namesakes one after the other.
pub(super) struct Standing(Result<Option<State>, String>);

impl Standing {
    pub(super) fn begin() -> Self {
        Self(Ok(None))
    }

    /// The state after one more event, in one line. What can't be followed is said, and stays so to the stream's end.
    pub(super) fn after(&mut self, event: &Event) -> String {
        let before = match std::mem::replace(&mut self.0, Ok(None)) {
            _ if event.version == 1 => Ok(None),
            before => before,
        };
        self.0 = before.and_then(|before| step(before, event).map(Some));
        match &self.0 {
            Ok(Some(State::Token(token))) => told(token, event),
            Ok(_) => "not that of a token".to_owned(),
            Err(why) => format!("not known: {why}"),
        }
    }
}

fn step(before: Option<State>, event: &Event) -> Result<State, String> {
    let data = serde_json::to_string(&tree::of(event).get("data")).map_err(|error| error.to_string())?;
    let read = upcast::read(&event.kind, event.schema, &data).map_err(|error| error.to_string())?;
    let entry = Entry {
        stream: event.stream.parse().map_err(|error| format!("{error}"))?,
        first_version: event.version,
        events: vec![read],
        decided_at: time(event.decided_at).ok_or("the event has no time")?,
        recorded_at: time(event.recorded_at).ok_or("the event has no time")?,
        origin: Origin {
            actor: event.actor.clone(),
            address: Some(event.remote_addr.clone()).filter(|address| !address.is_empty()),
            ..Origin::default()
        },
    };
    State::after(before, &entry).map_err(|error| error.to_string())
}

fn time(time: Option<prost_types::Timestamp>) -> Option<Timestamp> {
    SystemTime::try_from(time?).ok().map(Timestamp::from)
}

fn shown(time: Timestamp) -> String {
    seconds(Some(&SystemTime::from(time).into()))
}

fn told(token: &TokenState, event: &Event) -> String {
    let recovery = token.spec.recovery;
    let mut facts = vec![format!("mode {}", recovery.mode.as_str())];
    facts.push(match recovery.mode {
        RecoveryMode::Standard => format!("recoveries {} of {}", token.recovery_count, recovery.limit),
        // They count, and no limit is looked at.
        RecoveryMode::Relaxed | RecoveryMode::Insecure => format!("recoveries {}", token.recovery_count),
    });
    match (&token.binding, token.latest()) {
        (None, _) => facts.push("no key bound".to_owned()),
        (Some(_), None) => facts.push("a key is bound, not joined yet".to_owned()),
        (Some(_), Some(latest)) => {
            facts.push(format!("instance {}", latest.join.instance));
            facts.push(format!("generation {}", latest.join.generation));
            facts.push(format!("certificate until {}", shown(latest.join.not_after)));
        }
    }
    if time(event.decided_at).is_some_and(|now| token.takes_secret(now)) {
        facts.push("a registration secret waits".to_owned());
    }
    let times = [
        ("rotation due at", token.spec.rotate_after),
        ("rotated", token.last_rotated_at),
        ("contested", token.contested_at),
    ];
    facts.extend(times.into_iter().filter_map(|(what, when)| Some(format!("{what} {}", shown(when?)))));
    if !token.live {
        facts.push("deleted".to_owned());
    }
    facts.join(", ")
}

#[cfg(test)]
mod tests {
    use prost_types::{Struct, Value, value::Kind};
    use serde_json::json;

    use super::*;

    fn wire(value: serde_json::Value) -> Value {
        let kind = match value {
            serde_json::Value::Null => Kind::NullValue(0),
            serde_json::Value::Bool(value) => Kind::BoolValue(value),
            serde_json::Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap()),
            serde_json::Value::String(text) => Kind::StringValue(text),
            serde_json::Value::Array(items) => {
                Kind::ListValue(prost_types::ListValue { values: items.into_iter().map(wire).collect() })
            }
            serde_json::Value::Object(fields) => Kind::StructValue(Struct {
                fields: fields.into_iter().map(|(name, value)| (name, wire(value))).collect(),
            }),
        };
        Value { kind: Some(kind) }
    }

    fn event(version: u64, kind: &str, data: serde_json::Value) -> Event {
        let Some(Kind::StructValue(data)) = wire(data).kind else { panic!("the data of an event is a map") };
        let time = "2026-01-31T12:00:00Z".parse().unwrap();
        Event {
            stream: "token/6f0c1b2d-0000-4000-8000-000000000000".into(),
            version,
            kind: kind.into(),
            schema: 1,
            decided_at: Some(time),
            recorded_at: Some(time),
            actor: "admin/example".into(),
            data: Some(data),
            ..Default::default()
        }
    }

    fn created() -> Event {
        let spec = json!({
            "roles": ["Bot"], "bot_name": "web", "initial_public_key": null, "must_register_before": null,
            "recovery": {"mode": "standard", "limit": 3}, "rotate_after": null,
        });
        let bot = "6f0c1b2d-0000-4000-8000-000000000001";
        event(1, "token.created", json!({"name": "web", "bot": bot, "spec": spec, "secret": "00"}))
    }

    #[test]
    fn each_event_is_followed_by_its_own_state() {
        let mut standing = Standing::begin();
        assert_eq!(
            standing.after(&created()),
            "mode standard, recoveries 0 of 3, no key bound, a registration secret waits"
        );
        let spent = event(2, "registration_secret.spent", json!({}));
        assert_eq!(standing.after(&spent), "mode standard, recoveries 0 of 3, no key bound");
        let deleted = event(3, "token.deleted", json!({}));
        assert_eq!(standing.after(&deleted), "mode standard, recoveries 0 of 3, no key bound, deleted");
        // The next of that name begins anew.
        assert!(standing.after(&created()).ends_with("a registration secret waits"));
    }

    #[test]
    fn what_is_newer_than_this_program_is_said_until_the_stream_ends() {
        let mut standing = Standing::begin();
        standing.after(&created());
        for version in [2, 3] {
            let told = standing.after(&event(version, "token.frobnicated", json!({})));
            assert_eq!(told, "not known: `token.frobnicated` is not a kind of event that this version knows");
        }
        assert!(standing.after(&created()).starts_with("mode standard"));
    }
}
