//! A bot without gRPC: two or three calls of JSON over HTTP. It keeps its state as the agent does, durably and before
//! anything depends on it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, anyhow, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::Method;
use join_agent::{credentials::Credentials, entropy::SystemEntropy, state::Accepted, storage::Storage, vault::Vault};
use join_domain::{id::Name, key::PublicKey, proof::Challenge};
use join_proto::teleport;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde_json::{Value, json};

use crate::{
    host::Failure,
    http::{Http, Refused, Trust},
    world::CLUSTER,
};

/// The bot.
pub struct JsonBot {
    /// Its token.
    pub token: Name,
    /// The registration secret; empty when there is none.
    pub secret: String,
    /// How long certificates shall live.
    pub life: Duration,
    /// Where the service is reached.
    pub way: SocketAddr,
    /// How it is known.
    pub trust: Trust,
}

/// More steps than any ceremony has.
const MAX_STEPS: usize = 8;

impl JsonBot {
    /// One try; once more without the certificate when that is what stands in the way.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn join_once(&self, storage: Arc<dyn Storage>) -> Result<(), Failure> {
        let mut presents = true;
        loop {
            match self.ceremony(Arc::clone(&storage), presents).await {
                Ok(()) => return Ok(()),
                Err(error) => match code(&error).as_deref() {
                    Some("BINDING_NOT_ALLOWED" | "INSTANCE_MISMATCH") if presents => presents = false,
                    Some("CONFLICT" | "UNAVAILABLE" | "RATE_LIMITED" | "INTERNAL") => {
                        return Err(Failure::Again(format!("{error:#}")));
                    }
                    Some(_) => return Err(Failure::Stuck(format!("{error:#}"))),
                    // Whatever has no code was not said by the service.
                    None => return Err(Failure::Again(format!("{error:#}"))),
                },
            }
        }
    }

    async fn ceremony(&self, storage: Arc<dyn Storage>, presents: bool) -> Result<()> {
        let now = self.trust.clock.time();
        let mut vault = Vault::open(storage)?;
        vault.begin(&SystemEntropy, now)?;
        let presented = vault.presentable()?.filter(|_| presents);
        let identity = match presented {
            None => None,
            Some(credentials) => {
                let certificate = credentials.certificate_der().context("the stored certificate does not read")?;
                Some((certificate, PrivateKeyDer::Pkcs8(credentials.key.to_der().to_vec().into())))
            }
        };
        let mut http = Http::connect(self.way, &self.trust, identity).await?;
        let mut step = http.call(Method::POST, "/v1/join", Some(&self.open(&vault))).await?;
        let mut challenged = Vec::new();
        for _ in 0..MAX_STEPS {
            if let Some(result) = step.get("result") {
                let accepted = self.accepted(result, &vault)?;
                return Ok(vault.accept(accepted)?);
            }
            let mut answer = json!({"continuation": step["continuation"]});
            if step.get("rotation_request").is_some() {
                answer["public_key"] = json!(vault.offer(&challenged)?.to_authorized_key());
            } else {
                answer["solution"] = json!(solve(&step, &vault, &mut challenged)?);
            }
            step = http.call(Method::POST, "/v1/join/continue", Some(&answer)).await?;
        }
        bail!("the authority goes on asking")
    }

    fn open(&self, vault: &Vault) -> Value {
        let attempt = vault.attempt();
        let subject = attempt.subject_keys();
        let join_state = vault.state().accepted.as_ref().map(|accepted| accepted.join_state.as_str());
        json!({
            "token": self.token,
            "attempt_id": attempt.id.as_str(),
            "registration_secret": self.secret,
            "join_state": join_state.unwrap_or_default(),
            "public_tls_key": STANDARD.encode(subject.tls),
            "public_ssh_key": STANDARD.encode(subject.ssh),
            "held_keys": vault.state().held().map(|key| key.public().to_authorized_key()).collect::<Vec<_>>(),
            "ttl": format!("{}s", self.life.as_secs()),
        })
    }

    fn accepted(&self, result: &Value, vault: &Vault) -> Result<Accepted> {
        let text = |name: &str| result[name].as_str().with_context(|| format!("the result has no {name}"));
        let list = |name: &str| -> Result<Vec<&str>> {
            let list = result[name].as_array().with_context(|| format!("the result has no {name}"))?;
            Ok(list.iter().filter_map(Value::as_str).collect())
        };
        let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).map(|der| der.to_vec());
        let ssh_key = |line: &str| -> Result<Vec<u8>> {
            let encoded = line.split(' ').nth(1).context("an SSH key has no second word")?;
            Ok(STANDARD.decode(encoded)?)
        };
        let certificates = teleport::Certificates {
            tls_cert: der(text("tls_cert")?)?,
            tls_ca_certs: list("tls_ca_certs")?.into_iter().map(der).collect::<Result<_, _>>()?,
            ssh_cert: ssh_key(text("ssh_cert")?)?,
            ssh_ca_keys: list("ssh_ca_keys")?.into_iter().map(ssh_key).collect::<Result<_>>()?,
        };
        Ok(Accepted {
            cluster: CLUSTER.to_owned(),
            token: self.token.clone(),
            bound_key: PublicKey::from_authorized_key(text("public_key")?.as_bytes())?,
            join_state: text("join_state")?.to_owned(),
            credentials: Credentials::from_wire(&certificates, &vault.attempt().subject)?,
            stored_at: self.trust.clock.time(),
        })
    }
}

/// Signs a challenge, after it was read and found to be this client's own.
fn solve(step: &Value, vault: &Vault, challenged: &mut Vec<PublicKey>) -> Result<String> {
    let text = |name: &str| step[name].as_str().with_context(|| format!("the step has no {name}"));
    let (line, document) = (text("public_key")?, text("challenge")?);
    let public = PublicKey::from_authorized_key(line.as_bytes())?;
    let key = vault.state().held().find(|key| *key.public() == public).ok_or_else(|| {
        let code = "KEY_NOT_HELD".to_owned();
        anyhow!(Refused { status: http::StatusCode::OK, code, message: format!("{line} is not held") })
    })?;
    let attempt = vault.attempt();
    Challenge::read(document, CLUSTER, &public, Some(&attempt.id), &attempt.subject_keys().hash())?;
    challenged.push(public);
    Ok(key.solve(document)?)
}

fn code(error: &anyhow::Error) -> Option<String> {
    error.downcast_ref::<Refused>().map(|refused| refused.code.clone())
}
