//! Defaults and ranges of every limit, and the proof that the defaults fit together.
//!
//! The inequalities that [`super::Config::load`] holds for every configuration:
//! - `max_buffered_bytes >= 2 * seal_target_bytes`: one seal can fill while one is staged.
//! - `journal_max_bytes >= 2 * seal_target_bytes`: one seal can fill while one is published.
//! - `max_body_bytes <= max_buffered_bytes`: the largest body allowed can be taken in at all.
//!
//! A smaller buffer alone makes the *defaults* of seal target and body smaller, a smaller journal that of the seal
//! target; neither ever makes a start fail.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::value::{Count, Size, Span};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// Default of `max-body-bytes`.
pub const BODY_BYTES: u64 = 16 * MIB;
/// Range of `max-body-bytes`. A gRPC message's length is 32 bits wide; 1 GiB keeps well inside.
pub const BODY_BYTES_RANGE: RangeInclusive<Size> = Size(KIB)..=Size(GIB);

/// Default of `max-buffered-bytes`.
pub const BUFFERED_BYTES: u64 = 512 * MIB;
/// Range of `max-buffered-bytes`.
pub const BUFFERED_BYTES_RANGE: RangeInclusive<Size> = Size(BUFFERED_BYTES_MIN)..=Size(TIB);
const BUFFERED_BYTES_MIN: u64 = 64 * KIB;

/// Default of `journal-max-bytes`.
pub const JOURNAL_BYTES: u64 = 8 * GIB;
/// Range of `journal-max-bytes`.
pub const JOURNAL_BYTES_RANGE: RangeInclusive<Size> = Size(JOURNAL_BYTES_MIN)..=Size(64 * TIB);
const JOURNAL_BYTES_MIN: u64 = MIB;

/// Default of `dedup-window`. A client that retries at all does so within minutes.
pub const DEDUP_WINDOW: Duration = Duration::from_secs(5 * 60);
/// Range of `dedup-window`; zero remembers nothing.
pub const DEDUP_WINDOW_RANGE: RangeInclusive<Span> =
    Span(Duration::ZERO)..=Span(Duration::from_secs(3600));

/// Default of `seal-target-bytes` while buffer and journal are large enough for it.
pub const SEAL_TARGET_BYTES: u64 = 128 * MIB;
/// Range of `seal-target-bytes`.
pub const SEAL_TARGET_BYTES_RANGE: RangeInclusive<Size> =
    Size(SEAL_TARGET_BYTES_MIN)..=Size(16 * GIB);
const SEAL_TARGET_BYTES_MIN: u64 = 4 * KIB;

/// Default of `seal-max-age`.
pub const SEAL_MAX_AGE: Duration = Duration::from_secs(5);
/// Range of `seal-max-age`. A publish takes about 25 ms: cutting more often than every 10 ms only queues seals.
pub const SEAL_MAX_AGE_RANGE: RangeInclusive<Span> =
    Span(Duration::from_millis(10))..=Span(Duration::from_secs(3600));

/// Default of `max-connections`.
pub const CONNECTIONS: u32 = 1024;
/// Range of `max-connections`.
pub const CONNECTIONS_RANGE: RangeInclusive<Count> = Count(1)..=Count(1_000_000);

/// Default of `max-concurrent-streams`.
pub const CONCURRENT_STREAMS: u32 = 256;
/// Range of `max-concurrent-streams`.
pub const CONCURRENT_STREAMS_RANGE: RangeInclusive<Count> = Count(1)..=Count(65_536);

/// Default of `target-file-size`.
pub const TARGET_FILE_BYTES: u64 = 256 * MIB;
/// Range of `target-file-size`.
pub const TARGET_FILE_BYTES_RANGE: RangeInclusive<Size> = Size(64 * KIB)..=Size(64 * GIB);

/// Default of `snapshot-retention`.
pub const SNAPSHOT_RETENTION: Duration = Duration::from_secs(15 * 60);
/// Range of `snapshot-retention`. Files of an expired snapshot vanish under whoever reads it: never at once.
pub const SNAPSHOT_RETENTION_RANGE: RangeInclusive<Span> =
    Span(Duration::from_secs(1))..=Span(Duration::from_secs(3650 * 86_400));

/// Default of `shutdown-grace`.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(30);
/// Range of `shutdown-grace`; zero leaves at once, with what is staged by then.
pub const SHUTDOWN_GRACE_RANGE: RangeInclusive<Span> =
    Span(Duration::ZERO)..=Span(Duration::from_secs(3600));

/// The seal target when the user set none: a quarter of the smaller of buffer and journal, 128 MiB at most.
#[must_use]
pub const fn default_seal_target_bytes(buffered_bytes: u64, journal_bytes: u64) -> u64 {
    let smaller = if journal_bytes < buffered_bytes {
        journal_bytes
    } else {
        buffered_bytes
    };
    let quarter = smaller / 4;
    if quarter < SEAL_TARGET_BYTES {
        quarter
    } else {
        SEAL_TARGET_BYTES
    }
}

/// The body limit when the user set none: the whole buffer, 16 MiB at most.
#[must_use]
pub const fn default_body_bytes(buffered_bytes: u64) -> u64 {
    if buffered_bytes < BODY_BYTES {
        buffered_bytes
    } else {
        BODY_BYTES
    }
}

// The defaults hold the inequalities, at the usual buffer and journal and at the smallest.
const _: () =
    assert!(default_seal_target_bytes(BUFFERED_BYTES, JOURNAL_BYTES) == SEAL_TARGET_BYTES);
const _: () = assert!(
    default_seal_target_bytes(BUFFERED_BYTES_MIN, JOURNAL_BYTES_MIN) >= SEAL_TARGET_BYTES_MIN
);
const _: () =
    assert!(default_seal_target_bytes(BUFFERED_BYTES, JOURNAL_BYTES_MIN) >= SEAL_TARGET_BYTES_MIN);
const _: () = assert!(BUFFERED_BYTES >= 2 * SEAL_TARGET_BYTES);
const _: () = assert!(JOURNAL_BYTES >= 2 * SEAL_TARGET_BYTES);
const _: () = assert!(default_body_bytes(BUFFERED_BYTES) == BODY_BYTES);
