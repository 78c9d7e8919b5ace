//! Messages as the tree that YAML and JSON are printed from.

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage, SerializeOptions};
use serde_yaml_ng::{Mapping, Number, Value};

/// The whole numbers that a float holds exactly end here.
const EXACT: f64 = (1_u64 << 53) as f64;

/// The message with the field names of its `.proto`, in their order. Every field is there: those that were never set
/// are null, the others show their defaults, so that a program can rely on them and an editor sees what there is.
pub(crate) fn of(message: &impl ReflectMessage) -> Value {
    let options =
        SerializeOptions::new().use_proto_field_name(true).skip_default_fields(false).stringify_64_bit_integers(false);
    let message: DynamicMessage = message.transcode_to_dynamic();
    let tree = message
        .serialize_with_options(serde_yaml_ng::value::Serializer, &options)
        .expect("a message of ours has a JSON form");
    complete(tree, &message.descriptor())
}

/// Values under names.
pub(crate) fn mapping<const N: usize>(fields: [(&str, Value); N]) -> Value {
    fields.into_iter().map(|(name, value)| (Value::from(name), value)).collect::<Mapping>().into()
}

fn complete(tree: Value, message: &MessageDescriptor) -> Value {
    let Value::Mapping(mut fields) = tree else {
        return tree;
    };
    if message.full_name().starts_with("google.protobuf.") {
        return plain(Value::Mapping(fields));
    }
    let one_of_all = message.name() == "LockTarget";
    let mut completed = Mapping::new();
    for field in message.fields() {
        let value = fields.remove(field.name()).map_or(Value::Null, |value| complete_field(value, &field));
        // Of a lock's targets one is set; the empty others would look as if they meant something.
        if !(one_of_all && value == "") {
            completed.insert(field.name().into(), value);
        }
    }
    completed.into()
}

fn complete_field(value: Value, field: &FieldDescriptor) -> Value {
    match (field.kind(), value) {
        (_, value) if field.is_map() => plain(value),
        (Kind::Message(message), Value::Sequence(items)) if field.is_list() => {
            items.into_iter().map(|item| complete(item, &message)).collect()
        }
        (Kind::Message(message), value) => complete(value, &message),
        (_, value) => value,
    }
}

/// Maps in the order of their keys, and whole numbers as such: `google.protobuf.Struct` knows neither.
fn plain(value: Value) -> Value {
    match value {
        Value::Mapping(entries) => {
            let mut entries: Vec<_> = entries.into_iter().map(|(key, value)| (key, plain(value))).collect();
            entries.sort_by(|(a, _), (b, _)| a.partial_cmp(b).expect("keys are texts"));
            entries.into_iter().collect::<Mapping>().into()
        }
        Value::Sequence(items) => items.into_iter().map(plain).collect(),
        Value::Number(number) => whole(&number).map_or(Value::Number(number), Value::from),
        other => other,
    }
}

fn whole(number: &Number) -> Option<i64> {
    let float = number.as_f64().filter(|float| number.is_f64() && float.fract() == 0.0 && float.abs() <= EXACT)?;
    #[expect(clippy::cast_possible_truncation, reason = "it is whole, and in the range")]
    Some(float as i64)
}

#[cfg(test)]
mod tests {
    use join_proto::v1::{BoundKeypairStatus, Event, Lock, LockSpec, LockTarget, Token, TokenStatus};
    use prost_types::{Struct, value::Kind::NumberValue};

    use super::*;

    #[test]
    fn a_fresh_token_shows_every_field_of_its_status() {
        let status =
            BoundKeypairStatus { registration_secret: "s3cret".into(), generation: u64::MAX, ..Default::default() };
        let token = Token {
            kind: "token".into(),
            status: Some(TokenStatus { bound_keypair: Some(status) }),
            ..Default::default()
        };
        let json = serde_json::to_value(of(&token)).unwrap();
        let status = &json["status"]["bound_keypair"];
        assert_eq!(status["registration_secret"], "s3cret");
        assert_eq!(status["recovery_count"], 0);
        assert_eq!(status["last_recovered_at"], serde_json::Value::Null);
        assert!(status.as_object().unwrap().contains_key("last_recovered_at"));
        assert_eq!(status["generation"], u64::MAX);
        assert_eq!(json["spec"], serde_json::Value::Null);
    }

    #[test]
    fn fields_stand_in_the_order_of_the_contract() {
        let yaml = serde_yaml_ng::to_string(&of(&Token { kind: "token".into(), ..Default::default() })).unwrap();
        assert_eq!(yaml, "kind: token\nversion: ''\nmetadata: null\nspec: null\nstatus: null\n");
    }

    #[test]
    fn a_lock_shows_the_one_target_it_has() {
        let target = LockTarget { join_token: "example".into(), ..Default::default() };
        let lock = Lock { spec: Some(LockSpec { target: Some(target), message: String::new() }), ..Default::default() };
        assert_eq!(
            serde_json::to_value(of(&lock)).unwrap()["spec"]["target"],
            serde_json::json!({"join_token": "example"})
        );
    }

    #[test]
    fn payloads_have_whole_numbers_and_sorted_keys() {
        let number = |number| prost_types::Value { kind: Some(NumberValue(number)) };
        let fields =
            [("limit".into(), number(3.0)), ("big".into(), number(1e300)), ("half".into(), number(0.5))].into();
        let event = Event { data: Some(Struct { fields }), log_index: None, ..Default::default() };
        let tree = of(&event);
        let yaml = serde_yaml_ng::to_string(&tree["data"]).unwrap();
        assert_eq!(yaml, "big: 1e300\nhalf: 0.5\nlimit: 3\n");
        assert_eq!(tree["log_index"], Value::Null);
    }
}
