//! What somebody who can write files may do to a real export, and `audit verify` says where.

use std::{collections::BTreeMap, fs, path::PathBuf};

use join_log_tests::files;
use serde_json::{Value, json};

use crate::{Ran, authority::Authority};

/// An export of some bots' beginnings, with more than one entry in several streams.
struct Export {
    authority: Authority,
    pristine: BTreeMap<String, Vec<u8>>,
}

impl Export {
    fn new() -> Self {
        let mut authority = Authority::start();
        for bot in ["one", "two", "three"] {
            authority = authority.with_bot(bot);
            authority.done(&["reopen", bot, "--reason", "host reinstalled"]);
            authority.done(&["reopen", bot, "--reason", "and again"]);
        }
        authority.done(&["audit", "export", "--out", "ledger"]);
        let pristine = ["checkpoint", "end.json", "entries-000000.jsonl"];
        let read = |name: &str| (name.to_owned(), fs::read(authority.directory().join("ledger").join(name)).unwrap());
        let pristine = pristine.into_iter().map(read).collect();
        Self { authority, pristine }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.authority.directory().join("ledger").join(name)
    }

    fn lines(&self) -> Vec<Value> {
        let text = String::from_utf8(self.pristine["entries-000000.jsonl"].clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Verifies with these entries, numbered from 0, and makes the export good again.
    fn with(&self, lines: Vec<Value>) -> Ran {
        let numbered = lines.into_iter().enumerate().map(|(index, mut line)| {
            line["log_index"] = index.into();
            format!("{line}\n")
        });
        fs::write(self.path("entries-000000.jsonl"), numbered.collect::<String>()).unwrap();
        self.verified()
    }

    fn verified(&self) -> Ran {
        let ran = self.authority.run(&["audit", "verify", "--from", "ledger", "--format", "json"]);
        for (name, bytes) in &self.pristine {
            fs::write(self.path(name), bytes).unwrap();
        }
        ran
    }

    /// The index of an entry of that token, from its version on.
    fn index(&self, token: &str, version: u64) -> usize {
        let created = format!("\"name\":\"{token}\"");
        let lines = self.lines();
        let envelope = |line: &Value| line["envelope"].as_str().unwrap().to_owned();
        let begins = |text: &String| text.contains("token.created") && text.contains(&created);
        let first = lines.iter().map(envelope).find(begins).unwrap();
        let stream = serde_json::from_str::<Value>(&first).unwrap()["stream"].clone();
        let is_it = |line: &Value| {
            let entry: Value = serde_json::from_str(&envelope(line)).unwrap();
            entry["stream"] == stream && entry["first_version"] == version
        };
        lines.iter().position(is_it).unwrap()
    }
}

/// Exit code 3, and the fault that comes first, with its place.
#[track_caller]
fn found(ran: &Ran, fault: &str, index: Option<usize>) {
    assert_eq!(ran.code, 3, "{}{}", ran.stdout, ran.stderr);
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    let findings = report["report"]["findings"].as_array().unwrap();
    let first = &findings[0];
    assert_eq!(
        (first["fault"].as_str().unwrap(), first["log_index"].as_u64()),
        (fault, index.map(|i| i as u64)),
        "{findings:#?}"
    );
    assert!(ran.stderr.contains("the ledger is not what it should be"), "{}", ran.stderr);
    if let Some(index) = index {
        assert!(ran.stderr.contains(&format!("log index {index}")), "{}", ran.stderr);
    }
}

#[test]
fn whatever_is_done_to_an_export_is_found_where_it_was_done() {
    let export = Export::new();
    assert_eq!(export.verified().code, 0);
    let lines = export.lines();
    let middle = export.index("two", 2);

    // An event changed.
    let mut changed = lines.clone();
    changed[middle]["envelope"] =
        changed[middle]["envelope"].as_str().unwrap().replace("reinstalled", "replaced").into();
    found(&export.with(changed), "changed_entry", Some(middle));

    // Removed.
    let mut removed = lines.clone();
    removed.remove(middle);
    found(&export.with(removed), "changed_entry", Some(middle));

    // Inserted: a copy that goes on with the stream's last version.
    let last = export.index("two", 3);
    let mut inserted = lines.clone();
    let mut more: Value = serde_json::from_str(lines[last]["envelope"].as_str().unwrap()).unwrap();
    more["first_version"] = 4.into();
    inserted.insert(last + 1, json!({ "envelope": more.to_string() }));
    found(&export.with(inserted), "changed_entry", Some(last + 1));

    // Reordered within a stream.
    let (first, second) = (export.index("three", 2), export.index("three", 3));
    let mut reordered = lines.clone();
    reordered.swap(first, second);
    found(&export.with(reordered), "changed_entry", Some(first));

    // Two events swapped between streams: each takes the other's place, under the other's name and version.
    let (one, two) = (export.index("one", 2), export.index("two", 2));
    let mut swapped = lines.clone();
    let envelope = |index: usize| serde_json::from_str::<Value>(lines[index]["envelope"].as_str().unwrap()).unwrap();
    let (mut of_one, mut of_two) = (envelope(one), envelope(two));
    let events = of_one["events"].take();
    of_one["events"] = of_two["events"].take();
    of_two["events"] = events;
    (swapped[one]["envelope"], swapped[two]["envelope"]) = (of_one.to_string().into(), of_two.to_string().into());
    found(&export.with(swapped), "changed_entry", Some(one));

    // A truncated tail, also when the end marker is made to fit.
    let mut short = lines.clone();
    short.truncate(lines.len() - 2);
    found(&export.with(short.clone()), "cut_off", Some(lines.len() - 2));
    fs::write(export.path("end.json"), json!({ "entries": short.len() }).to_string()).unwrap();
    found(&export.with(short), "missing_tail", Some(lines.len() - 2));

    // A forged checkpoint: another size, another root, another signature.
    let note = String::from_utf8(export.pristine["checkpoint"].clone()).unwrap();
    let parts: Vec<&str> = note.lines().collect();
    let smaller = note.replacen(parts[1], &(lines.len() - 1).to_string(), 1);
    let other_root = note.replacen(parts[2], "XvAysx/0be7hHuQoHGP0PNmAtXgLJj26UX/f4lhCajI=", 1);
    for forged in [smaller, other_root] {
        fs::write(export.path("checkpoint"), forged).unwrap();
        found(&export.verified(), "forged_checkpoint", None);
    }
    // Whatever was done was undone.
    assert_eq!(export.verified().code, 0);
}

/// Whoever can write to the database: what the authority decides from no longer follows from the events.
#[test]
fn a_rewritten_row_is_found() {
    let authority = Authority::start().with_bot("example");
    authority.settle();
    assert_eq!(authority.run(&["audit", "verify"]).code, 0);
    authority.sql("UPDATE snapshot SET state = replace(state, '\"limit\":1', '\"limit\":9') WHERE state LIKE '%\"of\":\"token\"%\"name\":\"example\"%'");
    let ran = authority.run(&["audit", "verify"]);
    assert_eq!(ran.code, 3, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("not the fold of its entries"), "{}", ran.stdout);

    // And by somebody who has nothing but an export.
    authority.done(&["audit", "export", "--out", "claimed"]);
    let offline = authority.run(&["audit", "verify", "--from", "claimed"]);
    assert_eq!(offline.code, 3, "{}{}", offline.stdout, offline.stderr);
    assert!(offline.stdout.contains("does not follow from the events at .spec.recovery.limit"), "{}", offline.stdout);
}

#[test]
fn an_export_that_was_interrupted_ends_as_one_that_was_not() {
    let export = Export::new();
    let whole = export.authority.directory().join("whole");
    export.authority.done(&["audit", "export", "--out", "whole"]);
    // Cut off in the middle of a line, without tiles, checkpoint and end.
    let entries = export.path("entries-000000.jsonl");
    let bytes = &export.pristine["entries-000000.jsonl"];
    for cut in [0, 1, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&entries, &bytes[..cut]).unwrap();
        for lost in ["end.json", "checkpoint"] {
            let _ = fs::remove_file(export.path(lost));
        }
        let _ = fs::remove_dir_all(export.path("tile"));
        export.authority.done(&["audit", "export", "--out", "ledger"]);
        assert!(files(&export.path("")).unwrap() == files(&whole).unwrap(), "cut at {cut}");
    }
}

/// Writers on several connections, whose commits come in any order, and followers that lose their connection.
#[test]
fn a_follower_sees_every_event_once_whoever_writes_at_the_same_time() {
    const WRITERS: usize = 4;
    const EACH: usize = 15;
    let authority = Authority::start();
    let total = WRITERS * EACH;
    let limit = total.to_string();
    let follow = ["audit", "ls", "--follow", "--kind", "bot.created", "--format", "json", "--limit", &limit];
    let follower =
        authority.command(join_credential::Role::Auditor, &follow).stdout(std::process::Stdio::piped()).spawn();
    let follower = follower.unwrap();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let authority = &authority;
            scope.spawn(move || {
                for number in 0..EACH {
                    authority.done(&["bots", "add", &format!("bot-{writer}-{number}")]);
                }
            });
        }
    });
    let output = follower.wait_with_output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let indices: Vec<u64> = events.iter().map(|event| event["log_index"].as_u64().unwrap()).collect();
    assert!(indices.is_sorted_by(|a, b| a < b), "{indices:?}");
    let mut names: Vec<&str> = events.iter().map(|event| event["data"]["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), total);
    // What is listed afterwards is what was followed.
    authority.settle();
    let listed = authority.json(&["audit", "ls", "--kind", "bot.created"]);
    assert_eq!(listed.as_array().unwrap(), &events);
}
