//! The bytes that are signed (protocol, sections 4 and 5): what is accepted, and that nothing else is.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey,
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::TimeDelta;
use join_domain::{
    Timestamp,
    id::{AttemptId, InstanceId, Name, TokenId},
    key::{Algorithm, PublicKey},
    proof::{Challenge, JoinState, JoinStateError, SigningKey, SolutionError, SubjectKeys, UnfitChallenge, key_id},
};
use proptest::prelude::*;
use rstest::rstest;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::scenario::beginning;

/// A real keypair.
enum KeyPair {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
}

impl KeyPair {
    fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::EdDsa => Self::Ed25519(Ed25519KeyPair::generate().unwrap()),
            Algorithm::Es256 => Self::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()),
        }
    }

    fn public(&self) -> PublicKey {
        match self {
            Self::Ed25519(key) => PublicKey::from_ed25519(key.public_key().as_ref().try_into().unwrap()),
            Self::P256(key) => PublicKey::from_p256(key.public_key().as_ref().try_into().unwrap()).unwrap(),
        }
    }

    fn signing(&self) -> SigningKey {
        match self {
            Self::Ed25519(key) => SigningKey::from_pkcs8(key.to_pkcs8v1().unwrap().as_ref(), Algorithm::EdDsa),
            Self::P256(key) => SigningKey::from_pkcs8(key.to_pkcs8v1().unwrap().as_ref(), Algorithm::Es256),
        }
    }

    /// A compact JWS made by hand, with any header and payload.
    fn jws(&self, header: &str, payload: &str) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
        let signature = match self {
            Self::Ed25519(key) => key.sign(signed.as_bytes()).as_ref().to_vec(),
            Self::P256(key) => key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap().as_ref().to_vec(),
        };
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn cluster() -> Name {
    "example.org".parse().unwrap()
}

fn attempt() -> AttemptId {
    AttemptId::from_bits([7; 16])
}

fn subject_keys() -> String {
    SubjectKeys { tls: b"tls".to_vec(), ssh: b"ssh".to_vec() }.hash()
}

fn issue(key: &PublicKey) -> Challenge {
    Challenge::issue(&cluster(), key, Some(attempt()), subject_keys(), [3; 32], beginning())
}

const BOTH: [Algorithm; 2] = [Algorithm::EdDsa, Algorithm::Es256];

#[rstest]
fn a_challenge_is_read_signed_and_checked(#[values(Algorithm::EdDsa, Algorithm::Es256)] algorithm: Algorithm) {
    let pair = KeyPair::new(algorithm);
    let key = pair.public();
    let challenge = issue(&key);
    let document = challenge.to_document();
    let read = Challenge::read(&document, "example.org", &key, Some(&attempt()), &subject_keys());
    assert_eq!(read.as_ref(), Ok(&challenge));
    let solution = pair.signing().solve(&document).unwrap();
    assert_eq!(challenge.check(&document, &key, solution.as_bytes(), beginning()), Ok(()));
}

#[test]
fn a_challenge_says_what_the_protocol_says() {
    let key = KeyPair::new(Algorithm::EdDsa).public();
    let document: Value = serde_json::from_str(&issue(&key).to_document()).unwrap();
    let at = beginning().timestamp();
    let nonce = "03".repeat(32);
    assert_eq!(
        document,
        json!({
            "iss": "example.org", "aud": "example.org", "sub": key.thumbprint(),
            "iat": at, "nbf": at - 10, "exp": at + 60, "nonce": nonce,
            "attempt_id": attempt().as_str(), "subject_keys": subject_keys(),
        })
    );
    let plain = Challenge { attempt_id: None, ..issue(&key) };
    let document: Value = serde_json::from_str(&plain.to_document()).unwrap();
    assert_eq!(document.get("attempt_id"), None, "absent when the client sent none");
}

#[test]
fn the_id_of_a_challenge_does_not_show_its_nonce() {
    let key = KeyPair::new(Algorithm::EdDsa).public();
    let challenge = issue(&key);
    let id = challenge.id().0.simple().to_string();
    assert!(!challenge.nonce.contains(&id[..8]));
    assert_eq!(challenge.id(), challenge.id());
    let other = Challenge::issue(&cluster(), &key, None, subject_keys(), [4; 32], beginning());
    assert_ne!(challenge.id(), other.id());
}

#[rstest]
fn a_signature_of_another_key_is_refused(#[values(Algorithm::EdDsa, Algorithm::Es256)] algorithm: Algorithm) {
    let key = KeyPair::new(algorithm).public();
    let challenge = issue(&key);
    let document = challenge.to_document();
    for other in BOTH {
        let solution = KeyPair::new(other).signing().solve(&document).unwrap();
        let checked = challenge.check(&document, &key, solution.as_bytes(), beginning());
        assert_eq!(checked, Err(SolutionError::BadSignature), "{other:?}");
    }
}

#[rstest]
#[case::type_missing(r#"{"alg":"EdDSA"}"#, SolutionError::Malformed)]
#[case::another_type(r#"{"typ":"JOSE","alg":"EdDSA"}"#, SolutionError::Malformed)]
#[case::another_algorithm(r#"{"typ":"JWT","alg":"ES256"}"#, SolutionError::BadSignature)]
#[case::symmetric(r#"{"typ":"JWT","alg":"HS256"}"#, SolutionError::BadSignature)]
#[case::no_algorithm(r#"{"typ":"JWT","alg":"none"}"#, SolutionError::Malformed)]
#[case::algorithm_missing(r#"{"typ":"JWT"}"#, SolutionError::Malformed)]
#[case::an_extension_that_must_be_understood(
    r#"{"typ":"JWT","alg":"EdDSA","crit":["b64"],"b64":false}"#,
    SolutionError::Malformed
)]
#[case::no_json("no json", SolutionError::Malformed)]
fn a_header_that_does_not_fit_is_refused(#[case] header: &str, #[case] error: SolutionError) {
    let pair = KeyPair::new(Algorithm::EdDsa);
    let key = pair.public();
    let challenge = issue(&key);
    let document = challenge.to_document();
    let checked = challenge.check(&document, &key, pair.jws(header, &document).as_bytes(), beginning());
    assert_eq!(checked, Err(error));
}

#[rstest]
#[case::iss("iss", json!("other"))]
#[case::aud("aud", json!("other"))]
#[case::sub("sub", json!("other"))]
#[case::iat("iat", json!(0))]
#[case::nbf("nbf", json!(0))]
#[case::exp("exp", json!(i64::MAX))]
#[case::nonce("nonce", json!("00"))]
#[case::attempt_id("attempt_id", json!("0".repeat(32)))]
#[case::subject_keys("subject_keys", json!("other"))]
#[case::one_claim_more("more", json!(1))]
fn a_changed_claim_is_refused(#[case] claim: &str, #[case] value: Value) {
    let pair = KeyPair::new(Algorithm::EdDsa);
    let challenge = issue(&pair.public());
    let document = challenge.to_document();
    let mut changed: Value = serde_json::from_str(&document).unwrap();
    changed[claim] = value;
    let solution = pair.signing().solve(&changed.to_string()).unwrap();
    let checked = challenge.check(&document, &pair.public(), solution.as_bytes(), beginning());
    assert_eq!(checked, Err(SolutionError::OtherDocument));
}

#[test]
fn the_payload_must_be_the_document_byte_for_byte() {
    let pair = KeyPair::new(Algorithm::EdDsa);
    let challenge = issue(&pair.public());
    let document = challenge.to_document();
    let spaced = document.replacen(':', ": ", 1);
    let (iss, aud) = (r#""iss":"example.org""#, r#""aud":"example.org""#);
    let reordered = document.replacen(&format!("{iss},{aud}"), &format!("{aud},{iss}"), 1);
    let header = r#"{"typ":"JWT","alg":"EdDSA"}"#;
    for changed in [spaced, format!("{document}\n"), format!(" {document}"), reordered, "{}".to_owned()] {
        assert_ne!(changed, document);
        let solution = pair.jws(header, &changed);
        let checked = challenge.check(&document, &pair.public(), solution.as_bytes(), beginning());
        assert_eq!(checked, Err(SolutionError::OtherDocument), "{changed}");
    }
    let solution = pair.jws(header, &document);
    assert_eq!(challenge.check(&document, &pair.public(), solution.as_bytes(), beginning()), Ok(()));
}

#[rstest]
#[case::at_once(0, true)]
#[case::at_the_end(60, true)]
#[case::within_leeway(120, true)]
#[case::too_late(121, false)]
#[case::clock_behind(-70, true)]
#[case::before_its_time(-71, false)]
fn a_solution_has_its_time(#[case] seconds: i64, #[case] accepted: bool) {
    let pair = KeyPair::new(Algorithm::EdDsa);
    let challenge = issue(&pair.public());
    let document = challenge.to_document();
    let solution = pair.signing().solve(&document).unwrap();
    let now = beginning() + TimeDelta::seconds(seconds);
    let checked = challenge.check(&document, &pair.public(), solution.as_bytes(), now);
    assert_eq!(checked, if accepted { Ok(()) } else { Err(SolutionError::Expired) });
}

#[rstest]
#[case::aud("aud", "cluster")]
#[case::sub("sub", "key")]
#[case::attempt("attempt_id", "attempt")]
#[case::no_attempt("attempt_id", "no attempt")]
#[case::subject_keys("subject_keys", "subject keys")]
fn an_agent_signs_nothing_that_is_not_its_own(#[case] claim: &'static str, #[case] other: &str) {
    let key = KeyPair::new(Algorithm::EdDsa).public();
    let other_key = KeyPair::new(Algorithm::EdDsa).public();
    let document = issue(&key).to_document();
    let own = (attempt(), AttemptId::from_bits([8; 16]), subject_keys());
    let read = match other {
        "cluster" => Challenge::read(&document, "other", &key, Some(&own.0), &own.2),
        "key" => Challenge::read(&document, "example.org", &other_key, Some(&own.0), &own.2),
        "attempt" => Challenge::read(&document, "example.org", &key, Some(&own.1), &own.2),
        "no attempt" => Challenge::read(&document, "example.org", &key, None, &own.2),
        _ => Challenge::read(&document, "example.org", &key, Some(&own.0), "other"),
    };
    assert_eq!(read, Err(UnfitChallenge(claim)));
}

#[rstest]
#[case::nothing("")]
#[case::no_json("challenge")]
#[case::another_document(r#"{"aud":"example.org"}"#)]
fn an_agent_signs_nothing_that_it_cannot_read(#[case] document: &str) {
    let key = KeyPair::new(Algorithm::EdDsa).public();
    let read = Challenge::read(document, "example.org", &key, None, "");
    assert_eq!(read, Err(UnfitChallenge("document")));
}

#[test]
fn an_agent_signs_no_claim_that_it_has_not_read() {
    let key = KeyPair::new(Algorithm::EdDsa).public();
    let document = issue(&key).to_document().replacen('{', r#"{"transfer":"everything","#, 1);
    let read = Challenge::read(&document, "example.org", &key, Some(&attempt()), &subject_keys());
    assert_eq!(read, Err(UnfitChallenge("document")));
}

#[test]
fn an_agent_signs_no_claim_twice_said() {
    let key = KeyPair::new(Algorithm::EdDsa).public();
    let document = issue(&key).to_document().replacen('{', r#"{"aud":"other","#, 1);
    let read = Challenge::read(&document, "example.org", &key, Some(&attempt()), &subject_keys());
    assert_eq!(read, Err(UnfitChallenge("document")));
}

#[test]
fn what_is_no_json_is_not_signed() {
    assert!(KeyPair::new(Algorithm::EdDsa).signing().solve("not json").is_err());
}

#[test]
fn subject_keys_are_told_apart_by_where_one_ends() {
    let hash = |tls: &str, ssh: &str| SubjectKeys { tls: tls.into(), ssh: ssh.into() }.hash();
    assert_ne!(hash("ab", "c"), hash("a", "bc"));
    assert_ne!(hash("ab", "c"), hash("c", "ab"));
    assert_eq!(hash("ab", "c"), hash("ab", "c"));
}

// --- vectors

/// RFC 8037, appendix A.1.
const RFC_8037_D: &str = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A";
const RFC_8037_X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
/// RFC 8037, appendix A.4.
const RFC_8037_JWS: &str = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";

fn rfc_8037() -> (Ed25519KeyPair, PublicKey) {
    let seed = URL_SAFE_NO_PAD.decode(RFC_8037_D).unwrap();
    let public: [u8; 32] = URL_SAFE_NO_PAD.decode(RFC_8037_X).unwrap().try_into().unwrap();
    (Ed25519KeyPair::from_seed_and_public_key(&seed, &public).unwrap(), PublicKey::from_ed25519(public))
}

#[test]
fn the_thumbprint_is_that_of_rfc_8037_appendix_a_3() {
    assert_eq!(rfc_8037().1.thumbprint(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
}

#[test]
fn signatures_are_those_of_rfc_8037_appendix_a_4() {
    let (pair, key) = rfc_8037();
    assert_eq!(KeyPair::Ed25519(pair).jws(r#"{"alg":"EdDSA"}"#, "Example of Ed25519 signing"), RFC_8037_JWS);
    let (signed, signature) = RFC_8037_JWS.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    assert!(UnparsedPublicKey::new(&ED25519, key.raw()).verify(signed.as_bytes(), &signature).is_ok());
}

#[test]
fn a_solution_is_signed_as_rfc_8037_says() {
    let (pair, key) = rfc_8037();
    let document = issue(&key).to_document();
    let pair = KeyPair::Ed25519(pair);
    let solution = pair.signing().solve(&document).unwrap();
    assert_eq!(solution, pair.jws(r#"{"typ":"JWT","alg":"EdDSA"}"#, &document), "Ed25519 signatures have no choice");
}

#[test]
fn the_thumbprint_of_a_p256_key_is_that_of_its_jwk() {
    // RFC 7517, appendix A.1; the thumbprint is SHA-256 over the members that RFC 7638, section 3.2 names.
    let decode = |text| URL_SAFE_NO_PAD.decode(text).unwrap();
    let x = "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4";
    let y = "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM";
    let point = [vec![4], decode(x), decode(y)].concat();
    let key = PublicKey::from_p256(point.try_into().unwrap()).unwrap();
    assert_eq!(key.thumbprint(), "cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s");
}

// --- join state documents

fn state() -> JoinState {
    JoinState {
        iss: "example.org".to_owned(),
        aud: "example.org".to_owned(),
        sub: "example".to_owned(),
        iat: beginning().timestamp(),
        nbf: beginning().timestamp(),
        bot_instance_id: InstanceId(Uuid::from_u128(1)),
        recovery_sequence: 3,
        recovery_limit: 5,
        recovery_mode: "standard".to_owned(),
        token_id: Some(TokenId(Uuid::from_u128(2))),
    }
}

#[test]
fn a_join_state_is_signed_and_opened() {
    let pair = KeyPair::new(Algorithm::EdDsa);
    let key = pair.public();
    let document = state().sign("key-1", &pair.signing()).unwrap();
    let opened = JoinState::open(document.as_bytes(), &cluster(), |kid| (kid == "key-1").then_some(&key));
    assert_eq!(opened, Ok(state()));
    assert_eq!(key_id(document.as_bytes()).as_deref(), Some("key-1"));
    let payload = document.split('.').nth(1).unwrap();
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
    assert_eq!(claims.get("exp"), None, "it does not end");
}

#[test]
fn a_join_state_without_a_token_id_opens_and_is_told_apart() {
    let pair = KeyPair::new(Algorithm::EdDsa);
    let key = pair.public();
    let document = JoinState { token_id: None, ..state() }.sign("key-1", &pair.signing()).unwrap();
    assert_eq!(JoinState::open(document.as_bytes(), &cluster(), |_| Some(&key)).unwrap().token_id, None);
}

#[rstest]
#[case::unknown_key("unknown", JoinStateError::UnknownKey)]
#[case::signed_by_another("other signer", JoinStateError::BadSignature)]
#[case::issuer("issuer", JoinStateError::OtherCluster)]
#[case::audience("audience", JoinStateError::OtherCluster)]
#[case::no_key_named("no kid", JoinStateError::Malformed)]
#[case::no_jwt("no jwt", JoinStateError::Malformed)]
#[case::other_claims("claims", JoinStateError::Malformed)]
#[case::endless("endless", JoinStateError::Malformed)]
fn a_join_state_that_is_not_ours_is_named(#[case] what: &str, #[case] error: JoinStateError) {
    let pair = KeyPair::new(Algorithm::EdDsa);
    let key = pair.public();
    let sign = |state: JoinState| state.sign("key-1", &pair.signing()).unwrap();
    let document = match what {
        "unknown" => state().sign("key-2", &pair.signing()).unwrap(),
        "other signer" => state().sign("key-1", &KeyPair::new(Algorithm::EdDsa).signing()).unwrap(),
        "issuer" => sign(JoinState { iss: "other".to_owned(), ..state() }),
        "audience" => sign(JoinState { aud: "other".to_owned(), ..state() }),
        "no kid" => pair.jws(r#"{"typ":"JWT","alg":"EdDSA"}"#, &serde_json::to_string(&state()).unwrap()),
        "claims" => pair.jws(r#"{"typ":"JWT","alg":"EdDSA","kid":"key-1"}"#, "{}"),
        "endless" => sign(JoinState { sub: "x".repeat(9000), ..state() }),
        _ => "not a document".to_owned(),
    };
    let opened = JoinState::open(document.as_bytes(), &cluster(), |kid| (kid == "key-1").then_some(&key));
    assert_eq!(opened, Err(error));
}

#[test]
fn the_solution_of_a_challenge_is_no_join_state_and_the_other_way_round() {
    let pair = KeyPair::new(Algorithm::EdDsa);
    let key = pair.public();
    let challenge = issue(&key);
    let document = challenge.to_document();
    let solution = pair.jws(r#"{"typ":"JWT","alg":"EdDSA","kid":"key-1"}"#, &document);
    let opened = JoinState::open(solution.as_bytes(), &cluster(), |_| Some(&key));
    assert_eq!(opened, Err(JoinStateError::Malformed));
    let state = state().sign("key-1", &pair.signing()).unwrap();
    assert_eq!(challenge.check(&document, &key, state.as_bytes(), beginning()), Err(SolutionError::OtherDocument));
}

// --- laws

fn solved() -> (Challenge, String, PublicKey, String, Timestamp) {
    let (pair, key) = rfc_8037();
    let challenge = issue(&key);
    let document = challenge.to_document();
    let solution = KeyPair::Ed25519(pair).signing().solve(&document).unwrap();
    (challenge, document, key, solution, beginning())
}

proptest! {
    #[test]
    fn no_flipped_bit_is_accepted(at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let (challenge, document, key, solution, now) = solved();
        let mut bytes = solution.into_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(challenge.check(&document, &key, &bytes, now).is_err());
    }

    #[test]
    fn no_cut_or_lengthened_solution_is_accepted(length in any::<prop::sample::Index>(), more in ".{1,8}") {
        let (challenge, document, key, solution, now) = solved();
        let cut = &solution[..length.index(solution.len())];
        prop_assert!(challenge.check(&document, &key, cut.as_bytes(), now).is_err());
        for longer in [[solution.as_str(), &more].concat(), [more.as_str(), &solution].concat()] {
            prop_assert!(challenge.check(&document, &key, longer.as_bytes(), now).is_err());
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let (challenge, document, key, _, now) = solved();
        prop_assert!(challenge.check(&document, &key, &bytes, now).is_err());
        prop_assert!(JoinState::open(&bytes, &cluster(), |_| Some(&key)).is_err());
        let _ = key_id(&bytes);
    }
}
