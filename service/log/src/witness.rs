//! The log's side of witnessing (c2sp.org/tlog-witness): a witness cosigns what is consistent with all it saw before.

use std::fmt::Write;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::note::{NoteError, SignatureLine, SignedNote, VerifierKey};
use crate::proof::{ProofError, TileReader, prove_consistency};

/// How often a checkpoint is sent at most: the witness's answer 409 tells the size to start from.
const TRIES: u32 = 3;

/// A witness's HTTP answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The header `Content-Type`, if there is one.
    pub content_type: Option<String>,
    /// The body. Whoever reads it from the network bounds its length; 16 KiB are plenty.
    pub body: String,
}

/// Why a witness did not cosign.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    /// It saw a larger tree than this one: this node lags behind, or the log was rolled back.
    #[error(
        "the witness has seen {witnessed} entries, this checkpoint has {size}: the log was rolled back, or this node lags behind"
    )]
    Ahead {
        /// The size that the witness cosigned.
        witnessed: u64,
        /// The size of the checkpoint sent.
        size: u64,
    },
    /// It saw another history under this origin (409 at the right size, or 422).
    #[error("the witness has seen another history of this log, at {old} entries: {said}")]
    Inconsistent {
        /// The size from which consistency was to be shown.
        old: u64,
        /// The witness's words.
        said: String,
    },
    /// It does not know this log (404).
    #[error("the witness does not know this log's origin: have its operator add the log's verifier key")]
    UnknownLog,
    /// It trusts none of the signatures (403).
    #[error("the witness trusts none of the checkpoint's signatures: has the log's key changed?")]
    Untrusted,
    /// It said 200 without a good signature by the key configured for it.
    #[error("the witness answered without a good signature by {0}")]
    NotCosigned(String),
    /// It kept answering 409.
    #[error("the witness changed its mind about its size {TRIES} times")]
    TooManyTries,
    /// Any other answer.
    #[error("the witness answered {status}: {said}")]
    Refused {
        /// The HTTP status code.
        status: u16,
        /// The witness's words.
        said: String,
    },
    /// The note to be cosigned is not a checkpoint.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The consistency proof could not be built.
    #[error(transparent)]
    Proof(#[from] ProofError),
}

/// A checkpoint on its way to one witness. Post [`body`](Self::body) to `<prefix>/add-checkpoint`, hand the answer to
/// [`take`](Self::take), and again until it returns the cosignature. The network, and patience, are the caller's.
#[derive(Debug)]
pub struct Submission<'a, R> {
    reader: &'a R,
    note: &'a SignedNote,
    witness: &'a VerifierKey,
    size: u64,
    old: u64,
    tries: u32,
}

impl<'a, R: TileReader> Submission<'a, R> {
    /// Starts with `old`, the size that the witness is believed to have cosigned last; 0 when that is not known.
    pub fn new(reader: &'a R, note: &'a SignedNote, witness: &'a VerifierKey, old: u64) -> Result<Self, WitnessError> {
        let size = note.checkpoint()?.size;
        if old > size {
            return Err(WitnessError::Ahead { witnessed: old, size });
        }
        Ok(Self { reader, note, witness, size, old, tries: 0 })
    }

    /// The body to post now.
    pub fn body(&self) -> Result<String, WitnessError> {
        let mut body = format!("old {}\n", self.old);
        for hash in prove_consistency(self.reader, self.old, self.size)? {
            writeln!(body, "{}", BASE64.encode(hash)).expect("a string takes all");
        }
        write!(body, "\n{}", self.note).expect("a string takes all");
        Ok(body)
    }

    /// Takes the witness's answer: the verified cosignature, or `None` to post again with the new body.
    pub fn take(&mut self, answer: &Answer) -> Result<Option<SignatureLine>, WitnessError> {
        self.tries += 1;
        match answer.status {
            200 => self.cosignature(&answer.body).map(Some),
            403 => Err(WitnessError::Untrusted),
            404 => Err(WitnessError::UnknownLog),
            409 => self.start_from(answer).map(|()| None),
            422 => Err(WitnessError::Inconsistent { old: self.old, said: excerpt(&answer.body) }),
            status => Err(WitnessError::Refused { status, said: excerpt(&answer.body) }),
        }
    }

    fn cosignature(&self, body: &str) -> Result<SignatureLine, WitnessError> {
        let mut lines = body.lines().filter_map(|line| line.parse::<SignatureLine>().ok());
        let good = lines.find(|line| self.witness.verify(self.note.text(), line));
        good.ok_or_else(|| WitnessError::NotCosigned(self.witness.name().to_owned()))
    }

    fn start_from(&mut self, answer: &Answer) -> Result<(), WitnessError> {
        let size_follows = answer.content_type.as_deref().is_some_and(|kind| kind.starts_with("text/x.tlog.size"));
        let witnessed = answer.body.trim_end().parse::<u64>().ok().filter(|_| size_follows);
        match witnessed {
            Some(witnessed) if witnessed > self.size => Err(WitnessError::Ahead { witnessed, size: self.size }),
            // It says that it is where we began: then it is the roots that differ.
            Some(old) if old == self.old => {
                Err(WitnessError::Inconsistent { old, said: "same size, another root".to_owned() })
            }
            Some(_) if self.tries >= TRIES => Err(WitnessError::TooManyTries),
            Some(old) => {
                self.old = old;
                Ok(())
            }
            None => Err(WitnessError::Refused { status: 409, said: excerpt(&answer.body) }),
        }
    }
}

/// Where a witness shows its latest checkpoint of a log, below its monitoring prefix. Ask it before signing after a restore.
pub fn monitoring_path(origin: &str) -> String {
    format!("{}/checkpoint", hex::encode(digest(&SHA256, origin.as_bytes())))
}

/// The first words of a stranger's text, fit for one line of a log.
fn excerpt(body: &str) -> String {
    body.chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim_end().to_owned()
}
