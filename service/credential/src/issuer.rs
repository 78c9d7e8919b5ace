//! Credentials of bots, signed from what was recorded.

use join_domain::{
    Timestamp,
    extension::{BotExtension, EXTENSION_OID},
    id::{InstanceId, Name, TokenId, user_name},
    proof::{JoinState, MAX_DOCUMENT},
};
use rcgen::{CustomExtension, ExtendedKeyUsagePurpose};
use rustls_pki_types::CertificateDer;

use crate::{
    join_state::JoinStateSigner,
    keys::{AuthorityKeys, Phase, Purpose},
    serial::Serial,
    signer::Ed25519Signer,
    ssh,
    subject::Subject,
    x509::{CertificateAuthority, Leaf, pem},
};

/// What an accepted join granted, as it was recorded, and the subject keys of the request.
#[derive(Debug, Clone, Copy)]
pub struct BotGrant<'a> {
    /// The token.
    pub token: TokenId,
    /// The bot.
    pub bot: &'a Name,
    /// The lineage.
    pub instance: InstanceId,
    /// The place in the lineage.
    pub generation: u64,
    /// The serial number of both certificates.
    pub serial: Serial,
    /// Beginning of both certificates; fractions of a second are dropped.
    pub not_before: Timestamp,
    /// End of both certificates; fractions of a second are dropped.
    pub not_after: Timestamp,
    /// The bot's roles at that moment.
    pub roles: &'a [String],
    /// The SSH principals at that moment; with none, the certificate has the one principal `-bot-<name>`.
    pub principals: &'a [String],
    /// The keys that get certificates.
    pub subject: &'a Subject,
    /// The join state to hand out.
    pub join_state: &'a JoinState,
}

/// What a bot gets. The CA certificates and keys that go with it are the [`Issuer`]'s.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// X.509 client certificate, DER.
    pub tls_certificate: Vec<u8>,
    /// SSH user certificate, wire form.
    pub ssh_certificate: Vec<u8>,
    /// Join state document, compact JWT.
    pub join_state: String,
}

/// Why nothing was signed. All of it is a fault of this service, or of what was recorded.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// A time that certificates can't express.
    #[error("certificates cannot express the time {0}")]
    Time(Timestamp),
    /// A life that ends before it begins.
    #[error("a certificate cannot end at {not_after}, before it begins at {not_before}")]
    Validity {
        /// The beginning.
        not_before: Timestamp,
        /// The end.
        not_after: Timestamp,
    },
    /// A name that is no DNS name and no IP address.
    #[error("`{0}` is neither a DNS name nor an IP address")]
    ServerName(String),
    /// X.509.
    #[error("the X.509 certificate cannot be signed: {0}")]
    X509(#[from] rcgen::Error),
    /// SSH.
    #[error("the SSH certificate cannot be signed: {0}")]
    Ssh(#[from] ssh_key::Error),
    /// A CA certificate that is none.
    #[error("a CA certificate of the cluster cannot be read")]
    CaCertificate,
}

/// Signs with the active keys of a cluster. It is made once from the keys, and again when they change.
pub struct Issuer {
    pub(crate) cluster: Name,
    /// All that are trusted; the active one first.
    pub(crate) authorities: Vec<CertificateAuthority>,
    tls_ca_certificates: Vec<CertificateDer<'static>>,
    tls_ca_pems: Vec<String>,
    cross_certificates: Vec<CertificateDer<'static>>,
    ssh_ca: Ed25519Signer,
    ssh_ca_keys: Vec<Vec<u8>>,
    ssh_ca_lines: Vec<String>,
    join_state: JoinStateSigner,
}

impl Issuer {
    /// An issuer with these keys; everything is parsed here, nothing again for each certificate.
    ///
    /// # Errors
    /// [`IssueError`] when a CA key can't certify another, or a public key can't be written.
    pub fn new(keys: &AuthorityKeys) -> Result<Self, IssueError> {
        let cluster = keys.cluster().clone();
        let authorities: Vec<_> = keys.trusted(Purpose::X509Ca).map(CertificateAuthority::open).collect();
        let active = authorities.first().ok_or(IssueError::CaCertificate)?;
        let retired = keys.trusted(Purpose::X509Ca).filter(|key| key.phase() == Phase::Retired);
        let cross_certificates =
            retired.map(|key| CertificateAuthority::open(key).certify(&cluster, active)).collect::<Result<_, _>>()?;
        let ssh_ca_keys = keys.trusted(Purpose::SshCa).filter_map(|key| key.public_key());
        let ssh_ca_lines: Vec<_> = ssh_ca_keys.map(|key| key.to_authorized_key()).collect();
        let ssh_ca_keys = ssh_ca_lines.iter().map(|line| ssh_key::PublicKey::from_openssh(line)?.to_bytes());
        Ok(Self {
            cross_certificates,
            tls_ca_pems: authorities.iter().map(|ca| pem("CERTIFICATE", &ca.certificate)).collect(),
            tls_ca_certificates: authorities.iter().map(|ca| ca.certificate.clone()).collect(),
            authorities,
            ssh_ca: keys.ed25519_signer(Purpose::SshCa),
            ssh_ca_keys: ssh_ca_keys.collect::<Result<_, ssh_key::Error>>()?,
            ssh_ca_lines,
            join_state: JoinStateSigner::new(
                keys.active(Purpose::JoinState).kid(),
                keys.ed25519_signer(Purpose::JoinState),
            ),
            cluster,
        })
    }

    /// Signs a bot's credentials. The same grant gives the same ones again: only the X.509 signature, the join state's
    /// key and the issuer can differ, the latter two when keys were rotated meanwhile.
    ///
    /// # Errors
    /// [`IssueError`].
    pub fn issue(&self, grant: &BotGrant<'_>) -> Result<Credentials, IssueError> {
        Ok(Credentials {
            tls_certificate: self.client_certificate(grant)?,
            ssh_certificate: self.ssh_certificate(grant)?,
            join_state: self.join_state(grant.join_state),
        })
    }

    /// The CA certificates (DER) that are trusted: the active one first.
    pub fn tls_ca_certificates(&self) -> &[CertificateDer<'static>] {
        &self.tls_ca_certificates
    }

    /// The same in PEM, each by itself.
    pub fn tls_ca_pems(&self) -> &[String] {
        &self.tls_ca_pems
    }

    /// The same in PEM, as one file has them.
    pub fn ca_bundle(&self) -> String {
        self.tls_ca_pems.concat()
    }

    /// The active CA as the retired ones certify it: for those who know only an older CA.
    pub fn cross_certificates(&self) -> &[CertificateDer<'static>] {
        &self.cross_certificates
    }

    /// The SSH CA keys (wire form) that are trusted: the active one first.
    pub fn ssh_ca_keys(&self) -> &[Vec<u8>] {
        &self.ssh_ca_keys
    }

    /// The same as lines of authorized_keys.
    pub fn ssh_ca_lines(&self) -> &[String] {
        &self.ssh_ca_lines
    }

    /// The cluster's name.
    pub fn cluster(&self) -> &Name {
        &self.cluster
    }

    pub(crate) fn authority(&self) -> &CertificateAuthority {
        self.authorities.first().expect("an issuer is not made without an active CA")
    }

    /// The X.509 client certificate alone, DER.
    ///
    /// # Errors
    /// [`IssueError`].
    pub fn client_certificate(&self, grant: &BotGrant<'_>) -> Result<Vec<u8>, IssueError> {
        let leaf = Leaf {
            name: &user_name(grant.bot),
            uri: format!("spiffe://{}/bot/{}/{}", self.cluster, grant.bot, grant.instance),
            serial: grant.serial,
            not_before: grant.not_before,
            not_after: grant.not_after,
            usages: vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth],
        };
        let extension = BotExtension {
            token_id: grant.token,
            bot: grant.bot.clone(),
            instance: grant.instance,
            generation: grant.generation,
            roles: grant.roles.to_vec(),
        };
        let extension = extension.to_der().expect("names, ids and numbers serialise to JSON, and text to DER");
        let mut params = leaf.params()?;
        params.custom_extensions = vec![CustomExtension::from_oid_content(&EXTENSION_OID, extension)];
        self.authority().sign(&params, &grant.subject.tls)
    }

    /// The SSH user certificate alone, wire form.
    ///
    /// # Errors
    /// [`IssueError`].
    pub fn ssh_certificate(&self, grant: &BotGrant<'_>) -> Result<Vec<u8>, IssueError> {
        ssh::user_certificate(grant, &self.ssh_ca)
    }

    /// The join state document alone, compact JWT.
    pub fn join_state(&self, document: &JoinState) -> String {
        self.join_state.sign(document)
    }

    /// Reads a join state document that the active key has signed. `None` says nothing about others:
    /// [`JoinState::open`] knows all keys, and what is wrong with a document.
    pub fn read_own_join_state(&self, document: &[u8]) -> Option<JoinState> {
        let short = document.len() <= MAX_DOCUMENT;
        let read = short.then(|| self.join_state.read_back(document)).flatten();
        read.filter(|claims| claims.iss == self.cluster.as_str() && claims.aud == self.cluster.as_str())
    }
}
