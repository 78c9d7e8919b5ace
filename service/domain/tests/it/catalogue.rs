//! `docs/events.md`, the catalogue of events that people read: rendered from the kinds and the stored examples, and
//! compared. `UPDATE=1 cargo test -p join-domain catalogue` rewrites it.

use std::{fmt::Write as _, fs, path::PathBuf};

use join_domain::event::Event;

use crate::stored::examples;

const HEAD: &str = "\
# Events

What can have happened. An event is never changed or removed; state is a fold of events, and nothing else decides who
may join. Names and versions are written by hand: when the shape of a kind changes, its version goes up, and older
events are lifted to it when they are read.

All events of one append stand in one entry: a stream (`token/…`, `bot/…`, `lock/…`, `cluster/…`, `administrator/…`),
the version of its first event, the events, when it was decided and recorded, who did it and from where. The
[RFC 8785](https://www.rfc-editor.org/rfc/rfc8785) form of an entry is what is stored, hashed and proven.

This page is generated from the code and from one stored example of each kind. Do not edit it: run
`UPDATE=1 cargo test -p join-domain catalogue`.

";

fn render() -> String {
    let examples = examples();
    let mut page = HEAD.to_owned();
    page.push_str("| kind | version | what it says |\n|---|---|---|\n");
    for kind in Event::KINDS {
        let about = kind.about.trim();
        let anchor: String = kind.name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        writeln!(page, "| [`{}`](#{anchor}) | {} | {about} |", kind.name, kind.schema).unwrap();
    }
    for kind in Event::KINDS {
        let example = examples[&(kind.name.to_owned(), kind.schema)].trim_end();
        write!(page, "\n## `{}`\n\n{}\n\n```json\n{example}\n```\n", kind.name, kind.about.trim()).unwrap();
    }
    page
}

#[test]
fn the_catalogue_of_events_is_current() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/events.md");
    let page = render();
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page, "docs/events.md is outdated: run `UPDATE=1 cargo test -p join-domain catalogue`");
}
