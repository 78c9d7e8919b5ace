//! The keys of these tests.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use join_audit::{Key, Policy};
use join_log::{Checkpoint, NoteSigner, SignatureLine, SignedNote, Tree};

pub(crate) const ORIGIN: &str = "join.example/log-a";

/// The secret bytes `first`, `first + 1`, … of a test key.
pub(crate) fn seed(first: u8) -> [u8; 32] {
    std::array::from_fn(|i| first.wrapping_add(i as u8))
}

pub(crate) fn log_signer() -> NoteSigner {
    NoteSigner::from_seed(ORIGIN, &seed(0)).unwrap()
}

pub(crate) fn log_key() -> Key {
    log_signer().verifier_key().to_string().parse().unwrap()
}

pub(crate) fn log_policy() -> Policy {
    Policy::of_logs([log_key()])
}

pub(crate) fn signed(tree: &Tree) -> SignedNote {
    let checkpoint = Checkpoint { origin: ORIGIN.into(), size: tree.size(), root: tree.root() };
    SignedNote::sign(&checkpoint, &[log_signer()])
}

/// A witness that cosigns anything.
pub(crate) struct Witness {
    name: String,
    pair: Ed25519KeyPair,
}

impl Witness {
    pub(crate) fn new(number: u8) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed(0x1f + number)).unwrap();
        Self { name: format!("witness.example/w{number}"), pair }
    }

    fn identity(&self) -> Vec<u8> {
        [&[4], self.pair.public_key().as_ref()].concat()
    }

    fn key_id(&self) -> [u8; 4] {
        let hash = digest(&SHA256, &[self.name.as_bytes(), b"\n", &self.identity()].concat());
        hash.as_ref()[..4].try_into().unwrap()
    }

    pub(crate) fn key(&self) -> String {
        format!("{}+{}+{}", self.name, hex::encode(self.key_id()), BASE64.encode(self.identity()))
    }

    pub(crate) fn cosign(&self, note: &mut SignedNote) {
        let time = 1_700_000_000_u64;
        let signature = self.pair.sign(format!("cosignature/v1\ntime {time}\n{}", note.text()).as_bytes());
        let signature = [&time.to_be_bytes(), signature.as_ref()].concat();
        note.add(SignatureLine { name: self.name.clone(), key_id: self.key_id(), signature });
    }
}
