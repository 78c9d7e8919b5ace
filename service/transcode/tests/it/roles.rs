//! The table of roles.

use http::{Extensions, StatusCode};
use join_proto::{DESCRIPTOR_SET, DESCRIPTORS, v1::Role};
use join_transcode::{Door, Limits, openapi, roles, router};
use prost::Message as _;
use prost_reflect::DescriptorPool;
use prost_types::FileDescriptorSet;

use rstest::rstest;
use tonic::{Status, service::Routes};
use tower::ServiceExt as _;

use crate::authority::{Everybody, bytes, request};

#[test]
fn every_call_has_its_role() {
    let roles = roles(&DESCRIPTORS).unwrap();
    for (path, role) in [
        ("/joinauthority.v1.Ceremony/Open", Role::Anyone),
        ("/joinauthority.v1.Resources/GetBot", Role::Auditor),
        ("/joinauthority.v1.Resources/CreateLock", Role::Operator),
        ("/joinauthority.v1.Resources/Reopen", Role::Admin),
        ("/joinauthority.v1.Ledger/Export", Role::Auditor),
        ("/joinauthority.v1.Cluster/GetCa", Role::Anyone),
    ] {
        assert_eq!(roles.get(path), Some(&role), "{path}");
    }
    assert_eq!(roles.len(), 36);
    assert_eq!(roles.get("/joinauthority.v1.Resources/Nothing"), None);
    assert_eq!(roles.get("/teleport.join.v1.JoinService/Join"), None, "another package");
}

#[test]
fn only_strangers_calls_are_free() {
    let mut free: Vec<String> = roles(&DESCRIPTORS)
        .unwrap()
        .into_iter()
        .filter_map(|(path, role)| (role == Role::Anyone).then_some(path))
        .collect();
    free.sort_unstable();
    let expected =
        ["Ceremony/Continue", "Ceremony/Open", "Cluster/GetCa"].map(|call| format!("/joinauthority.v1.{call}"));
    assert_eq!(free, expected);
}

/// `prost_types` does not know our option and drops it.
#[test]
fn a_method_without_the_option_is_an_error_at_start() {
    let without_options = FileDescriptorSet::decode(DESCRIPTOR_SET).unwrap();
    let pool = DescriptorPool::from_file_descriptor_set(without_options).unwrap();
    let error = roles(&pool).unwrap_err().to_string();
    assert_eq!(
        error,
        "joinauthority.v1.Ceremony.Open: it has none; its option (joinauthority.v1.call) is explained in options.proto"
    );
    assert!(router(&pool, tonic::service::Routes::default(), Everybody, Limits::default()).is_err());
    assert!(openapi(&pool, "t", "v").is_err());
}

/// Turns everybody away, with the role that was asked for.
#[derive(Clone)]
struct Nobody;

impl Door for Nobody {
    async fn admit(&self, role: Role, _: &mut Extensions) -> Result<(), Status> {
        Err(Status::permission_denied(format!("{role:?} only")))
    }
}

#[rstest]
#[case("POST", "/v1/tokens", "Admin only")]
#[case("POST", "/v1/join", "Anyone only")]
#[case("GET", "/v1/bots/example", "Auditor only")]
#[case("HEAD", "/v1/bots/example", "")]
#[case("GET", "/v1/events?follow=true", "Auditor only")]
#[tokio::test]
async fn who_is_turned_away_is_not_read(#[case] verb: &str, #[case] path: &str, #[case] message: &str) {
    let router = router(&DESCRIPTORS, Routes::default(), Nobody, Limits::default()).unwrap();
    let answer = router.oneshot(request(verb, path, "this is not JSON")).await.unwrap();
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    let body = bytes(answer).await;
    let told = serde_json::from_slice::<serde_json::Value>(&body).unwrap_or_default();
    assert_eq!(told["error"]["message"].as_str().unwrap_or_default(), message);
}
