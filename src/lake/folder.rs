//! The lake's folder and its catalog, and how they are known again.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use duckdb::Connection;

use super::LakeConfig;
use super::connection::absolute;
use super::error::LakeError;
use super::tables::live_files_sql;
use crate::disk::{Disk as _, RealDisk};

/// A file in the lake's folder by which it is known.
const MARKER: &str = "otlake.lake";
const MARKER_TEXT: &[u8] = b"otlake knows this folder as its lake's by this file.\n";

/// One file of a catalog, which another one under its name is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CatalogFile {
    device: u64,
    inode: u64,
}

impl CatalogFile {
    /// The catalog's file.
    ///
    /// # Errors
    /// [`LakeError::NoCatalog`] when it is not there or empty: SQLite makes an empty file in place of one that is gone.
    pub(super) fn find(config: &LakeConfig) -> Result<CatalogFile, LakeError> {
        match fs::metadata(config.catalog.path()) {
            Ok(found) if found.len() > 0 => Ok(CatalogFile {
                device: found.dev(),
                inode: found.ino(),
            }),
            _ => Err(LakeError::NoCatalog {
                catalog: config.catalog.clone(),
            }),
        }
    }
}

/// Makes the folders of a new lake. A lake that was there before keeps its catalog, or is not opened.
///
/// # Errors
/// [`LakeError::NoCatalog`] when the folder is that of a lake and the catalog is gone, [`LakeError::NoDataFolder`] when
/// it is the other way round.
pub(super) fn make_folders(config: &LakeConfig) -> Result<(), LakeError> {
    if let Err(no_catalog) = CatalogFile::find(config) {
        if is_marked(config) {
            return Err(no_catalog);
        }
        let beside = absolute(config.catalog.path());
        for folder in beside.parent().into_iter().chain([&*config.data_path]) {
            make_synced(folder)?;
        }
    }
    if config.data_path.is_dir() {
        return Ok(());
    }
    Err(no_data_folder(config))
}

fn make_synced(folder: &Path) -> Result<(), LakeError> {
    if folder.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(folder).map_err(LakeError::io("make folder", folder))?;
    match absolute(folder).parent() {
        Some(above) => RealDisk
            .sync_dir(above)
            .map_err(LakeError::io("sync", above)),
        None => Ok(()),
    }
}

/// Makes the names of the tables' folders durable: an earlier attempt may have made one and ended before that.
///
/// # Errors
/// [`LakeError::Io`].
pub(super) fn sync_folders(config: &LakeConfig) -> Result<(), LakeError> {
    let schema_dir = config.data_path.join(&config.schema);
    let folders = [config.data_path.as_path(), schema_dir.as_path()];
    for dir in folders.into_iter().filter(|dir| dir.is_dir()) {
        RealDisk.sync_dir(dir).map_err(LakeError::io("sync", dir))?;
    }
    Ok(())
}

/// Whether the lake's folder is there, and not another one in its place: merging makes missing folders, and a volume
/// that is not mounted leaves an empty one.
pub(super) fn check_data_folder(config: &LakeConfig) -> Result<(), LakeError> {
    if is_marked(config) {
        return Ok(());
    }
    Err(no_data_folder(config))
}

/// Whether the lake's folder is there and known as one: a lake was made with it.
#[must_use]
pub fn is_marked(config: &LakeConfig) -> bool {
    marker(config).is_file()
}

/// The file by which the lake's folder is known.
pub(super) fn marker(config: &LakeConfig) -> PathBuf {
    config.data_path.join(MARKER)
}

/// Marks the lake's folder, unless an empty one is in the place of that with the lake's files.
pub(super) fn mark_data_folder(
    connection: &Connection,
    config: &LakeConfig,
) -> Result<(), LakeError> {
    if is_marked(config) {
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
    let marker = marker(config);
    RealDisk
        .write_synced(&marker, MARKER_TEXT)
        .map_err(LakeError::io("write", &marker))
}

fn no_data_folder(config: &LakeConfig) -> LakeError {
    LakeError::NoDataFolder {
        path: config.data_path.clone(),
        catalog: config.catalog.clone(),
    }
}
