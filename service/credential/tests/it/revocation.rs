use chrono::TimeDelta;
use join_credential::{
    IssueError, Purpose, Serial,
    crl::{REFRESH, Revoked},
};
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{CertificateRevocationList, FromDer as _, X509Certificate};

use crate::{
    tools::{openssh_line, openssl, pem, ssh_keygen},
    world::{World, assert_names_key_of},
};

fn lists(world: &World, revoked: &[Serial]) -> Vec<Vec<u8>> {
    let revoked: Vec<_> =
        revoked.iter().map(|serial| Revoked { serial: *serial, at: world.now - TimeDelta::minutes(1) }).collect();
    world.issuer.revocation_lists(&revoked, 42, world.now, world.now + REFRESH).unwrap()
}

#[test]
fn the_list_is_signed_by_the_ca_and_names_each_revoked_certificate() {
    let world = World::new();
    let serials = [Serial::from_random([1; 16]), Serial::from_random([2; 16])];
    let lists = lists(&world, &serials);
    assert_eq!(lists.len(), 1);
    let (rest, list) = CertificateRevocationList::from_der(&lists[0]).unwrap();
    assert!(rest.is_empty());
    let (_, ca) = X509Certificate::from_der(world.ca_certificate()).unwrap();
    list.verify_signature(ca.public_key()).unwrap();
    assert_eq!(list.issuer(), ca.subject());
    assert_eq!(list.crl_number().unwrap().to_string(), "42");
    assert_eq!(list.last_update().timestamp(), world.now.timestamp());
    assert_eq!(list.next_update().unwrap().timestamp(), (world.now + TimeDelta::minutes(5)).timestamp());
    let found: Vec<_> = list.iter_revoked_certificates().map(|entry| entry.raw_serial().to_vec()).collect();
    assert_eq!(found, serials.map(|serial| serial.as_bytes().to_vec()));
    assert_names_key_of(list.extensions(), &ca);
}

#[test]
fn a_list_without_entries_is_a_list() {
    let world = World::new();
    let lists = lists(&world, &[]);
    let (_, list) = CertificateRevocationList::from_der(&lists[0]).unwrap();
    assert_eq!(list.iter_revoked_certificates().count(), 0);
}

#[test]
fn a_list_that_is_stale_at_once_is_not_signed() {
    let world = World::new();
    let error = world.issuer.revocation_lists(&[], 1, world.now, world.now).unwrap_err();
    assert!(matches!(error, IssueError::X509(rcgen::Error::InvalidCrlNextUpdate)));
}

#[test]
fn every_trusted_ca_signs_the_whole_list() {
    let mut world = World::new();
    let serial = world.join().serial;
    let old = CertificateDer::from(world.ca_certificate().to_vec());
    world.keys.prepare(Purpose::X509Ca, world.now).unwrap();
    world.keys.activate(Purpose::X509Ca, world.now).unwrap();
    world.reload();
    let lists = lists(&world, &[serial]);
    let cas = [CertificateDer::from(world.ca_certificate().to_vec()), old];
    assert_eq!(lists.len(), 2);
    for (list, ca) in lists.iter().zip(&cas) {
        let (_, list) = CertificateRevocationList::from_der(list).unwrap();
        let (_, ca) = X509Certificate::from_der(ca).unwrap();
        list.verify_signature(ca.public_key()).unwrap();
        assert_eq!(list.iter_revoked_certificates().count(), 1);
    }
}

#[test]
fn openssl_refuses_what_is_on_the_list_and_no_other() {
    let Some(openssl) = openssl() else { return };
    let world = World::new();
    let revoked = world.join();
    let mut other = world.join();
    other.serial = Serial::from_random([3; 16]);
    openssl.file("revoked.pem", pem("CERTIFICATE", &world.issue(&revoked).tls_certificate));
    openssl.file("other.pem", pem("CERTIFICATE", &world.issue(&other).tls_certificate));
    openssl.file("ca.pem", world.issuer.ca_bundle());
    openssl.file("crl.pem", pem("X509 CRL", &lists(&world, &[revoked.serial])[0]));
    let shown = openssl.succeed(&["crl", "-in", "crl.pem", "-CAfile", "ca.pem", "-noout", "-text"]);
    assert!(shown.contains("verify OK") && shown.contains("X509v3 CRL Number"), "{shown}");

    let at = world.now.timestamp().to_string();
    let check = |leaf| {
        let list = ["-CAfile", "ca.pem", "-crl_check", "-CRLfile", "crl.pem"];
        openssl.run(&[&["verify", "-attime", &at], &list[..], &[leaf]].concat())
    };
    let said = check("revoked.pem");
    assert!(!said.success && said.text.contains("certificate revoked"), "{}", said.text);
    let said = check("other.pem");
    assert!(said.success, "{}", said.text);

    let late = (world.now + REFRESH + TimeDelta::seconds(1)).timestamp().to_string();
    let list = ["verify", "-attime", &late, "-CAfile", "ca.pem", "-crl_check", "-CRLfile", "crl.pem", "other.pem"];
    let said = openssl.run(&list);
    assert!(!said.success && said.text.contains("CRL has expired"), "{}", said.text);
}

#[test]
fn the_key_revocation_list_has_the_published_layout() {
    let world = World::new();
    let serials = [Serial::from_random([1; 16]), Serial::from_random([2; 16])];
    let list = world.issuer.key_revocation_list(&serials, 42, world.now);
    let ca = &world.issuer.ssh_ca_keys()[0];
    let string = |bytes: &[u8]| [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
    let serials = [serials[0].ssh().to_be_bytes(), serials[1].ssh().to_be_bytes()].concat();
    let section = [string(ca), string(b""), vec![0x20], string(&serials)].concat();
    let expected = [
        b"SSHKRL\n\0".to_vec(),
        1_u32.to_be_bytes().to_vec(),
        42_u64.to_be_bytes().to_vec(),
        world.now.timestamp().to_be_bytes().to_vec(),
        0_u64.to_be_bytes().to_vec(),
        string(b""),
        string(b"dev.local"),
        vec![1],
        string(&section),
    ];
    assert_eq!(list, expected.concat());
}

#[test]
fn openssh_refuses_what_is_on_the_list_and_no_other() {
    let Some(ssh_keygen) = ssh_keygen() else { return };
    let mut world = World::new();
    let revoked = world.join();
    let mut other = world.join();
    other.serial = Serial::from_random([3; 16]);
    ssh_keygen.file("revoked-cert.pub", openssh_line(&world.issue(&revoked).ssh_certificate));
    ssh_keygen.file("other-cert.pub", openssh_line(&world.issue(&other).ssh_certificate));
    ssh_keygen.file("empty.krl", world.issuer.key_revocation_list(&[], 1, world.now));
    ssh_keygen.succeed(&["-Q", "-f", "empty.krl", "revoked-cert.pub"]);

    world.keys.prepare(Purpose::SshCa, world.now).unwrap();
    world.keys.activate(Purpose::SshCa, world.now).unwrap();
    world.reload();
    ssh_keygen.file("again-cert.pub", openssh_line(&world.issue(&revoked).ssh_certificate));
    let more = Serial::from_random([4; 16]);
    ssh_keygen.file("some.krl", world.issuer.key_revocation_list(&[more, revoked.serial], 2, world.now));
    for certificate in ["revoked-cert.pub", "again-cert.pub"] {
        let said = ssh_keygen.run(&["-Q", "-f", "some.krl", certificate]);
        assert!(!said.success && said.text.contains("REVOKED"), "{certificate}: {}", said.text);
    }
    ssh_keygen.succeed(&["-Q", "-f", "some.krl", "other-cert.pub"]);
}
