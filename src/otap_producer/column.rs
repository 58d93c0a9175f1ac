//! One column over all batches of a stream: its rows now, and its dictionary for ever.

use arrow::array::{
    ArrayData, ArrayRef, DictionaryArray, NullBufferBuilder, PrimitiveArray, make_array,
};
use arrow::buffer::{BooleanBuffer, Buffer, MutableBuffer, NullBuffer, ScalarBuffer};
use arrow::datatypes::{ArrowDictionaryKeyType, DataType, Field, UInt8Type, UInt16Type};
use arrow::error::ArrowError;
use std::mem;
use std::sync::Arc;
use twox_hash::XxHash3_64;

use super::interner::Interner;
use super::options::{Dictionaries, Options};
use super::{Built, ProduceError};

/// Arrow's buffers are the machine's own, and otlake writes them as they are.
const _: () = assert!(cfg!(target_endian = "little"));

/// Values in a dictionary whose keys have 8 bits.
const BYTE_KEYS_MAX: usize = 255;
/// Stands for a null among the keys.
const NULL: u32 = u32::MAX;

/// A value on its way into a column: already a number if the column has a dictionary.
///
/// Two cells of one column and one batch are equal exactly if their values are; doubles by their bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cell<'a> {
    /// A place in the dictionary.
    Key(u32),
    /// A value of up to eight bytes.
    Word(u64),
    /// A value of any length.
    Bytes(&'a [u8]),
    /// A value that the column stores: from where to where.
    Stored(usize, usize),
}

impl Cell<'_> {
    /// A number that is the same for equal cells: sorting by it brings them together.
    pub(super) fn sort_key(self) -> u32 {
        match self {
            Cell::Key(key) => key,
            Cell::Word(word) => (word ^ (word >> 32)) as u32,
            Cell::Bytes(bytes) => XxHash3_64::oneshot(bytes) as u32,
            Cell::Stored(start, _) => start as u32,
        }
    }
}

/// A column of one type, native or with a dictionary.
///
/// Rows that nothing is set for are null, or the default where the column is required.
pub(super) struct Column {
    name: &'static str,
    data_type: DataType,
    /// Bytes of a value; `None` for text and bytes. Booleans take one until they are packed.
    width: Option<usize>,
    is_required: bool,
    /// Value of the field metadata `encoding`.
    encoding: Option<&'static str>,
    dictionary: Option<Interner>,
    /// Whether the dictionary's keys have 16 bits.
    has_wide_keys: bool,
    /// Whether there was ever a value.
    is_seen: bool,
    /// Rows so far.
    len: usize,
    keys: Vec<u32>,
    data: MutableBuffer,
    offsets: Vec<i32>,
    nulls: NullBufferBuilder,
    stored: Vec<u8>,
}

impl Column {
    /// An optional native column.
    pub(super) fn new(name: &'static str, data_type: DataType) -> Column {
        let width = match &data_type {
            DataType::Utf8 | DataType::Binary => None,
            DataType::FixedSizeBinary(width) => usize::try_from(*width).ok(),
            DataType::Boolean => Some(1),
            other => other.primitive_width(),
        };
        Column {
            name,
            data_type,
            width,
            is_required: false,
            encoding: None,
            dictionary: None,
            has_wide_keys: false,
            is_seen: false,
            len: 0,
            keys: Vec::new(),
            data: MutableBuffer::new(0),
            offsets: vec![0],
            nulls: NullBufferBuilder::new(0),
            stored: Vec::new(),
        }
    }

    /// The column with a dictionary, if dictionaries are wanted.
    pub(super) fn dictionary(mut self, options: &Options) -> Column {
        self.dictionary =
            (options.dictionaries != Dictionaries::Native).then(|| Interner::new(self.width));
        self
    }

    /// The column, its dictionary's keys of 16 bits from the start.
    pub(super) fn wide(mut self) -> Column {
        self.has_wide_keys = true;
        self
    }

    /// The column, always there and never null.
    pub(super) fn required(mut self) -> Column {
        self.is_required = true;
        self
    }

    /// The column, with this value of the field metadata `encoding`.
    pub(super) fn encoded(mut self, encoding: Option<&'static str>) -> Column {
        self.encoding = encoding;
        self
    }

    /// The cell of a text or of bytes.
    pub(super) fn bytes<'a>(&mut self, value: &'a [u8]) -> Cell<'a> {
        match &mut self.dictionary {
            Some(dictionary) => Cell::Key(dictionary.number(value)),
            None => Cell::Bytes(value),
        }
    }

    /// The cell of a text, or `None` if it is empty: what a field without presence means by a null.
    pub(super) fn text<'a>(&mut self, value: &'a str) -> Option<Cell<'a>> {
        (!value.is_empty()).then(|| self.bytes(value.as_bytes()))
    }

    /// The cell of a number: its bits, of which the column takes as many as it has.
    pub(super) fn word(&mut self, value: u64) -> Cell<'static> {
        match (&mut self.dictionary, self.width) {
            (Some(dictionary), Some(width)) => {
                Cell::Key(dictionary.number(&value.to_le_bytes()[..width]))
            }
            _ => Cell::Word(value),
        }
    }

    /// The cell of bytes that `write` appends to what it is given.
    pub(super) fn written(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Cell<'static> {
        let start = self.stored.len();
        write(&mut self.stored);
        match &mut self.dictionary {
            Some(dictionary) => {
                let key = dictionary.number(&self.stored[start..]);
                self.stored.truncate(start);
                Cell::Key(key)
            }
            None => Cell::Stored(start, self.stored.len()),
        }
    }

    /// Sets a row, which comes after all that are set.
    pub(super) fn set(&mut self, row: usize, cell: Cell<'_>) {
        self.is_seen = true;
        self.fill(row);
        self.len += 1;
        match cell {
            Cell::Key(key) => {
                self.keys.push(key);
                return;
            }
            Cell::Word(word) => {
                let width = self.width.unwrap_or(size_of::<u64>());
                self.data.extend_from_slice(&word.to_le_bytes()[..width]);
            }
            Cell::Bytes(bytes) => self.data.extend_from_slice(bytes),
            Cell::Stored(start, end) => self.data.extend_from_slice(&self.stored[start..end]),
        }
        self.nulls.append_non_null();
        self.end_value();
    }

    /// Sets a row to a number that is not its type's default, 0.
    pub(super) fn set_nonzero(&mut self, row: usize, value: u64) {
        if value != 0 {
            self.set_word(row, value);
        }
    }

    /// Sets a row to a number.
    pub(super) fn set_word(&mut self, row: usize, value: u64) {
        let cell = self.word(value);
        self.set(row, cell);
    }

    /// Sets a row to a text that is not empty.
    pub(super) fn set_text(&mut self, row: usize, value: &str) {
        if let Some(cell) = self.text(value) {
            self.set(row, cell);
        }
    }

    /// The cell of a trace or span id. One of another length cannot be written and counts as not set.
    pub(super) fn id<'a>(&mut self, id: &'a [u8], options: &Options) -> Option<Cell<'a>> {
        const ZEROS: &[u8; 16] = &[0; 16];
        let width = self.width.unwrap_or_default();
        if id.len() == width {
            Some(self.bytes(id))
        } else if options.unset_ids_as_zeros {
            Some(self.bytes(&ZEROS[..width]))
        } else {
            None
        }
    }

    /// Sets a row to a trace or span id.
    pub(super) fn set_id(&mut self, row: usize, id: &[u8], options: &Options) {
        if let Some(cell) = self.id(id, options) {
            self.set(row, cell);
        }
    }

    /// Appends nulls, or defaults, up to `rows`.
    fn fill(&mut self, rows: usize) {
        let missing = rows - self.len;
        if missing == 0 {
            return;
        }
        self.len = rows;
        if self.dictionary.is_some() {
            let key = if self.is_required {
                let zeros = vec![0; self.width.unwrap_or(0)];
                match self.bytes(&zeros) {
                    Cell::Key(key) => key,
                    _ => NULL,
                }
            } else {
                NULL
            };
            self.keys.resize(self.keys.len() + missing, key);
            return;
        }
        if self.is_required {
            self.nulls.append_n_non_nulls(missing);
        } else {
            self.nulls.append_n_nulls(missing);
        }
        match self.width {
            Some(width) => self.data.extend_zeros(missing * width),
            None => self
                .offsets
                .resize(self.offsets.len() + missing, offset(&self.data)),
        }
    }

    fn end_value(&mut self) {
        if self.width.is_none() {
            self.offsets.push(offset(&self.data));
        }
    }

    /// The batch's column, of as many rows, or `None` while there is no reason for one; begins the next batch.
    ///
    /// # Errors
    /// [`ProduceError::ColumnTooLarge`].
    pub(super) fn finish(&mut self, rows: usize, options: &Options) -> Result<Built, ProduceError> {
        if !self.is_seen && !self.is_required && options.late_columns {
            return Ok(None);
        }
        self.fill(rows);
        if self.dictionary.as_ref().is_some_and(Interner::is_full) {
            self.leave_dictionary();
            self.fill(rows);
        }
        if self.data.len() > i32::MAX as usize {
            return Err(ProduceError::ColumnTooLarge {
                column: self.name,
                bytes: self.data.len(),
            });
        }
        let array = match self.dictionary {
            Some(_) => self.finish_keys(options)?,
            None => self.finish_values(rows)?,
        };
        self.len = 0;
        self.stored.clear();
        let mut field = Field::new(self.name, array.data_type().clone(), !self.is_required);
        if let Some(encoding) = self.encoding {
            field.set_metadata([("encoding".to_owned(), encoding.to_owned())]);
        }
        Ok(Some((field, array)))
    }

    fn finish_keys(&mut self, options: &Options) -> Result<ArrayRef, ArrowError> {
        let dictionary = self
            .dictionary
            .as_mut()
            .expect("only columns with a dictionary have keys");
        self.has_wide_keys |= dictionary.len() > BYTE_KEYS_MAX;
        let values = dictionary.array(&self.data_type)?;
        if options.dictionaries == Dictionaries::Renew {
            dictionary.clear();
        }
        let keys = &self.keys;
        let nulls = keys.contains(&NULL).then(|| {
            NullBuffer::new(BooleanBuffer::collect_bool(keys.len(), |at| {
                keys[at] != NULL
            }))
        });
        // The key of a null is never read; that of any other is below the dictionary's length.
        let array = if self.has_wide_keys {
            let keys = keys.iter().map(|key| u16::try_from(*key).unwrap_or(0));
            keyed::<UInt16Type>(keys.collect(), nulls, values)?
        } else {
            let keys = keys.iter().map(|key| u8::try_from(*key).unwrap_or(0));
            keyed::<UInt8Type>(keys.collect(), nulls, values)?
        };
        self.keys.clear();
        Ok(array)
    }

    fn finish_values(&mut self, rows: usize) -> Result<ArrayRef, ArrowError> {
        let mut data: Buffer = mem::take(&mut self.data).into();
        if self.data_type == DataType::Boolean {
            data = BooleanBuffer::collect_bool(rows, |row| data[row] != 0).into_inner();
        }
        let mut builder = ArrayData::builder(self.data_type.clone())
            .len(rows)
            .nulls(self.nulls.finish());
        if self.width.is_none() {
            let offsets = mem::replace(&mut self.offsets, vec![0]);
            builder = builder.add_buffer(Buffer::from_vec(offsets));
        }
        Ok(make_array(builder.add_buffer(data).build()?))
    }

    /// Goes over to native values for good, beginning with the rows that are set.
    fn leave_dictionary(&mut self) {
        let Some(dictionary) = self.dictionary.take() else {
            return;
        };
        self.len = 0;
        for (row, key) in mem::take(&mut self.keys).into_iter().enumerate() {
            if key != NULL {
                self.set(row, Cell::Bytes(dictionary.value(key)));
            }
        }
    }
}

/// Where a value ends. What is larger than an offset is refused when the batch is finished.
fn offset(data: &MutableBuffer) -> i32 {
    i32::try_from(data.len()).unwrap_or(i32::MAX)
}

fn keyed<K: ArrowDictionaryKeyType>(
    keys: Vec<K::Native>,
    nulls: Option<NullBuffer>,
    values: ArrayRef,
) -> Result<ArrayRef, ArrowError> {
    let keys = PrimitiveArray::<K>::try_new(ScalarBuffer::from(keys), nulls)?;
    Ok(Arc::new(DictionaryArray::try_new(keys, values)?))
}
