//! OTLP/JSON read by the specification alone ("JSON Protobuf Encoding"), into protobuf: what an accepted document must mean.
//!
//! A document is not judged where a name stands twice in an object, or something is spelled in a way that the specification
//! leaves to the reader.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use otlake::proto::logs::v1::SeverityNumber;
use otlake::proto::metrics::v1::AggregationTemporality;
use otlake::proto::trace::v1::span::SpanKind;
use otlake::proto::trace::v1::status::StatusCode;
use otlake::signal::Signal;
use prost::encoding::{WireType, encode_key, encode_varint};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Messages in messages that are read.
const DEPTH_MAX: usize = 100;

/// How a field is written in protobuf.
#[derive(Clone, Copy)]
enum Form {
    Text,
    Base64,
    Hex,
    Bool,
    Int64,
    Uint32,
    Sint32,
    Fixed32,
    Fixed64,
    Sfixed64,
    Double,
    Enum(fn(&str) -> Option<i32>),
    Fixed64s,
    Uint64s,
    Doubles,
    One(Fields),
    Many(Fields),
    /// As `Many`, but a null in the list is an empty message.
    Values(Fields),
}

/// Number and form of a message's field by its name; nothing for one that is not known.
type Fields = fn(&str) -> Option<(u32, Form)>;

use Form::*;

/// The document as protobuf, if it is one and can be judged.
pub fn protobuf_of(signal: Signal, json: &str) -> Option<Vec<u8>> {
    let request: Fields = match signal {
        Signal::Logs => |name| (name == "resourceLogs").then_some((1, Many(resource_logs))),
        Signal::Traces => |name| (name == "resourceSpans").then_some((1, Many(resource_spans))),
        Signal::Metrics => {
            |name| (name == "resourceMetrics").then_some((1, Many(resource_metrics)))
        }
    };
    message(request, serde_json::from_str(json).ok()?, 0)
}

macro_rules! fields {
    ($($message:ident { $($name:literal => $number:literal $form:expr;)* })*) => {
        $(fn $message(name: &str) -> Option<(u32, Form)> {
            Some(match name {
                $($name => ($number, $form),)*
                _ => return None,
            })
        })*
    };
}

fields! {
    resource_logs { "resource" => 1 One(resource); "scopeLogs" => 2 Many(scope_logs); "schemaUrl" => 3 Text; }
    resource_spans { "resource" => 1 One(resource); "scopeSpans" => 2 Many(scope_spans); "schemaUrl" => 3 Text; }
    resource_metrics { "resource" => 1 One(resource); "scopeMetrics" => 2 Many(scope_metrics); "schemaUrl" => 3 Text; }
    scope_logs { "scope" => 1 One(scope); "logRecords" => 2 Many(log); "schemaUrl" => 3 Text; }
    scope_spans { "scope" => 1 One(scope); "spans" => 2 Many(span); "schemaUrl" => 3 Text; }
    scope_metrics { "scope" => 1 One(scope); "metrics" => 2 Many(metric); "schemaUrl" => 3 Text; }
    resource { "attributes" => 1 Many(key_value); "droppedAttributesCount" => 2 Uint32; }
    scope { "name" => 1 Text; "version" => 2 Text; "attributes" => 3 Many(key_value); "droppedAttributesCount" => 4 Uint32; }
    key_value { "key" => 1 Text; "value" => 2 One(any_value); }
    any_value {
        "stringValue" => 1 Text; "boolValue" => 2 Bool; "intValue" => 3 Int64; "doubleValue" => 4 Double;
        "arrayValue" => 5 One(array); "kvlistValue" => 6 One(map); "bytesValue" => 7 Base64;
    }
    array { "values" => 1 Values(any_value); }
    map { "values" => 1 Many(key_value); }
    log {
        "timeUnixNano" => 1 Fixed64; "severityNumber" => 2 Enum(severity); "severityText" => 3 Text; "body" => 5 One(any_value);
        "attributes" => 6 Many(key_value); "droppedAttributesCount" => 7 Uint32; "flags" => 8 Fixed32; "traceId" => 9 Hex;
        "spanId" => 10 Hex; "observedTimeUnixNano" => 11 Fixed64; "eventName" => 12 Text;
    }
    span {
        "traceId" => 1 Hex; "spanId" => 2 Hex; "traceState" => 3 Text; "parentSpanId" => 4 Hex; "name" => 5 Text;
        "kind" => 6 Enum(kind); "startTimeUnixNano" => 7 Fixed64; "endTimeUnixNano" => 8 Fixed64;
        "attributes" => 9 Many(key_value); "droppedAttributesCount" => 10 Uint32; "events" => 11 Many(event);
        "droppedEventsCount" => 12 Uint32; "links" => 13 Many(link); "droppedLinksCount" => 14 Uint32;
        "status" => 15 One(status); "flags" => 16 Fixed32;
    }
    event { "timeUnixNano" => 1 Fixed64; "name" => 2 Text; "attributes" => 3 Many(key_value); "droppedAttributesCount" => 4 Uint32; }
    link {
        "traceId" => 1 Hex; "spanId" => 2 Hex; "traceState" => 3 Text; "attributes" => 4 Many(key_value);
        "droppedAttributesCount" => 5 Uint32; "flags" => 6 Fixed32;
    }
    status { "message" => 2 Text; "code" => 3 Enum(code); }
    metric {
        "name" => 1 Text; "description" => 2 Text; "unit" => 3 Text; "gauge" => 5 One(gauge); "sum" => 7 One(sum);
        "histogram" => 9 One(histogram); "exponentialHistogram" => 10 One(exp_histogram); "summary" => 11 One(summary);
        "metadata" => 12 Many(key_value);
    }
    gauge { "dataPoints" => 1 Many(number_point); }
    sum { "dataPoints" => 1 Many(number_point); "aggregationTemporality" => 2 Enum(temporality); "isMonotonic" => 3 Bool; }
    histogram { "dataPoints" => 1 Many(histogram_point); "aggregationTemporality" => 2 Enum(temporality); }
    exp_histogram { "dataPoints" => 1 Many(exp_histogram_point); "aggregationTemporality" => 2 Enum(temporality); }
    summary { "dataPoints" => 1 Many(summary_point); }
    number_point {
        "startTimeUnixNano" => 2 Fixed64; "timeUnixNano" => 3 Fixed64; "asDouble" => 4 Double; "exemplars" => 5 Many(exemplar);
        "asInt" => 6 Sfixed64; "attributes" => 7 Many(key_value); "flags" => 8 Uint32;
    }
    histogram_point {
        "startTimeUnixNano" => 2 Fixed64; "timeUnixNano" => 3 Fixed64; "count" => 4 Fixed64; "sum" => 5 Double;
        "bucketCounts" => 6 Fixed64s; "explicitBounds" => 7 Doubles; "exemplars" => 8 Many(exemplar);
        "attributes" => 9 Many(key_value); "flags" => 10 Uint32; "min" => 11 Double; "max" => 12 Double;
    }
    exp_histogram_point {
        "attributes" => 1 Many(key_value); "startTimeUnixNano" => 2 Fixed64; "timeUnixNano" => 3 Fixed64; "count" => 4 Fixed64;
        "sum" => 5 Double; "scale" => 6 Sint32; "zeroCount" => 7 Fixed64; "positive" => 8 One(buckets);
        "negative" => 9 One(buckets); "flags" => 10 Uint32; "exemplars" => 11 Many(exemplar); "min" => 12 Double;
        "max" => 13 Double; "zeroThreshold" => 14 Double;
    }
    buckets { "offset" => 1 Sint32; "bucketCounts" => 2 Uint64s; }
    summary_point {
        "startTimeUnixNano" => 2 Fixed64; "timeUnixNano" => 3 Fixed64; "count" => 4 Fixed64; "sum" => 5 Double;
        "quantileValues" => 6 Many(quantile); "attributes" => 7 Many(key_value); "flags" => 8 Uint32;
    }
    quantile { "quantile" => 1 Double; "value" => 2 Double; }
    exemplar {
        "timeUnixNano" => 2 Fixed64; "asDouble" => 3 Double; "spanId" => 4 Hex; "traceId" => 5 Hex; "asInt" => 6 Sfixed64;
        "filteredAttributes" => 7 Many(key_value);
    }
}

fn severity(name: &str) -> Option<i32> {
    SeverityNumber::from_str_name(name).map(i32::from)
}

fn kind(name: &str) -> Option<i32> {
    SpanKind::from_str_name(name).map(i32::from)
}

fn code(name: &str) -> Option<i32> {
    StatusCode::from_str_name(name).map(i32::from)
}

fn temporality(name: &str) -> Option<i32> {
    AggregationTemporality::from_str_name(name).map(i32::from)
}

/// An object as it stands there, in order.
struct Object<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Deserialize<'a> for Object<'a> {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Object<'a>, D::Error> {
        struct Members;
        impl<'a> Visitor<'a> for Members {
            type Value = Object<'a>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Object<'a>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Object(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

fn message(fields: Fields, json: &RawValue, depth: usize) -> Option<Vec<u8>> {
    let Object(members) = serde_json::from_str(json.get()).ok()?;
    let mut written = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for (name, value) in members {
        let Some((number, form)) = fields(&camel_case(&name)) else {
            continue;
        };
        if depth == DEPTH_MAX || !seen.insert(number) {
            return None;
        }
        if value.get() != "null" {
            field(number, form, value, depth, &mut written)?;
        }
    }
    Some(written)
}

/// The JSON name of a field; each may have its name from the proto file too.
fn camel_case(name: &str) -> String {
    let is_proto = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
    let mut words = name.split('_');
    if !name.bytes().all(is_proto) || words.clone().any(str::is_empty) {
        return name.replace('_', "?");
    }
    let mut camel = words.next().unwrap_or_default().to_owned();
    for word in words {
        let (first, rest) = word.split_at(1);
        camel.push_str(&first.to_ascii_uppercase());
        camel.push_str(rest);
    }
    camel
}

fn field(
    number: u32,
    form: Form,
    json: &RawValue,
    depth: usize,
    written: &mut Vec<u8>,
) -> Option<()> {
    let bytes = |content: &[u8], written: &mut Vec<u8>| {
        encode_key(number, WireType::LengthDelimited, written);
        encode_varint(content.len() as u64, written);
        written.extend_from_slice(content);
    };
    let varint = |value: u64, written: &mut Vec<u8>| {
        encode_key(number, WireType::Varint, written);
        encode_varint(value, written);
    };
    let fixed64 = |value: u64, written: &mut Vec<u8>| {
        encode_key(number, WireType::SixtyFourBit, written);
        written.extend_from_slice(&value.to_le_bytes());
    };
    match form {
        Text => bytes(text(json)?.as_bytes(), written),
        Base64 => bytes(&STANDARD.decode(text(json)?).ok()?, written),
        Hex => bytes(&hex(&text(json)?)?, written),
        Bool => varint(u64::from(json.get().parse::<bool>().ok()?), written),
        Int64 => varint(integer::<i64>(json)?.cast_unsigned(), written),
        Uint32 => varint(integer::<u32>(json)?.into(), written),
        Sint32 => {
            let value = integer::<i32>(json)?;
            varint(
                ((value << 1) ^ (value >> 31)).cast_unsigned().into(),
                written,
            );
        }
        Fixed32 => {
            encode_key(number, WireType::ThirtyTwoBit, written);
            written.extend_from_slice(&integer::<u32>(json)?.to_le_bytes());
        }
        Fixed64 => fixed64(integer::<u64>(json)?, written),
        Sfixed64 => fixed64(integer::<i64>(json)?.cast_unsigned(), written),
        Double => fixed64(double(json)?.to_bits(), written),
        Enum(number_of) => {
            let named = text(json).and_then(|name| number_of(&name));
            let value = named.or_else(|| integer::<i32>(json))?;
            varint(i64::from(value).cast_unsigned(), written);
        }
        Fixed64s | Uint64s | Doubles => {
            let mut packed = Vec::new();
            for item in list(json)? {
                match form {
                    Fixed64s => packed.extend_from_slice(&integer::<u64>(item)?.to_le_bytes()),
                    Uint64s => encode_varint(integer(item)?, &mut packed),
                    _ => packed.extend_from_slice(&double(item)?.to_le_bytes()),
                }
            }
            bytes(&packed, written);
        }
        One(fields) => bytes(&message(fields, json, depth + 1)?, written),
        Many(fields) | Values(fields) => {
            for item in list(json)? {
                match (item.get(), form) {
                    ("null", Values(_)) => bytes(&[], written),
                    ("null", _) => {}
                    _ => bytes(&message(fields, item, depth + 1)?, written),
                }
            }
        }
    }
    Some(())
}

fn list(json: &RawValue) -> Option<Vec<&RawValue>> {
    serde_json::from_str(json.get()).ok()
}

fn text(json: &RawValue) -> Option<String> {
    serde_json::from_str(json.get()).ok()
}

fn hex(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    let pairs = pairs.map(|pair| {
        let pair = std::str::from_utf8(pair)
            .ok()
            .filter(|pair| pair.len() == 2)?;
        let is_hex = pair.bytes().all(|digit| digit.is_ascii_hexdigit());
        is_hex.then(|| u8::from_str_radix(pair, 16).ok()).flatten()
    });
    pairs.collect()
}

/// A number, or the text of one: with a point or an exponent too, as long as it is an integer, and to the last digit.
fn integer<T: TryFrom<i128>>(json: &RawValue) -> Option<T> {
    let number = match json.get().starts_with('"') {
        true => text(json)?,
        false => json.get().to_owned(),
    };
    // Only what JSON has for a number.
    serde_json::from_str::<&RawValue>(&number).ok()?;
    let (mantissa, exponent) = match number.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (number.as_str(), 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if exponent.unsigned_abs() > 1000 {
        return None;
    }
    let mut digits = format!("{whole}{fraction}");
    let shift = exponent - i32::try_from(fraction.len()).ok()?;
    if shift >= 0 {
        digits.extend(std::iter::repeat_n('0', shift.unsigned_abs() as usize));
    } else {
        for _ in 0..shift.unsigned_abs() {
            match digits.pop() {
                Some('0') => {}
                Some('-') | None => break,
                Some(_) => return None,
            }
        }
    }
    if digits.bytes().all(|digit| digit == b'-') {
        digits = "0".to_owned();
    }
    T::try_from(digits.parse().ok()?).ok()
}

fn double(json: &RawValue) -> Option<f64> {
    let number = match text(json).as_deref() {
        Some("NaN") => return Some(f64::NAN),
        Some("Infinity") => return Some(f64::INFINITY),
        Some("-Infinity") => return Some(f64::NEG_INFINITY),
        Some(_) => return None,
        None => json.get().parse::<f64>().ok()?,
    };
    number.is_finite().then_some(number)
}
