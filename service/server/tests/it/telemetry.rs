//! What operators read: lines and metrics are explained in `docs/telemetry.md`, alerts are of metrics that there are, and
//! spans arrive.

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
};

use http_body_util::StreamBody;
use hyper::body::Frame;
use serde_yaml_ng::Value;

use crate::world::{Finished, Http, Installed, Onboarding, Running, World, repository, until};

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

/// A node that says where it serves metrics.
pub(crate) async fn measured(installed: &Installed) -> (Running, SocketAddr) {
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
    let admin = running.administrator(&installed.path("admin"));
    Onboarding::of(&admin, &running.network, "example").await.join().await.unwrap();
    running.stop().await;

    let spans = received.lock().unwrap().clone();
    let has = |part: &[u8]| spans.windows(part.len()).any(|window| window == part);
    assert!(has(b"joind") && has(b"/v1/ca") && has(&TRACE.to_be_bytes()));
    assert!(has(b"/teleport.join.v1.JoinService/Join"));
}
