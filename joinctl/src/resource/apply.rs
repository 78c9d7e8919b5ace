//! `joinctl apply`: makes the authority's resources those of a directory, and shows what that changes.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use clap::Args;
use similar::TextDiff;

use super::{
    Kind, Resource,
    create::Done,
    document::{self, Document},
};
use crate::{cli::Context, connection::Client, output::printable, token};

/// Which directory, and whether to do it.
#[derive(Args, Debug)]
#[command(
    after_long_help = "The differences go to stderr and what was done to stdout; with --dry-run the differences \
go to stdout. Resources that stand in no file stay as they are.

Examples:
  joinctl apply -f resources/ --dry-run
  joinctl apply -f resources/"
)]
pub(crate) struct Apply {
    /// Directory with .yaml, .yml and .json files, or a file; - is stdin.
    #[arg(long = "file", short, value_name = "DIR", required = true)]
    files: Vec<PathBuf>,

    /// Show the differences, change nothing.
    #[arg(long)]
    dry_run: bool,
}

impl Apply {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let documents = document::read(&files_of(&self.files)?)?;
        let client = context.connect().await?;
        // All differences are seen, and all that can't be done is refused, before the first is sent.
        let mut changes = Vec::new();
        for document in documents {
            changes.extend(change(&client, document).await?);
        }
        if changes.is_empty() {
            eprintln!("nothing to change");
        }
        let diff: String = changes.iter().map(|change| printable(&change.diff)).collect();
        if self.dry_run {
            return Ok(io::stdout().write_all(diff.as_bytes())?);
        }
        eprint!("{diff}");
        let mut done = Done::begin(context);
        for Change { document: Document { origin, resource }, is_new, .. } in changes {
            let (outcome, deed) = if is_new {
                (client.create(resource).await, "created")
            } else {
                (client.upsert(resource).await, "saved")
            };
            done.push(deed, outcome.context(origin)?)?;
        }
        done.end()
    }
}

/// The files themselves, and those of the directories, in the order of their names.
fn files_of(paths: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let entries = fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut found = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
        found.retain(|file| file.is_file() && is_resource_file(file));
        if found.is_empty() {
            bail!("no .yaml, .yml or .json file in {}", path.display());
        }
        found.sort();
        files.extend(found);
    }
    Ok(files)
}

fn is_resource_file(file: &Path) -> bool {
    file.extension().is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|it| extension == *it))
}

/// A document that differs from what the authority has.
struct Change {
    document: Document,
    is_new: bool,
    diff: String,
}

async fn change(client: &Client, document: Document) -> anyhow::Result<Option<Change>> {
    let Document { origin, mut resource } = document;
    if resource.name().is_empty() {
        bail!(
            "{origin}: metadata.name: missing; `apply` needs it, or each time would make another {}",
            resource.kind()
        );
    }
    let reference = resource.reference();
    let current = client.find(reference.kind, &reference.name).await?;
    let old = current.as_ref().map(comparable).transpose()?.unwrap_or_default();
    let new = comparable(&with_what_is_left_out(&resource, current.as_ref()))?;
    if old == new {
        return Ok(None);
    }
    if let Some(current) = &current {
        if reference.kind == Kind::Exemption {
            bail!(
                "{origin}: {reference} is granted already and can't be changed: \
                 `joinctl rm {reference}`, then grant another"
            );
        }
        // What was compared is what is replaced.
        if resource.revision().is_empty() {
            resource.metadata_mut().revision = current.revision().to_owned();
        }
    }
    let from = if current.is_some() { format!("{reference} (now)") } else { "/dev/null".to_owned() };
    let diff = TextDiff::from_lines(&old, &new);
    let diff = diff.unified_diff().header(&from, &format!("{reference} ({origin})")).to_string();
    Ok(Some(Change { document: Document { origin, resource }, is_new: current.is_none(), diff }))
}

/// What can be compared: neither status nor revision, which are the server's; secrets by the fact that they are there.
fn comparable(resource: &Resource) -> anyhow::Result<String> {
    let mut resource = resource.clone();
    resource.metadata_mut().revision.clear();
    if let Some(secret) = secret_mut(&mut resource)
        && !secret.is_empty()
        && secret != NEW_SECRET
    {
        *secret = "(kept)".to_owned();
    }
    let mut tree = resource.tree();
    if let Some(fields) = tree.as_mapping_mut() {
        fields.remove("status");
    }
    Ok(serde_yaml_ng::to_string(&tree)?)
}

/// What a difference shows in place of a secret that the authority does not have yet.
const NEW_SECRET: &str = "(new)";

/// The resource as the authority will keep it: with its defaults, and with what stays because it is left out.
fn with_what_is_left_out(wanted: &Resource, current: Option<&Resource>) -> Resource {
    let mut filled = wanted.clone();
    match &mut filled {
        Resource::Token(token) => {
            let settings = token.spec.get_or_insert_default().bound_keypair.get_or_insert_default();
            settings.onboarding.get_or_insert_default();
            let recovery = settings.recovery.get_or_insert_default();
            recovery.mode.get_or_insert_with(|| "standard".to_owned());
            recovery.limit.get_or_insert(1);
        }
        Resource::Exemption(exemption) => {
            let spec = exemption.spec.get_or_insert_default();
            spec.count = spec.count.max(1);
            spec.uses = spec.uses.max(1);
            // The authority sets an end when there is none.
            let current_end = current.and_then(Resource::metadata).and_then(|metadata| metadata.expires);
            let end = &mut exemption.metadata.get_or_insert_default().expires;
            *end = end.or(current_end);
        }
        Resource::Bot(_) | Resource::Lock(_) | Resource::BotInstance(_) => {}
    }
    let mut current = current.cloned();
    let spent = current.as_ref().is_some_and(is_bound);
    let shown = match &current {
        Some(Resource::Token(token)) => token::waiting_secret(token).unwrap_or_default().to_owned(),
        _ => String::new(),
    };
    let kept = current.as_mut().and_then(secret_mut).cloned().unwrap_or_default();
    if let Some(secret) = secret_mut(&mut filled) {
        // After the first join, onboarding is no longer looked at.
        if secret.is_empty() || spent || *secret == kept || *secret == shown {
            *secret = kept;
        } else {
            *secret = NEW_SECRET.to_owned();
        }
    }
    filled
}

fn secret_mut(resource: &mut Resource) -> Option<&mut String> {
    let Resource::Token(token) = resource else {
        return None;
    };
    Some(&mut token.spec.as_mut()?.bound_keypair.as_mut()?.onboarding.as_mut()?.registration_secret)
}

fn is_bound(resource: &Resource) -> bool {
    let Resource::Token(token) = resource else {
        return false;
    };
    let status = token.status.as_ref().and_then(|status| status.bound_keypair.as_ref());
    status.is_some_and(|status| !status.bound_public_key.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(yaml: &str) -> Resource {
        document::parse("x", yaml).unwrap().remove(0).resource
    }

    fn token(bound_keypair: &str) -> Resource {
        read(&format!(
            "{{kind: token, version: v2, metadata: {{name: example}}, spec: {{bot_name: example, \
             bound_keypair: {bound_keypair}}}}}"
        ))
    }

    fn differ(wanted: &Resource, current: &Resource) -> bool {
        comparable(&with_what_is_left_out(wanted, Some(current))).unwrap() != comparable(current).unwrap()
    }

    /// The token as the authority shows it while its secret waits.
    fn waiting(secret: &str) -> Resource {
        let mut current = token("{onboarding: {}, recovery: {mode: standard, limit: 1}}");
        current.metadata_mut().revision = "7".into();
        let Resource::Token(inner) = &mut current else { panic!() };
        let status = inner.status.get_or_insert_default().bound_keypair.get_or_insert_default();
        status.registration_secret = secret.into();
        current
    }

    #[test]
    fn defaults_and_status_and_revision_are_no_difference() {
        assert!(!differ(&token("{}"), &waiting("s3cret")));
        assert!(!differ(&token("{onboarding: {registration_secret: s3cret}}"), &waiting("s3cret")));
        assert!(differ(&token("{recovery: {limit: 2}}"), &waiting("s3cret")));
    }

    #[test]
    fn another_secret_is_a_difference_that_shows_no_secret() {
        let wanted = token("{onboarding: {registration_secret: another}}");
        assert!(differ(&wanted, &waiting("s3cret")));
        let shown = comparable(&with_what_is_left_out(&wanted, Some(&waiting("s3cret")))).unwrap();
        assert!(shown.contains(NEW_SECRET) && !shown.contains("another"), "{shown}");
    }

    #[test]
    fn a_spent_secret_in_a_file_is_no_difference() {
        let mut current = waiting("");
        let Resource::Token(inner) = &mut current else { panic!() };
        let status = inner.status.get_or_insert_default().bound_keypair.get_or_insert_default();
        status.bound_public_key = "ssh-ed25519 AAAA".into();
        assert!(!differ(&token("{onboarding: {registration_secret: s3cret}}"), &current));
    }

    #[test]
    fn a_directory_gives_its_resource_files_in_order() {
        let folder = tempfile::tempdir().unwrap();
        assert!(files_of(&[folder.path().into()]).unwrap_err().to_string().starts_with("no .yaml"));
        for name in ["b.yaml", "a.yml", "c.json", "README.md"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let names: Vec<_> = files_of(&[folder.path().into()])
            .unwrap()
            .iter()
            .map(|file| file.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        assert_eq!(names, ["a.yml", "b.yaml", "c.json"]);
    }
}
