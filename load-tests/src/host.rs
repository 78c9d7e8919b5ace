//! A database's host, set up as docs/operating.md advises, while a benchmark takes.

use std::{fs, io, path::Path};

/// How much may wait to be written before Linux begins to write, in bytes.
const EARLY: u64 = 16 * 1024 * 1024;

/// Has the kernel write back early. Otherwise it gathers what PostgreSQL's files grow by for thirty seconds, and writes it
/// all at once: commits wait meanwhile. Dropping it sets the host back.
#[derive(Debug)]
pub(crate) struct EarlyWriteback {
    /// The setting that was in force, and its value.
    before: (&'static str, String),
}

impl EarlyWriteback {
    /// Sets the host.
    ///
    /// # Errors
    /// When this user may not.
    pub(crate) fn set() -> io::Result<Self> {
        let before = in_force()?;
        write("dirty_background_bytes", &EARLY.to_string())?;
        eprintln!(
            "vm.dirty_background_bytes of this machine is {EARLY} until the end; it was vm.{} = {}",
            before.0, before.1
        );
        Ok(Self { before })
    }
}

impl Drop for EarlyWriteback {
    fn drop(&mut self) {
        let (setting, value) = &self.before;
        if let Err(error) = write(setting, value) {
            eprintln!("vm.{setting} could not be set back to {value}: {error}");
        }
    }
}

/// What a report says of the host: the setting that is in force.
pub(crate) fn writeback() -> String {
    in_force().map_or_else(|error| error.to_string(), |(setting, value)| format!("vm.{setting} = {value}"))
}

/// Of the two settings one is in force, and the other zero.
fn in_force() -> io::Result<(&'static str, String)> {
    let bytes = read("dirty_background_bytes")?;
    if bytes == "0" {
        return Ok(("dirty_background_ratio", read("dirty_background_ratio")?));
    }
    Ok(("dirty_background_bytes", bytes))
}

fn read(setting: &str) -> io::Result<String> {
    Ok(fs::read_to_string(Path::new("/proc/sys/vm").join(setting))?.trim().to_owned())
}

fn write(setting: &str, value: &str) -> io::Result<()> {
    fs::write(Path::new("/proc/sys/vm").join(setting), value)
}
