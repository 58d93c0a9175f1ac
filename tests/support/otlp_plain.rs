//! OTLP protobuf without what counts for nothing, so that a protobuf library makes of it what the server does.
//!
//! The server reads only what becomes part of a row. A library also reads what something later takes the place of, and refuses a
//! request for an error in there; and it puts the parts of a value together where the server takes the last one. No
//! encoder writes any of that. This is left out here:
//!
//! - of the members of an `AnyValue`, of a key, and of a body, all but the last;
//! - of the attributes with one key, all but the last;
//! - the data of a metric before data of another kind, and the metadata of a metric without data;
//! - fields that logs, traces and metrics have no use for: indexes into the tables of profiles, entity references.

use std::collections::HashSet;

use otlake::signal::Signal;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost::encoding::{encode_key, encode_varint};

/// The messages of OTLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Request,
    ResourceGroup,
    ScopeGroup,
    Resource,
    Scope,
    Log,
    Span,
    Event,
    Link,
    Metric,
    /// By the number of its field.
    Data(u32),
    Point(u32),
    Exemplar,
    KeyValue,
    AnyValue,
    Array,
    Map,
}

impl Kind {
    /// What a field holds, if that is a message of which something may be left out.
    fn of_field(self, signal: Signal, number: u32) -> Option<Kind> {
        Some(match (self, number) {
            (Kind::Request, 1) => Kind::ResourceGroup,
            (Kind::ResourceGroup, 1) => Kind::Resource,
            (Kind::ResourceGroup, 2) => Kind::ScopeGroup,
            (Kind::ScopeGroup, 1) => Kind::Scope,
            (Kind::ScopeGroup, 2) => match signal {
                Signal::Logs => Kind::Log,
                Signal::Traces => Kind::Span,
                Signal::Metrics => Kind::Metric,
            },
            (Kind::Log, 5) | (Kind::KeyValue, 2) | (Kind::Array, 1) => Kind::AnyValue,
            (Kind::Span, 11) => Kind::Event,
            (Kind::Span, 13) => Kind::Link,
            (Kind::Metric, 5 | 7 | 9 | 10 | 11) => Kind::Data(number),
            (Kind::Data(data), 1) => Kind::Point(data),
            (Kind::Point(5 | 7), 5) | (Kind::Point(9), 8) | (Kind::Point(10), 11) => Kind::Exemplar,
            (Kind::AnyValue, 5) => Kind::Array,
            (Kind::AnyValue, 6) => Kind::Map,
            (kind, number) if kind.attributes() == Some(number) => Kind::KeyValue,
            _ => return None,
        })
    }

    /// The field with a list of `KeyValue`.
    fn attributes(self) -> Option<u32> {
        Some(match self {
            Kind::Resource | Kind::Map | Kind::Point(10) => 1,
            Kind::Scope | Kind::Event => 3,
            Kind::Link => 4,
            Kind::Log => 6,
            Kind::Point(5 | 7 | 11) | Kind::Exemplar => 7,
            Kind::Span | Kind::Point(9) => 9,
            Kind::Metric => 12,
            _ => return None,
        })
    }
}

/// A field: its bytes, and those in it where it has a length.
#[derive(Clone, Copy)]
struct Field<'a> {
    number: u32,
    whole: &'a [u8],
    content: Option<&'a [u8]>,
}

/// The request without what counts for nothing; as it is where it is no protobuf.
pub fn plain(signal: Signal, request: &[u8]) -> Vec<u8> {
    message(signal, Kind::Request, request)
}

fn message(signal: Signal, kind: Kind, bytes: &[u8]) -> Vec<u8> {
    let Some(fields) = fields(bytes) else {
        return bytes.to_vec();
    };
    let mut written = Vec::with_capacity(bytes.len());
    let mut write = |number, content: &[u8]| {
        encode_key(number, WireType::LengthDelimited, &mut written);
        encode_varint(content.len() as u64, &mut written);
        written.extend_from_slice(content);
    };
    let mut fields = counting(kind, fields);
    // What heads a group may come in parts, with one list of attributes in all.
    if matches!(kind, Kind::ResourceGroup | Kind::ScopeGroup)
        && fields
            .iter()
            .all(|field| field.number != 1 || field.content.is_some())
        && let Some(head) = kind.of_field(signal, 1)
        && fields.iter().filter(|field| field.number == 1).count() > 1
    {
        let parts = fields.iter().filter(|field| field.number == 1);
        let parts: Vec<&[u8]> = parts.filter_map(|field| field.content).collect();
        write(1, &message(signal, head, &parts.concat()));
        fields.retain(|field| field.number != 1);
    }
    for field in fields {
        match (kind.of_field(signal, field.number), field.content) {
            (Some(of), Some(content)) => {
                let content = message(signal, of, content);
                encode_key(field.number, WireType::LengthDelimited, &mut written);
                encode_varint(content.len() as u64, &mut written);
                written.extend_from_slice(&content);
            }
            _ => written.extend_from_slice(field.whole),
        }
    }
    written
}

/// The fields that count.
fn counting(kind: Kind, mut fields: Vec<Field<'_>>) -> Vec<Field<'_>> {
    if let Some(attributes) = kind.attributes() {
        let mut seen = HashSet::new();
        fields.reverse();
        fields.retain(|field| match field.content {
            Some(entry) if field.number == attributes => seen.insert(key(entry)),
            _ => true,
        });
        fields.reverse();
    }
    match kind {
        Kind::AnyValue => {
            fields.retain(|field| field.number != 8);
            keep_last(&mut fields, |number| (1..=7).contains(&number));
        }
        Kind::KeyValue => {
            fields.retain(|field| field.number != 3);
            keep_last(&mut fields, |number| number == 1);
            keep_last(&mut fields, |number| number == 2);
        }
        Kind::Resource => fields.retain(|field| field.number != 3),
        Kind::Log => keep_last(&mut fields, |number| number == 5),
        Kind::Metric => {
            let is_data = |field: &Field<'_>| matches!(field.number, 5 | 7 | 9 | 10 | 11);
            let data = fields.iter().filter(|field| is_data(field));
            let data: Vec<u32> = data.map(|field| field.number).collect();
            let last = data.last().copied();
            let same = data
                .iter()
                .rev()
                .take_while(|number| Some(**number) == last);
            let mut others = data.len() - same.count();
            fields.retain(|field| {
                let is_left_out = is_data(field) && others > 0;
                others -= usize::from(is_left_out);
                !is_left_out && (last.is_some() || field.number != 12)
            });
        }
        _ => {}
    }
    fields
}

fn keep_last(fields: &mut Vec<Field<'_>>, is_member: impl Fn(u32) -> bool) {
    let last = fields.iter().rposition(|field| is_member(field.number));
    let mut place = 0;
    fields.retain(|field| {
        place += 1;
        !is_member(field.number) || Some(place - 1) == last
    });
}

/// The key of a `KeyValue`; nothing where it is none.
fn key(entry: &[u8]) -> &[u8] {
    let fields = fields(entry).unwrap_or_default();
    let keys = fields.iter().rev().find(|field| field.number == 1);
    keys.and_then(|field| field.content).unwrap_or_default()
}

/// The fields of a message, if it is one.
fn fields(mut rest: &[u8]) -> Option<Vec<Field<'_>>> {
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let before = rest;
        let (number, wire_type) = decode_key(&mut rest).ok()?;
        let mut content = None;
        if wire_type == WireType::LengthDelimited {
            let len = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
            let (inner, behind) = rest.split_at_checked(len)?;
            (content, rest) = (Some(inner), behind);
        } else {
            skip_field(wire_type, number, &mut rest, DecodeContext::default()).ok()?;
        }
        fields.push(Field {
            number,
            whole: &before[..before.len() - rest.len()],
            content,
        });
    }
    Some(fields)
}
