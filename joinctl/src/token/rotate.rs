//! `joinctl bound-keypair rotate`: asks for a new key at the next join.

use clap::Args;
use join_proto::v1::NameRequest;

use crate::{cli::Context, output, resource::Resource};

/// Which token.
#[derive(Args, Debug)]
pub(crate) struct Rotate {
    /// Name of the token.
    #[arg(value_name = "TOKEN")]
    token: String,
}

impl Rotate {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let Self { token: name } = self;
        let client = context.connect().await?;
        let request = NameRequest { name: name.clone() };
        let token = client.resources().rotate_token(request).await?.into_inner();
        output::print(context.format, &Resource::Token(token).tree(), || {
            format!("token/{name} will be asked for a new key at its next join\n")
        })
    }
}
