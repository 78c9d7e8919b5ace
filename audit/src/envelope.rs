//! The envelope: one append to one stream, as canonical JSON (RFC 8785).

use chrono::{DateTime, SecondsFormat};
use join_domain::envelope::StreamId;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// An envelope whose form is right in every byte.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Envelope {
    v: u32,
    pub(crate) stream: String,
    pub(crate) first_version: u64,
    events: Vec<Event>,
    decided_at: String,
    recorded_at: String,
    actor: String,
    address: Option<String>,
    attempt: Option<String>,
    request: Option<String>,
    trace: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Event {
    kind: String,
    schema: u32,
    data: Value,
}

impl Envelope {
    /// Reads an envelope; the error says what is not as it should be.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let envelope: Self =
            serde_json::from_str(text).map_err(|error| format!("the envelope cannot be read: {error}"))?;
        // What is written from the parts alone can have no other keys, order, spacing, numbers or escapes.
        let canonical = serde_json_canonicalizer::to_string(&envelope).map_err(|error| error.to_string())?;
        if canonical != text {
            let at = canonical.bytes().zip(text.bytes()).take_while(|(a, b)| a == b).count();
            return Err(format!("the envelope is not canonical JSON: it differs at byte {at}"));
        }
        if envelope.v != 1 {
            return Err(format!("envelope version {} is not known here", envelope.v));
        }
        if envelope.events.is_empty() {
            return Err("the envelope holds no events".to_owned());
        }
        // Streams are followed by name: under a second spelling, one would begin a history of its own.
        envelope.stream.parse::<StreamId>().map_err(|error| error.to_string())?;
        if let Some(wrong) = [&envelope.decided_at, &envelope.recorded_at].into_iter().find(|time| !is_moment(time)) {
            return Err(format!("`{wrong}` is not a time in UTC with microseconds"));
        }
        Ok(envelope)
    }

    /// How many events there are; at least one.
    pub(crate) fn len(&self) -> u64 {
        self.events.len() as u64
    }
}

fn is_moment(text: &str) -> bool {
    DateTime::parse_from_rfc3339(text)
        .is_ok_and(|time| time.to_utc().to_rfc3339_opts(SecondsFormat::Micros, true) == text)
}
