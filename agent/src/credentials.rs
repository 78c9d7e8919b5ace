//! What a join hands out, checked and in the forms in which it is stored and written.

use std::fmt;

use chrono::{DateTime, Utc};
use join_domain::extension::BotExtension;
use join_proto::teleport;
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use serde::{Deserialize, Serialize};
use x509_parser::{
    extensions::GeneralName,
    prelude::{ASN1Time, FromDer as _, ParsedExtension, X509Certificate},
};

use crate::key::PrivateKey;

/// Certificates, their private key, and what to trust.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// The key that both certificates are for.
    pub key: PrivateKey,
    /// The X.509 certificate, PEM.
    pub tls_cert: String,
    /// X.509 CA certificates, PEM.
    pub tls_cas: Vec<String>,
    /// The SSH certificate, one OpenSSH line.
    pub ssh_cert: String,
    /// SSH CA keys, authorized_keys lines.
    pub ssh_cas: Vec<String>,
}

/// A result that does not answer what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the result's {field} {problem}")]
pub struct UnfitResult {
    pub(crate) field: &'static str,
    pub(crate) problem: String,
}

impl UnfitResult {
    pub(crate) fn new(field: &'static str, problem: impl fmt::Display) -> Self {
        Self { field, problem: problem.to_string() }
    }
}

impl Credentials {
    /// Takes certificates from a result, if they are for `key`.
    ///
    /// # Errors
    /// [`UnfitResult`] names the field that does not fit.
    pub fn from_wire(certificates: &teleport::Certificates, key: &PrivateKey) -> Result<Self, UnfitResult> {
        let (_, tls) = X509Certificate::from_der(&certificates.tls_cert)
            .map_err(|_| UnfitResult::new("tls_cert", "is not an X.509 certificate"))?;
        if tls.public_key().raw != key.spki() {
            return Err(UnfitResult::new("tls_cert", "is for another key"));
        }
        let ssh = ssh_key::Certificate::from_bytes(&certificates.ssh_cert)
            .map_err(|error| UnfitResult::new("ssh_cert", format_args!("is not an SSH certificate: {error}")))?;
        if ssh_key::PublicKey::from(ssh.public_key().clone()).to_bytes().ok().as_deref() != Some(&key.ssh_wire()) {
            return Err(UnfitResult::new("ssh_cert", "is for another key"));
        }
        if certificates.tls_ca_certs.is_empty() {
            return Err(UnfitResult::new("tls_ca_certs", "are missing"));
        }
        for ca in &certificates.tls_ca_certs {
            X509Certificate::from_der(ca)
                .map_err(|_| UnfitResult::new("tls_ca_certs", "hold something that is not a certificate"))?;
        }
        let line = |wire: &Vec<u8>| ssh_key::PublicKey::from_bytes(wire).and_then(|key| key.to_openssh());
        Ok(Self {
            key: key.clone(),
            tls_cert: pem_of(&certificates.tls_cert),
            tls_cas: certificates.tls_ca_certs.iter().map(|der| pem_of(der)).collect(),
            ssh_cert: ssh.to_openssh().map_err(|error| UnfitResult::new("ssh_cert", error))?,
            ssh_cas: certificates
                .ssh_ca_keys
                .iter()
                .map(line)
                .collect::<Result<_, _>>()
                .map_err(|error| UnfitResult::new("ssh_ca_keys", format_args!("hold something else: {error}")))?,
        })
    }

    /// The X.509 certificate, DER.
    pub fn certificate_der(&self) -> Option<CertificateDer<'static>> {
        CertificateDer::from_pem_slice(self.tls_cert.as_bytes()).ok()
    }

    /// The X.509 CA certificates, DER.
    pub fn ca_ders(&self) -> Vec<CertificateDer<'static>> {
        self.tls_cas.iter().filter_map(|pem| CertificateDer::from_pem_slice(pem.as_bytes()).ok()).collect()
    }

    /// What the X.509 certificate says.
    pub fn facts(&self) -> Option<Facts> {
        Facts::of(&self.certificate_der()?)
    }
}

fn pem_of(der: &[u8]) -> String {
    let config = ::pem::EncodeConfig::new().set_line_ending(::pem::LineEnding::LF);
    ::pem::encode_config(&::pem::Pem::new("CERTIFICATE", der), config)
}

/// What a bot's X.509 certificate says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// The user, `bot-<name>`.
    pub user: String,
    /// The bot instance, a UUID.
    pub instance: Option<String>,
    /// The place in the instance's lineage.
    pub generation: Option<u64>,
    /// The serial number, hex.
    pub serial: String,
    /// From when it is valid.
    pub not_before: DateTime<Utc>,
    /// Until when it is valid.
    pub not_after: DateTime<Utc>,
}

impl Facts {
    fn of(der: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let time = |time: ASN1Time| DateTime::from_timestamp(time.timestamp(), 0);
        let user = certificate.subject().iter_common_name().next()?.as_str().ok()?.to_owned();
        let instance = uri_names(&certificate).into_iter().find_map(|uri| {
            let (_, bot_and_instance) = uri.strip_prefix("spiffe://")?.split_once("/bot/")?;
            bot_and_instance.split_once('/').map(|(_, instance)| instance.to_owned())
        });
        Some(Self {
            user,
            instance,
            generation: BotExtension::of(&certificate).map(|said| said.generation),
            serial: hex::encode(certificate.raw_serial()),
            not_before: time(certificate.validity().not_before)?,
            not_after: time(certificate.validity().not_after)?,
        })
    }
}

/// The URIs of the subject alternative name (RFC 5280, 4.2.1.6).
pub(crate) fn uri_names<'c>(certificate: &X509Certificate<'c>) -> Vec<&'c str> {
    let Some(names) = certificate.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectAlternativeName(names) => Some(names.general_names.clone()),
        _ => None,
    }) else {
        return Vec::new();
    };
    names.iter().filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None }).collect()
}
