//! Join state documents: compact JWTs (RFC 7519) signed with EdDSA (RFC 8037).

use aws_lc_rs::constant_time;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use join_domain::proof::JoinState;
use serde_json::json;

use crate::{
    familiar::{Digest, Familiar},
    signer::Ed25519Signer,
};

/// Signs join states. A JOSE library would parse the key, and write the header, for each of them: half as long again.
pub(crate) struct JoinStateSigner {
    /// The header, encoded.
    header: String,
    key: Ed25519Signer,
    /// What was signed a while ago, and will be shown.
    signed: Familiar,
}

impl JoinStateSigner {
    pub(crate) fn new(kid: &str, key: Ed25519Signer) -> Self {
        let header = json!({"typ": "JWT", "alg": "EdDSA", "kid": kid});
        Self { header: URL_SAFE_NO_PAD.encode(header.to_string()), key, signed: Familiar::default() }
    }

    pub(crate) fn sign(&self, document: &JoinState) -> String {
        let claims = serde_json::to_vec(document).expect("names, ids and numbers serialise to JSON");
        let mut token = format!("{}.{}", self.header, URL_SAFE_NO_PAD.encode(claims));
        let signature = self.key.sign(token.as_bytes());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        self.signed.remember(&Digest::of(token.as_bytes()));
        token
    }

    /// What this key has signed, read back.
    pub(crate) fn read_back(&self, token: &[u8]) -> Option<JoinState> {
        let (signed, shown) = std::str::from_utf8(token).ok()?.rsplit_once('.')?;
        let claims = signed.strip_prefix(&self.header)?.strip_prefix('.')?;
        let is_own = self.signed.knows(&Digest::of(token)) || self.would_sign(signed, shown);
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(is_own.then_some(claims)?).ok()?).ok()
    }

    /// An Ed25519 signature is a function of key and message (RFC 8032, section 5.1.6), and making it again takes a
    /// quarter of the time that verifying takes. The comparison takes the same time for every signature: else it would
    /// tell a stranger how to forge one, byte by byte.
    fn would_sign(&self, signed: &str, shown: &str) -> bool {
        let made = URL_SAFE_NO_PAD.encode(self.key.sign(signed.as_bytes()));
        constant_time::verify_slices_are_equal(made.as_bytes(), shown.as_bytes()).is_ok()
    }
}
