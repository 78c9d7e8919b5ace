//! `joind.yaml` and the environment: what is said about a value that can't be used, and what is shown of those that can.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use join_server::config::{Config, mask_password};
use rstest::rstest;
use serde_yaml_ng::Value;
use tokio::process::Command;

use crate::world::{Finished, joind, terminate, until};

/// A configuration of one's own, that is not run.
pub(crate) struct Written(tempfile::TempDir);

impl Written {
    pub(crate) fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("joind.yaml"), text).unwrap();
        fs::write(folder.path().join("master.key"), "5a".repeat(32)).unwrap();
        Self(folder)
    }

    /// With these lines beside those that must be there.
    pub(crate) fn with(lines: &str) -> Self {
        let written = Self::new("");
        let text = format!(
            "cluster_name: example.com\npublic_addresses: [localhost]\nmaster_key: {{file: {}}}\n{lines}",
            written.0.path().join("master.key").display(),
        );
        fs::write(written.path(), text).unwrap();
        written
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().join("joind.yaml")
    }

    pub(crate) fn command(&self, what: &str) -> Command {
        joind(&["config", what, "-c", &self.path().display().to_string()])
    }

    async fn run(&self, what: &str) -> Finished {
        Finished::of(self.command(what)).await
    }
}

pub(crate) const DATABASE: &str = "database: {service_url: postgres://join_service@db/x}\n";
/// The key of a witness.
const WITNESS: &str = "witness.example/w1+20324abe+BCmsuuFBvMrwsi4alNNNC8c2HlJtC/4SyJeUvJMilm3X";

fn witness(key: &str, url: &str) -> String {
    format!("log: {{directory: log, witnesses: [{{key: '{key}', url: '{url}'}}]}}\n")
}

#[rstest]
#[case::at_the_top("databse: {}\n", "databse")]
#[case::in_a_section("limits: {strems: 1}\n", "strems")]
#[case::in_a_list("log: {witnesses: [{key: k, url: u, weight: 1}]}\n", "weight")]
#[case::in_a_choice("limits: {certificate_ttl_max: soon}\n", "certificate_ttl_max")]
#[case::in_a_unit("limits: {certificate_ttl_max: 24}\n", "a duration with its unit, such as 90s or 1h")]
#[case::in_an_address("listen: localhost:3025\n", "`localhost:3025` is no address to listen on")]
#[case::in_a_port("metrics_listen: 127.0.0.1\n", "`127.0.0.1` has no port")]
#[case::in_a_limit(
    "limits: {streams_per_address: 0}\n",
    "expected a nonzero usize for key \"limits.streams_per_address\""
)]
#[case::by_a_rule("limits: {certificate_ttl_default: 2d}\n", "limits.certificate_ttl_default")]
#[case::in_the_logs_name("log: {origin: my log}\n", "log.origin")]
#[case::in_a_witnesss_key(&witness("w+1+AA", "https://w.example"), "w+1+AA")]
#[case::in_a_witnesss_url(&witness(WITNESS, "w.example"), "`w.example`")]
#[case::in_a_urls_scheme(&witness(WITNESS, "localhost:8080"), "https://")]
#[case::in_witnesses_of_nothing(&witness(WITNESS, "https://w.example").replace("directory: log, ", ""), "log.directory")]
#[tokio::test]
async fn a_key_that_is_wrong_is_named(#[case] line: &str, #[case] key: &str) {
    let written = Written::with(&format!("{DATABASE}{line}"));
    for what in ["check", "show"] {
        let refused = written.run(what).await.refused();
        assert!(refused.contains(key) && refused.contains("joind.yaml"), "{refused}");
    }
}

#[tokio::test]
async fn a_start_that_waits_for_the_master_key_can_be_ended() {
    let folder = tempfile::tempdir().unwrap();
    let asked = folder.path().join("asked");
    let written = Written::new(&format!(
        "cluster_name: example.com\npublic_addresses: [localhost]\nmaster_key: {{command: [sh, -c, \"echo $$ > {}; exec \
         sleep 3600\"]}}\n{DATABASE}",
        asked.display(),
    ));
    let starting = joind(&["serve", "-c", &written.path().display().to_string()]).spawn().unwrap();
    let program = async || fs::read_to_string(&asked).is_ok_and(|told| told.ends_with('\n'));
    until("the program runs", program).await;
    let command = format!("/proc/{}/cmdline", fs::read_to_string(&asked).unwrap().trim());

    assert!(terminate(starting).await.success());
    // Nothing is read of one that ended, whether or not somebody has asked how.
    until("its program has ended, too", async || fs::read(&command).unwrap_or_default().is_empty()).await;
}

#[tokio::test]
async fn a_key_that_is_missing_or_unknown_in_the_environment_is_named() {
    let refused = Written::with("").run("check").await.refused();
    assert!(refused.contains("`database`"), "{refused}");
    let written = Written::with(DATABASE);
    assert_eq!(written.run("check").await.done(), format!("{} is usable\n", written.path().display()));
    let mut mistyped = written.command("check");
    mistyped.env("JOIND_DATABASE__SERVICE_ULR", "postgres://join_service@db/x");
    let refused = Finished::of(mistyped).await.refused();
    assert!(refused.contains("service_ulr"), "{refused}");
    let mut collides = written.command("check");
    collides.env("JOIND_MASTER_KEY__ENV", "KEY");
    let refused = Finished::of(collides).await.refused();
    assert!(refused.contains("master_key comes from several places, env and file"), "{refused}");
    fs::remove_file(written.0.path().join("master.key")).unwrap();
    let refused = written.run("check").await.refused();
    assert!(refused.contains("master.key"), "{refused}");
}

#[tokio::test]
async fn a_master_key_that_everyone_can_read_is_warned_of() {
    let written = Written::with(DATABASE);
    let key = written.0.path().join("master.key");
    for (mode, warned) in [(0o600, false), (0o640, false), (0o644, true)] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        let checked = written.run("check").await;
        assert_eq!(
            checked.stderr.contains(&format!("chmod o= {}", key.display())),
            warned,
            "{mode:o}: {}",
            checked.stderr
        );
        checked.done();
    }
}

#[tokio::test]
async fn the_environment_wins_over_the_file() {
    let written = Written::with(&format!("{DATABASE}limits: {{certificate_ttl_max: 3h, streams: 9}}\n"));
    let mut command = written.command("show");
    command
        .env("JOIND_CLUSTER_NAME", "other.example")
        .env("JOIND_LIMITS__CERTIFICATE_TTL_MAX", "2h")
        .env("JOIND_DATABASE__MAX_CONNECTIONS", "7")
        .env("JOIND_PUBLIC_ADDRESSES", "[a.example, b.example]")
        // It may be the key itself.
        .env("JOIND_MASTER_KEY", "c0ffee");

    let shown = Finished::of(command).await.done();

    assert!(!shown.contains("c0ffee"), "{shown}");
    let shown: Value = serde_yaml_ng::from_str(&shown).unwrap();
    assert_eq!(shown["cluster_name"], "other.example");
    assert_eq!(shown["limits"]["certificate_ttl_max"], "2h");
    assert_eq!(shown["limits"]["streams"], 9);
    assert_eq!(shown["limits"]["certificate_ttl_default"], "1h", "as it is when nobody says anything");
    assert_eq!(shown["database"]["max_connections"], 7);
    assert_eq!(shown["public_addresses"], Value::from(vec!["a.example", "b.example"]));
}

#[rstest]
#[case("postgres://u@db/x?sslmode=require", "postgres://u@db/x?sslmode=require")]
#[case("postgres://u:SECRET@db:5432/x", "postgres://u:***@db:5432/x")]
#[case("postgres://u@db/x?password=SECRET", "postgres://u@db/x?password=***")]
#[case("postgres://db?user=u&password=SECRET&dbname=x", "postgres://db?user=u&password=***&dbname=x")]
#[case("postgres://u:SECRET@db/x?%70assword=SECRET", "postgres://u:***@db/x?%70assword=***")]
#[case("postgres://u@db/x?password=plain@SECRET", "postgres://u@db/x?password=***")]
#[case("postgres://u@db/x?host=/run&password=a?SECRET#SECRET", "postgres://u@db/x?host=/run&password=***#***")]
fn passwords_are_masked(#[case] url: &str, #[case] shown: &str) {
    let url = url.replace("SECRET", "s3cr3t");
    let written = Written::with(&format!("database: {{service_url: '{url}', owner_url: '{url}'}}\n"));

    let masked = Config::read(&written.path()).unwrap().to_masked_yaml().unwrap();

    assert!(!masked.contains("s3cr3t"), "{masked}");
    let masked: Value = serde_yaml_ng::from_str(&masked).unwrap();
    assert_eq!(masked["database"]["service_url"], shown);
    assert_eq!(masked["database"]["owner_url"], shown);
}

#[test]
fn passwords_of_witnesses_and_of_the_collector_are_masked() {
    let telemetry = "telemetry: {otlp_endpoint: 'https://u:s3cr3t@collector:4317?key=s3cr3t'}\n";
    let written = Written::with(&(witness(WITNESS, "https://u:s3cr3t@w.example") + telemetry + DATABASE));

    let masked = Config::read(&written.path()).unwrap().to_masked_yaml().unwrap();

    assert!(!masked.contains("s3cr3t"), "{masked}");
    let masked: Value = serde_yaml_ng::from_str(&masked).unwrap();
    assert_eq!(masked["log"]["witnesses"][0]["url"], "https://u:***@w.example");
    assert_eq!(masked["telemetry"]["otlp_endpoint"], "https://u:***@collector:4317?key=***");

    let wrong = Written::with(&(witness(WITNESS, "ftp://u:s3cr3t@w.example") + DATABASE));
    let refused = format!("{:#}", Config::read(&wrong.path()).unwrap_err());
    assert!(refused.contains("`ftp://u:***@w.example` does not begin with https://"), "{refused}");

    for (url, shown) in [
        ("https://u:s3cr3t/s3cr3t@w.example/log?key=s3cr3t", "https://u:***@w.example/log?key=***"),
        ("https://s3cr3t@w.example", "https://***@w.example"),
        ("https://w.example/log", "https://w.example/log"),
        ("postgres://u@db/x?sslmode=require", "postgres://u@db/x?sslmode=require"),
    ] {
        assert_eq!(mask_password(url), shown);
    }
}

/// No password stands in what a command says, whatever is wrong with its URL.
#[rstest]
#[case("postgres://u@db/x?sslpassword=s3cr3t", Some("sslpassword"))]
#[case("postgres://u@db/x?sslmode=s3cr3t", None)]
#[case("postgres://u:s3cr3t@db:port/x", None)]
#[case("s3cr3t", None)]
#[case("http://u:s3cr3t@db/x", Some("postgres://"))]
#[case("mysql://u:s3cr3t@db/x", Some("postgres://"))]
#[tokio::test]
async fn a_url_that_is_refused_is_not_told(#[case] url: &str, #[case] parameter: Option<&str>) {
    let written = Written::with(&format!("database: {{service_url: '{url}'}}\n"));
    for what in ["check", "show"] {
        let refused = written.run(what).await.refused();
        assert!(!refused.contains("s3cr3t"), "{refused}");
        assert!(refused.contains("database.service_url"), "{refused}");
        assert!(parameter.is_none_or(|parameter| refused.contains(parameter)), "{refused}");
    }
}
