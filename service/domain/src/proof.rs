//! The bytes that are signed: challenges and their solutions, and join state documents.
//!
//! Both sides use this module: the authority issues and checks, the agent reads and signs.

use aws_lc_rs::{constant_time::verify_slices_are_equal, digest};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{DecodingKey, EncodingKey, Header};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    Timestamp,
    id::{AttemptId, ChallengeId, InstanceId, Name, TokenId},
    key::{Algorithm, PublicKey},
};

/// How long a challenge can be answered, in seconds.
pub const CHALLENGE_LIFE: i64 = 60;
/// How far before its issue a challenge begins to be valid, in seconds.
pub const NOT_BEFORE_SLACK: i64 = 10;
/// How far two clocks may be apart, in seconds.
pub const LEEWAY: i64 = 60;
/// How long after its issue the solution of a challenge could be shown again, in seconds: it is taken a [`LEEWAY`] after
/// its end, by a node whose clock may be another behind.
pub const REPLAYABLE: i64 = CHALLENGE_LIFE + 2 * LEEWAY;
/// The longest solution or join state that is looked at, in bytes.
pub const MAX_DOCUMENT: usize = 8 * 1024;

/// The public keys for which certificates are asked, as sent: a PKIX DER and an SSH wire form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubjectKeys {
    /// SubjectPublicKeyInfo, DER.
    #[serde(rename = "subject_tls")]
    pub tls: Vec<u8>,
    /// SSH wire form.
    #[serde(rename = "subject_ssh")]
    pub ssh: Vec<u8>,
}

impl SubjectKeys {
    /// SHA-256 over both keys as sent, each preceded by its length (u32, big-endian); base64url.
    pub fn hash(&self) -> String {
        let mut context = digest::Context::new(&digest::SHA256);
        for key in [&self.tls, &self.ssh] {
            context.update(&u32::try_from(key.len()).unwrap_or(u32::MAX).to_be_bytes());
            context.update(key);
        }
        URL_SAFE_NO_PAD.encode(context.finish())
    }
}

/// The challenge: a JSON document that only the holder of one private key can sign. One with further claims is not
/// read: an agent signs nothing that it has not understood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Challenge {
    /// The cluster's name.
    pub iss: String,
    /// The cluster's name again: the document is good for nothing else.
    pub aud: String,
    /// The RFC 7638 thumbprint of the key to sign with.
    pub sub: String,
    /// Issued at, POSIX seconds.
    pub iat: i64,
    /// Not valid before, POSIX seconds.
    pub nbf: i64,
    /// Expires, POSIX seconds.
    pub exp: i64,
    /// 128 random bits or more, hex.
    pub nonce: String,
    /// The attempt that this belongs to, when the client named one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt_id: Option<AttemptId>,
    /// [`SubjectKeys::hash`] of the keys that the certificates will be for.
    pub subject_keys: String,
}

impl Challenge {
    /// A challenge for `key`, valid from now for [`CHALLENGE_LIFE`].
    pub fn issue(
        cluster: &Name,
        key: &PublicKey,
        attempt: Option<AttemptId>,
        subject_keys: String,
        nonce: [u8; 32],
        now: Timestamp,
    ) -> Self {
        let iat = now.timestamp();
        Self {
            iss: cluster.to_string(),
            aud: cluster.to_string(),
            sub: key.thumbprint(),
            iat,
            nbf: iat.saturating_sub(NOT_BEFORE_SLACK),
            exp: iat.saturating_add(CHALLENGE_LIFE),
            nonce: hex::encode(nonce),
            attempt_id: attempt,
            subject_keys,
        }
    }

    /// The document as it is sent.
    pub fn to_document(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// An id for records, from which the nonce can't be found.
    pub fn id(&self) -> ChallengeId {
        let hash = digest::digest(&digest::SHA256, self.nonce.as_bytes());
        let mut bytes = [0; 16];
        bytes.iter_mut().zip(hash.as_ref()).for_each(|(to, from)| *to = *from);
        ChallengeId(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }

    /// Checks a solution: a compact JWS over exactly `document`, by exactly `key`, in time.
    ///
    /// # Errors
    /// [`SolutionError`] says what was wrong, for the log; clients learn only that it failed.
    pub fn check(&self, document: &str, key: &PublicKey, solution: &[u8], now: Timestamp) -> Result<(), SolutionError> {
        if solution.len() > MAX_DOCUMENT {
            return Err(SolutionError::Malformed);
        }
        let solution = Jws::read(solution)?;
        if solution.header.typ.as_deref() != Some("JWT") {
            return Err(SolutionError::Malformed);
        }
        solution.verify(key)?;
        // What was signed must be the issued document byte for byte, the nonce with it: compared in constant time.
        verify_slices_are_equal(solution.payload.as_bytes(), URL_SAFE_NO_PAD.encode(document).as_bytes())
            .map_err(|_| SolutionError::OtherDocument)?;
        let at = now.timestamp();
        if at < self.nbf.saturating_sub(LEEWAY) || at > self.exp.saturating_add(LEEWAY) {
            return Err(SolutionError::Expired);
        }
        Ok(())
    }

    /// The agent's side: reads a challenge and makes sure that it is its own before anything is signed.
    ///
    /// # Errors
    /// [`UnfitChallenge`] names the claim that is not the client's own.
    pub fn read(
        document: &str,
        cluster: &str,
        key: &PublicKey,
        attempt: Option<&AttemptId>,
        subject_keys: &str,
    ) -> Result<Self, UnfitChallenge> {
        let challenge: Self = serde_json::from_str(document).map_err(|_| UnfitChallenge("document"))?;
        let checks = [
            ("aud", challenge.aud == cluster),
            ("iss", challenge.iss == cluster),
            ("sub", challenge.sub == key.thumbprint()),
            ("attempt_id", challenge.attempt_id.as_ref() == attempt),
            ("subject_keys", challenge.subject_keys == subject_keys),
        ];
        match checks.into_iter().find(|(_, fits)| !fits) {
            Some((claim, _)) => Err(UnfitChallenge(claim)),
            None => Ok(challenge),
        }
    }
}

/// Why a solution fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SolutionError {
    /// Not a compact JWS with the expected header.
    #[error("the solution is not a compact JWS of type JWT")]
    Malformed,
    /// Signature or algorithm do not fit the challenged key.
    #[error("the signature is not by the challenged key")]
    BadSignature,
    /// The signed payload is another document.
    #[error("the signed document is not the issued one")]
    OtherDocument,
    /// Answered too late (or, by the claims, too early).
    #[error("the challenge has expired")]
    Expired,
}

/// A challenge that the agent must not sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the challenge's `{0}` is not this client's own; nothing was signed")]
pub struct UnfitChallenge(pub &'static str);

/// A private key that signs solutions or join states.
pub struct SigningKey {
    key: EncodingKey,
    algorithm: Algorithm,
}

impl SigningKey {
    /// Takes a PKCS#8 DER private key; `algorithm` is that of its public half.
    pub fn from_pkcs8(der: &[u8], algorithm: Algorithm) -> Self {
        let key = match algorithm {
            Algorithm::EdDsa => EncodingKey::from_ed_der(der),
            Algorithm::Es256 => EncodingKey::from_ec_der(der),
        };
        Self { key, algorithm }
    }

    /// Signs a challenge document as it stands: the payload is its bytes.
    ///
    /// # Errors
    /// [`SigningError`] when the document is not JSON or the key can't sign.
    pub fn solve(&self, document: &str) -> Result<String, SigningError> {
        let payload = RawValue::from_string(document.to_owned()).map_err(|_| SigningError)?;
        jsonwebtoken::encode(&Header::new(jose(self.algorithm)), &payload, &self.key).map_err(|_| SigningError)
    }
}

/// A key that does not sign, or a document that is not JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the key cannot sign this document")]
pub struct SigningError;

/// The claims of a join state document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinState {
    /// The cluster's name.
    pub iss: String,
    /// The cluster's name.
    pub aud: String,
    /// The bot's name.
    pub sub: String,
    /// Issued at, POSIX seconds: the time of the accepted join.
    pub iat: i64,
    /// Not valid before, POSIX seconds.
    pub nbf: i64,
    /// The instance that is bound after the join.
    pub bot_instance_id: InstanceId,
    /// The recovery count after the join.
    pub recovery_sequence: u32,
    /// Informational.
    pub recovery_limit: u32,
    /// Informational.
    pub recovery_mode: String,
    /// The token, by id: one made again under the name is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_id: Option<TokenId>,
}

impl JoinState {
    /// Signs the document; `kid` names the key in the header.
    ///
    /// # Errors
    /// [`SigningError`] when the key can't sign.
    pub fn sign(&self, kid: &str, key: &SigningKey) -> Result<String, SigningError> {
        let header = Header { kid: Some(kid.to_owned()), ..Header::new(jose(key.algorithm)) };
        jsonwebtoken::encode(&header, self, &key.key).map_err(|_| SigningError)
    }

    /// Opens a document under one of the cluster's keys: known `kid`, signature, issuer and audience.
    ///
    /// # Errors
    /// [`JoinStateError`] says what was wrong.
    pub fn open<'k>(
        document: &[u8],
        cluster: &Name,
        key_of: impl Fn(&str) -> Option<&'k PublicKey>,
    ) -> Result<Self, JoinStateError> {
        if document.len() > MAX_DOCUMENT {
            return Err(JoinStateError::Malformed);
        }
        let document = Jws::read(document).map_err(|_| JoinStateError::Malformed)?;
        let kid = document.header.kid.as_deref().ok_or(JoinStateError::Malformed)?;
        let key = key_of(kid).ok_or(JoinStateError::UnknownKey)?;
        document.verify(key).map_err(|error| match error {
            SolutionError::BadSignature => JoinStateError::BadSignature,
            _ => JoinStateError::Malformed,
        })?;
        let claims = URL_SAFE_NO_PAD.decode(document.payload).map_err(|_| JoinStateError::Malformed)?;
        let claims: Self = serde_json::from_slice(&claims).map_err(|_| JoinStateError::Malformed)?;
        if claims.iss != cluster.as_str() || claims.aud != cluster.as_str() {
            return Err(JoinStateError::OtherCluster);
        }
        Ok(claims)
    }
}

/// The key id that a compact JWS names, verified or not.
pub fn key_id(document: &[u8]) -> Option<String> {
    if document.len() > MAX_DOCUMENT {
        return None;
    }
    jsonwebtoken::decode_header(document).ok()?.kid
}

/// Why a join state document is not authentic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum JoinStateError {
    /// Not a JWT of the expected shape.
    #[error("it is not a join state document")]
    Malformed,
    /// Signed with a key that this cluster does not have.
    #[error("it names a key that is not this cluster's")]
    UnknownKey,
    /// The signature does not hold.
    #[error("its signature does not hold")]
    BadSignature,
    /// Another cluster's document.
    #[error("it is of another cluster")]
    OtherCluster,
}

fn jose(algorithm: Algorithm) -> jsonwebtoken::Algorithm {
    match algorithm {
        Algorithm::EdDsa => jsonwebtoken::Algorithm::EdDSA,
        Algorithm::Es256 => jsonwebtoken::Algorithm::ES256,
    }
}

/// A compact JWS (RFC 7515, section 7.1), taken apart.
struct Jws<'a> {
    header: Header,
    /// Header and payload as they were signed.
    signed: &'a str,
    /// Base64url.
    payload: &'a str,
    /// Base64url.
    signature: &'a str,
}

impl<'a> Jws<'a> {
    fn read(jws: &'a [u8]) -> Result<Self, SolutionError> {
        let header = jsonwebtoken::decode_header(jws).map_err(|_| SolutionError::Malformed)?;
        // RFC 7515, section 4.1.11: an extension that must be understood, and is not, makes the signature worth nothing.
        if header.crit.is_some() {
            return Err(SolutionError::Malformed);
        }
        let parts = str::from_utf8(jws).ok().and_then(|jws| jws.rsplit_once('.'));
        let parts = parts.and_then(|(signed, signature)| Some((signed, signed.rsplit_once('.')?.1, signature)));
        let (signed, payload, signature) = parts.ok_or(SolutionError::Malformed)?;
        Ok(Self { header, signed, payload, signature })
    }

    /// Under exactly `key`, with its algorithm; what the payload says is the caller's to judge.
    fn verify(&self, key: &PublicKey) -> Result<(), SolutionError> {
        let algorithm = jose(key.algorithm());
        let key = match key.algorithm() {
            Algorithm::EdDsa => DecodingKey::from_ed_der(key.raw()),
            Algorithm::Es256 => DecodingKey::from_ec_der(key.raw()),
        };
        let holds = self.header.alg == algorithm
            && jsonwebtoken::crypto::verify(self.signature, self.signed.as_bytes(), &key, algorithm)
                .map_err(|_| SolutionError::Malformed)?;
        if holds { Ok(()) } else { Err(SolutionError::BadSignature) }
    }
}
