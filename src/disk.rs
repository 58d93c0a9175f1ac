//! The disk, as journal and staging see it: few operations, each with its rule for what survives a power loss.
//!
//! | after | survives |
//! |---|---|
//! | a write | nothing, until the file is synced |
//! | [`DiskFile::sync`] | the file's content, if its name does |
//! | [`Disk::create`], [`Disk::rename`], removing | nothing, until the folder is synced |
//! | [`Disk::sync_dir`] | the names in the folder |
//!
//! Behind a trait, because the models in the tests run journal and seal queue over a disk that loses unsynced
//! bytes, writes short, fails to sync and runs full. [`RealDisk`] is the file system.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// The operations. Errors are the system's own.
#[allow(
    clippy::missing_errors_doc,
    reason = "every operation gives the system's error, as the trait says"
)]
pub trait Disk: fmt::Debug + Send + Sync {
    /// Makes an empty file to append to, in the place of one that is there.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Opens a file to write over it from its beginning; answers its length, too.
    fn overwrite(&self, path: &Path) -> io::Result<(Box<dyn DiskFile>, u64)>;
    /// Opens a file to read from.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskRead>>;
    /// Cuts a file to `len` bytes, and syncs it.
    fn truncate(&self, path: &Path, len: u64) -> io::Result<()>;
    /// Makes a file durable from byte `from` on, whatever became of an earlier sync: it is written again. After a sync
    /// that failed the system takes what it could not write for written, shows it, and no other sync writes it.
    fn write_again(&self, path: &Path, from: u64) -> io::Result<()>;
    /// Renames a file, in the place of one that is there.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Makes a folder and its parents, where they are missing.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Removes a folder with all that is in it; none is there is fine.
    fn remove_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// What is in a folder, sorted; `NotFound` when there is no such folder.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;
    /// Makes the names in a folder durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Bytes that can still be written below a folder.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;

    /// The whole of a small file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = self.open(path)?;
        let len = usize::try_from(file.len()?).map_err(io::Error::other)?;
        let mut content = vec![0; len];
        file.read_exact_at(&mut content, 0)?;
        Ok(content)
    }

    /// Writes a small file so that it is there whole or not at all, also after a power loss. The old content, if there
    /// was one, stays when this fails.
    fn write_synced(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let partial = path.with_extension("partial");
        let mut file = self.create(&partial)?;
        io::Write::write_all(&mut file, content)?;
        file.sync()?;
        self.rename(&partial, path)?;
        path.parent().map_or(Ok(()), |dir| self.sync_dir(dir))
    }
}

/// A file that is written from one end to the other.
#[allow(clippy::missing_errors_doc, reason = "the system's error")]
pub trait DiskFile: io::Write + Send {
    /// Makes what was written durable. After an error nobody knows what is on the disk: the file must not be synced again
    /// as if it were known.
    fn sync(&mut self) -> io::Result<()>;
    /// Takes back what was written beyond `len` bytes; appending goes on there.
    fn set_len(&mut self, len: u64) -> io::Result<()>;
}

/// A file that is read from.
#[allow(clippy::missing_errors_doc, reason = "the system's error")]
pub trait DiskRead: Send {
    /// The file's length, bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether there is nothing in it.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Fills `buffer` from `offset`; `UnexpectedEof` when the file ends before.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

/// The file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

/// Telemetry can hold secrets: files are for their owner alone.
const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

/// Read and written at once when a file is written again.
const COPY_STEP_BYTES: usize = 1 << 20;

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        // Appending, so that what follows a failed write that was cut off has no hole before it.
        let mut options = OpenOptions::new();
        let file = options
            .append(true)
            .create(true)
            .mode(FILE_MODE)
            .open(path)?;
        file.set_len(0)?;
        Ok(Box::new(file))
    }

    fn overwrite(&self, path: &Path) -> io::Result<(Box<dyn DiskFile>, u64)> {
        let file = OpenOptions::new().write(true).open(path)?;
        let len = file.metadata()?.len();
        Ok((Box::new(file), len))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskRead>> {
        Ok(Box::new(File::open(path)?))
    }

    fn truncate(&self, path: &Path, len: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(path)?;
        file.set_len(len)?;
        file.sync_all()
    }

    fn write_again(&self, path: &Path, from: u64) -> io::Result<()> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let len = DiskRead::len(&file)?;
        let mut step = vec![0; COPY_STEP_BYTES];
        let mut at = from;
        while at < len {
            let take = usize::try_from(len - at).map_or(step.len(), |left| left.min(step.len()));
            let part = step.get_mut(..take).unwrap_or_default();
            FileExt::read_exact_at(&file, part, at)?;
            file.write_all_at(part, at)?;
            at += part.len() as u64;
        }
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(FOLDER_MODE).create(dir)
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        match fs::remove_dir_all(dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let entries = fs::read_dir(dir)?;
        let mut paths = entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<io::Result<Vec<_>>>()?;
        paths.sort();
        Ok(paths)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let space = rustix::fs::statvfs(dir)?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }
}

impl DiskFile for File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        File::set_len(self, len)?;
        // Where one that is written over goes on; one that is appended to does so in any case.
        io::Seek::seek(self, io::SeekFrom::Start(len)).map(|_| ())
    }
}

impl DiskRead for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buffer, offset)
    }
}
