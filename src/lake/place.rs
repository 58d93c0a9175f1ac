//! A staged file's way to its place in the lake's folder, durably.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use super::LakeConfig;
use super::connection::absolute;
use super::crash::crash_point;
use super::error::LakeError;
use crate::disk::{Disk as _, RealDisk};
use crate::seal::staged::{StagedFile, StagedSeal};
use crate::signal::{SealId, Table, WriterId};

/// How the name of a copy ends before it is whole.
const PARTIAL: &str = ".partial";

/// The mode of a file that the lake's group may read; staged files are for their owner alone.
const GROUP_READABLE: u32 = 0o640;

/// The bit of a folder's mode that hands its group on to what is made in it.
const SETGID: u32 = 0o2000;

/// Moves a staged file to its place in the lake's folder, durably. An earlier attempt may have done so.
///
/// # Errors
/// [`LakeError::StagedFileLost`] when it is in neither place, [`LakeError::Io`] otherwise.
pub(super) fn place(
    config: &LakeConfig,
    writer: &WriterId,
    seal: &StagedSeal,
    file: &StagedFile,
) -> Result<PathBuf, LakeError> {
    let destination = destination(config, writer, seal, file);
    let schema_dir = absolute(&config.data_path).join(&config.schema);
    let dir = schema_dir.join(file.table.name());
    for dir in [&schema_dir, &dir] {
        make_dir(dir)?;
    }
    crash_point!("folder made");
    let staged = seal.dir.join(file.name());
    if config.is_group_readable {
        open_to_group(&staged, &dir)?;
    }
    move_file(&staged, &destination)?;
    crash_point!("moved");
    RealDisk
        .sync_dir(&dir)
        .map_err(LakeError::io("sync", &dir))?;
    crash_point!("table's folder synced");
    Ok(destination)
}

/// Where a seal's file belongs in the lake's folder.
pub(super) fn destination(
    config: &LakeConfig,
    writer: &WriterId,
    seal: &StagedSeal,
    file: &StagedFile,
) -> PathBuf {
    absolute(&config.data_path)
        .join(&config.schema)
        .join(file.table.name())
        .join(placed_name(writer.short(), seal.id))
}

/// The name of a seal's file in a table's folder.
fn placed_name(writer: &str, seal: SealId) -> String {
    format!("{writer}-{seal}.parquet")
}

/// The seal whose file has this name in a table's folder, with the short id of its writer.
pub(super) fn placed_seal(name: &str) -> Option<(&str, SealId)> {
    let (writer, number) = name.strip_suffix(".parquet")?.split_once('-')?;
    let is_short_id = writer.len() == 8 && writer.chars().all(|c| c.is_ascii_hexdigit());
    let seal = SealId(number.parse().ok()?);
    // Sixteen digits, no sign.
    (is_short_id && placed_name(writer, seal) == name).then_some((writer, seal))
}

/// Whether a copy has this name in a table's folder before it is whole.
pub(super) fn is_partial(name: &str) -> bool {
    name.strip_suffix(PARTIAL)
        .is_some_and(|stem| placed_seal(&format!("{stem}.parquet")).is_some())
}

/// The highest number of this writer's seals that have a file in the lake's folder.
///
/// # Errors
/// [`LakeError::Io`] when a folder cannot be read.
pub(super) fn last_placed(config: &LakeConfig, writer: &WriterId) -> Result<SealId, LakeError> {
    let mut last = SealId(0);
    for table in Table::ALL {
        let dir = config.data_path.join(&config.schema).join(table.name());
        let paths = match RealDisk.list(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            paths => paths.map_err(LakeError::io("read", &dir))?,
        };
        let names = paths.iter().filter_map(|path| path.file_name()?.to_str());
        let ours = names
            .filter_map(placed_seal)
            .filter(|(short, _)| *short == writer.short());
        last = ours.map(|(_, seal)| seal).fold(last, SealId::max);
    }
    Ok(last)
}

/// Makes one folder, not its parents: the lake's own folder is never made again once it was there.
fn make_dir(dir: &Path) -> Result<(), LakeError> {
    if dir.is_dir() {
        return Ok(());
    }
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(LakeError::io("make folder", dir)(error));
        }
        _ => {}
    }
    match dir.parent() {
        Some(parent) => RealDisk
            .sync_dir(parent)
            .map_err(LakeError::io("sync", parent)),
        None => Ok(()),
    }
}

/// Lets the group read a staged file before it is moved, durably; that of the folder, where the folder hands its group
/// on (setgid): a file that is moved there keeps its own. A file that was moved before was opened before.
fn open_to_group(staged: &Path, dir: &Path) -> Result<(), LakeError> {
    let open = || {
        let file = match File::open(staged) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            file => file?,
        };
        let (own, folder) = (file.metadata()?, fs::metadata(dir)?);
        if folder.mode() & SETGID != 0 && folder.gid() != own.gid() {
            fchown(&file, None, Some(folder.gid()))?;
        }
        if own.mode() & 0o777 != GROUP_READABLE {
            file.set_permissions(Permissions::from_mode(GROUP_READABLE))?;
        }
        file.sync_all()
    };
    open().map_err(LakeError::io("open to the group", staged))
}

/// Renames, or copies where the two places are on different devices. Done already is fine.
fn move_file(staged: &Path, destination: &Path) -> Result<(), LakeError> {
    // Looked at first: between devices Linux answers CrossesDevices also for a file that is not there.
    let is_staged = staged
        .try_exists()
        .map_err(LakeError::io("look for the staged file", staged))?;
    if !is_staged {
        if destination.is_file() {
            return Ok(());
        }
        return Err(LakeError::StagedFileLost {
            staged: staged.to_owned(),
            destination: destination.to_owned(),
        });
    }
    match fs::rename(staged, destination) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            copy_file(staged, destination)
                .map_err(LakeError::io("copy a staged file to", destination))
        }
        outcome => outcome.map_err(LakeError::io("move a staged file to", destination)),
    }
}

/// The copy gets its name only when it is whole and synced, so a file under that name is never a part of one.
fn copy_file(staged: &Path, destination: &Path) -> io::Result<()> {
    let partial = destination.with_extension(PARTIAL.trim_start_matches('.'));
    fs::copy(staged, &partial)?;
    crash_point!("copied");
    File::open(&partial)?.sync_all()?;
    crash_point!("copy synced");
    fs::rename(&partial, destination)?;
    crash_point!("copy named");
    // Durable before the only other copy goes.
    destination
        .parent()
        .map_or(Ok(()), |dir| RealDisk.sync_dir(dir))?;
    crash_point!("copy's folder synced");
    fs::remove_file(staged)
}
