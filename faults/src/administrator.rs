//! The administrator, who sets everything up and is not needed any more from then on.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use http::Method;
use join_domain::key::PublicKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde_json::{Value, json};

use crate::{
    clock::SharedClock,
    http::{Http, Trust},
    proxy::Upstream,
};

/// With an identity of the role `admin`.
pub struct Administrator {
    /// What everybody trusts.
    pub trust: Trust,
    upstream: Upstream,
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

/// How a token is onboarded.
#[derive(Debug, Clone)]
pub enum Onboarding {
    /// With a registration secret.
    Secret,
    /// With a key that is known beforehand.
    Preregistered(PublicKey),
}

impl Administrator {
    /// Reads the identity.
    ///
    /// # Errors
    /// When a file is missing.
    pub fn new(identity: &Path, upstream: Upstream, clock: SharedClock) -> Result<Self> {
        let cas = fs::read(identity.join("ca.crt"))?;
        let cas = CertificateDer::pem_slice_iter(&cas).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            trust: Trust { cas, clock },
            upstream,
            certificate: CertificateDer::from_pem_file(identity.join("tls.crt"))?,
            key: PrivateKeyDer::from_pem_file(identity.join("tls.key"))?,
        })
    }

    /// Makes a bot and its token, both of this name. Returns the registration secret, if it has one.
    ///
    /// # Errors
    /// The service's.
    pub async fn add(&self, name: &str, onboarding: &Onboarding, limit: u32) -> Result<Option<String>> {
        let mut http = self.connect().await?;
        let bot = json!({
            "kind": "bot", "version": "v1", "metadata": {"name": name},
            "spec": {"roles": ["deployer"], "traits": [{"name": "logins", "values": ["deploy"]}]},
        });
        http.call(Method::POST, "/v1/bots", Some(&bot)).await?;
        let onboarding = match onboarding {
            Onboarding::Secret => json!({}),
            Onboarding::Preregistered(key) => json!({"initial_public_key": key.to_authorized_key()}),
        };
        let token = json!({
            "kind": "token", "version": "v2", "metadata": {"name": name},
            "spec": {
                "roles": ["Bot"], "bot_name": name, "join_method": "bound_keypair",
                "bound_keypair": {"onboarding": onboarding, "recovery": {"mode": "standard", "limit": limit}},
            },
        });
        let token = http.call(Method::POST, "/v1/tokens", Some(&token)).await?;
        let secret = token["status"]["bound_keypair"]["registration_secret"].as_str().unwrap_or_default();
        Ok(Some(secret.to_owned()).filter(|secret| !secret.is_empty()))
    }

    /// Asks for a new key at the next join.
    ///
    /// # Errors
    /// The service's.
    pub async fn rotate(&self, token: &str) -> Result<()> {
        let mut http = self.connect().await?;
        http.call(Method::POST, &format!("/v1/tokens/{token}/rotate"), Some(&Value::Object(Default::default())))
            .await?;
        Ok(())
    }

    async fn connect(&self) -> Result<Http> {
        let identity = (self.certificate.clone(), self.key.clone_key());
        let connected = Http::connect(self.upstream.address(), &self.trust, Some(identity)).await;
        connected.context("the administrator can't connect")
    }
}
