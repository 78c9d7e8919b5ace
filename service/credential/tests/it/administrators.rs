use std::{fs, os::unix::fs::PermissionsExt as _};

use chrono::TimeDelta;
use join_credential::{
    Role, Serial,
    administrator::{AdministratorGrant, WriteError},
};
use join_domain::id::Name;

use crate::{tools::openssl, world::World};

pub(crate) fn grant(world: &World) -> AdministratorGrant<'static> {
    static ALICE: std::sync::LazyLock<Name> = std::sync::LazyLock::new(|| "alice".parse().unwrap());
    AdministratorGrant {
        name: &ALICE,
        role: Role::Operator,
        serial: Serial::from_random([0x11; 16]),
        not_before: world.now,
        not_after: world.now + TimeDelta::days(365),
    }
}

#[test]
fn an_identity_is_three_private_files() {
    let world = World::new();
    let identity = world.issuer.generate_administrator(&grant(&world)).unwrap();
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("deep").join("identity");
    identity.write(&directory).unwrap();
    let mode = |name: &str| fs::metadata(directory.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(""), 0o700);
    assert_eq!(mode("tls.key"), 0o600);
    assert_eq!(fs::read_to_string(directory.join("tls.key")).unwrap(), identity.key());
    assert_eq!(fs::read_to_string(directory.join("tls.crt")).unwrap(), identity.certificate);
    assert_eq!(fs::read_to_string(directory.join("ca.crt")).unwrap(), world.issuer.ca_bundle());
    assert!(!identity.key().contains('\r'));
}

#[test]
fn an_identity_is_never_overwritten_in_part_or_whole() {
    let world = World::new();
    let identity = world.issuer.generate_administrator(&grant(&world)).unwrap();
    for existing in ["tls.key", "tls.crt", "ca.crt"] {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(existing), "mine").unwrap();
        let error = identity.write(directory.path()).unwrap_err();
        assert!(matches!(&error, WriteError::Exists(path) if path.ends_with(existing)), "{error}");
        let left: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, [existing], "nothing is left behind");
        assert_eq!(fs::read(directory.path().join(existing)).unwrap(), b"mine");
    }
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    let world = World::new();
    let identity = world.issuer.generate_administrator(&grant(&world)).unwrap();
    let parent = tempfile::tempdir().unwrap();
    let file = parent.path().join("file");
    fs::write(&file, "").unwrap();
    let error = identity.write(&file.join("identity")).unwrap_err();
    assert!(error.to_string().contains("file/identity"), "{error}");
}

#[test]
fn openssl_finds_that_key_and_certificate_fit() {
    let Some(openssl) = openssl() else { return };
    let world = World::new();
    let identity = world.issuer.generate_administrator(&grant(&world)).unwrap();
    openssl.file("tls.key", identity.key());
    openssl.file("tls.crt", &identity.certificate);
    openssl.file("ca.crt", &identity.ca);
    let at = world.now.timestamp().to_string();
    openssl.succeed(&["verify", "-purpose", "sslclient", "-attime", &at, "-CAfile", "ca.crt", "tls.crt"]);
    let of_key = openssl.succeed(&["pkey", "-in", "tls.key", "-pubout"]);
    let of_certificate = openssl.succeed(&["x509", "-in", "tls.crt", "-pubkey", "-noout"]);
    assert_eq!(of_key, of_certificate);
    let text = openssl.succeed(&["x509", "-noout", "-text", "-in", "tls.crt"]);
    assert!(text.contains("CN = alice") && text.contains("URI:spiffe://dev.local/admin/operator/alice"), "{text}");
}
