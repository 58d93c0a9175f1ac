//! The open buffer: rows that wait to be cut into a seal.

use std::time::Instant;

use arrow::record_batch::RecordBatch;

use super::ledger::{Amount, unix_ms};
use crate::memory::Reservation;
use crate::rows::{Rows, batch_bytes, compact};
use crate::signal::Table;

/// Batches below this many rows are put together.
const SMALL_BATCH_ROWS: usize = 64;

/// So many small batches in a row are put together at once. Each row is copied at most once by it.
const SMALL_BATCHES_MAX: usize = 64;

/// The rows of all tables since the last cut, with the memory they hold.
#[derive(Debug, Default)]
pub(super) struct OpenBuffer {
    tables: [TableBuffer; Table::ALL.len()],
    reservation: Option<Reservation>,
    opened: Option<(Instant, i64)>,
}

#[derive(Debug, Default)]
struct TableBuffer {
    batches: Vec<RecordBatch>,
    /// How many batches at the end of the list are small ones not yet put together.
    small: usize,
    amount: Amount,
}

impl OpenBuffer {
    pub(super) fn push(&mut self, rows: Rows) {
        if rows.batches.is_empty() {
            return;
        }
        self.opened
            .get_or_insert_with(|| (Instant::now(), unix_ms()));
        let mut saved = 0;
        for (table, batch) in rows.batches {
            if let Some(buffer) = self.tables.get_mut(table.index()) {
                saved += buffer.push(table, batch);
            }
        }
        match &mut self.reservation {
            None => self.reservation = Some(rows.reservation),
            Some(reservation) => reservation.absorb(rows.reservation),
        }
        if let Some(reservation) = &mut self.reservation {
            reservation.shrink_to(reservation.bytes().saturating_sub(saved));
        }
    }

    /// When the oldest row came in; `None` while empty.
    pub(super) fn opened(&self) -> Option<Instant> {
        self.opened.map(|(instant, _)| instant)
    }

    /// When the oldest row came in, Unix milliseconds; 0 while empty.
    pub(super) fn opened_unix_ms(&self) -> i64 {
        self.opened.map_or(0, |(_, unix_ms)| unix_ms)
    }

    /// The memory held, bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.reservation.as_ref().map_or(0, Reservation::bytes)
    }

    /// Rows and memory by table.
    pub(super) fn amounts(&self) -> [Amount; Table::ALL.len()] {
        self.tables.each_ref().map(|table| table.amount)
    }

    /// The batches of each table that has any, and the memory they hold.
    pub(super) fn into_parts(self) -> (Vec<(Table, Vec<RecordBatch>)>, Option<Reservation>) {
        let tables = Table::ALL
            .into_iter()
            .zip(self.tables)
            .map(|(table, buffer)| (table, buffer.batches))
            .filter(|(_, batches)| !batches.is_empty())
            .collect();
        (tables, self.reservation)
    }
}

impl TableBuffer {
    /// Appends a batch; returns the bytes that putting small batches together gave back.
    fn push(&mut self, table: Table, batch: RecordBatch) -> u64 {
        self.amount.rows += batch.num_rows() as u64;
        self.amount.bytes += batch_bytes(&batch);
        let is_small = batch.num_rows() < SMALL_BATCH_ROWS;
        self.batches.push(batch);
        self.small = if is_small { self.small + 1 } else { 0 };
        if self.small < SMALL_BATCHES_MAX {
            return 0;
        }
        self.small = 0;
        let tail = self
            .batches
            .split_off(self.batches.len() - SMALL_BATCHES_MAX);
        let before: u64 = tail.iter().map(batch_bytes).sum();
        let together = compact(table, &tail);
        let saved = before.saturating_sub(batch_bytes(&together));
        self.batches.push(together);
        self.amount.bytes -= saved;
        saved
    }
}
