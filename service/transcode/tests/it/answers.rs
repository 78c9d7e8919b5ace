//! How messages look in JSON.

use http::StatusCode;
use serde_json::json;

use crate::authority::ask;

#[tokio::test]
async fn a_resource_prints_its_defaults_and_null_for_times() {
    let body = r#"{"metadata": {"labels": {"b": "2", "a": "1"}}, "spec": {"bound_keypair": {"recovery": {"limit": 0}}},
        "status": {"bound_keypair": {"generation": 7}}}"#;
    let (status, token) = ask("POST", "/v1/tokens", body).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        token,
        json!({
            "kind": "", "version": "",
            "metadata": {"name": "", "labels": {"a": "1", "b": "2"}, "expires": null, "revision": ""},
            "spec": {
                "roles": [], "bot_name": "", "join_method": "",
                "bound_keypair": {"recovery": {"limit": 0}, "rotate_after": null},
            },
            "status": {"bound_keypair": {
                "registration_secret": "", "registration_secret_pending": false, "bound_public_key": "",
                "bound_bot_instance_id": "", "recovery_count": 0, "last_recovered_at": null, "last_rotated_at": null,
                "generation": 7, "certificate_expires": null, "contested_at": null, "token_id": "",
            }},
        })
    );
}

#[tokio::test]
async fn whole_numbers_stay_whole() {
    let (_, status) = ask("GET", "/v1/status", "").await;
    assert_eq!(status["log_next_index"], json!(u64::MAX));
    let (_, list) = ask("GET", "/v1/events", "").await;
    assert_eq!(list["events"][0]["version"], json!(9_007_199_254_740_993_u64));
    assert_eq!(list["events"][0]["data"].to_string(), r#"{"half":0.5,"page_size":0,"since":-1}"#);
}

#[tokio::test]
async fn times_are_rfc_3339() {
    let (_, list) = ask("GET", "/v1/events", "").await;
    assert_eq!(list["events"][0]["decided_at"], "2023-11-14T22:13:20.005Z");
    assert_eq!(list["events"][0]["recorded_at"], json!(null));
    assert_eq!(list["events"][0].get("log_index"), None, "absent until the event has one");
}

#[tokio::test]
async fn a_step_of_a_join_has_only_what_is_set() {
    let (_, step) = ask("POST", "/v1/join", r#"{"token": "t"}"#).await;
    assert_eq!(step, json!({"challenge": "t [] []", "continuation": "sealed"}));
    let (_, step) = ask("POST", "/v1/join/continue", "{}").await;
    assert_eq!(step, json!({"rotation_request": {}}));
}
