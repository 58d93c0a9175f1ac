//! Reading batches back, to stage or to buffer them again.

use std::ops::RangeInclusive;

use arrow::record_batch::RecordBatch;

use super::batch::{self, Schemas};
use super::error::{Damage, ScanError};
use super::frame::Kind;
use super::scan::{Scan, SegmentInfo};
use super::segment::SegmentReader;
use crate::disk::Disk;
use crate::rows::compact;
use crate::signal::Table;

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
            .map(|(table, batch)| (table, compact(table, &[batch])))
            .collect();
        take(StoredBatch { sequence, batches })?;
    }
    Ok(())
}
