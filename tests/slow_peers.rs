//! Peers that are slow, silent or restless do not keep others out.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::support::frames::{http2_call, http2_cancel, http2_connect};
use crate::support::raw::{EXPORT_LOGS, accepted_rows};
use crate::support::{PATIENCE, Server};

/// What comes on a connection until the server closes it.
fn until_closed(mut stream: TcpStream) -> Vec<u8> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut said = Vec::new();
    loop {
        let mut part = [0; 4096];
        match stream.read(&mut part) {
            Ok(0) => return said,
            Ok(len) => said.extend(&part[..len]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return said,
            Err(error) => panic!("the connection stands: {error}"),
        }
    }
}

/// Scenario: on both ports of a server that takes eight connections, eight of them say nothing, a part of HTTP/2's preface, a
/// part of a request's head, or nothing more after a request was answered.
/// Guarantees: the server closes all of them by itself, and serves who comes then.
#[tokio::test]
async fn silent_peers_lose_their_place() {
    let server = Server::with(&["--max-connections", "8"]);
    let mut silent = Vec::new();
    for address in [server.grpc, server.http] {
        for said in [
            "",
            "PRI * HTTP/2.0\r\n",
            "POST /v1/logs HTTP/1.1\r\nhost: localhost\r\nx: ",
            "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n",
        ] {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(said.as_bytes()).unwrap();
            silent.push(stream);
        }
    }
    for stream in silent {
        until_closed(stream);
    }
    let answer = server.get("/healthz").await;
    assert_eq!(answer.status, 200);
    assert_eq!(accepted_rows(&server.status().await), 0);
}

/// Scenario: a peer opens streams and resets them at once, a thousand in one piece.
/// Guarantees: the connection is ended, with ENHANCE_YOUR_CALM; others are served.
#[tokio::test]
async fn who_resets_streams_as_fast_as_possible_is_disconnected() {
    const GOAWAY: u8 = 7;
    const ENHANCE_YOUR_CALM: [u8; 4] = 11u32.to_be_bytes();
    let server = Server::start();
    let mut stream = http2_connect(server.grpc);
    let restless: Vec<u8> = (0..1000)
        .flat_map(|call| {
            let id = 2 * call + 1;
            [http2_call(id, EXPORT_LOGS, &[]), http2_cancel(id)].concat()
        })
        .collect();
    // It may be closed before all is written.
    let _ = stream.write_all(&restless);
    stream
        .set_write_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    let mut said = &until_closed(stream)[..];
    let mut codes = Vec::new();
    while let [a, b, c, kind, _, _, _, _, _, rest @ ..] = said {
        let len = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        if *kind == GOAWAY {
            codes.push(rest[4..8].to_vec());
        }
        said = rest.get(len..).unwrap_or_default();
    }
    // Where the connection was closed over bytes that we had still sent, its last words can be lost.
    assert!(
        codes.is_empty() || codes == [ENHANCE_YOUR_CALM],
        "{codes:?}"
    );
    assert_eq!(server.get("/healthz").await.status, 200);
}
