//! What people type: `joind`'s commands, what they print, and how they end.

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::{Arc, Mutex},
};

use http_body_util::StreamBody;
use hyper::body::Frame;
use join_domain::id::Name;
use join_server::config::Config;
use rstest::rstest;
use serde_yaml_ng::Value;
use tokio::process::Command;

use crate::world::{
    Administrator, Bot, Database, Finished, Http, Installed, Onboarding, Running, joind, open_directory, terminate,
    until,
};

/// Beside this crate, in the repository.
fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

async fn a_bot(admin: &Administrator, running: &Running) -> Bot {
    let mut bot = Onboarding::of(admin, &running.network, "example").await;
    bot.join().await.unwrap();
    bot
}

/// The same bot finds the authority at its new address.
async fn renews(bot: &mut Bot, running: &Running) {
    let (instance, generation) = (bot.certificate().instance(), bot.certificate().claims()["generation"].as_u64());
    bot.network = Arc::clone(&running.network);
    let joined = bot.join().await.unwrap();
    assert_eq!((joined.instance(), joined.generation()), (instance, generation.unwrap() + 1));
}

/// Rows of a table, without the headings.
fn rows(table: &str) -> Vec<Vec<&str>> {
    table.lines().skip(1).map(|line| line.split_whitespace().collect()).collect()
}

#[tokio::test]
async fn what_dev_made_outlives_a_kill() {
    let folder = open_directory();
    let data = folder.path().join("data");
    let first = Running::dev(&data).await;
    let address = first.network.address(0);
    let identity = data.join("identity");
    let exports = [format!("export JOINCTL_ADDR={address}"), format!("export JOINCTL_IDENTITY={}", identity.display())];
    assert_eq!(first.printed[1..], exports);
    assert_eq!(fs::read_to_string(data.join("env")).unwrap(), format!("{}\n{}\n", exports[0], exports[1]));
    let mode = |directory: &Path| fs::metadata(directory).unwrap().permissions().mode();
    assert_eq!(mode(&data) & 0o066, 0, "others see nothing in it");
    assert_eq!(mode(&data.join("log")) & 0o007, 0, "nor any entry");
    let admin = first.administrator(&identity);
    let (cluster, pin) = (admin.status().await.cluster_name, first.network.pin.clone());
    assert_eq!(cluster, "dev.local");
    let mut bot = a_bot(&admin, &first).await;
    let issued = folder.path().join("audrey").display().to_string();
    let issue = ["admin", "issue", "--role", "auditor", "--name", "audrey", "--out", &issued];
    let data_dir = ["--data-dir", &data.display().to_string()];
    Finished::of(joind(&[issue.as_slice(), &data_dir].concat())).await.done();
    let files: Vec<_> = ["master.key", "identity/tls.key"].map(|file| fs::read(data.join(file)).unwrap()).into();

    first.kill().await;
    let second = Running::dev(&data).await;

    assert_eq!(second.network.pin, pin);
    let kept: Vec<_> = ["master.key", "identity/tls.key"].map(|file| fs::read(data.join(file)).unwrap()).into();
    assert!(kept == files, "the keys are those of before");
    let admin = second.administrator(&identity);
    assert_eq!(admin.status().await.cluster_name, cluster);
    assert_eq!(second.administrator(Path::new(&issued)).status().await.cluster_name, cluster);
    renews(&mut bot, &second).await;
    let env = fs::read_to_string(data.join("env")).unwrap();
    assert!(env.starts_with(&format!("export JOINCTL_ADDR={}\n", second.network.address(0))), "{env}");

    assert!(second.stop().await.success());
    let lock = fs::File::open(data.join("postgres/server.lock")).unwrap();
    lock.try_lock().expect("its PostgreSQL has ended, too");
    let after = Finished::of(joind(&[["admin", "ls"].as_slice(), &data_dir].concat())).await.refused();
    assert!(after.contains("does `joind dev` run?"), "{after}");
}

#[tokio::test]
async fn what_others_wrote_does_not_steer_the_terminal() {
    let installed = Installed::new().await;
    let refused = installed.run(&["import", "--from", "an\u{1b}[2Jarchive\u{9b}1m"]).await.refused();
    assert!(refused.contains(r"an\u{1b}[2Jarchive\u{9b}1m"), "{refused:?}");
    assert!(!refused.replace('\n', "").contains(char::is_control), "{refused:?}");
}

#[tokio::test]
async fn a_cluster_is_made_once_on_a_schema_that_migrate_makes() {
    let installed = Installed::on(Database::bare().await);
    for _ in 0..2 {
        let migrated = installed.run(&["migrate"]).await.done();
        assert_eq!(migrated, "the schema is that of this version\n");
    }
    let later = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
        VALUES (99991231235959, 'later', true, '', 0)";
    installed.database.tamper(later).await;
    let migrated = installed.run(&["migrate"]).await.done();
    assert!(migrated.starts_with("the schema is newer than this version: nothing is migrated"), "{migrated}");
    installed.database.tamper("DELETE FROM _sqlx_migrations WHERE version = 99991231235959").await;
    let ownerless = Written::with(DATABASE);
    let refused = Finished::of(joind(&["migrate", "-c", &ownerless.path().display().to_string()])).await.refused();
    assert!(refused.contains("database.owner_url is missing"), "{refused}");
    let refused = installed.run(&["serve"]).await.refused();
    assert!(refused.contains("joind init"), "{refused}");

    // What stands in the way of its administrator makes no cluster.
    let occupied = installed.text("master.key/admin");
    let refused = installed.run(&["init", "--admin-identity", &occupied]).await.refused();
    assert!(refused.contains(&occupied), "{refused}");

    let admin = installed.text("admin");
    let made = installed.run(&["init", "--admin-identity", &admin]).await.done();
    assert!(made.contains("cluster test.example is created") && made.contains(&admin), "{made}");
    let mode = |path: &str| installed.path(path).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!([mode("admin"), mode("admin/tls.key"), mode("admin/tls.crt")], [0o700, 0o600, 0o644]);
    let key = fs::read(installed.path("admin/tls.key")).unwrap();
    for directory in ["admin", "another"] {
        let again = installed.run(&["init", "--admin-identity", &installed.text(directory)]).await.refused();
        assert!(again.contains("test.example") && again.contains("once"), "{again}");
        assert!(again.contains("`joind admin issue -c FILE --role admin"), "{again}");
    }
    assert_eq!(fs::read(installed.path("admin/tls.key")).unwrap(), key);
    assert!(!installed.path("another").exists());

    let running = installed.serve().await;
    let admin = running.administrator(&installed.path("admin"));
    assert_eq!(admin.status().await.cluster_name, "test.example");
    a_bot(&admin, &running).await;
    assert!(running.stop().await.success());

    let mut other = installed.command(&["serve"]);
    other.env("JOIND_CLUSTER_NAME", "other.example");
    let refused = Finished::of(other).await.refused();
    assert!(refused.contains("other.example") && refused.contains("test.example"), "{refused}");
}

#[tokio::test]
async fn init_migrates_a_database_when_it_may() {
    let installed = Installed::on(Database::bare().await);
    installed.run(&["init", "--admin-identity", &installed.text("admin")]).await.done();
    assert!(installed.path("admin/ca.crt").exists());
}

#[tokio::test]
async fn what_differs_from_the_events_is_found_and_made_again() {
    let installed = Installed::with_cluster().await;
    let running = installed.serve().await;
    let admin = running.administrator(&installed.path("admin"));
    let mut bot = a_bot(&admin, &running).await;
    until("the views show the bot", async || admin.instances().await.len() == 1).await;
    running.stop().await;
    let check = async || installed.run(&["rebuild", "--check"]).await;
    let equal = check().await.done();
    assert!(equal.ends_with(" 0 differences\n"), "{equal}");

    installed.database.tamper("UPDATE token_view SET bot_name = 'another'").await;
    installed.database.tamper("UPDATE stream SET live = NOT live WHERE kind = 'token'").await;
    let found = check().await;
    assert_eq!(found.status, Some(3), "{found:?}");
    assert!(found.stdout.ends_with(" 3 differences\n"), "{found:?}");
    for table in ["stream: ", "token_view: "] {
        assert!(found.stdout.lines().any(|line| line.starts_with(table)), "{found:?}");
    }

    assert_eq!(installed.run(&["rebuild"]).await.done(), "rebuilt\n");
    assert_eq!(check().await.done(), equal);
    let running = installed.serve().await;
    renews(&mut bot, &running).await;
    running.stop().await;
}

/// In a process of its own, as alarms are of the process.
#[tokio::test]
async fn who_says_that_more_is_signed_than_is_stops_the_log() {
    for statement in ["UPDATE log_head SET signed_size = 1000000", "UPDATE log_head SET signed_checkpoint = 'x'"] {
        let installed = Installed::with_cluster().await;
        let running = installed.serve_with_log().await;
        let admin = running.administrator(&installed.path("admin"));
        until("a checkpoint is signed", async || admin.status().await.log_signed > 0).await;
        assert!(admin.status().await.alarms.is_empty());

        installed.database.tamper(statement).await;

        until("the alarm", async || admin.status().await.alarms == ["log_rollback"]).await;
        running.stop().await;
    }
}

#[tokio::test]
async fn the_end_of_a_log_that_is_not_the_newest_is_told() {
    let installed = Installed::with_cluster().await;
    let running = installed.serve_with_log().await;
    let admin = running.administrator(&installed.path("admin"));
    until("a checkpoint is signed", async || admin.status().await.log_signed > 0).await;
    running.stop().await;
    for (ended, told) in [("tset.example/log", true), ("test.example/log", false)] {
        let mut begin = installed.command(&["log", "begin", "--reason", "restored", "--ended", ended]);
        begin.env("JOIND_LOG__ORIGIN", "test.example/log-2");
        let begun = Finished::of(begin).await;
        let note = format!("is of the log `test.example/log`, not of `{ended}`");
        assert_eq!(begun.stderr.contains(&note), told, "{}", begun.stderr);
        begun.done();
    }
}

/// A node that says where it serves metrics.
async fn measured(installed: &Installed) -> (Running, SocketAddr) {
    let mut command = installed.command(&["serve", "--metrics-listen", "127.0.0.1:0"]);
    // An address of documentation (RFC 5737), which nobody has.
    command.env("JOIND_METRICS_LISTEN", "203.0.113.1:3026").env("JOIND_TELEMETRY__LOG_LEVEL", "info");
    let log = installed.path("joind.log");
    let running = Running::start(command, 1, &log).await;
    let address = async || {
        let said = fs::read_to_string(&log).unwrap();
        said.lines().find_map(|line| line.split_once("metrics on ")?.1.split_whitespace().next()?.parse().ok())
    };
    until("it says where its metrics are", async || address().await.is_some()).await;
    let address = address().await.unwrap();
    (running, address)
}

#[tokio::test]
async fn metrics_are_where_the_command_line_says_and_tell_the_end_of_the_ca() {
    let installed = Installed::with_cluster().await;
    let mut elsewhere = installed.command(&["serve"]);
    elsewhere.env("JOIND_METRICS_LISTEN", "203.0.113.1:3026");
    let refused = Finished::of(elsewhere).await.refused();
    assert!(refused.contains("203.0.113.1:3026 can't be listened on for metrics"), "{refused}");

    let (running, address) = measured(&installed).await;

    let ca = fs::read(installed.path("admin/ca.crt")).unwrap();
    let ca = x509_parser::pem::parse_x509_pem(&ca).unwrap().1;
    let ends = ca.parse_x509().unwrap().validity().not_after.timestamp();
    let metrics = Http::plain(address).await.get("/metrics").await;
    let line = format!("\nca_certificate_expires_timestamp_seconds {ends}\n");
    assert!(metrics.text().contains(&line), "{line}: {}", metrics.text());
    assert!(running.stop().await.success());
}

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

/// The names in an expression of Prometheus that can be those of metrics: no functions, no labels, no operators.
fn metrics_in(expression: &str) -> BTreeSet<String> {
    let mut without_labels = String::new();
    let mut depth = 0;
    for letter in expression.chars() {
        match letter {
            '{' | '[' => depth += 1,
            '}' | ']' => depth -= 1,
            _ if depth == 0 => without_labels.push(letter),
            _ => {}
        }
    }
    let words = without_labels.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words.filter(|word| word.contains('_') || ["up", "alarm"].contains(word)).map(str::to_owned).collect()
}

#[tokio::test]
async fn every_alert_is_of_metrics_that_there_are_and_says_what_it_means() {
    let read = |file: &str| fs::read_to_string(repository().join(file)).unwrap();
    let rules: Value = serde_yaml_ng::from_str(&read("deploy/prometheus-rules.yaml")).unwrap();
    let groups = rules["groups"].as_sequence().unwrap();
    let rules: Vec<_> = groups.iter().flat_map(|group| group["rules"].as_sequence().unwrap()).collect();
    let text = |rule: &Value, field: &str| rule[field].as_str().unwrap().to_owned();

    let named: BTreeSet<_> = rules.iter().map(|rule| text(rule, "alert")).collect();
    let guide = read("docs/operating.md");
    let explained = guide.lines().filter_map(|line| line.strip_prefix("| `Join")?.split_once("` |"));
    let explained: BTreeSet<_> = explained.map(|(name, _)| format!("Join{name}")).collect();
    assert_eq!(named, explained, "the alerts, and those in the guide");
    // Who is dead has no metrics that another alert could be of.
    let expressions: Vec<_> = rules.iter().map(|rule| text(rule, "expr")).collect();
    for job in ["joind", "joinbot"] {
        let down = format!("up{{job=\"{job}\"}} == 0");
        assert!(expressions.iter().any(|expression| expression.starts_with(&down)), "nobody looks for {down}");
    }
    assert!(expressions.iter().any(|expression| expression.contains(r#"absent(up{job="joind"})"#)));

    let installed = Installed::with_cluster().await;
    let (running, address) = measured(&installed).await;
    // Requests are counted from the first of each kind, and positions are measured every few seconds.
    running.administrator(&installed.path("admin")).status().await;
    let agents = read("agent/src/health.rs");
    for metric in rules.iter().flat_map(|rule| metrics_in(&text(rule, "expr"))).collect::<BTreeSet<_>>() {
        let begins = |line: &str| line.strip_prefix(&metric).is_some_and(|rest| rest.starts_with([' ', '{']));
        let is_there = async || match metric.as_str() {
            "up" | "histogram_quantile" => true,
            of_agents if of_agents.starts_with("joinbot_") => agents.contains(&format!("\"{of_agents}\"")),
            _ => Http::plain(address).await.get("/metrics").await.text().lines().any(begins),
        };
        until(&format!("there is a metric {metric}"), is_there).await;
    }
    running.stop().await;
}

/// How a command ends whose readers have left, as `| head` and a closed terminal leave it.
async fn unread(mut command: Command) -> Option<i32> {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    command.stdout(writer.try_clone().unwrap()).stderr(writer).status().await.unwrap().code()
}

#[tokio::test]
async fn readers_that_left_change_no_outcome() {
    let installed = Installed::with_cluster().await;
    for directory in ["one", "two"] {
        let out = installed.text(directory);
        installed.run(&["admin", "issue", "--role", "auditor", "--name", "audrey", "--out", &out]).await.done();
    }
    assert_eq!(unread(installed.command(&["admin", "ls"])).await, Some(0));
    let revoke = ["admin", "revoke", "--name", "audrey", "--reason", "she left"];
    assert_eq!(unread(installed.command(&revoke)).await, Some(0));
    let listed = installed.run(&["admin", "ls"]).await.done();
    assert!(!listed.contains("audrey"), "both are revoked: {listed}");
    assert_eq!(unread(installed.command(&revoke)).await, Some(1));

    installed.database.tamper("UPDATE stream SET live = NOT live WHERE kind = 'administrator'").await;
    assert_eq!(unread(installed.command(&["rebuild", "--check"])).await, Some(3));
}

/// A collector that keeps what it is sent, as OTLP has it: protocol buffers over gRPC.
async fn collector() -> (String, Arc<Mutex<Vec<u8>>>) {
    let received = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&received);
    let export = move |sent: axum::body::Bytes| async move {
        kept.lock().unwrap().extend_from_slice(&sent);
        let done = http::HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
        let frames = [Frame::data(axum::body::Bytes::from_static(&[0; 5])), Frame::trailers(done)];
        let answer = StreamBody::new(futures::stream::iter(frames.map(Ok::<_, std::convert::Infallible>)));
        ([(http::header::CONTENT_TYPE, "application/grpc")], axum::body::Body::new(answer))
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, axum::Router::new().fallback(export)).into_future());
    (address, received)
}

#[tokio::test]
async fn a_request_is_a_span_that_continues_its_callers_trace() {
    const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
    let installed = Installed::with_cluster().await;
    let (address, received) = collector().await;
    let running = installed.serve_with("JOIND_TELEMETRY__OTLP_ENDPOINT", &address).await;
    let request = http::Request::get("/v1/ca")
        .header(http::header::HOST, "authority")
        .header("traceparent", format!("00-{TRACE:032x}-00f067aa0ba902b7-01"))
        .body(http_body_util::Full::default())
        .unwrap();
    Http::connect(&running.network, 0, None).await.unwrap().raw(request).await.unwrap();
    a_bot(&running.administrator(&installed.path("admin")), &running).await;
    running.stop().await;

    let spans = received.lock().unwrap().clone();
    let has = |part: &[u8]| spans.windows(part.len()).any(|window| window == part);
    assert!(has(b"joind") && has(b"/v1/ca") && has(&TRACE.to_be_bytes()));
    assert!(has(b"/teleport.join.v1.JoinService/Join"));
}

#[tokio::test]
async fn an_identity_works_until_it_is_revoked() {
    let installed = Installed::with_cluster().await;
    let running = installed.serve().await;
    for (role, name, directory) in
        [("auditor", "audrey", "one"), ("auditor", "audrey", "two"), ("operator", "oscar", "three")]
    {
        let out = installed.text(directory);
        let issue = ["admin", "issue", "--role", role, "--name", name, "--out", &out];
        let issued = installed.run(&issue).await.done();
        assert_eq!(issued, format!("the identity of {role} {name} is in {out}\n"));
        let again = installed.run(&issue).await.refused();
        assert!(again.contains("never overwritten"), "{again}");
    }
    let asks = async |directory: &str| running.administrator(&installed.path(directory)).get_bot("none").await;
    for directory in ["admin", "one", "two", "three"] {
        assert_eq!(asks(directory).await.unwrap_err(), "NOT_FOUND", "{directory} is let in");
    }

    let table = installed.run(&["admin", "ls"]).await.done();
    assert_eq!(table.split_whitespace().take(5).collect::<Vec<_>>(), ["SERIAL", "NAME", "ROLE", "STATE", "UNTIL"]);
    let listed = rows(&table);
    let names: Vec<_> = listed.iter().map(|row| (row[1], row[2], row[3])).collect();
    let audrey = ("audrey", "auditor", "live");
    assert_eq!(names, [("admin", "admin", "live"), audrey, audrey, ("oscar", "operator", "live")]);

    let revoke = async |whose: &[&str], reason: &str| {
        installed.run(&[&["admin", "revoke", "--reason", reason], whose].concat()).await
    };
    let refused = revoke(&["--name", "audrey"], " ").await.refused();
    assert!(refused.contains("it is empty: say why"), "{refused}");
    let unprintable = revoke(&["--name", "audrey"], "she \u{7} left").await.refused();
    assert!(unprintable.contains("printable bytes"), "{unprintable}");
    revoke(&[], "she left").await.refused();
    let done = revoke(&["--name", "audrey"], "she left").await.done();
    assert_eq!(done.lines().count(), 2, "{done}");
    for directory in ["one", "two"] {
        let refused = asks(directory).await.unwrap_err();
        assert_eq!(refused, "UNAUTHENTICATED");
        assert!(refused.message.starts_with("the identity was revoked"), "{}", refused.message);
    }
    let serial = listed[3][0];
    assert_eq!(revoke(&["--serial", serial], "lost").await.done(), format!("identity {serial} is revoked\n"));
    assert_eq!(asks("three").await.unwrap_err(), "UNAUTHENTICATED");
    assert_eq!(asks("admin").await.unwrap_err(), "NOT_FOUND", "who is still let in");
    let twice = revoke(&["--serial", serial], "lost").await.refused();
    assert!(twice.contains("revoked before"), "{twice}");
    let unknown = revoke(&["--name", "audrey"], "she left").await.refused();
    assert!(unknown.contains("each identity of audrey was revoked before; see `joind admin ls --all`"), "{unknown}");
    let never = revoke(&["--name", "nobody"], "she left").await.refused();
    assert!(never.contains("no identity of that name is on record"), "{never}");
    assert_eq!(rows(&installed.run(&["admin", "ls"]).await.done()).len(), 1);
    let all = installed.run(&["admin", "ls", "--all"]).await.done();
    let states: Vec<_> = rows(&all).iter().map(|row| (row[1], row[3])).collect();
    let audrey = ("audrey", "revoked");
    assert_eq!(states, [("admin", "live"), audrey, audrey, ("oscar", "revoked")]);
    running.stop().await;
}

#[tokio::test]
async fn keys_go_through_their_phases() {
    let installed = Installed::with_cluster().await;
    let running = installed.serve().await;
    let admin = running.administrator(&installed.path("admin"));
    let mut bot = a_bot(&admin, &running).await;
    let keys = async |arguments: &[&str]| installed.run(&[&["keys"], arguments].concat()).await;
    // Phases last longer than a test.
    let waits = async |phase: &str, time: &str| {
        let sql =
            format!("UPDATE authority_key SET phase_since = phase_since - '{time}'::interval WHERE phase = '{phase}'");
        installed.database.tamper(&sql).await;
    };
    let table = keys(&["ls"]).await.done();
    let mut listed: Vec<_> = rows(&table).into_iter().map(|row| (row[1], row[2])).collect();
    listed.sort_unstable();
    let active = ["join-state", "log", "sealing", "ssh-ca", "x509-ca"].map(|purpose| (purpose, "active"));
    assert_eq!(listed, active);
    let kid = |table: &str, phase: &str| {
        let of_phase = rows(table).into_iter().find(|row| row[1] == "ssh-ca" && row[2] == phase);
        of_phase.unwrap_or_else(|| panic!("no {phase} key of ssh-ca: {table}"))[0].to_owned()
    };
    let old = kid(&table, "active");

    let fixed = keys(&["prepare", "log"]).await.refused();
    assert!(fixed.contains("x509-ca, ssh-ca, join-state"), "{fixed}");
    let nothing = keys(&["activate", "ssh-ca"]).await.refused();
    assert!(nothing.contains("prepare one first"), "{nothing}");
    let prepared = keys(&["prepare", "ssh-ca"]).await.done();
    let new = kid(&keys(&["ls"]).await.done(), "standby");
    assert!(prepared.starts_with(&format!("{new} is standby\n")), "{prepared}");
    let twice = keys(&["prepare", "ssh-ca"]).await.refused();
    assert!(twice.contains("on standby already"), "{twice}");
    let early = keys(&["activate", "ssh-ca"]).await.refused();
    assert!(early.contains("on standby for"), "{early}");
    waits("standby", "2 minutes").await;
    let activated = keys(&["activate", "ssh-ca"]).await.done();
    let told = [format!("{old} is retired\n"), format!("{new} is active\n")];
    assert!(told.iter().all(|line| activated.contains(line)), "{activated}");

    let early = keys(&["forget", &old]).await.refused();
    assert!(early.contains("must stay trusted until"), "{early}");
    let used = keys(&["revoke", &new, "--reason", "compromised"]).await.refused();
    assert!(used.contains("is the active key"), "{used}");
    let unsaid = keys(&["revoke", &old, "--reason", ""]).await.refused();
    assert!(unsaid.contains("it is empty: say why"), "{unsaid}");
    waits("retired", "2 days").await;
    let lives_longer =
        "INSERT INTO certificate_view SELECT 'older', token_id, token_name, bot_name, instance_id, generation,
        key, issued_at - '3 days'::interval, issued_at + '7 days'::interval FROM certificate_view LIMIT 1";
    installed.database.tamper(lives_longer).await;
    let in_use = keys(&["forget", &old]).await.refused();
    assert!(in_use.contains("must stay trusted until"), "more was allowed when it was issued: {in_use}");
    installed.database.tamper("DELETE FROM certificate_view WHERE serial = 'older'").await;
    assert_eq!(keys(&["forget", &old]).await.done(), format!("{old} is forgotten\n"));

    keys(&["prepare", "ssh-ca"]).await.done();
    waits("standby", "2 minutes").await;
    keys(&["activate", "ssh-ca"]).await.done();
    let revoked = keys(&["revoke", &new, "--reason", "compromised"]).await.done();
    assert_eq!(revoked, format!("{new} is revoked\n"));
    renews(&mut bot, &running).await;
    assert!(running.stop().await.success());
}

#[tokio::test]
async fn another_master_key_opens_the_keys_that_were_sealed_under_it() {
    let installed = Installed::with_cluster().await;
    let next = installed.path("next.key");
    fs::write(&next, "no key at all").unwrap();
    let reseal = ["keys", "reseal", "--new-master-key", &next.display().to_string()];
    let refused = installed.run(&reseal).await.refused();
    assert!(refused.contains("next.key") && !refused.contains("no key at all"), "{refused}");
    fs::write(&next, "5a".repeat(32)).unwrap();

    let done = installed.run(&reseal).await.done();
    assert!(done.contains("next.key"), "{done}");

    let refused = installed.run(&["serve"]).await.refused();
    assert!(refused.contains("the master key does not open"), "{refused}");
    fs::rename(&next, installed.path("master.key")).unwrap();
    let running = installed.serve().await;
    a_bot(&running.administrator(&installed.path("admin")), &running).await;
    running.stop().await;
}

/// A configuration of one's own, that is not run.
struct Written(tempfile::TempDir);

impl Written {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("joind.yaml"), text).unwrap();
        fs::write(folder.path().join("master.key"), "5a".repeat(32)).unwrap();
        Self(folder)
    }

    /// With these lines beside those that must be there.
    fn with(lines: &str) -> Self {
        let written = Self::new("");
        let text = format!(
            "cluster_name: example.com\npublic_addresses: [localhost]\nmaster_key: {{file: {}}}\n{lines}",
            written.0.path().join("master.key").display(),
        );
        fs::write(written.path(), text).unwrap();
        written
    }

    fn path(&self) -> std::path::PathBuf {
        self.0.path().join("joind.yaml")
    }

    fn command(&self, what: &str) -> Command {
        joind(&["config", what, "-c", &self.path().display().to_string()])
    }

    async fn run(&self, what: &str) -> Finished {
        Finished::of(self.command(what)).await
    }
}

const DATABASE: &str = "database: {service_url: postgres://join_service@db/x}\n";
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

    for file in [".gitignore", ".dockerignore", ".containerignore"] {
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
