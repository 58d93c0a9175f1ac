//! The headers of each batch: HPACK, with a dynamic table that lives as long as the stream.
//!
//! The decoder of the crate takes what it is given: it builds its Huffman tables anew for each text and hands out every entry
//! that an index of one byte names. So the fields of a block are counted before, and what they become while they come.
//!
//! Source: RFC 7541.

use std::fmt;

use loona_hpack::Decoder;

/// The headers of one batch as they come, bytes.
pub const HEADER_BLOCK_BYTES_MAX: usize = 64 << 10;

/// The headers of one batch: names and values, bytes.
pub const HEADERS_BYTES_MAX: usize = 64 << 10;

/// Fields in the headers of one batch, with the changes of the table's size.
pub const HEADER_FIELDS_MAX: usize = 256;

/// The dynamic table, bytes as RFC 7541 counts them; an encoder that was told nothing may use so much.
pub const HEADER_TABLE_BYTES_MAX: usize = 4096;

/// An integer has so many octets at most.
const INTEGER_OCTETS_MAX: usize = 5;

/// A header's name and value.
pub type Header = (Vec<u8>, Vec<u8>);

/// The state of one stream's headers.
pub(super) struct Headers {
    decoder: Decoder<'static>,
}

impl fmt::Debug for Headers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not what it holds: tokens are among it.
        formatter.debug_struct("Headers").finish_non_exhaustive()
    }
}

impl Headers {
    /// The headers of a stream that begins.
    pub(super) fn new() -> Headers {
        let mut decoder = Decoder::new();
        decoder.set_max_allowed_table_size(HEADER_TABLE_BYTES_MAX);
        decoder.set_max_table_size(HEADER_TABLE_BYTES_MAX);
        Headers { decoder }
    }

    /// Decodes the headers of the next batch: names and values, in order.
    pub(super) fn decode(&mut self, block: &[u8]) -> Result<Vec<Header>, String> {
        if block.len() > HEADER_BLOCK_BYTES_MAX {
            return Err(format!(
                "the headers take {} bytes, limit {HEADER_BLOCK_BYTES_MAX}",
                block.len()
            ));
        }
        check_fields(block)?;
        let mut headers = Vec::new();
        let mut bytes = 0;
        self.decoder
            .decode_with_cb(block, |name, value| {
                bytes += name.len() + value.len();
                if bytes <= HEADERS_BYTES_MAX {
                    headers.push((name.into_owned(), value.into_owned()));
                }
            })
            .map_err(|error| format!("the headers are not HPACK: {error}"))?;
        if bytes > HEADERS_BYTES_MAX {
            return Err(format!(
                "the headers become {bytes} bytes, limit {HEADERS_BYTES_MAX}"
            ));
        }
        Ok(headers)
    }
}

/// Counts the fields of a block.
fn check_fields(mut block: &[u8]) -> Result<(), String> {
    let mut count = 0;
    while let Some(&first) = block.first() {
        count += 1;
        if count > HEADER_FIELDS_MAX {
            return Err(format!(
                "the headers have more than {HEADER_FIELDS_MAX} fields"
            ));
        }
        skip_field(first, &mut block).ok_or("the headers are not HPACK: a field is cut off")?;
    }
    Ok(())
}

/// Skips a field: one that is all in a table, a change of the table's size, or a name and a value.
fn skip_field(first: u8, block: &mut &[u8]) -> Option<()> {
    let prefix_bits = match first.leading_zeros() {
        0 => return integer(block, 7).map(drop),
        2 => return integer(block, 5).map(drop),
        1 => 6,
        _ => 4,
    };
    if integer(block, prefix_bits)? == 0 {
        skip_text(block)?;
    }
    skip_text(block)
}

fn skip_text(block: &mut &[u8]) -> Option<()> {
    let bytes = integer(block, 7)?;
    *block = block.get(bytes..)?;
    Some(())
}

/// An integer that begins in the low bits of the next octet.
fn integer(block: &mut &[u8], prefix_bits: u32) -> Option<usize> {
    let (first, mut rest) = block.split_first()?;
    let mask = u8::MAX >> (8 - prefix_bits);
    let mut value = usize::from(first & mask);
    if first & mask == mask {
        let mut shift = 0;
        loop {
            let (octet, behind) = rest.split_first()?;
            rest = behind;
            value += usize::from(octet & 0x7f) << shift;
            if octet & 0x80 == 0 {
                break;
            }
            shift += 7;
            if shift > 7 * (INTEGER_OCTETS_MAX as u32 - 2) {
                return None;
            }
        }
    }
    *block = rest;
    Some(value)
}
