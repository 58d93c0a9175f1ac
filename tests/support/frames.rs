//! HTTP/2 frame by frame: what no client does on its own.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use loona_hpack::Decoder;

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
    let headers = http2_headers(stream, path, "application/grpc");
    [headers, http2_data(stream, true, &frame(false, message))].concat()
}

/// The frame with which a POST begins.
pub fn http2_headers(stream: u32, path: &str, content_type: &str) -> Vec<u8> {
    // :method POST and :scheme http are in the table.
    let mut headers = vec![0x83, 0x86];
    let mut literal = |name: &[u8], value: &str| {
        headers.extend(name);
        headers.push(u8::try_from(value.len()).unwrap());
        headers.extend(value.as_bytes());
    };
    literal(&[0x04], path);
    literal(&[0x01], "localhost");
    literal(&[0x0f, 0x10], content_type);
    literal(b"\x00\x02te", "trailers");
    http2_frame(HEADERS, 0x4, stream, &headers)
}

/// A frame with a part of a body, or its end.
pub fn http2_data(stream: u32, is_end: bool, part: &[u8]) -> Vec<u8> {
    http2_frame(DATA, u8::from(is_end), stream, part)
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
    while read_frame(stream).0 != (kind, on) {}
}

/// Reads a frame: its kind, its stream, and what it carries.
fn read_frame(stream: &mut TcpStream) -> ((u8, u32), Vec<u8>) {
    let mut head = [0; 9];
    stream.read_exact(&mut head).unwrap();
    let [a, b, c, kind, _, on @ ..] = head;
    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    stream.read_exact(&mut payload).unwrap();
    ((kind, u32::from_be_bytes(on)), payload)
}

/// A connection over HTTP/2 on which nothing that is answered is passed over.
pub struct Http2 {
    stream: TcpStream,
    headers: Decoder<'static>,
    answers: HashMap<u32, Http2Answer>,
}

/// What has come on a stream.
#[derive(Default)]
pub struct Http2Answer {
    /// Of its head and, after that, of its trailers.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Http2 {
    pub fn connect(address: SocketAddr) -> Http2 {
        Http2 {
            stream: http2_connect(address),
            headers: Decoder::new(),
            answers: HashMap::new(),
        }
    }

    /// Sends frames, and waits until the server has read them all.
    pub fn send(&mut self, frames: &[u8]) {
        self.stream.write_all(frames).unwrap();
        self.stream.write_all(&http2_ping()).unwrap();
        while self.read() != (PING, 0) {}
    }

    /// Waits until a header of this name has come on a stream; answers its value.
    pub fn header(&mut self, on: u32, name: &str) -> String {
        loop {
            let headers = &self.answers.entry(on).or_default().headers;
            if let Some((_, value)) = headers.iter().find(|(header, _)| header == name) {
                return value.clone();
            }
            self.read();
        }
    }

    /// Waits until something of a body has come on a stream; answers it.
    pub fn body(&mut self, on: u32) -> String {
        while self.answers.entry(on).or_default().body.is_empty() {
            self.read();
        }
        String::from_utf8_lossy(&self.answers[&on].body).into_owned()
    }

    fn read(&mut self) -> (u8, u32) {
        let ((kind, on), payload) = read_frame(&mut self.stream);
        let answer = self.answers.entry(on).or_default();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        match kind {
            HEADERS => {
                let headers = self.headers.decode(&payload).unwrap().into_iter();
                let headers = headers.map(|(name, value)| (text(name), text(value)));
                answer.headers.extend(headers);
            }
            DATA => answer.body.extend(payload),
            _ => {}
        }
        (kind, on)
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
