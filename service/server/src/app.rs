//! What every request can reach, put together once.

use std::{path::PathBuf, sync::Arc};

use http::Extensions;
use join_credential::{Presented, Role, presented::NotLive};
use join_domain::refusal::Refusal;
use tokio::{sync::Semaphore, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument as _;

use crate::{
    administrators,
    caller::{Administrator, Connection, Peer, RequestIds, unauthenticated},
    ceremony::{Ceremonies, OrRefuse as _, internal},
    connection::{office::Office, places::RequestPlace},
    readiness::Readiness,
    revocation::Lists,
    telemetry,
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
    /// Whether this node can serve joins.
    pub readiness: Readiness,
    /// Where administrators are served.
    pub office: Office,
    /// Taken while the views are verified.
    pub verifying: Arc<Semaphore>,
    /// Cancelled when the service stops.
    pub stopping: CancellationToken,
    /// Requests that are done to their end. The service waits for them when it stops, as their connections end then.
    pub requests: TaskTracker,
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
        Ok(Peer::new(connection, ids.clone(), self.presented(connection).await?))
    }

    /// The administrator behind a request, if the identity is on record and not revoked, and the role is enough.
    ///
    /// # Errors
    /// UNAUTHENTICATED, ROLE_REQUIRED; UNAVAILABLE when the database can't be asked.
    pub async fn administrator(&self, extensions: &Extensions, needed: Role) -> Result<Administrator, Refusal> {
        let (connection, ids) = of_connection(extensions)?;
        let presented = self.presented(connection).await?;
        if let Presented::Administrator(identity) = &presented {
            let stream = administrators::stream(&identity.serial);
            let recorded = self.ceremonies.ledger.load(stream).await.or_refuse()?;
            match recorded.as_ref().and_then(|stored| stored.administrator()) {
                Some(recorded) if recorded.live => {}
                Some(_) => return Err(unauthenticated("the identity was revoked")),
                None => return Err(unauthenticated("the ledger knows of no such identity")),
            }
        }
        let admitted = Administrator::of(connection, ids.clone(), presented, needed)?;
        if let Some(place) = extensions.get::<Arc<RequestPlace>>() {
            place.may_take_long();
        }
        Ok(admitted)
    }

    /// The administrator whom the door let in, asked again now that the message is here: an identity may have been
    /// revoked while it was on its way.
    ///
    /// # Errors
    /// As [`App::administrator`]; INTERNAL when the request did not come through the door.
    pub async fn admitted_administrator(&self, extensions: &Extensions) -> Result<Administrator, Refusal> {
        let admitted = extensions.get::<Administrator>();
        let admitted = admitted.ok_or_else(|| internal("a call of administrators was not asked for its role"))?;
        self.administrator(extensions, admitted.needed).await
    }

    /// Does what a request began to its end, even if its client goes away: what a bot has proven leaves a record. The
    /// request has its place until then.
    pub fn to_its_end<T: Send + 'static>(
        &self,
        extensions: &Extensions,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        let place = extensions.get::<Arc<RequestPlace>>().cloned();
        // It is large, and all that follows would move it.
        let work = Box::pin(work);
        let work = async move {
            let _place = place;
            work.await
        }
        .in_current_span();
        match telemetry::current_request() {
            Some(request) => self.requests.spawn(telemetry::with_request(request, work)),
            None => self.requests.spawn(work),
        }
    }

    /// The same, for work whose answer is waited for.
    ///
    /// # Errors
    /// Those of the work; INTERNAL when it broke down.
    pub async fn done<T: Send + 'static>(
        &self,
        extensions: &Extensions,
        work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
    ) -> Result<T, Refusal> {
        self.to_its_end(extensions, work).await.unwrap_or_else(|stopped| Err(internal(stopped)))
    }

    /// True when a bot or an administrator with a live certificate is at the other end.
    pub fn knows(&self, connection: &Connection) -> bool {
        let Ceremonies { keyring, ledger, .. } = &self.ceremonies;
        let Ok(keyring) = keyring.usable() else { return false };
        let presented = keyring.certificates.read(connection.certificate.as_slice(), ledger.now());
        !matches!(presented, Presented::None(_))
    }

    /// True when an administrator with a live certificate is at the other end.
    pub fn administers(&self, connection: &Connection) -> bool {
        let Ceremonies { keyring, ledger, .. } = &self.ceremonies;
        let (Ok(keyring), Some(certificate)) = (keyring.usable(), &connection.certificate) else { return false };
        keyring.certificates.is_of_administrator(certificate, ledger.now())
    }

    async fn presented(&self, connection: &Connection) -> Result<Presented, Refusal> {
        let Ceremonies { keyring, ledger, .. } = &self.ceremonies;
        let certificate = connection.certificate.as_slice();
        let presented = keyring.usable()?.certificates.read(certificate, ledger.now());
        if presented != Presented::None(NotLive::Foreign) {
            return Ok(presented);
        }
        // Perhaps it was signed by a CA that another node learned of before this one did. In doubt nothing is decided:
        // a renewal would become a recovery.
        let keyring = keyring.newest(ledger).await?;
        Ok(keyring.certificates.read(certificate, ledger.now()))
    }
}

fn of_connection(extensions: &Extensions) -> Result<(&Connection, &RequestIds), Refusal> {
    let connection = extensions.get::<Arc<Connection>>().map(AsRef::as_ref);
    match (connection, extensions.get::<RequestIds>()) {
        (Some(connection), Some(ids)) => Ok((connection, ids)),
        _ => Err(internal("a request did not come through the listener")),
    }
}
