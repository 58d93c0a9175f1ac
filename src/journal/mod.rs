//! The journal: what is acknowledged is on disk before it is acknowledged.
//!
//! `<data-dir>/journal/` holds segments, `0000000000000001.journal` and on, each a magic text and a row of checked
//! frames. Numbers are little-endian, frames begin at multiples of 8 bytes.
//!
//! ```text
//! segment   "otlake journal 1"  frame  frame  frame ...
//! frame     header (48 bytes)  payload  zeros up to a multiple of 8
//! ```
//!
//! | header bytes | field |
//! |---|---|
//! | 0..4 | `OJF1` |
//! | 4 | kind |
//! | 5..8 | zeros |
//! | 8..12 | payload's length, bytes |
//! | 12..16 | payload's CRC32C |
//! | 16..24 | sequence: the batch's own, else that of the last batch before; counts up by one over all segments |
//! | 24..32 | synced: up to where this file was synced when the frame was written |
//! | 32..40 | settled: every batch up to this sequence was answered more than [`MOMENT`] before |
//! | 40..44 | salt: the same in all frames of a segment, another one in each segment |
//! | 44..48 | CRC32C of the header's bytes 0..44 |
//!
//! | kind | payload | meaning |
//! |---|---|---|
//! | 1 start | [`records::Start`] | begins each segment: Arrow schemas, remembered requests |
//! | 2 batch | length (4 bytes) and [`records::BatchHead`], zeros up to 8, an Arrow IPC message a table | one request's rows |
//! | 3 cut | [`records::Cut`] | a seal was cut: it holds the batches up to a sequence |
//! | 4 note | [`records::Note`] | a request is remembered, or its retry came |
//! | 5 idle | none | carries a newer `settled` while nothing else is written |
//! | 6 close | none | the server stopped in order |
//! | 7 gap | [`records::Gap`] | `otlake journal repair` gave these batches up |
//!
//! Invariants:
//! - A batch is delivered to the seal queue, and answered, after it is synced, in the order of its sequence. One sync
//!   serves all that wait (group commit).
//! - A cut is synced before its seal is staged. It names the last batch it holds, so a replay gives the same seal the same
//!   rows, wherever the frame stands.
//! - A segment is synced, whole, before the next one is made; it is removed when every batch in it is published
//!   and settled, oldest first, and durably before the next one is.
//! - A few removed segments are kept as `spare-N` and written over: their blocks and their pages are there. What is left of
//!   the old frames behind the last new one has another salt. A spare gets a segment's name with its start written and
//!   synced, and is cut to its length before the next one is made.
//! - After a sync failed nothing is written any more: the journal is *poisoned* until the next start.
//!
//! | found at the start | done |
//! |---|---|
//! | a bad frame at the end of the last segment, and nothing after it that was written once it was synced | torn: cut off, it is not known to have been synced (what was acknowledged is, 50 ms later) |
//! | a good frame that no later one knows to be synced | written again, and synced, before anything relies on it |
//! | a bad frame anywhere else, a sequence or a segment missing | damage: no start; [`inspect`] reads on behind it, [`repair`] gives it up |
//!
//! docs/JOURNAL.md tells the same to those who run otlake.

pub mod batch;
pub mod digest;
mod error;
mod frame;
mod handle;
pub mod inspect;
pub mod records;
pub mod repair;
pub mod replay;
mod salvage;
pub mod scan;
mod segment;
mod spares;
mod store;
mod writer;

use std::time::Duration;

pub use batch::EncodedBatch;
pub use digest::Digest;
pub use error::{Damage, JournalError, ScanError};
pub use handle::{
    Append, Deliver, Hooks, Journal, JournalConfig, JournalStats, Outcome, Remembered,
};
pub use records::CutRecord;
pub use replay::{StoredBatch, replay};
pub use scan::{Scan, scan};

/// How long after it was written an answer counts as perhaps not arrived.
pub const MOMENT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
