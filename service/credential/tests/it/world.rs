//! One cluster with its keys, a frozen clock and a bot.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use chrono::TimeDelta;
use join_credential::{AuthorityKeys, BotGrant, Credentials, Issuer, Serial, Subject};
use join_domain::{
    Timestamp,
    id::{InstanceId, Name, TokenId},
    proof::{JoinState, SubjectKeys},
};
use ssh_key::{public::KeyData, sec1::EncodedPoint};
use uuid::Uuid;
use x509_parser::{
    extensions::{ParsedExtension, X509Extension},
    prelude::X509Certificate,
};

pub(crate) struct World {
    pub(crate) keys: AuthorityKeys,
    pub(crate) issuer: Issuer,
    pub(crate) now: Timestamp,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::of("dev.local")
    }

    pub(crate) fn of(cluster: &str) -> Self {
        let now = "2026-03-01T12:00:00Z".parse().unwrap();
        let keys = AuthorityKeys::generate(name(cluster), now);
        Self { issuer: Issuer::new(&keys).unwrap(), keys, now }
    }

    /// After keys changed.
    pub(crate) fn reload(&mut self) {
        self.issuer = Issuer::new(&self.keys).unwrap();
    }

    /// An accepted join of the bot `miner`, for a new subject key.
    pub(crate) fn join(&self) -> Join {
        let instance = InstanceId(Uuid::from_u128(0x0bb1_5f5e_0000_4000_8000_0000_0000_0001));
        let token = TokenId(Uuid::from_u128(0x0bb1_70ce_0000_4000_8000_0000_0000_0002));
        let cluster = self.keys.cluster().to_string();
        let iat = self.now.timestamp();
        Join {
            token,
            bot: name("miner"),
            instance,
            generation: 7,
            serial: Serial::from_random([0xab; 16]),
            not_before: self.now - TimeDelta::minutes(2),
            not_after: self.now + TimeDelta::hours(1),
            roles: vec!["deployer".into(), "reader".into()],
            principals: vec!["deploy".into(), "root".into()],
            subject: Subject::read(&subject_keys()).unwrap(),
            join_state: JoinState {
                iss: cluster.clone(),
                aud: cluster,
                sub: "miner".into(),
                iat,
                nbf: iat,
                bot_instance_id: instance,
                recovery_sequence: 1,
                recovery_limit: 1,
                recovery_mode: "standard".into(),
                token_id: Some(token),
            },
        }
    }

    pub(crate) fn issue(&self, join: &Join) -> Credentials {
        self.issuer.issue(&join.grant()).unwrap()
    }

    pub(crate) fn ca_certificate(&self) -> &[u8] {
        self.issuer.tls_ca_certificates()[0].as_ref()
    }
}

pub(crate) struct Join {
    pub(crate) token: TokenId,
    pub(crate) bot: Name,
    pub(crate) instance: InstanceId,
    pub(crate) generation: u64,
    pub(crate) serial: Serial,
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
    pub(crate) roles: Vec<String>,
    pub(crate) principals: Vec<String>,
    pub(crate) subject: Subject,
    pub(crate) join_state: JoinState,
}

impl Join {
    pub(crate) fn grant(&self) -> BotGrant<'_> {
        BotGrant {
            token: self.token,
            bot: &self.bot,
            instance: self.instance,
            generation: self.generation,
            serial: self.serial,
            not_before: self.not_before,
            not_after: self.not_after,
            roles: &self.roles,
            principals: &self.principals,
            subject: &self.subject,
            join_state: &self.join_state,
        }
    }
}

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// One new P-256 key in both forms, as the agent sends it.
pub(crate) fn subject_keys() -> SubjectKeys {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let point = key.public_key().as_ref();
    SubjectKeys { tls: spki(&hex::decode(P256_SPKI).unwrap(), point), ssh: ssh_p256(point) }
}

/// SubjectPublicKeyInfo up to the key (RFC 5480).
pub(crate) const P256_SPKI: &str = "3059301306072a8648ce3d020106082a8648ce3d030107034200";
/// SubjectPublicKeyInfo up to the key (RFC 8410).
pub(crate) const ED25519_SPKI: &str = "302a300506032b6570032100";

pub(crate) fn spki(prefix: &[u8], key: &[u8]) -> Vec<u8> {
    [prefix, key].concat()
}

pub(crate) fn ssh_p256(point: &[u8]) -> Vec<u8> {
    let point = EncodedPoint::from_bytes(point).unwrap();
    ssh_key::PublicKey::from(KeyData::Ecdsa(ssh_key::public::EcdsaPublicKey::NistP256(point))).to_bytes().unwrap()
}

/// What is signed names the key that signed it: that of the CA.
pub(crate) fn assert_names_key_of(signed: &[X509Extension<'_>], ca: &X509Certificate<'_>) {
    let authority = signed.iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0.to_vec()),
        _ => None,
    });
    let subject = ca.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
        _ => None,
    });
    assert!(authority.is_some());
    assert_eq!(authority, subject);
}
