//! The memory of one stream: what it holds from batch to batch, and what reading one batch takes.

use crate::decode::DecodeError;
use crate::memory::{Budget, MemoryError, Reservation};

/// Bytes of dictionaries and schemas that one stream may hold.
pub const STREAM_BYTES_MAX: u64 = 64 << 20;

/// Bytes of the buffers of one batch, decompressed. Dictionaries count as often as the batch makes them grow, because each
/// time they are copied.
pub const BATCH_BYTES_MAX: u64 = 256 << 20;

/// Counts the bytes of one stream, and takes them from the budget of all.
#[derive(Debug)]
pub(super) struct Memory {
    budget: Budget,
    held: Reservation,
    /// What was held when the batch began, bytes.
    held_before: u64,
    batch: Reservation,
    /// What the batch that is read holds elsewhere, bytes.
    beside: u64,
}

impl Memory {
    /// The memory of a stream that begins.
    pub(super) fn new(budget: &Budget) -> Memory {
        Memory {
            budget: budget.clone(),
            held: budget.empty(),
            held_before: 0,
            batch: budget.empty(),
            beside: 0,
        }
    }

    /// Bytes held from batch to batch.
    pub(super) fn held_bytes(&self) -> u64 {
        self.held.bytes()
    }

    /// Begins a batch that holds `beside` bytes already.
    pub(super) fn begin_batch(&mut self, beside: u64) {
        self.batch.shrink_to(0);
        self.held_before = self.held.bytes();
        self.beside = beside;
    }

    /// Bytes that stay with the stream since the batch began: they are the batch's own.
    pub(super) fn grown_bytes(&self) -> u64 {
        self.held.bytes().saturating_sub(self.held_before)
    }

    /// Hands over the bytes that the batch's tables take.
    pub(super) fn take_batch(&mut self) -> Reservation {
        self.batch.take()
    }

    /// Gives everything back.
    pub(super) fn clear(&mut self) {
        self.held.shrink_to(0);
        self.batch.shrink_to(0);
    }

    /// Takes bytes until the batch's rows are built.
    pub(super) fn use_for_batch(&mut self, bytes: u64) -> Result<(), DecodeError> {
        let sum = self.batch.bytes().saturating_add(bytes);
        if sum > BATCH_BYTES_MAX {
            return Err(DecodeError::Malformed(format!(
                "the batch takes {sum} bytes once it is decompressed, limit {BATCH_BYTES_MAX}"
            )));
        }
        let beside = self.beside + self.grown_bytes();
        let grown = self.batch.grow_to(sum);
        Ok(grown.map_err(|error| error.holding(beside))?)
    }

    /// Takes bytes that stay with the stream.
    pub(super) fn hold(&mut self, bytes: u64) -> Result<(), DecodeError> {
        let sum = self.held.bytes().saturating_add(bytes);
        if sum > STREAM_BYTES_MAX {
            return Err(DecodeError::Malformed(format!(
                "the stream's dictionaries and schemas take {sum} bytes, limit {STREAM_BYTES_MAX}"
            )));
        }
        // What earlier batches left would not be there on a new stream.
        let own = self.beside + self.grown_bytes() + self.batch.bytes();
        let budget = &self.budget;
        self.held.grow_to(sum).map_err(|_| {
            let full = MemoryError::Full {
                wanted: bytes,
                held: 0,
                reserved: budget.reserved(),
                limit: budget.limit(),
            };
            DecodeError::Memory(full.holding(own))
        })
    }

    /// Gives back what [`Memory::hold`] took.
    pub(super) fn release(&mut self, bytes: u64) {
        self.held.shrink_to(self.held.bytes().saturating_sub(bytes));
    }
}
