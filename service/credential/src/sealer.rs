//! Sealing: authenticated encryption and keyed hashes under one 256-bit secret.

use aws_lc_rs::{
    aead::{self, Aad, LessSafeKey, Nonce, UnboundKey},
    hkdf, hmac, rand,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret as _, SecretBox};
use serde::{Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

/// The longest sealed token that is looked at, in characters.
pub const MAX_TOKEN: usize = 64 * 1024;

/// The first byte of everything sealed, so that another format can follow.
const FORMAT: u8 = 1;
/// Random bytes from which the key of one message is derived.
const SALT: usize = 32;

/// Seals data and computes keyed hashes.
///
/// Each purpose has keys of its own (HKDF-SHA-256), so that nothing sealed for one purpose opens for another.
#[derive(Debug)]
pub struct Sealer(SecretBox<[u8; 32]>);

/// Sealed data that does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the sealed data is damaged, or was sealed with another key, for another purpose or under another id")]
pub struct OpenError;

impl Sealer {
    /// A sealer with a new random secret.
    pub fn generate() -> Self {
        Self(SecretBox::init_with_mut(|secret: &mut [u8; 32]| random(secret)))
    }

    /// A sealer with this secret.
    pub fn new(secret: &[u8; 32]) -> Self {
        Self(SecretBox::init_with_mut(|copy: &mut [u8; 32]| copy.copy_from_slice(secret)))
    }

    pub(crate) fn secret(&self) -> &[u8; 32] {
        self.0.expose_secret()
    }

    /// Encrypts with AES-256-GCM; opens only for the same purpose and id.
    ///
    /// Every message has a key of its own, derived from 32 random bytes: any number of messages can be sealed.
    pub fn seal(&self, purpose: &str, id: &str, plaintext: &[u8]) -> Vec<u8> {
        let mut salt = [0; SALT];
        random(&mut salt);
        let mut text = plaintext.to_vec();
        let tag = self
            .message_key(&salt, purpose)
            .seal_in_place_separate_tag(only_nonce(), Aad::from(context(purpose, id)), &mut text)
            .expect("AES-256-GCM seals anything below 64 GiB");
        [&[FORMAT], salt.as_slice(), &text, tag.as_ref()].concat()
    }

    /// Decrypts what [`seal`](Self::seal) made.
    ///
    /// # Errors
    /// [`OpenError`] when anything differs: data, purpose, id or secret.
    pub fn open(&self, purpose: &str, id: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let body = sealed.strip_prefix(&[FORMAT]).ok_or(OpenError)?;
        let (salt, ciphertext) = body.split_at_checked(SALT).ok_or(OpenError)?;
        let mut text = Zeroizing::new(ciphertext.to_vec());
        let length = self
            .message_key(salt, purpose)
            .open_in_place(only_nonce(), Aad::from(context(purpose, id)), &mut text)
            .map_err(|_| OpenError)?
            .len();
        text.truncate(length);
        Ok(text)
    }

    /// Seals a value into text that a client carries and can neither read nor change (base64url).
    pub fn seal_token<T: Serialize>(&self, purpose: &str, value: &T) -> String {
        let json = Zeroizing::new(serde_json::to_vec(value).expect("a value of this service serialises to JSON"));
        URL_SAFE_NO_PAD.encode(self.seal(purpose, "", &json))
    }

    /// Opens what [`seal_token`](Self::seal_token) made.
    ///
    /// # Errors
    /// [`OpenError`] when it was changed, is of another purpose or shape, or is longer than [`MAX_TOKEN`].
    pub fn open_token<T: DeserializeOwned>(&self, purpose: &str, token: &str) -> Result<T, OpenError> {
        if token.len() > MAX_TOKEN {
            return Err(OpenError);
        }
        let sealed = URL_SAFE_NO_PAD.decode(token).map_err(|_| OpenError)?;
        serde_json::from_slice(&self.open(purpose, "", &sealed)?).map_err(|_| OpenError)
    }

    /// The keyed hash of one purpose.
    pub fn keyed_hash(&self, purpose: &str) -> KeyedHash {
        let prk = hkdf::Salt::none(hkdf::HKDF_SHA256).extract(self.secret());
        let info = [b"join keyed hash\n".as_slice(), purpose.as_bytes()];
        KeyedHash(prk.expand(&info, hmac::HMAC_SHA256).expect("32 bytes can be derived").into())
    }

    fn message_key(&self, salt: &[u8], purpose: &str) -> LessSafeKey {
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(self.secret());
        let info = [b"join seal\n".as_slice(), purpose.as_bytes()];
        let key = prk.expand(&info, &aead::AES_256_GCM).expect("32 bytes can be derived");
        LessSafeKey::new(UnboundKey::from(key))
    }
}

/// HMAC-SHA-256 under a key of one purpose: without it nobody can test guesses against what is stored.
#[derive(Debug)]
pub struct KeyedHash(hmac::Key);

impl KeyedHash {
    /// The hash of data.
    pub fn hash(&self, data: &[u8]) -> [u8; 32] {
        hmac::sign(&self.0, data).as_ref().try_into().expect("an HMAC-SHA-256 tag has 32 bytes")
    }
}

/// A key that seals one message needs no more than one nonce.
fn only_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; aead::NONCE_LEN])
}

/// What a seal is bound to. The purpose is length-prefixed, so that no two pairs give the same bytes.
fn context(purpose: &str, id: &str) -> Vec<u8> {
    let length = u64::try_from(purpose.len()).expect("a length fits 64 bits");
    [&length.to_be_bytes(), purpose.as_bytes(), id.as_bytes()].concat()
}

pub(crate) fn random(bytes: &mut [u8]) {
    rand::fill(bytes).expect("the system has random numbers");
}
