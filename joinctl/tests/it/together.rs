//! Several documents are written together or not at all: what can be seen to fail is refused before the first write.

use rstest::rstest;

use crate::authority::Authority;

const BOT: &str = "kind: bot\nversion: v1\nmetadata: {name: web}\n";
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFi1AGLjk14Nr+eEm4PJbOG5yiYj+eEAsrZDo6l0y8d+";

fn token(name: &str, bot: &str, bound_keypair: &str) -> String {
    format!(
        "kind: token\nversion: v2\nmetadata: {{name: {name}}}\nspec: {{roles: [Bot], bot_name: {bot}, \
         join_method: bound_keypair, bound_keypair: {bound_keypair}}}\n"
    )
}

fn grant(token: &str) -> String {
    format!("kind: exemption\nversion: v1\nspec: {{token_name: {token}, kind: join_state, reason: planned}}\n")
}

fn lock(spec: &str, expires: &str) -> String {
    format!("kind: lock\nversion: v2\nmetadata: {{expires: {expires}}}\nspec: {{target: {{{spec}}}}}\n")
}

/// What is wrong with the last document, and what is said of it.
fn mistakes() -> [(String, &'static str); 7] {
    let rsa = "{onboarding: {initial_public_key: ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAB}}";
    let preregistered = format!("{{onboarding: {{initial_public_key: {KEY}}}}}");
    [
        (token("web", "wbe", "{}"), "document 2: spec.bot_name: bot/wbe is neither in the input nor there"),
        (
            token("web", "web", rsa),
            "document 2: spec.bound_keypair.onboarding.initial_public_key: `ssh-rsa` keys are not",
        ),
        (token("Web", "web", "{}"), "document 2: metadata.name: `Web` is not a name"),
        (
            format!("{}---\n{}", token("a", "web", &preregistered), token("b", "web", &preregistered)),
            "document 3: spec.bound_keypair.onboarding.initial_public_key: another token of the input has this key",
        ),
        (lock("user: web", "2099-01-01T00:00:00Z"), "document 2: spec.target.user: `web` is not a bot's user name"),
        (
            format!("{}spec: {{roles: [{}]}}\n", BOT.replace("web", "big"), vec!["r".repeat(253); 70].join(", ")),
            "document 2: spec: larger than 16384 bytes with its labels",
        ),
        (token("web", "web", "{recovery: {mode: lax}}"), "document 2: spec.bound_keypair.recovery.mode: `lax` is not"),
    ]
}

#[test]
fn one_mistake_refuses_all_of_create_and_of_apply() {
    let authority = Authority::start();
    for (last, told) in mistakes() {
        authority.write("all.yaml", &format!("{BOT}---\n{last}"));
        for arguments in [&["create"][..], &["create", "-f"], &["apply", "-f"], &["apply", "--dry-run", "-f"]]
            .map(|it| [it, &["all.yaml"]].concat())
        {
            let ran = authority.run(&arguments);
            assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{arguments:?} of {last}");
            assert!(ran.stderr.contains(told), "{arguments:?}: {}", ran.stderr);
        }
    }
    assert_eq!(authority.json(&["get", "bots,tokens,locks"]), serde_json::json!([]), "nothing was written");
}

#[rstest]
#[case(&grant("nope"), "document 2: spec.token_name: token/nope is neither in the input nor there")]
#[case(&lock("user: bot-web", "2020-01-01T00:00:00Z"), "document 2: metadata.expires: it is past, and the lock")]
fn create_looks_at_what_is_there_before_it_writes(#[case] last: &str, #[case] told: &str) {
    let authority = Authority::start();
    authority.write("all.yaml", &format!("{BOT}---\n{last}"));
    for arguments in [&["create", "all.yaml"][..], &["create", "-f", "all.yaml"]] {
        let ran = authority.run(arguments);
        assert_eq!(ran.code, 1);
        assert!(ran.stderr.contains(told), "{}", ran.stderr);
    }
    assert_eq!(authority.json(&["get", "bots"]), serde_json::json!([]));
}

#[test]
fn a_lock_that_ended_as_its_file_says_is_nothing_to_apply() {
    let authority = Authority::start().with_bot("web");
    let write = |expires: &str| {
        let named = "metadata: {name: 0b6c0000-0000-4000-8000-000000000000, ";
        authority.write("lock.yaml", &lock("user: bot-web", expires).replace("metadata: {", named));
    };
    write("2099-01-01T00:00:00Z");
    authority.done(&["apply", "-f", "lock.yaml"]);
    write("2020-01-01T00:00:00Z");
    let ran = authority.run(&["apply", "-f", "lock.yaml", "--dry-run"]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    // Time passes.
    authority.sql("UPDATE snapshot SET state = replace(state, '2099-01-01', '2020-01-01')");
    assert_eq!(authority.done(&["apply", "-f", "lock.yaml"]), "");
}

/// A repository goes on saying how the bot once registered.
#[test]
fn onboarding_of_a_bot_that_has_joined_is_nothing_to_apply() {
    let authority = Authority::start().with_joined_bot("web");
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";
    let spec = format!("{{onboarding: {{initial_public_key: '{key}', must_register_before: '2030-01-01T00:00:00Z'}}}}");
    authority.write("token.yaml", &token("web", "web", &spec));
    assert_eq!(authority.done(&["apply", "-f", "token.yaml"]), "");
}

#[test]
fn an_outdated_revision_refuses_all() {
    let authority = Authority::start().with_bot("web");
    authority
        .write("all.yaml", &format!("{BOT}---\n{}", token("web", "web", "{}").replace("web}", "web, revision: '77'}")));
    for arguments in [["create", "-f", "all.yaml"], ["apply", "-f", "all.yaml"]] {
        let ran = authority.run(&arguments);
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
        assert!(ran.stderr.contains("document 2: metadata.revision: 77 is outdated"), "{}", ran.stderr);
    }
}

#[test]
fn a_token_may_name_a_bot_that_is_there_or_that_stands_in_the_input() {
    let authority = Authority::start().with_bot("old");
    authority.write("all.yaml", &format!("{}---\n{}---\n{BOT}", token("web", "web", "{}"), token("more", "old", "{}")));
    assert_eq!(
        authority.done(&["apply", "-f", "all.yaml"]),
        "bot/web created\ntoken/web created\ntoken/more created\n"
    );
}

#[test]
fn an_exemption_is_created_once_and_never_applied() {
    let authority = Authority::start().with_bot("web");
    authority.write("grant.yaml", &grant("web"));
    for arguments in [&["apply", "-f", "grant.yaml"][..], &["apply", "-f", "grant.yaml", "--dry-run"]] {
        let ran = authority.run(arguments);
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
        assert!(ran.stderr.contains("an exemption can't be applied: each time would grant again"), "{}", ran.stderr);
    }
    assert_eq!(authority.json(&["get", "exemptions"]), serde_json::json!([]));
    authority.done(&["create", "grant.yaml"]);
    assert_eq!(authority.json(&["get", "exemptions"]).as_array().unwrap().len(), 1);
}

/// What only the authority can see, such as a key that another token has, is found out half-way.
#[test]
fn what_was_written_before_one_was_refused_is_told_whole() {
    let authority = Authority::start().with_bot("old");
    let preregistered = format!("{{onboarding: {{initial_public_key: '{KEY}'}}}}");
    authority.write("first.yaml", &token("first", "old", &preregistered));
    authority.done(&["create", "first.yaml"]);
    authority.write("all.yaml", &format!("{BOT}---\n{}", token("web", "web", &preregistered)));
    let told = |arguments: &[&str]| {
        let ran = authority.run(&[arguments, &["--format", "json"]].concat());
        assert_eq!(ran.code, 1);
        assert!(ran.stderr.contains("error: all.yaml, document 2: "), "{}", ran.stderr);
        let done: Vec<serde_json::Value> = serde_json::from_str(&ran.stdout).expect(&ran.stdout);
        done.iter().map(|resource| resource["kind"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(told(&["create", "all.yaml"]), ["bot"]);
    authority.done(&["rm", "bot/web"]);
    assert_eq!(told(&["apply", "-f", "all.yaml"]), ["bot"]);
}
