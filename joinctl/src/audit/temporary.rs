//! A directory for as long as a command runs.

use std::{env, path::Path, process};

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

/// Works in a directory that is gone afterwards, also when Ctrl-C or SIGTERM ends the command.
pub(super) async fn within<T>(work: impl AsyncFnOnce(&Path) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let (interrupted, terminated) = (SignalKind::interrupt(), SignalKind::terminate());
    let (mut interrupt, mut terminate) = (signal(interrupted)?, signal(terminated)?);
    let directory = tempfile::tempdir().with_context(|| {
        format!("cannot make a temporary directory in {} (TMPDIR says where)", env::temp_dir().display())
    })?;
    let ended_by = tokio::select! {
        done = work(directory.path()) => return done,
        _ = interrupt.recv() => interrupted,
        _ = terminate.recv() => terminated,
    };
    directory.close()?;
    // A thread that still reads there is not waited for. The status is the shell's for a command that a signal ended.
    process::exit(128 + ended_by.as_raw_value())
}
