//! What operators read of lines and metrics is complete: `docs/telemetry.md`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::world::{Http, World};

/// Beside this crate, in the repository.
fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn document() -> String {
    fs::read_to_string(repository().join("docs/telemetry.md")).unwrap()
}

/// Every source file below a directory, without its unit tests.
fn sources(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else {
            let text = fs::read_to_string(path).unwrap();
            found.push(text.split("#[cfg(test)]").next().unwrap().to_owned());
        }
    }
    found
}

/// The messages of warnings and errors, as they stand in a source.
fn messages(source: &str) -> impl Iterator<Item = &str> {
    let calls = ["tracing::warn!(", "tracing::error!("].into_iter().flat_map(|call| source.split(call).skip(1));
    calls.map(|arguments| arguments.split('"').nth(1).unwrap())
}

/// The first words of a message that are always the same, and say enough to be looked up.
fn known_words(message: &str) -> &str {
    let fixed = message.split('{').enumerate().map(|(at, piece)| match at {
        0 => piece,
        _ => piece.split_once('}').map_or("", |(_, after)| after),
    });
    let mut said = fixed.map(|piece| piece.split([':', ';']).next().unwrap().trim());
    said.find(|words| words.len() > 6).unwrap_or_else(|| panic!("`{message}` tells nobody what it is about"))
}

#[test]
fn every_line_that_somebody_should_read_is_explained() {
    let document = document();
    let sources: Vec<_> = ["server", "ledger", "log"]
        .iter()
        .flat_map(|part| sources(&repository().join("service").join(part).join("src")))
        .collect();
    let messages: Vec<_> = sources.iter().flat_map(|source| messages(source)).collect();
    assert!(messages.len() > 20, "{messages:?}");
    for message in messages {
        let words = known_words(message);
        assert!(document.contains(words), "docs/telemetry.md does not tell what to do about `{words}`");
    }
}

#[tokio::test]
async fn every_metric_is_explained() {
    let world = World::start().await;

    let answer = Http::plain(world.node(0).metrics_address).await.get("/metrics").await;

    let document = document();
    for name in answer.text().lines().filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next()) {
        assert!(document.contains(&format!("| `{name}` |")), "docs/telemetry.md does not explain {name}");
    }
    world.check().await;
}
