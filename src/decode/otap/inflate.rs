//! Decompresses the zstd buffers of an Arrow message before arrow-ipc reads it.
//!
//! arrow-ipc makes a zstd context for each message, and a batch of metrics has some dozens of them: a fifth of what decoding one
//! took. Here each thread has one. What arrow-ipc gets then is the same message with buffers that are marked as not compressed.
//!
//! Source: Arrow columnar format, "Serialization and Interprocess Communication", "Compression".

use std::cell::RefCell;
use std::io::Cursor;
use std::ops::Range;

use arrow::buffer::Buffer;
use arrow_ipc::CompressionType;
use zstd::bulk::Decompressor;

use super::prewalk::{NOT_COMPRESSED, decompressed_bytes, stored};

/// A message's metadata and body, with plain buffers.
pub(super) struct Inflated {
    pub(super) metadata: Vec<u8>,
    pub(super) body: Buffer,
}

thread_local! {
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Decompresses the buffers of `batch`, whose lengths were checked and have memory; none where it is not compressed with zstd.
pub(super) fn inflate(
    metadata: &[u8],
    batch: &arrow_ipc::RecordBatch<'_>,
    body: &[u8],
) -> Result<Option<Inflated>, String> {
    let codec = batch.compression().map(|compression| compression.codec());
    let Some(buffers) = batch
        .buffers()
        .filter(|_| codec == Some(CompressionType::ZSTD))
    else {
        return Ok(None);
    };
    let Some(places) = place_of(buffers.bytes(), metadata) else {
        return Ok(None);
    };
    let mut total = 0usize;
    for buffer in buffers {
        let bytes = decompressed_bytes(stored(buffer, body)?, true)?;
        total = total.saturating_add(
            bytes
                .saturating_add(PREFIX_BYTES)
                .next_multiple_of(ALIGNMENT),
        );
    }
    let mut metadata = metadata.to_vec();
    // Written one after the other, without a first pass of zeros; behind the last one there is no room.
    let mut plain = Cursor::new(Vec::with_capacity(total));
    DECOMPRESSOR.with_borrow_mut(|decompressor| {
        let decompressor = match decompressor {
            Some(decompressor) => decompressor,
            none => none.insert(Decompressor::new().map_err(|error| error.to_string())?),
        };
        for (buffer, place) in buffers.iter().zip(places) {
            let offset = plain.get_ref().len();
            append(decompressor, stored(buffer, body)?, &mut plain)?;
            let plain = plain.get_mut();
            let length = plain.len() - offset;
            plain.resize(plain.len().next_multiple_of(ALIGNMENT), 0);
            let entry = metadata
                .get_mut(place)
                .ok_or("a message's buffers do not fit")?;
            let (at, len) = entry.split_at_mut(size_of::<i64>());
            at.copy_from_slice(&number(offset)?.to_le_bytes());
            len.copy_from_slice(&number(length)?.to_le_bytes());
        }
        Ok::<(), String>(())
    })?;
    Ok(Some(Inflated {
        metadata,
        body: Buffer::from_vec(plain.into_inner()),
    }))
}

/// What stands before a buffer in a compressed message: its length once decompressed.
const PREFIX_BYTES: usize = size_of::<i64>();

/// Buffers begin at multiples of this, so that the numbers in them are aligned.
const ALIGNMENT: usize = 64;

/// Appends one buffer as arrow-ipc reads it where it is not compressed: with a prefix that says so.
fn append(
    decompressor: &mut Decompressor<'_>,
    stored: &[u8],
    plain: &mut Cursor<Vec<u8>>,
) -> Result<(), String> {
    let Some((prefix, data)) = stored.split_first_chunk() else {
        return Ok(());
    };
    let bytes = decompressed_bytes(stored, true)?;
    let target = plain.get_mut();
    target.extend_from_slice(&NOT_COMPRESSED.to_le_bytes());
    if i64::from_le_bytes(*prefix) == NOT_COMPRESSED {
        target.extend_from_slice(data);
        return Ok(());
    }
    if bytes == 0 {
        return Ok(());
    }
    plain.set_position(plain.get_ref().len() as u64);
    let found = decompressor.decompress_to_buffer(data, plain);
    let found = found.map_err(|error| format!("a buffer cannot be decompressed: {error}"))?;
    if found != bytes {
        return Err(format!(
            "a buffer has {found} bytes once it is decompressed, but claims {bytes}"
        ));
    }
    Ok(())
}

fn number(bytes: usize) -> Result<i64, String> {
    i64::try_from(bytes).map_err(|_| "a message's buffers do not fit".to_owned())
}

/// Where in `metadata` the entries of its list of buffers stand: offset and length, 8 bytes each.
fn place_of(entries: &[u8], metadata: &[u8]) -> Option<impl Iterator<Item = Range<usize>> + use<>> {
    let start = entries
        .as_ptr()
        .addr()
        .checked_sub(metadata.as_ptr().addr())?;
    let end = start.checked_add(entries.len())?;
    metadata.get(start..end)?;
    let entry_bytes = 2 * size_of::<i64>();
    Some(
        (start..end)
            .step_by(entry_bytes)
            .map(move |at| at..at + entry_bytes),
    )
}
