//! Locks: what they stop, what releases them, and what a slip of the pen locks.

use rstest::rstest;

use crate::{Ran, authority::Authority};

fn locked(authority: &Authority, target: [&str; 2], message: &str) -> String {
    let text = authority.done(&["lock", target[0], target[1], "--message", message]);
    text.trim_end().strip_suffix(" created").unwrap().to_owned()
}

fn reinstated(authority: &Authority) -> Ran {
    let ran = authority.run(&["reinstate", "web", "--reason", "checked"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    ran
}

#[rstest]
#[case(&["lock", "--join-token", "nope"], "token/nope")]
#[case(&["lock", "--user", "bot-nope"], "bot/nope")]
#[case(&["lock", "--bot-instance-id", "0b6c0000-0000-4000-8000-000000000000"], "bot_instance/0b6c0000-0000-4000-8000-000000000000")]
fn a_lock_on_what_is_not_there_is_made_and_warned_of(#[case] arguments: &[&str], #[case] named: &str) {
    let authority = Authority::start();
    let ran = authority.run(arguments);
    assert_eq!(ran.code, 0);
    assert!(ran.stdout.ends_with(" created\n"));
    assert!(ran.stderr.starts_with(&format!("warning: there is no {named} now: lock/")), "{}", ran.stderr);
    assert_eq!(authority.json(&["get", "locks"]).as_array().unwrap().len(), 1);
}

/// As the key of a bot's certificate, which its outputs have.
#[test]
fn a_lock_on_a_key_that_is_not_bound_is_made_and_warned_of() {
    let authority = Authority::start().with_joined_bot("web");
    let another = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFi1AGLjk14Nr+eEm4PJbOG5yiYj+eEAsrZDo6l0y8d+";
    let ran = authority.run(&["lock", "--public-key", another]);
    assert_eq!(ran.code, 0);
    assert!(ran.stderr.starts_with("warning: no token has this key bound now, so lock/"), "{}", ran.stderr);
    assert!(ran.stderr.contains("`joinbot status`") && ran.stderr.contains("bound_public_key"), "{}", ran.stderr);
}

#[test]
fn a_lock_on_what_is_there_is_made_without_a_word() {
    let authority = Authority::start().with_joined_bot("web");
    let status = authority.json(&["get", "token/web"])[0]["status"]["bound_keypair"].clone();
    let bound = |field: &str| status[field].as_str().unwrap();
    let targets = [
        ["--join-token", "web"],
        ["--user", "bot-web"],
        ["--bot-instance-id", bound("bound_bot_instance_id")],
        ["--public-key", bound("bound_public_key")],
    ];
    for target in targets {
        assert_eq!(authority.run(&["lock", target[0], target[1]]).stderr, "");
    }
}

#[test]
fn reinstate_says_what_it_released_and_what_is_admitted() {
    let authority = Authority::start().with_joined_bot("web");
    let lock = locked(&authority, ["--join-token", "web"], "host is being examined");
    let ran = reinstated(&authority);
    let told = format!("token/web reinstated: its next join is admitted\n{lock} released: host is being examined\n");
    assert_eq!((ran.stdout, ran.stderr.as_str()), (told, ""));
}

#[test]
fn reinstate_promises_nothing_while_other_locks_stop_the_token() {
    let authority = Authority::start().with_joined_bot("web");
    let status = authority.json(&["get", "token/web"])[0]["status"]["bound_keypair"].clone();
    let own = locked(&authority, ["--join-token", "web"], "examined");
    let others = [
        locked(&authority, ["--user", "bot-web"], "bot is being examined"),
        locked(&authority, ["--bot-instance-id", status["bound_bot_instance_id"].as_str().unwrap()], ""),
        locked(&authority, ["--public-key", status["bound_public_key"].as_str().unwrap()], ""),
    ];
    let ran = reinstated(&authority);
    assert!(ran.stdout.contains(&format!("{own} released: examined\n")), "{}", ran.stdout);
    assert!(!ran.stdout.contains("is admitted\n"), "{}", ran.stdout);
    assert_eq!(ran.stderr.lines().count(), 3, "{}", ran.stderr);
    assert!(ran.stderr.contains("on user=bot-web still stops token/web (bot is being examined)"), "{}", ran.stderr);
    for lock in others {
        assert!(ran.stderr.contains(&format!("`joinctl rm {lock}` removes it")), "{}", ran.stderr);
        authority.done(&["rm", &lock]);
    }
    assert_eq!(reinstated(&authority).stdout, "token/web reinstated: its next join is admitted\n");
}

#[test]
fn reinstate_promises_nothing_when_token_or_bot_has_expired() {
    let authority = Authority::start().with_joined_bot("web");
    for (reference, state) in [("bot/web", "bot expired"), ("token/web", "expired")] {
        let mut resource = authority.json(&["get", reference])[0].clone();
        resource["metadata"]["expires"] = "2026-01-31T12:00:00Z".into();
        authority.write("expired.json", &resource.to_string());
        let ran = authority.run(&["create", "-f", "expired.json"]);
        let past = format!("warning: {reference}: metadata.expires is 2026-01-31T12:00:00Z, which is past: ");
        assert!(ran.code == 0 && ran.stderr.starts_with(&past), "{}", ran.stderr);
        let told = format!(
            "token/web reinstated, but its next join is not admitted: {reference} expired at 2026-01-31T12:00:00Z: \
             move or remove its metadata.expires with `joinctl edit {reference}`\n"
        );
        assert_eq!(reinstated(&authority).stdout, told);
        for wanted in ["token/web", "tokens"] {
            let table = authority.done(&["get", wanted]);
            let cells = table.lines().nth(1).unwrap().split("  ").map(str::trim).filter(|it| !it.is_empty());
            assert_eq!(cells.collect::<Vec<_>>()[2], state, "{table}");
        }
    }
}

#[test]
fn exempt_says_which_locks_stop_the_token_all_the_same() {
    let authority = Authority::start();
    authority.done(&["bots", "add", "web", "--labels", "rack=12"]);
    let exempt = ["exempt", "web", "--kind", "recoveries", "--reason", "a planned reinstall"];
    assert_eq!(authority.run(&exempt).stderr, "");
    let locks =
        [locked(&authority, ["--join-token", "web"], "examined"), locked(&authority, ["--user", "bot-web"], "")];
    for arguments in [exempt.to_vec(), [&["exempt", "--selector", "rack=12"], &exempt[2..]].concat()] {
        let ran = authority.run(&arguments);
        for lock in &locks {
            assert!(ran.stderr.contains(&format!("warning: {lock} on ")), "{}", ran.stderr);
        }
    }
}

#[test]
fn reinstate_says_when_there_is_nothing_to_reinstate_yet() {
    let authority = Authority::start().with_bot("web");
    let told =
        "token/web has nothing bound, so that there is nothing to reinstate yet; the grant stands for its next join\n";
    assert_eq!(reinstated(&authority).stdout, told);
    assert_eq!(authority.json(&["get", "exemptions"])[0]["status"]["state"], "open");
}

#[rstest]
#[case(["--join-token", "web"])]
#[case(["--user", "bot-web"])]
fn tokens_are_shown_as_locked_while_a_lock_stops_them(#[case] target: [&str; 2]) {
    let authority = Authority::start().with_joined_bot("web");
    let shown = |wanted: &str| {
        let text = authority.done(&["get", wanted]);
        text.lines().nth(1).unwrap().split_whitespace().nth(2).unwrap().to_owned()
    };
    assert_eq!(shown("tokens"), "bound");
    let lock = locked(&authority, target, "examined");
    assert_eq!((shown("tokens"), shown("token/web")), ("locked".to_owned(), "locked".to_owned()));
    authority.done(&["rm", &lock]);
    assert_eq!(shown("tokens"), "bound");
}

#[test]
fn a_lock_of_the_past_is_shown_in_the_past() {
    let authority = Authority::start().with_joined_bot("web");
    let lock = locked(&authority, ["--user", "bot-web"], "examined");
    let then = authority.json(&["status"])["database_time"].as_str().unwrap().to_owned();
    authority.done(&["rm", &lock]);
    assert!(authority.done(&["get", "tokens", "--at", &then]).contains("locked"));
    assert!(!authority.done(&["get", "tokens"]).contains("locked"));
}
