//! OTAP: the Arrow record batches of one stream to rows.
//!
//! A batch is read in three steps. First its messages are told apart and verified ([`Walked`]). Then every payload goes through the Arrow IPC reader that it continues, which may change that
//! reader's dictionaries; then the tables that came out become rows. Where the first two cannot follow the client's writer,
//! the stream is lost: every delta and every key that comes after would mean something else. All else is the batch's alone.
//!
//! | what is wrong | error | why |
//! |---|---|---|
//! | headers that cannot be decoded | [`OtapError::Stream`] | their dynamic table is not the client's any more |
//! | a record whose messages cannot be told apart, a schema or dictionary that cannot be taken, or no memory for it | [`OtapError::Stream`] | it and those behind it are missing; without memory, the client may send the batch again on a new stream |
//! | more than [`PAYLOADS_MAX`] payloads | [`OtapError::Stream`] | they are not read |
//! | a record batch that cannot be taken, such as one with text that is not UTF-8, or no memory for it | [`OtapError::Batch`] | the dictionaries are not its; everything behind it is read first |
//! | two payloads of one type | [`OtapError::Batch`] | both are read first |
//! | a payload of a type that the signal has not, of `UNKNOWN`, of `MULTIVARIATE_METRICS`, or with too long a schema id | [`OtapError::Batch`] | it is not read, as none of its kind ever is, so that no reader misses it; the others are read first |
//! | tables that make no rows, or no memory for them | [`OtapError::Batch`] | everything was read |
//!
//! After an [`OtapError::Stream`] everything the stream held is given back, and every call answers the same error.
//!
//! Limits: [`held`] for memory, [`prewalk`] for messages, [`readers`] for readers, [`headers`] for headers, and those below.
//!
//! Source: OTAP (otel-arrow), "OTAP Formal Specification"; where it and the producers differ, the producers.

mod batch;
mod dictionary;
pub mod headers;
pub mod held;
mod inflate;
pub mod message;
pub mod prewalk;
pub mod readers;
mod rows;
mod tables;
mod walked;

use self::headers::{Header, Headers};
use self::held::Memory;
use self::readers::Readers;
use self::rows::rows;
use self::tables::Tables;
pub use self::walked::Walked;
use crate::decode::DecodeError;
use crate::memory::{Budget, Reservation};
use crate::proto::arrow::{ArrowPayloadType, BatchArrowRecords};
use crate::rows::Rows;
use crate::signal::Signal;

/// Payloads of one batch. Metrics have 18 types, each of which comes once.
pub const PAYLOADS_MAX: usize = 32;

/// A payload's schema id, bytes. Producers number their schemas.
pub const SCHEMA_ID_BYTES_MAX: usize = 128;

/// Why a batch was refused, and what it means for the batches behind it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OtapError {
    /// The batch is wrong, or there is no memory for its rows; the stream's state is as if it had been taken.
    #[error("{0}")]
    Batch(DecodeError),
    /// The stream's state is lost with it: nothing that comes after can be understood.
    #[error("{0}")]
    Stream(DecodeError),
}

impl OtapError {
    /// The same failure of a batch that holds `beside` bytes elsewhere: see [`DecodeError::holding`].
    #[must_use]
    pub fn holding(self, beside: u64) -> OtapError {
        match self {
            OtapError::Batch(error) => OtapError::Batch(error.holding(beside)),
            OtapError::Stream(error) => OtapError::Stream(error.holding(beside)),
        }
    }
}

/// The state of one stream: Arrow IPC readers with their dictionaries, and the headers' dynamic table.
#[derive(Debug)]
pub struct StreamDecoder {
    signal: Signal,
    headers: Headers,
    readers: Readers,
    memory: Memory,
    /// Why nothing more can be read.
    lost: Option<DecodeError>,
}

impl StreamDecoder {
    /// The state of a stream that begins. Dictionaries take memory from `budget`.
    #[must_use]
    pub fn new(signal: Signal, budget: &Budget) -> StreamDecoder {
        StreamDecoder {
            signal,
            headers: Headers::new(),
            readers: Readers::default(),
            memory: Memory::new(budget),
            lost: None,
        }
    }

    /// Bytes of the budget that the stream holds from batch to batch: dictionaries and schemas.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.memory.held_bytes()
    }

    /// Arrow IPC readers that the stream has.
    #[must_use]
    pub fn readers(&self) -> usize {
        self.readers.count()
    }

    /// Decodes a batch's headers: names and values, in order. To be called for every batch, in order, before
    /// [`StreamDecoder::decode`].
    ///
    /// # Errors
    /// [`OtapError::Stream`] when they are not HPACK, or larger than is taken.
    pub fn headers(&mut self, headers: &[u8]) -> Result<Vec<Header>, OtapError> {
        self.check()?;
        let decoded = self.headers.decode(headers);
        decoded.map_err(|what| self.lose(DecodeError::Malformed(what)))
    }

    /// Decodes one batch, received at `received_unix_nano`. Memory for the rows is taken from `reservation`, which ends up in
    /// the result.
    ///
    /// # Errors
    /// [`OtapError`]; nothing of the batch is kept then but what its dictionaries became.
    pub fn decode(
        &mut self,
        batch: &BatchArrowRecords,
        received_unix_nano: i64,
        reservation: Reservation,
    ) -> Result<Rows, OtapError> {
        let walked = Walked::new(self.signal, batch);
        self.decode_walked(walked, received_unix_nano, reservation)
    }

    /// Decodes one batch whose messages are known; else as [`StreamDecoder::decode`].
    ///
    /// # Errors
    /// [`OtapError`]; nothing of the batch is kept then but what its dictionaries became.
    pub fn decode_walked(
        &mut self,
        batch: Walked<'_>,
        received_unix_nano: i64,
        reservation: Reservation,
    ) -> Result<Rows, OtapError> {
        let tables = self.read_walked(batch, reservation.bytes())?;
        let beside = tables.bytes() + self.memory.grown_bytes();
        let rows = rows(self.signal, &tables, received_unix_nano, reservation);
        rows.map_err(|error| OtapError::Batch(error.holding(beside)))
    }

    /// Reads the tables of a batch, which holds `beside` bytes of the budget already.
    fn read_walked(&mut self, batch: Walked<'_>, beside: u64) -> Result<Tables, OtapError> {
        self.check()?;
        self.memory.begin_batch(beside);
        match self.read_payloads(batch) {
            Ok(Ok(mut tables)) => {
                tables.hold(self.memory.take_batch());
                Ok(tables)
            }
            Ok(Err(refused)) => {
                self.memory.begin_batch(0);
                Err(OtapError::Batch(refused))
            }
            Err(lost) => Err(self.lose(lost)),
        }
    }

    /// Reads all payloads, and only then makes tables of them or refuses them. The outer error loses the stream.
    fn read_payloads(
        &mut self,
        batch: Walked<'_>,
    ) -> Result<Result<Tables, DecodeError>, DecodeError> {
        if let Some(lost) = batch.lost {
            return Err(lost);
        }
        let mut read = Vec::with_capacity(batch.payloads.len());
        // The first reason counts.
        let mut refused = batch.refused;
        for payload in &batch.payloads {
            let batches = self.readers.read(payload, &mut self.memory);
            match batches.map_err(|error| within(payload.of, error))? {
                Ok(batches) => read.push((payload.of, batches)),
                Err(error) => refused = refused.or(Some(within(payload.of, error))),
            }
        }
        Ok(match refused {
            Some(why) => Err(why),
            None => self.make_tables(&read),
        })
    }

    fn make_tables(
        &mut self,
        read: &[(ArrowPayloadType, Vec<arrow::record_batch::RecordBatch>)],
    ) -> Result<Tables, DecodeError> {
        let rows = read.iter().flat_map(|(_, batches)| batches);
        let rows = rows.map(|batch| batch.num_rows() as u64).sum::<u64>();
        self.memory
            .use_for_batch(rows.saturating_mul(SCRATCH_BYTES_PER_ROW))?;
        let mut tables = Tables::default();
        for (payload_type, batches) in read {
            let table = readers::table(batches, &mut self.memory);
            if let Some(table) = table.map_err(|error| within(*payload_type, error))? {
                tables.insert(*payload_type, table);
            }
        }
        Ok(tables)
    }

    fn check(&self) -> Result<(), OtapError> {
        match &self.lost {
            Some(lost) => Err(OtapError::Stream(lost.clone())),
            None => Ok(()),
        }
    }

    /// Gives up the stream and what it holds.
    fn lose(&mut self, why: DecodeError) -> OtapError {
        self.headers = Headers::new();
        self.readers = Readers::default();
        self.memory.clear();
        self.lost = Some(why.clone());
        OtapError::Stream(why)
    }
}

/// What a row of any table takes while its batch becomes rows, bytes: ids, parents, their index and the order of children.
/// A few kilobytes of compressed columns can have millions of rows, whose columns are much smaller than that.
const SCRATCH_BYTES_PER_ROW: u64 = 64;

/// Whether a signal's batches have payloads of this type.
fn is_of(signal: Signal, payload_type: ArrowPayloadType) -> bool {
    use ArrowPayloadType as Type;
    match payload_type {
        Type::ResourceAttrs | Type::ScopeAttrs => true,
        Type::Logs | Type::LogAttrs => signal == Signal::Logs,
        Type::Spans
        | Type::SpanAttrs
        | Type::SpanEvents
        | Type::SpanLinks
        | Type::SpanEventAttrs
        | Type::SpanLinkAttrs => signal == Signal::Traces,
        Type::UnivariateMetrics
        | Type::MetricAttrs
        | Type::NumberDataPoints
        | Type::SummaryDataPoints
        | Type::HistogramDataPoints
        | Type::ExpHistogramDataPoints
        | Type::NumberDpAttrs
        | Type::SummaryDpAttrs
        | Type::HistogramDpAttrs
        | Type::ExpHistogramDpAttrs
        | Type::NumberDpExemplars
        | Type::HistogramDpExemplars
        | Type::ExpHistogramDpExemplars
        | Type::NumberDpExemplarAttrs
        | Type::HistogramDpExemplarAttrs
        | Type::ExpHistogramDpExemplarAttrs => signal == Signal::Metrics,
        // No producer writes the second.
        Type::Unknown | Type::MultivariateMetrics => false,
    }
}

/// An error with the payload that it is about.
fn within(payload_type: ArrowPayloadType, error: DecodeError) -> DecodeError {
    match error {
        DecodeError::Malformed(what) => {
            DecodeError::Malformed(format!("payload {}: {what}", payload_type.as_str_name()))
        }
        memory @ DecodeError::Memory(_) => memory,
    }
}

#[cfg(test)]
mod tests;
