//! The lake's folder, and how it is known again.

use std::fs;

use duckdb::Connection;

use super::LakeConfig;
use super::error::LakeError;
use super::tables::live_files_sql;
use crate::disk::{Disk as _, RealDisk};

/// A file in the lake's folder by which it is known.
const MARKER: &str = "otlake.lake";
const MARKER_TEXT: &[u8] = b"otlake knows this folder as its lake's by this file.\n";

/// Whether the lake's folder is there, and not another one in its place: merging makes missing folders, and a volume
/// that is not mounted leaves an empty one.
pub(super) fn check_data_folder(config: &LakeConfig) -> Result<(), LakeError> {
    if config.data_path.join(MARKER).is_file() {
        return Ok(());
    }
    Err(no_data_folder(config))
}

/// Marks the lake's folder, unless an empty one is in the place of that with the lake's files.
pub(super) fn mark_data_folder(
    connection: &Connection,
    config: &LakeConfig,
) -> Result<(), LakeError> {
    let marker = config.data_path.join(MARKER);
    if marker.is_file() {
        return Ok(());
    }
    let mut entries =
        fs::read_dir(&config.data_path).map_err(LakeError::io("read", &config.data_path))?;
    if entries.next().is_none() {
        let sql = format!("SELECT count(*) {}", live_files_sql(&config.schema));
        let files: i64 = connection
            .query_row(&sql, [], |row| row.get(0))
            .map_err(LakeError::duckdb("count the lake's files"))?;
        if files > 0 {
            return Err(no_data_folder(config));
        }
    }
    RealDisk
        .write_synced(&marker, MARKER_TEXT)
        .map_err(LakeError::io("write", &marker))
}

/// What to say when the catalog is there and the folder is not.
pub(super) fn no_data_folder(config: &LakeConfig) -> LakeError {
    LakeError::NoDataFolder {
        path: config.data_path.clone(),
        catalog: config.catalog.clone(),
    }
}
