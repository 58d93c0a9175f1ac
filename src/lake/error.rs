//! What can go wrong between a staged seal and the lake.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::Catalog;
use crate::signal::SealId;

/// A failure of the lake. The text says what happened, where, and what to do next.
#[derive(Debug, thiserror::Error)]
pub enum LakeError {
    /// The setting that names the catalog cannot be understood.
    #[error(
        "cannot use catalog {given:?}: write sqlite:<file> (any DuckDB can read it while otlake writes) or duckdb:<file> (one process at a time)"
    )]
    CatalogSyntax {
        /// What was given.
        given: String,
    },
    /// The setting that names the schema is not a plain name.
    #[error("cannot use schema {given:?}: use letters, digits and _, beginning with a letter")]
    SchemaName {
        /// What was given.
        given: String,
    },
    /// An extension of DuckDB could be loaded from nowhere.
    #[error("cannot load DuckDB's extension {name} (DuckDB {version}, {platform}); run scripts/setup, or name a folder that has it with --extension-dir; tried:{}", Attempts(.tried))]
    Extension {
        /// The extension.
        name: String,
        /// DuckDB's version.
        version: String,
        /// DuckDB's name of this platform.
        platform: String,
        /// Where it was looked for, in order.
        tried: Vec<Attempt>,
    },
    /// There is no lake to read yet.
    #[error(
        "there is no lake at {catalog} yet: start `otlake serve` with this data folder once, or check --data-dir and --catalog"
    )]
    NoLake {
        /// The catalog looked for.
        catalog: Catalog,
    },
    /// The lake may be there, and this user has no right to read it.
    #[error(
        "cannot read {}: {source}; the lake is another user's: run this as the user that the server runs as, or let a group read it with `otlake serve --lake-group-readable` (docs/SECURITY.md, Files)",
        .path.display()
    )]
    NotAllowed {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The catalog is there, the folder with its files is not.
    #[error("the lake's folder {} is gone while its catalog {catalog} is there: put the folder back (is a volume not mounted?)", .path.display())]
    NoDataFolder {
        /// The folder.
        path: PathBuf,
        /// The catalog that refers to it.
        catalog: Catalog,
    },
    /// The lake's folder is there and its catalog is not, or empty.
    #[error(
        "the lake's catalog {catalog} is gone: put the file back, or check --catalog and --data-path; a new, empty one would forget every row of the lake"
    )]
    NoCatalog {
        /// The catalog.
        catalog: Catalog,
    },
    /// Another process has the DuckDB file open.
    #[error("the catalog {} is open in another process, and a DuckDB file can be open in only one: stop the other process, or use a sqlite: catalog, which can be read while otlake writes", .path.display())]
    CatalogInUse {
        /// The catalog's file.
        path: PathBuf,
    },
    /// A table of the lake has a column of another type.
    #[error(
        "column {column} of {table} is {found} in the lake and must be {wanted}: rename that table or use another --schema; docs/FROM-DUCKDB-OTLP.md says how to move a lake of duckdb-otlp's"
    )]
    ColumnType {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// The type it has.
        found: String,
        /// The type it must have.
        wanted: String,
    },
    /// A staged file is neither staged nor in the lake's folder.
    #[error("the staged file {} is gone and {} is not there either: put it back, or the seal cannot be published", .staged.display(), .destination.display())]
    StagedFileLost {
        /// Where it was staged.
        staged: PathBuf,
        /// Where it should go.
        destination: PathBuf,
    },
    /// The lake has a seal of this number with other rows.
    #[error(
        "seal {} has {rows} rows, and the lake has {recorded} rows of another seal with its number: does another otlake run on a copy of this data folder? Stop that one; these rows stay staged",
        .seal.0
    )]
    SealNumberTaken {
        /// The seal's number.
        seal: SealId,
        /// The rows that are staged.
        rows: u64,
        /// The rows that the lake has under that number.
        recorded: u64,
    },
    /// A file or folder refused.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// DuckDB refused.
    #[error("cannot {action}: {source}")]
    DuckDb {
        /// What was tried, as a verb with its object.
        action: String,
        /// DuckDB's own words.
        source: duckdb::Error,
    },
    /// The connection was given up after a failure; the next publish opens it again.
    #[error(
        "the lake is not attached after an earlier failure; the next publish attaches it again"
    )]
    NotAttached,
}

impl LakeError {
    /// Whether the same step can succeed later without anybody changing the settings.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            LakeError::Io { .. }
            | LakeError::NotAllowed { .. }
            | LakeError::DuckDb { .. }
            | LakeError::NoDataFolder { .. }
            | LakeError::NoCatalog { .. }
            | LakeError::CatalogInUse { .. }
            | LakeError::StagedFileLost { .. }
            | LakeError::NotAttached => true,
            LakeError::CatalogSyntax { .. }
            | LakeError::SchemaName { .. }
            | LakeError::Extension { .. }
            | LakeError::NoLake { .. }
            | LakeError::SealNumberTaken { .. }
            | LakeError::ColumnType { .. } => false,
        }
    }

    /// Whether there is simply no lake yet, as before the first start of a server.
    #[must_use]
    pub fn is_missing_lake(&self) -> bool {
        matches!(self, LakeError::NoLake { .. })
    }

    /// Wraps what the system said about a file or folder of the lake that is to be read.
    pub(crate) fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> LakeError {
        let path = path.to_owned();
        move |source| match source.kind() {
            io::ErrorKind::PermissionDenied => LakeError::NotAllowed { path, source },
            _ => LakeError::io("read", &path)(source),
        }
    }

    /// Wraps what the system said about a file or folder.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LakeError {
        let path = path.to_owned();
        move |source| LakeError::Io {
            action,
            path,
            source,
        }
    }

    /// Wraps what DuckDB said about a statement.
    pub(super) fn duckdb(action: impl Into<String>) -> impl FnOnce(duckdb::Error) -> LakeError {
        let action = action.into();
        move |source| LakeError::DuckDb { action, source }
    }
}

/// One place where an extension was looked for, and why it was not found or not loaded there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The file or folder, or the command.
    pub place: String,
    /// Why it did not work, in one line.
    pub reason: String,
}

struct Attempts<'a>(&'a [Attempt]);

impl fmt::Display for Attempts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for attempt in self.0 {
            write!(f, "\n  {}: {}", attempt.place, attempt.reason)?;
        }
        Ok(())
    }
}
