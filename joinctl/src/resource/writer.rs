//! Documents are written one after the other, and each is told of when it is.

use anyhow::Context as _;

use super::{Reference, Resource, document::Document, vain};
use crate::{cli::Context, connection::Client, exit::is_outcome_unknown, interrupt::interruptible, output};

/// Tells what was done, as it is done: when a later one fails, the earlier ones stand, and what is told of them is whole.
/// When nobody reads it any more, the work goes on all the same.
pub(super) struct Writer<'c> {
    client: &'c Client,
    /// None where it is told in lines of text.
    told: Option<output::Items<output::Stdout>>,
}

impl<'c> Writer<'c> {
    pub(super) fn begin(client: &'c Client, context: &Context) -> Self {
        let told = match context.format {
            output::Format::Text => None,
            format => Some(output::Items::begin(output::stdout(), format)),
        };
        Self { client, told }
    }

    /// Writes one; where it may be that it is written, `go_on` says how one goes on.
    pub(super) async fn write(
        &mut self,
        Document { origin, resource }: Document,
        replaces: bool,
        go_on: fn(&Reference) -> String,
    ) -> anyhow::Result<()> {
        let written = write(self.client, resource, replaces, go_on).await.context(origin)?;
        self.tell(if replaces { "saved" } else { "created" }, &written)?;
        vain::warn(self.client, &written).await
    }

    fn tell(&mut self, deed: &str, resource: &Resource) -> anyhow::Result<()> {
        let told = match &mut self.told {
            Some(items) => items.push(&resource.tree()).map_err(Into::into),
            None => output::line(&format!("{} {deed}", resource.reference())),
        };
        told.or_else(unless_unread).with_context(|| format!("{} is {deed}", resource.reference()))
    }

    pub(super) fn end(mut self) -> anyhow::Result<()> {
        Ok(self.told.take().map_or(Ok(()), output::Items::end)?)
    }
}

impl Drop for Writer<'_> {
    /// Ends what is told where one could not be written: the error says the rest.
    fn drop(&mut self) {
        let _ = self.told.take().map(output::Items::end);
    }
}

async fn write(
    client: &Client,
    resource: Resource,
    replaces: bool,
    go_on: fn(&Reference) -> String,
) -> anyhow::Result<Resource> {
    let reference = resource.reference();
    let answer = async { if replaces { client.upsert(resource).await } else { client.create(resource).await } };
    interruptible(answer).await.map_err(|error| {
        if !is_outcome_unknown(&error) {
            return error;
        }
        let what = if reference.name.is_empty() { format!("the {}", reference.kind) } else { reference.to_string() };
        let go_on = go_on(&reference);
        error.context(format!("whether {what} is written is not known, and what stands behind it is not sent: {go_on}"))
    })
}

fn unless_unread(error: anyhow::Error) -> anyhow::Result<()> {
    if output::is_unread(&error) { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use join_proto::v1::{Bot, Lock, Metadata};
    use tonic::Status;

    use super::*;
    use crate::connection::scripted::authority;

    async fn told(status: Status, resource: Resource, replaces: bool) -> String {
        let client = authority(move |_| Err(status.clone())).await;
        format!("{:#}", write(&client, resource, replaces, |_| "look".to_owned()).await.unwrap_err())
    }

    #[tokio::test]
    async fn what_may_be_written_is_told_with_how_to_go_on() {
        let lost = || Status::unavailable("the connection broke");
        let metadata = Some(Metadata { name: "web".into(), ..Default::default() });
        let bot = Resource::Bot(Bot { metadata, ..Default::default() });
        for replaces in [true, false] {
            let told = told(lost(), bot.clone(), replaces).await;
            let wanted = "whether bot/web is written is not known, and what stands behind it is not sent: look: ";
            assert!(told.starts_with(wanted), "{told}");
        }
        let told = told(lost(), Resource::Lock(Lock::default()), false).await;
        assert!(told.starts_with("whether the lock is written is not known"), "{told}");
    }

    #[tokio::test]
    async fn a_refusal_is_told_as_it_is() {
        for replaces in [true, false] {
            let told = told(Status::invalid_argument("no such role"), Resource::Bot(Bot::default()), replaces).await;
            assert!(!told.contains("not known"), "{told}");
        }
    }
}
