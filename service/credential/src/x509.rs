//! X.509 certificates (RFC 5280), always signed with ECDSA P-256.

use aws_lc_rs::digest::{SHA256, digest};
use chrono::TimeDelta;
use join_domain::{Timestamp, id::Name, key::PublicKey};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::{issuer::IssueError, keys::AuthorityKey, serial::Serial, signer::P256Signer};

/// How long a CA certificate lives.
const CA_LIFE: TimeDelta = TimeDelta::days(3650);
/// How far clocks of clients may be behind when they meet a new CA or server certificate.
pub(crate) const CLOCK_SLACK: TimeDelta = TimeDelta::hours(1);

/// The X.520 attribute `serialNumber`.
const SERIAL_NUMBER_ATTRIBUTE: [u64; 4] = [2, 5, 4, 5];

/// One CA of the cluster, ready to sign.
pub(crate) struct CertificateAuthority {
    kid: String,
    issuer: rcgen::Issuer<'static, P256Signer>,
    pub(crate) certificate: CertificateDer<'static>,
}

impl CertificateAuthority {
    /// The CA of an opened key, whose parts were checked.
    pub(crate) fn open(key: &AuthorityKey) -> Self {
        let signer = P256Signer::from_pkcs8(key.secret()).expect("keys are checked when they are opened");
        let certificate = CertificateDer::from(key.certificate().unwrap_or_default().to_vec());
        let issuer = rcgen::Issuer::from_ca_cert_der(&certificate, signer).expect("certificates are checked with keys");
        Self { kid: key.kid().to_owned(), issuer, certificate }
    }

    pub(crate) fn issuer(&self) -> &rcgen::Issuer<'static, P256Signer> {
        &self.issuer
    }

    /// Signs a certificate.
    pub(crate) fn sign(&self, leaf: &CertificateParams, key: &impl PublicKeyData) -> Result<Vec<u8>, IssueError> {
        Ok(leaf.signed_by(key, &self.issuer)?.der().to_vec())
    }

    /// Certifies another CA of the cluster: who trusts this one finds its way to the other.
    ///
    /// It is valid while both are. Every node makes it with the same serial number.
    pub(crate) fn certify(&self, cluster: &Name, other: &Self) -> Result<CertificateDer<'static>, IssueError> {
        let (from, until) = validity(&self.certificate)?;
        let (other_from, other_until) = validity(&other.certificate)?;
        let hash = digest(&SHA256, &[self.certificate.as_ref(), other.certificate.as_ref()].concat());
        let mut bits = [0; 16];
        bits.copy_from_slice(&hash.as_ref()[..16]);
        let mut params = ca(cluster, &other.kid, from.max(other_from), until.min(other_until))?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.serial_number = Some(number(Serial::from_random(bits)));
        params.use_authority_key_identifier_extension = true;
        Ok(self.sign(&params, other.issuer.key())?.into())
    }
}

/// A new CA's certificate.
pub(crate) fn self_signed(
    cluster: &Name,
    kid: &str,
    signer: &P256Signer,
    now: Timestamp,
) -> Result<Vec<u8>, IssueError> {
    let params = ca(cluster, kid, now - CLOCK_SLACK, now + CA_LIFE)?;
    Ok(params.self_signed(signer)?.der().to_vec())
}

/// Subjects of CAs differ by their key's id, so that issuers, certificates and revocation lists find each other
/// without trying keys. Below a CA there may be one more, for [`CertificateAuthority::certify`].
fn ca(cluster: &Name, kid: &str, from: Timestamp, until: Timestamp) -> Result<CertificateParams, IssueError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(cluster.as_str());
    let kid = DnValue::PrintableString(kid.try_into()?);
    params.distinguished_name.push(DnType::CustomDnType(SERIAL_NUMBER_ATTRIBUTE.into()), kid);
    params.subject_alt_names = vec![SanType::URI(format!("spiffe://{cluster}").try_into()?)];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = moment(from)?;
    params.not_after = moment(until)?;
    Ok(params)
}

/// What all certificates below a CA have in common.
pub(crate) struct Leaf<'a> {
    /// Common name.
    pub(crate) name: &'a str,
    /// URI in the subject alternative name.
    pub(crate) uri: String,
    pub(crate) serial: Serial,
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
    pub(crate) usages: Vec<ExtendedKeyUsagePurpose>,
}

impl Leaf<'_> {
    pub(crate) fn params(self) -> Result<CertificateParams, IssueError> {
        if self.not_after < self.not_before {
            return Err(IssueError::Validity { not_before: self.not_before, not_after: self.not_after });
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(self.name);
        params.subject_alt_names = vec![SanType::URI(self.uri.try_into()?)];
        params.serial_number = Some(number(self.serial));
        params.not_before = moment(self.not_before)?;
        params.not_after = moment(self.not_after)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = self.usages;
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

pub(crate) fn number(serial: Serial) -> SerialNumber {
    SerialNumber::from_slice(serial.as_bytes())
}

/// A time as X.509 has it: whole seconds.
pub(crate) fn moment(time: Timestamp) -> Result<OffsetDateTime, IssueError> {
    OffsetDateTime::from_unix_timestamp(time.timestamp()).map_err(|_| IssueError::Time(time))
}

/// PEM (RFC 7468) with the line ends of Unix.
pub fn pem(label: &str, der: &[u8]) -> String {
    let lines = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new(label, der), lines)
}

/// The P-256 key that a certificate is for.
pub(crate) fn public_key(certificate: &[u8]) -> Option<PublicKey> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let point = certificate.public_key().subject_public_key.as_ref().try_into().ok()?;
    PublicKey::from_p256(point).ok()
}

fn validity(certificate: &[u8]) -> Result<(Timestamp, Timestamp), IssueError> {
    let (_, certificate) = X509Certificate::from_der(certificate).map_err(|_| IssueError::CaCertificate)?;
    times(&certificate).ok_or(IssueError::CaCertificate)
}

/// Beginning and end of a certificate.
pub(crate) fn times(certificate: &X509Certificate<'_>) -> Option<(Timestamp, Timestamp)> {
    let validity = certificate.validity();
    let from = Timestamp::from_timestamp(validity.not_before.timestamp(), 0)?;
    Some((from, Timestamp::from_timestamp(validity.not_after.timestamp(), 0)?))
}
