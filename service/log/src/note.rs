//! Signed notes (c2sp.org/signed-note), the checkpoints they carry (c2sp.org/tlog-checkpoint), and the log's signature.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::tree::Hash;

/// The longest note that is read, in bytes: room for many signatures, ML-DSA-44 ones too.
const MAX_NOTE: usize = 128 * 1024;

/// Why a note, checkpoint or key is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Not a signed note.
    #[error("this is not a signed note: {0}")]
    Note(&'static str),
    /// Not a checkpoint.
    #[error("this is not a checkpoint: {0}")]
    Checkpoint(&'static str),
    /// Not a key of a kind known here.
    #[error("this is not a verifier key: {0}")]
    Key(&'static str),
}

/// A tree's size and root under the name of its log: what is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's name, unique to this history: never reused for a fork or a restored copy.
    pub origin: String,
    /// The number of entries.
    pub size: u64,
    /// The root hash of the tree of that size.
    pub root: Hash,
}

impl Checkpoint {
    /// The text to sign: origin, size and root, a line each.
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, BASE64.encode(self.root))
    }

    /// Reads the text back. Extension lines are refused: this log writes none.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let lines: Vec<&str> = text.strip_suffix('\n').unwrap_or_default().split('\n').collect();
        let [origin, size, root] = lines[..] else {
            return Err(NoteError::Checkpoint("it has to have the three lines origin, size and root"));
        };
        if origin.is_empty() {
            return Err(NoteError::Checkpoint("the origin is empty"));
        }
        let parsed = size.parse::<u64>().ok().filter(|parsed| parsed.to_string() == size);
        let root = BASE64.decode(root).ok().and_then(|root| Hash::try_from(root).ok());
        Ok(Self {
            origin: origin.to_owned(),
            size: parsed.ok_or(NoteError::Checkpoint("the size is not a plain decimal"))?,
            root: root.ok_or(NoteError::Checkpoint("the root is not 32 bytes in base64"))?,
        })
    }
}

/// One signature line of a note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureLine {
    /// The key's name; with the id it identifies the key.
    pub name: String,
    /// The key's id.
    pub key_id: [u8; 4],
    /// What the key's algorithm makes of the text.
    pub signature: Vec<u8>,
}

/// The line, without its newline.
impl fmt::Display for SignatureLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [&self.key_id, self.signature.as_slice()].concat();
        write!(f, "\u{2014} {} {}", self.name, BASE64.encode(bytes))
    }
}

impl FromStr for SignatureLine {
    type Err = NoteError;

    fn from_str(line: &str) -> Result<Self, NoteError> {
        let parts = line.strip_prefix("\u{2014} ").and_then(|line| line.split_once(' '));
        let (name, bytes) = parts.ok_or(NoteError::Note("a signature line is a dash, a key name and base64"))?;
        check_name(name).map_err(|_| NoteError::Note("a signature line has an invalid key name"))?;
        let bytes = BASE64.decode(bytes).map_err(|_| NoteError::Note("a signature is not base64"))?;
        let (key_id, signature) =
            bytes.split_first_chunk().ok_or(NoteError::Note("a signature is too short to hold its key's id"))?;
        Ok(Self { name: name.to_owned(), key_id: *key_id, signature: signature.to_vec() })
    }
}

/// A text and the signatures over it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedNote {
    text: String,
    signatures: Vec<SignatureLine>,
}

impl SignedNote {
    /// Signs a checkpoint with every signer, in their order.
    ///
    /// Signing cannot be taken back: ask [`rollback::decide`](crate::rollback::decide) first.
    pub fn sign(checkpoint: &Checkpoint, signers: &[NoteSigner]) -> Self {
        let text = checkpoint.text();
        let signatures = signers.iter().map(|signer| signer.sign(&text)).collect();
        Self { text, signatures }
    }

    /// The text that is signed, its last newline included.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The signatures in the order of their lines.
    pub fn signatures(&self) -> &[SignatureLine] {
        &self.signatures
    }

    /// The checkpoint that the text is.
    pub fn checkpoint(&self) -> Result<Checkpoint, NoteError> {
        Checkpoint::parse(&self.text)
    }

    /// Adds a signature, such as a witness's; an older one by the same key goes.
    pub fn add(&mut self, line: SignatureLine) {
        self.signatures.retain(|known| (&known.name, known.key_id) != (&line.name, line.key_id));
        self.signatures.push(line);
    }

    /// Whether the key signed this note, every line under its name and id being good.
    pub fn is_signed_by(&self, key: &VerifierKey) -> bool {
        let mut lines = self.signatures.iter().filter(|line| key.made(line)).peekable();
        lines.peek().is_some() && lines.all(|line| key.verify(&self.text, line))
    }
}

/// The whole note as it is stored and served.
impl fmt::Display for SignedNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl FromStr for SignedNote {
    type Err = NoteError;

    fn from_str(note: &str) -> Result<Self, NoteError> {
        if note.len() > MAX_NOTE {
            return Err(NoteError::Note("it is too long"));
        }
        if note.chars().any(|c| c.is_control() && c != '\n') {
            return Err(NoteError::Note("it holds control characters"));
        }
        let end = note.rfind("\n\n").ok_or(NoteError::Note("no empty line parts text and signatures"))? + 1;
        let lines = note[end + 1..].strip_suffix('\n').ok_or(NoteError::Note("its last line has no end"))?;
        let signatures = lines.split('\n').map(str::parse).collect::<Result<_, _>>()?;
        Ok(Self { text: note[..end].to_owned(), signatures })
    }
}

/// How a key signs. The number is part of the key's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// Ed25519 over the note's text: a log.
    Ed25519 = 0x01,
    /// Ed25519 over time and text: a witness (c2sp.org/tlog-cosignature).
    Cosignature = 0x04,
}

/// A public key with its name, written `name+id+base64`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    kind: KeyKind,
    public_key: [u8; 32],
}

impl VerifierKey {
    /// The key's name; for a log's key the origin of its checkpoints.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first four bytes of `SHA256(name || newline || kind || public key)`.
    pub fn id(&self) -> [u8; 4] {
        let identity = [self.name.as_bytes(), b"\n", &[self.kind as u8], &self.public_key].concat();
        let hash = digest(&SHA256, &identity);
        hash.as_ref().first_chunk().copied().expect("a SHA-256 hash is longer than four bytes")
    }

    /// Whether a line claims to be by this key.
    pub fn made(&self, line: &SignatureLine) -> bool {
        line.name == self.name && line.key_id == self.id()
    }

    /// Whether a line is by this key and right for the text.
    pub fn verify(&self, text: &str, line: &SignatureLine) -> bool {
        let (message, signature) = match self.kind {
            KeyKind::Ed25519 => (text.to_owned(), line.signature.as_slice()),
            KeyKind::Cosignature => {
                let Some((time, signature)) = line.signature.split_first_chunk() else { return false };
                (format!("cosignature/v1\ntime {}\n{text}", u64::from_be_bytes(*time)), signature)
            }
        };
        let key = UnparsedPublicKey::new(&ED25519, &self.public_key);
        self.made(line) && key.verify(message.as_bytes(), signature).is_ok()
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = [&[self.kind as u8], self.public_key.as_slice()].concat();
        write!(f, "{}+{:08x}+{}", self.name, u32::from_be_bytes(self.id()), BASE64.encode(key))
    }
}

impl FromStr for VerifierKey {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let parts = text.split_once('+').and_then(|(name, rest)| Some((name, rest.split_once('+')?)));
        let (name, (_, key)) = parts.ok_or(NoteError::Key("it has to read name+id+base64"))?;
        check_name(name)?;
        let key = BASE64.decode(key).map_err(|_| NoteError::Key("the key is not base64"))?;
        let (kind, public_key) = match key.split_first() {
            Some((0x01, key)) => (KeyKind::Ed25519, key),
            Some((0x04, key)) => (KeyKind::Cosignature, key),
            _ => return Err(NoteError::Key("its kind is not known here, which is Ed25519 for logs and witnesses")),
        };
        let public_key = public_key.try_into().map_err(|_| NoteError::Key("an Ed25519 key has 32 bytes"))?;
        let key = Self { name: name.to_owned(), kind, public_key };
        if key.to_string() == text { Ok(key) } else { Err(NoteError::Key("the id does not belong to name and key")) }
    }
}

/// Whether a key may have that name, and so a log that origin (c2sp.org/signed-note).
pub fn check_name(name: &str) -> Result<(), NoteError> {
    if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '+') {
        return Err(NoteError::Key("a key's name is not empty and has no spaces and no plus sign"));
    }
    Ok(())
}

/// A log's private key: Ed25519 over the note's text. Its name is the log's origin.
pub struct NoteSigner {
    pair: Ed25519KeyPair,
    key: VerifierKey,
}

impl NoteSigner {
    /// A signer from the 32 secret bytes of an Ed25519 key (RFC 8032).
    pub fn from_seed(name: &str, seed: &[u8; 32]) -> Result<Self, NoteError> {
        let rejected = NoteError::Key("the Ed25519 seed was rejected");
        Self::from_key_pair(name, Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| rejected)?)
    }

    /// A signer from a key that was opened elsewhere.
    pub fn from_key_pair(name: &str, pair: Ed25519KeyPair) -> Result<Self, NoteError> {
        check_name(name)?;
        let rejected = NoteError::Key("an Ed25519 key has 32 bytes");
        let public_key = pair.public_key().as_ref().try_into().map_err(|_| rejected)?;
        Ok(Self { pair, key: VerifierKey { name: name.to_owned(), kind: KeyKind::Ed25519, public_key } })
    }

    /// The public half, for those who verify.
    pub fn verifier_key(&self) -> &VerifierKey {
        &self.key
    }

    fn sign(&self, text: &str) -> SignatureLine {
        let signature = self.pair.sign(text.as_bytes()).as_ref().to_vec();
        SignatureLine { name: self.key.name.clone(), key_id: self.key.id(), signature }
    }
}

/// Shows the public half only.
impl fmt::Debug for NoteSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NoteSigner({})", self.key)
    }
}
