//! `joinctl apply`: makes the authority's resources those of a directory, and shows what that changes.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use clap::Args;
use join_domain::{
    key::PublicKey,
    resource::{LockTarget, Recovery},
};
use join_proto::v1;
use join_resource::lock_target;
use similar::TextDiff;

use super::{
    Kind, Reference, Resource,
    document::{self, Document},
    plan::{Planned, plan, refuse_ended},
    writer::Writer,
};
use crate::{
    cli::Context,
    output::{printable, say},
    token,
};

/// Which directory, and whether to do it.
#[derive(Args, Debug)]
#[command(
    after_long_help = "The differences go to stderr and what was done to stdout; with --dry-run the differences \
go to stdout. Resources that stand in no file stay as they are. All that can be checked is checked before the first \
change, by --dry-run too. Exemptions are granted once, by `joinctl exempt`, and are no matter of `apply`.

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
        documents.iter().try_for_each(refuse_what_is_made_once)?;
        let client = context.connect().await?;
        // All differences are seen, and all that can't be done is refused, before the first is sent.
        let mut changes = Vec::new();
        for planned in plan(&client, documents).await? {
            changes.extend(change(planned)?);
        }
        refuse_ended(&client, changes.iter().map(|change| &change.document)).await?;
        if changes.is_empty() {
            say("nothing to change");
        }
        let diff: String = changes.iter().map(|change| printable(&change.diff)).collect();
        if self.dry_run {
            return Ok(crate::output::stdout().write_all(diff.as_bytes())?);
        }
        if !diff.is_empty() {
            say(diff.trim_end_matches('\n'));
        }
        let mut writer = Writer::begin(&client, context);
        for Change { document, is_new, .. } in changes {
            writer.write(document, !is_new, go_on).await?;
        }
        writer.end()
    }
}

/// Unlike what is granted, what is applied may be repeated.
fn go_on(_: &Reference) -> String {
    "the same `joinctl apply` looks, and does what is left".to_owned()
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

/// `apply` may be repeated; what each time would make another of is not for it.
fn refuse_what_is_made_once(document: &Document) -> anyhow::Result<()> {
    let Document { origin, resource } = document;
    if resource.kind() == Kind::Exemption {
        bail!(
            "{origin}: kind: an exemption can't be applied: each time would grant again; \
             grant it once, with `joinctl exempt`"
        );
    }
    if resource.name().is_empty() {
        bail!(
            "{origin}: metadata.name: missing; `apply` needs it, or each time would make another {}",
            resource.kind()
        );
    }
    Ok(())
}

fn change(planned: Planned) -> anyhow::Result<Option<Change>> {
    let Planned { document: Document { origin, mut resource }, current } = planned;
    let reference = resource.reference();
    let old = current.as_ref().map(comparable).transpose()?.unwrap_or_default();
    let new = comparable(&with_what_is_left_out(&resource, current.as_ref()))?;
    if old == new {
        return Ok(None);
    }
    // What was compared is what is replaced.
    if let Some(current) = current.as_ref().filter(|_| resource.revision().is_empty()) {
        resource.metadata_mut().revision = current.revision().to_owned();
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
            let recovery = settings.recovery.get_or_insert_default();
            let Recovery { mode, limit } = Recovery::default();
            recovery.mode.get_or_insert_with(|| mode.as_str().to_owned());
            recovery.limit.get_or_insert(limit);
            let onboarding = settings.onboarding.get_or_insert_default();
            // A key is kept without its comment.
            if let Ok(key) = PublicKey::from_authorized_key(onboarding.initial_public_key.as_bytes()) {
                onboarding.initial_public_key = key.to_authorized_key();
            }
        }
        Resource::Lock(lock) => {
            if let Ok(LockTarget::PublicKey(fingerprint)) = lock_target(lock.spec.as_ref()) {
                let target = lock.spec.get_or_insert_default().target.get_or_insert_default();
                target.public_key = fingerprint;
            }
        }
        Resource::Bot(_) | Resource::Exemption(_) | Resource::BotInstance(_) => {}
    }
    let mut current = current.cloned();
    let spent = matches!(&current, Some(Resource::Token(token)) if token::is_bound(token));
    let shown = match &current {
        Some(Resource::Token(token)) => token::waiting_secret(token).unwrap_or_default().to_owned(),
        _ => String::new(),
    };
    if let (Resource::Token(token), Some(Resource::Token(current))) = (&mut filled, &current)
        && spent
    {
        keep_onboarding(token, current);
    }
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

/// While a key is bound, onboarding is no longer looked at; another bot or other roles are a new binding.
fn keep_onboarding(token: &mut v1::Token, current: &v1::Token) {
    let (Some(spec), Some(current)) = (&mut token.spec, &current.spec) else { return };
    let (Some(settings), Some(stored)) = (&mut spec.bound_keypair, &current.bound_keypair) else { return };
    let (Some(onboarding), Some(stored)) = (&mut settings.onboarding, &stored.onboarding) else { return };
    if spec.bot_name == current.bot_name && spec.roles == current.roles {
        onboarding.initial_public_key.clone_from(&stored.initial_public_key);
        onboarding.must_register_before = stored.must_register_before;
    }
}

fn secret_mut(resource: &mut Resource) -> Option<&mut String> {
    let Resource::Token(token) = resource else {
        return None;
    };
    Some(&mut token.spec.as_mut()?.bound_keypair.as_mut()?.onboarding.as_mut()?.registration_secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(yaml: &str) -> Resource {
        document::parse("x", yaml).unwrap().remove(0).resource
    }

    fn token(bound_keypair: &str) -> Resource {
        read(&format!(
            "{{kind: token, version: v2, metadata: {{name: example}}, spec: {{roles: [Bot], bot_name: example, \
             join_method: bound_keypair, bound_keypair: {bound_keypair}}}}}"
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
    fn a_key_differs_neither_by_its_comment_nor_by_its_form() {
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFi1AGLjk14Nr+eEm4PJbOG5yiYj+eEAsrZDo6l0y8d+";
        let preregistered = |key: &str| token(&format!("{{onboarding: {{initial_public_key: {key}}}}}"));
        let current = with_what_is_left_out(&preregistered(key), None);
        assert!(!differ(&preregistered(&format!("{key} host")), &current));

        let lock = |key: &str| read(&format!("{{kind: lock, version: v2, spec: {{target: {{public_key: '{key}'}}}}}}"));
        let fingerprint = PublicKey::from_authorized_key(key.as_bytes()).unwrap().fingerprint();
        assert!(!differ(&lock(key), &lock(&fingerprint)));
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
