use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use join_credential::{Subject, subject::SubjectError};
use join_domain::proof::SubjectKeys;
use rcgen::PublicKeyData as _;
use ssh_key::public::{Ed25519PublicKey, KeyData};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::world::{ED25519_SPKI, P256_SPKI, World, spki, subject_keys};

fn ed25519() -> SubjectKeys {
    let key = Ed25519KeyPair::generate().unwrap();
    let key: [u8; 32] = key.public_key().as_ref().try_into().unwrap();
    let ssh = ssh_key::PublicKey::from(KeyData::Ed25519(Ed25519PublicKey(key)));
    SubjectKeys { tls: spki(&hex::decode(ED25519_SPKI).unwrap(), &key), ssh: ssh.to_bytes().unwrap() }
}

#[test]
fn p256_and_ed25519_keys_get_certificates_for_exactly_themselves() {
    let world = World::new();
    let (p256, ed25519) = (subject_keys(), ed25519());
    let mixed = SubjectKeys { tls: p256.tls.clone(), ssh: ed25519.ssh.clone() };
    for keys in [p256, ed25519, mixed] {
        let mut join = world.join();
        join.subject = Subject::read(&keys).unwrap();
        let credentials = world.issue(&join);
        let (_, x509) = X509Certificate::from_der(&credentials.tls_certificate).unwrap();
        assert_eq!(x509.public_key().raw, keys.tls);
        let ssh = ssh_key::Certificate::from_bytes(&credentials.ssh_certificate).unwrap();
        assert_eq!(ssh_key::PublicKey::from(ssh.public_key().clone()).to_bytes().unwrap(), keys.ssh);
    }
}

#[test]
fn other_tls_keys_are_refused_by_name() {
    let good = subject_keys();
    let tls = |tls: Vec<u8>| Subject::read(&SubjectKeys { tls, ssh: good.ssh.clone() }).unwrap_err();
    for (algorithm, kind) in [(&rcgen::PKCS_RSA_SHA256, "RSA"), (&rcgen::PKCS_ECDSA_P384_SHA384, "P-384")] {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        assert_eq!(tls(key.subject_public_key_info()), SubjectError::UnsupportedTls, "{kind}");
    }
    let prefix = hex::decode(P256_SPKI).unwrap();
    let (point, key) = (&good.tls[prefix.len()..], &[7; 32]);
    let as_hex = |text: &str, key: &[u8]| spki(&hex::decode(text).unwrap(), key);
    let mut curve_in_octets = good.tls.clone();
    curve_in_octets[13] = 0x04;
    assert_eq!(tls(curve_in_octets), SubjectError::UnsupportedTls, "a curve that is named by no OID");
    let no_curve = as_hex("304f300906072a8648ce3d0201034200", point);
    assert_eq!(tls(no_curve), SubjectError::UnsupportedTls, "no curve");
    let with_null = as_hex("302c300706032b65700500032100", key);
    assert_eq!(tls(with_null), SubjectError::UnsupportedTls, "Ed25519 with parameters");
    let mut off_curve = good.tls.clone();
    *off_curve.last_mut().unwrap() ^= 1;
    let malformed = [
        b"ssh-ed25519 AAAA".to_vec(),
        off_curve,
        good.tls[..good.tls.len() - 1].to_vec(),
        [good.tls.as_slice(), &[0]].concat(),
        spki(&prefix, &[0; 65]),
        spki(&hex::decode("302a300506032b6570032100").unwrap(), &[0; 31]),
        vec![0x30; 2000],
        // The same keys in forms that are not DER: a long tag, a long length, what follows inside, unused bits.
        as_hex("305a301406072a8648ce3d02011f06082a8648ce3d030107034200", point),
        as_hex("308159301306072a8648ce3d020106082a8648ce3d030107034200", point),
        as_hex("305b301306072a8648ce3d020106082a8648ce3d030107034200", &[point, &[5, 0]].concat()),
        as_hex("305b301506072a8648ce3d020106082a8648ce3d0301070500034200", point),
        as_hex("302a300506032b6570032101", &[8; 32]),
    ];
    for key in malformed {
        assert_eq!(tls(key.clone()), SubjectError::MalformedTls, "{}", hex::encode(key));
    }
}

#[test]
fn other_ssh_keys_are_refused_by_name() {
    let good = subject_keys();
    let ssh = |ssh: Vec<u8>| Subject::read(&SubjectKeys { tls: good.tls.clone(), ssh }).unwrap_err();
    let rsa = [string(b"ssh-rsa"), string(&[1, 0, 1]), string(&[&[0], [0xff; 256].as_slice()].concat())].concat();
    assert_eq!(ssh(rsa), SubjectError::UnsupportedSsh);
    let unknown = [string(b"ssh-future@example.com"), string(&[1; 32])].concat();
    assert!(matches!(ssh(unknown), SubjectError::UnsupportedSsh | SubjectError::MalformedSsh));

    let mut off_curve = good.ssh.clone();
    *off_curve.last_mut().unwrap() ^= 1;
    let beside_ed25519 = SubjectKeys { tls: ed25519().tls, ssh: off_curve.clone() };
    assert_eq!(Subject::read(&beside_ed25519), Err(SubjectError::MalformedSsh));
    let world = World::new();
    let malformed = [
        b"ssh-ed25519 AAAA".to_vec(),
        off_curve,
        good.ssh[..good.ssh.len() - 1].to_vec(),
        [good.ssh.as_slice(), &[0]].concat(),
        world.issue(&world.join()).ssh_certificate,
        vec![0; 2000],
    ];
    for key in malformed {
        assert_eq!(ssh(key.clone()), SubjectError::MalformedSsh, "{}", hex::encode(key));
    }
}

#[test]
fn a_compressed_point_is_no_second_form_of_a_key() {
    let good = subject_keys();
    let (x, y) = good.tls[good.tls.len() - 64..].split_at(32);
    let compressed = [&[2 + (y[31] & 1)], x].concat();
    let prefix = hex::decode("3039301306072a8648ce3d020106082a8648ce3d030107032200").unwrap();
    let keys = SubjectKeys { tls: spki(&prefix, &compressed), ssh: good.ssh.clone() };
    assert_eq!(Subject::read(&keys), Err(SubjectError::MalformedTls));
    let ssh = [string(b"ecdsa-sha2-nistp256"), string(b"nistp256"), string(&compressed)].concat();
    assert_eq!(Subject::read(&SubjectKeys { tls: good.tls, ssh }), Err(SubjectError::MalformedSsh));
}

/// A `string` of RFC 4251.
fn string(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

#[test]
fn a_key_that_is_missing_is_no_malformed_one() {
    let good = subject_keys();
    let without_tls = SubjectKeys { tls: Vec::new(), ssh: good.ssh };
    assert_eq!(Subject::read(&without_tls), Err(SubjectError::MissingTls));
    let without_ssh = SubjectKeys { tls: good.tls, ssh: Vec::new() };
    assert_eq!(Subject::read(&without_ssh), Err(SubjectError::MissingSsh));
}

#[test]
fn errors_name_the_field() {
    assert!(SubjectError::MissingTls.to_string().starts_with("public_tls_key: missing"));
    assert!(SubjectError::MissingSsh.to_string().starts_with("public_ssh_key: missing"));
    assert!(SubjectError::MalformedTls.to_string().starts_with("public_tls_key:"));
    assert!(SubjectError::UnsupportedTls.to_string().starts_with("public_tls_key:"));
    assert!(SubjectError::MalformedSsh.to_string().starts_with("public_ssh_key:"));
    assert!(SubjectError::UnsupportedSsh.to_string().starts_with("public_ssh_key:"));
}
