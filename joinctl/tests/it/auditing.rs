//! What auditors do, against a real authority.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use join_credential::Role;

use crate::{authority::Authority, run};

#[test]
fn events_are_listed_with_filters() {
    let authority = Authority::start().with_bot("example").with_bot("other");
    authority.settle();
    let text = authority.done(&["audit", "ls", "--token", "example"]);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[1].contains("token/example/1") && lines[1].contains("token.created"), "{text}");
    assert!(lines[1].contains("admin/admin"), "{text}");
    assert_eq!(authority.json(&["audit", "ls", "--kind", "bot.created"]).as_array().unwrap().len(), 2);
    assert_eq!(authority.json(&["audit", "ls", "--kind", "bot.created", "--limit", "1"]).as_array().unwrap().len(), 1);
    assert_eq!(authority.json(&["audit", "ls", "--since", "2099-01-01T00:00:00Z"]), serde_json::json!([]));
    assert!(!authority.json(&["audit", "ls", "--since", "1h"]).as_array().unwrap().is_empty());
}

#[test]
fn a_followed_list_goes_on_with_what_comes() {
    let authority = Authority::start();
    let arguments = ["audit", "ls", "--follow", "--kind", "lock.created", "--limit", "2", "--format", "json"];
    let mut follower = authority.command(Role::Auditor, &arguments).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    for user in ["bot-a", "bot-b"] {
        authority.done(&["lock", "--user", user]);
        let event: serde_json::Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(event["kind"], "lock.created");
    }
    assert!(lines.next().is_none());
    assert!(follower.wait().unwrap().success());
}

#[test]
fn a_follower_is_told_that_the_log_ends_before_what_it_has_seen() {
    let authority = Authority::start().with_bot("example");
    authority.settle();
    let arguments = ["audit", "ls", "--follow", "--format", "json"];
    let mut follower = authority.command(Role::Auditor, &arguments);
    let mut follower = follower.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("token.created")), "it has seen the newest entry");
    authority.sql("UPDATE sequencer SET next_index = next_index - 1");
    let output = follower.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("cursor") && stderr.contains("history was lost"), "{stderr}");
}

#[test]
fn the_past_can_be_seen() {
    let authority = Authority::start().with_bot("example");
    let before = authority.json(&["status"])["database_time"].as_str().unwrap().to_owned();
    authority.done(&["reopen", "example", "--reason", "host reinstalled"]);
    let revision = |token: &serde_json::Value| token[0]["metadata"]["revision"].clone();
    let then = authority.json(&["get", "token/example", "--at", &before]);
    assert_ne!(revision(&then), revision(&authority.json(&["get", "token/example"])));
    assert_eq!(authority.json(&["get", "tokens", "--at", &before]).as_array().unwrap().len(), 1);
    assert_eq!(authority.json(&["get", "tokens", "--at", "1h"]), serde_json::json!([]));

    let steps = authority.json(&["audit", "replay", "example"]);
    assert_eq!(steps.as_array().unwrap().len(), 2);
    assert_eq!(authority.json(&["audit", "replay", "example", "--at", &before]).as_array().unwrap().len(), 1);
    for format in ["text", "json"] {
        let early = authority.run(&["audit", "replay", "example", "--at", "1h", "--format", format]);
        assert_eq!((early.code, early.stdout.as_str()), (1, ""), "as `get` says it");
        assert!(early.stderr.starts_with("error: there was no token `example` at "), "{}", early.stderr);
    }
    let text = authority.done(&["audit", "replay", "example"]);
    assert!(text.contains("token.reopened") && text.contains("  state: mode standard, recoveries 0 of 1"), "{text}");
}

#[test]
fn a_replay_tells_the_state_after_each_event() {
    let authority = Authority::start().with_joined_bot("example");
    let text = authority.done(&["audit", "replay", "example"]);
    let steps = authority.json(&["audit", "replay", "example"]);
    let events: usize = steps.as_array().unwrap().iter().map(|step| step["events"].as_array().unwrap().len()).sum();
    let states: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("  state: ")).collect();
    assert_eq!(states.len(), events, "{text}");
    assert!(states[0].ends_with("no key bound, a registration secret waits"), "{text}");
    // The last is the one that the authority shows.
    let bound = &authority.json(&["get", "token/example"])[0]["status"]["bound_keypair"];
    let told =
        format!("recoveries 1 of 1, instance {}, generation 1", bound["bound_bot_instance_id"].as_str().unwrap());
    assert!(states.last().unwrap().contains(&told), "{text}");
}

#[test]
fn a_name_that_nothing_ever_had_has_no_empty_history() {
    let authority = Authority::start().with_bot("example");
    for wanted in [["--token", "nope"], ["--bot", "nope"]] {
        let ran = authority.run(&["audit", "ls", wanted[0], wanted[1]]);
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
        assert!(ran.stderr.contains("(NOT_FOUND)\nsee: joinctl explain NOT_FOUND"), "{}", ran.stderr);
    }
    // What is there has a history that may be empty, and what is deleted has one.
    assert_eq!(authority.json(&["audit", "ls", "--token", "example", "--kind", "join.*"]), serde_json::json!([]));
    authority.done(&["rm", "token/example"]);
    authority.done(&["rm", "bot/example"]);
    authority.settle();
    for wanted in [["--token", "example"], ["--bot", "example"]] {
        assert_eq!(authority.json(&["audit", "ls", wanted[0], wanted[1]]).as_array().unwrap().len(), 2);
    }
}

#[test]
fn the_ledger_is_verified_exported_and_grows() {
    let authority = Authority::start().with_bot("example");
    let nowhere = run(authority.command(Role::Auditor, &["audit", "verify"]).env("TMPDIR", "/nowhere"));
    let told = "error: cannot make a temporary directory in /nowhere (TMPDIR says where): No such file";
    assert!(nowhere.code == 1 && nowhere.stderr.starts_with(told), "{}", nowhere.stderr);
    let verified = authority.run_as(Role::Auditor, &["audit", "verify"]);
    assert_eq!(verified.code, 0, "{}{}", verified.stdout, verified.stderr);
    assert!(verified.stdout.contains("streams compared with its views"), "{}", verified.stdout);

    let exported = authority.json(&["audit", "export", "--out", "ledger"]);
    assert!(exported["entries"].as_u64().unwrap() > 0 && exported["directory"] == "ledger", "{exported}");
    let export = authority.directory().join("ledger");
    fs::copy(export.join("checkpoint"), authority.directory().join("kept")).unwrap();
    let first = authority.done(&["audit", "verify", "--from", "ledger"]);

    authority.done(&["lock", "--user", "bot-example"]);
    authority.done(&["audit", "export", "--out", "ledger"]);
    let second = authority.done(&["audit", "verify", "--from", "ledger", "--trusted", "kept"]);
    assert_ne!(first, second);
    assert!(second.contains("verified"), "{second}");

    let kept: Vec<_> = fs::read_dir(export.join("checkpoints")).unwrap().map(|file| file.unwrap().path()).collect();
    let [before] = kept.as_slice() else { panic!("{kept:?}") };
    assert_eq!(fs::read(before).unwrap(), fs::read(authority.directory().join("kept")).unwrap());
    // It is compared without being asked for, and what was done to it is found.
    fs::write(before, fs::read_to_string(before).unwrap().replace("/log", "/gol")).unwrap();
    let ran = authority.run(&["audit", "verify", "--from", "ledger"]);
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    assert!(ran.stderr.contains("checkpoints/"), "{}", ran.stderr);
    fs::copy(authority.directory().join("kept"), before).unwrap();
    assert_eq!(authority.run(&["audit", "verify", "--from", "ledger"]).code, 0);

    let entries = export.join("entries-000000.jsonl");
    fs::write(&entries, fs::read_to_string(&entries).unwrap().replace("bot.created", "bot.removed")).unwrap();
    assert_eq!(authority.run(&["audit", "verify", "--from", "ledger"]).code, 3);
}

#[test]
fn an_export_outlives_an_authority_that_lost_history() {
    let authority = Authority::start().with_bot("example");
    authority.done(&["lock", "--user", "bot-example"]);
    authority.done(&["audit", "export", "--out", "ledger"]);
    let still_good = |ran: crate::Ran, why: &str| {
        assert_eq!(ran.code, 3, "{}", ran.stderr);
        assert!(ran.stderr.contains(why), "{}", ran.stderr);
        let verified = authority.run(&["audit", "verify", "--from", "ledger"]);
        assert_eq!(verified.code, 0, "{}{}", verified.stdout, verified.stderr);
    };

    authority.settle();
    authority.sql("UPDATE sequencer SET next_index = next_index - 1");
    still_good(authority.run(&["audit", "export", "--out", "ledger"]), "it lost history");
    authority.sql("UPDATE sequencer SET next_index = next_index + 1");

    // The last entry gives way to another.
    authority.done(&["lock", "--user", "bot-other"]);
    authority.settle();
    authority.done(&["audit", "export", "--out", "other"]);
    let hashes = |export: &str| authority.directory().join(export).join("tile/0/000.p");
    let tile = fs::read_dir(hashes("ledger")).unwrap().next().unwrap().unwrap().path();
    let mut forked = fs::read(&tile).unwrap();
    let genuine = forked.clone();
    *forked.last_mut().unwrap() ^= 1;
    fs::write(&tile, &forked).unwrap();
    let ran = authority.run(&["audit", "export", "--out", "ledger"]);
    fs::write(&tile, &genuine).unwrap();
    still_good(ran, "two histories");

    // The newest entry is gone.
    authority.sql("DELETE FROM entry WHERE envelope LIKE '%\"other\"%'");
    still_good(authority.run(&["audit", "export", "--out", "ledger"]), "can't read its own ledger");
    let verified = authority.run(&["audit", "verify"]);
    assert_eq!(verified.code, 3, "{}{}", verified.stdout, verified.stderr);
}

#[test]
fn what_is_appended_during_an_export_is_no_lost_history() {
    let authority = Authority::start();
    let (authority, done) = (&authority, &AtomicBool::new(false));
    let ran = thread::scope(|scope| {
        scope.spawn(move || {
            for number in 0.. {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                authority.done(&["lock", "--user", &format!("bot-{number}")]);
            }
        });
        let (export, verify) = (["audit", "export", "--out", "ledger"], ["audit", "verify"]);
        let ran = [&export[..], &export, &export, &verify].map(|arguments| authority.run(arguments));
        done.store(true, Ordering::Relaxed);
        ran
    });
    for ran in ran {
        assert_eq!(ran.code, 0, "{}", ran.stderr);
    }
}

/// A log that stands still seals nothing more: what happened since is not said to be good.
#[test]
fn what_is_not_sealed_in_time_is_not_verified() {
    let authority = Authority::start().with_bot("example");
    assert_eq!(authority.run(&["audit", "verify"]).code, 0);
    let held = authority.holding_the_log();
    let authority = authority.with_bot("late");
    let json = |ran: &crate::Ran| serde_json::from_str::<serde_json::Value>(&ran.stdout).unwrap();
    let commands: [&[&str]; 4] = [
        &["audit", "verify"],
        &["audit", "verify", "--format", "json"],
        &["audit", "export", "--out", "ledger"],
        &["audit", "export", "--out", "other", "--format", "json"],
    ];
    let [verified, told, exported, listed] = thread::scope(|scope| {
        let running = commands.map(|arguments| scope.spawn(|| authority.run(arguments)));
        running.map(|ran| ran.join().unwrap())
    });
    for ran in [&verified, &told] {
        assert_eq!(ran.code, 2, "{}{}", ran.stdout, ran.stderr);
        let says = ["entries are not sealed, and not verified", "joinctl status", "log_stalled"];
        assert!(says.iter().all(|what| ran.stderr.contains(what)), "{}", ran.stderr);
    }
    assert!(
        verified.stdout.contains("NOT VERIFIED ") && !verified.stdout.contains("verified  "),
        "{}",
        verified.stdout
    );
    let unsealed = json(&told)["unsealed"].as_u64().unwrap();
    assert!(unsealed > 0);
    assert_eq!((exported.code, listed.code), (0, 0), "{}{}", exported.stderr, listed.stderr);
    assert!(exported.stdout.contains(&format!("without {unsealed} that are not sealed yet")), "{}", exported.stdout);
    assert!(exported.stderr.contains("this is not all"), "{}", exported.stderr);
    assert_eq!(json(&listed)["unsealed"], unsealed);

    drop(held);
    assert_eq!(authority.run(&["audit", "verify"]).code, 0);
    assert_eq!(authority.json(&["audit", "export", "--out", "ledger"])["unsealed"], 0);
}

#[test]
fn a_verification_that_is_interrupted_leaves_nothing_behind() {
    let authority = Authority::start();
    authority.settle();
    // It waits for a checkpoint of one entry more than there are.
    authority.sql("UPDATE sequencer SET next_index = next_index + 1");
    let temporary = authority.directory().join("tmp");
    fs::create_dir(&temporary).unwrap();
    let is_empty = || fs::read_dir(&temporary).unwrap().next().is_none();
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let mut verify = authority.command(Role::Auditor, &["audit", "verify"]);
        let mut verify = verify.env("TMPDIR", &temporary).spawn().unwrap();
        while is_empty() {
            assert_eq!(verify.try_wait().unwrap(), None);
            thread::sleep(Duration::from_millis(20));
        }
        assert!(Command::new("kill").args([signal, &verify.id().to_string()]).status().unwrap().success());
        assert_eq!(verify.wait().unwrap().code(), Some(code));
        assert!(is_empty());
    }
}

#[test]
fn a_node_without_log_files_says_so_and_damaged_ones_are_a_finding() {
    let authority = Authority::without_log().with_bot("example");
    authority.settle();
    for arguments in [&["export", "--out", "ledger"][..], &["verify"], &["prove", "0"]] {
        let ran = authority.run(&[&["audit"], arguments].concat());
        assert_eq!(ran.code, 1, "{}", ran.stderr);
        assert!(
            ran.stderr.contains("serves no files of the log") && ran.stderr.contains("another node"),
            "{}",
            ran.stderr
        );
    }

    let authority = Authority::start().with_bot("example");
    authority.settle();
    authority.done(&["audit", "prove", "0"]);
    let tiles = authority.log().join("tile/0/000.p");
    for tile in fs::read_dir(&tiles).unwrap().map(|tile| tile.unwrap().path()) {
        fs::remove_file(&tile).unwrap();
        fs::create_dir(&tile).unwrap();
    }
    for arguments in [&["export", "--out", "ledger"][..], &["verify"], &["prove", "0"]] {
        let ran = authority.run(&[&["audit"], arguments].concat());
        assert_eq!(ran.code, 3, "{}", ran.stderr);
        assert!(ran.stderr.contains("can't read its own log"), "{}", ran.stderr);
    }
}

#[test]
fn an_event_is_proven_to_whoever_has_the_key() {
    let authority = Authority::start().with_bot("example");
    authority.write("event.tlog-proof", &authority.done(&["audit", "prove", "token/example/1"]));
    authority.done(&["audit", "export", "--out", "ledger"]);
    let offline = ["audit", "verify", "--proof", "event.tlog-proof", "--policy", "ledger/policy"];
    assert!(authority.done(&offline).contains("token.created"));
    let online = authority.run_as(Role::Auditor, &offline[..4]);
    assert_eq!(online.code, 0, "{}", online.stderr);

    for nothing in ["1000000", "token/example/99", "token/nobody/1"] {
        assert_eq!(authority.run(&["audit", "prove", nothing]).code, 1, "{nothing}");
    }

    // A name that was used twice is not enough.
    for again in [["rm", "token/example"].as_slice(), &["rm", "bot/example"], &["bots", "add", "example"]] {
        authority.done(again);
    }
    authority.settle();
    let ran = authority.run(&["audit", "prove", "token/example/1"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    let choices: Vec<_> = ran.stderr.split('`').filter(|it| it.starts_with("joinctl audit prove ")).collect();
    assert_eq!(choices.len(), 2, "{}", ran.stderr);
    authority.done(&choices[1].split(' ').skip(1).collect::<Vec<_>>());
}

#[test]
fn the_status_is_told() {
    let authority = Authority::start().with_bot("example");
    let status = authority.json(&["status"]);
    assert_eq!((&status["cluster_name"], &status["alarms"]), (&"test.example".into(), &serde_json::json!([])));
    assert!(authority.done(&["status"]).contains("cluster     test.example\n"));
}
