//! From path, query and body of an HTTP request to the request of a call.

use prost_reflect::{DeserializeOptions, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor};
use serde::Deserializer;
use serde_json::{Map, Value};
use serde_path_to_error::{Path, Segment, Track};

use crate::{
    calls::{Body, Call},
    problem::Problem,
};

/// Names and values, with percent signs decoded.
pub(crate) type Pairs = Vec<(String, String)>;

/// The request of `call`. All that is wrong is an `INVALID_REQUEST` that names the field.
pub(crate) fn message(call: &Call, path: &Pairs, query: &Pairs, body: &[u8]) -> Result<DynamicMessage, Problem> {
    let mut message = parameters(call, path, query)?;
    match &call.body {
        Body::Nothing if body.is_empty() => {}
        Body::Nothing => {
            return Err(Problem::invalid(format!("{} {} takes no body, only a query", call.verb, call.path)));
        }
        Body::Request if body.is_empty() => {}
        Body::Request => {
            for (field, value) in parse(&call.method.input(), body)?.take_fields() {
                if message.has_field(&field) && *message.get_field(&field) != value {
                    return Err(Problem::invalid(format!("{}: path and body differ", field.name())));
                }
                message.set_field(&field, value);
            }
        }
        Body::Field(field) => {
            if let Kind::Message(kind) = field.kind() {
                message.set_field(field, prost_reflect::Value::Message(parse(&kind, body)?));
            }
        }
    }
    Ok(message)
}

fn parameters(call: &Call, path: &Pairs, query: &Pairs) -> Result<DynamicMessage, Problem> {
    let mut members = Map::new();
    for (name, text) in path {
        if call.path_fields.iter().any(|field| field.name() == name) {
            members.insert(name.clone(), Value::String(text.clone()));
        }
    }
    for (name, text) in query {
        let Some(field) = call.query_fields.iter().find(|field| field.name() == name) else {
            return Err(Problem::invalid(format!("query parameter {name}: unknown{}", allowed(&call.query_fields))));
        };
        let value = typed(field, text)?;
        if field.is_list() {
            if let Value::Array(list) = members.entry(name).or_insert_with(|| Value::Array(Vec::new())) {
                list.push(value);
            }
        } else if members.insert(name.clone(), value).is_some() {
            return Err(Problem::invalid(format!("query parameter {name}: given twice")));
        }
    }
    decode(&call.method.input(), Value::Object(members))
}

/// Numbers and booleans are written in a query as in JSON, all else as a string without its quotes.
fn typed(field: &FieldDescriptor, text: &str) -> Result<Value, Problem> {
    match field.kind() {
        Kind::String | Kind::Bytes | Kind::Enum(_) | Kind::Message(_) => Ok(Value::String(text.to_owned())),
        kind => serde_json::from_str(text)
            .map_err(|_| Problem::invalid(format!("query parameter {}: not a value of type {kind:?}", field.name()))),
    }
}

fn parse(kind: &MessageDescriptor, json: &[u8]) -> Result<DynamicMessage, Problem> {
    let mut json = serde_json::Deserializer::from_slice(json);
    let message = decode(kind, &mut json)?;
    json.end().map_err(|error| Problem::invalid(format!("the body: {error}")))?;
    Ok(message)
}

fn decode<'de, D>(kind: &MessageDescriptor, json: D) -> Result<DynamicMessage, Problem>
where
    D: Deserializer<'de, Error = serde_json::Error>,
{
    let mut track = Track::new();
    let json = serde_path_to_error::Deserializer::new(json, &mut track);
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    DynamicMessage::deserialize_with_options(kind.clone(), json, &options).map_err(|error| {
        let path = track.path();
        let place = if path.iter().next().is_none() { "the body".to_owned() } else { path.to_string() };
        Problem::invalid(format!("{place}: {}", explain(&error, kind, &path)))
    })
}

/// What is wrong and what is wanted, but not the value: it may be a secret in the wrong place.
fn explain(error: &serde_json::Error, kind: &MessageDescriptor, path: &Path) -> String {
    let text = error.to_string();
    let (what, expected) = match text.rsplit_once(", expected ") {
        Some((_, expected)) => (format!("expected {expected}"), true),
        None => (text, false),
    };
    match kind_at(kind, path) {
        Some(Kind::Message(ours)) if error.is_data() => what + &allowed(&ours.fields().collect::<Vec<_>>()),
        Some(scalar) if error.is_data() && !expected => format!("{what}; its type is {scalar:?}"),
        _ => what,
    }
}

/// What `path` leads to: a scalar or a message of ours.
fn kind_at(message: &MessageDescriptor, path: &Path) -> Option<Kind> {
    let mut kind = Kind::Message(message.clone());
    for segment in path {
        if let Segment::Map { key } = segment {
            let message = kind.as_message()?;
            kind = message.get_field_by_name(key).or_else(|| message.get_field_by_json_name(key))?.kind();
        }
    }
    let foreign = |message: &MessageDescriptor| message.is_map_entry() || message.package_name().starts_with("google.");
    (!kind.as_message().is_some_and(foreign)).then_some(kind)
}

fn allowed(fields: &[FieldDescriptor]) -> String {
    if fields.is_empty() {
        return "; nothing is allowed here".to_owned();
    }
    let names: Vec<&str> = fields.iter().map(FieldDescriptor::name).collect();
    format!("; allowed: {}", names.join(", "))
}
