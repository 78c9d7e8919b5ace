//! What we give people to deploy with fits the program: the example, Compose and Kubernetes.

use std::{fs, os::unix::fs::PermissionsExt as _};

use join_domain::id::Name;
use join_server::config::Config;
use serde_yaml_ng::Value;
use tokio::process::Command;

use crate::{
    configuration::Written,
    telemetry::measured,
    world::{Finished, Http, Installed, repository},
};

/// A node that is full answers there, and takes its time.
#[tokio::test]
async fn kubernetes_asks_beside_the_metrics_how_a_node_is() {
    let documents = fs::read_to_string(repository().join("deploy/kubernetes.yaml")).unwrap();
    let documents = documents.split("\n---\n").map(|text| serde_yaml_ng::from_str::<Value>(text).unwrap());
    let container =
        |one: Value| Some(one.get("spec")?.get("template")?.get("spec")?.get("containers")?.get(0)?.clone());
    let [container] = documents.filter_map(container).collect::<Vec<_>>().try_into().unwrap();
    let installed = Installed::with_cluster().await;
    let (running, address) = measured(&installed).await;
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        let probe = &container[probe];
        assert_eq!((&probe["httpGet"]["port"], &probe["timeoutSeconds"]), (&"metrics".into(), &5.into()), "{probe:?}");
        assert_eq!(probe["httpGet"].get("scheme"), None, "that port has no TLS");
        let answer = Http::plain(address).await.get(probe["httpGet"]["path"].as_str().unwrap()).await;
        assert_eq!(answer.text(), "ok\n");
    }
    running.stop().await;
}

#[tokio::test]
async fn what_we_show_people_as_configuration_is_one() {
    let example = Config::read(&repository().join("examples/joind.yaml")).unwrap();
    assert_eq!(example.cluster_name, "example.com".parse::<Name>().unwrap());

    let read = |file: &str| fs::read_to_string(repository().join("deploy").join(file)).unwrap();
    let compose: Value = serde_yaml_ng::from_str(&read("compose.yaml")).unwrap();
    let environment = compose["x-environment"].as_mapping().unwrap().iter();
    let environment = environment.map(|(name, value)| (name.as_str().unwrap(), with_defaults(value.as_str().unwrap())));
    let file = compose["configs"]["joind.yaml"]["file"].as_str().unwrap();
    let compose = (read(file), environment.map(|(name, value)| (name.to_owned(), value)).collect());
    let documents = read("kubernetes.yaml");
    let documents = documents.split("\n---\n").map(|text| serde_yaml_ng::from_str::<Value>(text).unwrap());
    let url = "postgres://join_service:s3cr3t@postgres/join_authority".to_owned();
    let secrets = vec![("JOIND_DATABASE__SERVICE_URL".to_owned(), url)];
    let kubernetes =
        documents.filter_map(|one| Some((one.get("data")?.get("joind.yaml")?.as_str()?.to_owned(), secrets.clone())));
    let deployed: Vec<(String, Vec<(String, String)>)> = kubernetes.chain([compose]).collect();
    assert_eq!(deployed.len(), 2);
    for (text, environment) in deployed {
        let written = Written::new(&text);
        let mut show = written.command("show");
        show.envs(environment);
        let shown = Finished::of(show).await.done();
        let shown: Value = serde_yaml_ng::from_str(&shown).unwrap();
        assert_eq!(shown["cluster_name"], "example.com");
        assert!(!shown["public_addresses"].as_sequence().unwrap().is_empty());
        assert_eq!(shown["database"]["service_url"], "postgres://join_service:***@postgres/join_authority");
    }
}

/// The certificate has that address, and no other.
#[tokio::test]
async fn what_compose_tells_to_type_goes_to_the_public_address() {
    let read = |file: &str| fs::read_to_string(repository().join("deploy").join(file)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let named = read("env.example").replace("PUBLIC_ADDRESS=localhost", "PUBLIC_ADDRESS=authority.example.com");
    fs::write(folder.path().join(".env"), named).unwrap();
    let compose = read("compose.yaml");
    let typed = compose.lines().find(|line| line.contains("joinctl")).unwrap().trim_start_matches('#');
    let mut shell = Command::new("sh");
    shell.current_dir(folder.path()).args(["-c", &format!("joinctl() {{ echo \"$@\"; }}; {typed}")]);
    let given = Finished::of(shell).await.done();
    assert_eq!(given, "--addr authority.example.com:3025 --identity ./admin status\n");
}

#[tokio::test]
async fn the_keys_that_compose_makes_are_for_the_owner_and_leave_neither_host_nor_volume() {
    let read = |file: &str| fs::read_to_string(repository().join(file)).unwrap();
    let compose = read("deploy/compose.yaml");
    let typed = |what: &str| compose.lines().position(|line| line.starts_with("#   ") && line.contains(what)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("env.example"), read("deploy/env.example")).unwrap();
    let makes = compose.lines().nth(typed("env.example .env")).unwrap().trim_start_matches('#');
    let mut shell = Command::new("sh");
    shell.current_dir(folder.path()).args(["-c", makes]);
    Finished::of(shell).await.done();
    assert_eq!(fs::metadata(folder.path().join(".env")).unwrap().permissions().mode() & 0o777, 0o600);

    for file in [".gitignore", ".dockerignore"] {
        let ignored = read(file);
        for key in ["deploy/.env", "deploy/admin"] {
            assert!(ignored.lines().any(|line| line.trim_matches('/') == key), "{file} lacks {key}");
        }
    }
    assert!(typed("cp joind:/var/lib/joind/admin ./admin") < typed("rm -r /state/admin"), "fetched, then removed");
}

/// `${NAME:-default}` as Compose fills it in when the environment has no such name, and `${NAME:?else}` when it has.
fn with_defaults(text: &str) -> String {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (variable, after) = after.split_once('}').unwrap();
        filled += before;
        filled += variable.split_once(":-").map_or("s3cr3t", |(_, default)| default);
        rest = after;
    }
    filled + rest
}
