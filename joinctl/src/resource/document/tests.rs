//! What is read and what is refused, by example; and what holds for any input, whatever somebody writes or a disk makes of it.

use proptest::{prelude::*, sample::Index};
use rstest::rstest;
use serde_yaml_ng::Mapping;

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
    let tree = serde_yaml_ng::from_str("{spec: {bound_keypair: {onboarding: {must_register_before: soon}}}}").unwrap();
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

const EXAMPLES: [&str; 2] =
    [include_str!("../../../../examples/bot.yaml"), include_str!("../../../../examples/token-example.yaml")];
const LOCK: &str = "
kind: lock
version: v2
metadata: {name: 0b6c0000-0000-4000-8000-000000000000, expires: 2026-01-31T12:00:00Z}
spec: {target: {join_token: example}, message: examined}
";
const EXEMPTION: &str = "
kind: exemption
version: v1
metadata: {expires: 2026-01-31T12:00:00Z}
spec: {token_name: example, kind: recoveries, count: 2, uses: 1, reason: planned}
";

fn examples() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![EXAMPLES[0], EXAMPLES[1], LOCK, EXEMPTION])
}

/// The maps of a document whose keys are given, by the path to each; labels and what the server writes are not.
fn maps(tree: &mut Value, path: &str, visit: &mut dyn FnMut(&str, &mut Mapping)) {
    match tree {
        Value::Mapping(fields) => {
            visit(path, fields);
            for (key, value) in fields.iter_mut() {
                let key = key.as_str().unwrap_or_default();
                if key != "labels" {
                    maps(value, &if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }, visit);
                }
            }
        }
        Value::Sequence(items) => {
            for (i, item) in items.iter_mut().enumerate() {
                maps(item, &format!("{path}[{i}]"), visit);
            }
        }
        _ => {}
    }
}

#[test]
fn examples_are_read() {
    for text in [EXAMPLES[0], EXAMPLES[1], LOCK, EXEMPTION] {
        assert_eq!(parse("x", text).unwrap().len(), 1);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse("x", &String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn any_yaml_is_read_or_refused(text in r#"([a-z]{1,6}: |- |[\[\]{}&*!|>'"%@`,:?#-]|\n|  |[0-9]{1,3}|~|kind|v1|<<){0,60}"#) {
        let _ = parse("x", &text);
    }

    #[test]
    fn a_damaged_example_is_read_or_refused(
        text in examples(),
        damage in prop::collection::vec((any::<Index>(), any::<u8>(), 0..3), 1..12),
    ) {
        let mut bytes = text.as_bytes().to_vec();
        for (place, byte, deed) in damage {
            let at = place.index(bytes.len());
            match deed {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => bytes.truncate(at.max(1)),
            }
        }
        if let Err(error) = parse("x", &String::from_utf8_lossy(&bytes)) {
            prop_assert!(format!("{error:#}").starts_with("x, document "), "{error:#}");
        }
    }

    #[test]
    fn a_value_of_another_type_is_refused_with_its_path(text in examples(), place: Index) {
        let mut tree: Value = serde_yaml_ng::from_str(text).unwrap();
        let mut count = 0;
        maps(&mut tree, "", &mut |_, fields| count += fields.len());
        let (chosen, mut seen, mut path) = (place.index(count), 0, String::new());
        maps(&mut tree, "", &mut |parent, fields| {
            for (key, value) in fields.iter_mut() {
                if seen == chosen && path.is_empty() {
                    let key = key.as_str().unwrap_or_default();
                    path = if parent.is_empty() { key.to_owned() } else { format!("{parent}.{key}") };
                    // No field is a list of lists.
                    *value = Value::Sequence(vec![Value::Sequence(Vec::new())]);
                }
                seen += 1;
            }
        });
        let error = format!("{:#}", parse("x", &serde_yaml_ng::to_string(&tree).unwrap()).unwrap_err());
        prop_assert!(error.starts_with(&format!("x, document 1: {path}")), "{error}");
    }

    #[test]
    fn an_unknown_key_is_refused_by_name_wherever_it_stands(text in examples(), place: Index, key in "[a-z]{3}_[0-9]{1,3}") {
        let mut tree: Value = serde_yaml_ng::from_str(text).unwrap();
        let mut count = 0;
        maps(&mut tree, "", &mut |_, _| count += 1);
        let (chosen, mut seen, mut path) = (place.index(count), 0, String::new());
        maps(&mut tree, "", &mut |parent, fields| {
            if seen == chosen {
                path = if parent.is_empty() { key.clone() } else { format!("{parent}.{key}") };
                fields.insert(key.as_str().into(), Value::Null);
            }
            seen += 1;
        });
        let error = format!("{:#}", parse("x", &serde_yaml_ng::to_string(&tree).unwrap()).unwrap_err());
        prop_assert!(error.starts_with(&format!("x, document 1: {path}: unknown key; allowed here: ")), "{error}");
    }
}
