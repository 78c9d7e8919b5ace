//! `joinbot status`

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use anyhow::{Result, bail};
use chrono::{DateTime, Utc};
use clap::Args;
use join_agent::{
    clock::{Clock as _, SystemClock},
    config::StorageConfig,
    credentials::Facts,
    state::State,
    storage::Directory,
    vault::Vault,
};
use serde::Serialize;

use super::{Format, terminal};

#[derive(Debug, Args)]
pub(crate) struct Status {
    /// The configuration file
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// What a storage holds; nothing of it is secret.
#[derive(Debug, Serialize)]
struct Report {
    token: String,
    cluster: Option<String>,
    certificate: Option<Facts>,
    /// Whether the certificate is valid now.
    live: bool,
    keys: Vec<String>,
    /// When the pending attempt began.
    pending_since: Option<DateTime<Utc>>,
}

impl Status {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let config = super::load_config(&self.config)?;
        let StorageConfig::Directory(path) = &config.storage else {
            bail!("the storage is memory, which only the running agent can see; ask its diag_addr")
        };
        // The daemon holds the lock; looking needs none.
        let directory = Directory::look(path);
        if let Some(warning) = directory.warning() {
            terminal::say(format_args!("warning: {warning}"));
        }
        let vault = Vault::open(Arc::new(directory))?;
        let now = SystemClock.now();
        let report = Report::of(vault.state(), config.token.to_string(), now);
        terminal::print(&match self.format {
            Format::Json => serde_json::to_string_pretty(&report)? + "\n",
            Format::Text => report.text(now),
        })?;
        Ok(if report.live { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

impl Report {
    fn of(state: &State, token: String, now: DateTime<Utc>) -> Self {
        let certificate = state.accepted.as_ref().and_then(|accepted| accepted.credentials.facts());
        Self {
            token: state.accepted.as_ref().map_or(token, |accepted| accepted.token.to_string()),
            cluster: state.accepted.as_ref().map(|accepted| accepted.cluster.clone()),
            live: certificate.as_ref().is_some_and(|facts| facts.not_before <= now && now < facts.not_after),
            certificate,
            keys: state.held().map(|key| key.public().to_authorized_key()).collect(),
            pending_since: state.pending.as_ref().map(|attempt| attempt.began_at),
        }
    }

    fn text(&self, now: DateTime<Utc>) -> String {
        let cluster = self.cluster.as_deref().unwrap_or("not joined yet");
        let mut lines = vec![("token", self.token.clone()), ("cluster", cluster.to_owned())];
        if let Some(facts) = &self.certificate {
            lines.push(("user", facts.user.clone()));
            lines.push(("instance", facts.instance.as_deref().unwrap_or("none").to_owned()));
            lines.extend(facts.generation.map(|generation| ("generation", generation.to_string())));
            let standing = match self.live {
                true => "live",
                false if now < facts.not_before => "not valid yet: check this host's clock",
                false => "expired",
            };
            lines.push(("certificate", format!("{standing}, serial {}", facts.serial)));
            lines.push(("valid", format!("{} to {}", facts.not_before, facts.not_after)));
        }
        lines.extend(self.keys.iter().map(|key| ("key", key.clone())));
        let pending = |since| ("attempt", format!("pending since {since}: its result is not stored yet"));
        lines.extend(self.pending_since.map(pending));
        lines.iter().map(|(what, text)| format!("{what:<13}{text}\n")).collect()
    }
}
