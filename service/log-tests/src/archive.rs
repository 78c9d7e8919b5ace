//! Archives as `joinctl audit export` writes them, without tiles, signed by a key of their own.

use std::{
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
};

use join_log::{Checkpoint, NoteSigner, SignedNote, Tree};
use serde_json::json;

/// Entries of one file.
const ENTRIES_PER_FILE: u64 = 1 << 16;

/// An archive in the making.
#[derive(Debug)]
pub struct Archive {
    root: PathBuf,
    tree: Tree,
    entries: Option<BufWriter<File>>,
}

impl Archive {
    /// Begins one.
    ///
    /// # Errors
    /// When the directory can't be made.
    pub fn create(root: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(root)?;
        Ok(Self { root: root.to_owned(), tree: Tree::default(), entries: None })
    }

    /// Adds an envelope.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn push(&mut self, envelope: &str) -> anyhow::Result<()> {
        let index = self.tree.size();
        let file = match &mut self.entries {
            Some(file) if !index.is_multiple_of(ENTRIES_PER_FILE) => file,
            before => {
                if let Some(mut full) = before.take() {
                    full.flush()?;
                }
                let name = format!("entries-{:06}.jsonl", index / ENTRIES_PER_FILE);
                before.insert(BufWriter::new(File::create(self.root.join(name))?))
            }
        };
        serde_json::to_writer(&mut *file, &json!({ "log_index": index, "envelope": envelope }))?;
        file.write_all(b"\n")?;
        self.tree.append(envelope.as_bytes());
        Ok(())
    }

    /// Signs and ends it.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn seal(mut self, signer: NoteSigner) -> anyhow::Result<()> {
        if let Some(file) = &mut self.entries {
            file.flush()?;
        }
        let origin = signer.verifier_key().name().to_owned();
        let policy = format!("log {}\nquorum none\n", signer.verifier_key());
        let checkpoint = Checkpoint { origin, size: self.tree.size(), root: self.tree.root() };
        fs::write(self.root.join("policy"), policy)?;
        fs::write(self.root.join("checkpoint"), SignedNote::sign(&checkpoint, &[signer]).to_string())?;
        fs::write(self.root.join("end.json"), json!({ "entries": checkpoint.size }).to_string())?;
        Ok(())
    }
}
