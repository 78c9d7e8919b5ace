//! The list of revoked X.509 certificates (RFC 5280, section 5).

use chrono::TimeDelta;
use join_domain::Timestamp;
use rcgen::{CertificateRevocationListParams, KeyIdMethod, RevokedCertParams, SerialNumber};

use crate::{
    issuer::{IssueError, Issuer},
    serial::Serial,
    x509::{moment, number},
};

/// How long a list can be relied on: a lock is complete after this time.
pub const REFRESH: TimeDelta = TimeDelta::minutes(5);

/// A revoked certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revoked {
    /// Its serial number.
    pub serial: Serial,
    /// Since when.
    pub at: Timestamp,
}

impl Issuer {
    /// Signed lists (DER), one by each trusted CA, the active one's first.
    ///
    /// Each names all revoked certificates: the same serial number may have been signed by two CAs, when an answer was
    /// given again after a rotation. `list_number` must grow with every change; relying parties refuse the lists after
    /// `next_update`.
    ///
    /// # Errors
    /// [`IssueError`], also when `next_update` is not after `this_update`.
    pub fn revocation_lists(
        &self,
        revoked: &[Revoked],
        list_number: u64,
        this_update: Timestamp,
        next_update: Timestamp,
    ) -> Result<Vec<Vec<u8>>, IssueError> {
        let entry = |revoked: &Revoked| {
            Ok(RevokedCertParams {
                serial_number: number(revoked.serial),
                revocation_time: moment(revoked.at)?,
                reason_code: None,
                invalidity_date: None,
            })
        };
        let list = CertificateRevocationListParams {
            this_update: moment(this_update)?,
            next_update: moment(next_update)?,
            crl_number: SerialNumber::from(list_number),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect::<Result<_, IssueError>>()?,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        self.authorities.iter().map(|ca| Ok(list.signed_by(ca.issuer())?.der().to_vec())).collect()
    }
}
