//! The SQL surface: other DuckDBs query the lake, and the server that fills it, while it runs.
//!
//! ```text
//!  DuckDB elsewhere  --quack_query-->  quack  -> door: token, policy, newest catalog -> the lake, read-only
//!                                                                                    -> otlp_* functions -> the running server
//! ```
//!
//! | module | what it does |
//! |---|---|
//! | [`uri`] | the URIs that name a listener |
//! | [`policy`] | which statements are run |
//! | [`control`] | what the functions ask and tell the running server |
//! | [`lists`] | `otlp_server_list` and `otlp_seal_list` |
//! | [`functions`] | the functions as DuckDB sees them |
//! | [`surface`] | quack: started, guarded, stopped |
//!
//! Invariants:
//! - The DuckDB of this surface is not the publisher's, and has the lake read-only ([`crate::lake::ServedLake`]). A function
//!   that waits (flush, stop) waits in a thread of quack's own, for a publisher that shares no lock with it.
//! - Nothing runs that [`policy`] does not know. The names, columns and types of the functions are those of duckdb-otlp.

pub mod control;
pub mod functions;
pub mod lists;
pub mod policy;
pub mod surface;
pub mod uri;
