//! Keys of bots: made in advance, parsed once.

use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use aws_lc_rs::{
    digest,
    encoding::AsDer as _,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use rustls::{pki_types::PrivateKeyDer, sign::SigningKey};

/// `{"alg":"EdDSA","typ":"JWT"}`, base64url.
const JOSE_HEADER: &str = "eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCJ9";

/// A keypair that is bound to a token: Ed25519.
pub(crate) struct BoundKey {
    pair: Ed25519KeyPair,
    /// One line of authorized_keys.
    pub(crate) line: String,
}

impl BoundKey {
    /// The key of a number: any run makes the same ones again. For private authorities only, of course.
    pub(crate) fn of(seed: u64, number: u64, rotation: u64) -> anyhow::Result<Self> {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"joinload key\n");
        [seed, number, rotation].iter().for_each(|part| context.update(&part.to_be_bytes()));
        let pair = Ed25519KeyPair::from_seed_unchecked(context.finish().as_ref())
            .map_err(|error| anyhow!("an Ed25519 key can't be made from a seed: {error}"))?;
        Ok(Self::from(pair))
    }

    /// A key that nobody can guess.
    pub(crate) fn generate() -> anyhow::Result<Self> {
        Ok(Self::from(Ed25519KeyPair::generate().context("an Ed25519 key can't be made")?))
    }

    /// The 32 bytes of RFC 8032.
    pub(crate) fn public(&self) -> [u8; 32] {
        self.pair.public_key().as_ref().try_into().expect("an Ed25519 public key has 32 bytes")
    }

    /// A compact JWS over a challenge (RFC 7515).
    pub(crate) fn solve(&self, document: &str) -> String {
        let mut jws = String::with_capacity(JOSE_HEADER.len() + document.len() * 4 / 3 + 96);
        jws.push_str(JOSE_HEADER);
        jws.push('.');
        URL_SAFE_NO_PAD.encode_string(document, &mut jws);
        let signature = self.pair.sign(jws.as_bytes());
        jws.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut jws);
        jws
    }
}

impl From<Ed25519KeyPair> for BoundKey {
    fn from(pair: Ed25519KeyPair) -> Self {
        let line = format!("ssh-ed25519 {}", STANDARD.encode(ssh_wire(&[b"ssh-ed25519", pair.public_key().as_ref()])));
        Self { pair, line }
    }
}

/// A key that gets certificates: P-256, for TLS and SSH.
pub(crate) struct SubjectKey {
    /// SubjectPublicKeyInfo, DER.
    pub(crate) spki: Vec<u8>,
    /// SSH wire form.
    pub(crate) ssh: Vec<u8>,
    /// For handshakes.
    pub(crate) signer: Arc<dyn SigningKey>,
}

impl SubjectKey {
    pub(crate) fn generate() -> anyhow::Result<Self> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).context("a P-256 key can't be made")?;
        let pkcs8 = pair.to_pkcs8v1().context("a P-256 key can't be written")?;
        let der = PrivateKeyDer::Pkcs8(pkcs8.as_ref().to_vec().into());
        Ok(Self {
            spki: pair.public_key().as_der().context("a P-256 key can't be written")?.as_ref().to_vec(),
            ssh: ssh_wire(&[b"ecdsa-sha2-nistp256", b"nistp256", pair.public_key().as_ref()]),
            signer: rustls::crypto::aws_lc_rs::sign::any_ecdsa_type(&der)?,
        })
    }
}

/// RFC 4253, section 6.6: each part behind its length.
fn ssh_wire(parts: &[&[u8]]) -> Vec<u8> {
    let length = |part: &[u8]| u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes();
    parts.iter().flat_map(|part| [&length(part)[..], part].concat()).collect()
}

/// 128 random bits in hex.
pub(crate) fn attempt_id() -> String {
    random_hex::<16>()
}

/// So many random bytes in hex.
pub(crate) fn random_hex<const BYTES: usize>() -> String {
    let mut bytes = [0; BYTES];
    aws_lc_rs::rand::fill(&mut bytes).expect("the operating system gives random bytes");
    hex::encode(bytes)
}

/// SplitMix64: numbers that look drawn, the same in each run.
pub(crate) fn scrambled(number: u64) -> u64 {
    let mut z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
