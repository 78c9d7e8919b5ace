//! One stored example of every event kind and version, in `stored/KIND.vVERSION.json`. Each must be read for ever: a
//! changed shape gets a new version, a new example and an upcaster, and the old example stays as it is.

use std::{collections::BTreeMap, fs, path::PathBuf};

use join_domain::{
    event::Event,
    upcast::{self, UpcastError},
};
use serde_json::Value;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/stored")
}

/// The text of every stored example, by kind and version.
pub(crate) fn examples() -> BTreeMap<(String, u32), String> {
    let example = |path: PathBuf| {
        let name = path.file_name()?.to_str()?.strip_suffix(".json")?;
        let (kind, version) = name.rsplit_once(".v")?;
        Some(((kind.to_owned(), version.parse().ok()?), fs::read_to_string(&path).ok()?))
    };
    fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| example(path.clone()).unwrap_or_else(|| panic!("{} is no example", path.display())))
        .collect()
}

/// Every stored example as it is read.
pub(crate) fn events() -> impl Iterator<Item = Event> {
    examples().into_iter().map(|((kind, version), text)| {
        upcast::read(&kind, version, &text).unwrap_or_else(|error| panic!("{kind}.v{version}.json: {error}"))
    })
}

#[test]
fn every_stored_example_is_read() {
    for (((kind, version), text), event) in examples().into_iter().zip(events()) {
        let data: Value = serde_json::from_str(&text).unwrap();
        let (name, newest) = event.kind();
        assert_eq!(name, kind);
        if version == newest {
            assert_eq!(event.data().unwrap(), data, "and written as it was");
        }
    }
}

#[test]
fn every_kind_has_an_example_of_every_version() {
    let examples = examples();
    for kind in Event::KINDS {
        for version in 1..=kind.schema {
            let example = examples.get(&(kind.name.to_owned(), version));
            assert!(example.is_some(), "stored/{}.v{version}.json is missing", kind.name);
        }
    }
    assert_eq!(examples.len(), Event::KINDS.iter().map(|kind| kind.schema as usize).sum::<usize>());
}

#[test]
fn what_cannot_be_read_says_why() {
    let newer = upcast::read("token.created", 99, "{}").unwrap_err();
    assert!(matches!(newer, UpcastError::Newer { schema: 99, .. }));
    assert!(newer.to_string().contains("upgrade"), "{newer}");
    let unknown = upcast::read("token.exploded", 1, "{}").unwrap_err();
    assert!(matches!(&unknown, UpcastError::UnknownKind(kind) if kind == "token.exploded"));
    let malformed = upcast::read("recovery.consumed", 1, r#"{"count":"two"}"#).unwrap_err();
    assert!(matches!(&malformed, UpcastError::Malformed { kind, .. } if kind == "recovery.consumed"));
}
