//! A directory for the socket: private, and with a path that fits into a socket address.

use std::env;
use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::Error;
use crate::owner::Owner;

/// The longest path of a socket in bytes: `sun_path` without the closing zero.
const LONGEST_PATH: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// The longest directory that leaves room for `/.s.PGSQL.5432`.
const LONGEST_DIRECTORY: usize = LONGEST_PATH - "/.s.PGSQL.5432".len();

/// Where the socket lives.
#[derive(Debug)]
pub(crate) enum SocketDir {
    /// In the cluster's own directory.
    Inside(PathBuf),
    /// In a temporary directory, because the cluster's own won't do.
    Apart(TempDir),
}

impl SocketDir {
    /// `inside` if a socket can live in it, else a new temporary directory.
    pub(crate) fn make(inside: PathBuf, owner: &Owner) -> Result<Self, Error> {
        if !fits(&inside) {
            return short_directory("pg-", "", owner).map(Self::Apart);
        }
        make_private(&inside, owner)?;
        Ok(Self::Inside(inside))
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Inside(path) => path,
            Self::Apart(directory) => directory.path(),
        }
    }
}

/// Makes a directory that only `owner` can use, or closes an existing one to everybody else.
pub(crate) fn make_private(path: &Path, owner: &Owner) -> Result<(), Error> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(Error::io("make the directory", path))?;
    fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(Error::io("close to others", path))?;
    owner.takes(path)
}

/// A new private directory under the temporary directory, else `/tmp`, where `owner` can get to and whose subdirectory
/// `inner` can hold a socket.
pub(crate) fn short_directory(prefix: &str, inner: &str, owner: &Owner) -> Result<TempDir, Error> {
    for parent in [env::temp_dir(), PathBuf::from("/tmp")] {
        let Ok(parent) = parent.canonicalize() else { continue };
        let named = parent.join(format!("{prefix}123456")).join(inner);
        if !fits(&named) || owner.can_reach(&named).is_err() {
            continue;
        }
        let directory = tempfile::Builder::new()
            .prefix(prefix)
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(&parent)
            .map_err(Error::io("make a directory in", &parent))?;
        owner.takes(directory.path())?;
        return Ok(directory);
    }
    Err(Error::NoShortDirectory { longest: LONGEST_DIRECTORY - format!("/{prefix}123456/{inner}").len() })
}

/// Whether the path of a socket in `directory` is short enough, and has neither a comma nor a quote: the first separates
/// hosts for libpq, the second ends a path in PostgreSQL's configuration.
fn fits(directory: &Path) -> bool {
    let path = directory.as_os_str();
    path.len() <= LONGEST_DIRECTORY && !path.as_bytes().iter().any(|byte| matches!(byte, b',' | b'"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_path_may_fill_its_address_and_no_more() {
        let fitting = format!("/{}", "d".repeat(LONGEST_DIRECTORY - 1));
        assert!(fits(Path::new(&fitting)));
        assert!(!fits(Path::new(&format!("{fitting}d"))));
    }

    #[test]
    fn a_short_directory_is_private_and_short() {
        let directory = short_directory("pg-", "run", &Owner::Ourselves).unwrap();
        assert!(fits(&directory.path().join("run")));
        assert_eq!(fs::metadata(directory.path()).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
