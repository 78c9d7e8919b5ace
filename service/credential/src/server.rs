//! The certificate that the service itself presents.

use chrono::TimeDelta;
use join_domain::Timestamp;
use rcgen::{ExtendedKeyUsagePurpose, SanType};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};

use crate::{
    issuer::{IssueError, Issuer},
    sealer::random,
    serial::Serial,
    signer::P256Signer,
    x509::{CLOCK_SLACK, Leaf},
};

/// How long a server certificate lives; renew it long before.
pub const SERVER_LIFE: TimeDelta = TimeDelta::days(30);

/// A certificate chain and its private key, for a TLS server.
#[derive(Debug)]
pub struct ServerIdentity {
    /// What to present: the leaf, the active CA as older CAs certify it, and the CA certificates themselves, so that a
    /// client finds its pin or its trusted CA whichever of them it knows.
    pub chain: Vec<CertificateDer<'static>>,
    /// The private key.
    pub key: PrivatePkcs8KeyDer<'static>,
    /// End of the certificate.
    pub not_after: Timestamp,
}

impl Issuer {
    /// Generates a key and signs a server certificate for DNS names and IP addresses, valid for [`SERVER_LIFE`].
    ///
    /// # Errors
    /// [`IssueError::ServerName`] names the one that is neither.
    pub fn generate_server_identity(&self, names: &[String], now: Timestamp) -> Result<ServerIdentity, IssueError> {
        let (signer, key) = P256Signer::generate();
        let not_after = now + SERVER_LIFE;
        let leaf = Leaf {
            name: self.cluster.as_str(),
            uri: format!("spiffe://{}/authority", self.cluster),
            serial: generate_serial(),
            not_before: now - CLOCK_SLACK,
            not_after,
            usages: vec![ExtendedKeyUsagePurpose::ServerAuth],
        };
        let mut params = leaf.params()?;
        for name in names {
            params.subject_alt_names.push(alternative_name(name)?);
        }
        let leaf = self.authority().sign(&params, &signer)?.into();
        let mut chain = vec![leaf];
        chain.extend_from_slice(self.cross_certificates());
        chain.extend_from_slice(self.tls_ca_certificates());
        Ok(ServerIdentity { chain, key, not_after })
    }
}

fn alternative_name(name: &str) -> Result<SanType, IssueError> {
    match ServerName::try_from(name) {
        Ok(ServerName::DnsName(dns)) => Ok(SanType::DnsName(dns.as_ref().try_into()?)),
        Ok(ServerName::IpAddress(ip)) => Ok(SanType::IpAddress(ip.into())),
        _ => Err(IssueError::ServerName(name.to_owned())),
    }
}

fn generate_serial() -> Serial {
    let mut bits = [0; 16];
    random(&mut bits);
    Serial::from_random(bits)
}
