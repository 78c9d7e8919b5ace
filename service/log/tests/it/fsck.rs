//! Rebuilds every tile and the root of a published log from nothing but its entry bundles, and compares.

use std::path::Path;

use join_log::files::Files;
use join_log::{Hash, SignedNote};

use crate::{log_signer, naive};

/// The entries of a log whose every promised file is there and right. Panics otherwise.
pub(crate) fn fsck(files: &impl Files, root: &Path) -> Vec<Vec<u8>> {
    let read = |name: &str| files.read(&root.join(name)).unwrap_or_else(|why| panic!("{name}: {why}"));
    let Ok(note) = files.read(&root.join("checkpoint")) else { return Vec::new() };
    let note: SignedNote = String::from_utf8(note).unwrap().parse().unwrap();
    assert!(note.is_signed_by(log_signer().verifier_key()));
    let checkpoint = note.checkpoint().unwrap();
    let size = checkpoint.size as usize;

    let entries: Vec<Vec<u8>> =
        names("entries", size).into_iter().flat_map(|(name, width)| unbundle(&read(&name), width)).collect();
    let mut slots: Vec<Hash> = entries.iter().map(|entry| naive::leaf(entry)).collect();
    assert_eq!(naive::root(&slots), checkpoint.root);
    for level in 0.. {
        let tiles = names(&level.to_string(), slots.len());
        for ((name, width), hashes) in tiles.iter().zip(slots.chunks(256)) {
            assert_eq!((hashes.len(), read(name)), (*width, hashes.concat()), "{name}");
        }
        slots = slots.chunks_exact(256).map(naive::root).collect();
        if slots.is_empty() {
            break;
        }
    }
    entries
}

/// The tiles that hold so many slots, by name and width. Tests stay below a thousand tiles.
fn names(layer: &str, slots: usize) -> Vec<(String, usize)> {
    let full = (0..slots / 256).map(|n| (format!("tile/{layer}/{n:03}"), 256));
    let partial = Some(slots % 256).filter(|width| *width > 0);
    full.chain(partial.map(|width| (format!("tile/{layer}/{:03}.p/{width}", slots / 256), width))).collect()
}

fn unbundle(mut bytes: &[u8], width: usize) -> Vec<Vec<u8>> {
    let mut entries = Vec::new();
    while let [high, low, rest @ ..] = bytes {
        let (entry, rest) = rest.split_at(usize::from(*high) << 8 | usize::from(*low));
        entries.push(entry.to_vec());
        bytes = rest;
    }
    assert_eq!(entries.len(), width);
    entries
}
