//! otlp2records, the decoder of duckdb-otlp, called as its users do.

use arrow58::record_batch::RecordBatch;
use otlake::signal::Signal;
use otlp2records::otap::OtapDecoder;
use otlp2records::{
    InputFormat, MetricBatches, Result, transform_logs, transform_metrics, transform_traces,
};

/// The batches of one body: one for logs or traces, up to four for metrics.
///
/// # Errors
/// What otlp2records says.
pub fn decode(signal: Signal, format: InputFormat, body: &[u8]) -> Result<Vec<RecordBatch>> {
    Ok(match signal {
        Signal::Logs => vec![transform_logs(body, format)?],
        Signal::Traces => vec![transform_traces(body, format)?],
        Signal::Metrics => metrics(transform_metrics(body, format)?),
    })
}

/// The batches of one message of an OTAP stream.
///
/// # Errors
/// What otlp2records says.
pub fn decode_otap(
    signal: Signal,
    stream: &mut OtapDecoder,
    message: &[u8],
) -> Result<Vec<RecordBatch>> {
    Ok(match signal {
        Signal::Logs => vec![stream.decode_logs(message)?],
        Signal::Traces => vec![stream.decode_traces(message)?],
        Signal::Metrics => metrics(stream.decode_metrics(message)?),
    })
}

fn metrics(batches: MetricBatches) -> Vec<RecordBatch> {
    let tables = [
        batches.gauge,
        batches.sum,
        batches.histogram,
        batches.exp_histogram,
    ];
    tables.into_iter().flatten().collect()
}
