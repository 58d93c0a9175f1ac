//! Decompresses the buffers of an Arrow message.
//!
//! A batch of metrics has more than a hundred of them, a few hundred bytes each: a context for each message took a fifth of what
//! decoding one took. Here each thread has one, and what a message holds goes into one piece of memory. Buffers that nobody
//! looks at stay as they are.
//!
//! Source: Arrow columnar format, "Serialization and Interprocess Communication", "Compression".

use std::cell::RefCell;
use std::io::{Cursor, Read as _};

use arrow::buffer::Buffer;
use arrow_ipc::CompressionType;
use zstd::bulk::Decompressor;

use super::prewalk::{Checked, CheckedBuffer};

thread_local! {
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Plain buffers begin at multiples of this, so that the numbers in them are aligned.
const ALIGNMENT: usize = 64;

/// The widest number of a column, bytes: a buffer that begins at no multiple of it is copied.
const NUMBER_BYTES_MAX: usize = 8;

/// The buffers of a batch, plain and aligned; those that are not read are empty. For them there is memory.
///
/// # Errors
/// What is wrong with a buffer.
pub(super) fn inflate(batch: &Checked, body: &Buffer) -> Result<Vec<Buffer>, String> {
    let plain = match batch.codec {
        None => Buffer::default(),
        Some(codec) => decompress(batch, codec, body)?,
    };
    let mut at = 0;
    let mut buffers = Vec::with_capacity(batch.buffers.len());
    for buffer in &batch.buffers {
        buffers.push(if is_decompressed(buffer) {
            let begin = at;
            at += buffer.bytes.next_multiple_of(ALIGNMENT);
            plain.slice_with_length(begin, buffer.bytes)
        } else if buffer.is_read {
            aligned(body.slice_with_length(buffer.stored.start, buffer.stored.len()))
        } else {
            Buffer::default()
        });
    }
    Ok(buffers)
}

fn is_decompressed(buffer: &CheckedBuffer) -> bool {
    buffer.is_read && buffer.is_compressed && buffer.bytes > 0
}

fn aligned(buffer: Buffer) -> Buffer {
    match buffer.as_ptr().align_offset(NUMBER_BYTES_MAX) {
        0 => buffer,
        _ => Buffer::from(buffer.as_slice()),
    }
}

/// Decompresses what is to be, one buffer after the other.
fn decompress(batch: &Checked, codec: CompressionType, body: &[u8]) -> Result<Buffer, String> {
    let buffers = batch.buffers.iter().filter(|it| is_decompressed(it));
    let sizes = buffers.clone().map(|it| it.bytes.saturating_add(ALIGNMENT));
    let total = sizes.fold(0, usize::saturating_add);
    // Without a first pass of zeros; behind the last one there is hardly any room.
    let mut plain = Cursor::new(Vec::with_capacity(total));
    for buffer in buffers {
        let begin = plain.get_ref().len();
        let stored = body.get(buffer.stored.clone()).unwrap_or_default();
        plain.set_position(begin as u64);
        match codec {
            CompressionType::ZSTD => append_zstd(stored, &mut plain)?,
            _ => append_lz4(stored, buffer.bytes, plain.get_mut())?,
        }
        let plain = plain.get_mut();
        let found = plain.len() - begin;
        if found != buffer.bytes {
            return Err(format!(
                "a buffer has {found} bytes once it is decompressed, but claims {}",
                buffer.bytes
            ));
        }
        plain.resize(plain.len().next_multiple_of(ALIGNMENT), 0);
    }
    Ok(aligned(Buffer::from_vec(plain.into_inner())))
}

fn append_zstd(stored: &[u8], plain: &mut Cursor<Vec<u8>>) -> Result<(), String> {
    DECOMPRESSOR.with_borrow_mut(|decompressor| {
        let decompressor = match decompressor {
            Some(decompressor) => decompressor,
            none => none.insert(Decompressor::new().map_err(|error| error.to_string())?),
        };
        let done = decompressor.decompress_to_buffer(stored, plain);
        done.map_err(not_decompressed).map(|_| ())
    })
}

/// At most one byte more than `bytes`, which tells that there is more.
fn append_lz4(stored: &[u8], bytes: usize, plain: &mut Vec<u8>) -> Result<(), String> {
    let decoder = lz4_flex::frame::FrameDecoder::new(stored);
    let mut limited = decoder.take((bytes as u64).saturating_add(1));
    limited
        .read_to_end(plain)
        .map_err(not_decompressed)
        .map(|_| ())
}

fn not_decompressed(error: std::io::Error) -> String {
    format!("a buffer cannot be decompressed: {error}")
}
