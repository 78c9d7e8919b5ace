//! Who calls: the connection's certificate, read by the authority's own keys and the database's time.

use std::{net::SocketAddr, sync::Arc};

use join_credential::{Presented, Role, presented::AdministratorCertificate};
use join_domain::{
    envelope::Origin,
    event::ClientCertificate,
    id::{AttemptHash, user_name},
    refusal::{Code, Refusal},
};
use rustls::pki_types::CertificateDer;

/// What is known of a connection. It stands in the extensions of each of its requests.
#[derive(Debug, Clone)]
pub struct Connection {
    /// The remote address.
    pub address: SocketAddr,
    /// The client's own certificate; its key was proven in the handshake, nothing else.
    pub certificate: Option<CertificateDer<'static>>,
}

/// What is known of a request. It stands in its extensions.
#[derive(Debug, Clone)]
pub struct RequestIds {
    /// As in the request log.
    pub request: Arc<str>,
    /// The OpenTelemetry trace id, when traces are on or the client sent one.
    pub trace: Option<String>,
}

/// The caller of a join.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The remote address.
    pub address: SocketAddr,
    /// Its live certificate, when it is a bot's.
    pub certificate: Option<ClientCertificate>,
    /// Ids of the request.
    pub ids: RequestIds,
}

impl Peer {
    /// The peer of a request, from what its connection presented.
    pub fn new(connection: &Connection, ids: RequestIds, presented: Presented) -> Self {
        let certificate = match presented {
            Presented::Bot(certificate) => Some(certificate),
            Presented::Administrator(_) | Presented::None(_) => None,
        };
        Self { address: connection.address, certificate, ids }
    }

    /// Where an event of a bot comes from.
    pub fn origin(&self, bot: &join_domain::id::Name, attempt: Option<AttemptHash>) -> Origin {
        Origin {
            actor: user_name(bot),
            address: Some(self.address.to_string()),
            attempt,
            request: Some(self.ids.request.to_string()),
            trace: self.ids.trace.clone(),
        }
    }
}

/// An administrator whose role allows the call. Having one is the permission.
#[derive(Debug, Clone)]
pub struct Administrator {
    /// Who.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// What the call needs.
    pub(crate) needed: Role,
    address: SocketAddr,
    ids: RequestIds,
}

impl Administrator {
    /// The administrator behind a request, if the role is enough.
    ///
    /// # Errors
    /// UNAUTHENTICATED without a live identity, ROLE_REQUIRED when the role is not enough.
    pub fn of(connection: &Connection, ids: RequestIds, presented: Presented, needed: Role) -> Result<Self, Refusal> {
        let certificate = match presented {
            Presented::Administrator(certificate) => certificate,
            Presented::Bot(_) => return Err(unauthenticated("a bot's certificate does not administer")),
            Presented::None(why) => return Err(unauthenticated(why)),
        };
        let AdministratorCertificate { name, role, .. } = certificate;
        if !allows(role, needed) {
            return Err(Refusal::new(
                Code::RoleRequired,
                format!("this needs the role {needed}; the identity `{name}` has the role {role}"),
            ));
        }
        Ok(Self { name: name.to_string(), role, needed, address: connection.address, ids })
    }

    /// Where an event of an administrator comes from.
    pub fn origin(&self) -> Origin {
        Origin {
            actor: format!("admin/{}", self.name),
            address: Some(self.address.to_string()),
            attempt: None,
            request: Some(self.ids.request.to_string()),
            trace: self.ids.trace.clone(),
        }
    }
}

/// `admin` may do everything, `operator` what an auditor may and more.
fn allows(role: Role, needed: Role) -> bool {
    match needed {
        Role::Auditor => true,
        Role::Operator => role != Role::Auditor,
        Role::Admin => role == Role::Admin,
    }
}

pub(crate) fn unauthenticated(why: impl std::fmt::Display) -> Refusal {
    Refusal::new(
        Code::Unauthenticated,
        format!("{why}: use an administrator's identity (`joind admin issue` on the server's host makes one)"),
    )
}
