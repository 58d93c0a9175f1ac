//! Which signal a file's Export request belongs to.

use std::path::Path;

use anyhow::{Context, bail};
use prost::Message;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::proto::collector::logs::v1::ExportLogsServiceRequest;
use crate::proto::collector::metrics::v1::ExportMetricsServiceRequest;
use crate::proto::collector::trace::v1::ExportTraceServiceRequest;
use crate::signal::Signal;

/// The signal of an OTLP/JSON document: its top key names it.
///
/// # Errors
/// Text that is not JSON, and documents with none of the three keys or several.
pub(super) fn json_signal(document: &[u8]) -> anyhow::Result<Signal> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Top {
        resource_logs: Option<IgnoredAny>,
        resource_spans: Option<IgnoredAny>,
        resource_metrics: Option<IgnoredAny>,
    }
    let top: Top = serde_json::from_slice(document).context("is not OTLP/JSON")?;
    match (top.resource_logs, top.resource_spans, top.resource_metrics) {
        (Some(_), None, None) => Ok(Signal::Logs),
        (None, Some(_), None) => Ok(Signal::Traces),
        (None, None, Some(_)) => Ok(Signal::Metrics),
        (None, None, None) => {
            bail!("has neither resourceLogs nor resourceSpans nor resourceMetrics at its top")
        }
        _ => bail!("holds several signals in one document, OTLP allows one: split it"),
    }
}

/// The signal of an OTLP protobuf file: its name says, or else its bytes read as one signal only.
///
/// # Errors
/// When both leave it open.
pub(super) fn protobuf_signal(path: &Path, request: &[u8]) -> anyhow::Result<Signal> {
    if let Some(signal) = name_signal(path) {
        return Ok(signal);
    }
    let fitting: Vec<(Signal, bool)> = Signal::ALL
        .into_iter()
        .filter_map(|signal| Some((signal, fits(signal, request)?)))
        .collect();
    // Of several that can be read, one that leaves no byte unread is the better guess.
    let exact: Vec<Signal> = fitting
        .iter()
        .filter(|(_, exact)| *exact)
        .map(|(signal, _)| *signal)
        .collect();
    match (fitting.as_slice(), exact.as_slice()) {
        ([(signal, _)], _) | (_, [signal]) => Ok(*signal),
        ([], _) => bail!("is not an OTLP Export request in protobuf"),
        _ => bail!("can be read as more than one signal: say which with --signal"),
    }
}

/// The signal that the file's name speaks of, if it speaks of one only.
fn name_signal(path: &Path) -> Option<Signal> {
    let name = path.file_name()?.to_string_lossy().to_lowercase();
    let mut named = [
        (Signal::Logs, ["logs", "logs"]),
        (Signal::Traces, ["traces", "spans"]),
        (Signal::Metrics, ["metrics", "metrics"]),
    ]
    .into_iter()
    .filter(|(_, words)| words.iter().any(|word| name.contains(word)));
    match (named.next(), named.next()) {
        (Some((signal, _)), None) => Some(signal),
        _ => None,
    }
}

/// `None` when the bytes are not such a request, else whether every byte of them was understood.
fn fits(signal: Signal, request: &[u8]) -> Option<bool> {
    let understood_len = match signal {
        Signal::Logs => {
            let message = ExportLogsServiceRequest::decode(request).ok()?;
            let mut logs = message
                .resource_logs
                .iter()
                .flat_map(|group| &group.scope_logs)
                .flat_map(|group| &group.log_records);
            if !logs.all(|log| ids_fit(&log.trace_id, 16) && ids_fit(&log.span_id, 8)) {
                return None;
            }
            message.encoded_len()
        }
        Signal::Traces => {
            let message = ExportTraceServiceRequest::decode(request).ok()?;
            let mut spans = message
                .resource_spans
                .iter()
                .flat_map(|group| &group.scope_spans)
                .flat_map(|group| &group.spans);
            if !spans.all(|span| span.trace_id.len() == 16 && span.span_id.len() == 8) {
                return None;
            }
            message.encoded_len()
        }
        Signal::Metrics => {
            let message = ExportMetricsServiceRequest::decode(request).ok()?;
            let mut metrics = message
                .resource_metrics
                .iter()
                .flat_map(|group| &group.scope_metrics)
                .flat_map(|group| &group.metrics);
            if !metrics.all(|metric| !metric.name.is_empty()) {
                return None;
            }
            message.encoded_len()
        }
    };
    Some(understood_len == request.len())
}

fn ids_fit(id: &[u8], len: usize) -> bool {
    id.is_empty() || id.len() == len
}

#[cfg(test)]
mod tests;
