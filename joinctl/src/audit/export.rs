//! `joinctl audit export`: the ledger in a directory, to be kept elsewhere and verified offline.

use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::ProgressBar;
use join_log::tile::{FULL, Layer, Tile};
use join_proto::v1::{self, ExportRequest, ExportViewsRequest};
use tonic::Status;

use super::{
    archive::Archive,
    progress,
    sealed::{self, Sealed},
};
use crate::{
    cli::Context,
    connection::Client,
    exit::Fault,
    output::{self, tree::mapping},
};

/// Where to.
#[derive(Args, Debug)]
#[command(after_long_help = "What was exported before is kept: the same command goes on after an interruption, and \
later adds what is new.

Entries that were there when it began and that the log does not seal within 20 s are left out: the result says how many, as \
`unsealed`.

Examples:
  joinctl audit export --out ledger/
  joinctl audit verify --from ledger/")]
pub(super) struct Export {
    /// Directory, made when it is not there.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

impl Export {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let client = context.connect().await?;
        let Exported { entries, unsealed } = download(&client, &self.out).await?;
        let directory = self.out.display().to_string();
        let done = mapping([
            ("entries", entries.into()),
            ("unsealed", unsealed.into()),
            ("directory", directory.as_str().into()),
        ]);
        let text = || match unsealed {
            0 => format!("{entries} entries in {directory}\n"),
            _ => format!("{entries} entries in {directory}, without {unsealed} that are not sealed yet\n"),
        };
        output::print(context.format, &done, text)?;
        if unsealed > 0 {
            output::say(
                "note: this is not all: the same command adds the rest once the log has sealed it (alarm log_stalled)",
            );
        }
        Ok(())
    }
}

/// What an export got.
pub(super) struct Exported {
    /// How many entries it holds.
    pub(super) entries: u64,
    /// How many were there when it began, and are left out, as the log did not seal them in time.
    pub(super) unsealed: u64,
}

/// Brings the export up to the log's newest checkpoint. Memory does not grow with the log.
pub(super) async fn download(client: &Client, directory: &Path) -> anyhow::Result<Exported> {
    let log_key = client.ca().await?.log_key;
    let status = client.status().await?;
    let has_alarm = |name: &str| status.alarms.iter().any(|alarm| alarm == name);
    if has_alarm("log_misconfigured") {
        let what = "this node is set up for another log (its alarm log_misconfigured stands; its log says which)";
        return Err(Status::unavailable(format!("{what}: ask another node")).into());
    }
    if has_alarm("log_rollback") {
        anyhow::bail!(Fault(
            "the authority lost history (its alarm log_rollback stands): nothing is exported".to_owned()
        ));
    }
    // What was done a moment ago waits for its place in the log, and belongs to it.
    let wanted = status.log_next_index.saturating_add(status.unsequenced);
    let checkpoint = sealed::checkpoint(client, wanted).await?;
    // Asked again, for what was appended meanwhile may be sealed as well. The log only grows, so it must hold all of that.
    let status = client.status().await?;
    let mut archive = Archive::open(directory, &log_key)?;
    must_go_on(client, &archive, &checkpoint, &status).await?;
    let bar = progress::bar("exporting entries", Some(checkpoint.size));
    bar.set_position(archive.next());
    entries(client, &mut archive, checkpoint.size, &bar).await?;
    views(client, &mut archive, checkpoint.size).await?;
    for tile in tiles(checkpoint.size) {
        fetch(client, &archive, tile, checkpoint.size).await?;
    }
    bar.finish_and_clear();
    archive.seal(&checkpoint.note.to_string())?;
    Ok(Exported { entries: checkpoint.size, unsealed: wanted.saturating_sub(checkpoint.size) })
}

/// The log must hold all that was exported before, unchanged: otherwise what is kept is the better history, and stays as it
/// is.
async fn must_go_on(client: &Client, archive: &Archive, newest: &Sealed, status: &v1::Status) -> anyhow::Result<()> {
    let (sealed, size) = (archive.sealed()?, newest.size);
    must_be_there(archive.next().max(sealed), size, status)?;
    // A tree's right edge tells it from every other of its size.
    for edge in Layer::of(sealed).filter(|layer| *layer != Layer::Entries).filter_map(|layer| layer.partial(sealed)) {
        let Some(before) = archive.read(&edge.to_string())? else { continue };
        let slots = edge.layer.slots(size) - edge.index * u64::from(FULL);
        let tile = Tile { width: u16::try_from(slots).map_or(FULL, |slots| slots.min(FULL)), ..edge };
        let (_, now) = sealed::tile(client, tile, size).await?;
        if !now.starts_with(&before) {
            anyhow::bail!(Fault(format!(
                "the log no longer begins with the {sealed} entries that are kept here: it has two histories, and the \
                 checkpoint here is the proof; keep it as it is, and export to another directory"
            )));
        }
    }
    Ok(())
}

/// What is kept, and what the node's newest checkpoint seals, are in the log. `status` was asked for after that.
fn must_be_there(kept: u64, size: u64, status: &v1::Status) -> anyhow::Result<()> {
    let (entries, signed) = (status.log_next_index, status.log_signed);
    if entries < size {
        let what = format!("the authority has {entries} entries, and its checkpoint seals {size}");
        anyhow::bail!(Fault(format!("{what}: it lost history")));
    }
    if kept <= size {
        return Ok(());
    }
    let what = format!("{kept} entries are kept here, and the newest checkpoint seals {size} only");
    // The database knows of checkpoints that other nodes signed.
    if kept <= entries.min(signed) {
        let what = format!("{what}, though the log has one of {signed}: this node lags behind");
        return Err(Status::unavailable(format!("{what}; ask another node, or try again later")).into());
    }
    anyhow::bail!(Fault(format!("{what}: the authority lost history")));
}

async fn entries(client: &Client, archive: &mut Archive, size: u64, bar: &ProgressBar) -> anyhow::Result<()> {
    if archive.next() == size {
        return Ok(());
    }
    let chunks = client.ledger().export(ExportRequest { from_index: archive.next() }).await;
    let mut chunks = chunks.map_err(sealed::unreadable)?.into_inner();
    while archive.next() < size {
        let Some(chunk) = chunks.message().await.map_err(sealed::unreadable)? else {
            let what = format!("the export was cut off after {} entries; the same command goes on", archive.next());
            return Err(Status::unavailable(what).into());
        };
        for entry in chunk.entries.iter().take_while(|entry| entry.log_index < size) {
            archive.append(entry)?;
        }
        bar.set_position(archive.next());
        if chunk.end.is_some() && archive.next() < size {
            let what = format!("the authority has {} entries, and its checkpoint seals {size}", archive.next());
            anyhow::bail!(Fault(what));
        }
    }
    Ok(())
}

/// What the authority claims of each stream, for the auditor to compare with what follows from the entries.
async fn views(client: &Client, archive: &mut Archive, size: u64) -> anyhow::Result<()> {
    let chunks = client.ledger().export_views(ExportViewsRequest { size }).await.map_err(sealed::unreadable)?;
    let (mut chunks, mut claims, mut count) = (chunks.into_inner(), archive.claims()?, 0);
    while let Some(chunk) = chunks.message().await.map_err(sealed::unreadable)? {
        chunk.views.iter().try_for_each(|view| claims.add(view))?;
        count += chunk.views.len() as u64;
        if chunk.end == Some(count) {
            return archive.claim(claims);
        }
    }
    Err(Status::unavailable("the states were cut off; the same command goes on").into())
}

/// The hash tiles of a log of `size` entries.
fn tiles(size: u64) -> impl Iterator<Item = Tile> {
    Layer::of(size).filter(|layer| *layer != Layer::Entries).flat_map(move |layer| {
        let full = layer.slots(size) / u64::from(FULL);
        (0..full).map(move |index| Tile { layer, index, width: FULL }).chain(layer.partial(size))
    })
}

/// Fetches a tile that is not there yet.
async fn fetch(client: &Client, archive: &Archive, tile: Tile, size: u64) -> anyhow::Result<()> {
    if [tile, tile.full()].iter().any(|tile| archive.has(&tile.to_string())) {
        return Ok(());
    }
    let (name, bytes) = sealed::tile(client, tile, size).await?;
    archive.put(&name, &bytes)
}

#[cfg(test)]
mod tests {
    use join_proto::v1;
    use tonic::Code;

    use super::{must_be_there, tiles};
    use crate::exit::Fault;

    fn checked(kept: u64, size: u64, (log_next_index, log_signed): (u64, u64)) -> anyhow::Result<()> {
        must_be_there(kept, size, &v1::Status { log_next_index, log_signed, ..Default::default() })
    }

    #[test]
    fn a_log_that_goes_on_is_no_fault() {
        for (kept, size, log) in [(0, 0, (0, 0)), (9, 9, (9, 9)), (5, 9, (12, 9)), (9, 9, (12, 12))] {
            checked(kept, size, log).unwrap();
        }
    }

    #[test]
    fn a_log_that_ends_before_what_was_sealed_lost_history() {
        for (kept, size, log) in [(10, 9, (9, 9)), (10, 9, (12, 9)), (0, 9, (8, 9)), (10, 9, (9, 10)), (10, 9, (8, 10))]
        {
            assert!(checked(kept, size, log).unwrap_err().is::<Fault>(), "{kept} {size} {log:?}");
        }
    }

    #[test]
    fn a_node_whose_log_lags_behind_another_is_no_fault_of_the_authority() {
        let error = checked(10, 9, (12, 10)).unwrap_err();
        let status: &tonic::Status = error.downcast_ref().unwrap();
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.message().contains("this node lags behind; ask another node"), "{status}");
    }

    #[test]
    fn every_tile_of_a_log_is_named() {
        let names = |size| tiles(size).map(|tile| tile.to_string()).collect::<Vec<_>>();
        assert!(names(0).is_empty());
        assert_eq!(names(3), ["tile/0/000.p/3"]);
        assert_eq!(names(300), ["tile/0/000", "tile/0/001.p/44", "tile/1/000.p/1"]);
        // The counts of full and partial tiles of 70 000 entries.
        let many = names(70_000);
        assert_eq!(many.len(), 273 + 1 + 1 + 1 + 1);
        assert!(many.contains(&"tile/0/273.p/112".to_owned()) && many.contains(&"tile/1/001.p/17".to_owned()));
        assert_eq!(many.last().map(String::as_str), Some("tile/2/000.p/1"));
    }
}
