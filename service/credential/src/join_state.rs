//! Join state documents: compact JWTs (RFC 7519) signed with EdDSA (RFC 8037).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use join_domain::proof::JoinState;
use serde_json::json;

use crate::signer::Ed25519Signer;

/// Signs join states. A JOSE library would parse the key, and write the header, for each of them: half as long again.
pub(crate) struct JoinStateSigner {
    /// The header, encoded.
    header: String,
    key: Ed25519Signer,
}

impl JoinStateSigner {
    pub(crate) fn new(kid: &str, key: Ed25519Signer) -> Self {
        let header = json!({"typ": "JWT", "alg": "EdDSA", "kid": kid});
        Self { header: URL_SAFE_NO_PAD.encode(header.to_string()), key }
    }

    pub(crate) fn sign(&self, document: &JoinState) -> String {
        let claims = serde_json::to_vec(document).expect("names, ids and numbers serialise to JSON");
        let mut token = format!("{}.{}", self.header, URL_SAFE_NO_PAD.encode(claims));
        let signature = self.key.sign(token.as_bytes());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        token
    }
}
