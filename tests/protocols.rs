//! The same telemetry gives the same rows, whatever carried it.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use http::Request;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use otlake::lake::open_read_only;
use otlake::signal::Table;
use tonic::codec::CompressionEncoding;

use crate::support::otlp::Export;
use crate::support::{Server, lake_config, query_all, sample};

const GRPC: [Option<CompressionEncoding>; 4] = [
    None,
    Some(CompressionEncoding::Gzip),
    Some(CompressionEncoding::Zstd),
    Some(CompressionEncoding::Deflate),
];
const HTTP_COMPRESSIONS: [&str; 4] = ["identity", "gzip", "zstd", "deflate"];
const HTTP_TYPES: [&str; 3] = [
    "application/x-protobuf",
    "application/json",
    "application/x-ndjson",
];

/// The resource attribute that tells the ways apart. Its values are all of one length, so that cutting it out again
/// is a plain replacement.
const WAY: &str = "test.way";

/// One way of sending a request over HTTP.
#[derive(Clone, Copy, Debug)]
struct HttpWay {
    is_h2c: bool,
    content_type: &'static str,
    compression: &'static str,
    /// Sent in pieces, its length not announced.
    is_streamed: bool,
}

fn http_ways() -> Vec<HttpWay> {
    let mut ways = Vec::new();
    for is_h2c in [false, true] {
        for content_type in HTTP_TYPES {
            let plain = HTTP_COMPRESSIONS.map(|compression| (compression, false));
            for (compression, is_streamed) in plain
                .into_iter()
                .chain([("gzip", true), ("identity", true)])
            {
                ways.push(HttpWay {
                    is_h2c,
                    content_type,
                    compression,
                    is_streamed,
                });
            }
        }
    }
    ways
}

fn compress(body: Bytes, compression: &str) -> Bytes {
    match compression {
        "identity" => body,
        "gzip" => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(&body).unwrap();
            encoder.finish().unwrap().into()
        }
        "deflate" => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(&body).unwrap();
            encoder.finish().unwrap().into()
        }
        "zstd" => zstd::encode_all(&*body, 0).unwrap().into(),
        other => panic!("no such compression: {other}"),
    }
}

/// A body in pieces, whose length its sender does not know.
fn streamed(body: &Bytes) -> BoxBody<Bytes, std::convert::Infallible> {
    let pieces: Vec<_> = body
        .chunks(100)
        .map(|piece| Ok(http_body::Frame::data(Bytes::copy_from_slice(piece))))
        .collect();
    StreamBody::new(tokio_stream::iter(pieces)).boxed()
}

async fn send_http(server: &Server, export: &Export, way: HttpWay) {
    let body = match way.content_type {
        "application/x-protobuf" => export.to_protobuf(),
        "application/json" => serde_json::to_vec_pretty(&export.to_json()).unwrap().into(),
        _ => export.to_ndjson().into(),
    };
    let body = compress(body, way.compression);
    let body = match way.is_streamed {
        true => streamed(&body),
        false => Full::new(body).boxed(),
    };
    let mut request = Request::post(format!("http://{}{}", server.http, export.path()))
        .header("content-type", way.content_type);
    if way.compression != "identity" {
        request = request.header("content-encoding", way.compression);
    }
    let client: Client<_, BoxBody<Bytes, std::convert::Infallible>> =
        Client::builder(TokioExecutor::new())
            .http2_only(way.is_h2c)
            .build_http();
    let response = client.request(request.body(body).unwrap()).await.unwrap();
    let (status, version) = (response.status(), response.version());
    let expected = match way.is_h2c {
        true => http::Version::HTTP_2,
        false => http::Version::HTTP_11,
    };
    assert_eq!(version, expected, "{way:?}");
    let answered = response.headers()["content-type"].clone();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(status, 200, "{way:?}: {}", String::from_utf8_lossy(&body));
    match way.content_type {
        "application/x-protobuf" => {
            assert_eq!(answered, "application/x-protobuf", "{way:?}");
            assert!(body.is_empty(), "{way:?}: {body:?}");
        }
        _ => {
            assert_eq!(answered, "application/json", "{way:?}");
            assert_eq!(&body[..], b"{}", "{way:?}");
        }
    }
}

/// All rows of a table, with the way they came as a column instead of as a mark in the resource.
fn rows_by_way(table: Table) -> String {
    let mark = format!("\"{WAY}\":\"(\\d+)\"");
    format!(
        "SELECT regexp_extract(resource_attributes, '{mark}', 1) AS way,
            * REPLACE (regexp_replace(resource_attributes, '{mark}', '') AS resource_attributes)
         FROM {table}"
    )
}

/// Scenario: one request a signal, with everything OTLP has in it, is sent over gRPC and over HTTP/1.1 and h2c as
/// protobuf, JSON and NDJSON, in each compression, with and without an announced length.
/// Guarantees: every table has the same rows for each of the ways, compared with EXCEPT both ways.
#[tokio::test]
async fn every_protocol_and_encoding_gives_the_same_rows() {
    let server = Server::start();
    let mut ways = Vec::new();
    for compression in GRPC {
        let mark = format!("{:03}", ways.len());
        for export in sample::exports() {
            let partial = export
                .mark(WAY, &mark)
                .send_grpc(&server, compression)
                .await;
            assert_eq!(partial, (0, String::new()));
        }
        ways.push(format!("gRPC {compression:?}"));
    }
    for way in http_ways() {
        let mark = format!("{:03}", ways.len());
        for export in sample::exports() {
            send_http(&server, &export.mark(WAY, &mark), way).await;
        }
        ways.push(format!("{way:?}"));
    }
    assert_eq!(ways.len(), 40);
    server.flush().await;

    let lake = open_read_only(&lake_config(&server.data_dir())).unwrap();
    for (table, expected) in [
        (Table::Logs, 9),
        (Table::Traces, 3),
        (Table::Gauge, 10),
        (Table::Sum, 10),
        (Table::Histogram, 4),
        (Table::ExpHistogram, 4),
        (Table::Summary, 4),
    ] {
        let all = query_all(&lake, &format!("SELECT count(*) FROM {table}"));
        assert_eq!(all[0][0], (expected * ways.len()).to_string(), "{table}");
        let rows = rows_by_way(table);
        let last = ways.len() - 1;
        let first = format!(
            "SELECT format('{{:03d}}', number), rows.* EXCLUDE (way)
             FROM ({rows}) rows, range(0, {last} + 1) ways(number) WHERE rows.way = '000'"
        );
        for (ours, theirs) in [(&rows, &first), (&first, &rows)] {
            let difference = format!("({ours}) EXCEPT ALL ({theirs}) ORDER BY ALL");
            if let Some(row) = query_all(&lake, &difference).first() {
                let way = &ways[row[0].parse::<usize>().unwrap()];
                panic!("{table}, {way}: {row:#?}");
            }
        }
    }
}
