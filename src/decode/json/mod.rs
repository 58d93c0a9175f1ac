//! OTLP/JSON to rows.
//!
//! The rules of the encoding, wider where senders are known to stray:
//!
//! | what | accepted |
//! |---|---|
//! | names | lowerCamelCase and snake_case; unknown ones are skipped, whatever they hold |
//! | ids | hex of either case; one that is no hex or too long or short is the record's own fault, not the body's |
//! | bytes | base64 of either alphabet, padded or not |
//! | ints | number or string, an integral float too; out of range is malformed |
//! | doubles | number or string, `NaN`, `Infinity`, `-Infinity` |
//! | enums | number, or the name of the `.proto` file; another name is malformed |
//! | null | absent: the field, the list, the record |
//! | repeated keys | the last wins, as among the members of a `oneof`; but a list that carries records may stand only once, because the first one's records would vanish unseen |
//! | encoding | UTF-8, a byte order mark in front is skipped |
//!
//! Memory: no tree of the request is built. The keys of an object come in any order, so the lists of scopes and of
//! records are first passed over as borrowed text, and then read element by element; each record goes into the builder
//! before the next is read. What one record can hold in between is bounded: by [`RECORD_PARTS_MAX`] small structs, and by
//! the body's own length in text, which is reserved ahead (`RESERVED_AHEAD`).
//!
//! Source: OTLP 1.x, "JSON Protobuf Encoding"; proto3, "ProtoJSON Format".

mod exemplars;
mod groups;
mod logs;
mod metrics;
mod points;
mod read;
mod scalar;
#[cfg(test)]
mod tests;
mod traces;
mod value;

use std::cell::{Cell, RefCell};

use serde::de::{DeserializeSeed, Error as _};
use serde_json::value::RawValue;

use self::groups::{Request, Target};
use self::logs::LogTarget;
use self::metrics::MetricTarget;
use self::read::ReadMessage;
use self::traces::TraceTarget;
use super::DecodeError;
use crate::memory::Reservation;
use crate::rows::{LogRows, MetricRows, Rows, TraceRows};
use crate::signal::Signal;

/// Attributes, list items, events, links, exemplars and bucket numbers that one record, resource or scope may have.
///
/// One can be as short as two bytes of the body, and is at most 56 bytes while its record is read; with the spare room of
/// the lists they stand in, this bounds a record's tree to 32 MiB whatever the body is. A record with more is malformed.
pub const RECORD_PARTS_MAX: usize = 1 << 17;

/// Bytes reserved for each byte of the body before it is read: for itself, and for one record's text, which can be as
/// long as the body. The rows count into the same reservation, and take more once they outgrow it.
const RESERVED_AHEAD: u64 = 2;

/// The longest reason a refusal carries, characters.
const REASON_CHARS_MAX: usize = 200;

/// Decodes one OTLP/JSON document, an `Export*ServiceRequest` of `signal`.
///
/// An empty object succeeds without rows; an empty body is malformed.
///
/// # Errors
/// [`DecodeError::Malformed`] with the line and column, and never with the sender's own text;
/// [`DecodeError::Memory`] when the rows do not fit. Nothing is kept then.
pub fn decode(
    signal: Signal,
    body: &[u8],
    received_unix_nano: i64,
    reservation: Reservation,
) -> Result<Rows, DecodeError> {
    decode_documents(signal, body, received_unix_nano, reservation, |text| {
        std::iter::once(text)
    })
}

/// Decodes newline-delimited OTLP/JSON: one whole `Export*ServiceRequest` of `signal` a line.
///
/// Blank lines are skipped, and lines may end in CRLF. All lines succeed or none is kept.
///
/// # Errors
/// As [`decode`]; the line of the error is the body's own.
pub fn decode_lines(
    signal: Signal,
    body: &[u8],
    received_unix_nano: i64,
    reservation: Reservation,
) -> Result<Rows, DecodeError> {
    decode_documents(signal, body, received_unix_nano, reservation, |text| {
        text.split('\n')
            .filter(|line| !line.trim_ascii().is_empty())
    })
}

fn decode_documents<'a, I: Iterator<Item = &'a str>>(
    signal: Signal,
    body: &'a [u8],
    received_unix_nano: i64,
    mut reservation: Reservation,
    documents: impl FnOnce(&'a str) -> I,
) -> Result<Rows, DecodeError> {
    reservation.grow_to(RESERVED_AHEAD.saturating_mul(body.len() as u64))?;
    let text = std::str::from_utf8(body).map_err(|error| {
        let valid = error.valid_up_to();
        DecodeError::Malformed(format!("OTLP/JSON: invalid UTF-8 at byte {valid}"))
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let source = Source {
        body: text,
        failure: RefCell::default(),
        parts: Cell::default(),
    };
    let documents = documents(text);
    match signal {
        Signal::Logs => {
            let rows = LogRows::new(received_unix_nano, reservation);
            read_all(&source, documents, LogTarget::new(rows))
        }
        Signal::Traces => read_all(
            &source,
            documents,
            TraceTarget::new(TraceRows::new(reservation)),
        ),
        Signal::Metrics => read_all(
            &source,
            documents,
            MetricTarget::new(MetricRows::new(reservation)),
        ),
    }
}

fn read_all<'a, T: Target<'a>>(
    source: &Source<'a>,
    documents: impl Iterator<Item = &'a str>,
    mut target: T,
) -> Result<Rows, DecodeError> {
    for document in documents {
        let mut request = Request::new(source, &mut target);
        if !source.read(document, ReadMessage(&mut request))? {
            return Err(source.malformed(
                document,
                &serde_json::Error::custom("null, expected an OTLP export request object"),
            ));
        }
    }
    Ok(target.finish()?)
}

/// The body under decoding: where a text stands in it, what has failed, and how large the current record is.
#[derive(Debug)]
struct Source<'a> {
    body: &'a str,
    /// The first failure that serde's error type cannot carry: lack of memory, or one inside a text read later.
    failure: RefCell<Option<DecodeError>>,
    parts: Cell<usize>,
}

impl<'a> Source<'a> {
    /// Reads one JSON text of the body to its end.
    fn read<S: DeserializeSeed<'a>>(
        &self,
        text: &'a str,
        seed: S,
    ) -> Result<S::Value, DecodeError> {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        seed.deserialize(&mut deserializer)
            .and_then(|value| deserializer.end().map(|()| value))
            .map_err(|error| {
                let failure = self.failure.borrow_mut().take();
                failure.unwrap_or_else(|| self.malformed(text, &error))
            })
    }

    /// Reads a text that was passed over before, from inside a visitor.
    fn read_later<S: DeserializeSeed<'a>, E: serde::de::Error>(
        &self,
        raw: &'a RawValue,
        seed: S,
    ) -> Result<S::Value, E> {
        self.read(raw.get(), seed)
            .map_err(|error| self.abort(error))
    }

    /// Keeps a failure aside, and gives the error that ends the reading.
    fn abort<E: serde::de::Error>(&self, failure: DecodeError) -> E {
        self.failure.borrow_mut().get_or_insert(failure);
        E::custom("aborted")
    }

    /// A record, resource or scope begins.
    fn begin_record(&self) {
        self.parts.set(0);
    }

    /// Counts one more part of the current record.
    fn count_part<E: serde::de::Error>(&self) -> Result<(), E> {
        let parts = self.parts.get();
        if parts == RECORD_PARTS_MAX {
            return Err(E::custom(format_args!(
                "more than {RECORD_PARTS_MAX} attributes and list items in one record"
            )));
        }
        self.parts.set(parts + 1);
        Ok(())
    }

    /// Says what is wrong with `text`, a part of the body, at its place in the whole body.
    fn malformed(&self, text: &str, error: &serde_json::Error) -> DecodeError {
        let before = text.as_ptr().addr() - self.body.as_ptr().addr();
        let before = self.body.get(..before).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + error.line().max(1);
        let column = match error.line() {
            0 | 1 => before.len() - line_start + error.column(),
            _ => error.column(),
        };
        let reason = reason(error);
        DecodeError::Malformed(format!(
            "OTLP/JSON: {reason} at line {line} column {column}"
        ))
    }
}

/// serde's own words without their place, and without the sender's text that they may quote.
fn reason(error: &serde_json::Error) -> String {
    let mut reason = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    if reason.ends_with(&place) {
        reason.truncate(reason.len() - place.len());
    }
    let quotes = reason
        .find(": string \"")
        .zip(reason.rfind("\", expected "));
    if let Some((from, to)) = quotes.filter(|(from, to)| from < to) {
        reason.replace_range(from + ": string".len()..=to, "");
    }
    // A double that stands where it should not is quoted with up to 309 digits.
    if reason.chars().nth(REASON_CHARS_MAX).is_some() {
        reason = reason.chars().take(REASON_CHARS_MAX).collect();
    }
    reason
}
