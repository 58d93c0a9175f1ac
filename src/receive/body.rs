//! Request bodies: admitted by bytes as they arrive, decompressed within the limit.

use std::cell::RefCell;
use std::fmt::Display;
use std::io::{self, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use flate2::bufread::{MultiGzDecoder, ZlibDecoder};
use http::{HeaderMap, HeaderName};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use zstd::stream::raw::{self, DParameter, InBuffer, Operation as _, OutBuffer};

use super::pace::Pace;
use super::refusal::Refusal;
use crate::memory::{Budget, Reservation};
use crate::telemetry::Reason;

const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");

/// The largest zstd window that is accepted, as a power of two: 8 MiB, what RFC 8878 asks every decoder to support.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// Bodies up to this size are decompressed where they arrive.
const INLINE_BYTES_MAX: usize = 64 << 10;

/// How a body, or a gRPC message, is compressed.
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
    /// The compression that a `content-encoding` or `grpc-encoding` names.
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
                "this compression is not supported; use gzip, zstd, deflate or identity",
            )),
        }
    }
}

impl Compression {
    /// The compression that a `grpc-encoding` names. The collector's `otelarrow` exporter calls plain zstd
    /// `zstdarrow<level>`; a client whose encoding is not known falls back to OTLP, silently.
    ///
    /// # Errors
    /// [`Refusal`] when it is not supported.
    pub fn of_grpc(headers: &HeaderMap) -> Result<Compression, Refusal> {
        let encoding = headers.get(GRPC_ENCODING);
        // A value that is not text is not one of ours either.
        let name = encoding.map(|value| value.to_str().unwrap_or("?"));
        match name {
            Some(name) if name.starts_with("zstdarrow") => Ok(Compression::Zstd),
            name => Compression::parse(name),
        }
    }
}

/// Reads a whole body and decompresses it, never holding more than `max_bytes` of either form.
///
/// The compressed form is collected first: only a decoder that sees the end can tell a body that was cut off.
///
/// # Errors
/// [`Refusal`]: too large, no memory, not decompressible, cut off, or too slow.
pub async fn read(
    body: Body,
    compression: Compression,
    max_bytes: usize,
    budget: &Budget,
) -> Result<(Bytes, Reservation), Refusal> {
    let (received, reservation) = receive(body, max_bytes, 0, budget).await?;
    if compression == Compression::Identity {
        return Ok((received, reservation));
    }
    inflate(received, reservation, compression, max_bytes, budget).await
}

/// Collects a body as it is, at most `max_bytes` and `framing_bytes` around them, as long as it comes at its [`Pace`].
///
/// # Errors
/// [`Refusal`]: too large, no memory, cut off, or too slow.
pub(super) async fn receive(
    mut body: Body,
    max_bytes: usize,
    framing_bytes: usize,
    budget: &Budget,
) -> Result<(Bytes, Reservation), Refusal> {
    let mut received = Bounded::new(max_bytes, framing_bytes, budget);
    if body.size_hint().lower() > received.capacity() as u64 {
        return Err(Refusal::body_too_large(max_bytes));
    }
    let incomplete = |why: &dyn Display| {
        let message = format!("the request's body ended early: {why}");
        Refusal::new(Reason::Incomplete, message)
    };
    let mut pace = Pace::new();
    loop {
        let frame = pace.next(body.frame()).await;
        let Some(frame) = frame.map_err(|why| incomplete(&why))? else {
            break;
        };
        let frame = frame.map_err(|error| incomplete(&error))?;
        if let Some(data) = frame.data_ref() {
            pace.received(data.len());
            received.append(data)?;
        }
    }
    Ok(received.finish())
}

/// Decompresses a body to at most `max_bytes`; `reservation` covers the compressed form and is given back.
///
/// # Errors
/// [`Refusal`]: too large, no memory, or not decompressible.
pub(super) async fn inflate(
    compressed: Bytes,
    reservation: Reservation,
    compression: Compression,
    max_bytes: usize,
    budget: &Budget,
) -> Result<(Bytes, Reservation), Refusal> {
    let is_small = compressed.len() <= INLINE_BYTES_MAX;
    let output = Bounded::new(max_bytes, 0, budget);
    let work = move || {
        let inflated = decompress(&compressed, compression, output);
        drop(reservation);
        inflated.map(Bounded::finish)
    };
    if is_small {
        return work();
    }
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(Refusal::new(Reason::Internal, "decompression failed")))
}

fn decompress(
    compressed: &[u8],
    compression: Compression,
    mut output: Bounded,
) -> Result<Bounded, Refusal> {
    let copied = match compression {
        Compression::Identity => io::copy(&mut &*compressed, &mut output),
        Compression::Gzip => io::copy(&mut MultiGzDecoder::new(compressed), &mut output),
        Compression::Deflate => inflate_zlib(compressed, &mut output),
        Compression::Zstd => inflate_zstd(compressed, &mut output),
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

/// Decompresses a zlib stream; answers the bytes that came out. The decoder itself passes over what stands behind it, and a
/// request whose second half does would be taken for whole.
fn inflate_zlib(compressed: &[u8], output: &mut Bounded) -> io::Result<u64> {
    let mut decoder = ZlibDecoder::new(compressed);
    let bytes = io::copy(&mut decoder, output)?;
    match decoder.into_inner() {
        [] => Ok(bytes),
        rest => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{} bytes behind its end", rest.len()),
        )),
    }
}

thread_local! {
    /// A thread's zstd context: making one for each message takes longer than decompressing a small one.
    static ZSTD: RefCell<Option<raw::Decoder<'static>>> = const { RefCell::new(None) };
}

/// Decompresses frames of zstd; answers the bytes that came out. No frame at all is nothing: Go's encoder writes none for an
/// empty message.
fn inflate_zstd(compressed: &[u8], output: &mut Bounded) -> io::Result<u64> {
    let kept = ZSTD.with_borrow_mut(Option::take);
    let mut decoder = match kept {
        Some(decoder) => decoder,
        None => {
            let mut decoder = raw::Decoder::new()?;
            decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX))?;
            decoder
        }
    };
    let mut input = InBuffer::around(compressed);
    let mut is_within_frame = false;
    while input.pos() < compressed.len() || is_within_frame {
        if !is_within_frame {
            decoder.reinit()?;
        }
        let before = (input.pos(), output.bytes.len());
        output.make_room()?;
        let at = output.bytes.len();
        let mut plain = OutBuffer::around_pos(&mut output.bytes, at);
        is_within_frame = decoder.run(&mut input, &mut plain)? != 0;
        output.check()?;
        if is_within_frame && before == (input.pos(), output.bytes.len()) {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "incomplete frame",
            ));
        }
    }
    // Only threads of the runtime keep one: there are few of them, and its window may take 8 MiB.
    if compressed.len() <= INLINE_BYTES_MAX {
        ZSTD.with_borrow_mut(|kept| *kept = Some(decoder));
    }
    Ok(output.bytes.len() as u64)
}

/// The most that is decompressed of a beginning.
const BEGINNING_BYTES_MAX: u64 = 64;

/// As much of a compressed message's first bytes as its own first bytes tell; nothing when they tell nothing.
pub(super) fn inflate_beginning(compressed: &[u8], compression: Compression) -> Bytes {
    let mut beginning = Vec::new();
    let mut take = |mut decoder: Box<dyn Read + '_>| {
        // It ends in an error where the bytes end; what came before counts.
        let _ = decoder.read_to_end(&mut beginning);
    };
    match compression {
        Compression::Identity => take(Box::new(compressed.take(BEGINNING_BYTES_MAX))),
        Compression::Gzip => take(Box::new(
            MultiGzDecoder::new(compressed).take(BEGINNING_BYTES_MAX),
        )),
        Compression::Deflate => take(Box::new(
            ZlibDecoder::new(compressed).take(BEGINNING_BYTES_MAX),
        )),
        Compression::Zstd => {
            if let Ok(mut decoder) = zstd::stream::read::Decoder::with_buffer(compressed)
                && decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).is_ok()
            {
                take(Box::new(decoder.take(BEGINNING_BYTES_MAX)));
            }
        }
    }
    Bytes::from(beginning)
}

/// Bytes collected within a limit and a reservation.
struct Bounded {
    bytes: Vec<u8>,
    max_bytes: usize,
    framing_bytes: usize,
    reservation: Reservation,
    refusal: Option<Refusal>,
}

impl Bounded {
    /// Memory is reserved this far ahead.
    const STEP_BYTES: u64 = 16 << 10;

    /// Room that is made at once for a decoder that writes behind the bytes.
    const ROOM_BYTES: usize = 32 << 10;

    fn new(max_bytes: usize, framing_bytes: usize, budget: &Budget) -> Bounded {
        Bounded {
            bytes: Vec::new(),
            max_bytes,
            framing_bytes,
            reservation: budget.empty(),
            refusal: None,
        }
    }

    fn capacity(&self) -> usize {
        self.max_bytes + self.framing_bytes
    }

    fn append(&mut self, data: &[u8]) -> Result<(), Refusal> {
        let len = self.bytes.len() + data.len();
        if len > self.capacity() {
            return Err(Refusal::body_too_large(self.max_bytes));
        }
        if len as u64 > self.reservation.bytes() {
            self.reservation.grow_to(len as u64 + Bounded::STEP_BYTES)?;
        }
        self.bytes.extend_from_slice(data);
        Ok(())
    }

    /// Makes room for more to be written behind the bytes.
    fn make_room(&mut self) -> io::Result<()> {
        let room = self.capacity() - self.bytes.len();
        // One more than is allowed, so that it is noticed.
        let room = room.saturating_add(1).min(Bounded::ROOM_BYTES);
        let len = (self.bytes.len() + room) as u64;
        if len > self.reservation.bytes()
            && let Err(error) = self.reservation.grow_to(len)
        {
            return Err(self.refuse(error.into()));
        }
        self.bytes.reserve(room);
        Ok(())
    }

    /// Checks what was written behind the bytes.
    fn check(&mut self) -> io::Result<()> {
        if self.bytes.len() <= self.capacity() {
            return Ok(());
        }
        let refusal = Refusal::body_too_large(self.max_bytes);
        Err(self.refuse(refusal))
    }

    /// Keeps why, for whom only an I/O error can be told.
    fn refuse(&mut self, refusal: Refusal) -> io::Error {
        self.refusal = Some(refusal);
        io::Error::other("refused")
    }

    fn finish(mut self) -> (Bytes, Reservation) {
        (Bytes::from(self.bytes), self.reservation.take())
    }
}

impl Write for Bounded {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self.append(data) {
            Ok(()) => Ok(data.len()),
            Err(refusal) => Err(self.refuse(refusal)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A body over HTTP/1.1 whose rest is read and forgotten when its handler has had enough.
///
/// A connection that is closed over unread bytes is reset, and the sender may lose the answer: it would take a refusal
/// for a broken network and send again. Reading on is bounded in time and bytes.
pub(super) struct LingeringBody {
    body: Body,
    ended: bool,
}

/// What is read and forgotten of one refused body.
const LINGER_BYTES_MAX: usize = 64 << 20;
const LINGER_MAX: Duration = Duration::from_secs(3);

impl LingeringBody {
    pub(super) fn new(body: Body) -> LingeringBody {
        LingeringBody { body, ended: false }
    }
}

impl HttpBody for LingeringBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(context));
        self.ended = !matches!(frame, Some(Ok(_)));
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for LingeringBody {
    fn drop(&mut self) {
        if self.ended || self.body.is_end_stream() {
            return;
        }
        let mut body = std::mem::take(&mut self.body);
        let forget = async move {
            let mut left = LINGER_BYTES_MAX;
            while let Some(Ok(frame)) = body.frame().await {
                let len = frame.data_ref().map_or(0, Bytes::len);
                match left.checked_sub(len) {
                    Some(rest) => left = rest,
                    None => return,
                }
            }
        };
        // Outside of the runtime there is no connection left either.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(tokio::time::timeout(LINGER_MAX, forget));
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::StreamBody;
    use tokio::time::Instant;
    use tokio_stream::StreamExt as _;

    use super::super::pace::PAUSE_MAX;
    use super::*;

    /// A body whose parts come this long after each other, by the paused clock; nothing more comes after the last.
    fn body(parts: usize, bytes: usize, pause: Duration) -> Body {
        let parts = tokio_stream::iter(0..parts).then(move |_| async move {
            tokio::time::sleep(pause).await;
            Ok::<_, io::Error>(Frame::data(Bytes::from(vec![7; bytes])))
        });
        Body::new(StreamBody::new(parts.chain(tokio_stream::pending())))
    }

    /// Scenario: a body in each compression, in two parts, and with a byte behind it.
    /// Guarantees: no part is passed over: both come out where the format allows parts, or it is refused; nothing stays reserved.
    #[tokio::test]
    async fn nothing_behind_a_bodys_end_is_passed_over() {
        use flate2::write::{GzEncoder, ZlibEncoder};
        let part = b"a part";
        let mut gzip = GzEncoder::new(Vec::new(), Default::default());
        gzip.write_all(part).unwrap();
        let mut zlib = ZlibEncoder::new(Vec::new(), Default::default());
        zlib.write_all(part).unwrap();
        let budget = Budget::new(1 << 20);
        for (compression, one, has_parts) in [
            (Compression::Gzip, gzip.finish().unwrap(), true),
            (Compression::Deflate, zlib.finish().unwrap(), false),
            (
                Compression::Zstd,
                zstd::encode_all(&part[..], 1).unwrap(),
                true,
            ),
        ] {
            let read = |bytes: Vec<u8>| read(Body::from(bytes), compression, 1 << 10, &budget);
            assert_eq!(read(one.clone()).await.unwrap().0, part[..]);
            let two = read([&one[..], &one].concat()).await;
            match two {
                Ok((bytes, _)) => {
                    assert_eq!((bytes.as_ref(), has_parts), (&b"a parta part"[..], true))
                }
                Err(refusal) => assert_eq!((refusal.reason, has_parts), (Reason::Malformed, false)),
            }
            let garbage = read([&one[..], b"x"].concat()).await;
            assert_eq!(
                garbage.unwrap_err().reason,
                Reason::Malformed,
                "{compression:?}"
            );
        }
        assert_eq!(budget.reserved(), 0);
    }

    /// Scenario: bodies of which parts come slowly, but at their pace, and then nothing more; one that falls behind.
    /// Guarantees: both are incomplete, each in its own words, when its time is over, and their memory is free.
    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_given_up() {
        let budget = Budget::new(1 << 20);
        for (parts, bytes, why) in [
            (0, 1, "nothing more comes of it"),
            (1, 1, "nothing more comes of it"),
            (20, 4096, "nothing more comes of it"),
            (
                20,
                1,
                "it comes too slowly, with less than 100 bytes a second",
            ),
        ] {
            let began = Instant::now();
            let pause = PAUSE_MAX - Duration::from_secs(1);
            let read = receive(body(parts, bytes, pause), 1 << 20, 0, &budget).await;
            let refusal = read.unwrap_err();
            assert_eq!(refusal.reason, Reason::Incomplete);
            let told = format!("the request's body ended early: {why}");
            assert_eq!(refusal.message, told);
            let parts = u32::try_from(parts).unwrap();
            match why {
                "nothing more comes of it" => {
                    assert_eq!(began.elapsed(), pause * parts + PAUSE_MAX)
                }
                _ => assert!(began.elapsed() < 3 * PAUSE_MAX),
            }
            assert_eq!(budget.reserved(), 0);
        }
    }
}
