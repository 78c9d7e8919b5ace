//! SSH user certificates (OpenSSH PROTOCOL.certkeys).

use join_domain::{Timestamp, id::user_name};
use ssh_key::certificate::{Builder, CertType};

use crate::{
    issuer::{BotGrant, IssueError},
    signer::Ed25519Signer,
};

/// What the holder may ask of a host. X11 forwarding and `~/.ssh/rc` are for people.
const EXTENSIONS: [&str; 3] = ["permit-agent-forwarding", "permit-port-forwarding", "permit-pty"];

/// The certificate in wire form; the same grant always gives the same bytes.
pub(crate) fn user_certificate(grant: &BotGrant<'_>, ca: &Ed25519Signer) -> Result<Vec<u8>, IssueError> {
    let user = user_name(grant.bot);
    // The nonce guards against prepared collisions: nobody outside knew the serial number when the key was sent.
    let nonce = grant.serial.as_bytes().as_slice();
    let mut certificate =
        Builder::new(nonce, grant.subject.ssh.clone(), seconds(grant.not_before)?, seconds(grant.not_after)?)?;
    certificate.serial(grant.serial.ssh())?;
    certificate.cert_type(CertType::User)?;
    certificate.key_id(format!("{user} instance={} generation={}", grant.instance, grant.generation))?;
    if grant.principals.is_empty() {
        // No principals would mean all of them. No host grants this one by accident.
        certificate.valid_principal(format!("-{user}"))?;
    }
    for principal in grant.principals {
        certificate.valid_principal(principal)?;
    }
    for extension in EXTENSIONS {
        certificate.extension(extension, "")?;
    }
    Ok(certificate.sign(ca)?.to_bytes()?)
}

fn seconds(time: Timestamp) -> Result<u64, IssueError> {
    u64::try_from(time.timestamp()).map_err(|_| IssueError::Time(time))
}
