use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use chrono::TimeDelta;
use join_credential::{IssueError, Purpose, Serial};
use join_domain::{id::InstanceId, proof::JoinState};
use ssh_key::certificate::CertType;
use uuid::Uuid;
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer as _, X509Certificate},
};

use crate::{
    tools::{openssh_line, openssl, pem, ssh_keygen},
    world::{World, assert_names_key_of, name},
};

fn parse(der: &[u8]) -> X509Certificate<'_> {
    let (rest, certificate) = X509Certificate::from_der(der).unwrap();
    assert!(rest.is_empty());
    certificate
}

#[test]
fn the_ca_certificate_is_a_ca_of_this_cluster_for_ten_years() {
    let world = World::new();
    let ca = parse(world.ca_certificate());
    ca.verify_signature(None).unwrap();
    let kid = world.keys.active(Purpose::X509Ca).kid();
    assert_eq!(ca.subject().to_string(), format!("CN=dev.local, serialNumber={kid}"));
    assert_eq!(ca.subject(), ca.issuer());
    let constraints = ca.basic_constraints().unwrap().unwrap();
    assert!(constraints.critical && constraints.value.ca);
    let usage = ca.key_usage().unwrap().unwrap();
    assert!(usage.critical && usage.value.key_cert_sign() && usage.value.crl_sign());
    let names = &ca.subject_alternative_name().unwrap().unwrap().value.general_names;
    assert_eq!(names, &[GeneralName::URI("spiffe://dev.local")]);
    assert_eq!(ca.validity().not_after.timestamp(), (world.now + TimeDelta::days(3650)).timestamp());
    assert!(ca.validity().not_before.timestamp() < world.now.timestamp());
}

#[test]
fn the_client_certificate_says_what_was_recorded() {
    let world = World::new();
    let join = world.join();
    let der = world.issue(&join).tls_certificate;
    let certificate = parse(&der);
    let ca = parse(world.ca_certificate());

    certificate.verify_signature(Some(ca.public_key())).unwrap();
    assert_eq!(certificate.issuer(), ca.subject());
    assert_eq!(certificate.subject().to_string(), "CN=bot-miner");
    assert_eq!(certificate.raw_serial(), join.serial.as_bytes());
    assert_eq!(certificate.validity().not_before.timestamp(), join.not_before.timestamp());
    assert_eq!(certificate.validity().not_after.timestamp(), join.not_after.timestamp());
    assert!(!certificate.is_ca());

    let names = &certificate.subject_alternative_name().unwrap().unwrap().value.general_names;
    let uri = format!("spiffe://dev.local/bot/miner/{}", join.instance);
    assert_eq!(names, &[GeneralName::URI(&uri)]);
    let usage = certificate.key_usage().unwrap().unwrap();
    assert!(usage.critical);
    assert_eq!(usage.value.flags, 1, "digital signature and nothing else");
    let extended = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(extended.client_auth && extended.server_auth && !extended.any && !extended.code_signing);

    let own = certificate.extensions().iter().find(|e| e.oid.to_id_string() == "2.25.424518259384859741").unwrap();
    assert!(!own.critical);
    let (_, text) = x509_parser::asn1_rs::Utf8String::from_der(own.value).unwrap();
    assert_eq!(
        text.as_ref(),
        format!(
            r#"{{"token_id":"{}","bot":"miner","instance":"{}","generation":7,"roles":["deployer","reader"]}}"#,
            join.token, join.instance
        )
    );

    assert_names_key_of(certificate.extensions(), &ca);
}

#[test]
fn openssl_reads_and_verifies_the_client_certificate() {
    let Some(openssl) = openssl() else { return };
    let world = World::new();
    let mut join = world.join();
    // The longest name there is: with its prefix it is longer than the 64 characters of RFC 5280's upper bound.
    join.bot = name(&"m".repeat(63));
    let leaf = openssl.file("leaf.pem", pem("CERTIFICATE", &world.issue(&join).tls_certificate));
    openssl.file("ca.pem", world.issuer.ca_bundle());
    let at = world.now.timestamp().to_string();
    let verify = ["verify", "-x509_strict", "-purpose", "sslclient", "-attime", &at, "-CAfile", "ca.pem", "leaf.pem"];
    openssl.succeed(&verify);
    let text = openssl.succeed(&["x509", "-noout", "-text", "-in", leaf.to_str().unwrap()]);
    for expected in [
        &format!("CN = bot-{}", join.bot),
        &format!("URI:spiffe://dev.local/bot/{}/{}", join.bot, join.instance),
        "TLS Web Client Authentication, TLS Web Server Authentication",
        "Not After : Mar  1 13:00:00 2026 GMT",
        "2.25.424518259384859741",
        "6b:ab:ab:ab:ab:ab:ab:ab:ab:ab:ab:ab:ab:ab:ab:ab",
    ] {
        assert!(text.contains(expected), "{expected} is not in {text}");
    }
}

#[test]
fn the_ssh_certificate_says_what_was_recorded() {
    let world = World::new();
    let join = world.join();
    let wire = world.issue(&join).ssh_certificate;
    let certificate = ssh_key::Certificate::from_bytes(&wire).unwrap();
    assert_eq!(certificate.cert_type(), CertType::User);
    assert_eq!(certificate.key_id(), format!("bot-miner instance={} generation=7", join.instance));
    assert_eq!(certificate.serial(), 0x6bab_abab_abab_abab);
    assert_eq!(certificate.valid_principals(), ["deploy", "root"]);
    assert_eq!(certificate.valid_after(), join.not_before.timestamp() as u64);
    assert_eq!(certificate.valid_before(), join.not_after.timestamp() as u64);
    assert!(certificate.critical_options().is_empty());
    let extensions: Vec<_> = certificate.extensions().keys().map(String::as_str).collect();
    assert_eq!(extensions, ["permit-agent-forwarding", "permit-port-forwarding", "permit-pty"]);

    let ca = ssh_key::PublicKey::from_bytes(&world.issuer.ssh_ca_keys()[0]).unwrap();
    assert_eq!(certificate.signature_key(), ca.key_data());
    let (signed, signature) = wire.split_at(wire.len() - 4 - certificate.signature().as_bytes().len() - 4 - 11 - 4);
    assert!(signature.windows(11).any(|window| window == b"ssh-ed25519"));
    UnparsedPublicKey::new(&ED25519, world.keys.active(Purpose::SshCa).public_key().unwrap().raw())
        .verify(signed, certificate.signature().as_bytes())
        .unwrap();
}

#[test]
fn openssh_reads_the_ssh_certificate() {
    let Some(ssh_keygen) = ssh_keygen() else { return };
    let world = World::new();
    let join = world.join();
    ssh_keygen.file("key-cert.pub", openssh_line(&world.issue(&join).ssh_certificate));
    let text = ssh_keygen.succeed(&["-L", "-f", "key-cert.pub"]);
    let ca = ssh_key::PublicKey::from_bytes(&world.issuer.ssh_ca_keys()[0]).unwrap();
    for expected in [
        "Type: ecdsa-sha2-nistp256-cert-v01@openssh.com user certificate",
        &format!("Signing CA: ED25519 {}", ca.fingerprint(ssh_key::HashAlg::Sha256)),
        &format!("Key ID: \"bot-miner instance={} generation=7\"", join.instance),
        &format!("Serial: {}", join.serial.ssh()),
        "deploy",
        "permit-pty",
    ] {
        assert!(text.contains(expected), "{expected} is not in {text}");
    }
}

#[test]
fn a_bot_without_principals_gets_one_that_no_host_grants() {
    let world = World::new();
    let mut join = world.join();
    join.principals.clear();
    let certificate = ssh_key::Certificate::from_bytes(&world.issue(&join).ssh_certificate).unwrap();
    assert_eq!(certificate.valid_principals(), ["-bot-miner"]);
}

#[test]
fn the_join_state_is_the_recorded_one_and_names_its_key() {
    let world = World::new();
    let join = world.join();
    let document = world.issue(&join).join_state;
    let opened = JoinState::open(document.as_bytes(), world.keys.cluster(), |kid| {
        assert_eq!(kid, world.keys.active(Purpose::JoinState).kid());
        world.keys.join_state_key(kid)
    });
    assert_eq!(opened, Ok(join.join_state));
}

#[test]
fn the_join_state_of_the_active_key_is_read_back_and_nothing_else_is() {
    let world = World::new();
    let join = world.join();
    let document = world.issue(&join).join_state;
    assert_eq!(world.issuer.read_own_join_state(document.as_bytes()), Some(join.join_state.clone()));

    let (signed, signature) = document.rsplit_once('.').unwrap();
    let (header, claims) = signed.split_once('.').unwrap();
    let other = World::new();
    for forged in [
        String::new(),
        signed.to_owned(),
        format!("{signed}."),
        format!("{document}="),
        format!("{document}."),
        format!(" {document}"),
        format!("{header}..{signature}"),
        format!("{header}.{claims}A.{signature}"),
        format!("{header}.{}.{signature}", claims.replacen('J', "K", 1)),
        format!("{signed}.{}", signature.chars().rev().collect::<String>()),
        format!("{signed}.{}", &signature[1..]),
        other.issue(&join).join_state,
        document.repeat(100),
    ] {
        assert_eq!(world.issuer.read_own_join_state(forged.as_bytes()), None, "{forged}");
    }
    for index in 0..document.len() {
        let mut bytes = document.clone().into_bytes();
        bytes[index] ^= 1;
        assert_eq!(world.issuer.read_own_join_state(&bytes), None, "another byte at {index}");
    }
}

#[test]
fn issuing_again_gives_the_same_credentials() {
    let world = World::new();
    let join = world.join();
    let (first, again) = (world.issue(&join), world.issue(&join));
    assert_eq!(first.ssh_certificate, again.ssh_certificate);
    assert_eq!(first.join_state, again.join_state);
    let (first, again) = (parse(&first.tls_certificate), parse(&again.tls_certificate));
    assert_eq!(first.tbs_certificate.as_ref(), again.tbs_certificate.as_ref(), "all but the ECDSA signature");
}

#[test]
fn fractions_of_a_second_are_dropped_alike() {
    let world = World::new();
    let mut join = world.join();
    let whole = join.not_after;
    join.not_after = whole + TimeDelta::milliseconds(999);
    let credentials = world.issue(&join);
    assert_eq!(parse(&credentials.tls_certificate).validity().not_after.timestamp(), whole.timestamp());
    let ssh = ssh_key::Certificate::from_bytes(&credentials.ssh_certificate).unwrap();
    assert_eq!(ssh.valid_before(), whole.timestamp() as u64);
}

#[test]
fn other_grants_give_other_certificates() {
    let world = World::new();
    let join = world.join();
    let first = world.issue(&join);
    let mut other = world.join();
    other.subject = join.subject.clone();
    other.instance = InstanceId(Uuid::from_u128(9));
    assert_ne!(world.issue(&other).ssh_certificate, first.ssh_certificate);
    other.instance = join.instance;
    other.serial = Serial::from_random([1; 16]);
    assert_ne!(world.issue(&other).ssh_certificate, first.ssh_certificate);
}

#[test]
fn a_life_that_ends_before_it_begins_is_not_signed() {
    let world = World::new();
    let mut join = world.join();
    join.not_after = join.not_before - TimeDelta::seconds(1);
    assert!(matches!(world.issuer.issue(&join.grant()), Err(IssueError::Validity { .. })));
}

#[test]
fn serial_numbers_have_one_form() {
    for bits in [[0; 16], [0xff; 16], [0x80; 16]] {
        let serial = Serial::from_random(bits);
        assert_eq!(serial.to_string().len(), 32);
        assert_eq!(serial.to_string().parse(), Ok(serial));
        assert_eq!(Serial::from_bytes(serial.as_bytes()), Some(serial));
        assert_ne!(serial.ssh(), 0);
    }
    for wrong in ["", "00", &"00".repeat(16), &"ff".repeat(16), &"4g".repeat(16), &"40".repeat(17)] {
        assert!(wrong.parse::<Serial>().is_err(), "{wrong}");
    }
}
