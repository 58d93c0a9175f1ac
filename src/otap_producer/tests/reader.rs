//! Reads what a producer wrote with plain arrow-ipc, and resolves ids; knows nothing of how it was written.

use std::collections::{BTreeMap, HashMap};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::buffer::Buffer;
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Field, UInt32Type};
use arrow::util::display::array_value_to_string;
use arrow_ipc::reader::StreamDecoder;
use arrow_ipc::{CompressionType, MessageHeader, root_as_message};

use crate::proto::arrow::{ArrowPayload, ArrowPayloadType, BatchArrowRecords};

/// The state of a receiver: one IPC reader for each type and schema id.
#[derive(Default)]
pub(crate) struct Reader(HashMap<(i32, String), StreamDecoder>);

/// The tables of a batch.
#[derive(Debug)]
pub(crate) struct Tables(Vec<(ArrowPayloadType, RecordBatch)>);

/// An IPC message of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Schema,
    Dictionary,
    Delta,
    Records { zstd: bool },
}

impl Reader {
    /// Reads a batch; each table's record batches become one.
    pub(crate) fn read(&mut self, batch: &BatchArrowRecords) -> Tables {
        let mut tables: Vec<(ArrowPayloadType, RecordBatch)> = Vec::new();
        for payload in &batch.arrow_payloads {
            let key = (payload.r#type, payload.schema_id.clone());
            let is_new = !self.0.contains_key(&key);
            assert_eq!(is_new, messages(payload)[0] == Message::Schema, "{key:?}");
            let decoder = self.0.entry(key).or_default();
            let mut buffer = Buffer::from(payload.record.to_vec());
            let mut batches = Vec::new();
            while !buffer.is_empty() {
                batches.extend(decoder.decode(&mut buffer).unwrap());
            }
            let table = concat_batches(&batches[0].schema(), &batches).unwrap();
            assert!(table.num_rows() > 0);
            let payload_type = payload.r#type();
            assert!(tables.iter().all(|(other, _)| *other != payload_type));
            tables.push((payload_type, table));
        }
        Tables(tables)
    }
}

/// The messages of a payload, which is nothing but messages.
pub(crate) fn messages(payload: &ArrowPayload) -> Vec<Message> {
    let mut rest = &payload.record[..];
    let mut found = Vec::new();
    while !rest.is_empty() {
        assert_eq!(rest[..4], [0xff; 4], "a continuation marker");
        let length = u32::from_le_bytes(rest[4..8].try_into().unwrap()) as usize;
        assert!(length > 0, "no end of the stream");
        let message = root_as_message(&rest[8..8 + length]).unwrap();
        found.push(match message.header_type() {
            MessageHeader::Schema => Message::Schema,
            MessageHeader::DictionaryBatch => {
                match message.header_as_dictionary_batch().unwrap().isDelta() {
                    true => Message::Delta,
                    false => Message::Dictionary,
                }
            }
            MessageHeader::RecordBatch => {
                let compression = message.header_as_record_batch().unwrap().compression();
                let zstd = compression.map(|compression| compression.codec());
                Message::Records {
                    zstd: zstd == Some(CompressionType::ZSTD),
                }
            }
            other => panic!("{other:?}"),
        });
        let body = usize::try_from(message.bodyLength()).unwrap();
        rest = &rest[8 + length + body..];
    }
    found
}

impl Tables {
    pub(crate) fn types(&self) -> Vec<ArrowPayloadType> {
        self.0
            .iter()
            .map(|(payload_type, _)| *payload_type)
            .collect()
    }

    /// The table of a type, which must be there.
    pub(crate) fn get(&self, payload_type: ArrowPayloadType) -> Table<'_> {
        let table = self.0.iter().find(|(of, _)| *of == payload_type);
        Table(&table.unwrap_or_else(|| panic!("no {payload_type:?}")).1)
    }

    /// The rows of a table of attributes by their parents: `key=type:value`, sorted.
    pub(crate) fn attributes(&self, payload_type: ArrowPayloadType) -> BTreeMap<u32, Vec<String>> {
        let table = self.get(payload_type);
        let of_row = |row| {
            let kind: usize = table.text("type", row).parse().unwrap();
            let column = ["", "str", "int", "double", "bool", "ser", "ser", "bytes"][kind];
            let value = (!table.is_null(column, row)).then(|| table.text(column, row));
            (kind, table.text("key", row), value)
        };
        let (field, _) = table.column("parent_id").unwrap();
        let is_marked = field.metadata().get("encoding").is_some();
        let continues = |row: usize| {
            let (kind, key, value) = of_row(row);
            let (kind_before, key_before, before) = of_row(row - 1);
            if (kind, key) != (kind_before, key_before) {
                return false;
            }
            match (kind, value, before) {
                (1..=4, None, _) | (1..=4, _, None) => false,
                (3, Some(value), Some(before)) if !is_marked => {
                    // Who does not mark columns compares doubles as numbers.
                    value.parse::<f64>().unwrap() == before.parse::<f64>().unwrap()
                }
                (1..=4, value, before) => value == before,
                // And no bytes, which it writes as null, with no bytes.
                (7, value, before) if !is_marked => {
                    value.unwrap_or_default() == before.unwrap_or_default()
                }
                (7, value, before) => value.is_some() && value == before,
                _ => false,
            }
        };
        let mut found: BTreeMap<u32, Vec<String>> = BTreeMap::new();
        for (row, parent) in table
            .ids("parent_id", Some(&continues))
            .into_iter()
            .enumerate()
        {
            let (kind, key, value) = of_row(row);
            let value = value.unwrap_or_default();
            let attributes = found.entry(parent.unwrap()).or_default();
            attributes.push(format!("{key}={kind}:{value}"));
            attributes.sort();
        }
        found
    }
}

/// A table; columns are named by paths such as `body.str`.
#[derive(Clone, Copy)]
pub(crate) struct Table<'a>(&'a RecordBatch);

impl Table<'_> {
    pub(crate) fn rows(&self) -> usize {
        self.0.num_rows()
    }

    pub(crate) fn column(&self, path: &str) -> Option<(Field, ArrayRef)> {
        let (first, rest) = path.split_once('.').unwrap_or((path, ""));
        let (place, field) = self.0.schema_ref().column_with_name(first)?;
        let column = self.0.column(place);
        if rest.is_empty() {
            return Some((field.clone(), ArrayRef::clone(column)));
        }
        let DataType::Struct(fields) = field.data_type() else {
            panic!("{first} is no struct");
        };
        let (_, field) = fields.find(rest)?;
        let child = column.as_struct().column_by_name(rest)?;
        // A row of a struct that is null has no fields.
        let child = arrow::compute::nullif(child, &arrow::compute::is_null(column).unwrap());
        Some((field.as_ref().clone(), child.unwrap()))
    }

    /// The column's type, that of the values if it is a dictionary, and the bits of its keys.
    pub(crate) fn data_type(&self, path: &str) -> (DataType, u32) {
        match self.column(path).unwrap().1.data_type() {
            DataType::Dictionary(key, value) => {
                let bits = if **key == DataType::UInt8 { 8 } else { 16 };
                (value.as_ref().clone(), bits)
            }
            other => (other.clone(), 0),
        }
    }

    pub(crate) fn is_null(&self, path: &str, row: usize) -> bool {
        self.column(path)
            .is_none_or(|(_, column)| column.is_null(row))
    }

    /// A value as text; nothing for nulls and columns that are not there.
    pub(crate) fn text(&self, path: &str, row: usize) -> String {
        match self.column(path) {
            Some((_, column)) => array_value_to_string(&column, row).unwrap(),
            None => String::new(),
        }
    }

    /// A column as text.
    pub(crate) fn texts(&self, path: &str) -> Vec<String> {
        (0..self.rows()).map(|row| self.text(path, row)).collect()
    }

    /// The ids of a column. With `continues` its own encoding is quasi-delta, else delta; its field may say otherwise.
    pub(crate) fn ids(
        &self,
        path: &str,
        continues: Option<&dyn Fn(usize) -> bool>,
    ) -> Vec<Option<u32>> {
        let Some((field, column)) = self.column(path) else {
            return vec![None; self.rows()];
        };
        let own = if continues.is_some() {
            "quasidelta"
        } else {
            "delta"
        };
        let encoding = field.metadata().get("encoding").map_or(own, |name| name);
        let mask = match self.data_type(path).0 {
            DataType::UInt16 => u32::from(u16::MAX),
            _ => u32::MAX,
        };
        let written = cast(&column, &DataType::UInt32).unwrap();
        let mut last = 0_u32;
        let written = written.as_primitive::<UInt32Type>();
        let ids = written.iter().enumerate().map(|(row, id)| {
            let id = id?;
            let is_difference = match encoding {
                "plain" => false,
                "delta" => true,
                _ => row > 0 && continues.unwrap()(row),
            };
            last = if is_difference {
                last.wrapping_add(id) & mask
            } else {
                id
            };
            Some(last)
        });
        ids.collect()
    }
}
