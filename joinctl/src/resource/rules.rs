//! What the authority asks of each resource by itself. It is asked here first: what is refused before anything is sent
//! leaves nothing half done.

use std::{collections::HashSet, fmt::Display, str::FromStr};

use anyhow::anyhow;
use join_domain::{
    decision::administer::MAX_USES,
    id::{InstanceId, LockId, Name},
    key::PublicKey,
    resource::{
        ExemptionKind, LockTarget, MAX_ITEMS, MAX_SECRET, MAX_TEXT, MAX_VALUE, RecoveryMode, is_label, is_secret,
        is_text, is_value,
    },
};
use join_proto::v1::{Bot, Exemption, Lock, Metadata, Onboarding, Token};

use super::{Kind, Resource};

/// Refuses what the authority would refuse. Errors begin with the path of the field.
pub(super) fn check(resource: &Resource) -> anyhow::Result<()> {
    check_name(resource.kind(), resource.name())?;
    resource.metadata().map_or(Ok(()), check_labels)?;
    match resource {
        Resource::Bot(bot) => check_bot(bot),
        Resource::Token(token) => check_token(token),
        Resource::Lock(lock) => lock_target(lock).and_then(|_| {
            let spec = lock.spec.as_ref();
            check_text("spec.message", spec.map_or("", |spec| &spec.message))
        }),
        Resource::Exemption(exemption) => check_exemption(exemption),
        Resource::BotInstance(_) => Ok(()),
    }
}

/// An error with the path of its field.
fn at(path: impl Display, why: impl Display) -> anyhow::Error {
    anyhow!("{path}: {why}")
}

fn check_name(kind: Kind, name: &str) -> anyhow::Result<()> {
    match kind {
        Kind::Bot | Kind::Token if name.is_empty() => {
            Err(at("metadata.name", format!("missing; a {kind} needs a name")))
        }
        Kind::Bot | Kind::Token => check_value::<Name>("metadata.name", name),
        Kind::Lock if !name.is_empty() && name.parse::<LockId>().is_err() => {
            Err(at("metadata.name", "the name of a lock is a UUID, or left out"))
        }
        Kind::Lock | Kind::Exemption | Kind::BotInstance => Ok(()),
    }
}

fn check_value<T: FromStr<Err: Display>>(path: &str, text: &str) -> anyhow::Result<()> {
    text.parse::<T>().map(drop).map_err(|error| at(path, error))
}

fn check_text(path: &str, text: &str) -> anyhow::Result<()> {
    if !is_text(text) {
        return Err(at(path, format!("not up to {MAX_TEXT} printable bytes")));
    }
    Ok(())
}

fn check_labels(metadata: &Metadata) -> anyhow::Result<()> {
    if metadata.labels.len() > MAX_ITEMS {
        return Err(at("metadata.labels", format!("more than {MAX_ITEMS} labels")));
    }
    match metadata.labels.iter().find(|(key, value)| !is_label(key, value)) {
        None => Ok(()),
        Some((key, _)) => {
            let rule = format!(
                "a label has a key of 1 to {MAX_VALUE} printable bytes without = and , and a value up to that length"
            );
            Err(at(format!("metadata.labels.{key}"), rule))
        }
    }
}

fn check_list(path: &str, values: &[String]) -> anyhow::Result<()> {
    if values.len() > MAX_ITEMS {
        return Err(at(path, format!("more than {MAX_ITEMS} values")));
    }
    match values.iter().position(|value| !is_value(value)) {
        None => Ok(()),
        Some(i) => Err(at(format!("{path}[{i}]"), format!("1 to {MAX_VALUE} printable bytes are expected"))),
    }
}

fn check_bot(bot: &Bot) -> anyhow::Result<()> {
    let Some(spec) = &bot.spec else {
        return Ok(());
    };
    check_list("spec.roles", &spec.roles)?;
    let mut seen = HashSet::new();
    for (i, named) in spec.traits.iter().enumerate() {
        let path = format!("spec.traits[{i}]");
        if !is_value(&named.name) {
            return Err(at(format!("{path}.name"), format!("a trait has a name of 1 to {MAX_VALUE} printable bytes")));
        }
        if !seen.insert(&named.name) {
            return Err(at(format!("{path}.name"), format!("{:?} is there twice", named.name)));
        }
        check_list(&format!("{path}.values"), &named.values)?;
    }
    Ok(())
}

fn check_token(token: &Token) -> anyhow::Result<()> {
    let spec = token.spec.clone().unwrap_or_default();
    if spec.join_method != join_proto::JOIN_METHOD {
        return Err(at("spec.join_method", format!("{:?} is not served; bound_keypair is", spec.join_method)));
    }
    if spec.roles != ["Bot"] {
        return Err(at("spec.roles", "must be [Bot]: a bound keypair admits bots only"));
    }
    check_value::<Name>("spec.bot_name", &spec.bot_name)?;
    let settings = spec.bound_keypair.unwrap_or_default();
    check_onboarding(&settings.onboarding.unwrap_or_default())?;
    match settings.recovery.and_then(|recovery| recovery.mode).filter(|mode| !mode.is_empty()) {
        None => Ok(()),
        Some(mode) => check_value::<RecoveryMode>("spec.bound_keypair.recovery.mode", &mode),
    }
}

fn check_onboarding(onboarding: &Onboarding) -> anyhow::Result<()> {
    let path = "spec.bound_keypair.onboarding";
    let Onboarding { registration_secret: secret, initial_public_key: key, .. } = onboarding;
    if !secret.is_empty() && !is_secret(secret) {
        return Err(at(format!("{path}.registration_secret"), format!("not 1 to {MAX_SECRET} printable bytes")));
    }
    if key.is_empty() {
        return Ok(());
    }
    PublicKey::from_authorized_key(key.as_bytes()).map_err(|error| at(format!("{path}.initial_public_key"), error))?;
    if !secret.is_empty() {
        return Err(at(path, "it has both registration_secret and initial_public_key: give one of them"));
    }
    Ok(())
}

/// The one thing that a lock locks.
pub(super) fn lock_target(lock: &Lock) -> anyhow::Result<LockTarget> {
    let target = lock.spec.as_ref().and_then(|spec| spec.target.clone()).unwrap_or_default();
    let set: Vec<_> = [
        ("user", target.user),
        ("bot_instance_id", target.bot_instance_id),
        ("join_token", target.join_token),
        ("public_key", target.public_key),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
    .collect();
    let [(field, value)] = set.as_slice() else {
        return Err(at("spec.target", "exactly one of user, bot_instance_id, join_token and public_key is expected"));
    };
    let parsed = match *field {
        "user" => LockTarget::user(value),
        "bot_instance_id" => {
            value.parse::<InstanceId>().map(LockTarget::BotInstanceId).map_err(|_| format!("{value:?} is no UUID"))
        }
        "join_token" => value.parse::<Name>().map(LockTarget::JoinToken).map_err(|error| error.to_string()),
        _ => LockTarget::public_key(value).map_err(|error| error.to_string()),
    };
    parsed.map_err(|why| at(format!("spec.target.{field}"), why))
}

fn check_exemption(exemption: &Exemption) -> anyhow::Result<()> {
    let spec = exemption.spec.clone().unwrap_or_default();
    check_value::<Name>("spec.token_name", &spec.token_name)?;
    check_value::<ExemptionKind>("spec.kind", &spec.kind)?;
    if spec.kind != ExemptionKind::Recoveries.as_str() && spec.count > 1 {
        return Err(at("spec.count", "it is for the kind recoveries only: use spec.uses for the others"));
    }
    if spec.count.max(1).saturating_mul(spec.uses.max(1)) > MAX_USES {
        return Err(at("spec.uses", format!("count and uses allow more than {MAX_USES} joins together: grant less")));
    }
    if spec.reason.trim().is_empty() {
        return Err(at("spec.reason", "missing; it stands in the ledger"));
    }
    check_text("spec.reason", spec.reason.trim())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use crate::resource::document::parse;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFi1AGLjk14Nr+eEm4PJbOG5yiYj+eEAsrZDo6l0y8d+ host";

    fn told(kind: &str, version: &str, rest: &str) -> String {
        let yaml = format!("{{kind: {kind}, version: {version}, {rest}}}").replace("KEY", KEY);
        parse("x", &yaml).map(|_| "fits".to_owned()).unwrap_or_else(|error| format!("{error:#}"))
    }

    fn token(spec: &str) -> String {
        told("token", "v2", &format!("metadata: {{name: example}}, spec: {{{spec}}}"))
    }

    #[rstest]
    #[case("", "fits")]
    #[case("onboarding: {initial_public_key: KEY}", "fits")]
    #[case(
        "onboarding: {initial_public_key: ssh-ed25519 AAAA}",
        "spec.bound_keypair.onboarding.initial_public_key: not a public key in authorized_keys form"
    )]
    #[case(
        "onboarding: {initial_public_key: ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAB}",
        "spec.bound_keypair.onboarding.initial_public_key: `ssh-rsa` keys are not accepted: use Ed25519"
    )]
    #[case(
        "onboarding: {initial_public_key: KEY, registration_secret: s3cret}",
        "spec.bound_keypair.onboarding: it has both registration_secret and initial_public_key"
    )]
    #[case("recovery: {mode: lax}", "spec.bound_keypair.recovery.mode: `lax` is not a recovery mode: use standard")]
    fn a_bound_keypair_has_a_key_that_is_served_and_a_known_mode(#[case] settings: &str, #[case] message: &str) {
        let spec = format!("roles: [Bot], bot_name: web, join_method: bound_keypair, bound_keypair: {{{settings}}}");
        let told = token(&spec);
        assert!(told.trim_start_matches("x, document 1: ").starts_with(message), "{told}");
    }

    #[rstest]
    #[case("roles: [Bot], bot_name: web, join_method: iam", r#"spec.join_method: "iam" is not served"#)]
    #[case("roles: [Node], bot_name: web, join_method: bound_keypair", "spec.roles: must be [Bot]")]
    #[case("roles: [Bot], bot_name: Web, join_method: bound_keypair", "spec.bot_name: `Web` is not a name")]
    fn a_token_names_its_bot_and_how_it_joins(#[case] spec: &str, #[case] message: &str) {
        let told = token(spec);
        assert!(told.starts_with(&format!("x, document 1: {message}")), "{told}");
    }

    #[rstest]
    #[case("target: {user: bot-web}", "fits")]
    #[case("target: {public_key: KEY}", "fits")]
    #[case("target: {}", "x, document 1: spec.target: exactly one of")]
    #[case("target: {user: bot-web, join_token: web}", "x, document 1: spec.target: exactly one of")]
    #[case("target: {user: web}", "x, document 1: spec.target.user: `web` is not a bot's user name")]
    #[case("target: {bot_instance_id: web}", r#"x, document 1: spec.target.bot_instance_id: "web" is no UUID"#)]
    #[case("target: {public_key: 'SHA256:short'}", "x, document 1: spec.target.public_key: not the fingerprint")]
    fn a_lock_has_one_target(#[case] spec: &str, #[case] message: &str) {
        let told = told("lock", "v2", &format!("spec: {{{spec}}}"));
        assert!(told.starts_with(message), "{told}");
    }

    #[rstest]
    #[case("token_name: web, kind: recoveries, count: 3, reason: planned", "fits")]
    #[case("token_name: web, kind: reinstatement, reason: planned", "spec.kind: `reinstatement` is not an exemption")]
    #[case("token_name: web, kind: join_state, count: 3, reason: planned", "spec.count: it is for the kind recoveries")]
    #[case("token_name: web, kind: recoveries, count: 9, uses: 999, reason: r", "spec.uses: count and uses allow more")]
    #[case("token_name: web, kind: recoveries, reason: ' '", "spec.reason: missing")]
    #[case("kind: recoveries, reason: planned", "spec.token_name: `` is not a name")]
    fn an_exemption_has_a_token_a_rule_and_a_reason(#[case] spec: &str, #[case] message: &str) {
        let told = told("exemption", "v1", &format!("spec: {{{spec}}}"));
        assert!(told.trim_start_matches("x, document 1: ").starts_with(message), "{told}");
    }

    #[rstest]
    #[case(
        "metadata: {name: web, labels: {'a=b': c}}",
        "metadata.labels.a=b: a label has a key of 1 to 253 printable bytes"
    )]
    #[case("metadata: {name: web}, spec: {roles: [a, '']}", "spec.roles[1]: 1 to 253 printable bytes")]
    #[case("metadata: {name: web}, spec: {traits: [{name: ''}]}", "spec.traits[0].name: a trait has a name")]
    #[case(
        "metadata: {name: web}, spec: {traits: [{name: a}, {name: a}]}",
        r#"spec.traits[1].name: "a" is there twice"#
    )]
    fn labels_roles_and_traits_have_limits(#[case] rest: &str, #[case] message: &str) {
        let told = told("bot", "v1", rest);
        assert!(told.starts_with(&format!("x, document 1: {message}")), "{told}");
    }

    #[test]
    fn a_lock_is_named_by_a_uuid_or_by_the_authority() {
        let told = told("lock", "v2", "metadata: {name: web}, spec: {target: {user: bot-web}}");
        assert_eq!(told, "x, document 1: metadata.name: the name of a lock is a UUID, or left out");
    }
}
