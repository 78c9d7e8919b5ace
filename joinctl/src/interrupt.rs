//! Ctrl-C while the authority changes something: the change is not undone by it, and whoever interrupts is to be told.

use std::{fmt, future::Future};

use tokio::signal::unix::{SignalKind, signal};

/// The exit code, which is the shell's for a command that Ctrl-C ended.
pub(crate) const INTERRUPTED: u8 = 130;

/// Nobody waited for the answer.
#[derive(Debug)]
pub(crate) struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted before the answer came")
    }
}

impl std::error::Error for Interrupted {}

/// Waits for an answer until Ctrl-C, which is then an error ([`Interrupted`]) to which the caller adds what may be done all
/// the same. Once a command has asked for the signal, it no longer ends the process: whatever the command waits for later is
/// waited for here too.
pub(crate) async fn interruptible<T>(answer: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    until(interrupt.recv(), answer).await
}

async fn until<T>(
    interrupt: impl Future<Output = Option<()>>,
    answer: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    tokio::select! {
        biased;
        answer = answer => answer,
        Some(()) = interrupt => Err(Interrupted.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test]
    async fn an_answer_is_waited_for_until_it_comes_or_ctrl_c_does() {
        assert_eq!(until(pending(), async { Ok(7) }).await.unwrap(), 7);
        assert_eq!(until(ready(Some(())), async { Ok(7) }).await.unwrap(), 7);
        let interrupted = until(ready(Some(())), pending::<anyhow::Result<()>>()).await;
        assert!(interrupted.unwrap_err().is::<Interrupted>());
    }
}
