//! What a bot's certificate says beyond its name, in an extension of our own.

use join_domain::id::{InstanceId, Name, TokenId};
use serde::{Deserialize, Serialize};
use x509_parser::{
    asn1_rs::{FromDer as _, Oid, ToDer as _, Utf8String},
    certificate::X509Certificate,
};

/// The extension's object identifier, under the arc that needs no registration (X.667).
pub(crate) const OID: [u64; 3] = [2, 25, 424_518_259_384_859_741];

/// The content of the extension: a DER `UTF8String` that holds this as JSON, so that any tool can show it.
///
/// Not critical: relying parties that don't know it go by the subject alternative name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BotClaims {
    pub(crate) token_id: TokenId,
    pub(crate) bot: Name,
    pub(crate) instance: InstanceId,
    pub(crate) generation: u64,
    pub(crate) roles: Vec<String>,
}

impl BotClaims {
    pub(crate) fn to_der(&self) -> Vec<u8> {
        let json = serde_json::to_string(self).expect("names, ids and numbers serialise to JSON");
        Utf8String::new(&json).to_der_vec().expect("text encodes to DER")
    }

    /// The claims in a certificate, when it has the extension.
    pub(crate) fn of(certificate: &X509Certificate<'_>) -> Option<Self> {
        let ours = |oid: &Oid<'_>| oid.iter().is_some_and(|arcs| arcs.eq(OID));
        let extension = certificate.extensions().iter().find(|extension| ours(&extension.oid))?;
        let (_, json) = Utf8String::from_der(extension.value).ok()?;
        serde_json::from_str(json.as_ref()).ok()
    }
}
