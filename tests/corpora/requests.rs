//! What the fuzzers of requests and their compression begin with.

use std::fs;
use std::io::Write as _;

use flate2::write::{GzEncoder, ZlibEncoder};
use otlake::proto::admin::{FlushRequest, SealsRequest};
use otlake::proto::arrow::BatchArrowRecords;
use prost::Message as _;

use super::{corpus, write};
use crate::support::compression_input::GRPC;
use crate::support::raw::frame;
use crate::support::request_input::{ADMIN, INGEST, PATHS, QUERY, is_success};
use crate::support::sample;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Default::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Default::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

/// Writes the inputs that the fuzzer of compression begins with: the sample of logs in every compression, in one part and in
/// two, and larger than is taken; in a frame of gRPC and without.
#[test]
#[ignore = "writes the first inputs of the fuzzer anew: only where their format has changed"]
fn write_the_first_bodies() {
    let logs = sample::exports()[0].to_protobuf();
    type Compress = fn(&[u8]) -> Vec<u8>;
    let compressions: [(u8, &str, Compress); 4] = [
        (0, "identity", |bytes| bytes.to_vec()),
        (1, "gzip", gzip),
        (2, "deflate", deflate),
        (3, "zstd", zstd),
    ];
    for (number, name, compress) in compressions {
        let (first, second) = logs.split_at(logs.len() / 2);
        let bodies = [
            ("whole", compress(&logs)),
            ("parts", [compress(first), compress(second)].concat()),
            ("large", compress(&[0; (16 << 10) + 1])),
            ("none", compress(b"")),
        ];
        for (which, body) in bodies.iter().filter(|(_, body)| body.len() < 5000) {
            let name = format!("{name}_{which}");
            let input = [&[number, 100][..], body].concat();
            write("http_compression", &name, &input);
            let framed = frame(number != 0, body);
            let input = [&[number | GRPC, 0][..], &framed].concat();
            write("http_compression", &format!("{name}_grpc"), &input);
        }
    }
}

/// Scenario: the first requests, some of them for another host and with a token at a place where none is looked for.
/// Guarantees: those are refused, the others succeed: what the fuzzer holds to of successes, it holds to of many.
#[test]
fn the_first_requests_succeed() {
    for input in fs::read_dir(corpus("admin")).unwrap() {
        let path = input.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.contains('_') {
            let is_success = is_success(&fs::read(&path).unwrap());
            // A tail is watched for as long as anyone likes, and has no end of its own.
            let expected = !name.ends_with("_refused") && !name.ends_with("_Tail");
            assert_eq!(is_success, expected, "{name}");
        }
    }
}

/// Writes the inputs that the fuzzer of requests begins with: one for each path that is served, with the token that it
/// takes, and some that are refused.
#[test]
#[ignore = "writes the first inputs of the fuzzer anew: only where their format has changed"]
fn write_the_first_requests() {
    let bodies: Vec<Vec<u8>> = sample::exports()
        .iter()
        .map(|export| export.to_protobuf().to_vec())
        .collect();
    let batch = BatchArrowRecords {
        batch_id: 7,
        ..BatchArrowRecords::default()
    };
    let batch = frame(false, &batch.encode_to_vec());
    for (number, path) in (0..).zip(PATHS) {
        let (token, body) = match number {
            0 => (
                QUERY,
                frame(false, &FlushRequest { timeout_ms: 5 }.encode_to_vec()),
            ),
            2 => (
                QUERY,
                frame(false, &SealsRequest { limit: 3 }.encode_to_vec()),
            ),
            3 => (ADMIN, frame(false, b"")),
            // For the services: field 7 of the reflection's request.
            5 => (QUERY, frame(false, &[7 << 3 | 2, 1, b'*'])),
            6..=8 => (INGEST, frame(true, &zstd(&bodies[number - 6]))),
            9..=11 => (INGEST, [batch.clone(), batch.clone()].concat()),
            12..=14 => (INGEST, gzip(&bodies[number - 12])),
            _ => (QUERY, frame(false, b"")),
        };
        let (content_type, encoding) = match number {
            0..6 | 16 => ("application/grpc", "grpc-accept-encoding: gzip"),
            6..12 => ("application/grpc", "grpc-encoding: zstd"),
            _ => ("application/x-protobuf", "content-encoding: gzip"),
        };
        let mut head = format!("content-type: {content_type}\n{encoding}\nhost: localhost:4317\n");
        head += &format!("authorization: Bearer {token}\ngrpc-timeout: 10S\nte: trailers\n");
        if ["/readyz", "/metrics"].contains(&path) {
            head += ":method: GET\n";
        }
        let name = format!("{number}_{}", path.rsplit('/').next().unwrap());
        let number = u8::try_from(number).unwrap();
        let input = [&[number, 0], head.as_bytes(), b"\n", &body].concat();
        write("admin", &name, &input);
        let head = format!(
            ":authority: evil.example:1\nx-api-key: {ADMIN}\norigin: http://evil.example\n\
             content-type: {content_type}\nuser-agent: x\n"
        );
        let input = [&[number, 3], head.as_bytes(), b"\n", &body].concat();
        if number % 4 == 0 {
            write("admin", &format!("{name}_refused"), &input);
        }
    }
}
