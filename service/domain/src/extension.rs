//! What a bot's certificate says beyond its name, in an extension of our own.

use serde::{Deserialize, Serialize};
use x509_parser::{
    asn1_rs::{FromDer as _, Oid, ToDer as _, Utf8String},
    certificate::X509Certificate,
};

use crate::id::{InstanceId, Name, TokenId};

/// The extension's object identifier, under the arc that needs no registration (X.667).
pub const EXTENSION_OID: [u64; 3] = [2, 25, 424_518_259_384_859_741];

/// The content of the extension: a DER `UTF8String` that holds this as JSON, so that any tool can show it.
///
/// Not critical: relying parties that don't know it go by the subject alternative name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BotExtension {
    /// The token that it joined with.
    pub token_id: TokenId,
    /// The bot.
    pub bot: Name,
    /// The instance.
    pub instance: InstanceId,
    /// The place in the instance.
    pub generation: u64,
    /// The bot's roles when it joined.
    pub roles: Vec<String>,
}

impl BotExtension {
    /// The extension's value; there is one, as names, ids and numbers are JSON, and text is DER.
    pub fn to_der(&self) -> Option<Vec<u8>> {
        let json = serde_json::to_string(self).ok()?;
        Utf8String::new(&json).to_der_vec().ok()
    }

    /// What a certificate says, when it has the extension.
    pub fn of(certificate: &X509Certificate<'_>) -> Option<Self> {
        let ours = |oid: &Oid<'_>| oid.iter().is_some_and(|arcs| arcs.eq(EXTENSION_OID));
        let extension = certificate.extensions().iter().find(|extension| ours(&extension.oid))?;
        let (_, json) = Utf8String::from_der(extension.value).ok()?;
        serde_json::from_str(json.as_ref()).ok()
    }
}
