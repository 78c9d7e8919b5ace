//! How gRPC errors look over HTTP.

use http::{StatusCode, header};
use rstest::rstest;
use serde_json::{Value, json};

use crate::authority::{Everybody, ask, bytes, request, send};

#[tokio::test]
async fn a_refusal_keeps_its_code_and_facts() {
    let (status, json) = ask("POST", "/v1/join/continue", r#"{"solution": "locked"}"#).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert_eq!(json, json!({"error": {"code": "LOCKED", "message": "refused: LOCKED", "lock_id": "7f3a"}}));
}

#[tokio::test]
async fn who_comes_too_fast_is_told_when_to_come_again() {
    let response = send(request("POST", "/v1/join/continue", r#"{"solution": "fast"}"#)).await;
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(response.headers()[header::RETRY_AFTER], "2");
    let json: Value = serde_json::from_slice(&bytes(response).await).unwrap();
    assert_eq!(json["error"], json!({"code": "RATE_LIMITED", "message": "refused: RATE_LIMITED", "retry_after": 2}));
}

#[rstest]
#[case(1, 503, "UNAVAILABLE")]
#[case(2, 500, "INTERNAL")]
#[case(3, 400, "INVALID_REQUEST")]
#[case(4, 504, "UNAVAILABLE")]
#[case(5, 404, "NOT_FOUND")]
#[case(6, 409, "ALREADY_EXISTS")]
#[case(7, 403, "ACCESS_DENIED")]
#[case(8, 429, "RATE_LIMITED")]
#[case(9, 400, "INVALID_REQUEST")]
#[case(10, 409, "CONFLICT")]
#[case(11, 400, "INVALID_REQUEST")]
#[case(12, 501, "UNIMPLEMENTED")]
#[case(13, 500, "INTERNAL")]
#[case(14, 503, "UNAVAILABLE")]
#[case(15, 500, "INTERNAL")]
#[case(16, 401, "UNAUTHENTICATED")]
#[tokio::test]
async fn a_status_without_our_code_gets_the_usual_one(#[case] grpc: i32, #[case] http: u16, #[case] code: &str) {
    let (status, json) = ask("GET", &format!("/v1/bots/{grpc}"), "").await;
    assert_eq!(status.as_u16(), http);
    assert_eq!(json, json!({"error": {"code": code, "message": grpc.to_string()}}));
}

#[tokio::test]
async fn a_service_that_is_not_there_is_unimplemented() {
    let grpc = tonic::service::Routes::default();
    let router = join_transcode::router(&join_proto::DESCRIPTORS, grpc, Everybody, Default::default()).unwrap();
    let response = tower::ServiceExt::oneshot(router, request("GET", "/v1/ca", "")).await.unwrap();
    assert_eq!(response.status(), StatusCode::NOT_IMPLEMENTED);
}
