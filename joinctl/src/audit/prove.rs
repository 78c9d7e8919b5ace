//! `joinctl audit prove`: a text that convinces others that an event stands in the ledger.

use std::{
    cell::RefCell,
    collections::HashMap,
    io,
    str::FromStr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use clap::Args;
use join_log::{Hash, Tile, TileReader, portable, tile::hashes_from_bytes};
use join_proto::v1::{Event, ExportRequest, ListEventsRequest};

use super::{
    ls, proof,
    sealed::{self, Sealed},
    trust,
};
use crate::{
    cli::Context,
    connection::{Client, PAGE_SIZE},
    exit::Fault,
    output::{print, tree},
};

/// How long an event may wait for its place in the log.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(500);

/// Which event.
#[derive(Args, Debug)]
#[command(after_long_help = "The proof holds the entry (line `extra`), its path to a checkpoint, and the signed \
checkpoint. Whoever has the log's key in a policy file can check it offline, with `joinctl audit verify --proof FILE --policy \
FILE` or any tool that reads c2sp.org/tlog-proof. Exit code 2: the log did not seal the entry within 20 s, or the authority \
could not be asked.

Examples:
  joinctl audit prove 17 > event.tlog-proof
  joinctl audit prove token/example/12 > event.tlog-proof
  joinctl audit verify --proof event.tlog-proof --policy auditors.policy")]
pub(super) struct Prove {
    /// Log index, or token/NAME/VERSION, as `audit ls` shows them.
    event: Wanted,
}

#[derive(Clone, Debug, PartialEq)]
enum Wanted {
    Index(u64),
    OfToken { name: String, version: u64 },
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(index) = text.parse() {
            return Ok(Self::Index(index));
        }
        let of_token = || {
            let (name, version) = text.strip_prefix("token/")?.rsplit_once('/')?;
            Some(Self::OfToken { name: name.to_owned(), version: version.parse().ok()? })
        };
        of_token().ok_or_else(|| "a log index such as 17 is wanted, or token/NAME/VERSION".to_owned())
    }
}

impl Prove {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let client = context.connect().await?;
        let index = match self.event {
            Wanted::Index(index) => index,
            Wanted::OfToken { name, version } => index_of(&client, &name, version).await?,
        };
        let log = client.status().await?;
        if index >= log.log_next_index.saturating_add(log.unsequenced) {
            bail!("there is no entry {index}: the log has {}", log.log_next_index);
        }
        let checkpoint = sealed::checkpoint(&client, index.saturating_add(1)).await?;
        if index >= checkpoint.size {
            let what = format!("entry {index} is not sealed: the newest checkpoint has {} entries", checkpoint.size);
            return Err(sealed::not_in_time(&what));
        }
        let envelope = entry(&client, index).await?;
        let text = prove(&client, &checkpoint, index, &envelope).await?;
        // Nobody is handed a proof that does not hold.
        let (_, proven) = proof::check(&text, &trust::of_authority(&client).await?)?;

        let tree = tree::mapping([
            ("log_index", proven.index.into()),
            ("envelope", envelope.into()),
            ("proof", text.clone().into()),
        ]);
        print(context.format, &tree, || text)
    }
}

/// The log index of a token's event. One that was just recorded is listed once it has its place in the log, which is
/// waited for a while.
async fn index_of(client: &Client, token: &str, version: u64) -> anyhow::Result<u64> {
    let begun = Instant::now();
    loop {
        // Asked before the search: what waits now is what it may not find.
        let some_wait = client.status().await?.unsequenced > 0;
        match find(client, token, version).await?.as_slice() {
            [] if some_wait && begun.elapsed() < PATIENCE => tokio::time::sleep(PAUSE).await,
            // A namesake's may be on its way, if not for long: something always is where many join.
            [_] if some_wait && begun.elapsed() < 2 * PAUSE => tokio::time::sleep(PAUSE).await,
            [index] => return Ok(*index),
            [] => bail!("there is no event token/{token}/{version}; see `joinctl audit ls --token {token}`"),
            several => {
                let several: Vec<_> = several.iter().map(|index| format!("`joinctl audit prove {index}`")).collect();
                bail!(
                    "{} tokens had the name {token}, one after the other, each with an event {version}: say which, \
                     oldest first: {}",
                    several.len(),
                    several.join(" or ")
                )
            }
        }
    }
}

/// The log indices of the events of that version, of the token and its namesakes, oldest first.
async fn find(client: &Client, token: &str, version: u64) -> anyhow::Result<Vec<u64>> {
    let mut request = ListEventsRequest { token: token.to_owned(), page_size: PAGE_SIZE, ..Default::default() };
    let mut found = Vec::new();
    loop {
        let page = ls::page(client, &request).await?;
        let of_token = |event: &Event| event.version == version && event.stream.starts_with("token/");
        found.extend(page.events.into_iter().filter(of_token).filter_map(|event| event.log_index));
        if !page.more {
            return Ok(found);
        }
        request.cursor = page.cursor;
    }
}

async fn entry(client: &Client, index: u64) -> anyhow::Result<String> {
    let mut chunks = client.ledger().export(ExportRequest { from_index: index }).await?.into_inner();
    while let Some(chunk) = chunks.message().await? {
        if let Some(entry) = chunk.entries.into_iter().next() {
            return Ok(entry.envelope);
        }
    }
    bail!(Fault(format!("the authority has no entry {index}, and its checkpoint seals it")))
}

/// Builds the proof, fetching the tiles that it turns out to need.
async fn prove(client: &Client, checkpoint: &Sealed, index: u64, envelope: &str) -> anyhow::Result<String> {
    let tiles = Tiles::default();
    loop {
        match portable::prove(&tiles, index, &checkpoint.note, envelope.as_bytes()) {
            Ok(text) => return Ok(text),
            Err(error) => {
                let missing = tiles.missing.take().ok_or(error)?;
                let hashes = fetch(client, missing, checkpoint.size).await?;
                tiles.held.borrow_mut().insert(missing, hashes);
            }
        }
    }
}

async fn fetch(client: &Client, tile: Tile, size: u64) -> anyhow::Result<Vec<Hash>> {
    let (name, bytes) = sealed::tile(client, tile, size).await?;
    let mut hashes = hashes_from_bytes(&bytes).with_context(|| format!("the log's {name} is not a tile"))?;
    hashes.truncate(tile.width.into());
    Ok(hashes)
}

/// The tiles that are here, and the one that was looked for in vain.
#[derive(Default)]
struct Tiles {
    held: RefCell<HashMap<Tile, Vec<Hash>>>,
    missing: RefCell<Option<Tile>>,
}

impl TileReader for Tiles {
    fn hashes(&self, tile: Tile) -> io::Result<Vec<Hash>> {
        self.held.borrow().get(&tile).cloned().ok_or_else(|| {
            self.missing.replace(Some(tile));
            io::ErrorKind::NotFound.into()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_named_as_the_list_shows_it() {
        assert_eq!("17".parse(), Ok(Wanted::Index(17)));
        assert_eq!("token/example/12".parse(), Ok(Wanted::OfToken { name: "example".into(), version: 12 }));
        for wrong in ["", "example", "token/example", "lock/0b6c/1", "token/example/x"] {
            assert!(wrong.parse::<Wanted>().is_err(), "{wrong}");
        }
    }
}
