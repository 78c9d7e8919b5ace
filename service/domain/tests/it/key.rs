//! Public keys: Ed25519 and P-256 in authorized_keys form, everything else refused by name. The files in `keys/` were
//! written by `ssh-keygen`, and the fingerprints are what it prints; the private halves are gone.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use join_domain::{
    key::{Algorithm, KeyError, MAX_KEY_LINE, PublicKey},
    resource::LockTarget,
};
use proptest::prelude::*;
use rstest::rstest;

const ED25519: &str = include_str!("keys/ed25519.pub");
const P256: &str = include_str!("keys/ecdsa256.pub");

fn parse(line: &str) -> Result<PublicKey, KeyError> {
    PublicKey::from_authorized_key(line.as_bytes())
}

#[rstest]
#[case::ed25519(ED25519, Algorithm::EdDsa, 32, "SHA256:bgc8wvO+pfTfXltfq57SrvAnpAkWkuL9RQ5xlgeQeM8")]
#[case::p256(P256, Algorithm::Es256, 65, "SHA256:n294iyssoQJTgcfJmqEUqNbw+ZobRpUHH3RJh4MGl9s")]
fn both_kinds_are_read_written_and_named_as_ssh_does(
    #[case] line: &str,
    #[case] algorithm: Algorithm,
    #[case] length: usize,
    #[case] fingerprint: &str,
) {
    let key = parse(line).unwrap();
    assert_eq!((key.algorithm(), key.raw().len(), key.fingerprint().as_str()), (algorithm, length, fingerprint));
    let without_comment = line.trim().rsplit_once(' ').unwrap().0;
    assert_eq!(key.to_authorized_key(), without_comment);
    assert_eq!(key.to_string(), without_comment);
    assert_eq!(parse(without_comment).as_ref(), Ok(&key), "a comment makes no difference");
    let json = serde_json::to_string(&key).unwrap();
    assert_eq!(serde_json::from_str::<PublicKey>(&json).unwrap(), key);
    assert_eq!(format!("{key:?}"), fingerprint);
}

#[rstest]
#[case::rsa(include_str!("keys/rsa3072.pub"), "ssh-rsa")]
#[case::dsa(include_str!("keys/dsa.pub"), "ssh-dss")]
#[case::p384(include_str!("keys/ecdsa384.pub"), "ecdsa-sha2-nistp384")]
#[case::p521(include_str!("keys/ecdsa521.pub"), "ecdsa-sha2-nistp521")]
fn other_kinds_are_refused_by_name(#[case] line: &str, #[case] kind: &str) {
    let error = parse(line).unwrap_err();
    assert_eq!(error, KeyError::Unsupported(kind.to_owned()));
    assert!(error.to_string().contains("use Ed25519"), "{error}");
}

#[rstest]
#[case::ed25519("sk-ssh-ed25519@openssh.com", &[[7; 32].as_slice(), b"ssh:"])]
#[case::p256("sk-ecdsa-sha2-nistp256@openssh.com", &[b"nistp256".as_slice(), &[4; 65], b"ssh:"])]
fn keys_of_security_tokens_are_refused_by_name(#[case] kind: &str, #[case] parts: &[&[u8]]) {
    let line = format!("{kind} {}", wire(&[&[kind.as_bytes()], parts].concat()));
    assert_eq!(parse(&line), Err(KeyError::Unsupported(kind.to_owned())));
}

fn wire(parts: &[&[u8]]) -> String {
    let mut wire = Vec::new();
    for part in parts {
        wire.extend(u32::try_from(part.len()).unwrap().to_be_bytes());
        wire.extend(*part);
    }
    STANDARD.encode(wire)
}

#[rstest]
#[case::empty("")]
#[case::blank("   \n")]
#[case::words("not a key at all")]
#[case::kind_alone("ssh-ed25519")]
#[case::rsa_alone("ssh-rsa")]
#[case::not_base64("ssh-ed25519 !!!!")]
#[case::two_lines(concat!(include_str!("keys/ed25519.pub"), include_str!("keys/ecdsa256.pub")))]
#[case::with_options(concat!("no-pty ", include_str!("keys/ed25519.pub")))]
#[case::a_certificate(include_str!("keys/ed25519-cert.pub"))]
#[case::a_private_key("-----BEGIN OPENSSH PRIVATE KEY-----")]
fn what_is_no_key_is_refused(#[case] line: &str) {
    assert_eq!(parse(line), Err(KeyError::Malformed));
}

#[test]
fn a_key_under_another_name_is_refused() {
    let renamed = ED25519.replacen("ssh-ed25519", "ssh-rsa", 1);
    assert!(parse(&renamed).is_err());
}

#[test]
fn a_key_of_the_wrong_length_is_refused() {
    for length in [0, 31, 33, 64] {
        let line = format!("ssh-ed25519 {}", wire(&[b"ssh-ed25519", &vec![7; length]]));
        assert_eq!(parse(&line), Err(KeyError::Malformed), "{length} bytes");
    }
}

#[test]
fn a_point_that_is_not_on_the_curve_is_refused() {
    let point = [vec![4], vec![1; 64]].concat();
    let line = format!("ecdsa-sha2-nistp256 {}", wire(&[b"ecdsa-sha2-nistp256", b"nistp256", &point]));
    assert_eq!(parse(&line), Err(KeyError::Malformed));
    assert_eq!(PublicKey::from_p256(point.try_into().unwrap()), Err(KeyError::Malformed));
    assert_eq!(PublicKey::from_p256([0; 65]), Err(KeyError::Malformed));
}

#[test]
fn a_compressed_point_is_refused() {
    let key = parse(P256).unwrap();
    let x = &key.raw()[1..33];
    for sign in [2, 3] {
        let point = [vec![sign], x.to_vec()].concat();
        let line = format!("ecdsa-sha2-nistp256 {}", wire(&[b"ecdsa-sha2-nistp256", b"nistp256", &point]));
        assert_eq!(parse(&line), Err(KeyError::Malformed));
    }
}

#[test]
fn an_endless_line_is_not_looked_at() {
    let line = format!("{} {}", ED25519.trim(), "x".repeat(MAX_KEY_LINE));
    assert_eq!(parse(&line), Err(KeyError::Malformed));
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    assert_eq!(PublicKey::from_authorized_key(&[0xff, 0xfe, 0]), Err(KeyError::Malformed));
}

#[test]
fn a_lock_names_a_key_by_line_or_fingerprint() {
    let by_line = LockTarget::public_key(ED25519).unwrap();
    assert_eq!(LockTarget::public_key("SHA256:bgc8wvO+pfTfXltfq57SrvAnpAkWkuL9RQ5xlgeQeM8"), Ok(by_line.clone()));
    assert_eq!(by_line.to_string(), "public_key:SHA256:bgc8wvO+pfTfXltfq57SrvAnpAkWkuL9RQ5xlgeQeM8");
}

#[rstest]
#[case::short("short")]
#[case::control_characters(&"\0".repeat(43))]
#[case::no_base64(&"ä".repeat(21))]
#[case::another_alphabet("bgc8wvO-pfTfXltfq57SrvAnpAkWkuL9RQ5xlgeQeM8")]
#[case::padded("bgc8wvO+pfTfXltfq57SrvAnpAkWkuL9RQ5xlgeQeM8=")]
#[case::bits_too_many("bgc8wvO+pfTfXltfq57SrvAnpAkWkuL9RQ5xlgeQeM9")]
fn what_no_key_has_as_its_fingerprint_is_not_locked(#[case] hash: &str) {
    assert_eq!(LockTarget::public_key(&format!("SHA256:{hash}")), Err(KeyError::Fingerprint));
}

proptest! {
    #[test]
    fn no_line_makes_the_reader_panic(line in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = PublicKey::from_authorized_key(&line);
    }

    #[test]
    fn no_wire_form_makes_the_reader_panic(
        kind in prop_oneof!["ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa"],
        bytes in proptest::collection::vec(any::<u8>(), 0..120),
    ) {
        let mut wire = u32::try_from(kind.len()).unwrap().to_be_bytes().to_vec();
        wire.extend(kind.as_bytes());
        wire.extend(bytes);
        if let Ok(key) = parse(&format!("{kind} {}", STANDARD.encode(wire))) {
            prop_assert_eq!(parse(&key.to_authorized_key()), Ok(key));
        }
    }
}
