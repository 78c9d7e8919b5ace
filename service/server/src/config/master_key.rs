//! Where the master key comes from.

use std::{fs, os::unix::fs::MetadataExt as _, path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context as _, bail};
use join_credential::{MasterKey, master::MasterKeyError};
use serde::{Deserialize, Serialize};
use tokio::{process::Command, time::timeout};
use zeroize::Zeroizing;

/// How long a program may take to print the key. Its own retries have room; a node that waits for ever tells nobody why.
const PRINTING: Duration = Duration::from_secs(30);

/// Where the master key comes from.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum MasterKeySource {
    /// A file with 32 bytes in hex or base64, readable by the service only.
    File(PathBuf),
    /// An environment variable with the same.
    Env(String),
    /// A program that prints the same within 30 s, and its arguments: how a key management service hooks in.
    Command(Vec<String>),
}

impl MasterKeySource {
    /// The master key.
    ///
    /// # Errors
    /// Names the file, variable or program that is missing, or has none.
    pub async fn open(&self) -> anyhow::Result<MasterKey> {
        Ok(match self {
            Self::File(path) => {
                let key = MasterKey::read(path)?;
                if fs::metadata(path)?.mode() & 0o007 != 0 {
                    let file = path.display();
                    tracing::warn!("every user of this host can read or change the master key: chmod o= {file}");
                }
                key
            }
            Self::Env(name) => MasterKey::from_env(name)?,
            Self::Command(command) => {
                let [program, arguments @ ..] = command.as_slice() else {
                    bail!("master_key.command names no program")
                };
                let printed = printed_by(program, arguments).await;
                printed.with_context(|| format!("the program `{program}` that prints the master key"))?
            }
        })
    }
}

/// What the program printed, which errors don't repeat. Its standard error is shown, and it ends with whoever waits for it.
async fn printed_by(program: &str, arguments: &[String]) -> anyhow::Result<MasterKey> {
    let mut run = Command::new(program);
    run.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
    let output = timeout(PRINTING, run.spawn()?.wait_with_output()).await;
    let Ok(output) = output else { bail!("it has not ended after {} s", PRINTING.as_secs()) };
    let output = output?;
    let printed = Zeroizing::new(output.stdout);
    if !output.status.success() {
        bail!("it ended with {}", output.status);
    }
    let text = std::str::from_utf8(&printed).map_err(|_| MasterKeyError::Malformed)?;
    Ok(MasterKey::parse(text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of a program; nothing when it printed a key.
    async fn told_of(command: &[&str]) -> Option<String> {
        let source = MasterKeySource::Command(command.iter().map(|&word| word.to_owned()).collect());
        source.open().await.err().map(|error| format!("{error:#}"))
    }

    #[tokio::test]
    async fn a_program_prints_the_master_key() {
        assert_eq!(told_of(&["sh", "-c", "printf 'ab%.0s' $(seq 32)"]).await, None);
    }

    #[tokio::test]
    async fn what_is_wrong_with_a_program_is_told_and_what_it_prints_is_not() {
        let secret = "cd".repeat(32);
        let program = "the program `sh` that prints the master key";
        for (script, why) in [
            (format!("echo {secret}; exit 3"), "it ended with exit status: 3"),
            (format!("echo {secret}{secret}"), "not a master key: 32 random bytes"),
            ("printf '\\377'".to_owned(), "not a master key: 32 random bytes"),
        ] {
            let told = told_of(&["sh", "-c", &script]).await.unwrap();
            assert!(told.starts_with(&format!("{program}: {why}")) && !told.contains(&secret), "{told}");
        }
        let told = told_of(&["/no/such/program"]).await.unwrap();
        assert!(told.contains("/no/such/program") && told.contains("No such file"), "{told}");
        assert_eq!(told_of(&[]).await.unwrap(), "master_key.command names no program");
    }

    #[tokio::test(start_paused = true)]
    async fn a_program_is_not_waited_for_without_end() {
        let told = told_of(&["sleep", "3600"]).await.unwrap();
        assert_eq!(told, "the program `sleep` that prints the master key: it has not ended after 30 s");
    }
}
