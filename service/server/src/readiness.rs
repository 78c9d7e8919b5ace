//! Whether this node can serve joins: looked at once a second, for all who ask. Anybody may ask as often as they like, and
//! that must not ask the database each time.

use std::{fmt, sync::Arc, time::Duration};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::app::App;

/// How often the node checks itself.
const LOOK: Duration = Duration::from_secs(1);

/// Why a node can't serve joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotReady {
    /// The service stops.
    ShuttingDown,
    /// Keys can't be opened under this node's master key.
    Keys,
    /// The database does not answer.
    Database,
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ShuttingDown => "shutting down",
            Self::Keys => "the authority's keys cannot be opened",
            Self::Database => "the database cannot be reached",
        })
    }
}

/// What was found last. A node begins ready: it has just read its keys from the database.
#[derive(Debug)]
pub struct Readiness(watch::Sender<Result<(), NotReady>>);

impl Default for Readiness {
    fn default() -> Self {
        Self(watch::Sender::new(Ok(())))
    }
}

impl Readiness {
    /// What was found last, and whoever wants to know what is found next.
    pub fn watch(&self) -> watch::Receiver<Result<(), NotReady>> {
        self.0.subscribe()
    }

    /// What was found last.
    ///
    /// # Errors
    /// [`NotReady`].
    pub fn check(&self) -> Result<(), NotReady> {
        *self.0.borrow()
    }

    fn found(&self, now: Result<(), NotReady>) {
        self.0.send_if_modified(|last| std::mem::replace(last, now) != now);
    }
}

/// Looks once a second until the service stops, and says so then.
pub(crate) async fn look(app: Arc<App>, stop: CancellationToken) {
    while let Some(now) = stop.run_until_cancelled(ready(&app)).await {
        app.readiness.found(now);
        if stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_none() {
            break;
        }
    }
    app.readiness.found(Err(NotReady::ShuttingDown));
}

async fn ready(app: &App) -> Result<(), NotReady> {
    if app.ceremonies.keyring.is_shut_out() {
        return Err(NotReady::Keys);
    }
    app.ceremonies.ledger.ping().await.map_err(|error| {
        tracing::warn!("not ready: {error}");
        NotReady::Database
    })
}
