//! `joinctl edit`: a resource in the editor of one's choice.

use std::{env, fs, io::Write as _, path::Path};

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use tempfile::NamedTempFile;
use tokio::{
    process::Command,
    signal::unix::{SignalKind, signal},
};

use super::{GRANTED_FOR_GOOD, Kind, Reference, Resource, document, vain};
use crate::{cli::Context, exit::is_outcome_unknown, interrupt::interruptible, output};

/// What to edit.
#[derive(Args, Debug)]
#[command(after_long_help = "The editor is $VISUAL, else $EDITOR, else vi. A file that is left unchanged changes \
nothing. Somebody else's edit in the meantime is not overwritten: yours is refused (STALE_REVISION) and kept in a file whose name is told.")]
pub(crate) struct Edit {
    /// Such as token/example.
    #[arg(value_name = "KIND/NAME")]
    resource: Reference,
}

impl Edit {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let Self { resource: reference } = self;
        match reference.kind {
            Kind::BotInstance => bail!("bot_instance is read only: the authority writes it when a bot joins"),
            Kind::Exemption => {
                bail!(GRANTED_FOR_GOOD)
            }
            Kind::Bot | Kind::Token | Kind::Lock => {}
        }
        let client = context.connect().await?;
        let before = client.get(reference.kind, &reference.name, None).await?;
        let text = text(&before)?;

        // Only the user may read it: there may be a registration secret in it.
        let mut file = tempfile::Builder::new().prefix("joinctl-").suffix(".yaml").tempfile()?;
        file.write_all(text.as_bytes())?;
        edit(file.path()).await?;
        let edited = match fs::read_to_string(file.path()) {
            Ok(edited) => edited,
            Err(unreadable) => {
                keep(file)?;
                return Err(unreadable).context("cannot read the edited text again");
            }
        };

        let outcome = match changed(&text, &edited, &before) {
            Ok(None) => {
                output::say(format!("unchanged: {reference} stays as it is"));
                return output::print(context.format, &before.tree(), String::new);
            }
            // Not the editor's signal: a Ctrl-C that was typed into it is none of this.
            Ok(Some(after)) => {
                interruptible(client.upsert(after)).await.map_err(|error| may_be_saved(error, &reference))
            }
            Err(mistake) => Err(mistake),
        };
        match outcome {
            Ok(saved) => {
                output::print(context.format, &saved.tree(), || format!("{reference} saved\n"))?;
                vain::warn(&client, &saved).await
            }
            Err(refusal) => {
                keep(file)?;
                Err(refusal)
            }
        }
    }
}

/// The resource as it is edited: without `status`, which is the server's, and with the revision, so that an edit of
/// an outdated text is refused.
fn text(resource: &Resource) -> anyhow::Result<String> {
    let mut tree = resource.tree();
    if let Some(fields) = tree.as_mapping_mut() {
        fields.remove("status");
    }
    Ok(serde_yaml_ng::to_string(&tree)?)
}

/// What the edit makes of the resource; nothing when it says the same as before.
fn changed(text: &str, edited: &str, before: &Resource) -> anyhow::Result<Option<Resource>> {
    if edited == text {
        return Ok(None);
    }
    let [after] = <[_; 1]>::try_from(document::parse("the edited text", edited)?)
        .map_err(|found| anyhow!("the edited text must hold one resource, not {}", found.len()))?;
    let after = after.resource;
    if after.reference() != before.reference() {
        bail!("an edit can't turn {} into {}: kind and name stay", before.reference(), after.reference());
    }
    let unchanged = self::text(&after)? == text;
    Ok((!unchanged).then_some(after))
}

/// Says so where no answer tells that the edit was refused.
fn may_be_saved(error: anyhow::Error, reference: &Reference) -> anyhow::Error {
    if !is_outcome_unknown(&error) {
        return error;
    }
    error.context(format!("{reference} may be saved all the same: see `joinctl get {reference} --format yaml`"))
}

/// Runs the editor. Its Ctrl-C is not ours. However long it takes, the connection is kept alive meanwhile.
async fn edit(file: &Path) -> anyhow::Result<()> {
    let _caught = signal(SignalKind::interrupt())?;
    let named = |variable| env::var(variable).ok().filter(|command| !command.trim().is_empty());
    let editor = named("VISUAL").or_else(|| named("EDITOR")).unwrap_or_else(|| "vi".to_owned());
    // By the shell, as git and others do: an editor may come with arguments and quotes.
    let status = Command::new("sh")
        .args(["-c", &format!("{editor} \"$1\""), "sh"])
        .arg(file)
        .status()
        .await
        .with_context(|| format!("the editor {editor:?} can't be started"))?;
    if !status.success() {
        bail!("the editor {editor:?} failed ({status}); nothing was changed");
    }
    Ok(())
}

/// Keeps the edited text, so that no work is lost, and says where.
fn keep(file: NamedTempFile) -> anyhow::Result<()> {
    let (_, path) = file.keep().context("the edited text could not be kept")?;
    output::say(format!("your text is kept in {}", path.display()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interrupt::Interrupted;

    fn bot() -> Resource {
        let yaml = "{kind: bot, version: v1, metadata: {name: example, revision: r1}, spec: {roles: [a]}}";
        document::parse("x", yaml).unwrap().remove(0).resource
    }

    #[test]
    fn a_text_that_says_the_same_changes_nothing() {
        let before = text(&bot()).unwrap();
        assert!(!before.contains("status"));
        assert_eq!(changed(&before, &before, &bot()).unwrap(), None);
        let reformatted = format!("# a comment\n{before}\n");
        assert_eq!(changed(&before, &reformatted, &bot()).unwrap(), None);
    }

    #[test]
    fn a_change_carries_the_revision_it_was_made_on() {
        let before = text(&bot()).unwrap();
        let after = changed(&before, &before.replace("- a", "- b"), &bot()).unwrap().unwrap();
        assert_eq!(after.revision(), "r1");
        let Resource::Bot(after) = after else { panic!() };
        assert_eq!(after.spec.unwrap().roles, ["b"]);
    }

    #[test]
    fn an_edit_whose_answer_nobody_has_may_be_saved() {
        let told = |error: anyhow::Error| format!("{:#}", may_be_saved(error, &"bot/example".parse().unwrap()));
        let may_be = "bot/example may be saved all the same: see `joinctl get bot/example --format yaml`: ";
        assert_eq!(told(Interrupted.into()), format!("{may_be}interrupted before the answer came"));
        assert!(told(tonic::Status::unavailable("the database is away").into()).starts_with(may_be));
        assert!(!told(tonic::Status::aborted("its revision is outdated").into()).contains("may be"));
    }

    #[test]
    fn an_edit_can_neither_rename_nor_multiply() {
        let before = text(&bot()).unwrap();
        let renamed = changed(&before, &before.replace("example", "other"), &bot()).unwrap_err();
        assert_eq!(renamed.to_string(), "an edit can't turn bot/example into bot/other: kind and name stay");
        for edited in ["", &format!("{before}---\n{before}")] {
            assert!(changed(&before, edited, &bot()).unwrap_err().to_string().contains("one resource"));
        }
    }
}
