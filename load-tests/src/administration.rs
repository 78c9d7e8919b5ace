//! Administrators: what runs need of them, and their work under load.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use h2::client::SendRequest;
use rustls::{
    pki_types::{PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::{
    authority::{Authority, roots},
    ceremony::call_json,
    connection::{Connection, Target},
};

/// An administrator with a connection.
pub(crate) struct Administrator {
    connection: Connection,
}

impl Administrator {
    /// The first administrator of a private authority.
    pub(crate) async fn connect(authority: &Authority) -> anyhow::Result<Self> {
        Self::with_identity(&authority.target()?, &authority.identity()).await
    }

    /// With the identity of a directory.
    pub(crate) async fn with_identity(target: &Target, directory: &std::path::Path) -> anyhow::Result<Self> {
        let key = PrivateKeyDer::from_pem_file(directory.join("tls.key")).context("the identity has no key")?;
        let signer = rustls::crypto::aws_lc_rs::sign::any_ecdsa_type(&key)?;
        let certified = Arc::new(CertifiedKey::new(roots(&directory.join("tls.crt"))?, signer));
        Ok(Self { connection: target.connect(Some(&certified)).await? })
    }

    /// One resource.
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.call("GET", path, None).await
    }

    async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        call(&self.connection.requests, method, path, body).await
    }

    pub(crate) async fn create_bot(&self, name: &str) -> anyhow::Result<()> {
        let bot = json!({
            "kind": "bot", "version": "v1", "metadata": { "name": name },
            "spec": { "roles": ["deployer"], "traits": [{ "name": "logins", "values": ["deploy"] }] },
        });
        self.call("POST", "/v1/bots", Some(&bot)).await.map(drop)
    }

    /// A token with a registration secret, which may recover as often as a run wants.
    pub(crate) async fn create_token(&self, name: &str, bot: &str, secret: &str) -> anyhow::Result<()> {
        let token = json!({
            "kind": "token", "version": "v2", "metadata": { "name": name },
            "spec": {
                "roles": ["Bot"], "bot_name": bot, "join_method": "bound_keypair",
                "bound_keypair": {
                    "onboarding": { "registration_secret": secret },
                    "recovery": { "mode": "standard", "limit": 1_000_000 },
                },
            },
        });
        self.call("POST", "/v1/tokens", Some(&token)).await.map(drop)
    }

    /// Asks for a rotation at the next join.
    pub(crate) async fn rotate(&self, token: &str) -> anyhow::Result<()> {
        self.call("POST", &format!("/v1/tokens/{token}/rotate"), Some(&json!({}))).await.map(drop)
    }
}

async fn call(requests: &SendRequest<Bytes>, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
    call_json(requests, method, path, body).await.with_context(|| format!("{method} {path}"))
}

/// Administrators at work: locks come and go, exemptions are granted and revoked, lists and histories are read.
pub(crate) struct Work {
    stop: tokio::sync::watch::Sender<bool>,
    workers: Vec<(&'static str, JoinHandle<anyhow::Result<u64>>)>,
}

impl Work {
    pub(crate) async fn start(authority: &Authority) -> anyhow::Result<Self> {
        let administrator = Administrator::connect(authority).await?;
        administrator.create_bot("worked-on").await?;
        administrator.create_token("worked-on", "worked-on", "a-secret-that-nobody-uses").await?;
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let mut workers = Vec::new();
        for (what, work) in [
            ("locks made and removed", Kind::Locks),
            ("exemptions granted and revoked", Kind::Exemptions),
            ("pages of tokens listed", Kind::Lists),
            ("pages of history read", Kind::History),
        ] {
            let administrator = Administrator::connect(authority).await?;
            workers.push((what, tokio::spawn(work.repeat(administrator, stopped.clone()))));
        }
        Ok(Self { stop, workers })
    }

    /// Ends the work, and says how much was done.
    pub(crate) async fn stop(self) -> anyhow::Result<String> {
        self.stop.send_replace(true);
        let mut told = Vec::new();
        for (what, worker) in self.workers {
            let done = worker.await??;
            ensure!(done > 0, "no {what}");
            told.push(format!("{done} {what}"));
        }
        Ok(told.join(", "))
    }
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Locks,
    Exemptions,
    Lists,
    History,
}

impl Kind {
    /// Does it again and again, a little apart, as people and scripts do.
    async fn repeat(
        self,
        administrator: Administrator,
        stopped: tokio::sync::watch::Receiver<bool>,
    ) -> anyhow::Result<u64> {
        let (mut done, mut cursor) = (0, String::new());
        while !*stopped.borrow() {
            self.once(&administrator, &mut cursor).await?;
            done += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(done)
    }

    async fn once(self, administrator: &Administrator, cursor: &mut String) -> anyhow::Result<()> {
        match self {
            Self::Locks => {
                let lock = json!({
                    "kind": "lock", "version": "v2", "metadata": {},
                    "spec": { "target": { "join_token": "worked-on" }, "message": "load test" },
                });
                let made = administrator.call("POST", "/v1/locks", Some(&lock)).await?;
                let name = made["metadata"]["name"].as_str().context("a lock has a name")?;
                administrator.call("DELETE", &format!("/v1/locks/{name}"), None).await?;
            }
            Self::Exemptions => {
                let spec = json!({ "token_name": "worked-on", "kind": "recoveries", "reason": "load test" });
                let grant = json!({ "exemption": { "kind": "exemption", "version": "v1", "spec": spec } });
                let granted = administrator.call("POST", "/v1/exemptions", Some(&grant)).await?;
                let name = granted["exemptions"][0]["metadata"]["name"].as_str();
                let name = name.with_context(|| format!("an exemption has a name: {granted}"))?;
                administrator.call("DELETE", &format!("/v1/exemptions/{name}"), None).await?;
            }
            Self::Lists | Self::History => {
                let what = if matches!(self, Self::Lists) { "tokens" } else { "events" };
                let page =
                    administrator.call("GET", &format!("/v1/{what}?page_size=100&cursor={cursor}"), None).await?;
                let next = if matches!(self, Self::Lists) { "next_cursor" } else { "cursor" };
                let more = matches!(self, Self::Lists) || page["more"].as_bool() == Some(true);
                *cursor = page[next].as_str().filter(|_| more).unwrap_or_default().to_owned();
            }
        }
        Ok(())
    }
}
