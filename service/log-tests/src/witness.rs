//! A small but real witness (c2sp.org/tlog-witness), without its network.

use aws_lc_rs::{
    digest::{SHA256, digest},
    signature::{Ed25519KeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use join_log::{Hash, SignatureLine, SignedNote, Tree, VerifierKey, witness::Answer};

use crate::is_consistent;

const NAME: &str = "witness.example/w1";

/// Cosigns what is consistent with all it saw before of the one log that it knows.
pub struct Witness {
    pair: Ed25519KeyPair,
    log: Option<VerifierKey>,
    size: u64,
    root: Hash,
}

impl Default for Witness {
    /// One with the key of the test vectors, that knows no log.
    fn default() -> Self {
        let seed: [u8; 32] = std::array::from_fn(|at| 0x20 + at as u8);
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).expect("a seed has 32 bytes");
        Self { pair, log: None, size: 0, root: Tree::default().root() }
    }
}

impl Witness {
    /// The key that it cosigns with.
    pub fn key(&self) -> VerifierKey {
        let key = BASE64.encode([&[4], self.pair.public_key().as_ref()].concat());
        let id = u32::from_be_bytes(self.key_id());
        format!("{NAME}+{id:08x}+{key}").parse().expect("its id is that of its key")
    }

    /// It is told of a log.
    pub fn knows(&mut self, log: VerifierKey) {
        self.log = Some(log);
    }

    /// It has seen more than anybody else.
    pub fn has_seen(&mut self, size: u64) {
        self.size = size;
    }

    /// It has cosigned a tree of this size and root.
    pub fn has_cosigned(&mut self, size: u64, root: Hash) {
        (self.size, self.root) = (size, root);
    }

    /// The answer to what is posted to `add-checkpoint`; `time` is in seconds of UNIX.
    ///
    /// # Panics
    /// When that is not as specified: what is tested sends nothing else.
    pub fn answer(&mut self, body: &str, time: u64) -> Answer {
        let (head, note) = body.split_once("\n\n").expect("an empty line before the note");
        let (old, proof) = beginning(head).expect("`old` with a size, and hashes in base64");
        let note: SignedNote = note.parse().expect("a signed note");
        let checkpoint = note.checkpoint().expect("a checkpoint in the note");
        let answer = |status, body: &str| Answer { status, content_type: None, body: body.to_owned() };

        let Some(log) = self.log.as_ref().filter(|log| log.name() == checkpoint.origin) else {
            return answer(404, "unknown log");
        };
        if !note.is_signed_by(log) {
            return answer(403, "untrusted");
        }
        if old > checkpoint.size {
            return answer(400, "old is above the size");
        }
        if old != self.size {
            let content_type = Some("text/x.tlog.size".to_owned());
            return Answer { status: 409, content_type, body: format!("{}\n", self.size) };
        }
        if !is_consistent(old, self.root, checkpoint.size, checkpoint.root, &proof) {
            return answer(422, "inconsistent\n");
        }
        self.has_cosigned(checkpoint.size, checkpoint.root);
        answer(200, &format!("{}\n", self.cosign(note.text(), time)))
    }

    /// Its signature of a note's text (c2sp.org/tlog-cosignature), whatever that says.
    pub fn cosign(&self, text: &str, time: u64) -> SignatureLine {
        let signature = self.pair.sign(format!("cosignature/v1\ntime {time}\n{text}").as_bytes());
        let signature = [&time.to_be_bytes(), signature.as_ref()].concat();
        SignatureLine { name: NAME.to_owned(), key_id: self.key_id(), signature }
    }

    fn key_id(&self) -> [u8; 4] {
        let identity = [NAME.as_bytes(), b"\n\x04", self.pair.public_key().as_ref()].concat();
        *digest(&SHA256, &identity).as_ref().first_chunk().expect("a digest has 32 bytes")
    }
}

/// The size that the log believes it has seen, and the proof from there.
fn beginning(head: &str) -> Option<(u64, Vec<Hash>)> {
    let mut lines = head.lines();
    let old = lines.next()?.strip_prefix("old ")?.parse().ok()?;
    let hash = |line| BASE64.decode(line).ok()?.try_into().ok();
    Some((old, lines.map(hash).collect::<Option<_>>()?))
}
