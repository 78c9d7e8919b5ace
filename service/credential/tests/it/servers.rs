use std::time::Duration;

use chrono::TimeDelta;
use join_credential::{IssueError, Purpose, pin::ca_pin};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert, aws_lc_rs::ECDSA_P256_SHA256};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::{
    tools::{openssl, pem},
    world::World,
};

/// A client that trusts one CA, and takes the rest of the chain as it comes.
fn trusts(ca: &[u8], chain: &[CertificateDer<'_>], server: &str, world: &World) -> Result<(), webpki::Error> {
    let ca = CertificateDer::from(ca);
    let anchors = [anchor_from_trusted_cert(&ca)?];
    let leaf = EndEntityCert::try_from(&chain[0])?;
    let now = UnixTime::since_unix_epoch(Duration::from_secs(world.now.timestamp() as u64));
    let (algorithms, usage) = (&[ECDSA_P256_SHA256], KeyUsage::server_auth());
    leaf.verify_for_usage(algorithms, &anchors, &chain[1..], now, usage, None, None)?;
    leaf.verify_is_valid_for_subject_name(&ServerName::try_from(server).unwrap())
}

#[test]
fn a_server_is_known_by_its_names_addresses_and_cluster() {
    let world = World::new();
    let names = ["localhost".to_owned(), "127.0.0.1".into(), "::1".into(), "join.example.com".into()];
    let server = world.issuer.generate_server_identity(&names, world.now).unwrap();
    for name in &names {
        trusts(world.ca_certificate(), &server.chain, name, &world).unwrap();
    }
    assert!(trusts(world.ca_certificate(), &server.chain, "example.com", &world).is_err());
    assert!(trusts(World::new().ca_certificate(), &server.chain, "localhost", &world).is_err());
    assert_eq!(server.not_after, world.now + TimeDelta::days(30));
    let leaf = EndEntityCert::try_from(&server.chain[0]).unwrap();
    assert_eq!(leaf.valid_uri_names().collect::<Vec<_>>(), ["spiffe://dev.local/authority"]);
    assert_eq!(server.chain[1].as_ref(), world.ca_certificate(), "pins are looked for in the chain");
}

#[test]
fn a_name_that_is_none_is_named() {
    let world = World::new();
    for wrong in ["", "two words", "https://join.example.com", "host:3025"] {
        let error = world.issuer.generate_server_identity(&["localhost".into(), wrong.into()], world.now).unwrap_err();
        assert!(matches!(&error, IssueError::ServerName(name) if name == wrong), "{error}");
    }
}

#[test]
fn who_knows_only_an_old_ca_finds_in_after_two_rotations() {
    let mut world = World::new();
    let mut known = vec![world.ca_certificate().to_vec()];
    for _ in 0..2 {
        world.keys.prepare(Purpose::X509Ca, world.now).unwrap();
        world.keys.activate(Purpose::X509Ca, world.now).unwrap();
        world.reload();
        known.push(world.ca_certificate().to_vec());
    }
    let server = world.issuer.generate_server_identity(&["localhost".into()], world.now).unwrap();
    for ca in &known {
        trusts(ca, &server.chain, "localhost", &world).unwrap();
        assert!(server.chain.iter().any(|in_chain| ca_pin(in_chain) == ca_pin(ca)), "the pin is found too");
    }

    let cross = world.issuer.cross_certificates();
    assert_eq!(cross.len(), 2);
    let (_, new) = X509Certificate::from_der(&known[2]).unwrap();
    for (cross, old) in cross.iter().zip(&known) {
        let (_, cross) = X509Certificate::from_der(cross).unwrap();
        let (_, old) = X509Certificate::from_der(old).unwrap();
        cross.verify_signature(Some(old.public_key())).unwrap();
        assert_eq!((cross.issuer(), cross.subject()), (old.subject(), new.subject()));
        assert_eq!(cross.public_key(), new.public_key());
        assert!(cross.is_ca());
        assert!(cross.validity().not_after <= old.validity().not_after);
    }
    // Another node serves the same certificates.
    let first: Vec<_> =
        cross.iter().map(|der| X509Certificate::from_der(der).unwrap().1.raw_serial().to_vec()).collect();
    world.reload();
    let again = world.issuer.cross_certificates();
    let again: Vec<_> =
        again.iter().map(|der| X509Certificate::from_der(der).unwrap().1.raw_serial().to_vec()).collect();
    assert_eq!(first, again);
}

#[test]
fn a_ca_on_standby_is_handed_out_but_certifies_nobody() {
    let mut world = World::new();
    let active = world.ca_certificate().to_vec();
    let standby = world.keys.prepare(Purpose::X509Ca, world.now).unwrap().certificate().unwrap().to_vec();
    world.reload();
    let handed_out: Vec<_> = world.issuer.tls_ca_certificates().iter().map(|ca| ca.to_vec()).collect();
    assert_eq!(handed_out, [active.clone(), standby]);
    assert!(world.issuer.cross_certificates().is_empty());
    let join = world.join();
    let certificate = world.issue(&join).tls_certificate;
    let (_, certificate) = X509Certificate::from_der(&certificate).unwrap();
    let (_, active) = X509Certificate::from_der(&active).unwrap();
    certificate.verify_signature(Some(active.public_key())).unwrap();
}

#[test]
fn openssl_follows_the_cross_certificate() {
    let Some(openssl) = openssl() else { return };
    let mut world = World::new();
    openssl.file("old.pem", pem("CERTIFICATE", world.ca_certificate()));
    world.keys.prepare(Purpose::X509Ca, world.now).unwrap();
    world.keys.activate(Purpose::X509Ca, world.now).unwrap();
    world.reload();
    let server = world.issuer.generate_server_identity(&["localhost".into()], world.now).unwrap();
    openssl.file("leaf.pem", pem("CERTIFICATE", &server.chain[0]));
    let rest: String = server.chain[1..].iter().map(|der| pem("CERTIFICATE", der)).collect();
    openssl.file("rest.pem", rest);
    openssl.file("new.pem", pem("CERTIFICATE", world.ca_certificate()));
    let at = world.now.timestamp().to_string();
    let verify = |ca: &str| {
        let strict = ["verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", "localhost"];
        openssl.succeed(&[&strict[..], &["-attime", &at, "-CAfile", ca, "-untrusted", "rest.pem", "leaf.pem"]].concat())
    };
    verify("old.pem");
    verify("new.pem");
}

#[test]
fn a_pin_is_the_hash_of_the_ca_key() {
    let world = World::new();
    let pin = ca_pin(world.ca_certificate()).unwrap();
    let digits = pin.strip_prefix("sha256:").unwrap();
    assert!(digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)), "{pin}");
    assert_ne!(pin, ca_pin(World::new().ca_certificate()).unwrap());
    assert!(ca_pin(b"rubbish").is_err());

    let Some(openssl) = openssl() else { return };
    openssl.file("ca.pem", world.issuer.ca_bundle());
    openssl.succeed(&["x509", "-in", "ca.pem", "-pubkey", "-noout", "-out", "key.pem"]);
    openssl.succeed(&["pkey", "-pubin", "-in", "key.pem", "-outform", "DER", "-out", "key.der"]);
    let hash = openssl.succeed(&["dgst", "-sha256", "-r", "key.der"]);
    assert!(hash.starts_with(digits), "{hash}");
}
