//! `joinctl create`: resources out of files.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;

use super::{
    Kind, Resource,
    document::{self, Document},
    plan::{Planned, plan, refuse_ended},
};
use crate::{cli::Context, output};

/// Which files, and whether to replace.
#[derive(Args, Debug)]
#[command(after_long_help = "Everything is read and checked before anything is sent. A `status` is ignored.

Examples:
  joinctl create bot.yaml
  joinctl create -f token-example.yaml
  joinctl get token/example --format yaml | joinctl create -f -")]
pub(crate) struct Create {
    /// Replace what exists already.
    #[arg(long, short)]
    force: bool,

    /// YAML or JSON, with one or more resources; - is stdin.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
}

impl Create {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let mut documents = document::read(&self.files)?;
        let client = context.connect().await?;
        // One alone is checked by the authority: nothing of it can be half done.
        if documents.len() > 1 {
            documents = checked(plan(&client, documents).await?, self.force)?;
            refuse_ended(&client, documents.iter()).await?;
        }
        let mut done = Done::begin(context);
        for Document { origin, resource } in documents {
            let (outcome, deed) = if self.force && resource.kind() != Kind::Exemption && !resource.name().is_empty() {
                (client.upsert(resource).await, "saved")
            } else {
                (client.create(resource).await, "created")
            };
            done.push(deed, outcome.context(origin)?)?;
        }
        done.end()
    }
}

/// Several documents are created together or not at all, as far as one can see beforehand.
fn checked(planned: Vec<Planned>, force: bool) -> anyhow::Result<Vec<Document>> {
    if !force && let Some(Planned { document, .. }) = planned.iter().find(|planned| planned.current.is_some()) {
        let Document { origin, resource } = document;
        bail!("{origin}: {} exists already; nothing was created (`create -f` replaces)", resource.reference());
    }
    Ok(planned.into_iter().map(|planned| planned.document).collect())
}

/// Tells what was done, as it is done: when a later one fails, the earlier ones stand. When nobody reads it any more, the
/// work goes on all the same.
pub(super) struct Done(Option<output::Items<crate::output::Stdout>>);

impl Done {
    pub(super) fn begin(context: &Context) -> Self {
        Self(match context.format {
            output::Format::Text => None,
            format => Some(output::Items::begin(crate::output::stdout(), format)),
        })
    }

    pub(super) fn push(&mut self, deed: &str, resource: Resource) -> anyhow::Result<()> {
        let told = match &mut self.0 {
            Some(items) => items.push(&resource.tree()).map_err(Into::into),
            None => output::line(&format!("{} {deed}", resource.reference())),
        };
        told.or_else(unless_unread)
    }

    pub(super) fn end(self) -> anyhow::Result<()> {
        Ok(self.0.map_or(Ok(()), output::Items::end)?)
    }
}

fn unless_unread(error: anyhow::Error) -> anyhow::Result<()> {
    if output::is_unread(&error) { Ok(()) } else { Err(error) }
}
