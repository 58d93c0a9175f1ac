//! The tables of one batch.

use arrow::record_batch::RecordBatch;

use crate::memory::Reservation;
use crate::proto::arrow::ArrowPayloadType;

/// The tables of one batch by payload type; one that did not come is an empty one.
#[derive(Debug, Default)]
pub(super) struct Tables {
    tables: Vec<(ArrowPayloadType, RecordBatch)>,
    /// The memory of the tables' buffers.
    reservation: Option<Reservation>,
}

impl Tables {
    /// Adds a table; its type must not be there yet.
    pub(super) fn insert(&mut self, payload_type: ArrowPayloadType, table: RecordBatch) {
        self.tables.push((payload_type, table));
    }

    /// The table of a type, if it came and has rows.
    pub(super) fn get(&self, payload_type: ArrowPayloadType) -> Option<&RecordBatch> {
        let table = self.tables.iter().find(|(of, _)| *of == payload_type);
        table
            .map(|(_, table)| table)
            .filter(|table| table.num_rows() > 0)
    }

    /// The memory of the tables' buffers, bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.reservation.as_ref().map_or(0, Reservation::bytes)
    }

    /// Holds the memory of the tables' buffers as long as the tables are there.
    pub(super) fn hold(&mut self, reservation: Reservation) {
        self.reservation = Some(reservation);
    }
}
