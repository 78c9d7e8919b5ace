//! Resources out of files: YAML with one or more documents, JSON, stdin. All is read and checked before anything is sent.

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow, bail};
use prost_reflect::{DeserializeOptions, DynamicMessage};
use serde::Deserialize as _;
use serde_yaml_ng::{Deserializer, Value};

use super::{Kind, Resource, names, shape};

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
        let origin = origin(file);
        let text = if is_stdin(file) { io::read_to_string(io::stdin()) } else { fs::read_to_string(file) };
        documents.extend(parse(&origin, &text.with_context(|| format!("cannot read {origin}"))?)?);
    }
    if documents.is_empty() {
        bail!("no resource in {}", files.iter().map(|file| origin(file)).collect::<Vec<_>>().join(", "));
    }
    refuse_namesakes(&documents)?;
    documents.sort_by_key(|document| document.resource.kind());
    Ok(documents)
}

fn is_stdin(file: &Path) -> bool {
    file == Path::new("-")
}

fn origin(file: &Path) -> String {
    if is_stdin(file) { "stdin".to_owned() } else { file.display().to_string() }
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
    shape::check(&tree, &kind.descriptor()).map_err(|error| anyhow!(error))?;
    let resource = Resource::from_dynamic(kind, &message(tree, kind)?)?;
    resource.check()?;
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
