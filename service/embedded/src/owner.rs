//! Who PostgreSQL runs as, and whether that user can get to a directory.

use std::fs::{self, Metadata};
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Error;

/// The user PostgreSQL runs as: ourselves, or somebody unprivileged when we are root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Owner {
    Ourselves,
    Other { name: String, uid: u32, gid: u32 },
}

impl Owner {
    /// Who runs a new cluster: ourselves; as root `postgres`, else `nobody`.
    pub(crate) fn of_new() -> Result<Self, Error> {
        if !we_are_root()? {
            return Ok(Self::Ourselves);
        }
        let users = users();
        ["postgres", "nobody"].iter().find_map(|name| lookup(&users, name)).ok_or(Error::NobodyToRunAs)
    }

    /// Who runs the cluster with the data directory `data`: ourselves; as root whoever it belongs to.
    pub(crate) fn of(data: &Path) -> Result<Self, Error> {
        let Ok(metadata) = fs::metadata(data) else { return Self::of_new() };
        if !we_are_root()? {
            return Ok(Self::Ourselves);
        }
        if metadata.uid() == 0 {
            return Err(Error::OwnedByRoot { data: data.to_owned() });
        }
        Ok(Self::Other { name: name_of(&users(), metadata.uid()), uid: metadata.uid(), gid: metadata.gid() })
    }

    /// Gives `path` to this user.
    pub(crate) fn takes(&self, path: &Path) -> Result<(), Error> {
        match self {
            Self::Ourselves => Ok(()),
            Self::Other { uid, gid, .. } => {
                chown(path, Some(*uid), Some(*gid)).map_err(Error::io("change the owner of", path))
            }
        }
    }

    /// Lets `command` run as this user; std drops root's supplementary groups along with it.
    pub(crate) fn runs(&self, command: &mut Command) {
        if let Self::Other { uid, gid, .. } = self {
            command.gid(*gid).uid(*uid);
        }
    }

    /// Refuses a `target` that this user can't get to. Only the directories above it are looked at, as far as they exist.
    pub(crate) fn can_reach(&self, target: &Path) -> Result<(), Error> {
        let Self::Other { name, uid, gid } = self else { return Ok(()) };
        match closed_directory(target, *uid, *gid)? {
            None => Ok(()),
            Some(blocking) => Err(Error::Unreachable { user: name.clone(), target: target.to_owned(), blocking }),
        }
    }
}

/// The first directory above `target` that the user may not pass through.
fn closed_directory(target: &Path, uid: u32, gid: u32) -> Result<Option<PathBuf>, Error> {
    let mut above: Vec<&Path> = target.ancestors().skip(1).collect();
    above.reverse();
    for directory in above {
        let metadata = match fs::metadata(directory) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => break,
            Err(error) => return Err(Error::io("look at", directory)(error)),
        };
        if !may_pass(&metadata, uid, gid) {
            return Ok(Some(directory.to_owned()));
        }
    }
    Ok(None)
}

/// Whether a user without further groups may pass through a directory.
fn may_pass(directory: &Metadata, uid: u32, gid: u32) -> bool {
    let bit = match () {
        () if directory.uid() == uid => 0o100,
        () if directory.gid() == gid => 0o010,
        () => 0o001,
    };
    directory.mode() & bit != 0
}

/// Whether files that we make belong to root, which is what being root means here.
fn we_are_root() -> Result<bool, Error> {
    let directory = std::env::temp_dir();
    let metadata = tempfile::tempfile().and_then(|file| file.metadata());
    Ok(metadata.map_err(Error::io("make a file in", &directory))?.uid() == 0)
}

/// The text of `/etc/passwd`, empty when there is none.
fn users() -> String {
    fs::read_to_string("/etc/passwd").unwrap_or_default()
}

/// The user called `name` in the text of `/etc/passwd`.
fn lookup(users: &str, name: &str) -> Option<Owner> {
    let fields: Vec<&str> = users.lines().map(|line| line.split(':').collect()).find(|f: &Vec<&str>| f[0] == name)?;
    let (uid, gid) = (fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?);
    Some(Owner::Other { name: name.to_owned(), uid, gid })
}

/// The name of a user in the text of `/etc/passwd`, else the number.
fn name_of(users: &str, uid: u32) -> String {
    let number = uid.to_string();
    let line = users.lines().find(|line| line.split(':').nth(2) == Some(&number));
    line.and_then(|line| line.split(':').next()).unwrap_or(&number).to_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const USERS: &str = "root:x:0:0:root:/root:/bin/bash\npostgres:x:101:104::/var/lib/postgresql:/bin/bash\nbroken\n";

    #[test]
    fn users_are_looked_up_by_name_and_number() {
        assert_eq!(lookup(USERS, "postgres"), Some(Owner::Other { name: "postgres".to_owned(), uid: 101, gid: 104 }));
        assert_eq!(lookup(USERS, "broken"), None);
        assert_eq!(lookup(USERS, "nobody"), None);
        assert_eq!(name_of(USERS, 101), "postgres");
        assert_eq!(name_of(USERS, 4711), "4711");
    }

    #[test]
    fn a_closed_directory_on_the_way_is_named() {
        let base = tempfile::tempdir().unwrap();
        let closed = base.path().join("closed");
        let target = closed.join("inner/cluster");
        fs::create_dir_all(&target).unwrap();
        fs::set_permissions(base.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
        let us = fs::metadata(&target).unwrap();
        assert_eq!(closed_directory(&target, us.uid(), us.gid()).unwrap(), None);
        assert_eq!(closed_directory(&target, 4711, 4711).unwrap(), Some(closed));
    }
}
