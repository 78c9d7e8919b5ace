//! Which call each route reaches, and that no input breaks the way there.

use std::convert::Infallible;

use axum::body::Body;
use http::{HeaderValue, Request, Response, StatusCode, header};
use join_proto::DESCRIPTORS;
use join_transcode::Limits;
use proptest::prelude::*;
use tower::ServiceExt as _;

use crate::authority::{Everybody, ask, request};

/// A gRPC service that answers everything with an empty message, and its own path in a header.
async fn empty_answer(request: Request<tonic::body::Body>) -> Result<Response<Body>, Infallible> {
    assert_eq!(request.headers()[header::CONTENT_TYPE], "application/grpc");
    seen(request.uri().path());
    let mut response = Response::new(Body::from(&[0u8; 5][..]));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    Ok(response.map(|body| Body::new(http_body_util::BodyExt::with_trailers(body, async { Some(Ok(trailers)) }))))
}

tokio::task_local! {
    static SEEN: std::cell::RefCell<Vec<String>>;
}

fn seen(path: &str) {
    SEEN.with(|seen| seen.borrow_mut().push(path.to_owned()));
}

/// The status, and the gRPC paths that were called.
async fn reach(request: Request<Body>) -> (StatusCode, Vec<String>) {
    let router =
        join_transcode::router(&DESCRIPTORS, tower::service_fn(empty_answer), Everybody, Limits::default()).unwrap();
    SEEN.scope(Default::default(), async {
        let response = router.oneshot(request).await.unwrap();
        (response.status(), SEEN.with(|seen| seen.take()))
    })
    .await
}

const ROUTES: [(&str, &str, &str); 36] = [
    ("POST", "/v1/join", "Ceremony/Open"),
    ("POST", "/v1/join/continue", "Ceremony/Continue"),
    ("GET", "/v1/bots/a", "Resources/GetBot"),
    ("GET", "/v1/bots", "Resources/ListBots"),
    ("POST", "/v1/bots", "Resources/CreateBot"),
    ("PUT", "/v1/bots/a", "Resources/UpsertBot"),
    ("DELETE", "/v1/bots/a", "Resources/DeleteBot"),
    ("GET", "/v1/tokens/a", "Resources/GetToken"),
    ("GET", "/v1/tokens", "Resources/ListTokens"),
    ("POST", "/v1/tokens", "Resources/CreateToken"),
    ("PUT", "/v1/tokens/a", "Resources/UpsertToken"),
    ("DELETE", "/v1/tokens/a", "Resources/DeleteToken"),
    ("POST", "/v1/tokens/a/rotate", "Resources/RotateToken"),
    ("POST", "/v1/tokens/a/reinstate", "Resources/Reinstate"),
    ("POST", "/v1/reinstate", "Resources/ReinstateSelected"),
    ("POST", "/v1/tokens/a/reopen", "Resources/Reopen"),
    ("GET", "/v1/bot_instances/a", "Resources/GetBotInstance"),
    ("GET", "/v1/bot_instances", "Resources/ListBotInstances"),
    ("GET", "/v1/locks/a", "Resources/GetLock"),
    ("GET", "/v1/locks", "Resources/ListLocks"),
    ("POST", "/v1/locks", "Resources/CreateLock"),
    ("PUT", "/v1/locks/a", "Resources/UpsertLock"),
    ("DELETE", "/v1/locks/a", "Resources/DeleteLock"),
    ("GET", "/v1/exemptions/a", "Resources/GetExemption"),
    ("GET", "/v1/exemptions", "Resources/ListExemptions"),
    ("POST", "/v1/exemptions", "Resources/GrantExemption"),
    ("DELETE", "/v1/exemptions/a", "Resources/RevokeExemption"),
    ("GET", "/v1/events", "Ledger/ListEvents"),
    ("GET", "/v1/events:follow", "Ledger/FollowEvents"),
    ("GET", "/v1/tokens/a/replay", "Ledger/Replay"),
    ("GET", "/v1/views", "Ledger/ExportViews"),
    ("GET", "/v1/export", "Ledger/Export"),
    ("GET", "/v1/ca", "Cluster/GetCa"),
    ("GET", "/v1/status", "Cluster/GetStatus"),
    ("GET", "/v1/locks:watch", "Cluster/WatchLocks"),
    ("GET", "/v1/views:verify", "Cluster/VerifyViews"),
];

#[tokio::test]
async fn every_route_reaches_its_call() {
    for (verb, path, call) in ROUTES {
        let body = if verb == "POST" || verb == "PUT" { "{}" } else { "" };
        let reached = reach(request(verb, path, body)).await;
        assert_eq!(reached, (StatusCode::OK, vec![format!("/joinauthority.v1.{call}")]), "{verb} {path}");
    }
}

#[test]
fn every_call_has_a_route() {
    let services = DESCRIPTORS.services().filter(|service| service.package_name() == "joinauthority.v1");
    assert_eq!(services.map(|service| service.methods().len()).sum::<usize>(), ROUTES.len());
}

#[tokio::test]
async fn events_can_be_followed_by_query_too() {
    for (query, call) in [
        ("follow=true", "FollowEvents"),
        ("token=a&follow=true", "FollowEvents"),
        ("follow=false", "ListEvents"),
        ("token=follow", "ListEvents"),
    ] {
        let reached = reach(request("GET", &format!("/v1/events?{query}"), "")).await;
        assert_eq!(reached, (StatusCode::OK, vec![format!("/joinauthority.v1.Ledger/{call}")]), "{query}");
    }
    let (status, json) = ask("GET", "/v1/events?follow=yes", "").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(json["error"]["message"], "query parameter follow: expected `true` or `false`");
}

#[tokio::test]
async fn an_unknown_path_is_not_found() {
    for path in ["/", "/v1", "/v1/bots/", "/v1/bots/a/b", "/v1/events:stop", "/joinauthority.v1.Cluster/GetCa"] {
        let (status, json) = ask("GET", path, "").await;
        assert_eq!((status, &json["error"]["code"]), (StatusCode::NOT_FOUND, &"NOT_FOUND".into()), "{path}");
    }
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones() {
    let response = crate::authority::send(request("PATCH", "/v1/bots/a", "")).await;
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    let allow = response.headers()[header::ALLOW].to_str().unwrap().to_owned();
    let mut allowed: Vec<&str> = allow.split(',').collect();
    allowed.sort_unstable();
    assert_eq!(allowed, ["DELETE", "GET", "HEAD", "PUT"]);
    let json: serde_json::Value = serde_json::from_slice(&crate::authority::bytes(response).await).unwrap();
    assert_eq!(json["error"]["code"], "UNIMPLEMENTED");
}

/// Bodies that come close to what calls expect.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let name = prop::sample::select(vec![
        "spec",
        "metadata",
        "labels",
        "expires",
        "roles",
        "traits",
        "bound_keypair",
        "recovery",
        "limit",
        "token",
        "public_tls_key",
        "held_keys",
        "name",
        "exemption",
        "rotate_after",
        "registrationSecret",
        "",
    ]);
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|value| value.to_string()),
        any::<f64>().prop_map(|value| value.to_string()),
        any::<i64>().prop_map(|value| value.to_string()),
        ".*".prop_map(|text| serde_json::Value::from(text).to_string()),
        "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{1,12})?(Z|[+-][0-9]{2}:[0-9]{2})"
            .prop_map(|time| format!("\"{time}\"")),
    ];
    let json = leaf.prop_recursive(5, 40, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(|all| format!("[{}]", all.join(","))),
            prop::collection::vec((name.clone(), inner), 0..4).prop_map(|all| {
                let members: Vec<String> = all.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    });
    prop_oneof![
        2 => json.prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..200),
        1 => (0usize..200_000).prop_map(|depth| vec![b'['; depth]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn no_input_is_our_fault(
        (verb, path, _) in prop::sample::select(&ROUTES[..]),
        body in body(),
        field in prop::sample::select(vec!["kinds", "since", "at", "page_size", "from_index", "follow", "revision", "x"]),
        value in "([a-zA-Z0-9.:+-]|%[0-9a-f]{2}|[&=%]){0,30}",
        name in "([a-z]|%[0-9a-f]{2}|[:;=@!%]){1,6}",
    ) {
        let uri = format!("{}?{field}={value}", path.replace("/a", &format!("/{name}")));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        for request in [request(verb, &uri, body.clone()), request(verb, path, body)] {
            let (status, _) = runtime.block_on(reach(request));
            prop_assert!(status.is_success() || status.is_client_error(), "{verb} {uri}: {status}");
        }
    }
}
