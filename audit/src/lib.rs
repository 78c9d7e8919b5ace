//! The auditor's check of the ledger: offline, from an export, trusting nothing but keys.
//!
//! The auditor shares with the writer what events and states are in `join-domain`: how they fold, and what a state says of
//! itself. It shares nothing else: hashing, notes, proofs and the rules of a history are written a second time, because a
//! check that reuses the writer's code repeats its mistakes.
//!
//! # What an export holds
//!
//! | file | content |
//! |---|---|
//! | `entries-NNNNNN.jsonl` | `{"log_index":0,"envelope":"…"}` a line, in log order, across the files `entries-000000.jsonl`, `entries-000001.jsonl`, …; the envelope is a string whose UTF-8 bytes are the leaf of the log |
//! | `checkpoint` | the signed note that seals exactly these entries (c2sp.org/tlog-checkpoint), with cosignatures |
//! | `checkpoints/SIZE-ROOT` | what was `checkpoint` before the export grew: the log must begin with what each of them sealed; optional. Names with a dot in front are files in the making |
//! | `tile/…` | hash tiles of that checkpoint (c2sp.org/tlog-tiles): optional, but without them a changed entry is only found to exist, not found |
//! | `views.jsonl` | `{"stream":"token/…","version":7,"state":{…}}` a line: the claimed state of every stream at that checkpoint, in any order; optional |
//! | `.lock` | held by whoever writes the export; empty, and no part of it |
//! | `end.json` | `{"entries":N}`: written last, after everything else is on the disk; without it the export was cut off |
//!
//! An envelope is RFC 8785 JSON: `{"v":1,"stream":"token/…","first_version":7,"events":[{"kind":"…","schema":1,"data":{…}}],
//! "decided_at":"…","recorded_at":"…","actor":"…","address":null,"attempt":null,"request":null,"trace":null}` with sorted keys
//! and times in UTC with microseconds. Its events have the versions `first_version`, `first_version + 1`, ….
//!
//! # What is checked
//!
//! [`verify`] reads the export once, in constant memory but for a version and a state a stream:
//! the checkpoint is signed by a known log and cosigned as the [`Policy`] asks; the entries are the tree that it seals, and begin
//! with the tree of each older checkpoint that the export or the auditor kept; they stand in log order without a gap; each
//! stream's versions are 1, 2, 3, …; every envelope is canonical; the history is one that the rules allow (below); and the claimed views are what follows from it.
//!
//! Of the rules: each accepted join proved the bound key, the preregistered one or, in time, the secret, by challenges that were
//! answered in their time and issued after the join before, was under no lock, showed the newest generation and join state or
//! spent an exemption, has the next generation or is counted as the next recovery within the limit, replaced a key that was due,
//! and has the bot's roles; a recovery showed no live certificate but one that the rules let it pass over; a reinstatement is
//! spent by the next join; what was given again is the latest answer, to a proof of the bound key that was asked for within that
//! answer's life. No two live tokens have one name or one key, and no two bots one name. An attempt that was accepted once is
//! known until the token's next join. What a newer version wrote is no fault, but makes a history unclean: nothing can be said
//! of it here. Refusals are taken as they are: that one is missing can't be seen.
//!
//! Times are what entries say, and their order is sealed. An entry that says that it is more than a minute older than what
//! stands before it is a finding ([`Fault::TimeWentBack`]): it was backdated, or a clock was set back. A join that stands behind
//! a lock on what its token has was under it, whatever its times say: the ledger gives a lock its place after the joins that
//! were decided without it. What was recorded within a minute of a lock on what a client only showed or first binds, of a change
//! of the bot or of the end of what had a name or key may have met it.
//!
//! [`verify_portable`] checks the `.tlog-proof` of a single entry.

mod challenges;
mod checkpoint;
mod claims;
mod comparison;
mod envelope;
mod export;
mod finding;
pub mod merkle;
mod note;
mod policy;
mod portable;
mod rules;
mod streams;
mod times;
mod verify;

pub use checkpoint::Checkpoint;
pub use export::{ReadError, each_envelope};
pub use finding::{Fault, Finding, Place};
pub use note::{Key, KeyError};
pub use policy::{Policy, PolicyError};
pub use portable::{Proven, verify_portable};
pub use verify::{AuditError, Progress, Report, Step, verify, verify_history};
