//! Finds and loads the extensions that DuckDB needs for a DuckLake.
//!
//! In order: the folder the user named; `vendor/extensions` beside or above the running binary and in the working
//! folder, as scripts/setup makes it; DuckDB's own folder; DuckDB's repository on the network. Inside a folder an
//! extension lies as DuckDB lays it, `<version>/<platform>/<name>.duckdb_extension`, or directly.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use duckdb::Connection;

use super::error::{Attempt, LakeError};
use super::sql::literal;
use super::{Catalog, LakeConfig};

/// How long a download from DuckDB's repository may take before the start fails instead.
const INSTALL_TIME_MAX: Duration = Duration::from_secs(30);

/// Folders above the binary that are searched: enough for `target/<target>/release/deps` of a checkout.
const PARENTS_MAX: usize = 6;

/// Loads every extension that the catalog needs.
///
/// # Errors
/// [`LakeError::Extension`] with all that was tried, for the first that cannot be loaded.
pub(super) fn load(connection: &Connection, config: &LakeConfig) -> Result<(), LakeError> {
    match config.catalog {
        Catalog::Sqlite(_) => load_named(connection, config, &["ducklake", "sqlite_scanner"]),
        Catalog::DuckDb(_) => load_named(connection, config, &["ducklake"]),
    }
}

/// Loads what serving other DuckDBs needs: quack, and httpfs, whose random numbers quack names its sessions by.
///
/// # Errors
/// As [`load`].
pub(super) fn load_quack(connection: &Connection, config: &LakeConfig) -> Result<(), LakeError> {
    load_named(connection, config, &["quack", "httpfs"])
}

fn load_named(
    connection: &Connection,
    config: &LakeConfig,
    names: &[&str],
) -> Result<(), LakeError> {
    let engine = Engine::of(connection)?;
    let folders = folders(config.extension_dir.as_deref());
    if let Some(folder) = config.extension_dir.as_deref()
        && names
            .iter()
            .any(|name| find_in(folder, &engine, name).is_none())
    {
        tracing::warn!(
            folder = %folder.display(),
            "--extension-dir does not hold DuckDB's extensions for {} {}; looking elsewhere",
            engine.version,
            engine.platform
        );
    }
    for name in names {
        load_one(connection, &engine, &folders, name)?;
    }
    Ok(())
}

/// What an extension must fit.
struct Engine {
    version: String,
    platform: String,
}

impl Engine {
    fn of(connection: &Connection) -> Result<Engine, LakeError> {
        let ask = |sql: &str| {
            connection
                .query_row(sql, [], |row| row.get::<_, String>(0))
                .map_err(LakeError::duckdb("ask DuckDB for its version"))
        };
        Ok(Engine {
            version: ask("PRAGMA version")?,
            platform: ask("PRAGMA platform")?,
        })
    }
}

fn load_one(
    connection: &Connection,
    engine: &Engine,
    folders: &[PathBuf],
    name: &str,
) -> Result<(), LakeError> {
    let mut tried = Vec::new();
    let mut note = |place: String, reason: String| tried.push(Attempt { place, reason });

    for folder in folders {
        let Some(file) = find_in(folder, engine, name) else {
            note(folder.display().to_string(), "not there".to_owned());
            continue;
        };
        let sql = format!("LOAD {}", literal(&file.to_string_lossy()));
        match connection.execute_batch(&sql) {
            Ok(()) => return Ok(()),
            Err(error) => note(file.display().to_string(), first_line(&error)),
        }
    }

    // DuckDB looks into its own folder when it is given a bare name.
    match connection.execute_batch(&format!("LOAD {name}")) {
        Ok(()) => return Ok(()),
        Err(error) => note("DuckDB's own folder".to_owned(), first_line(&error)),
    }
    let installed = install(name).and_then(|()| {
        let loaded = connection.execute_batch(&format!("LOAD {name}"));
        loaded.map_err(|error| first_line(&error))
    });
    match installed {
        Ok(()) => return Ok(()),
        Err(reason) => note(format!("INSTALL {name}"), reason),
    }

    Err(LakeError::Extension {
        name: name.to_owned(),
        version: engine.version.clone(),
        platform: engine.platform.clone(),
        tried,
    })
}

/// Downloads the extension into DuckDB's own folder, within [`INSTALL_TIME_MAX`].
fn install(name: &str) -> Result<(), String> {
    let sql = format!("INSTALL {name}");
    let (done, outcome) = mpsc::sync_channel(1);
    // DuckDB cannot interrupt a download. Past the limit the thread is left behind; the caller's error ends
    // the process, so it does not outlive the start.
    let spawned = thread::Builder::new()
        .name("otlake-install".to_owned())
        .spawn(move || {
            let installed = Connection::open_in_memory()
                .and_then(|connection| connection.execute_batch(&sql))
                .map_err(|error| first_line(&error));
            // Nobody listens any more past the limit.
            let _ = done.send(installed);
        });
    if let Err(error) = spawned {
        return Err(error.to_string());
    }
    outcome
        .recv_timeout(INSTALL_TIME_MAX)
        .unwrap_or_else(|_| Err(format!("no answer within {} s", INSTALL_TIME_MAX.as_secs())))
}

/// Where extensions are looked for, in order, without repeats.
fn folders(configured: Option<&Path>) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = configured.map(Path::to_owned).into_iter().collect();
    let mut add = |folder: PathBuf| {
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    };
    if let Some(bin) = env::current_exe()
        .ok()
        .and_then(|exe| exe.parent().map(Path::to_owned))
    {
        add(bin.join("extensions"));
        add(bin.join("../lib/otlake/extensions"));
        // A folder that is absent is worth a line in the error only where a user would look.
        add(bin.join("vendor/extensions"));
        for parent in bin.ancestors().skip(1).take(PARENTS_MAX) {
            let folder = parent.join("vendor/extensions");
            if folder.is_dir() {
                add(folder);
            }
        }
    }
    if let Ok(here) = env::current_dir() {
        add(here.join("vendor/extensions"));
    }
    folders
}

fn find_in(folder: &Path, engine: &Engine, name: &str) -> Option<PathBuf> {
    let file = format!("{name}.duckdb_extension");
    let laid_out = folder
        .join(&engine.version)
        .join(&engine.platform)
        .join(&file);
    [laid_out, folder.join(&file)]
        .into_iter()
        .find(|path| path.is_file())
}

fn first_line(error: &duckdb::Error) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().to_owned()
}
