//! An event as one line.

use join_proto::v1::Event;
use serde_yaml_ng::Value;

use crate::{
    moment::milliseconds,
    output::{cell, cut, tree},
};

/// What of an event's data is told first; the rest follows in alphabetical order.
const TELLING: [&str; 9] =
    ["code", "why", "case", "purpose", "generation", "instance", "recovery_count", "count", "reason"];
/// What the other columns tell already, or what tells people nothing; `--format json` has all.
const HIDDEN: [&str; 8] =
    ["attempt", "at", "challenge", "not_before", "replayable_until", "roles", "secret", "subject_keys"];
/// Sentences, which are never cut.
const SENTENCES: [&str; 3] = ["why", "reason", "message"];
/// Nested data that is told with the rest, each of its values by itself.
const UNFOLDED: [&str; 3] = ["target", "exemption", "other_holder"];
/// Longer values, such as keys, are cut.
const LONGEST: usize = 44;

/// Headings of the columns that [`line`] fills.
pub(super) fn headings() -> String {
    columns(Some("LOG"), ["TIME", "STREAM/VERSION", "KIND", "ACTOR", "ADDRESS", "ATTEMPT", "FACTS"])
}

/// Time, places in log and stream, kind, who, from where, in which attempt, and the facts.
pub(super) fn line(event: &Event) -> String {
    let index = event.log_index.map(|index| index.to_string()).unwrap_or_default();
    columns(Some(&index), cells(event).each_ref().map(String::as_str))
}

/// The same without the place in the log, for events that come without.
pub(super) fn line_without_log(event: &Event) -> String {
    columns(None, cells(event).each_ref().map(String::as_str))
}

fn cells(event: &Event) -> [String; 7] {
    let time = event.recorded_at.or(event.decided_at).as_ref().map(milliseconds).unwrap_or_default();
    let (kind, actor, address) = (event.kind.clone(), event.actor.clone(), event.remote_addr.clone());
    [time, place(event), kind, actor, address, cut(&event.attempt, 8), facts(event)]
}

/// Fixed widths: a followed list has no last line from which the widths could be known.
fn columns(log: Option<&str>, columns: [&str; 7]) -> String {
    let [time, place, kind, actor, address, attempt, facts] = columns.map(|text| cell(text.trim_end()));
    let log = log.map(|log| format!("{:>6}  ", cell(log))).unwrap_or_default();
    format!("{time:<24}  {log}{place:<26}  {kind:<25}  {actor:<16}  {address:<21}  {attempt:<8}  {facts}")
}

/// `token/example/3` by the token's name, others by the beginning of their id.
fn place(event: &Event) -> String {
    let stream = match event.stream.split_once('/') {
        Some((kind, _)) if !event.token.is_empty() => format!("{kind}/{}", event.token),
        Some((kind, id)) => format!("{kind}/{}", cut(id, 9)),
        None => event.stream.clone(),
    };
    format!("{stream}/{}", event.version)
}

/// Each plain value of the data as `key=value`, the telling ones first.
fn facts(event: &Event) -> String {
    let tree = event.data.as_ref().map(data_tree).unwrap_or_default();
    let mut facts = Vec::new();
    for (key, value) in entries(&tree).filter(|(key, _)| !HIDDEN.contains(key)) {
        let longest = if SENTENCES.contains(&key) { usize::MAX } else { LONGEST };
        facts.extend(plain(value, longest).map(|value| (key.to_owned(), value)));
        if UNFOLDED.contains(&key) {
            facts.extend(
                entries(value).filter_map(|(inner, value)| Some((format!("{key}.{inner}"), plain(value, LONGEST)?))),
            );
        }
    }
    facts.sort_by_key(|(key, _)| TELLING.iter().position(|it| it == key).unwrap_or(TELLING.len()));
    facts.iter().map(|(key, value)| format!("{key}={value} ")).collect()
}

fn entries(tree: &Value) -> impl Iterator<Item = (&str, &Value)> {
    tree.as_mapping().into_iter().flatten().filter_map(|(key, value)| Some((key.as_str()?, value)))
}

fn data_tree(data: &prost_types::Struct) -> Value {
    let event = Event { data: Some(data.clone()), ..Default::default() };
    tree::of(&event).get("data").cloned().unwrap_or_default()
}

/// Texts, numbers and lists of them; nested payloads are for `--format json`.
fn plain(value: &Value, longest: usize) -> Option<String> {
    match value {
        Value::String(text) if text.is_empty() => None,
        Value::String(text) if text.contains(char::is_whitespace) => Some(format!("{:?}", cut(text, longest))),
        Value::String(text) => Some(cut(text, longest)),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Sequence(items) if !items.is_empty() => {
            Some(items.iter().map(|item| plain(item, longest)).collect::<Option<Vec<_>>>()?.join(","))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use prost_types::{Struct, value::Kind};

    use super::*;

    fn event() -> Event {
        let text = |text: &str| prost_types::Value { kind: Some(Kind::StringValue(text.into())) };
        let number = |number| prost_types::Value { kind: Some(Kind::NumberValue(number)) };
        let inner = [("address".to_owned(), text("192.0.2.9"))].into();
        let nested = prost_types::Value { kind: Some(Kind::StructValue(Struct { fields: inner })) };
        let fields = [
            ("address_family".to_owned(), text("inet")),
            ("code".to_owned(), text("LOCKED")),
            ("generation".to_owned(), number(4.0)),
            ("message".to_owned(), text("two\nlines \u{1b}[2J")),
            ("empty".to_owned(), text("")),
            ("other_holder".to_owned(), nested),
            ("subject_keys".to_owned(), text("noise")),
        ];
        Event {
            stream: "token/6f0c1b2d-0000-0000-0000-000000000000".into(),
            version: 12,
            kind: "join.refused".into(),
            recorded_at: Some("2026-01-31T12:00:00.5Z".parse().unwrap()),
            actor: "bot-example".into(),
            remote_addr: "192.0.2.7".into(),
            attempt: "0123456789abcdef".into(),
            data: Some(Struct { fields: fields.into() }),
            token: "example".into(),
            log_index: Some(17),
            ..Default::default()
        }
    }

    #[test]
    fn a_line_tells_when_what_who_and_why() {
        assert_eq!(
            line(&event()),
            "2026-01-31T12:00:00.500Z      17  token/example/12            join.refused               bot-example       192.0.2.7              0123456…  code=LOCKED generation=4 address_family=inet message=\"two\\nlines \\u{1b}[2J\" other_holder.address=192.0.2.9"
        );
    }

    #[test]
    fn a_line_without_log_is_the_same_but_for_the_column() {
        assert_eq!(line_without_log(&event()), line(&event()).replace("Z      17  ", "Z  "));
    }

    #[test]
    fn headings_stand_above_their_columns() {
        let (headings, line) = (headings(), line(&event()));
        let column = |text: &str, part: &str| text.find(part).map(|at| text[..at].chars().count());
        assert_eq!(column(&headings, "KIND"), column(&line, "join.refused"));
        assert_eq!(column(&headings, "FACTS"), column(&line, "code="));
    }

    #[test]
    fn streams_without_a_name_show_their_id() {
        let event = Event { stream: "lock/6f0c1b2d-0000-4000".into(), version: 1, ..Default::default() };
        assert_eq!(place(&event), "lock/6f0c1b2d…/1");
    }
}
