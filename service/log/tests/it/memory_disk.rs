//! A disk in memory that can fail at any operation, and lose its power.
//!
//! What a power cut leaves is what POSIX promises and no more: the content of a file that was synced, under names that were
//! synced in directories whose own names were synced. Of the rest, anything may be there or not, whole or cut off.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use join_log::files::Files;

/// What a path leads to; no content means a directory.
type Names = BTreeMap<PathBuf, Option<Vec<u8>>>;

/// Clones share the disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct MemoryDisk(Rc<RefCell<State>>);

#[derive(Debug, Default)]
struct State {
    /// What a running process sees.
    now: Names,
    /// What is certain to survive, unless a directory above does not.
    durable: Names,
    /// Operations so far that change anything.
    operations: usize,
    /// The operation that fails; a write leaves half of its bytes.
    fails_at: Option<usize>,
}

impl MemoryDisk {
    /// A disk with nothing but one directory.
    pub(crate) fn with(root: &str) -> Self {
        let disk = Self::default();
        disk.0.borrow_mut().now.insert(root.into(), None);
        disk.0.borrow_mut().durable.insert(root.into(), None);
        disk
    }

    /// Counts operations from now on, and lets the one with this number, from 0, fail.
    pub(crate) fn fail_at(&self, operation: Option<usize>) {
        let mut state = self.0.borrow_mut();
        (state.operations, state.fails_at) = (0, operation);
    }

    /// Whether the fault happened.
    pub(crate) fn failed(&self) -> bool {
        let state = self.0.borrow();
        state.fails_at.is_some_and(|at| state.operations > at)
    }

    /// An independent copy.
    pub(crate) fn copy(&self) -> Self {
        let state = self.0.borrow();
        Self(Rc::new(RefCell::new(State {
            now: state.now.clone(),
            durable: state.durable.clone(),
            operations: 0,
            fails_at: None,
        })))
    }

    /// Loses what was not synced, as far as `survives` does not say otherwise.
    pub(crate) fn cut_power(&self, mut survives: impl FnMut() -> bool) {
        let mut state = self.0.borrow_mut();
        let paths: Vec<PathBuf> = state.now.keys().chain(state.durable.keys()).cloned().collect();
        let mut left = Names::new();
        for path in paths {
            let [now, durable] = [&state.now, &state.durable].map(|names| names.get(&path));
            let kept = if now == durable || !survives() { durable } else { now };
            let has_parent = path.parent().is_none_or(|parent| parent == Path::new("") || left.contains_key(parent));
            if let Some(kept) = kept.filter(|_| has_parent) {
                left.insert(path, kept.clone());
            }
        }
        (state.now, state.durable) = (left.clone(), left);
    }

    /// What is not there can't be removed; that changes nothing, and counts for none.
    fn there(&self, path: &Path) -> io::Result<()> {
        if self.0.borrow().now.contains_key(path) { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn change(&self, act: impl FnOnce(&mut State, bool) -> io::Result<()>) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        let fails = state.fails_at == Some(state.operations);
        state.operations += 1;
        act(&mut state, fails)?;
        if fails { Err(io::Error::other("injected fault")) } else { Ok(()) }
    }
}

impl Files for MemoryDisk {
    fn exists(&self, path: &Path) -> bool {
        self.there(path).is_ok()
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.0.borrow().now.get(path).cloned().flatten().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn create_directories(&self, path: &Path) -> io::Result<()> {
        self.change(|state, fails| {
            let missing: Vec<_> = path.ancestors().filter(|path| *path != Path::new("")).collect();
            // Failing, it has made all but the last.
            for directory in
                missing.into_iter().rev().take(if fails { path.components().count() - 1 } else { usize::MAX })
            {
                state.now.entry(directory.to_owned()).or_insert(None);
            }
            Ok(())
        })
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.change(|state, fails| {
            assert!(path.parent().is_none_or(|parent| state.now.contains_key(parent)), "no directory for {path:?}");
            let written = if fails { &bytes[..bytes.len() / 2] } else { bytes };
            state.now.insert(path.to_owned(), Some(written.to_vec()));
            Ok(())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(|state, fails| {
            if !fails {
                let file = state.now.remove(from).ok_or(io::ErrorKind::NotFound)?;
                state.now.insert(to.to_owned(), file);
            }
            Ok(())
        })
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.change(|state, fails| {
            if !fails {
                state.durable.retain(|name, _| name.parent() != Some(path));
                let names = state.now.iter().filter(|(name, _)| name.parent() == Some(path));
                state.durable.extend(names.map(|(name, file)| (name.clone(), file.clone())));
            }
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.there(path)?;
        self.change(|state, fails| {
            if !fails {
                state.now.remove(path);
            }
            Ok(())
        })
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        self.there(path)?;
        self.change(|state, fails| {
            if !fails {
                state.now.retain(|name, _| !name.starts_with(path));
            }
            Ok(())
        })
    }
}
