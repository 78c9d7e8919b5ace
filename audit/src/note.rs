//! Reading signed notes and verifying their signatures (c2sp.org/signed-note, c2sp.org/tlog-cosignature).

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

/// The longest note that is read, in bytes.
pub(crate) const MAX_NOTE: usize = 256 * 1024;

/// A text with signature lines, none of them verified yet.
#[derive(Debug)]
pub(crate) struct Note<'a> {
    /// What is signed, its last newline included.
    pub(crate) text: &'a str,
    lines: Vec<Line<'a>>,
}

#[derive(Debug)]
struct Line<'a> {
    name: &'a str,
    /// Key id and signature.
    bytes: Vec<u8>,
}

impl<'a> Note<'a> {
    /// Takes a note apart; the error says what is not as it should be.
    pub(crate) fn parse(note: &'a str) -> Result<Self, &'static str> {
        if note.len() > MAX_NOTE {
            return Err("it is too long");
        }
        if note.bytes().any(|byte| byte == 0x7f || (byte < 0x20 && byte != b'\n')) {
            return Err("it holds control characters");
        }
        let (text, lines) = note.rsplit_once("\n\n").ok_or("it has no empty line before the signatures")?;
        let text = &note[..=text.len()];
        let lines = lines.strip_suffix('\n').ok_or("its last line has no end")?;
        Ok(Self { text, lines: lines.split('\n').map(Line::parse).collect::<Result<_, _>>()? })
    }

    /// What the key says to this note.
    pub(crate) fn by(&self, key: &Key) -> Signed {
        let mut outcome = Signed::Not;
        for line in self.lines.iter().filter(|line| key.claims(line)) {
            if !key.verifies(self.text, &line.bytes[4..]) {
                return Signed::Wrongly;
            }
            outcome = Signed::Well;
        }
        outcome
    }
}

/// What a key says to a note.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signed {
    /// Nothing: there is no line by it.
    Not,
    /// All lines by it are good.
    Well,
    /// A line claims to be by it and is not: the note is to be rejected.
    Wrongly,
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Result<Self, &'static str> {
        let (name, signature) = line
            .strip_prefix("\u{2014} ")
            .and_then(|line| line.split_once(' '))
            .ok_or("a signature line is not a dash, a name and a signature")?;
        let bytes = BASE64.decode(signature).map_err(|_| "a signature is not base64")?;
        if name.is_empty() || name.contains('+') || bytes.len() <= 4 {
            return Err("a signature line has an impossible name or signature");
        }
        Ok(Self { name, bytes })
    }
}

/// Text that is not a verifier key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a verifier key: {why}")]
pub struct KeyError {
    text: String,
    why: &'static str,
}

/// What a key signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyKind {
    /// Checkpoints: Ed25519 over the text (0x01).
    Log,
    /// Cosignatures: Ed25519 over time and text (0x04).
    Witness,
    /// ML-DSA-44 (0x06): its lines are skipped, as those of unknown keys are.
    Unsupported,
}

/// A verifier key: `name+id+base64`, as a log or a witness publishes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    text: String,
    name: String,
    id: [u8; 4],
    pub(crate) kind: KeyKind,
    pub(crate) public: Vec<u8>,
}

impl Key {
    /// The key's name; for a log the origin of its checkpoints.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn claims(&self, line: &Line<'_>) -> bool {
        line.name == self.name && line.bytes.starts_with(&self.id) && self.kind != KeyKind::Unsupported
    }

    fn verifies(&self, text: &str, signature: &[u8]) -> bool {
        let key = UnparsedPublicKey::new(&ED25519, &self.public);
        match (self.kind, signature.split_first_chunk::<8>()) {
            (KeyKind::Log, _) => key.verify(text.as_bytes(), signature).is_ok(),
            (KeyKind::Witness, Some((time, signature))) => {
                let cosigned = format!("cosignature/v1\ntime {}\n{text}", u64::from_be_bytes(*time));
                key.verify(cosigned.as_bytes(), signature).is_ok()
            }
            (KeyKind::Witness, None) | (KeyKind::Unsupported, _) => false,
        }
    }

    fn read(text: &str) -> Result<Self, &'static str> {
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err("it should read name+id+base64");
        };
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err("the name is empty or has a space in it");
        }
        let key = BASE64.decode(key).map_err(|_| "the key is not base64")?;
        let (kind, public) = match key.split_first() {
            Some((0x01, key)) if key.len() == 32 => (KeyKind::Log, key),
            Some((0x04, key)) if key.len() == 32 => (KeyKind::Witness, key),
            Some((0x06, key)) if key.len() == 1312 => (KeyKind::Unsupported, key),
            _ => return Err("it is not an Ed25519 key of a log or a witness, nor an ML-DSA-44 key"),
        };
        let hash = digest(&SHA256, &[name.as_bytes(), b"\n", &key].concat());
        let own_id = *hash.as_ref().first_chunk().expect("SHA-256 has 32 bytes");
        if id != hex::encode(own_id) {
            return Err("the id is not that of name and key");
        }
        Ok(Self { text: text.to_owned(), name: name.to_owned(), id: own_id, kind, public: public.to_vec() })
    }
}

impl FromStr for Key {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::read(text).map_err(|why| KeyError { text: text.chars().take(120).collect(), why })
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
