//! Resources out of files: YAML with one or more documents, JSON, stdin. All is read and checked before anything is sent.

use std::{
    collections::HashMap,
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow, bail};
use prost_reflect::{DeserializeOptions, DynamicMessage};
use serde::Deserialize as _;
use serde_yaml_ng::{Deserializer, Value};

use super::{Kind, Resource, check::check, names, rules};

/// A resource and where it was written, for errors.
#[derive(Debug)]
pub(super) struct Document {
    /// `bot.yaml, document 2`.
    pub(super) origin: String,
    pub(super) resource: Resource,
}

/// Reads files, or stdin for `-`. Bots come first and locks later, whatever the order of the documents: a token can't
/// be made before its bot.
pub(super) fn read(files: &[PathBuf]) -> anyhow::Result<Vec<Document>> {
    let mut documents = Vec::new();
    for file in files {
        let (origin, text) = if file == Path::new("-") {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text).context("cannot read stdin")?;
            ("stdin".to_owned(), text)
        } else {
            let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
            (file.display().to_string(), text)
        };
        documents.extend(parse(&origin, &text)?);
    }
    if documents.is_empty() {
        bail!("no resource in {}", files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", "));
    }
    refuse_namesakes(&documents)?;
    documents.sort_by_key(|document| document.resource.kind());
    Ok(documents)
}

/// Reads the documents of one text. A list, as `get --format json` prints it, stands for its elements.
pub(super) fn parse(origin: &str, text: &str) -> anyhow::Result<Vec<Document>> {
    let mut trees = Vec::new();
    for (i, document) in Deserializer::from_str(text).enumerate() {
        let origin = format!("{origin}, document {}", i + 1);
        match Value::deserialize(document).with_context(|| origin.clone())? {
            // A separator at the beginning or end, or comments alone.
            Value::Null => {}
            Value::Sequence(items) => {
                trees.extend(
                    items.into_iter().enumerate().map(|(i, item)| (format!("{origin}, element {}", i + 1), item)),
                );
            }
            tree => trees.push((origin, tree)),
        }
    }
    let read = |(origin, tree)| match resource(tree) {
        Ok(resource) => Ok(Document { origin, resource }),
        Err(error) => Err(error.context(origin)),
    };
    trees.into_iter().map(read).collect()
}

/// Turns one tree into a resource. `status` is the server's: what a user sends of it is dropped unread. Errors begin with
/// the path of the field.
fn resource(mut tree: Value) -> anyhow::Result<Resource> {
    if let Value::Mapping(fields) = &mut tree {
        fields.remove("status");
    }
    let kind = kind(&tree)?;
    check(&tree, &kind.descriptor()).map_err(|error| anyhow!(error))?;
    let resource = Resource::from_dynamic(kind, &message(tree, kind)?)?;
    rules::check(&resource)?;
    Ok(resource)
}

fn message(tree: Value, kind: Kind) -> anyhow::Result<DynamicMessage> {
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    let mut track = serde_path_to_error::Track::new();
    let tree = serde_path_to_error::Deserializer::new(tree, &mut track);
    DynamicMessage::deserialize_with_options(kind.descriptor(), tree, &options)
        .map_err(|error| anyhow!("{}: {error}", track.path()))
}

fn kind(tree: &Value) -> anyhow::Result<Kind> {
    let word = |key: &str| tree.get(key).filter(|value| !value.is_null());
    let known = names(&Kind::WRITABLE);
    let kind = match word("kind") {
        None if tree.is_mapping() => bail!("kind: missing; one of {known} is expected"),
        None => bail!("a resource is a map with the keys kind, version, metadata and spec"),
        // Only the exact word: a file is read by others too.
        Some(value) => Kind::ALL
            .into_iter()
            .find(|kind| value.as_str() == Some(kind.name()))
            .ok_or_else(|| anyhow!("kind: unknown kind {}; one of {known} is expected", shown(value)))?,
    };
    if kind == Kind::BotInstance {
        bail!("kind: bot_instance is read only: the authority writes it when a bot joins; one of {known} is expected");
    }
    match word("version") {
        Some(version) if version.as_str() == Some(kind.version()) => Ok(kind),
        Some(version) => bail!("version: {kind} has the version {}, not {}", kind.version(), shown(version)),
        None => bail!("version: missing; {kind} has the version {}", kind.version()),
    }
}

fn shown(value: &Value) -> String {
    serde_yaml_ng::to_string(value).unwrap_or_default().trim_end().to_owned()
}

/// The same resource twice is a mistake, and which one would win is a guess.
fn refuse_namesakes(documents: &[Document]) -> anyhow::Result<()> {
    let mut seen = HashMap::new();
    for document in documents.iter().filter(|document| !document.resource.name().is_empty()) {
        let reference = document.resource.reference().to_string();
        if let Some(first) = seen.insert(reference.clone(), &document.origin) {
            bail!("{}: {reference} stands in {first} already", document.origin);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const TOKEN: &str = "
kind: token
version: v2
metadata: {name: example, labels: {team: infra}}
spec:
  roles: [Bot]
  bot_name: example
  join_method: bound_keypair
  bound_keypair:
    onboarding: {must_register_before: 2026-01-31T12:00:00Z}
    recovery: {mode: standard, limit: 3}
status: {whatever: it says}
---
kind: bot
version: v1
metadata: {name: example}
spec: {roles: [], traits: [{name: logins, values: [deploy]}]}
";

    #[test]
    fn documents_become_resources_and_lose_their_status() {
        let documents = parse("both.yaml", TOKEN).unwrap();
        let Resource::Token(token) = &documents[0].resource else { panic!("{documents:?}") };
        assert_eq!(token.status, None);
        let settings = token.spec.as_ref().unwrap().bound_keypair.as_ref().unwrap();
        assert_eq!(settings.recovery.as_ref().unwrap().limit, Some(3));
        assert_eq!(settings.onboarding.as_ref().unwrap().must_register_before.unwrap().seconds, 1_769_860_800);
        let Resource::Bot(bot) = &documents[1].resource else { panic!("{documents:?}") };
        assert_eq!(bot.spec.as_ref().unwrap().traits[0].values, ["deploy"]);
        assert_eq!(documents[1].origin, "both.yaml, document 2");
    }

    #[test]
    fn bots_come_before_their_tokens() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), TOKEN).unwrap();
        let kinds: Vec<_> = read(&[file.path().into()]).unwrap().iter().map(|it| it.resource.kind()).collect();
        assert_eq!(kinds, [Kind::Bot, Kind::Token]);
    }

    #[test]
    fn what_is_printed_can_be_read_again() {
        for document in parse("both.yaml", TOKEN).unwrap() {
            let yaml = serde_yaml_ng::to_string(&document.resource.tree()).unwrap();
            assert_eq!(parse("again", &yaml).unwrap()[0].resource, document.resource, "{yaml}");
            let json = serde_json::to_string(&vec![document.resource.tree()]).unwrap();
            assert_eq!(parse("again", &json).unwrap()[0].resource, document.resource, "{json}");
        }
    }

    #[rstest]
    #[case("kind: node", "x, document 1: kind: unknown kind node; one of bot, token, lock, exemption is expected")]
    #[case("kind: Bot", "x, document 1: kind: unknown kind Bot; one of bot, token, lock, exemption is expected")]
    #[case("version: v1", "x, document 1: kind: missing; one of bot, token, lock, exemption is expected")]
    #[case("just text", "x, document 1: a resource is a map with the keys kind, version, metadata and spec")]
    #[case("kind: bot", "x, document 1: version: missing; bot has the version v1")]
    #[case("kind: token\nversion: v1", "x, document 1: version: token has the version v2, not v1")]
    #[case("kind: bot\nversion: v1", "x, document 1: metadata.name: missing; a bot needs a name")]
    #[case(
        "kind: bot\nversion: v1\nmetadata: {name: Example}",
        "x, document 1: metadata.name: `Example` is not a name: use 1 to 63 of `a-z 0-9 - _ .`, beginning with a letter or digit"
    )]
    #[case(
        "---\n---\nkind: bot\nversion: v1\nspce: {}",
        "x, document 2: spce: unknown key; allowed here: kind, version, metadata, spec, status"
    )]
    #[case(
        "kind: bot\nversion: v1\nmetadata: {name: a, expires: 2026-01-31}",
        "x, document 1: metadata.expires: a time such as 2026-01-31T12:00:00Z is expected, the text \"2026-01-31\" was found"
    )]
    #[case(
        "kind: bot\nversion: v1\nmetadata: {name: a, expires: 1969-12-31T23:59:59Z}",
        "x, document 1: metadata.expires: a time such as 2026-01-31T12:00:00Z is expected, the text \"1969-12-31T23:59:59Z\" was found"
    )]
    #[case(
        "[{kind: node}]",
        "x, document 1, element 1: kind: unknown kind node; one of bot, token, lock, exemption is expected"
    )]
    fn mistakes_are_told_with_file_document_and_field(#[case] yaml: &str, #[case] message: &str) {
        let error = parse("x", yaml).unwrap_err();
        assert_eq!(format!("{error:#}"), message);
    }

    #[test]
    fn the_conversion_tells_the_path_by_itself() {
        let tree =
            serde_yaml_ng::from_str("{spec: {bound_keypair: {onboarding: {must_register_before: soon}}}}").unwrap();
        let error = message(tree, Kind::Token).unwrap_err().to_string();
        assert!(error.starts_with("spec.bound_keypair.onboarding.must_register_before: "), "{error}");
    }

    #[test]
    fn instances_are_not_written_by_people() {
        let error = parse("x", "kind: bot_instance\nversion: v1").unwrap_err();
        assert!(format!("{error:#}").contains("read only"), "{error:#}");
    }

    #[rstest]
    #[case("kind: bot\nversion: [", "line")]
    #[case("kind: bot\nkind: token", "duplicate")]
    fn broken_yaml_is_told_with_its_place(#[case] yaml: &str, #[case] part: &str) {
        let error = format!("{:#}", parse("x", yaml).unwrap_err());
        assert!(error.starts_with("x, document 1: ") && error.contains(part), "{error}");
    }

    #[test]
    fn the_same_resource_twice_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), TOKEN).unwrap();
        let twice = [file.path().to_owned(), file.path().to_owned()];
        assert!(read(&twice).unwrap_err().to_string().contains("token/example stands in"));
    }

    #[test]
    fn a_file_without_resources_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "# nothing\n---\n").unwrap();
        assert!(read(&[file.path().into()]).unwrap_err().to_string().starts_with("no resource in "));
    }
}
