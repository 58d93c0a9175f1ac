//! Decode: from the bytes of a request to rows.
//!
//! Pure functions: no clock beyond the given receipt time, no I/O, no async. OTLP protobuf and OTLP/JSON feed the same
//! builders of [`crate::rows`]; OTAP joins them there.
//!
//! | what is wrong | what happens |
//! |---|---|
//! | the body cannot be parsed | [`DecodeError::Malformed`], nothing is kept |
//! | the rows do not fit the memory budget | [`DecodeError::Memory`], nothing is kept |
//! | one record breaks a value rule | it is counted in [`Rows::rejections`], the others are kept |

pub mod json;
pub mod otap;
pub mod protobuf;

use crate::memory::{MemoryError, Reservation};
use crate::rows::Rows;
use crate::signal::Signal;

/// How deeply attribute values may nest. Deeper bodies count as unparsable, as protobuf's own limit of 100 does.
pub const VALUE_DEPTH_MAX: usize = 64;

/// The encoding of a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Binary protobuf.
    Protobuf,
    /// One OTLP/JSON document.
    Json,
    /// One OTLP/JSON document a line.
    Ndjson,
}

/// Why a whole request was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The body is not what its encoding asks for.
    #[error("{0}")]
    Malformed(String),
    /// There is no memory for its rows.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

impl DecodeError {
    /// The same failure of a request that holds `beside` bytes elsewhere: see [`MemoryError::holding`].
    #[must_use]
    pub fn holding(self, beside: u64) -> DecodeError {
        match self {
            DecodeError::Memory(error) => DecodeError::Memory(error.holding(beside)),
            malformed @ DecodeError::Malformed(_) => malformed,
        }
    }
}

/// Decodes one request body of `signal`, received at `received_unix_nano`.
///
/// Memory for the rows is taken from `reservation`, which ends up in the result.
///
/// # Errors
/// [`DecodeError`]; nothing is kept then.
///
/// Source: OTLP 1.x, messages `ExportLogsServiceRequest`, `ExportTraceServiceRequest`, `ExportMetricsServiceRequest`.
pub fn decode(
    signal: Signal,
    encoding: Encoding,
    body: &[u8],
    received_unix_nano: i64,
    reservation: Reservation,
) -> Result<Rows, DecodeError> {
    match encoding {
        Encoding::Protobuf => protobuf::decode(signal, body, received_unix_nano, reservation),
        Encoding::Json => json::decode(signal, body, received_unix_nano, reservation),
        Encoding::Ndjson => json::decode_lines(signal, body, received_unix_nano, reservation),
    }
}
