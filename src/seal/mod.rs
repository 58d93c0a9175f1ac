//! Seal: from decoded rows to Parquet on disk.
//!
//! ```text
//! push -> open buffer -> cut (size, age, flush, room, stop), journaled -> stage (Parquet, synced) -> publish queue
//! ```
//!
//! - A request's rows are in one seal, whole: they are pushed under one lock.
//! - A seal's number is never used twice, over restarts too.
//! - Memory: the rows' reservation goes with them and is given back when the seal is on disk.
//! - One seal is staged at a time while the next one fills, so seals are staged, and published, in order.

pub mod backoff;
mod buffer;
pub mod ledger;
pub mod queue;
pub mod recovery;
pub mod sealer;
pub mod stage;
pub mod staged;
