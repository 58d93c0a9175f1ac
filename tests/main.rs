//! The tests over real sockets and the real binary, one file a behaviour. One program, so that it is linked once.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub,
    reason = "tests may fail loudly"
)]

mod support;

mod agents;
mod architecture;
mod auth;
mod clock;
mod corpora;
mod crash;
mod decode;
mod discovery;
mod doctor;
mod duckdb_otlp;
mod full_disk;
mod golden;
mod growth;
mod hosts;
mod journal;
mod journal_cli;
mod lake_down;
mod limits;
mod metrics;
mod otap;
mod package;
mod poisoned;
mod private;
mod protocols;
mod quack_seen;
mod query;
mod readers;
mod refusals;
mod restage;
mod retries;
mod seal_queue;
mod sealing;
mod slow_peers;
mod sql;
mod starting;
mod stopping;
mod supervised;
mod tail;
mod tls;
mod tokens;
mod undecided;
