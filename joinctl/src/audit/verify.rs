//! `joinctl audit verify`: whether the ledger is what it was, and what follows from it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use join_audit::{AuditError, Fault as Kind, Finding, Policy, Progress, Report, Step};
use join_proto::v1::{Empty, ViewsReport};
use serde_yaml_ng::{Mapping, Value};

use super::{export, progress, proof, sealed, temporary, trust::Trust};
use crate::{
    cli::Context,
    connection::walk,
    exit::Fault,
    output::{print, printable, tree},
};

/// What to verify, and against which keys.
#[derive(Args, Debug)]
#[command(after_long_help = "Checked are signatures and cosignatures of the checkpoint, that it seals exactly these \
entries in this order, that every stream's versions are 1, 2, 3, …, that the rules allowed each accepted join, and that \
the state which the authority shows of tokens, bots and locks follows from the entries. \
The code shares with the writer what events and states are, and nothing else. Exit code 3: something is wrong. Exit code 2: \
the authority could not be asked, or its log did not seal within 20 s all that was there when this began, which was not \
verified then.

Without --from and --proof the ledger is copied into a temporary directory, which is gone afterwards: it needs the room of \
an export (about 2 KB for each join), and TMPDIR says where. With --policy, --from and --proof ask no server.

Examples:
  joinctl audit verify
  joinctl audit verify --from ledger/ --policy auditors.policy
  joinctl audit verify --from ledger/ --trusted last-year/checkpoint
  joinctl audit verify --proof event.tlog-proof --policy auditors.policy")]
pub(super) struct Verify {
    /// Verify an export, offline, instead of what the authority has now.
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,

    /// Verify the proof of one event, as `audit prove` makes it; offline with --policy.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "trusted"])]
    proof: Option<PathBuf>,

    /// A checkpoint that was kept: the log must still begin with what it sealed. An export that grew keeps its own in
    /// DIR/checkpoints, and is compared with them as well.
    #[arg(long, value_name = "FILE")]
    trusted: Option<PathBuf>,

    #[command(flatten)]
    trust: Trust,
}

impl Verify {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        if let Some(file) = &self.proof {
            return proof::verify(context, file, &self.trust).await;
        }
        let trusted = self.trusted.as_deref().map(read).transpose()?;
        if let Some(directory) = self.from {
            let policy = self.trust.or_of_export(&directory)?;
            let report = audit(directory, policy, trusted).await?;
            return Verdict { report, views: None, unsealed: 0 }.end(context);
        }
        let client = context.connect().await?;
        let policy = self.trust.or_of_authority(&client).await?;
        temporary::within(async |directory| {
            let unsealed = export::download(&client, directory).await?.unsealed;
            let report = audit(directory.to_owned(), policy, trusted).await?;
            // What was found stands, whatever becomes of the authority meanwhile.
            match client.cluster().verify_views(walk(Empty {})).await {
                Ok(views) => Verdict { report, views: Some(views.into_inner()), unsealed }.end(context),
                Err(status) => {
                    let why = sealed::unreadable(status);
                    if !why.is::<Fault>() {
                        Verdict { report, views: None, unsealed }.end(context)?;
                        return Err(why);
                    }
                    let views = ViewsReport { differences: vec![why.to_string()], ..ViewsReport::default() };
                    Verdict { report, views: Some(views), unsealed }.end(context)
                }
            }
        })
        .await
    }
}

fn read(file: &Path) -> anyhow::Result<String> {
    super::read_text(file).with_context(|| format!("cannot read {}", file.display()))
}

/// Audits an export on a thread of its own: the connection stays alive meanwhile.
async fn audit(directory: PathBuf, policy: Policy, trusted: Option<String>) -> anyhow::Result<Report> {
    let audit = move || {
        let mut bar = None;
        let mut show = |Progress { step, done, total }: Progress| {
            let (shown, bar) = bar.get_or_insert_with(|| (step, begin(step, total)));
            if *shown != step {
                bar.finish_and_clear();
                (*shown, *bar) = (step, begin(step, total));
            }
            bar.set_position(done);
        };
        let report = join_audit::verify(&directory, &policy, trusted.as_deref(), &mut show);
        if let Some((_, bar)) = bar {
            bar.finish_and_clear();
        }
        report
    };
    let report: Result<Report, AuditError> = tokio::task::spawn_blocking(audit).await?;
    Ok(report?)
}

fn begin(step: Step, total: Option<u64>) -> indicatif::ProgressBar {
    let what = match step {
        Step::Entries => "verifying entries",
        Step::Views => "comparing views",
    };
    progress::bar(what, total)
}

/// What was found, by the audit here and by the authority itself.
struct Verdict {
    report: Report,
    views: Option<ViewsReport>,
    /// Entries that were there when it began, and that no checkpoint seals yet: of them nothing is known.
    unsealed: u64,
}

impl Verdict {
    fn end(self, context: &Context) -> anyhow::Result<()> {
        let printed = print(context.format, &self.tree()?, || self.text());
        let differences = self.views.iter().flat_map(|views| &views.differences);
        let mut wrong = self.report.first_fault().map(ToString::to_string).into_iter().chain(differences.cloned());
        match (wrong.next(), self.report.findings.first()) {
            (Some(first), _) => Err(Fault(format!("the ledger is not what it should be: {first}")).into()),
            (None, Some(newer)) => bail!("this version can't judge all of it: {newer}; verify with a newer joinctl"),
            (None, None) if self.unsealed == 0 => printed,
            (None, None) => {
                printed?;
                let what = format!("{} entries are not sealed, and not verified", self.unsealed);
                Err(sealed::not_in_time(&what))
            }
        }
    }

    fn tree(&self) -> anyhow::Result<Value> {
        let mut tree = Mapping::new();
        tree.insert("report".into(), serde_yaml_ng::to_value(&self.report)?);
        tree.insert("unsealed".into(), self.unsealed.into());
        tree.insert("authority_views".into(), self.views.as_ref().map_or(Value::Null, tree::of));
        Ok(tree.into())
    }

    fn text(&self) -> String {
        let Report { entries, events, streams, views, tiles, checkpoint, findings } = &self.report;
        let mut lines = vec![format!("entries      {entries}, with {events} events in {streams} streams")];
        lines.push(match checkpoint {
            Some(checkpoint) => format!("checkpoint   {} of {} entries", checkpoint.origin, checkpoint.size),
            None => "checkpoint   none that is signed by a known log".to_owned(),
        });
        lines.push(format!("tiles        {}", if *tiles { "compared" } else { "none to compare with" }));
        if let Some(views) = views {
            lines.push(format!("views        {views} compared"));
        }
        if let Some(views) = &self.views {
            lines.push(format!("authority    {} streams compared with its views", views.streams_checked));
            lines.extend(views.differences.iter().map(|what| format!("WRONG        {what}")));
        }
        let label = |finding: &Finding| if finding.fault == Kind::Newer { "UNKNOWN" } else { "WRONG" };
        lines.extend(findings.iter().map(|finding| format!("{:<13}{finding}", label(finding))));
        let is_clean = findings.is_empty() && self.views.iter().all(|views| views.differences.is_empty());
        match (is_clean, self.unsealed) {
            (false, 0) => {}
            (true, 0) => lines.push("verified     nothing is missing, changed or out of order".to_owned()),
            (_, unsealed) => lines.push(format!("NOT VERIFIED {unsealed} entries that are not sealed yet")),
        }
        lines.iter().map(|line| printable(line).replace('\n', " ") + "\n").collect()
    }
}
