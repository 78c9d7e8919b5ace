//! Finding PostgreSQL's server programs on this machine.

use std::cmp::Reverse;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Error;

/// The oldest major version of PostgreSQL that we run on.
pub const OLDEST_MAJOR: u32 = 15;

/// Where distributions put the binaries of several versions side by side, up to the version; `bin` is below.
const PLACES: &[&str] = &[
    "/usr/lib/postgresql/",                          // Debian, Ubuntu
    "/usr/pgsql-",                                   // Fedora and its relatives, PostgreSQL's own packages
    "/opt/homebrew/opt/postgresql@",                 // Homebrew on Apple silicon
    "/usr/local/opt/postgresql@",                    // Homebrew on Intel
    "/home/linuxbrew/.linuxbrew/opt/postgresql@",    // Homebrew on Linux
    "/Applications/Postgres.app/Contents/Versions/", // Postgres.app
];

/// What installs a server, by the package manager that is there.
const INSTALL: &[(&str, &str)] = &[
    ("apt-get", "apt-get install postgresql"),
    ("dnf", "dnf install postgresql-server"),
    ("brew", "brew install postgresql@17"),
    ("apk", "apk add postgresql"),
    ("pacman", "pacman -S postgresql"),
    ("zypper", "zypper install postgresql-server"),
];

/// One installation of PostgreSQL's server: `postgres` and `initdb` side by side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    directory: PathBuf,
    version: String,
    major: u32,
}

impl Binaries {
    /// The installation that `PATH` names, else the newest one in the places where Debian, Fedora, Homebrew and
    /// Postgres.app put them.
    ///
    /// # Errors
    /// [`Error::NotInstalled`] or [`Error::TooOld`], each with the command that installs one.
    pub fn find() -> Result<Self, Error> {
        choose(installed(), |_| true)
    }

    /// The installation for a cluster that `major` made: one of that version, else the newest there is.
    pub(crate) fn find_for(major: u32) -> Result<Self, Error> {
        choose(installed(), |found| found.major == major)
    }

    /// The installation in `directory`, of whatever version.
    ///
    /// # Errors
    /// [`Error::NotBinaries`] when `postgres` or `initdb` is missing, can't be run or doesn't tell its version.
    pub fn at(directory: &Path) -> Result<Self, Error> {
        let refuse = |reason: String| Error::NotBinaries { directory: directory.to_owned(), reason };
        // A link on PATH leads to the place where both programs are.
        let postgres = directory.join("postgres");
        let postgres = postgres.canonicalize().map_err(|error| refuse(format!("{}: {error}", postgres.display())))?;
        let directory = postgres.parent().unwrap_or(directory).to_owned();
        if !directory.join("initdb").is_file() {
            return Err(refuse("there is no `initdb` beside `postgres`".to_owned()));
        }
        let output = Command::new(&postgres).arg("--version").output().map_err(|error| refuse(error.to_string()))?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let (version, major) =
            parse_version(&text).ok_or_else(|| refuse(format!("`postgres --version` answers {text:?}")))?;
        Ok(Self { directory, version, major })
    }

    /// Refuses a version older than [`OLDEST_MAJOR`].
    pub(crate) fn new_enough(self) -> Result<Self, Error> {
        match self.major {
            OLDEST_MAJOR.. => Ok(self),
            _ => Err(Error::TooOld { found: self.version, directory: self.directory, install: install_command() }),
        }
    }

    /// Where the programs are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The version as the server reports it: `15.13`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The major version: 15.
    pub fn major(&self) -> u32 {
        self.major
    }

    /// The path of one of the programs.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// Every installation on this machine: that of `PATH` first, then the newest first.
fn installed() -> Vec<Binaries> {
    let path = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&path).filter(|directory| directory.is_absolute());
    let mut elsewhere: Vec<Binaries> =
        PLACES.iter().flat_map(|prefix| versions_at(prefix)).filter_map(usable).collect();
    elsewhere.sort_by_key(|found| Reverse(found.major));
    on_path.chain([PathBuf::from("/usr/bin")]).filter_map(usable).chain(elsewhere).collect()
}

/// The installation in `directory`, if there is one that works.
fn usable(directory: PathBuf) -> Option<Binaries> {
    directory.join("postgres").exists().then(|| Binaries::at(&directory).ok()).flatten()
}

/// The directories `prefix*/bin`.
fn versions_at(prefix: &str) -> Vec<PathBuf> {
    let (parent, start) = prefix.rsplit_once('/').expect("every place is an absolute path");
    let Ok(entries) = std::fs::read_dir(parent) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(start))
        .map(|entry| entry.path().join("bin"))
        .collect()
}

/// The first that is new enough and wanted, else the newest if that is new enough.
fn choose(installed: Vec<Binaries>, wanted: impl Fn(&Binaries) -> bool) -> Result<Binaries, Error> {
    let newest = installed.iter().max_by_key(|found| found.major).cloned();
    match installed.into_iter().find(|found| found.major >= OLDEST_MAJOR && wanted(found)) {
        Some(found) => Ok(found),
        None => newest.ok_or_else(|| Error::NotInstalled { install: install_command() })?.new_enough(),
    }
}

/// The command that installs a server on this machine.
fn install_command() -> &'static str {
    let path = env::var_os("PATH").unwrap_or_default();
    let present = |program: &str| env::split_paths(&path).any(|directory| directory.join(program).exists());
    INSTALL
        .iter()
        .find(|(manager, _)| present(manager))
        .map_or("see https://www.postgresql.org/download/", |(_, command)| command)
}

/// Version and major version of `postgres (PostgreSQL) 15.13 (Debian 15.13-0+deb12u1)`.
fn parse_version(text: &str) -> Option<(String, u32)> {
    let version = text.strip_prefix("postgres (PostgreSQL) ")?.split_whitespace().next()?;
    let major = version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
    Some((version.to_owned(), major))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn installation(major: u32) -> Binaries {
        Binaries { directory: format!("/usr/lib/postgresql/{major}/bin").into(), version: format!("{major}.1"), major }
    }

    #[test]
    fn versions_of_releases_and_previews_are_read() {
        let version = |text| parse_version(text).map(|(_, major)| major);
        assert_eq!(version("postgres (PostgreSQL) 15.13 (Debian 15.13-0+deb12u1)"), Some(15));
        assert_eq!(version("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(version("postgres (PostgreSQL) 9.6.24"), Some(9));
        assert_eq!(version("mysqld 8.0"), None);
        assert_eq!(version(""), None);
    }

    #[test]
    fn the_first_new_enough_installation_is_chosen() {
        assert_eq!(choose(vec![installation(14), installation(16), installation(17)], |_| true).unwrap().major, 16);
    }

    #[test]
    fn an_old_installation_is_refused_with_its_version() {
        let error = choose(vec![installation(13), installation(14)], |_| true).unwrap_err().to_string();
        assert!(error.starts_with("PostgreSQL 14.1 in /usr/lib/postgresql/14/bin is too old, 15 or newer"), "{error}");
    }

    #[test]
    fn nothing_installed_names_the_command() {
        let error = choose(vec![], |_| true).unwrap_err().to_string();
        assert!(error.contains("; install it: ") && error.ends_with(install_command()), "{error}");
    }
}
