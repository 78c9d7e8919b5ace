//! `joinbot keypair`

use std::{
    fs::File,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context as _, Result, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::{Args, Subcommand};
use join_agent::{key::PrivateKey, storage::Directory, vault::Vault};
use serde_json::json;

use super::{Format, terminal};

#[derive(Debug, Subcommand)]
pub(crate) enum Keypair {
    /// Make a keypair, and print its public half for the token
    Create(Create),
}

#[derive(Debug, Args)]
#[command(
    override_usage = "joinbot keypair create --storage DIR | --static [--static-key-path FILE] [--format text|json]"
)]
pub(crate) struct Create {
    /// Keep the private half in this storage directory, for a bot that starts with it; a key that is there already stays,
    /// and is printed again
    #[arg(long, value_name = "DIR", conflicts_with_all = ["static_key", "static_key_path"])]
    storage: Option<PathBuf>,
    /// Make a static key: given to the agent from outside, never rotated
    #[arg(long = "static")]
    static_key: bool,
    /// Write the static private key to this file instead of printing it; --static goes without saying
    #[arg(long, value_name = "FILE")]
    static_key_path: Option<PathBuf>,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Keypair {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let Self::Create(create) = self;
        match (create.storage, create.static_key_path) {
            (Some(directory), _) => managed(&directory, create.format)?,
            (None, None) if !create.static_key => bail!(
                "nothing says where the private key goes: one of --storage DIR, --static or --static-key-path FILE is \
                 needed"
            ),
            (None, path) => fixed(path.as_deref(), create.format)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The key that is in the storage already, or a new one: so that the command can be repeated.
fn managed(directory: &Path, format: Format) -> Result<()> {
    let mut vault = Vault::open(Arc::new(Directory::open(directory)?))?;
    if vault.state().keys.is_empty() {
        vault.add_key(PrivateKey::generate_ed25519())?;
    } else {
        terminal::say(format_args!(
            "note: this key was in {} already; for a new one, name a directory that is empty or not there yet",
            directory.display()
        ));
    }
    let key = vault.state().keys.last().context("a key was just stored")?;
    print(key, None, format)
}

fn fixed(path: Option<&Path>, format: Format) -> Result<()> {
    let key = PrivateKey::generate_ed25519();
    let Some(path) = path else {
        return print(&key, Some(STANDARD.encode(key.to_pem().as_bytes())), format);
    };
    match write_new(path, key.to_pem().as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            bail!("{} exists; a static key is not overwritten: remove it first or choose another path", path.display())
        }
        written => written.with_context(|| format!("cannot write {}", path.display()))?,
    }
    print(&key, None, format)
}

/// Writes a file of mode 0600 that is not there yet, durably, and whole or not at all.
fn write_new(path: &Path, contents: &[u8]) -> io::Result<()> {
    let path = std::path::absolute(path)?;
    let directory = path.parent().ok_or(io::ErrorKind::IsADirectory)?;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(contents)?;
    file.as_file().sync_all()?;
    file.persist_noclobber(&path)?;
    File::open(directory)?.sync_all()
}

fn print(key: &PrivateKey, private: Option<String>, format: Format) -> Result<()> {
    let public = key.public().to_authorized_key();
    match format {
        Format::Json => {
            let mut document = json!({ "public_key": public });
            if let Some(private) = private {
                document["private_key"] = private.into();
            }
            terminal::print(&format!("{document}\n"))
        }
        Format::Text => {
            let second = private.map(|private| format!("{private}\n"));
            terminal::print(&format!("{public}\n{}", second.as_deref().unwrap_or_default()))?;
            if second.is_some() {
                terminal::say(
                    "\nThe second line is the private key: put it into JOINBOT_STATIC_KEY in the bot's environment.\n\
                     A static key needs recovery mode `insecure`, since nothing on its host is kept.",
                );
            }
            terminal::say(format_args!(
                "\nPut the public key into the token, then apply it with `joinctl create -f FILE`:\n\n  \
                 spec:\n    bound_keypair:\n      onboarding:\n        initial_public_key: \"{public}\""
            ));
            Ok(())
        }
    }
}
