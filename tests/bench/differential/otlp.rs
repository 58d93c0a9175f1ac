//! The requests that `tests/support/arbitrary.rs` makes, and the values it makes them of.

use bytes::Bytes;
use otlake::proto::collector::logs::v1::ExportLogsServiceRequest;
use otlake::proto::collector::metrics::v1::ExportMetricsServiceRequest;
use otlake::proto::collector::trace::v1::ExportTraceServiceRequest;
use otlake::proto::common::v1::any_value::Value;
use otlake::proto::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList};
use prost::Message as _;

/// An export request of any signal.
#[derive(Clone, Debug)]
pub enum Export {
    Logs(ExportLogsServiceRequest),
    Traces(ExportTraceServiceRequest),
    Metrics(ExportMetricsServiceRequest),
}

impl Export {
    pub fn to_protobuf(&self) -> Bytes {
        match self {
            Export::Logs(request) => request.encode_to_vec().into(),
            Export::Traces(request) => request.encode_to_vec().into(),
            Export::Metrics(request) => request.encode_to_vec().into(),
        }
    }
}

pub fn array(values: impl IntoIterator<Item = Option<AnyValue>>) -> Option<AnyValue> {
    let values = values.into_iter().map(Option::unwrap_or_default).collect();
    Some(AnyValue {
        value: Some(Value::ArrayValue(ArrayValue { values })),
    })
}

pub fn map(values: Vec<KeyValue>) -> Option<AnyValue> {
    Some(AnyValue {
        value: Some(Value::KvlistValue(KeyValueList { values })),
    })
}

pub fn kv(key: &str, value: Option<AnyValue>) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value,
        ..KeyValue::default()
    }
}
