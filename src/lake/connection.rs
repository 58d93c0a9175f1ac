//! Opens DuckDB and attaches the lake to it, as `lake` unless there are several copies of its catalog.

use std::fs;
use std::path::{Path, PathBuf};

use duckdb::{Config, Connection};

use super::error::LakeError;
use super::sql::{identifier, literal};
use super::{Catalog, LakeConfig, extensions};

/// Memory that DuckDB may use for publishing and merging; more goes to temporary files.
const WRITER_MEMORY_MAX: &str = "256MB";

/// Threads of the writing DuckDB: merging must leave room for receiving, and a query that waits for another thread's part
/// spins until it is there.
const WRITER_THREADS: i64 = 1;

/// Opens a connection that reads the lake whose catalog is `config`'s, with the lake's schema as the current one.
///
/// # Errors
/// [`LakeError::CatalogInUse`], [`LakeError::Extension`], and [`LakeError::DuckDb`] for all else.
pub(super) fn open_for_reading(config: &LakeConfig, spill: &Path) -> Result<Connection, LakeError> {
    let connection = open(Config::default(), spill)?;
    extensions::load(&connection, config)?;
    attach(&connection, config, &Attachment::READ)?;
    let schema = identifier(&config.schema);
    connection
        .execute_batch(&format!("USE lake.{schema}"))
        .map_err(LakeError::duckdb(format!(
            "use schema {} of the lake (check --schema)",
            config.schema
        )))?;
    Ok(connection)
}

/// Opens the connection that writes. The catalog is made when it is not there.
///
/// # Errors
/// As [`open_for_reading`].
pub(super) fn open_read_write(config: &LakeConfig) -> Result<Connection, LakeError> {
    let settings = Config::default()
        .max_memory(WRITER_MEMORY_MAX)
        .and_then(|settings| settings.threads(WRITER_THREADS))
        .map_err(LakeError::duckdb("configure DuckDB"))?;
    let spill = config
        .data_path
        .parent()
        .unwrap_or(&config.data_path)
        .join("duckdb-tmp");
    let connection = open(settings, &spill)?;
    extensions::load(&connection, config)?;
    attach(&connection, config, &Attachment::WRITE)?;
    Ok(connection)
}

/// Refuses schema names that would need quoting in a user's SQL or cannot be a folder's name.
///
/// # Errors
/// [`LakeError::SchemaName`].
pub(super) fn check_schema_name(name: &str) -> Result<(), LakeError> {
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if plain && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        return Ok(());
    }
    Err(LakeError::SchemaName {
        given: name.to_owned(),
    })
}

/// How a lake is attached.
pub(super) struct Attachment<'a> {
    /// What it is called in SQL.
    pub(super) name: &'a str,
    access: Access,
    /// What the database of its catalog is called, where there are several.
    metadata: Option<&'a str>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

impl<'a> Attachment<'a> {
    const READ: Attachment<'static> = Attachment {
        name: "lake",
        access: Access::Read,
        metadata: None,
    };

    const WRITE: Attachment<'static> = Attachment {
        name: "lake",
        access: Access::Write,
        metadata: None,
    };

    /// To read, beside other lakes of the same DuckDB.
    pub(super) fn beside(name: &'a str, metadata: &'a str) -> Attachment<'a> {
        Attachment {
            name,
            access: Access::Read,
            metadata: Some(metadata),
        }
    }
}

pub(super) fn open(settings: Config, spill: &Path) -> Result<Connection, LakeError> {
    // Extensions are loaded by us, by path; DuckDB must not go to the network for one behind our back.
    let settings = settings
        .with("autoinstall_known_extensions", "false")
        // The cache keeps what was read of every file, merged and removed ones too: 0.7 MB a seal, up to the limit.
        .and_then(|settings| settings.with("enable_external_file_cache", "false"))
        .and_then(|settings| settings.with("autoload_known_extensions", "true"))
        .and_then(|settings| settings.with("temp_directory", spill.to_string_lossy()))
        .map_err(LakeError::duckdb("configure DuckDB"))?;
    Connection::open_in_memory_with_flags(settings).map_err(LakeError::duckdb("open DuckDB"))
}

/// Attaches the lake.
///
/// # Errors
/// [`LakeError::CatalogInUse`], and [`LakeError::DuckDb`] for all else.
pub(super) fn attach(
    connection: &Connection,
    config: &LakeConfig,
    attachment: &Attachment<'_>,
) -> Result<(), LakeError> {
    let error = match connection.execute_batch(&attach_sql(config, attachment, false)) {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    let text = error.to_string();
    if text.contains("Could not set lock") || text.contains("Conflicting lock") {
        return Err(LakeError::CatalogInUse {
            path: config.catalog.path().to_owned(),
        });
    }
    // The catalog remembers an absolute path. A data folder that was moved, or is seen from inside a container
    // under another name, is still the same lake: its files are recorded relative to that path.
    if moved_from(&text).is_some_and(|old| !old.is_dir()) {
        return connection
            .execute_batch(&attach_sql(config, attachment, true))
            .map_err(LakeError::duckdb(format!("attach {}", config.catalog)));
    }
    Err(LakeError::duckdb(format!("attach {}", config.catalog))(
        error,
    ))
}

/// The data path that DuckLake says the catalog was made with, when that is what it complains about.
fn moved_from(message: &str) -> Option<PathBuf> {
    let (_, rest) = message.split_once("does not match existing data path in the catalog \"")?;
    let (path, _) = rest.split_once('"')?;
    Some(PathBuf::from(path))
}

fn attach_sql(config: &LakeConfig, attachment: &Attachment<'_>, overrides: bool) -> String {
    let file = absolute(config.catalog.path());
    let (uri, journal) = match config.catalog {
        Catalog::Sqlite(_) => (
            format!("ducklake:sqlite:{}", file.display()),
            ", META_JOURNAL_MODE 'WAL'",
        ),
        Catalog::DuckDb(_) => (format!("ducklake:{}", file.display()), ""),
    };
    let data_path = absolute(&config.data_path);
    let mut options = format!("DATA_PATH {}", literal(&data_path.to_string_lossy()));
    match attachment.access {
        Access::Read => options.push_str(", READ_ONLY"),
        Access::Write => options.push_str(journal),
    }
    if overrides {
        options.push_str(", OVERRIDE_DATA_PATH true");
    }
    if let Some(metadata) = attachment.metadata {
        options.push_str(&format!(", METADATA_CATALOG {}", literal(metadata)));
    }
    let name = identifier(attachment.name);
    format!("ATTACH {} AS {name} ({options})", literal(&uri))
}

/// The path as DuckLake records it, the same from every working folder.
pub(super) fn absolute(path: &Path) -> PathBuf {
    fs::canonicalize(path)
        .or_else(|_| std::path::absolute(path))
        .unwrap_or_else(|_| path.to_owned())
}
