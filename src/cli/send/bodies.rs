//! What `otlake send` sends, without a server to send it to: the benchmarks measure with the same telemetry.

use bytes::{Bytes, BytesMut};
use prost::DecodeError;

use super::generate::{Catalog, Encoder, Plan};
use super::{SEED, json};
use crate::signal::Signal;

/// When the generated records begin to happen, Unix nanoseconds: the same bytes in every run.
const BEGIN_UNIX_NANO: u64 = 1_700_000_000_000_000_000;

/// From one request to the next, nanoseconds a record: 100,000 records a second.
const RECORD_NANO: u64 = 10_000;

/// The OTLP protobuf bodies of `requests` requests, each with `batch` records of `signal`; both are 1 at least.
#[must_use]
pub fn bodies(signal: Signal, requests: u64, batch: u64) -> Vec<Bytes> {
    let plan = Plan::new(requests.saturating_mul(batch), batch, vec![signal]);
    let catalog = Catalog::new(SEED, "00000000", BEGIN_UNIX_NANO);
    let mut encoder = Encoder::default();
    (0..requests)
        .map_while(|index| plan.request(index))
        .map(|request| {
            let mut body = BytesMut::new();
            let before = request.sent_before.saturating_add(request.records);
            let now_unix_nano = BEGIN_UNIX_NANO + before.saturating_mul(RECORD_NANO);
            encoder.encode(&catalog, &request, now_unix_nano, &mut body);
            body.freeze()
        })
        .collect()
}

/// A protobuf body as OTLP/JSON.
///
/// # Errors
/// When it is not an Export request of the signal.
pub fn as_json(signal: Signal, body: &[u8]) -> Result<Bytes, DecodeError> {
    let mut text = Vec::new();
    json::write(signal, body, &mut text)?;
    Ok(text.into())
}
