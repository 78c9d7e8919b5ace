//! What other programs read: a directory with the newest credentials.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use crate::{
    credentials::Credentials,
    files::{self, PRIVATE, PUBLIC},
};

/// The files of an identity, in the order in which they are written: the key before the certificates that need it.
const FILES: [&str; 7] = ["key", "key.pub", "tlscert", "key-cert.pub", "tlscas", "known_hosts", "ssh_config"];

/// An output that can't be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the output {path}: {error}")]
pub struct OutputError {
    path: String,
    error: io::Error,
}

/// An identity: keys, certificates and what to trust, for TLS and SSH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    directory: PathBuf,
}

impl Identity {
    /// An identity in this directory.
    ///
    /// # Errors
    /// When the working directory is needed to make the path absolute and can't be found.
    pub fn new(directory: &Path) -> Result<Self, OutputError> {
        let directory = std::path::absolute(directory).map_err(failed(directory))?;
        Ok(Self { directory })
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes sure that it can be written; creates the directory when it is missing.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn check(&self) -> Result<(), OutputError> {
        let directory = &self.directory;
        fs::create_dir_all(directory).and_then(|()| files::probe(directory)).map_err(failed(directory))?;
        // A link is replaced like a file, wherever it leads.
        let is_directory = |file: &PathBuf| fs::symlink_metadata(file).is_ok_and(|found| found.is_dir());
        match FILES.iter().map(|name| directory.join(name)).find(is_directory) {
            Some(file) => Err(failed(&file)(io::ErrorKind::IsADirectory.into())),
            None => Ok(()),
        }
    }

    /// Whether every file says what these credentials do. A host that lost power may have a new key beside an old
    /// certificate.
    pub fn holds(&self, credentials: &Credentials) -> bool {
        let says = |name: &str| {
            fs::read(self.directory.join(name)).is_ok_and(|found| found == self.contents(name, credentials).as_bytes())
        };
        FILES.into_iter().all(says)
    }

    /// Replaces every file, each atomically.
    ///
    /// # Errors
    /// When one could not be written; those before it are new, those after it old.
    pub fn write(&self, credentials: &Credentials) -> Result<(), OutputError> {
        fs::create_dir_all(&self.directory).map_err(failed(&self.directory))?;
        for name in FILES {
            let mode = if name == "key" { PRIVATE } else { PUBLIC };
            let contents = self.contents(name, credentials);
            files::replace(&self.directory, name, contents.as_bytes(), mode)
                .map_err(failed(&self.directory.join(name)))?;
        }
        Ok(())
    }

    fn contents(&self, name: &str, credentials: &Credentials) -> Zeroizing<String> {
        let public = match name {
            "key" => return credentials.key.to_pem(),
            "tlscert" => credentials.tls_cert.clone(),
            "tlscas" => credentials.tls_cas.concat(),
            "key.pub" => format!("{}\n", credentials.key.public()),
            "key-cert.pub" => format!("{}\n", credentials.ssh_cert),
            "known_hosts" => credentials.ssh_cas.iter().map(|key| format!("@cert-authority * {key}\n")).collect(),
            _ => self.ssh_config(),
        };
        public.into()
    }

    /// For `ssh -F`. Paths are absolute, quoted, and with `%` doubled, since ssh expands it.
    fn ssh_config(&self) -> String {
        let path = |name| self.directory.join(name).display().to_string().replace('%', "%%");
        format!(
            "# Written by joinbot at every join. Use: ssh -F {config} HOST\n\
             Host *\n\
             \x20 IdentityFile \"{key}\"\n\
             \x20 CertificateFile \"{certificate}\"\n\
             \x20 IdentitiesOnly yes\n\
             \x20 UserKnownHostsFile \"{known_hosts}\"\n\
             \x20 StrictHostKeyChecking yes\n",
            config = self.directory.join("ssh_config").display(),
            key = path("key"),
            certificate = path("key-cert.pub"),
            known_hosts = path("known_hosts"),
        )
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> OutputError {
    let path = path.display().to_string();
    move |error| OutputError { path, error }
}
