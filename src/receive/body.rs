//! Request bodies: admitted by bytes as they arrive, decompressed within the limit.

use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use flate2::bufread::{MultiGzDecoder, ZlibDecoder};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;

use super::refusal::Refusal;
use super::status;
use crate::memory::{Budget, Reservation};
use crate::telemetry::Reason;

/// The largest zstd window that is accepted, as a power of two: 8 MiB, what RFC 8878 asks every decoder to support.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// Bodies up to this size are decompressed where they arrive.
const INLINE_BYTES_MAX: usize = 64 << 10;

/// How an HTTP body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    Identity,
    /// gzip, of one or more members.
    Gzip,
    /// zlib.
    Deflate,
    /// zstd, of one or more frames.
    Zstd,
}

impl Compression {
    /// The compression that a `content-encoding` names.
    ///
    /// # Errors
    /// [`Refusal`] when it is not supported.
    pub fn parse(content_encoding: Option<&str>) -> Result<Compression, Refusal> {
        let name = content_encoding.unwrap_or_default().trim();
        match name.to_ascii_lowercase().as_str() {
            "" | "identity" => Ok(Compression::Identity),
            "gzip" | "x-gzip" => Ok(Compression::Gzip),
            "deflate" => Ok(Compression::Deflate),
            "zstd" => Ok(Compression::Zstd),
            _ => Err(Refusal::new(
                Reason::UnsupportedCompression,
                "this content-encoding is not supported; use gzip, zstd, deflate or identity",
            )),
        }
    }
}

/// Reads a whole body and decompresses it, never holding more than `max_bytes` of either form.
///
/// The compressed form is collected first: only a decoder that sees the end can tell a body that was cut off.
///
/// # Errors
/// [`Refusal`]: too large, no memory, not decompressible, or cut off.
pub async fn read(
    mut body: Body,
    compression: Compression,
    max_bytes: usize,
    budget: &Budget,
) -> Result<(Bytes, Reservation), Refusal> {
    if body.size_hint().lower() > max_bytes as u64 {
        return Err(Refusal::body_too_large(max_bytes));
    }
    let mut received = Bounded::new(max_bytes, budget);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Refusal::new(
                Reason::Incomplete,
                format!("the request's body ended early: {error}"),
            )
        })?;
        if let Some(data) = frame.data_ref() {
            received.append(data)?;
        }
    }
    if compression == Compression::Identity {
        return Ok(received.finish());
    }
    let output = Bounded::new(max_bytes, budget);
    let inflated = if received.bytes.len() <= INLINE_BYTES_MAX {
        decompress(&received.bytes, compression, output)
    } else {
        tokio::task::spawn_blocking(move || decompress(&received.bytes, compression, output))
            .await
            .unwrap_or_else(|_| Err(Refusal::new(Reason::Internal, "decompression failed")))
    };
    inflated.map(Bounded::finish)
}

fn decompress(
    compressed: &[u8],
    compression: Compression,
    mut output: Bounded,
) -> Result<Bounded, Refusal> {
    let copied = match compression {
        Compression::Identity => io::copy(&mut &*compressed, &mut output),
        Compression::Gzip => io::copy(&mut MultiGzDecoder::new(compressed), &mut output),
        Compression::Deflate => io::copy(&mut ZlibDecoder::new(compressed), &mut output),
        Compression::Zstd => {
            zstd::stream::read::Decoder::with_buffer(compressed).and_then(|mut decoder| {
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                io::copy(&mut decoder, &mut output)
            })
        }
    };
    match (copied, output.refusal.take()) {
        (_, Some(refusal)) => Err(refusal),
        (Ok(_), None) => Ok(output),
        (Err(error), None) => Err(Refusal::new(
            Reason::Malformed,
            format!("the body cannot be decompressed: {error}"),
        )),
    }
}

/// Bytes collected within a limit and a reservation.
struct Bounded {
    bytes: Vec<u8>,
    max_bytes: usize,
    reservation: Reservation,
    refusal: Option<Refusal>,
}

impl Bounded {
    /// Memory is reserved this far ahead.
    const STEP_BYTES: u64 = 16 << 10;

    fn new(max_bytes: usize, budget: &Budget) -> Bounded {
        Bounded {
            bytes: Vec::new(),
            max_bytes,
            reservation: budget.empty(),
            refusal: None,
        }
    }

    fn append(&mut self, data: &[u8]) -> Result<(), Refusal> {
        let len = self.bytes.len() + data.len();
        if len > self.max_bytes {
            return Err(Refusal::body_too_large(self.max_bytes));
        }
        if len as u64 > self.reservation.bytes() {
            self.reservation.grow_to(len as u64 + Bounded::STEP_BYTES)?;
        }
        self.bytes.extend_from_slice(data);
        Ok(())
    }

    fn finish(mut self) -> (Bytes, Reservation) {
        (Bytes::from(self.bytes), self.reservation.take())
    }
}

impl Write for Bounded {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self.append(data) {
            Ok(()) => Ok(data.len()),
            Err(refusal) => {
                self.refusal = Some(refusal);
                Err(io::Error::other("refused"))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A gRPC request's body that reserves memory for its bytes while they wait to become a message.
pub(super) struct AdmittedBody {
    body: Body,
    reservation: Reservation,
}

impl AdmittedBody {
    pub(super) fn new(body: Body, budget: &Budget) -> AdmittedBody {
        AdmittedBody {
            body,
            reservation: budget.empty(),
        }
    }
}

impl HttpBody for AdmittedBody {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        let frame = std::task::ready!(Pin::new(&mut this.body).poll_frame(context));
        Poll::Ready(frame.map(|frame| {
            let frame = frame?;
            if let Some(data) = frame.data_ref() {
                let bytes = this.reservation.bytes() + data.len() as u64;
                this.reservation
                    .grow_to(bytes)
                    .map_err(|error| status::to_grpc(&error.into()))?;
            }
            Ok(frame)
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
