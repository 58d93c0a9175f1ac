//! Where the lake is: the same rules for `otlake serve` and for `otlake query`.

use std::path::{Path, PathBuf};

use super::error::ConfigError;
use super::limits;
use crate::lake::{Catalog, LakeConfig};

/// The default schema of the lake's tables.
pub const SCHEMA: &str = "main";
/// The default data folder, relative to the working folder.
pub const DATA_DIR: &str = "./otlake-data";

const SCHEMA_BYTES_MAX: usize = 63;

// Plain comments: clap would print a doc comment here as the help of every command that flattens the struct.
// Where the lake is, as far as it is not where the data folder would have it.
#[derive(Clone, Debug, Default, clap::Args)]
#[allow(
    missing_docs,
    reason = "the struct's description is a plain comment, for clap; each field has its own"
)]
pub struct LakeArgs {
    /// DuckLake's catalog: sqlite:FILE or duckdb:FILE [default: sqlite:DATA_DIR/catalog.sqlite]
    #[arg(
        long,
        value_name = "CATALOG",
        env = "OTLAKE_CATALOG",
        help_heading = "Lake"
    )]
    pub catalog: Option<String>,
    /// Folder of the lake's Parquet files [default: DATA_DIR/lake]
    #[arg(
        long,
        value_name = "DIR",
        env = "OTLAKE_DATA_PATH",
        help_heading = "Lake"
    )]
    pub data_path: Option<PathBuf>,
    /// Schema of the lake's tables [default: main]
    #[arg(
        long,
        value_name = "NAME",
        env = "OTLAKE_SCHEMA",
        help_heading = "Lake"
    )]
    pub schema: Option<String>,
    /// Folder with DuckDB's extensions [default: the one scripts/setup made, else DuckDB's own]
    #[arg(
        long,
        value_name = "DIR",
        env = "OTLAKE_EXTENSION_DIR",
        help_heading = "Lake"
    )]
    pub extension_dir: Option<PathBuf>,
}

impl LakeArgs {
    /// The lake these arguments and the data folder name, with the default file size and retention.
    ///
    /// # Errors
    /// [`ConfigError::Value`] with the flag that is wrong.
    pub fn resolve(self, data_dir: &Path) -> Result<LakeConfig, ConfigError> {
        let at = |key: &str, reason| ConfigError::Value {
            at: format!("--{key}"),
            reason,
        };
        let data_dir = absolute(data_dir).map_err(|reason| at("data-dir", reason))?;
        resolve(self, &data_dir, at)
    }
}

/// As [`LakeArgs::resolve`], with the caller's way to name a setting; `data_dir` is absolute.
pub(super) fn resolve(
    args: LakeArgs,
    data_dir: &Path,
    at: impl Fn(&str, String) -> ConfigError,
) -> Result<LakeConfig, ConfigError> {
    let catalog = match &args.catalog {
        Some(text) => catalog(text).map_err(|reason| at("catalog", reason))?,
        None => Catalog::Sqlite(data_dir.join("catalog.sqlite")),
    };
    let data_path = match &args.data_path {
        Some(path) => data_path(path, data_dir).map_err(|reason| at("data-path", reason))?,
        None => data_dir.join("lake"),
    };
    let schema = args.schema.unwrap_or_else(|| SCHEMA.to_owned());
    check_schema(&schema).map_err(|reason| at("schema", reason))?;
    let extension_dir = match &args.extension_dir {
        Some(path) => Some(absolute(path).map_err(|reason| at("extension-dir", reason))?),
        None => None,
    };
    Ok(LakeConfig {
        catalog,
        data_path,
        schema,
        extension_dir,
        target_file_size_bytes: limits::TARGET_FILE_BYTES,
        snapshot_retention: limits::SNAPSHOT_RETENTION,
        is_group_readable: false,
    })
}

/// The path from the root, without looking at the disk. DuckLake stores its data path in the catalog, so a relative
/// one would lead whoever reads the lake from another folder astray.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, String> {
    if path.as_os_str().is_empty() {
        return Err("the path is empty".to_owned());
    }
    std::path::absolute(path)
        .map_err(|error| format!("cannot make {} absolute: {error}", path.display()))
}

fn catalog(text: &str) -> Result<Catalog, String> {
    let catalog = text.parse::<Catalog>().map_err(|error| error.to_string())?;
    Ok(match catalog {
        Catalog::Sqlite(path) => Catalog::Sqlite(absolute(&path)?),
        Catalog::DuckDb(path) => Catalog::DuckDb(absolute(&path)?),
    })
}

/// The lake's folder may be anywhere but around the server's own files: DuckLake's clean-up deletes files in it
/// that the catalog does not know.
fn data_path(path: &Path, data_dir: &Path) -> Result<PathBuf, String> {
    if path.to_str().is_some_and(|text| text.contains("://")) {
        return Err(format!(
            "`{}` is not a folder: object stores are not supported yet",
            path.display()
        ));
    }
    let path = absolute(path)?;
    let own = ["journal", "staged", "quack"].map(|folder| data_dir.join(folder));
    if data_dir.starts_with(&path) || own.iter().any(|folder| path.starts_with(folder)) {
        return Err(format!(
            "{} would mix the lake's files with the server's own in {}: name a folder of its own, such as {}",
            path.display(),
            data_dir.display(),
            data_dir.join("lake").display()
        ));
    }
    Ok(path)
}

pub(super) fn check_schema(name: &str) -> Result<(), String> {
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let is_word = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !starts_well || !is_word || name.len() > SCHEMA_BYTES_MAX {
        return Err(format!(
            "`{name}` is not a schema's name: write a letter or `_`, then letters, digits or `_`, {SCHEMA_BYTES_MAX} at most"
        ));
    }
    let reserved = ["information_schema", "pg_catalog", "temp", "system"];
    if reserved.iter().any(|word| name.eq_ignore_ascii_case(word)) {
        return Err(format!("`{name}` is a name DuckDB keeps for itself"));
    }
    Ok(())
}
