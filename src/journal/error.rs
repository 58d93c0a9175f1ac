//! What can go wrong with the journal.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use bytesize::ByteSize;

/// Room kept on the disk beside what the rows need to be staged: the start of a new segment, with all that can be
/// remembered, has 2 MiB, and without it no old one can go.
pub(super) const FREE_BYTES_MIN: u64 = 4 << 20;

/// Why something was not journaled. All of it can be tried again later; none of it is the sender's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// Journal and staged files have the size they are allowed. The same words each time, so that clients and logs can see
    /// that it is the same trouble.
    #[error(
        "the journal and the staged files take the {} they may take; rows do not reach the lake as fast as they come (`otlake status` says why), or raise --journal-max-bytes",
        ByteSize(*max)
    )]
    Full {
        /// Bytes in use.
        used: u64,
        /// `--journal-max-bytes`.
        max: u64,
    },
    /// The file system has no room but that in which what is acknowledged is staged.
    #[error(
        "the disk with the data folder has only the room left that is kept to stage what was acknowledged; make room, service goes on by itself"
    )]
    SpaceKept,
    /// The file system has no room.
    #[error("the disk with the data folder is full; make room, service goes on by itself")]
    NoSpace,
    /// No new segment could be made, and nothing was written: such as for want of file descriptors.
    #[error("the journal cannot go on in a new file: {0}; it is tried again")]
    NoSegment(String),
    /// A write or a sync failed, and what is on the disk is not known.
    #[error(
        "the journal cannot be written: {0}; nothing acknowledged is lost; look at the disk, then start otlake again"
    )]
    Poisoned(String),
    /// The server stops.
    #[error("the server is stopping")]
    Closed,
}

/// Why the journal of the last run cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The file system refused.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something that was synced is not there any more as it was written.
    #[error(
        "the journal is damaged: {0}; `otlake journal inspect` shows what it affects, `otlake journal repair` gives it up"
    )]
    Damaged(Damage),
}

impl JournalError {
    /// Whether there is no room now: what makes room helps.
    #[must_use]
    pub fn is_want_of_room(&self) -> bool {
        matches!(
            self,
            JournalError::Full { .. } | JournalError::SpaceKept | JournalError::NoSpace
        )
    }

    /// The disk has `free_bytes`, and that is too little.
    pub(super) fn no_space(free_bytes: u64) -> JournalError {
        if free_bytes < FREE_BYTES_MIN {
            JournalError::NoSpace
        } else {
            JournalError::SpaceKept
        }
    }
}

impl ScanError {
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> ScanError + '_ {
        move |source| ScanError::Io {
            path: path.to_owned(),
            source,
        }
    }
}

/// A place in the journal that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The segment's file.
    pub path: PathBuf,
    /// Where in it, bytes.
    pub offset: u64,
    /// What is wrong there.
    pub what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} at byte {}: {}",
            self.path.display(),
            self.offset,
            self.what
        )
    }
}
