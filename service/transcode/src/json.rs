//! How a message looks in JSON: the shape of the YAML that administrators write.

use prost_reflect::{DynamicMessage, Kind, MessageDescriptor, ReflectMessage as _, SerializeOptions};
use serde_json::{Map, Value};

use crate::problem::Problem;

pub(crate) const TIMESTAMP: &str = "google.protobuf.Timestamp";
pub(crate) const STRUCT: &str = "google.protobuf.Struct";

/// Up to here every whole number has a double of its own.
const LARGEST_EXACT: f64 = 9_007_199_254_740_992.0;

/// Which fields are printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fields {
    /// What has its default value too, and an unset timestamp as `null`. Only other fields that know whether they are
    /// set (messages, `optional` ones) are left out when they aren't.
    All,
    /// What differs from its default value.
    Set,
}

/// The message in JSON. Fields have the names of the `.proto`, 64-bit integers are numbers, bytes are base64.
///
/// # Errors
/// `INTERNAL` when a timestamp is out of the range of RFC 3339.
pub(crate) fn to_json(message: &DynamicMessage, fields: Fields) -> Result<Value, Problem> {
    let options = SerializeOptions::new()
        .use_proto_field_name(true)
        .stringify_64_bit_integers(false)
        .skip_default_fields(fields == Fields::Set);
    let json = message.serialize_with_options(serde_json::value::Serializer, &options);
    let mut json = json.map_err(|error| Problem::unprintable(&error))?;
    finish(&message.descriptor(), fields, &mut json);
    Ok(json)
}

/// What protobuf's JSON says otherwise: unset timestamps, and whole numbers among free data.
fn finish(message: &MessageDescriptor, fields: Fields, json: &mut Value) {
    if message.full_name() == STRUCT {
        return whole_numbers(json);
    }
    let Value::Object(members) = json else { return };
    for field in message.fields() {
        let Kind::Message(kind) = field.kind() else { continue };
        match members.get_mut(field.name()) {
            Some(Value::Array(elements)) => elements.iter_mut().for_each(|element| finish(&kind, fields, element)),
            Some(entries) if field.is_map() => finish_entries(&kind, fields, entries),
            Some(value) => finish(&kind, fields, value),
            None if fields == Fields::All && kind.full_name() == TIMESTAMP => set_null(members, field.name()),
            None => {}
        }
    }
}

fn finish_entries(entry: &MessageDescriptor, fields: Fields, entries: &mut Value) {
    if let (Kind::Message(kind), Value::Object(entries)) = (entry.map_entry_value_field().kind(), entries) {
        entries.values_mut().for_each(|value| finish(&kind, fields, value));
    }
}

fn set_null(members: &mut Map<String, Value>, name: &str) {
    members.insert(name.to_owned(), Value::Null);
}

/// Free data knows doubles only; `3` must not come back as `3.0`.
fn whole_numbers(json: &mut Value) {
    match json {
        Value::Object(members) => members.values_mut().for_each(whole_numbers),
        Value::Array(elements) => elements.iter_mut().for_each(whole_numbers),
        Value::Number(number) => {
            if let Some(double) = number.as_f64().filter(|n| n.fract() == 0.0 && n.abs() <= LARGEST_EXACT) {
                #[allow(clippy::cast_possible_truncation, reason = "a whole number within the range of i64")]
                let whole = double as i64;
                *json = whole.into();
            }
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}
