//! The configuration reader against what nobody would write.

use proptest::{collection::vec, prelude::*, sample::Index};
use serde_yaml_ng::{Mapping, Value};

use crate::config::{EXAMPLE, parse};

/// The places in which keys stand.
const LEVELS: [&[&str]; 6] = [
    &[],
    &["onboarding"],
    &["onboarding", "bound_keypair"],
    &["storage"],
    &["outputs", "0"],
    &["outputs", "0", "destination"],
];

/// One change of a text.
#[derive(Debug, Clone)]
enum Edit {
    Replace(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, Index),
    Repeat(Index, Index),
}

impl Edit {
    fn any() -> impl Strategy<Value = Self> {
        // What means something in YAML is more likely to lead somewhere.
        let meaning = prop::sample::select(b"\n\t :-{}[],&*!|>'\"%@`#?~<=".to_vec());
        let byte = || prop_oneof![meaning.clone(), any::<u8>()];
        prop_oneof![
            (any::<Index>(), byte()).prop_map(|(at, byte)| Self::Replace(at, byte)),
            (any::<Index>(), vec(byte(), 1..6)).prop_map(|(at, bytes)| Self::Insert(at, bytes)),
            (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Self::Remove(from, to)),
            (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Self::Repeat(from, to)),
        ]
    }

    fn apply(&self, text: &mut Vec<u8>) {
        if text.is_empty() {
            return;
        }
        let size = text.len();
        let range = |a: &Index, b: &Index| {
            let (a, b) = (a.index(size), b.index(size));
            // Mostly short, so that something of the file is left.
            a.min(b)..a.max(b).min(a.min(b) + 40)
        };
        match self {
            Self::Replace(at, byte) => text[at.index(size)] = *byte,
            Self::Insert(at, bytes) => drop(text.splice(at.index(size)..at.index(size), bytes.iter().copied())),
            Self::Remove(from, to) => drop(text.drain(range(from, to))),
            Self::Repeat(from, to) => {
                let range = range(from, to);
                let again = text[range.clone()].to_vec();
                text.splice(range.end..range.end, again);
            }
        }
    }
}

fn level<'v>(file: &'v mut Value, path: &[&str]) -> &'v mut Mapping {
    let place = path.iter().fold(file, |value, key| match key.parse::<usize>() {
        Ok(n) => &mut value[n],
        Err(_) => &mut value[*key],
    });
    place.as_mapping_mut().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn arbitrary_bytes_never_panic_the_reader(bytes in vec(any::<u8>(), 0..300)) {
        let _ = parse(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn a_changed_file_never_panics_the_reader(edits in vec(Edit::any(), 1..8)) {
        let mut text = EXAMPLE.as_bytes().to_vec();
        for edit in &edits {
            edit.apply(&mut text);
        }
        let _ = parse(&String::from_utf8_lossy(&text));
    }

    #[test]
    fn an_unknown_key_is_refused_by_name_at_every_level(
        path in prop::sample::select(LEVELS.to_vec()),
        key in prop_oneof!["x_[a-z_]{0,20}", "x\\PC{0,20}", "x, expected one of y at line [0-9]"],
        value in prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), ".{0,10}".prop_map(Value::from)],
    ) {
        let mut file: Value = serde_yaml_ng::from_str(EXAMPLE).unwrap();
        level(&mut file, path).insert(key.clone().into(), value);
        let error = parse(&serde_yaml_ng::to_string(&file).unwrap()).expect_err("it is unknown");
        prop_assert!(error.contains("unknown key") && error.contains(&format!("`{key}`")), "{}", error);
    }
}
