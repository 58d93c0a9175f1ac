//! # otlake
//!
//! Receives OpenTelemetry over OTLP/gRPC and OTLP/HTTP and lays it, durable and queryable, into a DuckLake: Parquet
//! files plus a SQL catalog, queried with DuckDB. One binary, one data folder, no other service needed to begin.
//!
//! ## The way of the data
//!
//! ```text
//!  receive  ->  decode  ->  rows  ->  journal (synced)  ->  answer
//!                                         \->  seal: open buffer -> cut -> stage (Parquet)  ->  lake: publish, maintain
//!                                                                                                \->  sql: other DuckDBs
//! ```
//!
//! | station | module | what it does |
//! |---|---|---|
//! | receive | [`receive`] | sockets, limits, token, the protocols' own words |
//! | decode | [`decode`] | bytes to rows; pure functions |
//! | rows | [`rows`] | the tables' schemas, value rules and Arrow builders |
//! | journal | [`journal`] | what is acknowledged is on disk: one sync for all that wait; after a crash it is read again |
//! | seal | [`seal`] | the shared queue: buffer, cut, stage as Parquet, synced |
//! | lake | [`lake`] | one DuckLake transaction a seal, with the seal's number inside it; merging and expiring between |
//! | sql | [`sql`] | where asked for: other DuckDBs query the lake and the server over quack, and can do nothing else |
//!
//! [`signal`], [`memory`], [`disk`] and [`latency`] are the words, the budget, the file system and the histograms all share; [`telemetry`] counts and logs; [`config`] turns
//! flags, environment and file into one validated `Config`; [`daemon`] starts and stops everything in order; [`cli`] is
//! what people type. [`otap_producer`] is the other end of OTAP, for `otlake send` and the tests.
//!
//! Who may use whom: `signal, memory <- rows <- decode`; `rows <- journal <- seal <- lake`; `decode, journal, seal <- receive`; `receive, lake <- sql`; everything
//! `<- daemon`. `decode` never sees tokio or files; `receive` and `lake` never see each other, and `sql` alone sees both.
//! `tests/architecture.rs` holds this.

pub mod cli;
pub mod config;
pub mod daemon;
pub mod data_dir;
pub mod decode;
pub mod disk;
pub mod journal;
pub mod lake;
pub mod latency;
pub mod memory;
pub mod otap_producer;
pub mod proto;
pub mod receive;
pub mod rows;
pub mod seal;
pub mod server_file;
pub mod signal;
pub mod sql;
pub mod telemetry;
