//! What every request can reach, put together once.

use std::{path::PathBuf, sync::Arc};

use http::Extensions;
use join_credential::{Presented, Role, presented::NotLive};
use join_domain::refusal::Refusal;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    ceremony::{Answer as _, Ceremonies, join::internal},
    cluster::administrator_stream,
    request::caller::{Administrator, Connection, Peer, RequestIds, unauthenticated},
    revocation::Lists,
};

/// What every request can reach.
pub struct App {
    /// Joins and administration.
    pub ceremonies: Ceremonies,
    /// Where the files of the verifiable log are, on a node that keeps them.
    pub log_directory: Option<PathBuf>,
    /// The verifier key of the log, in the signed note form.
    pub log_key: String,
    /// The revocation lists.
    pub revocations: Lists,
    /// Cancelled when the service stops.
    pub stopping: CancellationToken,
    /// Work that outlives its request: the service waits for it when it stops.
    pub background: TaskTracker,
}

impl App {
    /// The caller of a join.
    ///
    /// # Errors
    /// INTERNAL when the request did not come through the listener.
    pub async fn peer(&self, extensions: &Extensions) -> Result<Peer, Refusal> {
        let (connection, ids) = of_connection(extensions)?;
        Ok(Peer::new(connection, ids.clone(), self.presented(connection).await))
    }

    /// The administrator behind a request, if the identity is on record and not revoked, and the role is enough.
    ///
    /// # Errors
    /// UNAUTHENTICATED, ROLE_REQUIRED; UNAVAILABLE when the database can't be asked.
    pub async fn administrator(&self, extensions: &Extensions, needed: Role) -> Result<Administrator, Refusal> {
        let (connection, ids) = of_connection(extensions)?;
        let presented = self.presented(connection).await;
        if let Presented::Administrator(identity) = &presented {
            let stream = administrator_stream(&identity.serial);
            let recorded = self.ceremonies.ledger.load(stream).await.answer()?;
            match recorded.as_ref().and_then(|stored| stored.administrator()) {
                Some(recorded) if recorded.live => {}
                Some(_) => return Err(unauthenticated("the identity was revoked")),
                None => return Err(unauthenticated("the ledger knows of no such identity")),
            }
        }
        Administrator::of(connection, ids.clone(), presented, needed)
    }

    async fn presented(&self, connection: &Connection) -> Presented {
        let Ceremonies { keyring, ledger, .. } = &self.ceremonies;
        let presented = keyring.get().certificates.read(&connection.certificates, ledger.now());
        if presented != Presented::None(NotLive::Foreign) {
            return presented;
        }
        // Perhaps it was signed by a CA that another node learned of before this one did.
        match keyring.newest(ledger).await {
            Ok(keyring) => keyring.certificates.read(&connection.certificates, ledger.now()),
            Err(error) => {
                tracing::warn!("a client certificate that is not known counts as none: {error:#}");
                presented
            }
        }
    }
}

fn of_connection(extensions: &Extensions) -> Result<(&Connection, &RequestIds), Refusal> {
    let connection = extensions.get::<Arc<Connection>>().map(AsRef::as_ref);
    match (connection, extensions.get::<RequestIds>()) {
        (Some(connection), Some(ids)) => Ok((connection, ids)),
        _ => Err(internal("a request did not come through the listener")),
    }
}
