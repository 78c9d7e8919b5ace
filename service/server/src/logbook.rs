//! Writes the verifiable log's files on this node, and signs checkpoints when nothing contradicts them.
//!
//! Every node with a log directory integrates the log for itself; whoever is first signs, which the database records
//! before anybody sees the signature. The others publish what was signed. A node with proof that the history is not the one
//! that was signed stops all of them, as the others may know nothing.

pub mod witness;

use std::{
    fmt,
    path::PathBuf,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use join_ledger::{EntryMark, Indexed, Ledger, LedgerError, LogHead, Recording};
use join_log::{
    Checkpoint, LogDirectory, NoteSigner, SignedNote, leaf_at, leaf_hash,
    rollback::{self, Decision, Evidence, Rollback},
    root_at,
};
use tokio_util::sync::CancellationToken;

use self::witness::Witness;
use crate::telemetry::{Alarm, METRICS, Position};

/// Entries that are integrated at once.
const STEP: u32 = 2000;
/// How often a checkpoint is published again with fresh cosignatures, when the log does not grow.
const REPUBLISH: Duration = Duration::from_secs(10 * 60);
/// How long what there is may be neither signed nor published here, whatever the reason, before that is an alarm.
const STALLED: Duration = Duration::from_secs(60);

/// How long a node waits between its looks at the log.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Until the log is brought forward again and, when it grew, signed.
    pub period: Duration,
    /// The same, after a failure or a refusal to sign.
    pub after_failure: Duration,
    /// Until a witness that did not answer is asked again.
    pub ask_again: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            period: Duration::from_secs(1),
            after_failure: Duration::from_secs(10),
            ask_again: Duration::from_secs(10),
        }
    }
}

/// The log's files on this node.
pub struct Logbook {
    ledger: Ledger,
    directory: LogDirectory,
    signers: Arc<[NoteSigner]>,
    origin: String,
    witnesses: Vec<Witness>,
    pace: Pace,
    /// The last entry that was integrated since the log was rewound.
    last: Option<EntryMark>,
    /// Whether the log has to be rewound before anything else: what lies beyond the published checkpoint may be of another
    /// process, or of another history.
    is_doubtful: bool,
    published_at: Option<Instant>,
    /// Whether every witness has cosigned what was published last.
    is_cosigned: bool,
    /// Whether a stop stood at the last look.
    is_stopped: bool,
    /// When all that there was to sign or publish here was last done.
    kept_up: tokio::time::Instant,
}

impl Logbook {
    /// Opens the directory. What was left in it unpublished is removed when the logbook runs: a start does not wait for
    /// that.
    ///
    /// # Errors
    /// When it can't be written, is damaged, or in use by another process.
    pub fn open(
        ledger: Ledger,
        directory: PathBuf,
        signer: NoteSigner,
        origin: String,
        witnesses: Vec<Witness>,
        pace: Pace,
    ) -> anyhow::Result<Self> {
        let opened = LogDirectory::open_as_left(&directory)
            .with_context(|| format!("the log's directory {} is not usable", directory.display()))?;
        Ok(Self {
            ledger,
            directory: opened,
            signers: Arc::new([signer]),
            origin,
            witnesses,
            pace,
            last: None,
            is_doubtful: true,
            published_at: None,
            is_cosigned: false,
            is_stopped: false,
            kept_up: tokio::time::Instant::now(),
        })
    }

    /// Keeps the files up with the log until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let (mut pause, mut told) = (Duration::ZERO, Instant::now());
        while stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
            let late = self.kept_up + STALLED;
            let (book, done) = alarming(late, self.step(&stop)).await;
            self = book;
            let is_stalled = self.kept_up.elapsed() >= STALLED;
            METRICS.alarm(Alarm::LogStalled, is_stalled);
            pause = if done.is_err() || self.is_stopped { self.pace.after_failure } else { self.pace.period };
            match done {
                Err(error) => tracing::warn!("the log's files could not be brought forward: {error:#}"),
                Ok(()) if is_stalled && !self.is_stopped && told.elapsed() >= self.pace.after_failure => {
                    let silent = self.kept_up.elapsed().as_secs();
                    tracing::warn!("nothing was signed or published here for {silent} s: other nodes are ahead");
                    told = Instant::now();
                }
                Ok(()) => {}
            }
        }
    }

    async fn step(mut self, stop: &CancellationToken) -> (Self, anyhow::Result<()>) {
        if self.is_doubtful {
            match self.rewound().await {
                (book, Ok(())) => self = book,
                not_yet => return not_yet,
            }
        }
        let (mut book, done) = self.advance(stop).await;
        if let Err(error) = &done {
            book.witnesses.iter_mut().for_each(Witness::compare_anew);
            book.is_doubtful = is_of_the_files(error);
        }
        (book, done)
    }

    /// The log as it was published here last. What nobody has seen is read again: the database may be another one by now.
    async fn rewound(mut self) -> (Self, anyhow::Result<()>) {
        self.last = None;
        in_its_own_time(move || {
            let rewound = self.directory.rewind();
            self.is_doubtful = rewound.is_err();
            (self, rewound.context("the log's directory is not usable"))
        })
        .await
    }

    async fn advance(mut self, stop: &CancellationToken) -> (Self, anyhow::Result<()>) {
        if let Err(error) = self.may_begin().await {
            return (self, Err(error));
        }
        let (mut found, mut target) = (None, None);
        while !stop.is_cancelled() {
            // The last entry is read once more. A server that takes over may have lost the newest entries and put others
            // in their place; so if that one is as it was, on the same server, all before it are.
            let size = self.directory.size();
            let mut page = match self.ledger.follow(size.saturating_sub(1), STEP).await {
                Ok(page) => page,
                Err(error) => return (self, Err(error.into())),
            };
            if size > 0 {
                let overlap = (!page.entries.is_empty()).then(|| page.entries.remove(0));
                match &self.last {
                    Some(last) if overlap.as_ref().is_some_and(|first| page.mark(first) == *last) => {}
                    Some(_) => return (self, Err(replaced())),
                    None => match self.is_as_published(overlap.as_ref()) {
                        Ok(true) => {}
                        Ok(false) => {
                            found = Some(Rollback::Rewritten { size });
                            break;
                        }
                        Err(error) => return (self, Err(error)),
                    },
                }
            }
            // What comes meanwhile is for the next time: under load there is always more.
            let end = *target.get_or_insert(page.settled);
            if page.entries.is_empty() {
                break;
            }
            let integrated;
            (self, integrated) = in_its_own_time(move || {
                let entries = page.entries.iter().map(|entry| entry.envelope.as_bytes());
                let done = self.directory.integrate(entries).map(drop);
                if done.is_ok() {
                    self.last = page.entries.last().map(|last| page.mark(last));
                }
                (self, done)
            })
            .await;
            if let Err(error) = integrated {
                return (self, Err(error.into()));
            }
            if self.directory.size() >= end {
                break;
            }
        }
        let signed = self.sign(found).await;
        (self, signed)
    }

    /// Where nothing was published yet, the whole history is read: for nothing, if it can't be signed under this name.
    async fn may_begin(&self) -> anyhow::Result<()> {
        if self.directory.published().is_some() {
            return Ok(());
        }
        let head = self.ledger.log_head().await?;
        let ended = self.ledger.ended_origins().await?.contains(&self.origin);
        let recorded = self.recorded(&head)?;
        let evidence = Evidence {
            origin: &self.origin,
            integrated: self.directory.size(),
            on_disk: None,
            recorded: recorded.as_ref().map(|(_, checkpoint)| checkpoint),
            witnessed: None,
            ended,
        };
        match self.decide(&evidence)? {
            Decision::Refuse(why) if why.is_misconfigured() => Err(misconfigured(&why)),
            // That the history is not there says nothing before it was read.
            _ => Ok(()),
        }
    }

    /// After a start or a rewind: the last entry that was published here must still be the database's. What the database
    /// does not have at all, the next signature is refused for.
    fn is_as_published(&self, last: Option<&Indexed>) -> anyhow::Result<bool> {
        let Some(last) = last else { return Ok(true) };
        let published = leaf_at(self.directory.reader(), self.directory.size() - 1);
        Ok(leaf_hash(last.envelope.as_bytes()) == published.context("the log's own files do not read")?)
    }

    /// Signs or publishes what there is, unless something contradicts: what was `found` already, what the witnesses have
    /// seen, the past, or another node.
    async fn sign(&mut self, found: Option<Rollback>) -> anyhow::Result<()> {
        self.is_stopped = false;
        let size = self.directory.size();
        self.ledger.record_integrated(size).await?;
        // Before the head is read: what a witness has seen was recorded before it went there.
        self.ask_witnesses().await?;
        let mut head = self.ledger.log_head().await?;
        // After the head was read: what is signed there was settled before.
        let settled = self.ledger.settled().await?;
        let ended = self.ledger.ended_origins().await?.contains(&self.origin);
        let recorded = self.recorded(&head)?;
        let proof = found.map(|found| found.to_string()).or_else(|| self.contradiction().map(str::to_owned));
        // Another node is ahead of this one; its checkpoint is published once its entries are here. That they are in the
        // database tells it from a history that lost them.
        let reached = head.signed.max(self.witnessed());
        let is_behind = proof.is_none() && reached > size && settled >= reached;
        if !is_behind {
            let evidence = Evidence {
                origin: &self.origin,
                integrated: size.min(settled),
                on_disk: self.directory.published(),
                recorded: recorded.as_ref().map(|(_, checkpoint)| checkpoint),
                witnessed: Some(self.witnessed()),
                ended,
            };
            let decision = self.decide(&evidence)?;
            METRICS.alarm(Alarm::LogMisconfigured, false);
            match (decision, proof) {
                (Decision::Refuse(why), _) if why.is_misconfigured() => return Err(misconfigured(&why)),
                (_, Some(proof)) => return Err(self.stop(&proof).await),
                (Decision::Refuse(why), None) => return Err(self.stop(&why.to_string()).await),
                (Decision::Sign, None) => self.take_stop_back(&mut head).await?,
            }
        }
        if let Some((node, found)) = head.stops.first_key_value() {
            METRICS.alarm(Alarm::LogRollback, true);
            tracing::warn!("no checkpoint is signed: {node} stopped the log, as it found: {found}");
            self.is_stopped = true;
            return Ok(());
        }
        if is_behind {
            return Ok(());
        }
        METRICS.alarm(Alarm::LogRollback, false);
        let note = match recorded {
            Some((note, _)) if head.signed >= size => note,
            _ => match self.sign_new(&head, size).await? {
                Some(note) => note,
                None => return Ok(()),
            },
        };
        let shown = self.directory.published().map(|published| published.size);
        let grew = shown != Some(note.checkpoint()?.size);
        let pause = if self.is_cosigned { REPUBLISH } else { self.pace.ask_again };
        if grew || self.published_at.is_none_or(|last| last.elapsed() >= pause) {
            let note = self.cosigned(note).await?;
            if self.witnessed() > size || self.contradiction().is_some() {
                // It is not shown to anybody else. The next look at the past says what this means.
                return Ok(());
            }
            self.directory.publish(&note)?;
            self.published_at = Some(Instant::now());
        }
        self.kept_up = tokio::time::Instant::now();
        Ok(())
    }

    /// Whether the past allows a signature.
    fn decide(&self, evidence: &Evidence<'_>) -> anyhow::Result<Decision> {
        let (reader, tree, size) = (self.directory.reader(), self.directory.tree(), self.directory.size());
        rollback::decide(evidence, |at| if at == size { Ok(tree.root()) } else { root_at(reader, at) })
            .context("the log's own files do not read")
    }

    /// This node has proof that the history is not the one that was signed. Others may have none, so they are told: until
    /// an operator has looked, nothing is signed or shown by any of them.
    async fn stop(&self, found: &str) -> anyhow::Error {
        match self.ledger.stop_log(&self.origin, found, self.directory.size(), self.last.as_ref()).await {
            // What was compared was not the database's: it proves nothing.
            Ok(Recording::Replaced) => return replaced(),
            Ok(Recording::Recorded | Recording::Overtaken) => {}
            Err(error) => tracing::warn!("other nodes may sign, as they could not be told: {error}"),
        }
        refused(found)
    }

    /// Ends the stop of this very node, as what it has now fits. An empty directory and a silent witness show nothing, so
    /// with these the stop stays: proof does not go away with a disk, or with what a process remembers of a witness.
    async fn take_stop_back(&self, head: &mut LogHead) -> anyhow::Result<()> {
        let fits = self.directory.published().is_some() && self.witnesses.iter().all(Witness::has_shown);
        if fits && let Some(found) = head.stops.remove(self.ledger.node()) {
            self.ledger.take_stop_back().await?;
            tracing::warn!("this node had stopped the log, and no longer finds: {found}");
        }
        Ok(())
    }

    /// The newest checkpoint that the database keeps, if there is any.
    fn recorded(&self, head: &LogHead) -> anyhow::Result<Option<(SignedNote, Checkpoint)>> {
        let Ok(note) = head.checkpoint.as_deref().map(str::parse::<SignedNote>).transpose() else {
            return Err(refused("what the database keeps as the newest is none"));
        };
        let recorded = note.map(|note| note.checkpoint().map(|checkpoint| (note, checkpoint))).transpose()?;
        if let Some((note, checkpoint)) = &recorded
            && checkpoint.origin == self.origin
            && !self.signers.iter().any(|signer| note.is_signed_by(signer.verifier_key()))
        {
            return Err(refused("the one that the database keeps does not bear the signature of this log"));
        }
        if recorded.as_ref().map_or(0, |(_, checkpoint)| checkpoint.size) != head.signed {
            let why = format!("the database says that {} entries are, and keeps another one", head.signed);
            return Err(refused(why));
        }
        Ok(recorded)
    }

    /// The checkpoint with the cosignatures that it was published with, and those of the witnesses that answer in time. One
    /// that is silent holds nothing up.
    async fn cosigned(&mut self, mut note: SignedNote) -> anyhow::Result<SignedNote> {
        let reader = self.directory.reader();
        let published = reader.checkpoint()?.filter(|published| published.text() == note.text());
        let asked = self.witnesses.iter_mut().map(|witness| witness.cosign(reader, &note));
        let answers = futures::future::join_all(asked).await;
        let kept = published.iter().flat_map(SignedNote::signatures).cloned();
        for line in kept.collect::<Vec<_>>().into_iter().chain(answers.into_iter().flatten()) {
            note.add(line);
        }
        self.is_cosigned = self.witnesses.iter().all(|witness| note.is_signed_by(witness.key()));
        if let Some(least) = self.witnesses.iter().map(Witness::has_seen).min() {
            METRICS.position(Position::Witnessed, least);
        }
        Ok(note)
    }

    /// Signs the tree as it is, and releases the signature only once it is recorded.
    async fn sign_new(&self, head: &LogHead, size: u64) -> anyhow::Result<Option<SignedNote>> {
        let checkpoint = Checkpoint { origin: self.origin.clone(), size, root: self.directory.tree().root() };
        let note = SignedNote::sign(&checkpoint, &self.signers);
        match self.ledger.record_signed(head, size, &note.to_string(), self.last.as_ref()).await? {
            Recording::Recorded => Ok(Some(note)),
            Recording::Overtaken => Ok(None),
            Recording::Replaced => Err(replaced()),
        }
    }

    /// Before anything is signed by this process: what the witnesses show as the largest that they have seen must be of
    /// this log. Database and node may both have been restored. A witness that does not answer holds nothing up.
    async fn ask_witnesses(&mut self) -> anyhow::Result<()> {
        let (origin, ask_again) = (&self.origin, self.pace.ask_again);
        futures::future::join_all(self.witnesses.iter_mut().map(|witness| witness.look(origin, ask_again))).await;
        let (reader, size) = (self.directory.reader(), self.directory.size());
        for witness in &mut self.witnesses {
            witness.compare(reader, size).context("the log's own files do not read")?;
        }
        Ok(())
    }

    /// Why a witness that has seen another tree can't be followed: it proves a fork.
    fn contradiction(&self) -> Option<&str> {
        self.witnesses.iter().find_map(Witness::contradiction)
    }

    /// The largest size that any witness is known to have cosigned.
    fn witnessed(&self) -> u64 {
        self.witnesses.iter().map(Witness::has_seen).max().unwrap_or_default()
    }
}

/// Files are written and synced where that may take its time.
async fn in_its_own_time<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

/// Nothing is signed or shown here until an operator has looked.
fn refused(why: impl fmt::Display) -> anyhow::Error {
    METRICS.alarm(Alarm::LogRollback, true);
    Refused(why.to_string()).into()
}

/// Nothing is signed or shown by this node, which is set up for another log; that says nothing of the history.
fn misconfigured(why: &Rollback) -> anyhow::Error {
    METRICS.alarm(Alarm::LogRollback, false);
    METRICS.alarm(Alarm::LogMisconfigured, true);
    Refused(why.to_string()).into()
}

/// What there is may not be signed.
#[derive(Debug, thiserror::Error)]
#[error("no checkpoint is signed: {0}")]
struct Refused(String);

/// Whether an error may be one of the files here, or says that they are of another history. After the database was away,
/// and after a refusal, what was integrated is kept: its last entry is compared before anything else is.
fn is_of_the_files(error: &anyhow::Error) -> bool {
    !error.is::<LedgerError>() && !error.is::<Refused>()
}

/// Waits for `work`, and raises the alarm when that is not done in time.
async fn alarming<T>(late: tokio::time::Instant, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    if let Ok(done) = tokio::time::timeout_at(late, &mut work).await {
        return done;
    }
    METRICS.alarm(Alarm::LogStalled, true);
    work.await
}

fn replaced() -> anyhow::Error {
    anyhow::anyhow!(
        "the database was started again, or has others in the place of the newest entries: they are read again"
    )
}

#[cfg(test)]
mod tests {
    use join_log::DirectoryError;

    use super::*;

    fn stalled() -> bool {
        METRICS.standing_alarms().contains(&"log_stalled".to_owned())
    }

    #[test]
    fn what_was_integrated_is_kept_unless_it_is_in_doubt() {
        let away = LedgerError::Unfit("the database is away".to_owned());
        let io = || std::io::Error::other("a file is not there");
        for (error, is_doubtful) in [
            (away.into(), false),
            (Refused("a witness has seen more".to_owned()).into(), false),
            (replaced(), true),
            (anyhow::Error::from(io()).context("the log's own files do not read"), true),
            (DirectoryError::Files(io()).into(), true),
        ] {
            assert_eq!(is_of_the_files(&error), is_doubtful, "{error:#}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_that_takes_too_long_is_an_alarm_while_it_lasts() {
        let late = tokio::time::Instant::now() + STALLED;
        let step = async {
            tokio::time::sleep(STALLED - Duration::from_secs(1)).await;
            let before = stalled();
            tokio::time::sleep(Duration::from_secs(2)).await;
            (before, stalled())
        };
        assert_eq!(alarming(late, step).await, (false, true));
    }
}
