//! What every request can reach, put together once.

use std::{path::PathBuf, sync::Arc};

use http::Extensions;
use join_credential::{ClientCertificates, Role};
use join_domain::refusal::Refusal;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    ceremony::{Ceremonies, join::internal},
    request::caller::{Administrator, Connection, Peer, RequestIds},
};

/// What every request can reach.
pub struct App {
    /// Joins and administration.
    pub ceremonies: Ceremonies,
    /// Reads client certificates.
    pub certificates: ClientCertificates,
    /// Where the files of the verifiable log are, on a node that keeps them.
    pub log_directory: Option<PathBuf>,
    /// The verifier key of the log, in the signed note form.
    pub log_key: String,
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
    pub fn peer(&self, extensions: &Extensions) -> Result<Peer, Refusal> {
        let (connection, ids) = of_connection(extensions)?;
        let presented = self.certificates.read(&connection.certificates, self.ceremonies.ledger.now());
        Ok(Peer::new(connection, ids.clone(), presented))
    }

    /// The administrator behind a request, if the role is enough.
    ///
    /// # Errors
    /// UNAUTHENTICATED, ROLE_REQUIRED.
    pub fn administrator(&self, extensions: &Extensions, needed: Role) -> Result<Administrator, Refusal> {
        let (connection, ids) = of_connection(extensions)?;
        let presented = self.certificates.read(&connection.certificates, self.ceremonies.ledger.now());
        Administrator::of(connection, ids.clone(), presented, needed)
    }
}

fn of_connection(extensions: &Extensions) -> Result<(&Connection, &RequestIds), Refusal> {
    let connection = extensions.get::<Arc<Connection>>().map(AsRef::as_ref);
    match (connection, extensions.get::<RequestIds>()) {
        (Some(connection), Some(ids)) => Ok((connection, ids)),
        _ => Err(internal("a request did not come through the listener")),
    }
}
