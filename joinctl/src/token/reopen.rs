//! `joinctl reopen`: unbinds key and instance and opens registration again.

use anyhow::Context as _;
use clap::Args;
use join_proto::v1::{ReasonRequest, Token};

use super::{JoinAddress, joining_command};
use crate::{
    cli::Context,
    connection::Client,
    output::{self, tree::mapping},
    resource::Resource,
};

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

    #[command(flatten)]
    join: JoinAddress,
}

impl Reopen {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let (name, join) = (self.token.clone(), self.join.clone());
        let client = join.or_of(context.connect().await?);
        let (token, uri) = self.reopen(&client).await?;
        let opened = mapping([("token", Resource::Token(token).tree()), ("join_uri", uri.as_str().into())]);
        output::print(context.format, &opened, || instructions(&name, &uri)).with_context(|| {
            format!("token/{name} is reopened: `joinctl get token/{name} --format json` shows its new secret")
        })?;
        join.warn(&client);
        Ok(())
    }

    /// The token as it is then, and where its bot joins anew.
    async fn reopen(self, client: &Client) -> anyhow::Result<(Token, String)> {
        let Self { token: name, reason, .. } = self;
        // A bot whose owner can't be told how it joins anew keeps what it has.
        let ca = client.ca().await?;
        let token = client.resources().reopen(ReasonRequest { name: name.clone(), reason }).await?.into_inner();
        let uri = client.joining_uri(&token, &ca);
        let uri = uri.with_context(|| format!("token/{name} is reopened, but the joining URI is not known"))?;
        Ok((token, uri))
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

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use join_proto::v1::{
        Ca, Empty, LockList, Status, ViewsReport,
        cluster_server::{Cluster, ClusterServer},
    };
    use tokio_stream::{Stream, wrappers::TcpListenerStream};
    use tonic::{Request, Response, transport::Server};

    use super::*;

    /// An authority that can't tell its CA. Whatever else it is asked for, it does not know.
    struct ShutOut;

    #[tonic::async_trait]
    impl Cluster for ShutOut {
        type WatchLocksStream = Pin<Box<dyn Stream<Item = Result<LockList, tonic::Status>> + Send>>;

        async fn get_ca(&self, _: Request<Empty>) -> Result<Response<Ca>, tonic::Status> {
            Err(tonic::Status::unavailable("the authority's keys cannot be opened"))
        }

        async fn get_status(&self, _: Request<Empty>) -> Result<Response<Status>, tonic::Status> {
            Err(tonic::Status::unimplemented("status"))
        }

        async fn watch_locks(&self, _: Request<Empty>) -> Result<Response<Self::WatchLocksStream>, tonic::Status> {
            Err(tonic::Status::unimplemented("locks"))
        }

        async fn verify_views(&self, _: Request<Empty>) -> Result<Response<ViewsReport>, tonic::Status> {
            Err(tonic::Status::unimplemented("views"))
        }
    }

    #[tokio::test]
    async fn nothing_is_reopened_when_the_way_back_in_is_not_known() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let served = Server::builder().add_service(ClusterServer::new(ShutOut));
        tokio::spawn(served.serve_with_incoming(TcpListenerStream::new(listener)));
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
        let client = Client::new(endpoint.connect().await.unwrap(), address.parse().unwrap());

        let reopen = Reopen {
            token: "example".to_owned(),
            reason: "host was reinstalled".to_owned(),
            join: JoinAddress::default(),
        };
        let refused = reopen.reopen(&client).await.unwrap_err();

        // Had it been asked to reopen, it would have said that it does not know how.
        assert!(refused.to_string().contains("keys cannot be opened"), "{refused:#}");
    }
}
