//! Holds a YAML tree against the message it is to become. Errors give the path of the field and what is allowed there.

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor};
use prost_types::Timestamp;
use serde_yaml_ng::Value;

/// Checks keys and types of everything in `tree`. A null is a field left out, wherever it stands.
pub(super) fn check(tree: &Value, message: &MessageDescriptor) -> Result<(), String> {
    check_message(tree, message, "")
}

fn check_message(tree: &Value, message: &MessageDescriptor, path: &str) -> Result<(), String> {
    if message.full_name() == "google.protobuf.Timestamp" {
        return if is_time(tree, message) {
            Ok(())
        } else {
            Err(wrong(path, "a time such as 2026-01-31T12:00:00Z", tree))
        };
    }
    let Value::Mapping(entries) = tree else {
        return Err(wrong(path, &format!("a map with the keys {}", keys(message)), tree));
    };
    for (key, value) in entries {
        let key = text_of(key);
        let here = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let field = message
            .get_field_by_name(&key)
            .ok_or_else(|| format!("{here}: unknown key; allowed here: {}", keys(message)))?;
        if !value.is_null() {
            check_field(value, &field, &here)?;
        }
    }
    Ok(())
}

/// A time in full, RFC 3339, of the years 1970 to 9999.
fn is_time(tree: &Value, message: &MessageDescriptor) -> bool {
    let read = DynamicMessage::deserialize(message.clone(), tree).ok();
    let time = read.and_then(|time| time.transcode_to::<Timestamp>().ok());
    time.is_some_and(|time| time.seconds >= 0)
}

fn check_field(tree: &Value, field: &FieldDescriptor, path: &str) -> Result<(), String> {
    if field.is_map() {
        let Value::Mapping(entries) = tree else {
            return Err(wrong(path, "a map from text to text", tree));
        };
        let other = entries.iter().find(|(key, value)| !key.is_string() || !value.is_string());
        return other.map_or(Ok(()), |(key, value)| {
            let odd = if key.is_string() { value } else { key };
            Err(wrong(&format!("{path}.{}", text_of(key)), "text (put it in quotes)", odd))
        });
    }
    if field.is_list() {
        let Value::Sequence(items) = tree else {
            return Err(wrong(path, "a list", tree));
        };
        return items
            .iter()
            .enumerate()
            .try_for_each(|(i, item)| check_value(item, &field.kind(), &format!("{path}[{i}]")));
    }
    check_value(tree, &field.kind(), path)
}

fn check_value(tree: &Value, kind: &Kind, path: &str) -> Result<(), String> {
    let (fits, wanted) = match kind {
        Kind::Message(message) => return check_message(tree, message, path),
        Kind::String => (tree.is_string(), "text (put it in quotes)"),
        Kind::Bool => (tree.is_bool(), "true or false"),
        Kind::Uint32 => {
            (tree.as_u64().is_some_and(|number| u32::try_from(number).is_ok()), "a whole number from 0 to 4294967295")
        }
        Kind::Uint64 => (tree.is_u64(), "a whole number from 0"),
        // Resources have no other types; a new one is checked by the conversion, which knows all.
        _ => return Ok(()),
    };
    if fits { Ok(()) } else { Err(wrong(path, wanted, tree)) }
}

fn wrong(path: &str, wanted: &str, found: &Value) -> String {
    // A secret is not repeated, not even a wrong one.
    let is_secret = path.ends_with("secret");
    let found = match found {
        Value::Number(_) if is_secret => "a number".to_owned(),
        Value::Null => "nothing".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(value) => format!("the number {value}"),
        Value::String(value) => format!("the text {value:?}"),
        Value::Sequence(_) => "a list".to_owned(),
        Value::Mapping(_) => "a map".to_owned(),
        Value::Tagged(value) => format!("the tag {}", value.tag),
    };
    let place = if path.is_empty() { String::new() } else { format!("{path}: ") };
    format!("{place}{wanted} is expected, {found} was found")
}

fn keys(message: &MessageDescriptor) -> String {
    message.fields().map(|field| field.name().to_owned()).collect::<Vec<_>>().join(", ")
}

/// A key as it was written; keys are texts, but `1:` and `true:` are YAML too.
fn text_of(key: &Value) -> String {
    match key {
        Value::String(text) => text.clone(),
        other => serde_yaml_ng::to_string(other).unwrap_or_default().trim_end().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::resource;

    #[rstest]
    #[case(
        "spec: {bound_keypair: {recovery: {limt: 2}}}",
        "spec.bound_keypair.recovery.limt: unknown key; allowed here: mode, limit"
    )]
    #[case(
        "spec: {boundKeypair: {}}",
        "spec.boundKeypair: unknown key; allowed here: roles, bot_name, join_method, bound_keypair"
    )]
    #[case("spec: {bound_keypair: {recovery: {limit: two}}}", r#"spec.bound_keypair.recovery.limit: a whole number from 0 to 4294967295 is expected, the text "two" was found"#)]
    #[case(
        "spec: {bound_keypair: {recovery: {limit: -1}}}",
        "spec.bound_keypair.recovery.limit: a whole number from 0 to 4294967295 is expected, the number -1 was found"
    )]
    #[case(
        "spec: {bound_keypair: {recovery: {limit: 4294967296}}}",
        "spec.bound_keypair.recovery.limit: a whole number from 0 to 4294967295 is expected, the number 4294967296 was found"
    )]
    #[case(
        "spec: {bound_keypair: {onboarding: {registration_secret: 12}}}",
        "spec.bound_keypair.onboarding.registration_secret: text (put it in quotes) is expected, a number was found"
    )]
    #[case("spec: {bound_keypair: {rotate_after: tomorrow}}", r#"spec.bound_keypair.rotate_after: a time such as 2026-01-31T12:00:00Z is expected, the text "tomorrow" was found"#)]
    #[case("spec: {bound_keypair: {onboarding: {must_register_before: 2026-01-31}}}", r#"spec.bound_keypair.onboarding.must_register_before: a time such as 2026-01-31T12:00:00Z is expected, the text "2026-01-31" was found"#)]
    #[case("spec: {roles: Bot}", r#"spec.roles: a list is expected, the text "Bot" was found"#)]
    #[case("spec: {roles: [Bot, 7]}", "spec.roles[1]: text (put it in quotes) is expected, the number 7 was found")]
    #[case(
        "metadata: {labels: {tier: 1}}",
        "metadata.labels.tier: text (put it in quotes) is expected, the number 1 was found"
    )]
    #[case(
        "metadata: {labels: {1: one}}",
        "metadata.labels.1: text (put it in quotes) is expected, the number 1 was found"
    )]
    #[case(
        "metadata: example",
        r#"metadata: a map with the keys name, labels, expires, revision is expected, the text "example" was found"#
    )]
    #[case("[]", "a map with the keys kind, version, metadata, spec, status is expected, a list was found")]
    fn what_does_not_fit_is_told_with_its_path(#[case] yaml: &str, #[case] message: &str) {
        let tree = serde_yaml_ng::from_str(yaml).unwrap();
        assert_eq!(check(&tree, &resource::Kind::Token.descriptor()), Err(message.to_owned()));
    }

    #[rstest]
    #[case("spec: {bound_keypair: {recovery: {mode: relaxed, limit: 0}, rotate_after: 2026-01-31T12:00:00+01:00}}")]
    #[case("metadata: {name: example, expires: null, labels: {team: infra}}\nspec: ~")]
    fn what_fits_passes(#[case] yaml: &str) {
        let tree = serde_yaml_ng::from_str(yaml).unwrap();
        assert_eq!(check(&tree, &resource::Kind::Token.descriptor()), Ok(()));
    }
}
