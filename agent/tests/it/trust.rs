//! Which servers are believed to be the authority.

use join_agent::{
    error::JoinError,
    trust::{Pin, Trust, Untrusted},
};
use join_credential::Purpose;
use rustls_pki_types::CertificateDer;

use crate::{
    authority::Authority,
    host::{Host, TestClock, config},
};

const OTHER_PIN: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

fn ca(authority: &Authority) -> CertificateDer<'static> {
    authority.book().keys.active(Purpose::X509Ca).certificate().unwrap().to_vec().into()
}

#[tokio::test]
async fn another_pin_is_not_believed_and_nothing_is_sent() {
    let mut host = Host::new().await;
    host.config.trust.pins = vec![OTHER_PIN.parse().unwrap()];
    let error = host.agent().join_once().await.unwrap_err();
    let presented = host.authority.pin();
    assert!(matches!(&error, JoinError::Untrusted(Untrusted::UnknownCa(pins)) if *pins == [presented]), "{error}");
    assert!(error.to_string().contains(&presented.to_string()), "{error}");
    says_where_a_pin_comes_from(&error);
    assert_eq!(host.authority.book().streams, 0);
}

#[tokio::test]
async fn one_fitting_pin_among_others_is_enough() {
    let mut host = Host::new().await;
    host.config.trust.pins.insert(0, OTHER_PIN.parse().unwrap());
    host.agent().join_once().await.unwrap();
}

#[tokio::test]
async fn a_ca_certificate_is_enough() {
    let mut host = Host::new().await;
    host.config.trust = Trust { pins: Vec::new(), cas: vec![ca(&host.authority)] };
    host.agent().join_once().await.unwrap();

    let other = Authority::start(TestClock::default()).await;
    host.config.trust.cas = vec![ca(&other)];
    let stranger = host.agent_on(std::sync::Arc::new(join_agent::storage::Memory::default())).join_once().await;
    assert!(matches!(stranger, Err(JoinError::Untrusted(_))));
}

#[tokio::test]
async fn a_first_contact_without_anything_to_trust_is_refused() {
    let mut host = Host::new().await;
    host.config.trust = Trust::default();
    let error = host.agent().join_once().await.unwrap_err();
    assert!(matches!(error, JoinError::NoTrust), "{error}");
    says_where_a_pin_comes_from(&error);
    assert!(error.to_string().contains("`ca_pins`"), "{error}");

    host.config.from_uri = true;
    let error = host.agent().join_once().await.unwrap_err();
    says_where_a_pin_comes_from(&error);
    assert!(error.to_string().contains("the join URI lacks `ca-pin=…`"), "{error}");
    assert!(!error.to_string().contains("ca_pins"), "there is no such key without a file: {error}");
    assert_eq!(host.authority.book().streams, 0);
}

#[test]
fn a_wrong_pin_is_told_where_a_right_one_comes_from() {
    for text in ["", "sha256:", "sha256:00", "0000000000000000000000000000000000000000000000000000000000000000"] {
        says_where_a_pin_comes_from(text.parse::<Pin>().unwrap_err());
    }
}

fn says_where_a_pin_comes_from(error: impl std::fmt::Display) {
    let text = error.to_string();
    for word in ["`joind dev`", "`joind serve`", "`ca-pin=sha256:…`", "line `ready`", "joining URI"] {
        assert!(text.contains(word), "{text}");
    }
}

#[tokio::test]
async fn a_bot_that_slept_through_a_rotation_of_the_ca_finds_in() {
    let host = Host::new().await;
    let pinned = host.authority.pin();
    host.agent().join_once().await.unwrap();
    host.authority.rotate_ca();
    assert_ne!(host.authority.pin(), pinned);
    let renewed = host.agent().join_once().await.unwrap();
    assert!(renewed.presented_certificate);
    assert_eq!(host.agent().state().unwrap().accepted.unwrap().credentials.tls_cas.len(), 2);
}

#[tokio::test]
async fn a_new_bot_with_an_old_pin_finds_in_after_a_rotation_of_the_ca() {
    let host = Host::new().await;
    host.authority.rotate_ca();
    host.agent().join_once().await.unwrap();
}

#[tokio::test]
async fn a_bot_without_pins_goes_on_with_the_stored_cas() {
    let mut host = Host::new().await;
    host.agent().join_once().await.unwrap();
    host.config.trust = Trust::default();
    host.authority.rotate_ca();
    host.agent().join_once().await.unwrap();
    host.authority.rotate_ca();
    host.agent().join_once().await.unwrap();
}

#[tokio::test]
async fn a_certificate_for_another_host_is_refused() {
    let authority = Authority::start_as(TestClock::default(), &["elsewhere.example"]).await;
    let mut host = Host::new().await;
    host.config = config(&authority);
    let error = host.agent().join_once().await.unwrap_err();
    assert!(matches!(error, JoinError::Certificate(_)), "{error}");
    let told =
        "it is for elsewhere.example, not for 127.0.0.1: use one of these, or let 127.0.0.1 be added to `public_";
    assert!(error.to_string().contains(told), "{error}");
    assert_eq!(authority.book().streams, 0);
}

#[tokio::test]
async fn a_server_that_names_no_cluster_is_refused() {
    use rcgen::{CertificateParams, Issuer, KeyPair};
    let ca_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &Issuer::from_params(&params, &ca_key)).unwrap();

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut host = Host::new().await;
    host.config.authority = listener.local_addr().unwrap().to_string().parse().unwrap();
    host.config.trust.pins = vec![Pin::of(ca.der()).unwrap()];
    let tls = rustls::ServerConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone(), ca.der().clone()],
            rustls_pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )
        .unwrap();
    tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let _ = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(tls)).accept(tcp).await;
    });
    let error = host.agent().join_once().await.unwrap_err();
    assert!(matches!(error, JoinError::Untrusted(Untrusted::NotAnAuthority)), "{error}");
}

#[tokio::test]
async fn a_storage_serves_one_token_of_one_cluster() {
    let mut host = Host::new().await;
    host.agent().join_once().await.unwrap();
    host.config.token = "another".parse().unwrap();
    let streams = host.authority.book().streams;
    let error = host.agent().join_once().await.unwrap_err();
    assert!(matches!(error, JoinError::OtherIdentity { .. }), "{error}");
    assert_eq!(host.authority.book().streams, streams);
}

#[tokio::test]
async fn nobody_at_the_address_is_a_reason_to_try_again() {
    let mut host = Host::new().await;
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    host.config.authority = free.to_string().parse().unwrap();
    let error = host.agent().join_once().await.unwrap_err();
    assert_eq!(error.next(), join_agent::error::Next::Retry);
    assert!(error.to_string().contains(&free.to_string()), "{error}");
}
