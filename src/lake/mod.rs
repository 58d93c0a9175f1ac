//! The lake: staged seals in, tables that any DuckDB can query out.
//!
//! A lake is a DuckLake: Parquet files under a data folder and a SQL catalog that says which of them count. One
//! thread, the [`Publisher`], owns the one connection that writes; whoever reads opens its own, read-only.
//!
//! # Invariants
//! - **Exactly once.** The transaction that makes a seal's files visible also inserts `(writer_id, seal_id)` into
//!   `otlake_seals`, and looks it up first. Publishing a seal again, after a crash or an unknown outcome, finds
//!   the row and changes nothing. DuckLake itself would accept the same file twice.
//! - **A file is never lost on its way.** It is renamed into the lake's folder before the transaction, under a
//!   name made from writer and seal, so that the next attempt finds it in one of two places. Files that the catalog
//!   does not list are removed with the care that `sweep` describes; DuckLake's own orphan clean-up is never called.
//! - **A reader keeps its snapshot** for [`LakeConfig::snapshot_retention`]: files that a merge replaced leave
//!   the disk only that long after.
//! - **A reader is consistent**: [`open_read_only`] reads a private copy of a SQLite catalog, see `reader`; [`ServedLake`]
//!   reads one of any catalog, and takes a new one when the catalog has changed, see `served`.
//! - **Publishing goes first.** Maintenance shares the publisher's thread, works in small steps and only while
//!   no seal waits.

mod connection;
mod crash;
mod error;
mod extensions;
mod folder;
mod giveway;
mod maintain;
mod merge;
mod place;
mod publish;
mod publisher;
mod queue;
mod reader;
mod served;
mod sql;
mod sweep;
mod tables;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

pub use error::{Attempt, LakeError};
pub use folder::is_marked;
pub use maintain::{Load, MaintainStep};
pub use publish::Lake;
pub use publisher::Publisher;
pub use queue::PublishQueue;
pub use reader::{LakeReader, open_read_only};
pub use served::ServedLake;

/// Where the lake is and how it is kept.
#[derive(Clone, Debug)]
pub struct LakeConfig {
    /// The catalog.
    pub catalog: Catalog,
    /// The folder with the lake's Parquet files.
    pub data_path: PathBuf,
    /// The schema of the tables, a plain name; `main` by default.
    pub schema: String,
    /// Where to look for DuckDB's extensions first.
    pub extension_dir: Option<PathBuf>,
    /// The size small files are merged up to, bytes.
    pub target_file_size_bytes: u64,
    /// How long old snapshots, and the files only they need, are kept.
    pub snapshot_retention: Duration,
    /// Whether the users of the lake's group can read its files; else only their owner can.
    pub is_group_readable: bool,
}

/// The kind and place of a lake's catalog, written `sqlite:<file>` or `duckdb:<file>`.
///
/// The seam for catalogs in a server (PostgreSQL): a new variant here is met by the `match`es in `connection`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Catalog {
    /// A SQLite file in WAL mode: other processes read it while one writes.
    Sqlite(PathBuf),
    /// A DuckDB file: a little faster, but only one process can have it open.
    DuckDb(PathBuf),
}

impl Catalog {
    /// The catalog's file.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Catalog::Sqlite(path) | Catalog::DuckDb(path) => path,
        }
    }
}

impl fmt::Display for Catalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Catalog::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Catalog::DuckDb(path) => write!(f, "duckdb:{}", path.display()),
        }
    }
}

impl FromStr for Catalog {
    type Err = LakeError;

    fn from_str(given: &str) -> Result<Catalog, LakeError> {
        // A server's name would come with its user's password.
        let shown = given.split_once(':').filter(|(_, rest)| !rest.is_empty());
        let wrong = || LakeError::CatalogSyntax {
            given: shown.map_or_else(|| given.to_owned(), |(kind, _)| format!("{kind}:...")),
        };
        let (kind, path) = given.split_once(':').ok_or_else(wrong)?;
        match kind {
            _ if path.is_empty() => Err(wrong()),
            "sqlite" => Ok(Catalog::Sqlite(PathBuf::from(path))),
            "duckdb" => Ok(Catalog::DuckDb(PathBuf::from(path))),
            _ => Err(wrong()),
        }
    }
}
