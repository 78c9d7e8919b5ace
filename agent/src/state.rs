//! What the agent remembers: one document, replaced whole, with a checksum of its own.
//!
//! ```text
//!             begin                  accept
//!   no attempt ────▶ pending attempt ────▶ no attempt, newer credentials
//!                     │  ▲
//!                     └──┘ offer a key · refused · connection lost · restarted
//! ```

use chrono::{DateTime, Utc};
use join_domain::{
    id::{AttemptId, Name},
    key::PublicKey,
    proof::SubjectKeys,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use crate::{credentials::Credentials, key::PrivateKey};

const VERSION: u32 = 1;

/// Everything that must survive a restart.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Keypairs that are bound or may be: the one that the last result named, and any that came since without a result.
    pub keys: Vec<PrivateKey>,
    /// What the last accepted join brought.
    pub accepted: Option<Accepted>,
    /// The attempt that is under way, until its result is stored.
    pub pending: Option<Attempt>,
}

/// What an accepted join brought.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accepted {
    /// The cluster, as its verified server certificate names it.
    pub cluster: String,
    /// The token's name.
    pub token: Name,
    /// The key that was bound then, in authorized_keys form.
    pub bound_key: PublicKey,
    /// The document to present at the next attempt.
    pub join_state: String,
    /// Certificates, their key, and what to trust.
    pub credentials: Credentials,
    /// When the result was stored.
    pub stored_at: DateTime<Utc>,
}

/// One attempt to join. All of it is sent again, unchanged, until a result is stored: so a lost answer is asked for
/// again, and never looks like a second holder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attempt {
    /// Its name.
    pub id: AttemptId,
    /// The key that the certificates will be for.
    pub subject: PrivateKey,
    /// New keypairs made in it to be bound, in the order in which they are offered.
    pub offers: Vec<PrivateKey>,
    /// When it began.
    pub began_at: DateTime<Utc>,
}

impl Attempt {
    /// The subject keys as they are sent.
    pub fn subject_keys(&self) -> SubjectKeys {
        SubjectKeys { tls: self.subject.spki().to_vec(), ssh: self.subject.ssh_wire() }
    }
}

impl State {
    /// Every keypair held: one of these is the bound one, if any is.
    pub fn held(&self) -> impl Iterator<Item = &PrivateKey> {
        self.keys.iter().chain(self.pending.iter().flat_map(|attempt| &attempt.offers))
    }

    /// The state after a result: the attempt is over, and only now keys that are not bound may go.
    pub fn accept(self, accepted: Accepted) -> Self {
        let bound = self.held().find(|key| *key.public() == accepted.bound_key).cloned();
        Self { keys: bound.into_iter().collect(), accepted: Some(accepted), pending: None }
    }

    /// The document as it is stored.
    pub fn to_document(&self) -> Zeroizing<Vec<u8>> {
        let state = serde_json::value::to_raw_value(self).expect("a state has no maps with odd keys");
        let document = Document { version: VERSION, sha256: checksum(&state), state };
        Zeroizing::new(serde_json::to_vec(&document).expect("a document has no maps with odd keys"))
    }

    /// Reads a stored document.
    ///
    /// # Errors
    /// What does not fit, in words, when it is not exactly what was written.
    pub fn from_document(document: &[u8]) -> Result<Self, String> {
        let document: Document =
            serde_json::from_slice(document).map_err(|_| "it is cut off or not JSON".to_owned())?;
        if document.version != VERSION {
            return Err(format!("it has version {}, this joinbot reads version {VERSION}", document.version));
        }
        if checksum(&document.state) != document.sha256 {
            return Err("its checksum does not fit its contents".to_owned());
        }
        serde_json::from_str(document.state.get()).map_err(|error| format!("it does not hold a state: {error}"))
    }
}

#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    /// Of the bytes of `state` as they stand.
    sha256: String,
    state: Box<RawValue>,
}

fn checksum(state: &RawValue) -> String {
    hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, state.get().as_bytes()))
}
