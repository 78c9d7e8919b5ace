use std::{fs, os::unix::fs::PermissionsExt as _};

use base64::{Engine as _, engine::general_purpose};
use join_credential::{
    MasterKey, Sealer,
    master::MasterKeyError,
    sealer::{MAX_TOKEN, OpenError},
};
use serde::{Deserialize, Serialize};

#[test]
fn sealed_data_opens_for_its_purpose_and_id_only() {
    let sealer = Sealer::new(&[7; 32]);
    let sealed = sealer.seal("registration secret", "token-1", b"swordfish");
    assert!(!sealed.windows(9).any(|window| window == b"swordfish"));
    assert_eq!(sealer.open("registration secret", "token-1", &sealed).unwrap().as_slice(), b"swordfish");
    assert_eq!(sealer.open("registration secret", "token-2", &sealed), Err(OpenError));
    assert_eq!(sealer.open("continuation", "token-1", &sealed), Err(OpenError));
    assert_eq!(sealer.open("registration secrettoken", "-1", &sealed), Err(OpenError));
    assert_eq!(Sealer::new(&[8; 32]).open("registration secret", "token-1", &sealed), Err(OpenError));
}

#[test]
fn sealed_data_that_was_changed_anywhere_does_not_open() {
    let sealer = Sealer::generate();
    let sealed = sealer.seal("p", "i", b"text");
    for at in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[at] ^= 1;
        assert_eq!(sealer.open("p", "i", &changed), Err(OpenError), "byte {at}");
        assert_eq!(sealer.open("p", "i", &sealed[..at]), Err(OpenError), "cut at {at}");
    }
    assert_eq!(sealer.open("p", "i", &[sealed.as_slice(), &[0]].concat()), Err(OpenError));
}

#[test]
fn equal_texts_are_sealed_differently() {
    let sealer = Sealer::generate();
    assert_ne!(sealer.seal("p", "i", b"text"), sealer.seal("p", "i", b"text"));
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Continuation {
    attempt: String,
    stage: u8,
}

#[test]
fn a_token_comes_back_as_it_was_or_not_at_all() {
    let sealer = Sealer::generate();
    let continuation = Continuation { attempt: "a1".into(), stage: 2 };
    let token = sealer.seal_token("continuation", &continuation);
    assert!(token.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_'), "{token}");
    assert_eq!(sealer.open_token::<Continuation>("continuation", &token), Ok(continuation));
    assert_eq!(sealer.open_token::<Continuation>("another purpose", &token), Err(OpenError));
    assert_eq!(sealer.open_token::<Vec<u8>>("continuation", &token), Err(OpenError));
    for wrong in ["", "AQ", "not base64!", &token[1..], &token[..token.len() - 1], &"A".repeat(MAX_TOKEN + 1)] {
        assert_eq!(sealer.open_token::<Continuation>("continuation", wrong), Err(OpenError));
    }
}

#[test]
fn a_keyed_hash_depends_on_key_purpose_and_data() {
    let sealer = Sealer::new(&[7; 32]);
    let hash = sealer.keyed_hash("registration secret").hash(b"swordfish");
    assert_eq!(hash, Sealer::new(&[7; 32]).keyed_hash("registration secret").hash(b"swordfish"));
    assert_ne!(hash, Sealer::new(&[8; 32]).keyed_hash("registration secret").hash(b"swordfish"));
    assert_ne!(hash, sealer.keyed_hash("another purpose").hash(b"swordfish"));
    assert_ne!(hash, sealer.keyed_hash("registration secret").hash(b"swordfisH"));
}

/// A changed derivation would make every stored seal and hash unreadable: computed once with other software
/// (Python's hmac module, and AES-GCM of its cryptography package).
#[test]
fn derivation_stays_as_it_was() {
    let hash = Sealer::new(&[7; 32]).keyed_hash("registration secret").hash(b"swordfish");
    assert_eq!(hex::encode(hash), "ae2fe9630ba693b497ae88a1f8879cb66c722b9e3e2b8b62f0495d68dd9a5186");
    let sealed = hex::decode(
        "01000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f26ee6f5ba8c5c4f0d1ab558b383c2b257cc0c4e2",
    )
    .unwrap();
    assert_eq!(Sealer::new(&[7; 32]).open("purpose", "id", &sealed).unwrap().as_slice(), b"text");
}

#[test]
fn a_master_key_is_read_in_hex_and_base64() {
    let bytes: [u8; 32] = std::array::from_fn(|i| 0xf8 + (i % 8) as u8);
    let standard = general_purpose::STANDARD.encode(bytes);
    let forms = [
        hex::encode(bytes),
        hex::encode_upper(bytes),
        standard.clone(),
        format!("  {standard}\n"),
        general_purpose::URL_SAFE.encode(bytes),
        general_purpose::URL_SAFE_NO_PAD.encode(bytes),
    ];
    let world = crate::world::World::new();
    let rows = world.keys.seal(&MasterKey::parse(&forms[0]).unwrap());
    for form in forms {
        let master = MasterKey::parse(&form).unwrap();
        let opened = join_credential::AuthorityKeys::open(world.keys.cluster().clone(), rows.clone(), &master);
        assert!(opened.is_ok(), "{form}");
    }
}

#[test]
fn what_is_no_master_key_is_not_repeated() {
    for text in ["", "correct horse battery staple", &"ab".repeat(31), &"ab".repeat(33), &"AAAA".repeat(11)] {
        let error = MasterKey::parse(text).unwrap_err();
        assert!(matches!(error, MasterKeyError::Malformed));
        assert!(text.is_empty() || !error.to_string().contains(text));
    }
}

#[test]
fn a_master_key_file_is_private_and_never_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("master.key");
    let world = crate::world::World::new();
    let rows = world.keys.seal(&MasterKey::create(&path).unwrap());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let read = MasterKey::read(&path).unwrap();
    assert!(join_credential::AuthorityKeys::open(world.keys.cluster().clone(), rows, &read).is_ok());

    let before = fs::read(&path).unwrap();
    assert!(matches!(MasterKey::create(&path), Err(MasterKeyError::File { .. })));
    assert_eq!(fs::read(&path).unwrap(), before);

    fs::write(&path, "no key").unwrap();
    assert!(matches!(MasterKey::read(&path), Err(MasterKeyError::FileMalformed(at)) if at == path));
    let missing = directory.path().join("missing");
    let error = MasterKey::read(&missing).unwrap_err().to_string();
    assert!(error.contains(missing.to_str().unwrap()), "{error}");
    let error = MasterKey::from_env("JOIN_TEST_VARIABLE_THAT_NOBODY_SETS").unwrap_err().to_string();
    assert!(error.contains("JOIN_TEST_VARIABLE_THAT_NOBODY_SETS"), "{error}");
}
