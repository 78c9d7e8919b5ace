//! Every way to tamper with an export is found, at the right place.

use std::fs;
use std::path::PathBuf;

use join_audit::{Fault, Place};
use join_domain::envelope::{StreamId, StreamKind};
use join_domain::event::{Event, Nothing};
use proptest::prelude::*;
use serde_json::json;

use crate::export::{Export, audit, faults, note_of};
use crate::history::{History, reopened, stream, token_created};
use crate::keys::log_policy;

fn export() -> Export {
    Export::of(&History::of(300))
}

#[test]
fn a_changed_event() {
    let mut export = export();
    let index = export.lines.iter().position(|(index, line)| *index > 150 && line.contains("disk lost again")).unwrap();
    export.lines[index].1 = export.lines[index].1.replace("disk lost again", "disk found again");
    assert_eq!(export.faults(), [(Fault::ChangedEntry, Some(index as u64))]);
    assert_eq!(export.without_tiles().faults(), [(Fault::WrongRoot, None)]);
}

#[test]
fn a_removed_event() {
    let mut export = export().without_views();
    export.lines.remove(170);
    let careless = export.faults();
    assert_eq!(careless[0], (Fault::LogIndex, Some(170)));
    export.renumber();
    let faults = export.faults();
    assert_eq!(faults[0], (Fault::ChangedEntry, Some(170)));
    assert!(faults.contains(&(Fault::MissingTail, Some(299))), "{faults:?}");
    let faults = export.without_tiles().faults();
    assert!(faults.iter().any(|(fault, _)| *fault == Fault::StreamVersion), "{faults:?}");
    assert!(faults.contains(&(Fault::MissingTail, Some(299))), "{faults:?}");
}

#[test]
fn an_inserted_event() {
    let history = History::of(300);
    let reopens = |entry: &join_domain::envelope::Entry| entry.events[0].kind().0 == "token.reopened";
    let last_of_its_token = (150..300).find(|index| reopens(&history.entries[*index])).unwrap();
    let mut longer = history.clone();
    longer.append(history.entries[last_of_its_token].stream, vec![reopened("nobody knows")]);
    let mut inserted = longer.entries.pop().unwrap();
    inserted.decided_at = history.entries[last_of_its_token].decided_at;
    inserted.recorded_at = history.entries[last_of_its_token].recorded_at;

    let mut export = Export::of(&history);
    export.views = Some(longer.views());
    let index = last_of_its_token + 1;
    export.lines.insert(index, (0, inserted.to_envelope().unwrap()));
    export.renumber();
    // Versions, history and views are all possible: only the tree knows.
    assert_eq!(export.faults(), [(Fault::ChangedEntry, Some(index as u64)), (Fault::Unsealed, Some(300))]);
    assert_eq!(export.without_tiles().faults(), [(Fault::Unsealed, Some(300))]);
}

#[test]
fn reordered_events() {
    let mut export = export();
    export.lines.swap(160, 162);
    let faults = export.faults();
    assert!(faults.contains(&(Fault::LogIndex, Some(160))), "{faults:?}");
    export.renumber();
    assert_eq!(export.faults()[0], (Fault::ChangedEntry, Some(160)));
    assert_eq!(export.without_tiles().faults(), [(Fault::WrongRoot, None)]);
}

#[test]
fn events_of_one_stream_in_the_wrong_order_even_when_the_log_sealed_them() {
    let history = History::of(40);
    let bots = |(_, line): &&(u64, String)| line.contains("\"stream\":\"lock/00000000-0000-0000-0000-000000001002\"");
    let mut export = Export::of(&history).without_views();
    let of_one: Vec<usize> = export.lines.iter().filter(bots).map(|(index, _)| *index as usize).collect();
    export.lines.swap(of_one[0], of_one[1]);
    let report = export.resealed().audited();
    assert_eq!(report.findings.len(), 1);
    let place = Place {
        log_index: Some(of_one[0] as u64),
        stream: Some("lock/00000000-0000-0000-0000-000000001002".into()),
        version: Some(2),
    };
    assert_eq!((report.findings[0].fault, &report.findings[0].place), (Fault::StreamVersion, &place));
    assert!(report.findings[0].to_string().contains("version 1 was to come"), "{}", report.findings[0]);
}

#[test]
fn a_repeated_entry_even_when_the_log_sealed_it() {
    let mut export = export().without_views();
    export.lines.push(export.lines[290].clone());
    assert_eq!(export.resealed().faults(), [(Fault::StreamVersion, Some(300))]);
}

#[test]
fn a_stream_under_another_spelling_even_when_the_log_sealed_it() {
    // A stream of its own by name, the same lock by id: what happens to it there would count for both.
    let id = "00000000-0000-0000-0000-00000000100a";
    let honest = Export::of(&History::of(100)).without_views();
    let named = |id: &str| format!("\"stream\":\"lock/{id}\"");
    let (_, created) = honest.lines.iter().find(|(_, line)| line.contains(&named(id))).unwrap();
    for spelling in [id.to_uppercase(), format!("{{{id}}}"), format!("urn:uuid:{id}"), id.replace('-', "")] {
        let mut export = honest.clone();
        export.lines.push((100, created.replace(&named(id), &named(&spelling))));
        let report = export.resealed().audited();
        let [finding] = report.findings.as_slice() else { panic!("{:?}", report.findings) };
        assert_eq!((finding.fault, finding.place.log_index), (Fault::BadEnvelope, Some(100)), "{spelling}");
        assert!(finding.what.contains(&spelling), "{finding}");
    }
}

#[test]
fn two_events_swapped_between_streams() {
    // Two bots get each other's roles; versions, kinds and times stay.
    let mut history = History::of(300);
    let roles =
        |entry: &join_domain::envelope::Entry| entry.events[0].kind().0 == "bot.updated" && entry.events.len() == 2;
    let two: Vec<usize> = (100..300).filter(|index| roles(&history.entries[*index])).take(2).collect();
    let honest = Export::of(&history);
    let (first, second) = (history.entries[two[0]].events.clone(), history.entries[two[1]].events.clone());
    assert_ne!(first, second);
    history.entries[two[0]].events = vec![second[0].clone(), first[1].clone()];
    history.entries[two[1]].events = vec![first[0].clone(), second[1].clone()];
    let mut export = honest;
    export.lines = (0..).zip(history.envelopes()).collect();
    assert_eq!(export.faults()[0], (Fault::ChangedEntry, Some(two[0] as u64)));
    assert_eq!(export.without_tiles().without_views().faults(), [(Fault::WrongRoot, None)]);
}

#[test]
fn a_truncated_tail() {
    let mut export = export().without_views();
    export.lines.truncate(290);
    export.end = None;
    assert_eq!(export.faults(), [(Fault::CutOff, Some(290)), (Fault::MissingTail, Some(290))]);
    export.end = Some(json!({ "entries": 300 }));
    assert_eq!(export.faults(), [(Fault::CutOff, Some(290)), (Fault::MissingTail, Some(290))]);
    export.renumber();
    assert_eq!(export.faults(), [(Fault::MissingTail, Some(290))]);

    // What is left is compared all the same.
    let mut changed = Export::of(&History::of(600)).without_views();
    let index = changed.lines.iter().position(|(_, line)| line.contains("disk lost again")).unwrap();
    changed.lines[index].1 = changed.lines[index].1.replace("disk lost again", "disk found again");
    changed.lines.truncate(200);
    changed.renumber();
    assert_eq!(changed.faults(), [(Fault::ChangedEntry, Some(index as u64)), (Fault::MissingTail, Some(200))]);

    // With a genuine older checkpoint it is an honest older export: only a later checkpoint tells.
    let older = Export::of(&History::of(290));
    assert_eq!(older.faults(), []);
    let newer = note_of(&History::of(300).envelopes()).to_string();
    let report = older.audited_by(&log_policy(), Some(&newer));
    assert_eq!((report.findings[0].fault, report.findings[0].place.log_index), (Fault::Rewritten, Some(290)));
}

#[test]
fn a_missing_end_or_checkpoint_or_file() {
    let mut export = export();
    export.checkpoint = None;
    assert_eq!(export.faults(), [(Fault::CutOff, None)]);

    let directory = self::export().written();
    fs::remove_file(directory.path().join("entries-000001.jsonl")).unwrap();
    let report = audit(directory.path(), &log_policy(), None);
    assert!(report.findings.iter().any(|finding| finding.what.contains("entries-000001.jsonl is missing")));
    assert_eq!(report.findings[0].place.log_index, Some(100));
}

#[test]
fn a_checkpoint_that_the_export_kept() {
    let history = History::of(300);
    let directory = Export::of(&history).written();
    let kept = |size: usize| note_of(&history.envelopes()[..size]).to_string();
    let audited = |file: &str, note: &str| {
        let path = directory.path().join("checkpoints").join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, note).unwrap();
        let report = audit(directory.path(), &log_policy(), None);
        fs::remove_file(path).unwrap();
        report.findings
    };
    fs::create_dir(directory.path().join("checkpoints")).unwrap();
    fs::write(directory.path().join("checkpoints/100-aa"), kept(100)).unwrap();
    assert_eq!(audited("200-bb", &kept(200)), []);
    assert_eq!(audited(".tmp8f2Qzk", "join.exa"), [], "a run that was interrupted left it behind");

    let other = note_of(&History::of(301).envelopes()[1..201]).to_string();
    let forged = kept(200).replacen("\n200\n", "\n199\n", 1);
    let foreign = kept(200).replace("log-a", "log-b");
    // Its size is the one that was signed, whatever the file is called.
    for (file, note, fault, told) in [
        ("200-bb", other.as_str(), Fault::Rewritten, "the first 200 entries are not those"),
        ("99-bb", &other, Fault::Rewritten, "the first 200 entries are not those"),
        ("notes", &other, Fault::Rewritten, "the first 200 entries are not those"),
        ("200-bb", &forged, Fault::ForgedCheckpoint, "checkpoints/200-bb: the checkpoint has a wrong signature"),
        ("200-bb", &foreign, Fault::ForgedCheckpoint, "is not signed by a known key"),
        ("200-bb", "", Fault::ForgedCheckpoint, "is not a signed note"),
    ] {
        let findings = audited(file, note);
        assert_eq!((findings.len(), findings[0].fault), (1, fault), "{file}: {findings:?}");
        assert!(findings[0].what.contains(told), "{file}: {}", findings[0]);
    }
    let cut = audited("301-bb", &note_of(&History::of(301).envelopes()).to_string());
    assert_eq!((cut[0].fault, cut[0].place.log_index), (Fault::Rewritten, Some(300)));
}

#[test]
fn history_rewritten_by_the_log_itself() {
    let history = History::of(300);
    let mut export = Export::of(&history);
    let index = export.lines.iter().position(|(index, line)| *index > 150 && line.contains("disk lost again")).unwrap();
    export.lines[index].1 = export.lines[index].1.replace("disk lost again", "disk found again");
    let export = export.resealed();
    assert_eq!(export.faults(), [], "nobody who sees it for the first time can tell");
    let kept = |size: usize| note_of(&history.envelopes()[..size]).to_string();
    let found =
        |size| export.audited_by(&log_policy(), Some(&kept(size))).findings.first().map(|finding| finding.fault);
    assert_eq!(found(index), None, "an older checkpoint does not seal it yet");
    assert_eq!(found(index + 1), Some(Fault::Rewritten));
    assert_eq!(found(300), Some(Fault::Rewritten));
    assert_eq!(found(0), None);
}

#[test]
fn envelopes_of_another_form_even_when_the_log_sealed_them() {
    let honest = export().lines[7].1.clone();
    let changes: [(&str, &str, &str); 9] = [
        ("{\"actor\"", "{ \"actor\"", "differs at byte 1"),
        ("\"address\":\"192.0.2.7\",", "", "differs at byte"),
        ("\"v\":1}", "\"v\":1,\"w\":2}", "unknown field"),
        ("\"v\":1}", "\"v\":1,\"v\":1}", "duplicate field"),
        ("\"v\":1}", "\"v\":1.0}", "cannot be read"),
        ("\"v\":1}", "\"v\":2}", "version 2 is not known"),
        (".123456Z\",\"events\"", ".123Z\",\"events\"", "is not a time in UTC with microseconds"),
        ("é", "\\u00e9", "differs at byte"),
        ("\"schema\":1", "\"schema\":9", "newer than this version reads"),
    ];
    for (from, to, expected) in changes {
        let mut export = export().without_views();
        assert!(honest.contains(from), "{from} in {honest}");
        export.lines[7].1 = honest.replacen(from, to, 1);
        let report = export.resealed().audited();
        let finding = &report.findings[0];
        assert_eq!(finding.place.log_index, Some(7), "{from} → {to}: {:?}", report.findings);
        assert!(finding.what.contains(expected), "{from} → {to}: {finding}");
        assert!(matches!(finding.fault, Fault::BadEnvelope | Fault::Newer));
    }
    let mut empty = export().without_views();
    let events = honest.find("\"events\":").unwrap()..honest.find(",\"first_version\"").unwrap();
    empty.lines[7].1.replace_range(events, "\"events\":[]");
    assert!(empty.resealed().audited().findings[0].what.contains("holds no events"));
}

#[test]
fn an_impossible_history_even_when_the_log_sealed_it() {
    let history = History::of(300);
    let deletion =
        history.entries.iter().position(|entry| entry.events.len() == 2 && entry.events[1].kind().0 == "bot.deleted");
    let deleted = &history.entries[deletion.unwrap()];
    let after = join_domain::envelope::Entry {
        first_version: deleted.last_version() + 1,
        events: vec![crate::history::bot_updated("risen")],
        decided_at: history.entries[299].decided_at,
        recorded_at: history.entries[299].recorded_at,
        ..deleted.clone()
    };
    let mut export = Export::of(&history).without_views();
    export.lines.push((0, after.to_envelope().unwrap()));
    let report = export.resealed().audited();
    assert_eq!(report.findings.len(), 1);
    let place = Place {
        log_index: Some(300),
        stream: Some(deleted.stream.to_string()),
        version: Some(deleted.last_version() + 1),
    };
    assert_eq!((report.findings[0].fault, &report.findings[0].place), (Fault::ImpossibleHistory, &place));
}

#[test]
fn what_a_newer_version_wrote_is_no_fault_and_hides_none() {
    let mut export = export().without_views();
    export.lines[7].1 = export.lines[7].1.replacen("\"kind\":\"", "\"kind\":\"new.", 1);
    let newer = export.clone().resealed().audited();
    assert_eq!(faults(&newer), [(Fault::Newer, Some(7))]);
    assert!(!newer.is_clean() && newer.first_fault().is_none());

    // Nothing that joins follow from is told by the cluster's events, so one of them hides no second holder either.
    let cluster = StreamId { kind: StreamKind::Cluster, id: uuid::Uuid::nil() };
    let mut history = History::default();
    history.append(cluster, vec![Event::MasterKeyChanged(Nothing {})]);
    for number in [1, 2] {
        history.append(stream(StreamKind::Token, number), vec![token_created(1, stream(StreamKind::Bot, 1))]);
    }
    let mut hidden = Export::of(&history).without_views();
    hidden.lines[0].1 = hidden.lines[0].1.replacen("\"kind\":\"", "\"kind\":\"new.", 1);
    let faults_of = faults(&hidden.resealed().audited());
    assert_eq!(faults_of, [(Fault::Newer, Some(0)), (Fault::ForbiddenHistory, Some(2))]);

    export.lines.remove(50);
    let both = export.resealed().audited();
    assert_eq!(both.first_fault().map(|finding| finding.fault), Some(Fault::StreamVersion));
}

#[test]
fn a_name_that_two_tokens_have_even_when_the_log_sealed_it() {
    let [first, second] = [1, 2].map(|number| stream(StreamKind::Token, number));
    let named = |number| token_created(number, stream(StreamKind::Bot, number));
    let deleted = || Event::TokenDeleted(Nothing {});
    let found = |happened: Vec<(StreamId, Event)>| {
        let mut history = History::default();
        happened.into_iter().for_each(|(stream, event)| history.append(stream, vec![event]));
        faults(&Export::of(&history).audited())
    };
    assert_eq!(found(vec![(first, named(1)), (second, named(1))]), [(Fault::ForbiddenHistory, Some(1))]);
    assert_eq!(found(vec![(first, named(1)), (first, deleted()), (second, named(1))]), []);
    // Two that met may stand in the log in either order.
    assert_eq!(found(vec![(first, named(1)), (second, named(1)), (first, deleted())]), []);
}

#[test]
fn lines_that_cannot_be_read() {
    let honest = export().written();
    let file = honest.path().join("entries-000001.jsonl");
    let text = fs::read_to_string(&file).unwrap();
    let line_50 = text.lines().nth(50).unwrap();
    for wrong in ["", "{}", "nonsense", "\u{7}", &line_50[..40], &format!("{line_50}x"), &"[".repeat(1_000_000)] {
        fs::write(&file, text.replacen(line_50, wrong, 1)).unwrap();
        let report = audit(honest.path(), &log_policy(), None);
        assert_eq!((report.findings[0].fault, report.findings[0].place.log_index), (Fault::Unreadable, Some(150)));
        assert_eq!(report.findings.len(), 1, "nothing is said about what was not read");
    }
}

#[test]
fn wrong_tiles() {
    let tamper = |name: &str, act: &dyn Fn(&PathBuf)| {
        let directory = Export::of(&History::of(600)).written();
        act(&directory.path().join(name));
        let report = audit(directory.path(), &log_policy(), None);
        assert_eq!(report.findings.len(), 1, "{name}: {:?}", report.findings);
        assert_eq!(report.findings[0].fault, Fault::WrongTile, "{name}");
        report.findings[0].place.log_index
    };
    let flip = |path: &PathBuf| {
        let mut bytes = fs::read(path).unwrap();
        bytes[33] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    let cut = |path: &PathBuf| fs::write(path, &fs::read(path).unwrap()[..32]).unwrap();
    let remove = |path: &PathBuf| fs::remove_file(path).unwrap();
    assert_eq!(tamper("tile/0/001", &flip), Some(257));
    assert_eq!(tamper("tile/0/002.p/88", &flip), Some(513));
    assert_eq!(tamper("tile/1/000.p/2", &flip), None);
    for name in ["tile/0/000", "tile/0/002.p/88", "tile/1/000.p/2"] {
        assert_eq!(tamper(name, &cut), None);
        assert_eq!(tamper(name, &remove), None);
    }
}

#[test]
fn a_full_tile_stands_in_for_a_partial_one() {
    let directory = Export::of(&History::of(300)).written();
    let longer = Export::of(&History::of(600)).written();
    fs::remove_dir_all(directory.path().join("tile")).unwrap();
    fs::rename(longer.path().join("tile"), directory.path().join("tile")).unwrap();
    fs::write(
        directory.path().join("tile/1/000.p/1"),
        fs::read(directory.path().join("tile/1/000.p/2")).unwrap().split_at(32).0,
    )
    .unwrap();
    assert!(audit(directory.path(), &log_policy(), None).is_clean());
}

fn files_below(directory: &std::path::Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

#[test]
fn any_flipped_bit_anywhere() {
    let directory = Export::of(&History::of(300)).written();
    // Bundles are for readers of the log; an export's entries stand in its own files.
    fs::remove_dir_all(directory.path().join("tile/entries")).unwrap();
    let files = files_below(directory.path());
    assert_eq!(files.len(), 3 + 3 + 3, "entries; checkpoint, views and end; tiles");
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(150));
    runner
        .run(&(0..files.len(), any::<usize>(), 0..8), |(file, at, bit)| {
            let honest = fs::read(&files[file]).unwrap();
            let mut bytes = honest.clone();
            let at = at % bytes.len();
            bytes[at] ^= 1_u8 << bit;
            fs::write(&files[file], bytes).unwrap();
            let report = audit(directory.path(), &log_policy(), None);
            fs::write(&files[file], honest).unwrap();
            prop_assert!(!report.is_clean(), "bit {bit} of byte {at} of {:?}", files[file]);
            Ok(())
        })
        .unwrap();
    assert!(audit(directory.path(), &log_policy(), None).is_clean());
}
