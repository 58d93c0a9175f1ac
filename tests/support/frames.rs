//! HTTP/2 frame by frame: what no client does on its own.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::raw::frame;

/// Kinds of frames.
const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
pub const PING: u8 = 6;

/// The error code of a client that does not want its answer any more.
const CANCEL: u32 = 8;

/// The frames of one gRPC call on a stream of a connection, byte by byte. The headers stand as they are, without
/// compression.
///
/// Source: RFC 9113, RFC 7541.
pub fn http2_call(stream: u32, path: &str, message: &[u8]) -> Vec<u8> {
    // :method POST and :scheme http are in the table.
    let mut headers = vec![0x83, 0x86];
    let mut literal = |name: &[u8], value: &str| {
        headers.extend(name);
        headers.push(u8::try_from(value.len()).unwrap());
        headers.extend(value.as_bytes());
    };
    literal(&[0x04], path);
    literal(&[0x01], "localhost");
    literal(&[0x0f, 0x10], "application/grpc");
    literal(b"\x00\x02te", "trailers");
    let headers = http2_frame(HEADERS, 0x4, stream, &headers);
    let data = http2_frame(DATA, 0x1, stream, &frame(false, message));
    [headers, data].concat()
}

fn http2_frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Opens a connection over HTTP/2 and does not say more than it must.
pub fn http2_connect(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    let patience = Some(Duration::from_secs(20));
    stream.set_read_timeout(patience).unwrap();
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .unwrap();
    stream.write_all(&http2_frame(SETTINGS, 0, 0, &[])).unwrap();
    stream
}

/// Reads frames until one of this kind comes on a stream.
pub fn read_until(stream: &mut TcpStream, kind: u8, on: u32) {
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).unwrap();
        let len = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; len as usize];
        stream.read_exact(&mut payload).unwrap();
        if head[3] == kind && head[5..] == on.to_be_bytes() {
            return;
        }
    }
}

/// Resets a stream whose answer nobody waits for.
pub fn http2_cancel(stream: u32) -> Vec<u8> {
    http2_frame(RESET, 0, stream, &CANCEL.to_be_bytes())
}

/// Asks for a sign of life: when it is answered, everything before it has been read.
pub fn http2_ping() -> Vec<u8> {
    http2_frame(PING, 0, 0, &[0; 8])
}
