//! What administrators do, against a real authority.

use join_credential::Role;

use crate::{authority::Authority, run};

const BOT: &str = "
kind: bot
version: v1
metadata: {name: example, labels: {team: infra}}
spec: {roles: [deploy], traits: [{name: logins, values: [deploy]}]}
";

const TOKEN: &str = "
kind: token
version: v2
metadata: {name: example, labels: {team: infra}}
spec:
  roles: [Bot]
  bot_name: example
  join_method: bound_keypair
  bound_keypair: {recovery: {mode: standard, limit: 2}}
";

#[test]
fn the_guide_works_as_it_is_written() {
    let authority = Authority::start();
    authority.write("bot.yaml", BOT);
    authority.write("token-example.yaml", TOKEN);
    assert_eq!(authority.done(&["create", "bot.yaml"]), "bot/example created\n");
    assert_eq!(authority.done(&["create", "-f", "token-example.yaml"]), "token/example saved\n");
    let json = authority.json(&["get", "token/example"]);
    let status = &json[0]["status"]["bound_keypair"];
    assert!(status["registration_secret"].as_str().unwrap().len() >= 32);
    assert_eq!((&status["recovery_count"], &status["last_recovered_at"]), (&0.into(), &serde_json::Value::Null));
    assert_eq!(authority.json(&["get", "bots"])[0]["metadata"]["labels"]["team"], "infra");
    assert_eq!(authority.json(&["get", "bots", "-l", "team=other"]), serde_json::json!([]));

    let yaml = authority.done(&["get", "token/example", "--format", "yaml"]);
    authority.write("again.yaml", &yaml);
    assert_eq!(authority.done(&["create", "-f", "again.yaml"]), "token/example saved\n");

    let removed = serde_json::json!({"kind": "token", "name": "example", "outcome": "deleted"});
    assert_eq!(authority.json(&["rm", "token/example"]), removed);
    assert_eq!(authority.done(&["rm", "bots/example"]), "bot/example deleted\n");
}

#[test]
fn what_is_refused_says_so_and_is_explained() {
    let authority = Authority::start();
    authority.write("both.yaml", &format!("{TOKEN}---{BOT}"));
    let ran = authority.run(&["get", "token/none"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    assert!(ran.stderr.ends_with("(NOT_FOUND)\nsee: joinctl explain NOT_FOUND\n"), "{}", ran.stderr);

    // The bot stands behind its token in the file, and is created before it.
    assert_eq!(authority.done(&["create", "both.yaml"]), "bot/example created\ntoken/example created\n");
    let ran = authority.run(&["create", "both.yaml"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("bot/example exists already; nothing was created"), "{}", ran.stderr);

    let ran = authority.run_as(Role::Auditor, &["reopen", "example", "--reason", "none"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("(ROLE_REQUIRED)"), "{}", ran.stderr);
    let seen = authority.run_as(Role::Auditor, &["get", "token/example", "--format", "json"]);
    assert!(seen.stdout.contains(r#""registration_secret": "","#), "an auditor sees no secret");
}

#[test]
fn a_bot_is_added_with_its_token_or_not_at_all() {
    let authority = Authority::start();
    let web =
        ["bots", "add", "web", "--logins", "root", "--recovery-limit", "0", "--token", "web-1", "--format", "json"];
    let ran = authority.run(&web);
    assert!(ran.stderr.contains("warning: the joining URI leads to 127.0.0.1:"), "{}", ran.stderr);
    assert!(ran.stderr.contains("token/web-1: a recovery limit of 0 admits not even the first join"), "{}", ran.stderr);
    let added: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let uri = added["join_uri"].as_str().unwrap();
    assert!(uri.starts_with("tbot+auth+bound-keypair://web-1:") && uri.contains("?ca-pin=sha256:"), "{uri}");
    assert_eq!(added["token"]["spec"]["bound_keypair"]["recovery"]["limit"], 0);
    let elsewhere = ["reopen", "web-1", "--reason", "moved", "--join-addr", "authority.example.com"];
    let ran = authority.run(&elsewhere);
    assert!(ran.stdout.contains("@authority.example.com:3025?ca-pin="), "{}", ran.stdout);
    assert_eq!(ran.stderr, "");

    // The token's name is taken: no bot is left behind.
    let ran = authority.run(&["bots", "add", "other", "--token", "web-1"]);
    assert_eq!(ran.code, 1);
    assert_eq!(authority.run(&["get", "bot/other"]).code, 1);
    assert!(authority.done(&["bots", "ls"]).contains("logins=root"));
}

#[test]
fn bots_that_are_added_with_labels_are_found_by_them() {
    let authority = Authority::start();
    for (name, labels) in [("a", "rack=12,team=web"), ("b", "rack=12"), ("c", "rack=13")] {
        authority.done(&["bots", "add", name, "--labels", labels]);
    }
    let names = |arguments: &[&str]| -> Vec<String> {
        let found = authority.json(arguments);
        let names = found.as_array().unwrap().iter().map(|one| one["metadata"]["name"].as_str().unwrap().to_owned());
        names.collect()
    };
    assert_eq!(names(&["get", "tokens", "--selector", "rack=12,team=web"]), ["a"]);
    assert_eq!(names(&["get", "bots", "--selector", "rack=12"]), ["a", "b"]);

    let reason = ["--kind", "recoveries", "--reason", "an outage of three hours"];
    let granted = authority.done(&[&["exempt", "--selector", "rack=12"], reason.as_slice()].concat());
    assert_eq!(granted.lines().count(), 2, "{granted}");
    assert!(granted.contains("token/a until") && granted.contains("token/b until"), "{granted}");
}

#[test]
fn apply_shows_what_it_changes_and_then_has_nothing_to_do() {
    let authority = Authority::start();
    authority.write("bot.yaml", BOT);
    authority.write("token.yaml", TOKEN);
    let shown = authority.done(&["apply", "-f", ".", "--dry-run"]);
    assert!(shown.contains("+++ token/example (./token.yaml, document 1)"), "{shown}");
    assert_eq!(authority.json(&["get", "bots,tokens"]), serde_json::json!([]), "a dry run changes nothing");

    assert_eq!(authority.done(&["apply", "-f", "."]), "bot/example created\ntoken/example created\n");
    assert_eq!(authority.done(&["apply", "-f", "."]), "");
    authority.write("token.yaml", &TOKEN.replace("limit: 2", "limit: 3"));
    let ran = authority.run(&["apply", "-f", "."]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "token/example saved\n"));
    assert!(ran.stderr.contains("\n-      limit: 2\n+      limit: 3\n"), "{}", ran.stderr);
}

#[test]
fn what_nobody_reads_is_done_all_the_same() {
    let authority = Authority::start();
    let bots = ["a", "b", "c"].map(|name| BOT.replace("example", name));
    authority.write("bots.yaml", &bots.join("---"));
    let mut child =
        authority.command(Role::Admin, &["create", "bots.yaml"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());

    assert!(child.wait().unwrap().success());
    assert_eq!(authority.json(&["get", "bots"]).as_array().unwrap().len(), 3);
}

#[test]
fn differences_that_nobody_reads_are_applied_all_the_same() {
    let authority = Authority::start();
    authority.write("bot.yaml", BOT);
    let (reader, unread) = std::io::pipe().unwrap();
    drop(reader);
    let mut apply = authority.command(Role::Admin, &["apply", "-f", "bot.yaml"]);
    let ran = apply.stdout(unread.try_clone().unwrap()).stderr(unread).status().unwrap();

    assert!(ran.success(), "{ran}");
    assert_eq!(authority.json(&["get", "bots"]).as_array().unwrap().len(), 1);
}

#[test]
fn an_edit_is_saved_unless_nothing_changed_or_somebody_else_did() {
    let authority = Authority::start().with_bot("example");
    let edit = |editor: &str| run(authority.command(Role::Admin, &["edit", "token/example"]).env("VISUAL", editor));
    let limit = || authority.json(&["get", "token/example"])[0]["spec"]["bound_keypair"]["recovery"]["limit"].clone();

    let ran = edit("true");
    assert_eq!((ran.code, ran.stderr.as_str()), (0, "unchanged: token/example stays as it is\n"));
    assert_eq!(edit("sed -i 's/limit: 1/limit: 5/'").stdout, "token/example saved\n");
    assert_eq!(limit(), 5);
    let mut edit_as_json = authority.command(Role::Admin, &["edit", "token/example", "--format", "json"]);
    let unchanged = run(edit_as_json.env("VISUAL", "true")).stdout;
    assert_eq!(serde_json::from_str::<serde_json::Value>(&unchanged).unwrap()["metadata"]["name"], "example");
    let saved = run(edit_as_json.env("VISUAL", "sed -i 's/limit: 5/limit: 6/'")).stdout;
    let saved: serde_json::Value = serde_json::from_str(&saved).unwrap();
    assert_eq!(saved["spec"]["bound_keypair"]["recovery"]["limit"], 6);
    assert_eq!(edit("sed -i 's/limit: 6/limit: 5/'").stdout, "token/example saved\n");
    let ran = edit("false");
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("nothing was changed"), "{}", ran.stderr);

    // What is no text can't be read, and is kept.
    let ran = edit("printf '\\377' >>");
    assert_eq!(ran.code, 1);
    let kept = ran.stderr.lines().find_map(|line| line.strip_prefix("your text is kept in ")).unwrap();
    assert!(std::fs::read(kept).unwrap().ends_with(b"\xff"));
    std::fs::remove_file(kept).unwrap();

    // Somebody else is faster.
    let joinctl = env!("CARGO_BIN_EXE_joinctl");
    authority
        .write("editor.sh", &format!("{joinctl} bound-keypair rotate example\nsed -i 's/limit: 5/limit: 7/' $1\n"));
    let ran = edit("sh editor.sh");
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("(STALE_REVISION)"), "{}", ran.stderr);
    assert_eq!(limit(), 5);
    let kept = ran.stderr.lines().find_map(|line| line.strip_prefix("your text is kept in ")).unwrap();
    assert!(std::fs::read_to_string(kept).unwrap().contains("limit: 7"));
    std::fs::remove_file(kept).unwrap();
}

#[test]
fn locks_and_exemptions_come_and_go() {
    let authority = Authority::start().with_bot("example");
    let locked = authority.done(&["lock", "--join-token", "example", "--message", "examined", "--ttl", "2h"]);
    let lock = locked.trim_end().strip_suffix(" created").unwrap();
    assert!(authority.done(&["get", "locks"]).contains("join_token=example"));
    assert_eq!(authority.done(&["rm", lock]), format!("{lock} deleted\n"));

    let granted = ["exempt", "example", "--kind", "recoveries", "--reason", "planned", "--ttl", "1h"];
    let granted = authority.json(&granted);
    assert_eq!(granted[0]["spec"]["kind"], "recoveries");
    let exemption = format!("exemption/{}", granted[0]["metadata"]["name"].as_str().unwrap());
    assert_eq!(authority.done(&["rm", &exemption]), format!("{exemption} revoked\n"));

    assert_eq!(
        authority.done(&["reinstate", "example", "--reason", "checked"]),
        "token/example has nothing bound, so that there is nothing to reinstate yet; the grant stands for its next join\n"
    );
    let before = authority.json(&["get", "token/example"]);
    let reopened = authority.json(&["reopen", "example", "--reason", "reinstalled"]);
    let secret = |token: &serde_json::Value| token["status"]["bound_keypair"]["registration_secret"].clone();
    assert_ne!(secret(&before[0]), secret(&reopened["token"]));
    let new_secret = secret(&reopened["token"]).as_str().unwrap().to_owned();
    assert!(reopened["join_uri"].as_str().unwrap().contains(&format!("://example:{new_secret}@")), "{reopened}");
    authority.done(&["bound-keypair", "rotate", "example"]);
}

#[test]
fn a_secret_that_could_not_be_printed_is_told_where_it_is() {
    let authority = Authority::start();
    for (arguments, done) in [
        (&["bots", "add", "web"][..], "bot/web and token/web are created: "),
        (&["reopen", "web", "--reason", "host was reinstalled"], "token/web is reopened: "),
    ] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = authority.command(Role::Admin, arguments).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.starts_with(&format!("error: {done}`joinctl get token/web --format json` shows its ")), "{told}");
        assert!(told.contains(": cannot write to standard output: "), "{told}");
    }
}

#[test]
fn reopen_asks_nobody_to_remove_a_storage() {
    let authority = Authority::start().with_joined_bot("example");
    let told = authority.done(&["reopen", "example", "--reason", "host was reinstalled"]);
    assert!(told.contains("its old storage may stay or go") && !told.contains("remove"), "{told}");
}

#[test]
fn an_empty_list_is_told_in_words_and_is_no_failure() {
    let authority = Authority::start();
    let lists = [
        (&["get", "bots"][..], "no bots\n"),
        (&["get", "tokens", "-l", "team=zz"], "no tokens\n"),
        (&["get", "locks,exemptions"], "no locks\nno exemptions\n"),
        (&["bots", "ls"], "no bots\n"),
        (&["bots", "instances", "ls"], "no bot instances\n"),
        (&["audit", "ls", "--since", "2099-01-01T00:00:00Z"], "no events\n"),
    ];
    for (arguments, told) in lists {
        let ran = authority.run(arguments);
        assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, "", told), "{arguments:?}");
    }
}

#[test]
fn the_future_is_not_shown() {
    let authority = Authority::start().with_bot("example");
    for wanted in [&["get", "tokens"][..], &["get", "token/example"], &["audit", "replay", "example"]] {
        let ran = authority.run(&[wanted, &["--at", "2099-01-01T00:00:00Z"]].concat());
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
        assert!(ran.stderr.contains("--at: 2099-01-01T00:00:00.000Z is in the future"), "{}", ran.stderr);
    }
}
