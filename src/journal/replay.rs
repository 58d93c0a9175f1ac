//! Reading batches back, to stage or to buffer them again.

use std::ops::RangeInclusive;

use arrow::array::{AsArray as _, MAX_INLINE_VIEW_LEN, StringViewArray};
use arrow::record_batch::RecordBatch;

use super::batch::{self, Schemas};
use super::error::{Damage, ScanError};
use super::frame::Kind;
use super::scan::{Scan, SegmentInfo};
use super::segment::SegmentReader;
use crate::disk::Disk;
use crate::rows::compact;
use crate::signal::Table;

/// So much longer than they are held texts may become when they are written out.
const APART_FACTOR: u64 = 16;

/// One request's rows, read back.
#[derive(Debug)]
pub struct StoredBatch {
    /// Its place in the journal.
    pub sequence: u64,
    /// At most one batch a table, as [`crate::rows::Rows`] has them.
    pub batches: Vec<(Table, RecordBatch)>,
}

/// Gives the batches of a range of sequences to `take`, in order, one in memory at a time.
///
/// # Errors
/// [`ScanError`] when a segment cannot be read or a batch not be understood, and whatever `take` says.
pub fn replay<E: From<ScanError>>(
    disk: &dyn Disk,
    scan: &Scan,
    range: RangeInclusive<u64>,
    mut take: impl FnMut(StoredBatch) -> Result<(), E>,
) -> Result<(), E> {
    for segment in &scan.segments {
        if segment.last_sequence >= *range.start() && segment.before_first < *range.end() {
            replay_segment(disk, segment, &range, &mut take)?;
        }
    }
    Ok(())
}

fn replay_segment<E: From<ScanError>>(
    disk: &dyn Disk,
    segment: &SegmentInfo,
    range: &RangeInclusive<u64>,
    take: &mut impl FnMut(StoredBatch) -> Result<(), E>,
) -> Result<(), E> {
    let mut reader = SegmentReader::open(disk, &segment.path)?;
    let damaged = |offset, what| {
        ScanError::Damaged(Damage {
            path: segment.path.clone(),
            offset,
            what,
        })
    };
    let (start_frame, start) = reader.read_start().map_err(|fault| reader.error(fault))?;
    let schemas = Schemas::new(&start.schemas).map_err(|what| damaged(start_frame.offset, what))?;
    while reader.offset() < segment.bytes {
        let Some(frame) = reader.next().map_err(|fault| reader.error(fault))? else {
            break;
        };
        let sequence = frame.header.sequence;
        if frame.header.kind != Kind::Batch || !range.contains(&sequence) {
            continue;
        }
        let (_, batches) =
            batch::decode(&frame.payload, &schemas).map_err(|what| damaged(frame.offset, what))?;
        // All columns point into the one frame. With buffers of their own they can be counted, and go one by one.
        let batches = batches
            .into_iter()
            .filter(|(_, batch)| batch.num_rows() > 0)
            .map(|(table, batch)| (table, apart(table, batch)))
            .collect();
        take(StoredBatch { sequence, batches })?;
    }
    Ok(())
}

/// The batch with buffers of its own; as it is where texts overlap so much that writing each out is out of proportion.
fn apart(table: Table, batch: RecordBatch) -> RecordBatch {
    let columns = batch.columns().iter();
    let mut texts = columns.filter_map(|column| column.as_string_view_opt());
    if texts.any(|texts| apart_bytes(texts) > APART_FACTOR * held_bytes(texts)) {
        return batch;
    }
    compact(table, &[batch])
}

/// What the texts behind views take when one that stands in several rows in a row is kept once.
fn apart_bytes(texts: &StringViewArray) -> u64 {
    let (mut bytes, mut last) = (0, None);
    for (view, len) in texts.views().iter().zip(texts.lengths()) {
        if len > MAX_INLINE_VIEW_LEN && last != Some(view) {
            bytes += u64::from(len);
            last = Some(view);
        }
    }
    bytes
}

/// What the texts behind views take as they are.
fn held_bytes(texts: &StringViewArray) -> u64 {
    let buffers = texts.data_buffers().iter();
    buffers.map(|buffer| buffer.len() as u64).sum()
}
