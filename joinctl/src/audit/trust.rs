//! Whose signatures an auditor believes.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::Args;
use join_audit::{Key, Policy};

use super::archive::POLICY;
use crate::{connection::Client, output::say};

/// The keys to trust.
#[derive(Args, Debug)]
pub(super) struct Trust {
    /// Trusted keys of logs and witnesses (c2sp.org/tlog-policy).
    ///
    /// A line for each: `log KEY`, `witness NAME KEY`, `group NAME all|any|N MEMBER…`; and at the end `quorum NAME`, which
    /// is the witness or group that must have cosigned, or `quorum none`. An export has such a file, `policy`; one's own
    /// holds a key that came by another way.
    ///
    /// Without, the key that the authority tells is trusted, or that which the export was made with: good against
    /// mistakes, not against those who can change both.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
}

impl Trust {
    /// What the auditor's own file says.
    pub(super) fn own(&self) -> anyhow::Result<Option<Policy>> {
        self.policy.as_deref().map(read).transpose()
    }

    /// The auditor's own file, else the key in the export.
    pub(super) fn or_of_export(&self, export: &Path) -> anyhow::Result<Policy> {
        if let Some(policy) = self.own()? {
            return Ok(policy);
        }
        say("note: trusting the log key that stands in the export itself; --policy trusts yours");
        read(&export.join(POLICY))
    }

    /// The auditor's own file, else the key that the authority tells.
    pub(super) async fn or_of_authority(&self, client: &Client) -> anyhow::Result<Policy> {
        match self.own()? {
            Some(policy) => Ok(policy),
            None => of_authority(client).await,
        }
    }
}

pub(super) async fn of_authority(client: &Client) -> anyhow::Result<Policy> {
    let key: Key = client.ca().await?.log_key.parse().context("the authority's log key can't be used")?;
    Ok(Policy::of_logs([key]))
}

fn read(file: &Path) -> anyhow::Result<Policy> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    text.parse().with_context(|| format!("{}", file.display()))
}
