//! What administrators do to one token, or to each that a selector matches.

pub(crate) mod exempt;
pub(crate) mod reinstate;
pub(crate) mod reopen;
mod rotate;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use join_proto::{Address, v1::Token};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::{
    cli::Context,
    connection::Client,
    exit::{is_outcome_unknown, is_unanswered},
    output::say,
};

/// `joinctl bound-keypair …`
#[derive(Args, Debug)]
pub(crate) struct BoundKeypair {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Ask for a new key at the token's next join.
    Rotate(rotate::Rotate),
}

impl BoundKeypair {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        match self.command {
            Command::Rotate(command) => command.run(context).await,
        }
    }
}

/// Which tokens.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct Which {
    /// Name of the token.
    #[arg(value_name = "TOKEN")]
    token: Option<String>,

    /// Each token that has this label now; several with commas.
    #[arg(long, short = 'l', value_name = "KEY=VALUE")]
    selector: Option<String>,
}

/// Says what may have become of an act on each token of a selector where the error leaves it open, and how to see it.
fn open_outcome(error: anyhow::Error, look: &str) -> anyhow::Error {
    if is_unanswered(&error) {
        error.context(format!("no answer came, and the authority goes on to the last token while it runs: {look}"))
    } else if is_outcome_unknown(&error) {
        error.context(format!("it may be done in part: {look}"))
    } else {
        error
    }
}

/// The token's name.
pub(crate) fn name(token: &Token) -> &str {
    token.metadata.as_ref().map_or("", |metadata| metadata.name.as_str())
}

/// True once a key is bound.
pub(crate) fn is_bound(token: &Token) -> bool {
    let status = token.status.as_ref().and_then(|status| status.bound_keypair.as_ref());
    status.is_some_and(|status| !status.bound_public_key.is_empty())
}

/// The registration secret that waits to be used.
pub(crate) fn waiting_secret(token: &Token) -> Option<&str> {
    let secret = token.status.as_ref()?.bound_keypair.as_ref()?.registration_secret.as_str();
    Some(secret).filter(|secret| !secret.is_empty())
}

/// What may stand unescaped in the user part of a URI, RFC 3986 section 2.3.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// `tbot+auth+bound-keypair://TOKEN:SECRET@HOST:PORT?ca-pin=sha256:HEX`, with a pin for each CA.
pub(crate) fn joining_uri(token: &Token, address: &Address, pins: &[String]) -> anyhow::Result<String> {
    let secret = waiting_secret(token)
        .context("the authority told no registration secret; the role admin is needed to see it")?;
    let escaped = |text: &str| utf8_percent_encode(text, ESCAPED).to_string();
    let pins: Vec<_> = pins.iter().map(|pin| format!("ca-pin={pin}")).collect();
    let (name, secret) = (escaped(name(token)), escaped(secret));
    Ok(format!("tbot+auth+bound-keypair://{name}:{secret}@{address}?{}", pins.join("&")))
}

/// Where the bot is to find the authority.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct JoinAddress {
    /// Address that the joining URI has, when bots reach the authority by another than --addr.
    #[arg(long = "join-addr", value_name = "HOST:PORT")]
    address: Option<Address>,
}

impl JoinAddress {
    /// The client, whose joining URIs have this address, or else that of the client itself.
    pub(crate) fn or_of(&self, client: Client) -> Client {
        match &self.address {
            Some(address) => client.with_join_address(address.clone()),
            None => client,
        }
    }

    /// Warns of an address that nobody named and that only this machine reaches.
    pub(crate) fn warn(&self, client: &Client) {
        let address = client.address();
        if self.address.is_none() && address.is_loopback() {
            say(format!(
                "warning: the joining URI leads to {address}, which is this machine only: for a bot on another host, name \
                 with --join-addr where it reaches the authority"
            ));
        }
    }
}

/// The command that joins with the URI. Its directories are suggestions.
pub(crate) fn joining_command(uri: &str) -> String {
    format!("joinbot start identity --join-uri '{uri}' --storage /var/lib/joinbot --destination /opt/app/identity")
}

#[cfg(test)]
mod tests {
    use join_proto::v1::{BoundKeypairStatus, Metadata, TokenStatus};

    use super::*;

    #[test]
    fn a_joining_uri_names_token_secret_address_and_pins() {
        let status = BoundKeypairStatus { registration_secret: "a/b:c".into(), ..Default::default() };
        let mut token = Token {
            metadata: Some(Metadata { name: "web-1.x".into(), ..Default::default() }),
            status: Some(TokenStatus { bound_keypair: Some(status) }),
            ..Default::default()
        };
        let address = "[::1]:3025".parse().unwrap();
        assert_eq!(
            joining_uri(&token, &address, &["sha256:aa".into(), "sha256:bb".into()]).unwrap(),
            "tbot+auth+bound-keypair://web-1.x:a%2Fb%3Ac@[::1]:3025?ca-pin=sha256:aa&ca-pin=sha256:bb"
        );
        token.status = None;
        assert!(joining_uri(&token, &address, &[]).is_err());
    }
}
