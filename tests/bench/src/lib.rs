//! What the stage benchmarks and the differential test share: workloads, measuring, and rows in the older Arrow that
//! otlp2records and DuckDB's crate have.
//!
//! `scripts/bench` runs the benchmarks; docs/BENCHMARKS.md says what the figures mean.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "as in a test: what cannot be measured stops the run"
)]

/// The program's allocator, for whatever it is measured against too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

pub mod measure;
pub mod older;
pub mod otlp2records;
pub mod workload;
