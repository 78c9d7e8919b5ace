//! The crypto floor: what a join can't do without, alone, in memory, on one thread.
//!
//! A handshake with the service's own parameters, and each document of a join: the challenge's and the join state's
//! signatures verified, the certificate of a renewal verified, the three credentials signed.

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
    UnparsedPublicKey,
};
use join_credential::{AuthorityKeys, BotGrant, Issuer, Serial, Subject};
use join_domain::{
    id::{InstanceId, Name, TokenId},
    proof::{JoinState, SubjectKeys},
};
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig,
    ServerConnection, SignatureScheme,
    client::{Resumption, danger::HandshakeSignatureValid},
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime},
    server::{
        NoServerSessionStorage,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use serde::Serialize;
use uuid::Uuid;

use crate::key::SubjectKey;

/// µs of one thread.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Floor {
    /// The server's side of a full handshake with a client certificate, P-256 both.
    pub(crate) mutual_handshake_us: f64,
    /// The same without a client certificate.
    pub(crate) handshake_us: f64,
    /// One Ed25519 signature verified.
    pub(crate) ed25519_verify_us: f64,
    /// One ECDSA P-256 signature verified.
    pub(crate) p256_verify_us: f64,
    /// X.509 certificate, SSH certificate and join state, written and signed.
    pub(crate) issue_us: f64,
    /// Their signatures alone: one ECDSA P-256, two Ed25519.
    pub(crate) raw_signatures_us: f64,
}

impl Floor {
    /// Two documents verified and three signed.
    pub(crate) fn recovery_us(&self) -> f64 {
        2.0 * self.ed25519_verify_us + self.issue_us
    }

    /// The same, a full mutual handshake, and the certificate verified that came with it.
    pub(crate) fn renewal_us(&self) -> f64 {
        self.mutual_handshake_us + self.p256_verify_us + self.recovery_us()
    }
}

/// What is measured, made once.
pub(crate) struct Bench {
    issuer: Issuer,
    subject: Subject,
    server: Arc<ServerConfig>,
    with_certificate: Arc<ClientConfig>,
    without: Arc<ClientConfig>,
    ed25519: Ed25519KeyPair,
    p256: EcdsaKeyPair,
}

impl Bench {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let now = chrono::Utc::now();
        let cluster: Name = "load.example".parse()?;
        let keys = AuthorityKeys::generate(cluster, now);
        let issuer = Issuer::new(&keys)?;
        let identity = issuer.generate_server_identity(&["127.0.0.1".to_owned()], now)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let server = server_config(&provider, identity.chain, PrivateKeyDer::Pkcs8(identity.key))?;
        let key = SubjectKey::generate()?;
        let subject = Subject::read(&SubjectKeys { tls: key.spki.clone(), ssh: key.ssh.clone() })?;
        let mut roots = RootCertStore::empty();
        issuer.tls_ca_certificates().iter().try_for_each(|root| roots.add(root.clone()))?;
        let builder = || {
            let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_protocol_versions(&[&rustls::version::TLS13])?;
            anyhow::Ok(builder.with_root_certificates(roots.clone()))
        };
        let mut without = builder()?.with_no_client_auth();
        without.resumption = Resumption::disabled();
        let mut bench = Self {
            issuer,
            subject,
            server: Arc::new(server),
            with_certificate: Arc::new(without.clone()),
            without: Arc::new(without.clone()),
            ed25519: Ed25519KeyPair::generate().context("an Ed25519 key can't be made")?,
            p256: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).context("a P-256 key can't be made")?,
        };
        let certificate = CertificateDer::from(bench.issue()?.tls_certificate);
        let certified = rustls::sign::CertifiedKey::new(vec![certificate], Arc::clone(&key.signer));
        let mut with = without;
        with.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(certified));
        bench.with_certificate = Arc::new(with);
        Ok(bench)
    }

    /// Measures for about `time`.
    pub(crate) fn measure(&self, time: Duration) -> anyhow::Result<Floor> {
        let share = time / 6;
        let message = [7; 200];
        let ed25519 = self.ed25519.sign(&message);
        let ed25519_key = UnparsedPublicKey::new(&ED25519, self.ed25519.public_key().as_ref());
        let random = aws_lc_rs::rand::SystemRandom::new();
        let p256 = self.p256.sign(&random, &message).context("P-256 does not sign")?;
        let p256_key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, self.p256.public_key().as_ref());
        // Once, that each of them works.
        ed25519_key.verify(&message, ed25519.as_ref()).context("Ed25519 does not verify")?;
        p256_key.verify(&message, p256.as_ref()).context("P-256 does not verify")?;
        self.issue()?;
        Ok(Floor {
            mutual_handshake_us: self.handshakes(&self.with_certificate, share)?,
            handshake_us: self.handshakes(&self.without, share)?,
            ed25519_verify_us: median_of(share, || ed25519_key.verify(black_box(&message), ed25519.as_ref()).is_ok()),
            p256_verify_us: median_of(share, || p256_key.verify(black_box(&message), p256.as_ref()).is_ok()),
            issue_us: median_of(share, || self.issue().is_ok()),
            raw_signatures_us: median_of(share, || {
                black_box(self.ed25519.sign(&message));
                black_box(self.ed25519.sign(&message));
                self.p256.sign(&random, &message).is_ok()
            }),
        })
    }

    fn issue(&self) -> anyhow::Result<join_credential::Credentials> {
        let now = chrono::Utc::now();
        let (token, instance) = (TokenId(Uuid::nil()), InstanceId(Uuid::nil()));
        let bot: Name = "fleet-00001".parse()?;
        let join_state = JoinState {
            iss: "load.example".to_owned(),
            aud: "load.example".to_owned(),
            sub: bot.to_string(),
            iat: now.timestamp(),
            nbf: now.timestamp(),
            bot_instance_id: instance,
            recovery_sequence: 1,
            recovery_limit: 1,
            recovery_mode: "standard".to_owned(),
            token_id: Some(token),
        };
        Ok(self.issuer.issue(&BotGrant {
            token,
            bot: &bot,
            instance,
            generation: 7,
            serial: Serial::from_random([7; 16]),
            not_before: now,
            not_after: now + chrono::TimeDelta::hours(1),
            roles: &["deployer".to_owned()],
            principals: &["deploy".to_owned()],
            subject: &self.subject,
            join_state: &join_state,
        })?)
    }

    /// The median of the server's share.
    fn handshakes(&self, client: &Arc<ClientConfig>, time: Duration) -> anyhow::Result<f64> {
        let name = ServerName::try_from("127.0.0.1")?;
        let mut samples = Vec::new();
        let end = Instant::now() + time;
        while Instant::now() < end {
            let mut client = ClientConnection::new(Arc::clone(client), name.clone())?;
            let begun = Instant::now();
            let mut server = ServerConnection::new(Arc::clone(&self.server))?;
            let mut spent = begun.elapsed();
            let mut wire = Vec::with_capacity(8192);
            while client.is_handshaking() || server.is_handshaking() {
                wire.clear();
                while client.wants_write() {
                    client.write_tls(&mut wire)?;
                }
                let begun = Instant::now();
                let mut from_client = wire.as_slice();
                while !from_client.is_empty() {
                    server.read_tls(&mut from_client)?;
                    server.process_new_packets()?;
                }
                let mut answer = Vec::with_capacity(8192);
                while server.wants_write() {
                    server.write_tls(&mut answer)?;
                }
                spent += begun.elapsed();
                let mut from_server = answer.as_slice();
                while !from_server.is_empty() {
                    client.read_tls(&mut from_server)?;
                    client.process_new_packets()?;
                }
            }
            samples.push(spent.as_secs_f64() * 1e6);
        }
        Ok(median(samples))
    }
}

/// The median, in µs, of batches of 16.
fn median_of(time: Duration, mut operation: impl FnMut() -> bool) -> f64 {
    let mut samples = Vec::new();
    let end = Instant::now() + time;
    while Instant::now() < end {
        let begun = Instant::now();
        for _ in 0..16 {
            assert!(black_box(operation()), "an operation that worked before fails");
        }
        samples.push(begun.elapsed().as_secs_f64() * 1e6 / 16.0);
    }
    median(samples)
}

/// The middle of the samples; 0 when there are none.
pub(crate) fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().unwrap_or_default()
}

/// As the service has it: TLS 1.3, client certificates optional and judged later, no tickets.
fn server_config(
    provider: &Arc<CryptoProvider>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> anyhow::Result<ServerConfig> {
    let verifier = Arc::new(PossessionOnly(provider.signature_verification_algorithms));
    let mut provider = CryptoProvider::clone(provider);
    // The service's order.
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    let provider = &Arc::new(provider);
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.ignore_client_order = true;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

#[derive(Debug)]
struct PossessionOnly(WebPkiSupportedAlgorithms);

impl ClientCertVerifier for PossessionOnly {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
