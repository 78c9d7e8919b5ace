//! What holds for any input of the document reader, whatever somebody writes or a disk makes of it.

use proptest::{prelude::*, sample::Index};
use serde_yaml_ng::{Mapping, Value};

use super::document::parse;

const EXAMPLES: [&str; 2] =
    [include_str!("../../../examples/bot.yaml"), include_str!("../../../examples/token-example.yaml")];
const LOCK: &str = "
kind: lock
version: v2
metadata: {name: 0b6c0000-0000-4000-8000-000000000000, expires: 2026-01-31T12:00:00Z}
spec: {target: {join_token: example}, message: examined}
";
const EXEMPTION: &str = "
kind: exemption
version: v1
metadata: {labels: {team: infra}}
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
