//! What a directory holds.

use std::{collections::BTreeMap, fs, io, path::Path};

/// Every file below a directory, by its path from there.
///
/// # Errors
/// When something in it can't be read, or went away meanwhile.
pub fn files(root: &Path) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if path.is_dir() {
                left.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
                found.insert(name, fs::read(path)?);
            }
        }
    }
    Ok(found)
}
