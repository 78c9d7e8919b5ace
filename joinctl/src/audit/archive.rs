//! An export directory in the making; `join-audit` says what is in one. It can be left off anywhere and gone on with.

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, BufRead as _, BufReader, BufWriter, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use join_log::SignedNote;
use join_proto::v1::{ClaimedView, ExportedEntry};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tempfile::NamedTempFile;

use crate::exit::Fault;

/// Entries of one file; 256 full tiles.
const ENTRIES_PER_FILE: u64 = 1 << 16;
/// The trust policy (c2sp.org/tlog-policy) with the key of the log, so that an export can be verified by itself.
pub(super) const POLICY: &str = "policy";
/// What the authority claims of each stream.
const VIEWS: &str = "views.jsonl";
/// Seals the entries.
const CHECKPOINT: &str = "checkpoint";
/// Where older ones are kept.
const CHECKPOINTS: &str = "checkpoints";
/// Written last.
const END: &str = "end.json";
/// Held by the run that writes.
const LOCK: &str = ".lock";
/// How the names of files begin that are not whole yet. All of them are in the directory itself.
const UNFINISHED: &str = ".tmp";

/// An open export.
pub(super) struct Archive {
    root: PathBuf,
    next: u64,
    entries: BufWriter<File>,
    /// Nothing of it was changed yet.
    untouched: bool,
    _lock: File,
}

/// A line of entries.
#[derive(Serialize)]
struct Line<'a> {
    log_index: u64,
    envelope: &'a str,
}

/// A line of views.
#[derive(Serialize)]
struct Claim<'a> {
    stream: &'a str,
    version: u64,
    state: &'a RawValue,
}

/// What must be known of a line that is there already.
#[derive(Deserialize)]
struct Index {
    log_index: u64,
}

impl Archive {
    /// Begins an export of the log with that key, or finds one; nothing of one that is there is changed.
    ///
    /// # Errors
    /// When the directory holds something else, or the export of another log, or another run writes there.
    pub(super) fn open(root: &Path, log_key: &str) -> anyhow::Result<Self> {
        let shown = root.display();
        fs::create_dir_all(root).with_context(|| format!("cannot make {shown}"))?;
        if !root.join(POLICY).exists() && holds_something(root)? {
            bail!("{shown} is not empty and holds no export; take another directory");
        }
        let lock = lock(root)?;
        remove_unfinished(root)?;
        let policy = format!("log {log_key}\nquorum none\n");
        match fs::read_to_string(root.join(POLICY)) {
            Ok(found) if found == policy => {}
            Ok(_) => bail!("{shown} holds the export of another log; take another directory"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => put(root, POLICY, policy.as_bytes())?,
            Err(error) => return Err(error).with_context(|| format!("cannot read {shown}")),
        }
        let next = count(root)?;
        Ok(Self { root: root.to_owned(), next, entries: open_entries(root, next)?, untouched: true, _lock: lock })
    }

    /// With the first change it has no end marker until it is sealed again.
    fn unseal(&mut self) -> anyhow::Result<()> {
        if std::mem::take(&mut self.untouched) {
            match fs::remove_file(self.root.join(END)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }

    /// How many entries its checkpoint seals; 0 without one.
    pub(super) fn sealed(&self) -> anyhow::Result<u64> {
        let checkpoint = read(&self.root.join(CHECKPOINT))?;
        Ok(checkpoint.and_then(|text| Some(text.parse::<SignedNote>().ok()?.checkpoint().ok()?.size)).unwrap_or(0))
    }

    /// A file of it, if there is one.
    pub(super) fn read(&self, name: &str) -> anyhow::Result<Option<Vec<u8>>> {
        let path = self.root.join(name);
        match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => read.map(Some).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// The log index of the next entry.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Adds an entry, byte for byte. It must be the next.
    pub(super) fn append(&mut self, entry: &ExportedEntry) -> anyhow::Result<()> {
        if entry.log_index != self.next {
            bail!(Fault(format!("the authority sent entry {} where entry {} is due", entry.log_index, self.next)));
        }
        self.unseal()?;
        let line = Line { log_index: entry.log_index, envelope: &entry.envelope };
        serde_json::to_writer(&mut self.entries, &line).map_err(io::Error::from)?;
        self.entries.write_all(b"\n")?;
        self.next += 1;
        if self.next.is_multiple_of(ENTRIES_PER_FILE) {
            self.sync()?;
            self.entries = open_entries(&self.root, self.next)?;
        }
        Ok(())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.root.join(name).exists()
    }

    /// Writes a file, whole or not at all.
    pub(super) fn put(&self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        put(&self.root, name, bytes)
    }

    /// What the authority claims of each stream, to be written as it comes.
    pub(super) fn claims(&self) -> anyhow::Result<Claims> {
        let file = unfinished(&self.root).with_context(|| format!("cannot write {}", self.root.display()))?;
        Ok(Claims(BufWriter::new(file)))
    }

    /// Puts them, all of them, in the place of what was claimed before.
    pub(super) fn claim(&mut self, claims: Claims) -> anyhow::Result<()> {
        let file = claims.0.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.as_file().sync_all()?;
        self.unseal()?;
        let path = self.root.join(VIEWS);
        file.persist(&path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(())
    }

    /// Completes the export: the checkpoint, and at the very last the end marker. The checkpoint before is kept: should the
    /// two contradict each other, both signatures are the proof.
    pub(super) fn seal(mut self, checkpoint: &str) -> anyhow::Result<()> {
        self.sync()?;
        if let Some(before) = read(&self.root.join(CHECKPOINT))?
            && let Some(name) = name_of(&before)
            && Some(&name) != name_of(checkpoint).as_ref()
        {
            self.put(&format!("{CHECKPOINTS}/{name}"), before.as_bytes())?;
        }
        self.put(CHECKPOINT, checkpoint.as_bytes())?;
        self.put(END, format!("{{\"entries\":{}}}\n", self.next).as_bytes())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.entries.flush()?;
        self.entries.get_ref().sync_all()
    }
}

/// The claimed states, while they are written.
pub(super) struct Claims(BufWriter<NamedTempFile>);

impl Claims {
    /// Adds a state.
    pub(super) fn add(&mut self, claimed: &ClaimedView) -> anyhow::Result<()> {
        let ClaimedView { stream, version, state } = claimed;
        let state: &RawValue = serde_json::from_str(state)
            .map_err(|_| Fault(format!("the authority claims a state of {stream} that is no JSON")))?;
        serde_json::to_writer(&mut self.0, &Claim { stream, version: *version, state }).map_err(io::Error::from)?;
        Ok(self.0.write_all(b"\n")?)
    }
}

fn read(path: &Path) -> anyhow::Result<Option<String>> {
    match super::read_text(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Size and beginning of the root, which are the name of a checkpoint that is kept; none for what is no checkpoint.
fn name_of(checkpoint: &str) -> Option<String> {
    let checkpoint = checkpoint.parse::<SignedNote>().ok()?.checkpoint().ok()?;
    Some(format!("{}-{}", checkpoint.size, hex::encode(&checkpoint.root[..8])))
}

fn entry_file(number: u64) -> String {
    format!("entries-{number:06}.jsonl")
}

/// The file that the entry at `next` goes into, cut to the entries before it.
fn open_entries(root: &Path, next: u64) -> anyhow::Result<BufWriter<File>> {
    open(&root.join(entry_file(next / ENTRIES_PER_FILE))).map(BufWriter::new)
}

/// Opens a file to go on with. As the temporary ones are, all are readable by their owner alone: who may read the ledger,
/// the authority says.
fn open(path: &Path) -> anyhow::Result<File> {
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
    file.with_context(|| format!("cannot write {}", path.display()))
}

/// Keeps a second run out for as long as the file is open.
fn lock(root: &Path) -> anyhow::Result<File> {
    let lock = open(&root.join(LOCK))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => bail!(
            "another `joinctl audit export` writes to {} at the moment: wait until it ends, or take another directory",
            root.display()
        ),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {}", root.display())),
    }
}

/// Whether there is more than what an export begins with.
fn holds_something(root: &Path) -> io::Result<bool> {
    let names: Vec<_> = fs::read_dir(root)?.map(|file| Ok(file?.file_name())).collect::<io::Result<_>>()?;
    Ok(names.iter().any(|name| name != LOCK && !is_unfinished(name)))
}

/// Removes what interrupted runs left behind.
fn remove_unfinished(root: &Path) -> anyhow::Result<()> {
    for file in fs::read_dir(root)? {
        let file = file?;
        if is_unfinished(&file.file_name()) {
            let path = file.path();
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

fn is_unfinished(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(UNFINISHED.as_bytes())
}

fn unfinished(root: &Path) -> io::Result<NamedTempFile> {
    tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(root)
}

/// How many entries are there. What was cut off in the middle of a line is dropped.
fn count(root: &Path) -> anyhow::Result<u64> {
    let mut last = 0;
    while root.join(entry_file(last + 1)).exists() {
        last += 1;
    }
    let path = root.join(entry_file(last));
    if !path.exists() {
        return Ok(0);
    }
    let (mut next, mut whole) = (last * ENTRIES_PER_FILE, 0);
    let mut reader = BufReader::new(File::open(&path)?);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 && line.ends_with(b"\n") {
        let fits = serde_json::from_slice::<Index>(&line).is_ok_and(|index| index.log_index == next);
        if !fits {
            bail!("{} does not hold entry {next} where it should be; take another directory", path.display());
        }
        next += 1;
        whole += line.len() as u64;
        line.clear();
    }
    OpenOptions::new().write(true).open(&path)?.set_len(whole)?;
    Ok(next)
}

fn put(root: &Path, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
    let path = root.join(name);
    let write = || {
        let folder = path.parent().unwrap_or(root);
        fs::create_dir_all(folder)?;
        let mut file = unfinished(root)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(&path).map_err(|error| error.error)?;
        // The name is on the disk only when its directory is.
        File::open(folder)?.sync_all()
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn entry(log_index: u64) -> ExportedEntry {
        ExportedEntry { log_index, envelope: format!("{{\"number\":\"{log_index} ä\"}}") }
    }

    fn filled(root: &Path, entries: std::ops::Range<u64>) -> Archive {
        let mut archive = Archive::open(root, "log+key").unwrap();
        assert_eq!(archive.next(), entries.start);
        entries.for_each(|index| archive.append(&entry(index)).unwrap());
        archive
    }

    #[test]
    fn an_export_goes_on_where_it_was_left_off() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("new/export");
        drop(filled(&root, 0..3));
        // The process died in the middle of a line.
        let mut file = OpenOptions::new().append(true).open(root.join("entries-000000.jsonl")).unwrap();
        file.write_all(b"{\"log_index\":3,\"enve").unwrap();

        filled(&root, 3..5).seal("note").unwrap();
        let text = fs::read_to_string(root.join("entries-000000.jsonl")).unwrap();
        assert_eq!(text.lines().count(), 5);
        assert_eq!(text.lines().last(), Some(r#"{"log_index":4,"envelope":"{\"number\":\"4 ä\"}"}"#));
        assert_eq!(fs::read_to_string(root.join(END)).unwrap(), "{\"entries\":5}\n");

        // A sealed export stays one until it grows, and is none while it does.
        assert!(Archive::open(&root, "log+key").unwrap().has(END));
        let archive = filled(&root, 5..6);
        assert!(!archive.has(END));
        archive.seal("note").unwrap();
        assert_eq!(fs::read_to_string(root.join(END)).unwrap(), "{\"entries\":6}\n");
    }

    #[test]
    fn one_run_at_a_time_writes_and_removes_what_others_left() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        // A run died before it had begun.
        fs::write(root.join(".tmpAbCdEf"), "log log+k").unwrap();
        let mut first = filled(root, 0..2);
        assert!(!root.join(".tmpAbCdEf").exists());
        let claims = first.claims().unwrap();
        let second = Archive::open(root, "log+key").err().unwrap().to_string();
        assert!(second.contains("another `joinctl audit export` writes to"), "{second}");

        first.claim(claims).unwrap();
        first.put("tile/0/000.p/2", b"hashes").unwrap();
        first.seal("note").unwrap();
        drop(filled(root, 2..3));
        for file in ["entries-000000.jsonl", "tile/0/000.p/2", POLICY, VIEWS, CHECKPOINT, LOCK] {
            let mode = fs::metadata(root.join(file)).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{file}");
        }
    }

    #[test]
    fn a_full_file_is_followed_by_another() {
        let folder = tempfile::tempdir().unwrap();
        drop(filled(folder.path(), 0..ENTRIES_PER_FILE));
        let second = folder.path().join("entries-000001.jsonl");
        assert_eq!(fs::metadata(&second).unwrap().len(), 0);
        drop(filled(folder.path(), ENTRIES_PER_FILE..ENTRIES_PER_FILE + 1));
        assert!(fs::read_to_string(&second).unwrap().starts_with("{\"log_index\":65536,"));
    }

    #[test]
    fn an_entry_that_is_not_the_next_is_a_fault() {
        let folder = tempfile::tempdir().unwrap();
        let mut archive = filled(folder.path(), 0..2);
        let error = archive.append(&entry(3)).unwrap_err();
        assert!(error.is::<Fault>(), "{error}");
    }

    #[test]
    fn other_directories_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("thesis.tex"), "").unwrap();
        assert!(Archive::open(folder.path(), "log+key").err().unwrap().to_string().contains("is not empty"));

        let folder = tempfile::tempdir().unwrap();
        drop(filled(folder.path(), 0..1));
        assert!(Archive::open(folder.path(), "other+key").err().unwrap().to_string().contains("another log"));
    }
}
