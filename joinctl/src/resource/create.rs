//! `joinctl create`: resources out of files.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;

use super::{
    Kind, Reference,
    document::{self, Document},
    plan::{Planned, plan, refuse_ended},
    writer::Writer,
};
use crate::cli::Context;

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
        let mut writer = Writer::begin(&client, context);
        for document in documents {
            let Reference { kind, name } = document.resource.reference();
            let replaces = self.force && kind != Kind::Exemption && !name.is_empty();
            writer.write(document, replaces, go_on).await?;
        }
        writer.end()
    }
}

/// Unlike `apply`, this does not look by itself.
fn go_on(Reference { kind, name }: &Reference) -> String {
    if name.is_empty() {
        format!("`joinctl get {kind}` shows what is; a repeat may make another")
    } else {
        format!("`joinctl get {kind}/{name}` tells; `joinctl create -f` goes on, and replaces what exists")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_name_can_be_looked_at_and_replaced() {
        let told = go_on(&"bot/web".parse().unwrap());
        assert_eq!(told, "`joinctl get bot/web` tells; `joinctl create -f` goes on, and replaces what exists");
        let told = go_on(&Reference { kind: Kind::Lock, name: String::new() });
        assert_eq!(told, "`joinctl get lock` shows what is; a repeat may make another");
    }
}
