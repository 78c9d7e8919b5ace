//! `joinctl reopen`: unbinds key and instance and opens registration again.

use clap::Args;
use join_proto::v1::ReasonRequest;

use super::joining_command;
use crate::{cli::Context, output, resource::Resource};

/// Which token, and why.
#[derive(Args, Debug)]
#[command(after_long_help = "Ends the binding: the old key, its certificates and its join state are refused from now \
on, the recovery \
count is 0 again. The new secret is printed.

Example:
  joinctl reopen example --reason 'host was reinstalled'")]
pub(crate) struct Reopen {
    /// Name of the token.
    #[arg(value_name = "TOKEN")]
    token: String,

    /// Why; it stands in the ledger.
    #[arg(long)]
    reason: String,
}

impl Reopen {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let Self { token: name, reason } = self;
        let client = context.connect().await?;
        let request = ReasonRequest { name: name.clone(), reason };
        let token = client.resources().reopen(request).await?.into_inner();
        let uri = client.joining_uri(&token).await?;
        output::print(context.format, &Resource::Token(token).tree(), || instructions(&name, &uri))
    }
}

fn instructions(name: &str, uri: &str) -> String {
    format!(
        "token/{name} is open for registration

joining URI (it holds the new secret, which is good for one join):
  {uri}

on the bot's host: stop the agent and join anew; its old storage may stay or go (the key in it is refused from now on):
  {}

or put the secret into onboarding.bound_keypair.registration_secret of its configuration and start it
",
        joining_command(uri)
    )
}
