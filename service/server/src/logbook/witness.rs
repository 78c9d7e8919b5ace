//! Witnesses of the verifiable log: each cosigns what is consistent with all it has seen before.

use std::time::{Duration, Instant};

use join_log::{
    Checkpoint, SignatureLine, SignedNote, TileReader, VerifierKey, root_at,
    witness::{Answer, Submission, WitnessError, monitoring_path},
};

use crate::config;

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// The longest answer that is read, in bytes.
const MAX_ANSWER: usize = 16 * 1024;

/// One witness.
pub struct Witness {
    key: VerifierKey,
    url: String,
    client: reqwest::Client,
    /// The largest size that it is known to have cosigned.
    seen: u64,
    /// Its newest checkpoint, until this node has as many entries to compare it with.
    shown: Option<Checkpoint>,
    /// When it was last asked what it has seen, and whether it has shown that.
    asked: Option<Instant>,
    has_shown: bool,
    /// Why what it shows can't be of this log.
    contradiction: Option<String>,
    /// Why it did not take a checkpoint of this log, and at which size they differ. It can't be asked again without another
    /// signature, so this stands until it shows, of that size or more, what fits.
    refusal: Option<(u64, String)>,
}

impl Witness {
    /// A witness as it is configured.
    ///
    /// # Errors
    /// Names the key or URL that is not one.
    pub fn new(configured: &config::Witness) -> anyhow::Result<Self> {
        let (key, url) = configured.parsed()?;
        let client =
            reqwest::Client::builder().timeout(PATIENCE).redirect(reqwest::redirect::Policy::none()).build()?;
        Ok(Self {
            key,
            url: url.as_str().trim_end_matches('/').to_owned(),
            client,
            seen: 0,
            shown: None,
            asked: None,
            has_shown: false,
            contradiction: None,
            refusal: None,
        })
    }

    /// What it signs by.
    pub fn key(&self) -> &VerifierKey {
        &self.key
    }

    /// The largest size that it is known to have cosigned.
    pub fn has_seen(&self) -> u64 {
        self.seen
    }

    /// Whether it has shown what it has seen, since the start. One that shows nothing may know nothing of this log, have
    /// lost it, or show it elsewhere.
    pub fn has_shown(&self) -> bool {
        self.has_shown
    }

    /// Why what it has seen can't be of this log, once it has said so.
    pub fn contradiction(&self) -> Option<&str> {
        self.contradiction.as_deref().or(self.refusal.as_ref().map(|(_, why)| why.as_str()))
    }

    /// Looks at the checkpoint that it shows as the largest which it has seen (c2sp.org/tlog-witness, monitoring), unless it
    /// has done so before. One that did not answer is left alone for a while.
    pub async fn look(&mut self, origin: &str, ask_again: Duration) {
        if self.has_shown || self.asked.is_some_and(|last| last.elapsed() < ask_again) {
            return;
        }
        self.asked = Some(Instant::now());
        match self.looked(origin).await {
            Ok(shown) => self.has_shown = shown.is_some(),
            Err(error) => tracing::warn!(witness = self.key.name(), "it does not show what it has seen: {error:#}"),
        }
    }

    /// Compares what it has shown with the first `size` entries of this log, as soon as they reach so far.
    ///
    /// # Errors
    /// When the log's files don't read.
    pub fn compare(&mut self, reader: &impl TileReader, size: u64) -> std::io::Result<()> {
        if let Some(shown) = self.shown.take_if(|shown| shown.size <= size) {
            if root_at(reader, shown.size)? != shown.root {
                self.contradiction = Some(self.contradicts(&format!("it has seen {} other entries", shown.size)));
            } else if self.refusal.as_ref().is_some_and(|(disputed, _)| shown.size >= *disputed) {
                self.refusal = None;
            }
        }
        Ok(())
    }

    /// The size of what it shows; none when it shows nothing of this log.
    async fn looked(&mut self, origin: &str) -> anyhow::Result<Option<u64>> {
        let answer = self.read(self.client.get(format!("{}/{}", self.url, monitoring_path(origin)))).await?;
        match answer.status {
            200 => {}
            404 => return Ok(None),
            status => anyhow::bail!("it answers {status}"),
        }
        let note: SignedNote = answer.body.parse()?;
        let cosigned = note.signatures().iter().any(|line| self.key.verify(note.text(), line));
        let checkpoint = note.checkpoint()?;
        anyhow::ensure!(cosigned && checkpoint.origin == origin, "what it shows is not its own checkpoint of {origin}");
        let size = checkpoint.size;
        self.seen = self.seen.max(size);
        self.shown = Some(checkpoint);
        Ok(Some(size))
    }

    /// What it shows was compared with a log that is read again: so it is asked again, and compared with that. What it did
    /// not take was signed, and so was of the database's log.
    pub fn compare_anew(&mut self) {
        (self.contradiction, self.shown) = (None, None);
        (self.asked, self.has_shown) = (None, false);
    }

    fn contradicts(&self, why: &str) -> String {
        format!(
            "the witness {} contradicts: {why}; history was rewritten or restored: find out, then restore a newer backup or \
             start a new origin",
            self.key.name()
        )
    }

    /// Asks for a cosignature; none when it does not give one, which the log tells.
    pub async fn cosign(&mut self, reader: &(impl TileReader + Sync), note: &SignedNote) -> Option<SignatureLine> {
        match self.submit(reader, note).await {
            Ok(line) => Some(line),
            Err(error) => {
                tracing::warn!(witness = self.key.name(), "no cosignature: {error:#}");
                None
            }
        }
    }

    async fn submit(&mut self, reader: &(impl TileReader + Sync), note: &SignedNote) -> anyhow::Result<SignatureLine> {
        let Checkpoint { origin, size, .. } = note.checkpoint()?;
        let key = self.key.clone();
        let mut submission = Submission::new(reader, note, &key, self.seen)?;
        loop {
            let answer = self.post(submission.body()?).await?;
            match submission.take(&answer) {
                Ok(None) => {}
                Ok(Some(line)) => {
                    self.seen = size;
                    return Ok(line);
                }
                Err(error) => {
                    let disputed = match error {
                        WitnessError::Ahead { witnessed, .. } => witnessed,
                        WitnessError::Inconsistent { old, .. } => old,
                        _ => return Err(error.into()),
                    };
                    // What it signed counts more than what it says, where it shows that. It may show an older one.
                    match (self.looked(&origin).await, &error) {
                        (Ok(Some(shown)), _) if shown >= disputed => self.compare(reader, size)?,
                        (_, WitnessError::Ahead { .. }) => self.seen = self.seen.max(disputed),
                        _ => self.refusal = Some((disputed, self.contradicts(&error.to_string()))),
                    }
                    return Err(error.into());
                }
            }
        }
    }

    async fn post(&self, body: String) -> anyhow::Result<Answer> {
        self.read(self.client.post(format!("{}/add-checkpoint", self.url)).body(body)).await
    }

    async fn read(&self, request: reqwest::RequestBuilder) -> anyhow::Result<Answer> {
        let mut response = request.send().await?;
        let status = response.status().as_u16();
        let content_type = response.headers().get(reqwest::header::CONTENT_TYPE);
        let content_type = content_type.and_then(|kind| kind.to_str().ok()).map(str::to_owned);
        let mut read = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            read.extend_from_slice(&chunk);
            anyhow::ensure!(read.len() <= MAX_ANSWER, "the answer is longer than {MAX_ANSWER} bytes");
        }
        Ok(Answer { status, content_type, body: String::from_utf8_lossy(&read).into_owned() })
    }
}
