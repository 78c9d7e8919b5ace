//! Writes a large archive: that of a real, small cluster, and then the history of a fleet.
//!
//! ```text
//! joinctl audit export --out small
//! cargo run --release -p join-log-tests --example archive -- --from small --out large --bots 10000 --events 1000000
//! ```

use std::path::PathBuf;

use clap::Parser;
use join_domain::{Timestamp, envelope::Entry};
use join_log::NoteSigner;
use join_log_tests::{Archive, Fleet};

/// Writes a large archive.
#[derive(Debug, Parser)]
struct Arguments {
    /// The archive of a cluster that was just created.
    #[arg(long)]
    from: PathBuf,
    /// Where to.
    #[arg(long)]
    out: PathBuf,
    /// Bots, each with one token.
    #[arg(long, default_value_t = 10_000)]
    bots: u64,
    /// Events, about.
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
}

fn main() -> anyhow::Result<()> {
    let Arguments { from, out, bots, events } = Arguments::parse();
    let mut archive = Archive::create(&out)?;
    let (mut entries, mut written, mut bytes) = (0_u64, 0_u64, 0_usize);
    let mut begins = Timestamp::UNIX_EPOCH;
    join_audit::each_envelope(&from, |envelope| {
        let entry = Entry::from_envelope(&envelope)?;
        begins = begins.max(entry.recorded_at);
        (entries, written) = (entries + 1, written + entry.events.len() as u64);
        archive.push(&envelope)
    })?;
    for entry in Fleet::new(bots, begins) {
        let envelope = entry.to_envelope()?;
        archive.push(&envelope)?;
        (entries, written) = (entries + 1, written + entry.events.len() as u64);
        bytes += envelope.len();
        if written >= events {
            break;
        }
    }
    archive.seal(NoteSigner::from_seed("archive.example/log", &[5; 32])?)?;
    println!("{written} events in {entries} entries, {} bytes an entry", bytes as u64 / entries);
    Ok(())
}
