//! The protobuf wire format, read in place.
//!
//! A [`Fields`] iterates over the fields of one message without copying; nested messages are further `Fields` over a
//! part of the same bytes. Repeated scalars are accepted packed and unpacked, unknown fields of every wire type are
//! stepped over. Source: protobuf.dev, "Encoding".

use crate::decode::DecodeError;

/// How deeply unknown groups may nest before the body counts as unparsable; protobuf's own limit.
const GROUP_DEPTH_MAX: usize = 100;

/// A field's value as the wire has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::decode) enum Value<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1.
    Fixed64(u64),
    /// Wire type 2.
    Bytes(&'a [u8]),
    /// Wire type 5.
    Fixed32(u32),
    /// Wire types 3 and 4: a deprecated group, stepped over.
    Group,
}

/// The fields of one message, in wire order.
#[derive(Clone, Copy, Debug)]
pub(in crate::decode) struct Fields<'a> {
    rest: &'a [u8],
}

#[cold]
pub(in crate::decode) fn malformed<T>(what: impl Into<String>) -> Result<T, DecodeError> {
    Err(DecodeError::Malformed(what.into()))
}

#[cold]
fn truncated<T>() -> Result<T, DecodeError> {
    malformed("the protobuf body ends inside a field")
}

impl<'a> Fields<'a> {
    pub(in crate::decode) fn new(message: &'a [u8]) -> Fields<'a> {
        Fields { rest: message }
    }

    /// The next field's number and value; `None` at the message's end.
    #[inline(always)]
    pub(in crate::decode) fn next(&mut self) -> Result<Option<(u32, Value<'a>)>, DecodeError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (number, wire_type) = self.key()?;
        let value = match wire_type {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => Value::Bytes(self.bytes()?),
            5 => Value::Fixed32(u32::from_le_bytes(self.array()?)),
            other => self.group(number, other)?,
        };
        Ok(Some((number, value)))
    }

    #[cold]
    fn group(&mut self, number: u32, wire_type: u8) -> Result<Value<'a>, DecodeError> {
        match wire_type {
            3 => self.skip_group(number, 0).map(|()| Value::Group),
            4 => malformed("the protobuf body ends a group that never began"),
            other => malformed(format!("protobuf wire type {other} does not exist")),
        }
    }

    #[inline(always)]
    fn key(&mut self) -> Result<(u32, u8), DecodeError> {
        let key = self.varint()?;
        match u32::try_from(key) {
            Ok(key) if key >> 3 != 0 => Ok((key >> 3, (key & 7) as u8)),
            _ => malformed("the protobuf body has an invalid field number"),
        }
    }

    #[inline(always)]
    pub(super) fn varint(&mut self) -> Result<u64, DecodeError> {
        // Keys, lengths and small numbers are one byte or two.
        match *self.rest {
            [byte, ref rest @ ..] if byte < 0x80 => {
                self.rest = rest;
                Ok(u64::from(byte))
            }
            [low, high, ref rest @ ..] if high < 0x80 => {
                self.rest = rest;
                Ok(u64::from(low & 0x7f) | u64::from(high) << 7)
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for place in 0..10 {
            let Some((byte, rest)) = self.rest.split_first() else {
                return truncated();
            };
            self.rest = rest;
            if place == 9 && *byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * place);
            if *byte < 0x80 {
                return Ok(value);
            }
        }
        malformed("a protobuf varint is longer than 64 bits")
    }

    #[inline(always)]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let Some((array, rest)) = self.rest.split_first_chunk::<N>() else {
            return truncated();
        };
        self.rest = rest;
        Ok(*array)
    }

    #[inline(always)]
    fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.varint()?;
        let split = usize::try_from(len)
            .ok()
            .and_then(|len| self.rest.split_at_checked(len));
        let Some((bytes, rest)) = split else {
            return truncated();
        };
        self.rest = rest;
        Ok(bytes)
    }

    fn skip_group(&mut self, group: u32, depth: usize) -> Result<(), DecodeError> {
        if depth == GROUP_DEPTH_MAX {
            return malformed("protobuf groups nest too deeply");
        }
        loop {
            if self.rest.is_empty() {
                return truncated();
            }
            let (number, wire_type) = self.key()?;
            match wire_type {
                0 => drop(self.varint()?),
                1 => drop(self.array::<8>()?),
                2 => drop(self.bytes()?),
                3 => self.skip_group(number, depth + 1)?,
                4 if number == group => return Ok(()),
                5 => drop(self.array::<4>()?),
                _ => return malformed("the protobuf body closes the wrong group"),
            }
        }
    }

    /// Whether every byte has been read.
    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

impl<'a> Value<'a> {
    #[cold]
    fn wrong<T>(self, expected: &str) -> Result<T, DecodeError> {
        malformed(format!(
            "a protobuf field has another wire type than {expected}"
        ))
    }

    /// A nested message, or raw bytes.
    #[inline]
    pub(super) fn bytes(self) -> Result<&'a [u8], DecodeError> {
        match self {
            Value::Bytes(bytes) => Ok(bytes),
            other => other.wrong("length-delimited"),
        }
    }

    /// A string; proto3 requires UTF-8.
    #[inline]
    pub(super) fn text(self) -> Result<&'a str, DecodeError> {
        text(self.bytes()?)
    }

    #[inline]
    pub(super) fn varint(self) -> Result<u64, DecodeError> {
        match self {
            Value::Varint(value) => Ok(value),
            other => other.wrong("varint"),
        }
    }

    /// An int64 or an enum: two's complement in a varint.
    #[inline]
    #[expect(
        clippy::cast_possible_wrap,
        reason = "the wire format is two's complement"
    )]
    pub(super) fn int64(self) -> Result<i64, DecodeError> {
        Ok(self.varint()? as i64)
    }

    /// An int32 or an enum: protobuf keeps the low 32 bits of the varint.
    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "protobuf keeps the low 32 bits"
    )]
    pub(in crate::decode) fn int32(self) -> Result<i32, DecodeError> {
        Ok(self.int64()? as i32)
    }

    /// A uint32: protobuf keeps the low 32 bits of the varint.
    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "protobuf keeps the low 32 bits"
    )]
    pub(super) fn uint32(self) -> Result<u32, DecodeError> {
        Ok(self.varint()? as u32)
    }

    /// A sint32: zigzag.
    #[inline]
    pub(super) fn sint32(self) -> Result<i32, DecodeError> {
        let zigzag = self.uint32()?;
        Ok((zigzag >> 1).cast_signed() ^ -((zigzag & 1).cast_signed()))
    }

    #[inline]
    pub(super) fn bool(self) -> Result<bool, DecodeError> {
        Ok(self.varint()? != 0)
    }

    #[inline]
    pub(super) fn fixed64(self) -> Result<u64, DecodeError> {
        match self {
            Value::Fixed64(value) => Ok(value),
            other => other.wrong("fixed64"),
        }
    }

    #[inline]
    pub(super) fn fixed32(self) -> Result<u32, DecodeError> {
        match self {
            Value::Fixed32(value) => Ok(value),
            other => other.wrong("fixed32"),
        }
    }

    #[inline]
    pub(super) fn double(self) -> Result<f64, DecodeError> {
        Ok(f64::from_bits(self.fixed64()?))
    }

    /// A repeated fixed64, packed or one of an unpacked run, appended as raw bits.
    pub(super) fn fixed64s<T>(
        self,
        into: &mut Vec<T>,
        max: usize,
        from_bits: impl Fn(u64) -> T,
    ) -> Result<(), DecodeError> {
        match self {
            Value::Fixed64(bits) => into.push(from_bits(bits)),
            Value::Bytes(packed) => {
                let (chunks, rest) = packed.as_chunks::<8>();
                if !rest.is_empty() {
                    return truncated();
                }
                check_list(into.len() + chunks.len(), max)?;
                into.extend(
                    chunks
                        .iter()
                        .map(|chunk| from_bits(u64::from_le_bytes(*chunk))),
                );
            }
            other => return other.wrong("fixed64"),
        }
        check_list(into.len(), max)
    }

    /// A repeated uint64, packed or one of an unpacked run.
    pub(super) fn varints(self, into: &mut Vec<u64>, max: usize) -> Result<(), DecodeError> {
        match self {
            Value::Varint(value) => into.push(value),
            Value::Bytes(packed) => {
                let mut values = Fields::new(packed);
                while !values.is_empty() {
                    into.push(values.varint()?);
                    check_list(into.len(), max)?;
                }
            }
            other => return other.wrong("varint"),
        }
        check_list(into.len(), max)
    }
}

/// A string's bytes as text; proto3 requires UTF-8.
#[inline]
pub(super) fn text(bytes: &[u8]) -> Result<&str, DecodeError> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(_) => malformed("a protobuf string is not UTF-8"),
    }
}

/// Holds a list inside a record to its bound.
pub(super) fn check_list(len: usize, max: usize) -> Result<(), DecodeError> {
    if len > max {
        return malformed(format!("a list inside a record has more than {max} items"));
    }
    Ok(())
}
