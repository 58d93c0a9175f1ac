//! OTLP protobuf, walked in place.
//!
//! The wire bytes go straight into the builders of [`crate::rows`]: no message structs between, no allocation a record.
//! The three signals share the outer shape (request, resource group, scope group, records), which is walked here; a
//! group's resource and schema URL may stand behind its records, so each group is read twice: once past the records
//! (a length each), once into them.

mod attributes;
mod logs;
mod metrics;
mod traces;
mod value;
pub(super) mod wire;

use wire::Fields;

use crate::decode::DecodeError;
use crate::memory::Reservation;
use crate::rows::{LogRows, MetricRows, ResourceFields, Rows, ScopeFields, TraceRows};
use crate::signal::Signal;

/// Decodes one binary protobuf body. See [`crate::decode::decode`].
///
/// # Errors
/// [`DecodeError`]; nothing is kept then.
pub fn decode(
    signal: Signal,
    body: &[u8],
    received_unix_nano: i64,
    reservation: Reservation,
) -> Result<Rows, DecodeError> {
    match signal {
        Signal::Logs => {
            let mut rows = LogRows::new(received_unix_nano, reservation);
            walk(&mut logs::Decoder::new(&mut rows), body)?;
            Ok(rows.finish()?)
        }
        Signal::Traces => {
            let mut rows = TraceRows::new(reservation);
            walk(&mut traces::Decoder::new(&mut rows), body)?;
            Ok(rows.finish()?)
        }
        Signal::Metrics => {
            let mut rows = MetricRows::new(reservation);
            walk(&mut metrics::Decoder::new(&mut rows), body)?;
            Ok(rows.finish()?)
        }
    }
}

/// What a signal does with the groups and records of its request.
trait SignalDecoder<'a> {
    fn set_resource(&mut self, resource: &ResourceFields<'_>);
    fn set_scope(&mut self, scope: &ScopeFields<'_>);
    /// So many records will follow.
    fn expect(&mut self, records: usize);
    /// A `LogRecord`, `Span` or `Metric`.
    fn record(&mut self, record: &'a [u8]) -> Result<(), DecodeError>;
}

/// Walks `Export*ServiceRequest`: field 1 is the list of resource groups.
fn walk<'a>(decoder: &mut impl SignalDecoder<'a>, request: &'a [u8]) -> Result<(), DecodeError> {
    let mut fields = Fields::new(request);
    while let Some((number, value)) = fields.next()? {
        if number == 1 {
            resource_group(decoder, value.bytes()?)?;
        }
    }
    Ok(())
}

/// `ResourceLogs`, `ResourceSpans` or `ResourceMetrics`: 1 resource, 2 scope groups, 3 schema URL.
fn resource_group<'a>(
    decoder: &mut impl SignalDecoder<'a>,
    group: &'a [u8],
) -> Result<(), DecodeError> {
    let (parts, schema_url, _) = heading(group)?;
    value::resource(parts, schema_url, |resource| decoder.set_resource(resource))?;
    let mut fields = Fields::new(group);
    while let Some((number, value)) = fields.next()? {
        if number == 2 {
            scope_group(decoder, value.bytes()?)?;
        }
    }
    Ok(())
}

/// `ScopeLogs`, `ScopeSpans` or `ScopeMetrics`: 1 scope, 2 records, 3 schema URL.
fn scope_group<'a>(
    decoder: &mut impl SignalDecoder<'a>,
    group: &'a [u8],
) -> Result<(), DecodeError> {
    let (parts, schema_url, records) = heading(group)?;
    value::scope(parts, schema_url, |scope| decoder.set_scope(scope))?;
    decoder.expect(records);
    let mut fields = Fields::new(group);
    while let Some((number, value)) = fields.next()? {
        if number == 2 {
            decoder.record(value.bytes()?)?;
        }
    }
    Ok(())
}

/// The parts of a group's resource or scope (field 1), its schema URL (field 3), and how many groups or records it has (field 2).
fn heading(group: &[u8]) -> Result<(impl Iterator<Item = &[u8]>, &str, usize), DecodeError> {
    let mut fields = Fields::new(group);
    let mut first = None;
    let mut further = Vec::new();
    let mut schema_url = "";
    let mut items = 0;
    while let Some((number, value)) = fields.next()? {
        match number {
            1 if first.is_none() => first = Some(value.bytes()?),
            1 => further.push(value.bytes()?),
            2 => items += 1,
            3 => schema_url = value.text()?,
            _ => {}
        }
    }
    wire::check_list(further.len(), attributes::LIST_ITEMS_MAX)?;
    Ok((first.into_iter().chain(further), schema_url, items))
}
