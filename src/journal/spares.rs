//! Removed segments that are kept to be written over.
//!
//! Writing over a file that is in memory and whose blocks are there costs about half of what a new file costs, and a sync of
//! it less than half: nothing is allocated, and no name or length changes (scripts/bench-journal).

use std::io;
use std::path::{Path, PathBuf};

use crate::disk::Disk;

/// So many are kept: a seal that is published lets go of one or two segments at once.
const SPARES_MAX: usize = 3;

/// How much longer than twice the length at which the next one follows a segment may be: it has a start, and one large
/// request at its end.
const USUAL_BYTES_MORE: u64 = 64 << 10;

/// What a spare's file is called, before its number.
const PREFIX: &str = "spare-";

/// Whether this is a spare's file, of this run or an earlier one.
pub(super) fn is_spare(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let number = name.and_then(|name| name.strip_prefix(PREFIX));
    number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The spares in a journal's folder.
#[derive(Debug, Default)]
pub(super) struct Spares {
    dir: PathBuf,
    segment_bytes: u64,
    spares: Vec<(PathBuf, u64)>,
    named: u64,
}

impl Spares {
    /// What the last run left is removed: it is in no memory any more.
    pub(super) fn found(disk: &dyn Disk, dir: &Path, segment_bytes: u64) -> Spares {
        let paths = disk.list(dir).unwrap_or_default();
        for path in paths.iter().filter(|path| is_spare(path)) {
            if let Err(error) = disk.remove_file(path) {
                tracing::debug!(path = %path.display(), %error, "a spare segment cannot be removed");
            }
        }
        Spares {
            dir: dir.to_owned(),
            segment_bytes,
            ..Spares::default()
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.spares.iter().map(|(_, bytes)| bytes).sum()
    }

    pub(super) fn take(&mut self) -> Option<PathBuf> {
        self.spares.pop().map(|(path, _)| path)
    }

    /// Lets a segment go: under a spare's name, when one is wanted and it has the usual length. It is [`Spares::add`]ed when
    /// that is durable.
    pub(super) fn rename_or_remove(
        &mut self,
        disk: &dyn Disk,
        path: &Path,
        bytes: u64,
    ) -> io::Result<Option<PathBuf>> {
        let longest = self.segment_bytes.saturating_mul(2) + USUAL_BYTES_MORE;
        let is_usual = (self.segment_bytes..=longest).contains(&bytes);
        if self.spares.len() >= SPARES_MAX || !is_usual {
            return disk.remove_file(path).map(|()| None);
        }
        let spare = self.dir.join(format!("{PREFIX}{}", self.named));
        disk.rename(path, &spare)?;
        self.named += 1;
        Ok(Some(spare))
    }

    pub(super) fn add(&mut self, spare: PathBuf, bytes: u64) {
        self.spares.push((spare, bytes));
    }

    pub(super) fn remove_all(&mut self, disk: &dyn Disk) {
        for (path, _) in self.spares.drain(..) {
            if let Err(error) = disk.remove_file(&path) {
                tracing::debug!(path = %path.display(), %error, "a spare segment cannot be removed");
            }
        }
    }
}
