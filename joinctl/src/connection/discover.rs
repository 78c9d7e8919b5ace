//! Where the authority is and who calls: flags and environment, else what `joind dev` left here, else `~/.config`.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow, bail};
use join_proto::Address;

use crate::output::say;

/// What a connection needs.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) address: Address,
    /// A directory with `ca.crt`, `tls.crt` and `tls.key`.
    pub(crate) identity: PathBuf,
}

/// The places that are looked into.
pub(crate) struct Places<'a> {
    /// The file in which `joind dev` says how to reach it.
    pub(crate) dev_env: &'a Path,
    /// The user's own directory, with `addr` beside the identity's files.
    pub(crate) home: Option<&'a Path>,
}

/// Finds address and identity, each where it is named first. No place is looked into for what is known already: a file
/// that can't be read, such as root's, is nothing to those who don't need it.
pub(crate) fn discover(addr: Option<&str>, identity: Option<&Path>, places: &Places<'_>) -> anyhow::Result<Settings> {
    let dev = match (addr, identity) {
        (Some(_), Some(_)) => DevEnv::default(),
        _ => DevEnv::read(places.dev_env)?,
    };
    let home = places.home.filter(|home| home.is_dir());
    let identity = identity.map(Path::to_owned).or(dev.identity).or_else(|| home.map(Path::to_owned));
    let is_of_dev = addr.is_none() && dev.addr.is_some();
    let mut addr = addr.map(str::to_owned).or(dev.addr);
    if let (None, Some(home)) = (&addr, home) {
        let file = home.join("addr");
        let opened = open_if_there(&file)?;
        addr = opened.map(io::read_to_string).transpose().map_err(|error| unreadable(&file, error))?;
    }

    let addr = addr.ok_or_else(|| match &identity {
        Some(identity) => address_missing(identity, places),
        None => nothing_found("address", "--addr HOST:PORT or JOINCTL_ADDR", places),
    })?;
    let identity = identity.ok_or_else(|| nothing_found("identity", "--identity DIR or JOINCTL_IDENTITY", places))?;
    let address: Address = addr.parse()?;
    // `joind dev` mostly serves this machine alone. What came with somebody's archive may lead anywhere.
    if is_of_dev && !address.is_loopback() {
        let file = places.dev_env.display();
        say(format!(
            "note: {file} leads to {address}, which is not this machine's loopback; --addr and --identity lead elsewhere"
        ));
    }
    Ok(Settings { address, identity })
}

/// Who calls is known, and not whom.
fn address_missing(identity: &Path, places: &Places<'_>) -> anyhow::Error {
    let file = places.home.map(|home| format!(", or write HOST:PORT into {}", home.join("addr").display()));
    anyhow!(
        "no address of the authority: the identity is that in {}, and nothing says where the authority is; \
         give --addr HOST:PORT or JOINCTL_ADDR{}",
        identity.display(),
        file.unwrap_or_default()
    )
}

fn nothing_found(what: &str, named_by: &str, places: &Places<'_>) -> anyhow::Error {
    let home = places.home.map(|home| format!(" nor {}", home.display())).unwrap_or_default();
    anyhow!(
        "no {what} of the authority: {named_by} is not given, and there is neither {}{home} to go by; start \
         `joind dev` here, or \
         let `joind admin issue --role ROLE --name NAME --out DIR` on the server's host make an identity",
        places.dev_env.display()
    )
}

/// The two `export` lines that `joind dev` writes for a shell.
#[derive(Debug, Default, PartialEq)]
struct DevEnv {
    addr: Option<String>,
    identity: Option<PathBuf>,
}

impl DevEnv {
    /// Reads the file, unless somebody else could have written it: commands are run in directories of others, too.
    fn read(file: &Path) -> anyhow::Result<Self> {
        let unreadable = |error| unreadable(file, error);
        let Some(opened) = open_if_there(file)? else { return Ok(Self::default()) };
        // Of what was opened: another file may be in its place by now.
        let metadata = opened.metadata().map_err(unreadable)?;
        let caller = rustix::process::geteuid().as_raw();
        if let Some(why) = why_not_believed(metadata.uid(), metadata.mode(), caller) {
            let file = file.display();
            say(format!("warning: {file} is passed over, because {why}: --addr and --identity do without it"));
            return Ok(Self::default());
        }
        Ok(Self::parse(&io::read_to_string(opened).map_err(unreadable)?))
    }

    fn parse(text: &str) -> Self {
        let value = |name: &str| {
            text.lines().find_map(|line| {
                let line = line.trim();
                let value =
                    line.strip_prefix("export ").unwrap_or(line).trim_start().strip_prefix(name)?.strip_prefix('=')?;
                Some(unquoted(value))
            })
        };
        Self { addr: value("JOINCTL_ADDR"), identity: value("JOINCTL_IDENTITY").map(PathBuf::from) }
    }
}

/// What a shell makes of a word that may be quoted.
fn unquoted(word: &str) -> String {
    let inside = |quote| word.strip_prefix(quote)?.strip_suffix(quote);
    match (inside('\''), inside('"')) {
        (Some(inner), _) => inner.replace(r"'\''", "'"),
        (None, Some(inner)) => inner.to_owned(),
        (None, None) => word.to_owned(),
    }
}

/// Why a file with this owner and mode may hold another's words.
fn why_not_believed(owner: u32, mode: u32, caller: u32) -> Option<&'static str> {
    const ROOT: u32 = 0;
    if owner != caller && owner != ROOT {
        return Some("it belongs to another user");
    }
    (mode & 0o022 != 0).then_some("other users can write it")
}

fn open_if_there(file: &Path) -> anyhow::Result<Option<File>> {
    // One that nobody writes to would be waited for.
    if fs::metadata(file).is_ok_and(|about| about.file_type().is_fifo()) {
        return Err(unreadable(file, io::Error::other("it is a pipe")));
    }
    match File::open(file) {
        Ok(opened) => Ok(Some(opened)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(unreadable(file, error)),
    }
}

fn unreadable(file: &Path, error: io::Error) -> anyhow::Error {
    let file = file.display();
    anyhow!(error).context(format!("cannot read {file}, to find the authority; --addr and --identity do without it"))
}

/// The files of an identity, as PEM.
pub(crate) struct Identity {
    pub(crate) ca: Vec<u8>,
    pub(crate) cert: Vec<u8>,
    pub(crate) key: Vec<u8>,
}

impl Identity {
    /// Reads `ca.crt`, `tls.crt` and `tls.key`. Errors name the file and how an identity comes to be.
    pub(crate) fn read(directory: &Path) -> anyhow::Result<Self> {
        if !directory.is_dir() {
            bail!(
                "the identity {} is not a directory; `joind dev` makes one, or \
                 `joind admin issue --out DIR` on the server's host",
                directory.display()
            );
        }
        let read = |name: &str| {
            let file = directory.join(name);
            fs::read(&file).with_context(|| format!("the identity is incomplete: cannot read {}", file.display()))
        };
        Ok(Self { ca: read("ca.crt")?, cert: read("tls.crt")?, key: read("tls.key")? })
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::Permissions, os::unix::fs::PermissionsExt as _};

    use super::*;

    fn only_for_us(path: &Path) {
        fs::set_permissions(path, Permissions::from_mode(0o700)).unwrap();
    }

    fn write_dev_env(file: &Path, text: &str) {
        fs::write(file, text).unwrap();
        only_for_us(file);
    }

    #[test]
    fn the_env_file_is_read_as_a_shell_would() {
        let env =
            DevEnv::parse("# dev\nexport JOINCTL_ADDR=127.0.0.1:3025\nexport JOINCTL_IDENTITY='/my data/identity'\n");
        assert_eq!(env.addr.as_deref(), Some("127.0.0.1:3025"));
        assert_eq!(env.identity.as_deref(), Some(Path::new("/my data/identity")));
        let env = DevEnv::parse(r"export JOINCTL_IDENTITY='/it'\''s/identity'");
        assert_eq!(env.identity.as_deref(), Some(Path::new("/it's/identity")));
        assert_eq!(DevEnv::parse("export OTHER=1"), DevEnv::default());
    }

    #[test]
    fn a_file_is_believed_that_only_the_caller_or_root_can_write() {
        const CALLER: u32 = 1000;
        for (owner, mode, is_believed) in [
            (CALLER, 0o100_600, true),
            (CALLER, 0o100_644, true),
            (0, 0o100_644, true),
            (1001, 0o100_600, false),
            (CALLER, 0o100_664, false),
            (CALLER, 0o100_646, false),
            (0, 0o100_666, false),
        ] {
            assert_eq!(why_not_believed(owner, mode, CALLER).is_none(), is_believed, "{owner} {mode:o}");
        }
        assert!(why_not_believed(CALLER, 0o100_600, 0).is_some(), "root is led by nobody else");
    }

    #[test]
    fn flags_come_first_then_the_dev_server_then_home() {
        let folder = tempfile::tempdir().unwrap();
        let (dev_env, home) = (folder.path().join("env"), folder.path().join("home"));
        let places = Places { dev_env: &dev_env, home: Some(&home) };
        let found = |addr, identity| {
            discover(addr, identity, &places)
                .map(|it| (it.address.to_string(), it.identity))
                .map_err(|it| it.to_string())
        };

        assert!(found(None, None).unwrap_err().contains("joind admin issue"));
        fs::create_dir(&home).unwrap();
        let missing = found(None, None).unwrap_err();
        assert!(missing.starts_with("no address of the authority: the identity is that in "), "{missing}");
        assert!(missing.contains(&format!("or write HOST:PORT into {}", home.join("addr").display())), "{missing}");
        assert!(found(None, Some(Path::new("/flag"))).unwrap_err().contains("the identity is that in /flag,"));
        fs::write(home.join("addr"), "home.example:1\n").unwrap();
        assert_eq!(found(None, None), Ok(("home.example:1".into(), home.clone())));
        write_dev_env(&dev_env, "export JOINCTL_ADDR=localhost:2\nexport JOINCTL_IDENTITY=/dev-identity\n");
        assert_eq!(found(None, None), Ok(("localhost:2".into(), "/dev-identity".into())));
        fs::set_permissions(&dev_env, Permissions::from_mode(0o666)).unwrap();
        assert_eq!(found(None, None), Ok(("home.example:1".into(), home.clone())), "others could have written it");
        only_for_us(&dev_env);
        assert_eq!(found(Some("flag:3"), Some(Path::new("/flag"))), Ok(("flag:3".into(), "/flag".into())));
    }

    #[test]
    fn only_what_is_needed_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let (dev_env, home) = (folder.path().join("env"), folder.path().join("home"));
        let places = Places { dev_env: &dev_env, home: Some(&home) };
        let identity = Some(Path::new("/flag"));
        // A directory can't be read as a file, by root neither.
        fs::create_dir_all(home.join("addr")).unwrap();
        let told = |addr, identity| discover(addr, identity, &places).map(drop).map_err(|it| it.to_string());

        let of_home = told(None, identity).unwrap_err();
        assert!(of_home.starts_with(&format!("cannot read {}, ", home.join("addr").display())), "{of_home}");
        assert_eq!(told(Some("flag:3"), None), Ok(()), "the address is known");
        write_dev_env(&dev_env, "export JOINCTL_ADDR=localhost:2\n");
        assert_eq!(told(None, identity), Ok(()), "the address is known");

        fs::remove_file(&dev_env).unwrap();
        fs::create_dir(&dev_env).unwrap();
        only_for_us(&dev_env);
        assert_eq!(told(Some("flag:3"), identity), Ok(()), "both are known");
        for (addr, identity) in [(Some("flag:3"), None), (None, identity)] {
            let of_dev = told(addr, identity).unwrap_err();
            assert!(of_dev.starts_with(&format!("cannot read {}, ", dev_env.display())), "{of_dev}");
            assert!(of_dev.ends_with("--addr and --identity do without it"), "{of_dev}");
        }
    }

    #[test]
    fn an_incomplete_identity_names_the_missing_file() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca.crt"), "").unwrap();
        let error = Identity::read(folder.path()).err().unwrap();
        assert!(error.to_string().ends_with("tls.crt"), "{error}");
        let error = Identity::read(Path::new("/nowhere")).err().unwrap();
        assert!(error.to_string().contains("joind admin issue"), "{error}");
    }
}
