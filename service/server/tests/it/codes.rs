//! Error codes as clients get them (protocol, section 10).

use std::{fs, sync::Arc};

use http::{StatusCode, header::RETRY_AFTER};
use http_body_util::BodyExt as _;
use join_domain::refusal::{Code, Refusal};
use join_server::request::problem;
use serde_json::{Value, json};
use tonic::Code as Grpc;
use tonic_types::StatusExt as _;

use crate::world::{Installed, Onboarding, Refused, Transport};

/// The table of the protocol, and the HTTP status of each gRPC status (google.rpc.Code).
const TABLE: [(&str, Grpc, u16); 27] = [
    ("INVALID_REQUEST", Grpc::InvalidArgument, 400),
    ("ACCESS_DENIED", Grpc::PermissionDenied, 403),
    ("REGISTRATION_SECRET_REQUIRED", Grpc::PermissionDenied, 403),
    ("CHALLENGE_FAILED", Grpc::PermissionDenied, 403),
    ("BINDING_NOT_ALLOWED", Grpc::FailedPrecondition, 400),
    ("RECOVERY_LIMIT_EXHAUSTED", Grpc::PermissionDenied, 403),
    ("JOIN_STATE_REQUIRED", Grpc::PermissionDenied, 403),
    ("JOIN_STATE_INVALID", Grpc::PermissionDenied, 403),
    ("GENERATION_MISMATCH", Grpc::PermissionDenied, 403),
    ("INSTANCE_MISMATCH", Grpc::PermissionDenied, 403),
    ("RETIRED_KEY", Grpc::PermissionDenied, 403),
    ("AUTHORITY_BEHIND", Grpc::Unavailable, 503),
    ("LOCKED", Grpc::PermissionDenied, 403),
    ("ROTATION_FAILED", Grpc::FailedPrecondition, 400),
    ("KEY_REUSED", Grpc::InvalidArgument, 400),
    ("KEY_ALREADY_BOUND", Grpc::AlreadyExists, 409),
    ("UNSUPPORTED_KEY", Grpc::InvalidArgument, 400),
    ("CONFLICT", Grpc::Aborted, 409),
    ("RATE_LIMITED", Grpc::ResourceExhausted, 429),
    ("UNAVAILABLE", Grpc::Unavailable, 503),
    ("UNIMPLEMENTED", Grpc::Unimplemented, 501),
    ("UNAUTHENTICATED", Grpc::Unauthenticated, 401),
    ("ROLE_REQUIRED", Grpc::PermissionDenied, 403),
    ("NOT_FOUND", Grpc::NotFound, 404),
    ("ALREADY_EXISTS", Grpc::AlreadyExists, 409),
    ("STALE_REVISION", Grpc::Aborted, 409),
    ("INTERNAL", Grpc::Internal, 500),
];

#[tokio::test]
async fn each_code_has_the_status_of_the_protocol() {
    let names: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(names, TABLE.map(|(name, ..)| name), "the codes are those of the protocol");
    for (code, (name, grpc, http)) in Code::ALL.iter().zip(TABLE) {
        let status = problem::status(Refusal::new(*code, "why"));
        assert_eq!((status.code(), status.message()), (grpc, "why"), "{name}");
        let info = status.get_details_error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), (name, "joinauthority"));
        let delay = status.get_details_retry_info().and_then(|info| info.retry_delay);
        assert_eq!(delay.is_some(), *code == Code::RateLimited, "{name} says when to come again");

        let answer = join_transcode::problem(status);
        assert_eq!(answer.status().as_u16(), http, "{name}");
        assert_eq!(answer.headers().contains_key(RETRY_AFTER), *code == Code::RateLimited, "{name}");
        let body: Value = serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap();
        let mut expected = json!({ "error": { "code": name, "message": "why" } });
        if let Some(delay) = delay {
            expected["error"]["retry_after"] = json!(delay.as_secs());
        }
        assert_eq!(body, expected);
    }
}

/// The message has an id, and the log has the cause under it.
fn is_an_id_and_nothing_else(refused: &Refused, log: &str) {
    assert_eq!(*refused, "INTERNAL");
    let said = "the authority failed; an administrator finds the cause in its log under request ";
    let id = refused.message.strip_prefix(said).unwrap_or_else(|| panic!("{refused:?}"));
    assert!(id.len() > 8 && id.chars().all(|c| c.is_ascii_hexdigit() || c == '-'), "{refused:?}");
    assert!(refused.lock.is_none() && refused.retry_after.is_none(), "{refused:?}");
    let cause = log.lines().find(|line| line.contains("internal error:") && line.contains(id));
    assert!(cause.is_some_and(|line| line.contains("ERROR")), "nothing in the log under {id}: {log}");
}

#[tokio::test]
async fn a_fault_of_ours_tells_an_id_and_nothing_else() {
    let installed = Installed::with_cluster().await;
    let running = installed.serve().await;
    let admin = running.administrator(&installed.path("admin"));
    let mut bot = Onboarding::of(&admin, &running.network, "example").await;
    bot.join().await.unwrap();
    running.stop().await;
    // Damage of the database is always our fault.
    let damage = "UPDATE snapshot p SET state = 'damaged' FROM stream s
                  WHERE s.stream_id = p.stream_id AND s.kind IN ('bot', 'token')";
    installed.database.tamper(damage).await;

    let running = installed.serve().await;
    let admin = running.administrator(&installed.path("admin"));
    let mut refusals = vec![admin.get_bot("example").await.unwrap_err()];
    let answer = admin.http().await.get("/v1/bots/example").await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(body["error"].as_object().unwrap().keys().collect::<Vec<_>>(), ["code", "message"]);
    refusals.push(answer.json().unwrap_err());
    bot.network = Arc::clone(&running.network);
    for over in [Transport::Grpc, Transport::Json] {
        bot.transport = over;
        refusals.push(bot.join().await.unwrap_err());
    }
    running.stop().await;

    let log = fs::read_to_string(installed.path("joind.log")).unwrap();
    for refused in &refusals {
        is_an_id_and_nothing_else(refused, &log);
    }
}
