//! Bots.

use std::collections::BTreeMap;

use join_domain::{
    id::user_name,
    refusal::Refusal,
    resource::{BotSpec, MAX_ITEMS, MAX_VALUE, is_value},
    state::BotState,
};
use join_proto::v1;

use crate::{Head, check_size};

/// Reads a bot.
///
/// # Errors
/// INVALID_REQUEST with the field.
pub fn read_bot(bot: v1::Bot) -> Result<(Head, BotSpec), Refusal> {
    let head = Head::read(("bot", "v1"), &bot.kind, &bot.version, bot.metadata)?;
    let spec = bot.spec.unwrap_or_default();
    check_list("spec.roles", &spec.roles)?;
    let mut traits = BTreeMap::new();
    for (at, named) in spec.traits.into_iter().enumerate() {
        let path = format!("spec.traits[{at}]");
        let invalid = |why: String| Refusal::invalid(&format!("{path}.name"), why);
        if !is_value(&named.name) {
            return Err(invalid(format!("a trait has a name of 1 to {MAX_VALUE} printable bytes")));
        }
        check_list(&format!("{path}.values"), &named.values)?;
        if traits.contains_key(&named.name) {
            return Err(invalid(format!("`{}` is there twice", named.name)));
        }
        traits.insert(named.name, named.values);
    }
    let spec = BotSpec { roles: spec.roles, traits, labels: head.labels.clone(), expires: head.expires };
    check_size(&spec)?;
    Ok((head, spec))
}

fn check_list(field: &str, values: &[String]) -> Result<(), Refusal> {
    if values.len() > MAX_ITEMS {
        return Err(Refusal::invalid(field, format!("more than {MAX_ITEMS} values")));
    }
    match values.iter().position(|value| !is_value(value)) {
        Some(at) => Err(Refusal::invalid(&format!("{field}[{at}]"), format!("not 1 to {MAX_VALUE} printable bytes"))),
        None => Ok(()),
    }
}

/// Writes a bot.
pub fn write_bot(bot: &BotState, revision: u64) -> v1::Bot {
    let traits = bot.spec.traits.iter();
    v1::Bot {
        kind: "bot".to_owned(),
        version: "v1".to_owned(),
        metadata: Some(Head::write(bot.name.to_string(), &bot.spec.labels, bot.spec.expires, revision)),
        spec: Some(v1::BotSpec {
            roles: bot.spec.roles.clone(),
            traits: traits.map(|(name, values)| v1::Trait { name: name.clone(), values: values.clone() }).collect(),
        }),
        status: Some(v1::BotStatus { user_name: user_name(&bot.name) }),
    }
}
