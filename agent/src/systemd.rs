//! A systemd unit for the daemon.

use std::path::{Component, Path, PathBuf};

use crate::{files, output::Identity};

/// What `ProtectSystem=full` makes read-only.
const READ_ONLY: [&str; 4] = ["/usr", "/boot", "/efi", "/etc"];

/// What the unit depends on.
#[derive(Debug, Clone, Copy)]
pub struct Unit<'a> {
    /// The program, absolute.
    pub program: &'a Path,
    /// The configuration file, absolute.
    pub config: &'a Path,
    /// The user to run as.
    pub user: &'a str,
    /// The group to run as.
    pub group: &'a str,
    /// The storage directory, absolute; none for storage in memory.
    pub storage: Option<&'a Path>,
    /// The outputs.
    pub outputs: &'a [Identity],
}

impl Unit<'_> {
    /// The unit file. `ProtectSystem=full` leaves /var, /opt, /srv and /home writable, where storage and outputs usually
    /// are; directories elsewhere are opened one by one. A dump of its memory would hold keys, so none is written. A bot that
    /// never joined ends when it is refused; started again at once, it would fill the ledger with its refusals.
    ///
    /// # Errors
    /// When a name or path can't stand in a unit file.
    pub fn render(&self) -> Result<String, String> {
        let name = |what: &str, name: &str| match name {
            "" => Err(format!("the {what} is empty")),
            name if name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '$')) => {
                Ok(name.to_owned())
            }
            name => Err(format!("`{name}` is not a {what}'s name")),
        };
        Ok(format!(
            "[Unit]\n\
             Description=joinbot, joins this host's bot and renews its credentials\n\
             Wants=network-online.target\n\
             After=network-online.target\n\
             \n\
             [Service]\n\
             Type=exec\n\
             User={user}\n\
             Group={group}\n\
             {state}\
             ExecStart={program} start -c {config}\n\
             ExecReload=/bin/kill -USR1 $MAINPID\n\
             Restart=on-failure\n\
             RestartSec=5min\n\
             LimitCORE=0\n\
             UMask=0022\n\
             CapabilityBoundingSet=\n\
             LockPersonality=yes\n\
             MemoryDenyWriteExecute=yes\n\
             NoNewPrivileges=yes\n\
             PrivateDevices=yes\n\
             ProtectClock=yes\n\
             ProtectControlGroups=yes\n\
             ProtectHostname=yes\n\
             ProtectKernelLogs=yes\n\
             ProtectKernelModules=yes\n\
             ProtectKernelTunables=yes\n\
             ProtectSystem=full\n\
             {writable}\
             RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX\n\
             RestrictNamespaces=yes\n\
             RestrictRealtime=yes\n\
             RestrictSUIDSGID=yes\n\
             SystemCallArchitectures=native\n\
             SystemCallFilter=@system-service\n\
             \n\
             [Install]\n\
             WantedBy=multi-user.target\n",
            user = name("user", self.user)?,
            group = name("group", self.group)?,
            state = self
                .state_directory()
                .map(|name| format!("StateDirectory={name}\nStateDirectoryMode=0700\n"))
                .unwrap_or_default(),
            program = argument(self.program)?,
            config = argument(self.config)?,
            writable = self
                .outputs
                .iter()
                .map(Identity::directory)
                .chain(self.storage)
                .filter_map(opened)
                .map(|place| Ok(format!("ReadWritePaths={}\n", quoted(&place)?)))
                .collect::<Result<String, String>>()?,
        ))
    }

    /// The storage directory as a name below /var/lib, where only root can make directories: systemd then makes it
    /// before the start, and gives it to the user. None when the storage is elsewhere.
    pub fn state_directory(&self) -> Option<&str> {
        let name = self.storage?.strip_prefix("/var/lib").ok()?;
        let is_plain = name.components().all(|part| matches!(part, Component::Normal(_)));
        name.to_str().filter(|text| {
            let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '-' | '.' | '@');
            is_plain && !text.is_empty() && text.chars().all(fits)
        })
    }
}

/// The place of a directory that is read-only for the agent unless the unit opens it; for that it has to be there when the
/// agent is started.
pub fn opened(directory: &Path) -> Option<PathBuf> {
    let place = files::resolved(directory).ok()?;
    READ_ONLY.iter().any(|above| place.starts_with(above)).then_some(place)
}

/// A path as one word of a command line: as elsewhere, with `$` doubled too.
fn argument(path: &Path) -> Result<String, String> {
    quoted(path).map(|word| word.replace('$', "$$"))
}

/// A path as one word: quoted, with `%` doubled since systemd expands it.
fn quoted(path: &Path) -> Result<String, String> {
    let text = path.to_str().filter(|text| !text.contains(char::is_control));
    let text = text.ok_or_else(|| format!("{} holds characters that a unit file can't", path.display()))?;
    if !path.is_absolute() {
        return Err(format!("{text} is not an absolute path"));
    }
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%");
    Ok(format!("\"{escaped}\""))
}
