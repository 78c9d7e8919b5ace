//! Who a client certificate names.
//!
//! The TLS layer proves that the client holds the certificate's key, and accepts any certificate. Everything else is
//! decided here, with the time that is passed in: a certificate that is not alive and our own counts as none.

use std::time::Duration;

use join_domain::{Timestamp, event::ClientCertificate, extension::BotExtension, id::Name};
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert, aws_lc_rs::ECDSA_P256_SHA256};
use x509_parser::{certificate::X509CertificateParser, nom::Parser as _};

use crate::{
    administrator::Role,
    familiar::{Digest, Familiar},
    issuer::IssueError,
    keys::{AuthorityKeys, Purpose},
    serial::Serial,
    x509,
};

/// What a client certificate says, when it counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presented {
    /// No live certificate of this cluster.
    None(NotLive),
    /// A bot's.
    Bot(ClientCertificate),
    /// An administrator's.
    Administrator(AdministratorCertificate),
}

/// Why a certificate counts as none. It is for the log, and for people whose own identity ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotLive {
    /// None was presented.
    #[error("no client certificate was presented")]
    Absent,
    /// It is over.
    #[error("the client certificate expired at {0}")]
    Expired(Timestamp),
    /// It has not begun.
    #[error("the client certificate is not valid before {0}")]
    NotYetValid(Timestamp),
    /// It is not signed by a CA of this cluster, not for clients, or no certificate at all.
    #[error("the client certificate is not one that this cluster issues to clients")]
    Foreign,
}

/// An administrator's live certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdministratorCertificate {
    /// Who.
    pub name: Name,
    /// What they may do.
    pub role: Role,
    /// The serial number.
    pub serial: Serial,
}

/// Reads client certificates under the CAs of one cluster. It is made once from the keys, and again when they change.
pub struct CertificateReader {
    administrators: String,
    anchors: Vec<TrustAnchor<'static>>,
    familiar: Familiar,
}

impl CertificateReader {
    /// A reader that trusts the cluster's CAs.
    ///
    /// # Errors
    /// [`IssueError::CaCertificate`].
    pub fn new(keys: &AuthorityKeys) -> Result<Self, IssueError> {
        let certificates = keys.trusted(Purpose::X509Ca).filter_map(|key| key.certificate());
        let anchor = |der| anchor_from_trusted_cert(&CertificateDer::from(der)).map(|anchor| anchor.to_owned());
        Ok(Self {
            administrators: format!("spiffe://{}/admin/", keys.cluster()),
            anchors: certificates.map(anchor).collect::<Result<_, _>>().map_err(|_| IssueError::CaCertificate)?,
            familiar: Familiar::default(),
        })
    }

    /// Remembers a certificate that the active CA has just signed: its bearer comes back with it soon.
    pub fn issued(&self, der: &[u8]) {
        self.familiar.remember(&Digest::of(der));
    }

    /// Says who presented this chain. Only the first certificate counts: all of ours are signed by a CA directly.
    pub fn read(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> Presented {
        match chain.first() {
            None => Presented::None(NotLive::Absent),
            Some(certificate) => self.identify(certificate, now).unwrap_or_else(Presented::None),
        }
    }

    fn identify(&self, der: &CertificateDer<'_>, now: Timestamp) -> Result<Presented, NotLive> {
        // Of the extensions one is looked at, which only we know how to read.
        let mut parser = X509CertificateParser::new().with_deep_parse_extensions(false);
        let (_, certificate) = parser.parse(der).map_err(|_| NotLive::Foreign)?;
        let (not_before, not_after) = x509::times(&certificate).ok_or(NotLive::Foreign)?;
        // Certificates count in whole seconds, both ends included (RFC 5280, section 4.1.2.5).
        if now.timestamp() > not_after.timestamp() {
            return Err(NotLive::Expired(not_after));
        }
        if now.timestamp() < not_before.timestamp() {
            return Err(NotLive::NotYetValid(not_before));
        }
        let digest = Digest::of(der);
        if !self.familiar.knows(&digest) {
            self.verify(der, now).map_err(|_| NotLive::Foreign)?;
            self.familiar.remember(&digest);
        }
        let serial = Serial::from_bytes(certificate.raw_serial()).ok_or(NotLive::Foreign)?;
        if let Some(said) = BotExtension::of(&certificate) {
            return Ok(Presented::Bot(ClientCertificate {
                bot: said.bot,
                generation: said.generation,
                instance: said.instance,
                serial: serial.to_string(),
                token: said.token_id,
            }));
        }
        let leaf = EndEntityCert::try_from(der).map_err(|_| NotLive::Foreign)?;
        let (role, name) = self.administrator(&leaf).and_then(|path| path.split_once('/')).ok_or(NotLive::Foreign)?;
        let role = role.parse().map_err(|_| NotLive::Foreign)?;
        let name = name.parse().map_err(|_| NotLive::Foreign)?;
        Ok(Presented::Administrator(AdministratorCertificate { name, role, serial }))
    }

    /// True for a live certificate of an administrator. For all others, bots most of all, it is quickly said.
    pub fn is_of_administrator(&self, der: &CertificateDer<'_>, now: Timestamp) -> bool {
        EndEntityCert::try_from(der).is_ok_and(|leaf| self.administrator(&leaf).is_some())
            && matches!(self.identify(der, now), Ok(Presented::Administrator(_)))
    }

    /// Role and name of the administrator that a certificate names, whoever signed it.
    fn administrator<'a>(&self, leaf: &'a EndEntityCert<'_>) -> Option<&'a str> {
        leaf.valid_uri_names().find_map(|uri| uri.strip_prefix(&self.administrators))
    }

    fn verify(&self, der: &CertificateDer<'_>, now: Timestamp) -> Result<(), webpki::Error> {
        let seconds = u64::try_from(now.timestamp()).unwrap_or_default();
        let at = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let usage = KeyUsage::client_auth();
        let leaf = EndEntityCert::try_from(der)?;
        leaf.verify_for_usage(&[ECDSA_P256_SHA256], &self.anchors, &[], at, usage, None, None).map(|_| ())
    }
}
