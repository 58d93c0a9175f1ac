//! What a producer may do differently, within what the receiver has to understand.

use std::num::{NonZeroU64, NonZeroUsize};

/// How a producer writes its stream.
///
/// The default is what real producers do; the rest is legal and seen less often, for tests of receivers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How the bodies of IPC messages are compressed.
    pub compression: Compression,
    /// How values that repeat are written.
    pub dictionaries: Dictionaries,
    /// How ids and parent ids are written.
    pub ids: IdEncoding,
    /// Whether optional columns are left out until their first value; else they are there from the first batch on.
    pub late_columns: bool,
    /// Whether 0, false and the empty text are written as nulls in the columns of an AnyValue, as they may.
    pub defaults_as_null: bool,
    /// Whether trace and span ids that are not there are written as zeros, as by Go.
    pub unset_ids_as_zeros: bool,
    /// After how many batches a table begins a new IPC stream though its schema is the same.
    pub schema_reset_batches: Option<NonZeroU64>,
    /// Whether the root table is the last payload of a batch, and its attributes go before it.
    pub root_last: bool,
    /// How many record batches a table is cut into, if it has as many rows.
    pub record_batches: NonZeroUsize,
    /// Whether tables of different types may use the same schema id.
    pub shared_schema_ids: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            compression: Compression::Zstd,
            dictionaries: Dictionaries::Delta,
            ids: IdEncoding::Unmarked,
            late_columns: true,
            defaults_as_null: false,
            unset_ids_as_zeros: false,
            schema_reset_batches: None,
            root_last: false,
            record_batches: NonZeroUsize::MIN,
            shared_schema_ids: false,
        }
    }
}

/// How the bodies of IPC messages are compressed: each buffer by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// Zstandard, its fastest usual level.
    Zstd,
}

/// How values that repeat are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dictionaries {
    /// A dictionary that grows; what is new in a batch goes out as a delta.
    Delta,
    /// A dictionary that grows; where there is something new, all of it goes out again as a replacement.
    Resend,
    /// A dictionary with the values of one batch only, which replaces the one before.
    Renew,
    /// No dictionaries: native columns.
    Native,
}

/// How ids and parent ids are written. Each column has an encoding of its own that holds unless its field says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdEncoding {
    /// Each column's own encoding, and no field says so: as by Go, whose attributes and exemplars compare doubles as numbers (NaN
    /// equals nothing, the zeros equal each other), and bytes that are null as equal.
    Unmarked,
    /// Each column's own encoding, and its field says so, `delta` or `quasidelta`: as by Rust, which compares doubles by their bits.
    Marked,
    /// Every id as it is; the fields say `plain`.
    Plain,
    /// Every id as the difference to the one before, also parent ids; the fields say `delta`.
    Delta,
}
