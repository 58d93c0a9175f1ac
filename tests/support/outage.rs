//! Disks and lakes that fail: a small disk of the test's own, a lake that is away, and how long.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::data_dir;

/// How long an outage lasts at least. With `OTLAKE_TORTURE_OUTAGES` set, as by `scripts/torture outages`, it is `full`; else
/// it ends when everything that must be seen of it was seen.
pub fn outage_min(full: Duration) -> Duration {
    if std::env::var_os("OTLAKE_TORTURE_OUTAGES").is_some() {
        full
    } else {
        Duration::ZERO
    }
}

/// Says that this machine cannot run a test, past the test harness, which keeps what a passing test prints to itself.
pub fn skip(test: &str, why: &str) {
    let _ = writeln!(io::stderr(), "SKIPPED {test}: {why}");
}

/// The lake's folder, taken away as a volume that is not mounted.
pub struct LakeAway {
    lake: PathBuf,
    away: PathBuf,
}

impl LakeAway {
    pub fn take(data_dir: &Path) -> LakeAway {
        let (lake, away) = (data_dir.join("lake"), data_dir.join("away"));
        fs::rename(&lake, &away).unwrap();
        LakeAway { lake, away }
    }

    /// Puts the folder back in the place of what is there now, which must have no rows in it.
    pub fn put_back(self) {
        // A merge that was under way when the folder went may have made folders, never files that count.
        let published = self.lake.join("main/otlp_logs");
        let files = fs::read_dir(&published).map_or(0, Iterator::count);
        assert_eq!(files, 0, "something was published into {published:?}");
        let _ = fs::remove_dir_all(&self.lake);
        fs::rename(&self.away, &self.lake).unwrap();
    }
}

/// A file system of a few MiB in memory, mounted inside a server's folder; unmounted when dropped, so drop it after the
/// server.
pub struct SmallDisk {
    dir: PathBuf,
    at: PathBuf,
    ballast: PathBuf,
}

impl SmallDisk {
    /// Mounts a disk as `place` inside the data folder of `dir`, or as the data folder itself when `place` is empty.
    ///
    /// # Errors
    /// What `mount` said: the system may not allow it.
    pub fn mount(dir: &TempDir, place: &str, mib: u32) -> Result<SmallDisk, String> {
        let at = data_dir(dir).join(place);
        fs::create_dir_all(&at).unwrap();
        mount(
            &["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"],
            &at,
        )?;
        let ballast = at.join("ballast");
        let dir = dir.path().to_owned();
        Ok(SmallDisk { dir, at, ballast })
    }

    /// Fills the disk with a file, but for `left` bytes.
    pub fn fill_up(&self, left: u64) {
        let mut ballast = File::create(&self.ballast).unwrap();
        let block = [0; 64 << 10];
        while ballast.write_all(&block).is_ok() {}
        let filled = ballast.metadata().unwrap().len();
        assert!(filled > left, "the disk has only {filled} bytes free");
        ballast.set_len(filled - left).unwrap();
    }

    /// Removes the file that fills the disk.
    pub fn make_room(&self) {
        fs::remove_file(&self.ballast).unwrap();
    }

    /// Makes the disk read-only once nobody has a file open for writing on it; or writable again.
    pub fn set_read_only(&self, is_read_only: bool) -> Result<(), String> {
        let mode = if is_read_only {
            "remount,ro"
        } else {
            "remount,rw"
        };
        mount(&["-o", mode], &self.at)
    }
}

fn mount(args: &[&str], at: &Path) -> Result<(), String> {
    let output = Command::new("mount").args(args).arg(at).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Err(format!("mount: {error}")),
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a test that fails may leave something open. What cannot be unmounted is left to whoever finds it.
        let _ = Command::new("umount").arg("--lazy").arg(&self.at).status();
        // The server's folder could not go before.
        let _ = fs::remove_dir_all(&self.dir);
    }
}
