//! Checking the proof of one event (c2sp.org/tlog-proof).

use std::path::Path;

use anyhow::Context as _;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use join_audit::{Policy, Proven, verify_portable};
use serde_yaml_ng::Value;

use super::trust::Trust;
use crate::{
    cli::Context,
    exit::Fault,
    output::{print, printable, tree},
};

/// `joinctl audit verify --proof FILE`: prints what is proven, the entry.
pub(super) async fn verify(context: &Context, file: &Path, trust: &Trust) -> anyhow::Result<()> {
    let text = super::read_text(file).with_context(|| format!("cannot read {}", file.display()))?;
    let policy = match trust.own()? {
        Some(policy) => policy,
        None => super::trust::of_authority(&context.connect().await?).await?,
    };
    let (envelope, proven) = check(&text, &policy)?;
    let tree = tree::mapping([
        ("log_index", proven.index.into()),
        ("checkpoint", serde_yaml_ng::to_value(&proven.checkpoint)?),
        ("envelope", serde_json::from_str(&envelope).unwrap_or(Value::String(envelope.clone()))),
    ]);
    print(context.format, &tree, || {
        let checkpoint = &proven.checkpoint;
        format!(
            "proven: entry {} of {} stands in the checkpoint of {} entries\n{}\n",
            proven.index,
            checkpoint.origin,
            checkpoint.size,
            printable(&envelope)
        )
    })
}

/// The entry that travels in the proof, once it is proven to stand in the log.
pub(super) fn check(proof: &str, policy: &Policy) -> anyhow::Result<(String, Proven)> {
    let extra = proof.lines().find_map(|line| line.strip_prefix("extra ")).context(
        "the proof carries no entry (line `extra`): it was not made by `joinctl audit prove`; check it with another tool",
    )?;
    let entry = BASE64_STANDARD.decode(extra);
    let entry = entry.map_err(|error| Fault(format!("the entry in the proof is not base64: {error}")))?;
    let proven = verify_portable(proof, &entry, policy).map_err(|finding| Fault(finding.to_string()))?;
    let entry = String::from_utf8(entry).context("the proven entry is not text")?;
    Ok((entry, proven))
}
