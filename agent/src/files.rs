//! Files that are replaced whole or not at all.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Component, Path, PathBuf},
};

/// Readable by the owner only.
pub(crate) const PRIVATE: u32 = 0o600;
/// Readable by everybody.
pub(crate) const PUBLIC: u32 = 0o644;

/// Replaces `directory/name`, durably: when this returns, the new contents survive a loss of power; when it fails, the
/// old ones are still there. One writer at a time.
pub(crate) fn replace(directory: &Path, name: &str, contents: &[u8], mode: u32) -> io::Result<()> {
    let temporary = directory.join(format!(".{name}.new"));
    let written = write_new(&temporary, contents, mode).and_then(|()| fs::rename(&temporary, directory.join(name)));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written?;
    // The rename itself must reach the disk too.
    File::open(directory)?.sync_all()
}

fn write_new(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    // Left over from a crash. Made anew rather than reused, so that nobody else can hold it open or have put a link here.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(contents)?;
    file.sync_all()
}

/// Creates a directory that may be there, and those above it, for the owner alone, and durably: what is written into it
/// later survives a loss of power only with the way that leads to it.
pub(crate) fn create_directory(path: &Path) -> io::Result<()> {
    let places_of_new = places_of_new(&std::path::absolute(path)?);
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    places_of_new.iter().try_for_each(|directory| File::open(directory)?.sync_all())
}

/// The directories that would get an entry, if this one were created with those above it.
fn places_of_new(path: &Path) -> Vec<PathBuf> {
    let missing = path.ancestors().take_while(|directory| !directory.exists());
    missing.filter_map(Path::parent).map(Path::to_owned).collect()
}

/// Finds out whether files can be written here, by writing one.
pub(crate) fn probe(directory: &Path) -> io::Result<()> {
    let probe = directory.join(".probe");
    let written = write_new(&probe, b"joinbot can write here\n", PRIVATE);
    let removed = fs::remove_file(&probe);
    written.and(removed)
}

/// Whom files belong to that this process writes here, by writing one that has no name.
pub(crate) fn owner_of_new(directory: &Path) -> io::Result<u32> {
    Ok(tempfile::tempfile_in(directory)?.metadata()?.uid())
}

/// Whom this process runs as, where the system tells it in files.
pub(crate) fn user() -> Option<u32> {
    fs::metadata("/proc/self").ok().map(|this| this.uid())
}

/// The directory that a path leads to, also when it is not there yet: absolute, with links followed and `..` resolved.
pub(crate) fn resolved(path: &Path) -> io::Result<PathBuf> {
    let mut place = PathBuf::new();
    for part in std::path::absolute(path)?.components() {
        match part {
            Component::ParentDir => drop(place.pop()),
            part => place.push(part),
        }
        if let Ok(there) = fs::canonicalize(&place) {
            place = there;
        }
    }
    Ok(place)
}

/// Reads a file that need not be there.
pub(crate) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(contents) => Ok(Some(contents)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_directory_that_gets_an_entry_is_known_before_and_none_later() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        assert_eq!(places_of_new(&at("a/b/c")), [at("a/b"), at("a"), root.path().to_owned()]);
        create_directory(&at("a/b/c")).unwrap();
        assert_eq!(fs::metadata(at("a")).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(places_of_new(&at("a/b/c")).is_empty());
    }
}
