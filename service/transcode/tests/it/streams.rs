//! Streams as NDJSON.

use std::time::{Duration, Instant};

use axum::body::BodyDataStream;
use futures::{FutureExt as _, StreamExt as _};
use http::StatusCode;
use join_proto::v1::LockList;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tonic::Code;
use tower::ServiceExt as _;

use crate::authority::{ask, lines, refusal, request, router_with, send};

#[tokio::test]
async fn a_message_is_a_line() {
    for uri in ["/v1/events:follow?token=t", "/v1/events?token=t&follow=true"] {
        let response = send(request("GET", uri, "")).await;
        assert_eq!(response.status(), StatusCode::OK);
        let lines = lines(response).await;
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["events"][0]["token"], "t");
        assert_eq!(lines[1], json!({"events": [], "cursor": "", "more": false}));
    }
}

#[tokio::test]
async fn an_error_before_the_first_message_is_a_json_error() {
    let (status, json) = ask("GET", "/v1/export?from_index=100", "").await;
    assert_eq!((status, &json["error"]["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("UNAVAILABLE")));
    let (status, json) = ask("GET", "/v1/locks:watch", "").await;
    assert_eq!((status, &json["error"]["code"]), (StatusCode::FORBIDDEN, &json!("ROLE_REQUIRED")));
}

#[tokio::test]
async fn a_later_error_is_the_last_line() {
    let lines = lines(send(request("GET", "/v1/export?from_index=9", "")).await).await;
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0], json!({"entries": [{"log_index": 9, "envelope": "{}"}]}));
    assert_eq!(lines[1], json!({"error": {"code": "UNAVAILABLE", "message": "refused: UNAVAILABLE"}}));
}

async fn next_line(body: &mut BodyDataStream) -> Option<Value> {
    let line = body.next().await?.unwrap();
    assert_eq!(line.last(), Some(&b'\n'));
    Some(serde_json::from_slice(&line).unwrap())
}

fn page(cursor: &str) -> LockList {
    LockList { next_cursor: cursor.to_owned(), ..LockList::default() }
}

#[tokio::test]
async fn messages_go_out_as_they_come() {
    let (sender, receiver) = mpsc::channel(1);
    sender.send(Ok(page("1"))).await.unwrap();
    let response = router_with(Some(receiver)).oneshot(request("GET", "/v1/locks:watch", "")).await.unwrap();
    let mut body = response.into_body().into_data_stream();
    assert_eq!(next_line(&mut body).await.unwrap()["next_cursor"], "1");
    assert!(next_line(&mut body).now_or_never().is_none(), "nothing more was sent");
    sender.send(Ok(page("2"))).await.unwrap();
    assert_eq!(next_line(&mut body).await.unwrap()["next_cursor"], "2");
    sender.send(Err(refusal(Code::Unavailable, "UNAVAILABLE", None, None))).await.unwrap();
    assert_eq!(next_line(&mut body).await.unwrap()["error"]["code"], "UNAVAILABLE");
    assert_eq!(next_line(&mut body).await, None);
}

#[tokio::test]
async fn a_quiet_stream_begins_without_a_message() {
    let (sender, receiver) = mpsc::channel(1);
    let start = Instant::now();
    let response = router_with(Some(receiver)).oneshot(request("GET", "/v1/locks:watch", "")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert!(start.elapsed() < Duration::from_secs(10));
    sender.send(Ok(page("late"))).await.unwrap();
    let mut body = response.into_body().into_data_stream();
    assert_eq!(next_line(&mut body).await.unwrap()["next_cursor"], "late");
}

#[tokio::test]
async fn a_client_that_goes_away_ends_the_stream() {
    let (sender, receiver) = mpsc::channel(1);
    sender.send(Ok(page("1"))).await.unwrap();
    let response = router_with(Some(receiver)).oneshot(request("GET", "/v1/locks:watch", "")).await.unwrap();
    drop(response);
    tokio::time::timeout(Duration::from_secs(10), sender.closed()).await.unwrap();
}
