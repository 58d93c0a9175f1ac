//! Why a request is refused, before it is put into a protocol's words by [`super::status`].

use std::time::Duration;

use bytesize::ByteSize;

use crate::decode::DecodeError;
use crate::journal::JournalError;
use crate::memory::MemoryError;
use crate::seal::queue::Closed;
use crate::telemetry::Reason;

/// How long a client should wait before it tries again, when memory or disk is short or the server stops.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A request refused whole: nothing of it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason, as it is counted.
    pub reason: Reason,
    /// What happened and what to do about it, for the client and the log; never part of a payload.
    pub message: String,
}

impl Refusal {
    /// A refusal for `reason`, explained by `message`.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Refusal {
        Refusal {
            reason,
            message: message.into(),
        }
    }

    /// The body is over the limit.
    #[must_use]
    pub fn body_too_large(max_body_bytes: usize) -> Refusal {
        Refusal::new(
            Reason::BodyTooLarge,
            format!(
                "the request is larger than {max_body_bytes} bytes after decompression; \
                 send smaller batches or raise --max-body-bytes"
            ),
        )
    }

    /// Whether the same request can succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(
            self.reason,
            Reason::MemoryFull | Reason::DiskFull | Reason::JournalFailed | Reason::Stopping
        )
    }
}

impl From<MemoryError> for Refusal {
    fn from(error: MemoryError) -> Refusal {
        match error {
            // The same words each time, so that clients and logs can see that it is the same trouble.
            MemoryError::Full { limit, .. } => Refusal::new(
                Reason::MemoryFull,
                format!(
                    "the {} of buffer memory are in use; try again, or raise --max-buffered-bytes",
                    ByteSize(limit)
                ),
            ),
            MemoryError::NeverFits { .. } => Refusal::new(
                Reason::RowsTooLarge,
                format!("{error}; send smaller batches"),
            ),
        }
    }
}

impl From<DecodeError> for Refusal {
    fn from(error: DecodeError) -> Refusal {
        match error {
            DecodeError::Malformed(message) => Refusal::new(Reason::Malformed, message),
            DecodeError::Memory(error) => error.into(),
        }
    }
}

impl From<JournalError> for Refusal {
    fn from(error: JournalError) -> Refusal {
        match error {
            JournalError::Full { .. } | JournalError::SpaceKept | JournalError::NoSpace => {
                Refusal::new(Reason::DiskFull, error.to_string())
            }
            // The server's log has the file and the system's words; they are not the client's business.
            JournalError::NoSegment(_) | JournalError::Poisoned(_) => Refusal::new(
                Reason::JournalFailed,
                "the server cannot write its journal; its log says why",
            ),
            JournalError::Closed => Refusal::new(Reason::Stopping, error.to_string()),
        }
    }
}

impl From<Closed> for Refusal {
    fn from(closed: Closed) -> Refusal {
        Refusal::new(Reason::Stopping, closed.to_string())
    }
}
