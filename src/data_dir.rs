//! The data folder: one server at a time, one writer id for ever.
//!
//! | entry | what it is |
//! |---|---|
//! | `lock` | held by the running server; its text is the server's process id |
//! | `writer_id` | names this folder in `otlake_seals` |
//! | `seal_sequence` | from where the next run numbers its seals |
//! | `journal/` | requests that are acknowledged and not in the lake yet |
//! | `staged/` | seals on their way into the lake |
//! | `quack/` | copies of the catalog for queries over quack, while the server runs |
//! | `lake/`, `catalog.sqlite` | the lake, unless it is configured elsewhere |

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::disk::{Disk as _, RealDisk};
use crate::signal::WriterId;

/// How often, and after which pause, a lock that is held is tried again.
const LOCK_ATTEMPTS: u32 = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// The rights of everyone but the owner, and the bit of folders that everyone may put files in.
const OTHERS: u32 = 0o077;
const STICKY: u32 = 0o1000;

/// What is in a data folder, and what a new volume has of its own.
const OWN_ENTRIES: [&str; 8] = [
    "lock",
    "journal",
    "staged",
    "quack",
    "lake",
    "server.json",
    "lake.json",
    "lost+found",
];

/// The catalog has logs beside it, and the others files that are not whole yet.
const OWN_BEGINNINGS: [&str; 5] = [
    "catalog.",
    "writer_id",
    "seal_sequence",
    ".server.json.",
    ".lake.json.",
];

/// Why the data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another server has it.
    #[error(
        "the data folder {} is in use by another otlake (process {pid}); stop that one first, or choose another --data-dir",
        path.display()
    )]
    InUse {
        /// The folder.
        path: PathBuf,
        /// The other server's process id, as it wrote it.
        pid: String,
    },
    /// The file system refused.
    #[error("cannot use {} in the data folder: {source}; check --data-dir and its permissions", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The data folder, locked as long as this lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    writer: WriterId,
    _lock: File,
}

impl DataDir {
    /// Makes the folder where it is missing, and locks it.
    ///
    /// # Errors
    /// [`DataDirError`] when another server holds it or the file system refuses.
    pub fn open(path: &Path) -> Result<DataDir, DataDirError> {
        create_private(path)?;
        let lock = lock(path)?;
        tighten(path)?;
        create_private(&path.join("staged"))?;
        create_private(&path.join("journal"))?;
        // What is synced in a folder survives a power loss only if the folder's name does.
        RealDisk.sync_dir(path).map_err(io_error(path))?;
        let writer = writer_id(&path.join("writer_id"))?;
        Ok(DataDir {
            path: path.to_owned(),
            writer,
            _lock: lock,
        })
    }

    /// Where seals are staged.
    #[must_use]
    pub fn staged(&self) -> PathBuf {
        self.path.join("staged")
    }

    /// Where requests are journaled.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.path.join("journal")
    }

    /// The file that numbers the seals.
    #[must_use]
    pub fn seal_sequence(&self) -> PathBuf {
        seal_sequence(&self.path)
    }

    /// Names this folder for ever.
    #[must_use]
    pub fn writer(&self) -> &WriterId {
        &self.writer
    }

    /// The folder itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The file that numbers the seals of a data folder; not there before its first seal.
#[must_use]
pub fn seal_sequence(data_dir: &Path) -> PathBuf {
    data_dir.join("seal_sequence")
}

/// Who writes from this data folder; `None` before its first server.
///
/// # Errors
/// [`DataDirError::Io`].
pub fn writer(data_dir: &Path) -> Result<Option<WriterId>, DataDirError> {
    read_writer(&data_dir.join("writer_id"))
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> DataDirError + '_ {
    move |source| DataDirError::Io {
        path: path.to_owned(),
        source,
    }
}

/// Telemetry can hold secrets: the folder is for its owner alone.
fn create_private(path: &Path) -> Result<(), DataDirError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(io_error(path))
}

/// Takes a folder that was there before with rights for others away from them, if it is only ours. One that has other
/// things in it, such as a home or `/tmp`, or that belongs to another user, such as a volume, is warned about: the files
/// in it are for their owner alone all the same.
fn tighten(path: &Path) -> Result<(), DataDirError> {
    let metadata = fs::metadata(path).map_err(io_error(path))?;
    let mode = metadata.mode() & 0o7777;
    if mode & OTHERS == 0 {
        return Ok(());
    }
    let is_ours = metadata.uid() == rustix::process::geteuid().as_raw()
        && mode & STICKY == 0
        && has_only_ours(path).map_err(io_error(path))?;
    let before = format!("{mode:o}");
    if is_ours && fs::set_permissions(path, Permissions::from_mode(mode & !OTHERS)).is_ok() {
        tracing::info!(folder = %path.display(), before, "the data folder is its owner's alone from now on");
    } else {
        tracing::warn!(
            folder = %path.display(),
            mode = before,
            "other users can look into the data folder, which is not otlake's alone: give it one of its own, with mode 700"
        );
    }
    Ok(())
}

/// Whether there is nothing in the folder but what a server makes there.
fn has_only_ours(path: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        let is_ours = name.to_str().is_some_and(|name| {
            OWN_ENTRIES.contains(&name)
                || OWN_BEGINNINGS
                    .iter()
                    .any(|beginning| name.starts_with(beginning))
        });
        if !is_ours {
            return Ok(false);
        }
    }
    Ok(true)
}

fn lock(path: &Path) -> Result<File, DataDirError> {
    let file_path = path.join("lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&file_path)
        .map_err(io_error(&file_path))?;
    if !take(&file).map_err(io_error(&file_path))? {
        let pid = fs::read_to_string(&file_path).unwrap_or_default();
        return Err(DataDirError::InUse {
            path: path.to_owned(),
            pid: pid.trim().to_owned(),
        });
    }
    file.set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(io_error(&file_path))?;
    Ok(file)
}

/// Takes the lock; `false` when another server has it.
///
/// A command that looks whether a server runs holds the lock for microseconds itself, hence the further attempts.
fn take(file: &File) -> io::Result<bool> {
    for _ in 0..LOCK_ATTEMPTS {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Ok(false)
}

fn read_writer(path: &Path) -> Result<Option<WriterId>, DataDirError> {
    match fs::read_to_string(path) {
        Ok(id) if !id.trim().is_empty() => Ok(Some(WriterId(id.trim().to_owned()))),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error(path)(error)),
    }
}

fn writer_id(path: &Path) -> Result<WriterId, DataDirError> {
    if let Some(writer) = read_writer(path)? {
        return Ok(writer);
    }
    let id = uuid::Uuid::now_v7().to_string();
    RealDisk
        .write_synced(path, id.as_bytes())
        .map_err(io_error(path))?;
    Ok(WriterId(id))
}
