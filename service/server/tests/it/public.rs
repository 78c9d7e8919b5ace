//! What needs no identity: health, metrics, revocation lists, the OpenAPI document, reflection.

use std::{num::NonZero, time::Duration};

use http::StatusCode;
use join_proto::v1::{self, LockTarget};
use join_server::config::Limits;
use tokio::{io::AsyncReadExt as _, net::TcpStream};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};
use x509_parser::revocation_list::CertificateRevocationList;

use crate::world::{Answer, Bot, Http, World};

/// Serial numbers of a revocation list in PEM.
pub(crate) fn revoked_serials(answer: &Answer) -> Vec<String> {
    use x509_parser::prelude::FromDer as _;

    assert_eq!(answer.status, StatusCode::OK);
    let (_, pem) = x509_parser::pem::parse_x509_pem(&answer.body).unwrap();
    let (_, list) = CertificateRevocationList::from_der(&pem.contents).unwrap();
    list.iter_revoked_certificates().map(|revoked| revoked.raw_serial_as_string()).collect()
}

async fn revoked(world: &World) -> (Vec<String>, Vec<u8>) {
    world.settle().await;
    let mut http = world.stranger().http().await;
    let serials = revoked_serials(&http.get("/crl").await);
    (serials, http.get("/krl").await.body.to_vec())
}

fn serial(bot: &Bot) -> String {
    bot.certificate().read(|certificate| certificate.raw_serial_as_string())
}

#[tokio::test]
async fn relying_parties_learn_of_locks_and_of_bindings_that_ended() {
    let world = World::start().await;
    let mut bot = world.bot("example").limit(9).await;
    let joined = bot.join().await.unwrap();
    let ssh = ssh_key::Certificate::from_openssh(&joined.credentials.ssh).unwrap();
    let mut other = world.bot("other").await;
    other.join().await.unwrap();
    let x509 = serial(&bot);
    let ssh_bytes = ssh.serial().to_be_bytes();
    let in_krl = |list: &[u8]| list.windows(8).any(|bytes| bytes == ssh_bytes);
    assert_eq!(revoked(&world).await.0, [""; 0]);

    let target = LockTarget { join_token: "example".to_owned(), ..LockTarget::default() };
    let lock = world.operator.lock(target).await.unwrap();
    let (crl, krl) = revoked(&world).await;
    assert_eq!(crl, [x509.as_str()]);
    assert!(in_krl(&krl));

    world.operator.unlock(&lock.metadata.unwrap().name).await.unwrap();
    let (crl, krl) = revoked(&world).await;
    assert!(crl.is_empty() && !in_krl(&krl), "a lock that is gone revokes nothing");

    world.admin.reopen("example").await.unwrap();
    let (crl, krl) = revoked(&world).await;
    assert_eq!(crl, [x509]);
    assert!(in_krl(&krl));

    let deleted = serial(&other);
    world.admin.delete_token("other").await.unwrap();
    assert!(revoked(&world).await.0.contains(&deleted), "a token that is deleted ends its binding");

    world.advance(chrono::TimeDelta::hours(2));
    assert_eq!(revoked(&world).await.0, [""; 0], "what has expired need not be revoked");
    world.check().await;
}

#[tokio::test]
async fn certificates_of_before_a_reinstatement_stay_revoked() {
    let world = World::start().await;
    let mut owner = world.bot("example").limit(9).await;
    owner.join().await.unwrap();
    let mut thief = owner.clone();
    thief.join().await.unwrap();
    owner.join().await.unwrap_err();
    let stolen = serial(&thief);

    world.operator.reinstate("example").await.unwrap();
    owner.join().await.unwrap();

    let (crl, _) = revoked(&world).await;
    assert!(crl.contains(&stolen));
    assert!(!crl.contains(&serial(&owner)), "the owner's new one is good");
    world.check().await;
}

#[tokio::test]
async fn watchers_are_told_of_locks_at_once() {
    let world = World::start().await;
    let mut watching = world.auditor.cluster().await.watch_locks(v1::Empty {}).await.unwrap().into_inner();
    assert_eq!(watching.message().await.unwrap().unwrap().locks.len(), 0);

    let target = LockTarget { join_token: "example".to_owned(), ..LockTarget::default() };
    let mut lock = world.operator.lock(target).await.unwrap();

    let told = watching.message().await.unwrap().unwrap();
    assert_eq!(told.locks, [lock.clone()]);
    lock.spec.as_mut().unwrap().message = "it is over soon".to_owned();
    let name = lock.metadata.as_ref().unwrap().name.clone();
    let upsert = v1::UpsertLockRequest { name, lock: Some(lock) };
    let lock = world.operator.resources().await.upsert_lock(upsert).await.unwrap().into_inner();
    assert_eq!(watching.message().await.unwrap().unwrap().locks, [lock], "as everybody else sees it");
    drop(watching);
    world.check().await;
}

#[tokio::test]
async fn a_node_says_that_it_is_alive_and_ready() {
    let world = World::start().await;
    let mut http = world.stranger().http().await;
    for path in ["/healthz", "/readyz"] {
        let answer = http.get(path).await;
        assert_eq!((answer.status, answer.text()), (StatusCode::OK, "ok\n"), "{path}");
    }
    let mut health = HealthClient::new(world.stranger().channel().await);
    for service in ["", "teleport.join.v1.JoinService", "joinauthority.v1.Ceremony"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = health.check(request).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
    }
    let unknown = health.check(HealthCheckRequest { service: "unknown".to_owned() }).await.unwrap_err();
    assert_eq!(unknown.code(), tonic::Code::NotFound);
    world.check().await;
}

/// Whoever restarts nodes that don't answer must not restart one for being in use.
#[tokio::test]
async fn a_node_without_a_place_for_a_connection_more_is_alive_and_ready_beside_its_metrics() {
    let world = World::with(Limits { connections: NonZero::new(50).unwrap(), ..Limits::default() }).await;
    let mut held = Vec::new();
    for _ in 0..60 {
        held.push(TcpStream::connect(world.network.address(0)).await.unwrap());
    }
    let mut late = TcpStream::connect(world.network.address(0)).await.unwrap();
    let closed = tokio::time::timeout(Duration::from_secs(5), late.read(&mut [0])).await.expect("it is closed at once");
    assert!(matches!(closed, Ok(0) | Err(_)), "there is no place for it: {closed:?}");
    for path in ["/healthz", "/readyz"] {
        let answer = Http::plain(world.node(0).metrics_address).await.get(path).await;
        assert_eq!((answer.status, answer.text()), (StatusCode::OK, "ok\n"), "{path}");
    }
    drop(held);
    let mut bot = world.bot("example").await;
    bot.join().await.expect("there is room again");
    world.check().await;
}

#[tokio::test]
async fn metrics_count_joins_and_refusals() {
    let world = World::start().await;
    // An alert on an increase does not see the first of a series that begins with it.
    let at_the_start = Http::plain(world.node(0).metrics_address).await.get("/metrics").await;
    for series in [
        r#"join_accepted_total{case="resume"}"#,
        r#"join_refused_total{code="JOIN_STATE_INVALID",proven="true"}"#,
        r#"turned_away_total{what="connection"}"#,
        r#"alarm{alarm="log_rollback"}"#,
    ] {
        assert!(at_the_start.text().contains(series), "{series} is not there");
    }
    let mut bot = world.bot("example").limit(1).await;
    bot.join().await.unwrap();
    bot.join().await.unwrap();
    world.advance(chrono::TimeDelta::hours(2));
    bot.join().await.unwrap_err();
    let mut open = world.stranger().http().await;
    assert_eq!(open.get("/healthz").await.status, 200);

    let answer = Http::plain(world.node(0).metrics_address).await.get("/metrics").await;

    assert!(answer.headers["content-type"].to_str().unwrap().starts_with("text/plain"));
    for series in [
        r#"join_accepted_total{case="first_join"}"#,
        r#"join_accepted_total{case="renewal"}"#,
        r#"join_refused_total{code="RECOVERY_LIMIT_EXHAUSTED",proven="true"}"#,
        "join_decision_seconds_count",
        "tokens_cached",
        "token_reads_total",
        "connections_open",
    ] {
        let line = answer.text().lines().find(|line| line.starts_with(series));
        let value = line.and_then(|line| line.rsplit(' ').next()).and_then(|value| value.parse::<f64>().ok());
        assert!(value.is_some_and(|value| value >= 1.0), "{series}: {line:?}");
    }
    world.check().await;
}

#[tokio::test]
async fn revocation_lists_are_not_signed_anew_because_the_log_goes_on() {
    let world = World::start().await;
    world.bot("example").await.join().await.unwrap();
    world.settle().await;
    let mut http = world.stranger().http().await;
    let before = http.get("/crl").await;

    world.ledger().record_integrated(1).await.unwrap();

    assert_eq!(http.get("/crl").await.text(), before.text());
    world.check().await;
}

#[tokio::test]
async fn the_openapi_document_is_the_committed_one() {
    let world = World::start().await;

    let served = world.stranger().http().await.get("/openapi.json").await.json().unwrap();

    let committed: serde_json::Value = serde_json::from_str(include_str!("../../../../docs/openapi.json")).unwrap();
    assert_eq!(served, committed, "docs/openapi.json is outdated");
    world.check().await;
}

#[tokio::test]
async fn the_authority_says_whom_to_trust() {
    let world = World::start().await;
    let mut bot = world.bot("example").await;
    let joined = bot.join().await.unwrap();

    let ca = world.stranger().cluster().await.get_ca(v1::Empty {}).await.unwrap().into_inner();

    assert_eq!(ca.cluster_name, crate::world::CLUSTER);
    assert_eq!(ca.pins, std::slice::from_ref(&world.network.pin));
    assert_eq!(ca.ssh_ca_keys, joined.credentials.ssh_cas);
    let (_, pem) = x509_parser::pem::parse_x509_pem(ca.tls_ca_certs[0].as_bytes()).unwrap();
    assert_eq!(pem.contents, joined.credentials.tls_cas[0]);
    let ca_key = x509_parser::parse_x509_certificate(&pem.contents).unwrap().1;
    let issued = joined.certificate.read(|certificate| certificate.verify_signature(Some(ca_key.public_key())).is_ok());
    assert!(issued);
    world.check().await;
}

#[tokio::test]
async fn services_can_be_explored() {
    let world = World::start().await;
    let mut reflection = ServerReflectionClient::new(world.stranger().channel().await);
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };

    let mut answers = reflection.server_reflection_info(tokio_stream::iter([ask])).await.unwrap().into_inner();

    let Some(MessageResponse::ListServicesResponse(list)) = answers.message().await.unwrap().unwrap().message_response
    else {
        panic!("a list was asked for")
    };
    let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    for service in [
        "teleport.join.v1.JoinService",
        "joinauthority.v1.Ceremony",
        "joinauthority.v1.Resources",
        "joinauthority.v1.Ledger",
        "joinauthority.v1.Cluster",
        "grpc.health.v1.Health",
    ] {
        assert!(names.contains(&service.to_owned()), "{service} is not among {names:?}");
    }
    drop(answers);
    world.check().await;
}

#[tokio::test]
async fn paths_that_are_none_are_refused_politely() {
    let world = World::start().await;
    let mut http = world.stranger().http().await;
    assert_eq!(http.get("/v1/nothing").await.json().unwrap_err(), "NOT_FOUND");
    let wrong = http.send(http::Method::DELETE, "/v1/join", None).await.unwrap();
    assert_eq!(wrong.status, StatusCode::METHOD_NOT_ALLOWED);
    for path in ["/log/nothing", "/log/../../etc/passwd", "/log/%2e%2e/%2e%2e/etc/passwd"] {
        assert_eq!(http.get(path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    for path in ["/log/checkpoint", "/log/tile/0/000"] {
        let answer = http.get(path).await;
        assert_eq!(answer.status, StatusCode::MISDIRECTED_REQUEST, "{path}");
        assert!(answer.text().contains("ask another"), "{}", answer.text());
    }
    world.check().await;
}

#[tokio::test]
async fn the_logs_files_are_public_but_for_its_entries() {
    let mut world = World::start().await;
    world.restart_with_log().await;
    let mut bot = world.bot("example").await;
    bot.join().await.unwrap();
    world.settle().await;
    let mut http = world.stranger().http().await;
    let checkpoint = tokio::time::timeout(std::time::Duration::from_secs(30), async {
        loop {
            let answer = http.get("/log/checkpoint").await;
            let size = answer.text().lines().nth(1).and_then(|line| line.parse::<u64>().ok());
            if answer.status == StatusCode::OK && size >= Some(5) {
                return answer;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    });

    let checkpoint = checkpoint.await.expect("a checkpoint of all entries is signed");

    let lines: Vec<_> = checkpoint.text().lines().collect();
    assert_eq!(lines[0], format!("{}/log", crate::world::CLUSTER));
    let size: u64 = lines[1].parse().unwrap();
    assert!(size >= 5, "{size} entries");
    let partial = format!("000.p/{size}");
    assert_eq!(http.get(&format!("/log/tile/0/{partial}")).await.status, StatusCode::OK);
    for (width, status) in [(1, StatusCode::OK), (size + 1, StatusCode::NOT_FOUND)] {
        let answer = http.get(&format!("/log/tile/0/000.p/{width}")).await;
        assert_eq!(answer.status, status, "the first {width} of {size}");
    }
    assert_eq!(http.get("/log/tile/0/000.p/1").await.body.len(), 32, "cut, where no checkpoint ended");
    let entries = format!("/log/tile/entries/{partial}");
    assert_eq!(http.get(&entries).await.json().unwrap_err(), "UNAUTHENTICATED");
    let bundle = world.auditor.http().await.get(&entries).await;
    assert_eq!(bundle.status, StatusCode::OK);
    assert!(bundle.body.windows(15).any(|bytes| bytes == b"cluster.created"));
    for outside in ["/log/../master.key", "/log/tile/../../master.key", "/log/tile/%2e%2e/checkpoint", "/log/tile//0"] {
        assert_ne!(http.get(outside).await.status, StatusCode::OK, "{outside}");
    }
    world.check().await;
}

#[tokio::test]
async fn nothing_older_than_tls_1_3_is_spoken() {
    use tokio_rustls::TlsConnector;

    let world = World::start().await;
    let connector = TlsConnector::from(std::sync::Arc::new(world.network.old_tls()));
    let tcp = tokio::net::TcpStream::connect(world.network.address(0)).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();

    let refused = connector.connect(name, tcp).await.unwrap_err();

    assert!(refused.to_string().contains("ProtocolVersion"), "{refused}");
    world.check().await;
}

#[tokio::test]
async fn every_connection_begins_with_a_full_handshake() {
    use rustls::HandshakeKind;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_rustls::TlsConnector;

    let world = World::start().await;
    let mut bot = world.bot("example").await;
    bot.join().await.unwrap();
    for certificate in [None, bot.disk.certificate.as_ref()] {
        let connector = TlsConnector::from(std::sync::Arc::new(world.network.resuming(certificate)));
        for connection in 0..3 {
            let tcp = tokio::net::TcpStream::connect(world.network.address(0)).await.unwrap();
            let name = rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
            let mut stream = connector.connect(name, tcp).await.unwrap();
            assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full), "connection {connection}");
            // A ticket comes after the handshake: it is seen as the answer is read.
            stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.unwrap();
            assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
            assert_eq!(stream.get_ref().1.tls13_tickets_received(), 0);
        }
    }
    world.check().await;
}
