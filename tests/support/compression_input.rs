//! Bytes of any kind as a compressed body: what the fuzzer feeds, and the test that replays its corpus.
//!
//! | byte of the input | meaning |
//! |---|---|
//! | 0 | which of [`COMPRESSIONS`]; [`GRPC`] for the body of a gRPC call |
//! | 1 | how long the pieces are in which the body comes; 0 for all at once |
//! | 2.. | the body |

use std::cell::OnceCell;
use std::io::Read as _;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use flate2::bufread::GzDecoder;
use flate2::{Decompress, FlushDecompress, Status};
use http::Request;
use http_body_util::BodyExt as _;
use otlake::decode::Encoding;
use otlake::memory::Budget;
use otlake::receive::body::{self, Compression};
use otlake::receive::grpc::{export_path, with_exports};
use otlake::receive::intake::Intake;
use otlake::signal::Signal;
use otlake::telemetry::Reason;
use tower::ServiceExt as _;

use super::kept::{self, Kept};
use super::otlp_input::decode_bytes;

/// Set in the first byte: the body is a gRPC message in its frame.
pub const GRPC: u8 = 4;

/// By the low bits of the first byte; with the name that a header has for each.
pub const COMPRESSIONS: [(Compression, &str); 4] = [
    (Compression::Identity, "identity"),
    (Compression::Gzip, "gzip"),
    (Compression::Deflate, "deflate"),
    (Compression::Zstd, "zstd"),
];

/// The largest body, compressed or not: small, so that it is soon reached.
pub const BODY_BYTES_MAX: usize = 16 << 10;

/// The largest window of zstd that is taken, a power of two.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// A body is decompressed as another driver of the same libraries does it, to the same bytes, or refused.
pub fn compressed(input: &[u8]) {
    let Some((&[first, piece], body)) = input.split_first_chunk::<2>() else {
        return;
    };
    let (compression, name) = COMPRESSIONS[usize::from(first & 3)];
    match first & GRPC {
        0 => over_http(compression, piece, body),
        _ => over_grpc(compression, name, piece, body),
    }
}

fn over_http(compression: Compression, piece: u8, body: &[u8]) {
    let budget = Budget::new(1 << 20);
    let sent = kept::pieces(body, piece);
    let read = kept::run(body::read(sent, compression, BODY_BYTES_MAX, &budget));
    match (read, inflated(compression, body)) {
        (Ok((bytes, reservation)), Some(expected)) => {
            assert_eq!(bytes, expected);
            assert!(reservation.bytes() >= bytes.len() as u64);
            assert_eq!(budget.reserved(), reservation.bytes());
        }
        (Err(refusal), None) => {
            let is_told = [Reason::BodyTooLarge, Reason::Malformed].contains(&refusal.reason);
            assert!(is_told, "{refusal:?}");
        }
        (Err(_), Some(_)) if is_doubtful(compression, body) => {}
        (read, expected) => panic!("{:?}, expected {expected:?}", read.map(|read| read.0)),
    }
    assert_eq!(budget.reserved(), 0);
}

struct Served {
    router: Router,
    intake: Arc<Intake>,
    kept: Arc<Kept>,
}

/// The call is accepted if its only message is one of logs, whose rows are kept then.
fn over_grpc(compression: Compression, name: &str, piece: u8, body: &[u8]) {
    thread_local! {
        static SERVED: OnceCell<Served> = const { OnceCell::new() };
    }
    let expected = message(compression, body)
        .and_then(|message| decode_bytes(Signal::Logs, Encoding::Protobuf, &message).ok());
    let request = Request::post(export_path(Signal::Logs))
        .header("content-type", "application/grpc")
        .header("grpc-encoding", name);
    let request = request.body(kept::pieces(body, piece)).unwrap();
    SERVED.with(|served| {
        let served = served.get_or_init(|| {
            let (intake, kept) = kept::intake(BODY_BYTES_MAX);
            let router = with_exports(Router::new(), &intake);
            Served {
                router,
                intake,
                kept,
            }
        });
        let is_ok = kept::run(is_ok(&served.router, request));
        let is_doubtful = body
            .get(5..)
            .is_some_and(|message| is_doubtful(compression, message));
        assert!(is_ok == expected.is_some() || !is_ok && is_doubtful);
        let rows = expected.filter(|_| is_ok).map_or(0, |rows| rows.rows());
        assert_eq!(served.kept.take(), rows);
        assert_eq!(served.intake.budget.reserved(), 0);
    });
}

async fn is_ok(router: &Router, request: Request<Body>) -> bool {
    let response = router.clone().oneshot(request).await.unwrap();
    let in_head = response.headers().get("grpc-status").cloned();
    let body = response.into_body().collect().await.unwrap();
    let in_trailers = body.trailers().and_then(|all| all.get("grpc-status"));
    in_head.as_ref().or(in_trailers).unwrap() == "0"
}

/// The message in a gRPC frame that is all of the body.
fn message(compression: Compression, body: &[u8]) -> Option<Vec<u8>> {
    let (flag, rest) = body.split_first()?;
    let (len, message) = rest.split_first_chunk::<4>()?;
    let is_all = u32::from_be_bytes(*len) as usize == message.len();
    match flag {
        0 if is_all => inflated(Compression::Identity, message),
        1 if is_all && compression != Compression::Identity => inflated(compression, message),
        _ => None,
    }
}

/// A body decompressed; nothing if it is no such body as a whole, or is too large in either form.
fn inflated(compression: Compression, body: &[u8]) -> Option<Vec<u8>> {
    if body.len() > BODY_BYTES_MAX {
        return None;
    }
    let plain = match compression {
        Compression::Identity => Some(body.to_vec()),
        Compression::Gzip => gunzip(body),
        Compression::Deflate => unzlib(body),
        Compression::Zstd => unzstd(body),
    };
    plain.filter(|plain| plain.len() <= BODY_BYTES_MAX)
}

/// One member after the other.
fn gunzip(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    loop {
        let mut member = GzDecoder::new(body);
        let left = (BODY_BYTES_MAX + 1 - plain.len()) as u64;
        member.by_ref().take(left).read_to_end(&mut plain).ok()?;
        body = member.into_inner();
        if body.is_empty() || plain.len() > BODY_BYTES_MAX {
            return Some(plain);
        }
    }
}

fn unzlib(body: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(BODY_BYTES_MAX + 1);
    let mut stream = Decompress::new(true);
    let status = stream.decompress_vec(body, &mut plain, FlushDecompress::Finish);
    let is_whole = status.ok()? == Status::StreamEnd && stream.total_in() == body.len() as u64;
    is_whole.then_some(plain)
}

/// Whether zstd itself refuses or takes a body by how much room it is given: where the frame lies about its length, and ends in
/// an empty block.
fn is_doubtful(compression: Compression, body: &[u8]) -> bool {
    let has_room = || zstd::bulk::decompress(body, BODY_BYTES_MAX + 1);
    compression == Compression::Zstd && has_room().is_err()
}

/// No frame at all is taken too: some encoders write none for nothing.
fn unzstd(body: &[u8]) -> Option<Vec<u8>> {
    if body.is_empty() {
        return Some(Vec::new());
    }
    let mut decoder = zstd::stream::read::Decoder::with_buffer(body).ok()?;
    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).ok()?;
    let mut plain = Vec::new();
    let mut limited = decoder.take(BODY_BYTES_MAX as u64 + 1);
    limited.read_to_end(&mut plain).ok()?;
    Some(plain)
}
