//! How path, query and body become the request of a call.

use axum::body::Body;
use http::{Request, StatusCode, header};
use rstest::rstest;
use serde_json::json;

use crate::authority::{Peer, ask, bytes, request, send};

#[tokio::test]
async fn the_body_is_the_field_that_the_option_names() {
    let body = r#"{"kind": "bot", "spec": {"roles": ["deploy"], "traits": [{"name": "logins", "values": ["root"]}]}}"#;
    let (status, bot) = ask("PUT", "/v1/bots/build%20er", body).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(bot["metadata"]["name"], "build er");
    assert_eq!(bot["spec"], json!({"roles": ["deploy"], "traits": [{"name": "logins", "values": ["root"]}]}));
}

#[tokio::test]
async fn path_and_body_make_one_request() {
    let (status, token) = ask("POST", "/v1/tokens/example/reopen", r#"{"reason": "new disk"}"#).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!((&token["metadata"]["name"], &token["kind"]), (&json!("example"), &json!("new disk")));

    let (status, _) = ask("POST", "/v1/tokens/example/reopen", r#"{"name": "example"}"#).await;
    assert_eq!(status, StatusCode::OK);
    let (status, _) = ask("POST", "/v1/tokens/example/reopen", "").await;
    assert_eq!(status, StatusCode::OK, "a body with nothing to say may be left out");
}

#[tokio::test]
async fn a_query_fills_the_fields_that_are_not_in_the_path() {
    let uri = "/v1/events?token=a%26b&kinds=join.accepted&kinds=join.refused&since=2023-11-14T22:13:20Z&page_size=3";
    let (status, list) = ask("GET", uri, "").await;
    assert_eq!(status, StatusCode::OK);
    let event = &list["events"][0];
    assert_eq!((&event["token"], &event["kind"]), (&json!("a&b"), &json!("join.accepted+join.refused")));
    assert_eq!(event["data"].to_string(), r#"{"half":0.5,"page_size":3,"since":1700000000}"#);

    assert_eq!(ask("DELETE", "/v1/bots/a?revision=new", "").await, (StatusCode::OK, json!({})));
    assert_eq!(ask("DELETE", "/v1/bots/a?revision=old", "").await.0, StatusCode::CONFLICT);
}

#[tokio::test]
async fn bytes_are_base64_and_null_is_unset() {
    let body = r#"{"token": "t", "public_tls_key": "AQID", "held_keys": ["k"], "join_state": null}"#;
    let (_, step) = ask("POST", "/v1/join", body).await;
    assert_eq!(step["challenge"], r#"t [1, 2, 3] ["k"]"#);
}

#[tokio::test]
async fn extensions_and_headers_reach_the_service() {
    let request = Request::get("/v1/ca")
        .extension(Peer("bot-example"))
        .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        .header("x-request-id", "r-1")
        .header("grpc-encoding", "gzip")
        .header("content-length", "0")
        .header("te", "gzip")
        .body(Body::empty())
        .unwrap();
    let ca: serde_json::Value = serde_json::from_slice(&bytes(send(request).await).await).unwrap();
    assert_eq!(ca["cluster_name"], "bot-example");
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    assert_eq!(ca["pins"], json!([traceparent, "r-1", "-", "-", "trailers"]));
}

#[rstest]
#[case::unknown(
    "POST",
    "/v1/tokens",
    r#"{"spec": {"bot_nam": "a"}}"#,
    "spec: unrecognized field name 'bot_nam' at line 1 column 19; allowed: roles, bot_name, join_method, bound_keypair"
)]
#[case::unknown_at_the_top(
    "POST",
    "/v1/join",
    r#"{"tokn": "a"}"#,
    "the body: unrecognized field name 'tokn' at line 1 column 7; allowed: token, attempt_id, registration_secret, join_state, public_tls_key, public_ssh_key, held_keys, ttl"
)]
#[case::in_a_list(
    "PUT",
    "/v1/bots/a",
    r#"{"spec": {"traits": [{"name": "a"}, {"nam": "b"}]}}"#,
    "spec.traits[1]: unrecognized field name 'nam' at line 1 column 42; allowed: name, values"
)]
#[case::type_mismatch(
    "POST",
    "/v1/tokens",
    r#"{"spec": {"bound_keypair": {"recovery": {"limit": -1}}}}"#,
    "spec.bound_keypair.recovery.limit: out of range integral type conversion attempted at line 1 column 52; its type is uint32"
)]
#[case::secret_in_the_wrong_place(
    "POST",
    "/v1/tokens",
    r#"{"spec": "hunter2"}"#,
    "spec: expected a map at line 1 column 18; allowed: roles, bot_name, join_method, bound_keypair"
)]
#[case::time(
    "POST",
    "/v1/tokens",
    r#"{"metadata": {"expires": "tomorrow"}}"#,
    "metadata.expires: invalid rfc3339 timestamp: invalid date at line 1 column 35"
)]
#[case::label(
    "POST",
    "/v1/tokens",
    r#"{"metadata": {"labels": {"team": 5}}}"#,
    "metadata.labels.team: expected a string at line 1 column 34"
)]
#[case::not_an_object(
    "POST",
    "/v1/tokens",
    "[]",
    "the body: expected a map at line 1 column 0; allowed: kind, version, metadata, spec, status"
)]
#[case::syntax("POST", "/v1/tokens", r#"{"kind": }"#, "kind: expected value at line 1 column 10")]
#[case::trailing("POST", "/v1/tokens", "{} {}", "the body: trailing characters at line 1 column 4")]
#[case::no_body("PUT", "/v1/bots/a", "", "the body: EOF while parsing a value at line 1 column 0")]
#[case::path_against_body("POST", "/v1/tokens/a/reopen", r#"{"name": "b"}"#, "name: path and body differ")]
#[case::body_of_a_delete(
    "DELETE",
    "/v1/bots/a",
    r#"{"revision": "1"}"#,
    "DELETE /v1/bots/{name} takes no body, only a query"
)]
#[case::unknown_parameter(
    "GET",
    "/v1/bots?limit=3",
    "",
    "query parameter limit: unknown; allowed: selector, page_size, cursor, at"
)]
#[case::no_parameters("GET", "/v1/ca?x=1", "", "query parameter x: unknown; nothing is allowed here")]
#[case::path_field_in_the_query("DELETE", "/v1/bots/a?name=b", "", "query parameter name: unknown; allowed: revision")]
#[case::query_of_a_post(
    "POST",
    "/v1/tokens/a/reopen?reason=x",
    "",
    "query parameter reason: unknown; nothing is allowed here"
)]
#[case::twice("GET", "/v1/bots?cursor=a&cursor=b", "", "query parameter cursor: given twice")]
#[case::not_a_number("GET", "/v1/bots?page_size=many", "", "query parameter page_size: not a value of type uint32")]
#[case::too_large(
    "GET",
    "/v1/bots?page_size=4294967296",
    "",
    "page_size: out of range integral type conversion attempted; its type is uint32"
)]
#[case::bad_time("GET", "/v1/bots/a?at=now", "", "at: invalid rfc3339 timestamp: invalid date")]
#[case::path_encoding("GET", "/v1/bots/%ff", "", "the path: Invalid UTF-8 in `name`")]
#[tokio::test]
async fn what_is_wrong_is_named(#[case] verb: &str, #[case] uri: &str, #[case] body: &'static str, #[case] says: &str) {
    let expected = json!({"error": {"code": "INVALID_REQUEST", "message": says}});
    assert_eq!(ask(verb, uri, body).await, (StatusCode::BAD_REQUEST, expected));
}

#[rstest]
#[case::strangers("POST", "/v1/join", 64 << 10)]
#[case::administrators("POST", "/v1/tokens", 1 << 20)]
#[tokio::test]
async fn a_body_may_be_so_large(#[case] verb: &str, #[case] uri: &str, #[case] limit: usize) {
    let fits = format!("{{}}{}", " ".repeat(limit - 2));
    assert_eq!(ask(verb, uri, fits.clone()).await.0, StatusCode::OK);
    let (status, json) = ask(verb, uri, format!("{fits} ")).await;
    assert_eq!((status, &json["error"]["code"]), (StatusCode::BAD_REQUEST, &json!("INVALID_REQUEST")));
    assert_eq!(json["error"]["message"], format!("the body is larger than the {limit} bytes that are allowed"));
}

#[rstest]
#[case("application/json", StatusCode::OK)]
#[case("Application/JSON; charset=utf-8", StatusCode::OK)]
#[case("application/x-www-form-urlencoded", StatusCode::UNSUPPORTED_MEDIA_TYPE)]
#[case("application/jsonp", StatusCode::UNSUPPORTED_MEDIA_TYPE)]
#[case("", StatusCode::UNSUPPORTED_MEDIA_TYPE)]
#[tokio::test]
async fn a_body_is_json_or_refused(#[case] content_type: &'static str, #[case] expected: StatusCode) {
    let mut request = request("POST", "/v1/join", "{}");
    request.headers_mut().insert(header::CONTENT_TYPE, content_type.parse().unwrap());
    let response = send(request).await;
    assert_eq!(response.status(), expected);
    let json: serde_json::Value = serde_json::from_slice(&bytes(response).await).unwrap();
    assert_eq!(json["error"]["code"] == "INVALID_REQUEST", expected != StatusCode::OK);
}
