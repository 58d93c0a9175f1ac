//! Decode: a request's bytes to rows, in protobuf, JSON and OTAP, beside otlp2records on the same bytes; and what
//! decompression costs before it, by the libraries alone.

use std::io::{Read as _, Write as _};

use ::otlp2records::InputFormat;
use ::otlp2records::otap::OtapDecoder;
use bytes::Bytes;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use otlake::decode::otap::StreamDecoder;
use otlake::decode::{Encoding, decode};
use otlake::memory::Budget;
use otlake::proto::arrow::BatchArrowRecords;
use otlake::signal::Signal;
use otlake_bench::measure::{Contender, Times, measure};
use otlake_bench::otlp2records;
use otlake_bench::workload::{RECEIVED_UNIX_NANO, Workload};
use prost::Message as _;

use crate::report::{Beside, Line, Report};
use crate::{BATCH, Options};

/// The memory that rows may take: more than there is.
const BUDGET_BYTES: u64 = u64::MAX;

pub fn run(options: &Options, report: &mut Report) {
    let requests = options.rows / BATCH;
    let mut workloads: Vec<Workload> = Signal::ALL
        .into_iter()
        .map(|signal| Workload::generated(signal, requests as u64, BATCH as u64))
        .collect();
    for (name, folder) in [("Codex", "codex-grpc"), ("Claude", "claude-grpc")] {
        let once = Workload::captured(name, folder, 1);
        let times = options.rows.div_ceil(once.rows);
        workloads.push(Workload::captured(name, folder, times));
    }
    for workload in &workloads {
        protobuf(options, workload, report);
        json(options, workload, report);
        otap(options, workload, report);
    }
    for workload in workloads.iter().take(1) {
        inflate(options, workload, report);
    }
}

/// The least that a compressed request can cost more: its body decompressed into a buffer of the right size.
fn inflate(options: &Options, workload: &Workload, report: &mut Report) {
    let bodies = || workload.bodies.iter().map(|body| &body.protobuf);
    let len_max = bodies().map(Bytes::len).max().unwrap_or_default();
    let gzip: Vec<Bytes> = bodies()
        .map(|body| {
            let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(body).unwrap();
            encoder.finish().unwrap().into()
        })
        .collect();
    let zstd: Vec<Bytes> = bodies()
        .map(|body| zstd::bulk::compress(body, 0).unwrap().into())
        .collect();
    let mut buffer = Vec::with_capacity(len_max);
    let inflate_gzip = || {
        let mut sum = 0;
        for body in &gzip {
            buffer.clear();
            sum += GzDecoder::new(&body[..]).read_to_end(&mut buffer).unwrap();
        }
        sum
    };
    let mut decompressor = zstd::bulk::Decompressor::new().unwrap();
    let mut target = Vec::with_capacity(len_max);
    let inflate_zstd = || {
        let of = |body: &Bytes| {
            decompressor
                .decompress_to_buffer(body, &mut target)
                .unwrap()
        };
        zstd.iter().map(of).sum()
    };
    let mut contenders = [
        Contender::new("inflate gzip", inflate_gzip),
        Contender::new("inflate zstd", inflate_zstd),
    ];
    let times = measure(options.rounds, &mut contenders);
    for (place, (stage, bodies)) in [("inflate gzip", &gzip), ("inflate zstd", &zstd)]
        .into_iter()
        .enumerate()
    {
        let bytes: usize = bodies.iter().map(Bytes::len).sum();
        report.line(&Line {
            stage,
            workload: workload.name,
            rows: workload.rows,
            seconds: times.median(place),
            bytes_a_row: bytes as f64 / workload.rows as f64,
            beside: None,
        });
    }
}

fn protobuf(options: &Options, workload: &Workload, report: &mut Report) {
    let bodies: Vec<Bytes> = workload
        .bodies
        .iter()
        .map(|body| body.protobuf.clone())
        .collect();
    let times = otlp(
        options,
        workload,
        &bodies,
        Encoding::Protobuf,
        InputFormat::Protobuf,
    );
    print("decode protobuf", workload, &bodies, &times, report);
}

fn json(options: &Options, workload: &Workload, report: &mut Report) {
    let bodies = workload.json();
    let times = otlp(
        options,
        workload,
        &bodies,
        Encoding::Json,
        InputFormat::Json,
    );
    print("decode JSON", workload, &bodies, &times, report);
}

fn otlp(
    options: &Options,
    workload: &Workload,
    bodies: &[Bytes],
    encoding: Encoding,
    format: InputFormat,
) -> Times {
    let budget = Budget::new(BUDGET_BYTES);
    let signals = || workload.bodies.iter().map(|body| body.signal).zip(bodies);
    let ours = || {
        let rows = |(signal, body): (Signal, &Bytes)| {
            let reservation = budget.empty();
            let rows = decode(signal, encoding, body, RECEIVED_UNIX_NANO, reservation);
            rows.unwrap().rows() as usize
        };
        signals().map(rows).sum()
    };
    let theirs = || {
        let rows = |(signal, body): (Signal, &Bytes)| {
            let batches = otlp2records::decode(signal, format, body).unwrap();
            batches.iter().map(|batch| batch.num_rows()).sum::<usize>()
        };
        signals().map(rows).sum()
    };
    let mut contenders = [
        Contender::new("otlake", ours),
        Contender::new("otlp2records", theirs),
    ];
    measure(options.rounds, &mut contenders)
}

/// A new stream in each round, so that its dictionaries are built again.
fn otap(options: &Options, workload: &Workload, report: &mut Report) {
    let messages = workload.otap();
    let budget = Budget::new(BUDGET_BYTES);
    let signals = || {
        workload
            .bodies
            .iter()
            .map(|body| body.signal)
            .zip(&messages)
    };
    let ours = || {
        let mut streams = Signal::ALL.map(|signal| StreamDecoder::new(signal, &budget));
        let rows = |(signal, message): (Signal, &Bytes)| {
            let batch = BatchArrowRecords::decode(message.clone()).unwrap();
            let stream = &mut streams[signal as usize];
            let rows = stream.decode(&batch, RECEIVED_UNIX_NANO, budget.empty());
            rows.unwrap().rows() as usize
        };
        signals().map(rows).sum()
    };
    let theirs = || -> Result<usize, ::otlp2records::Error> {
        let mut streams = Signal::ALL.map(|_| OtapDecoder::new());
        let mut sum = 0;
        for (signal, message) in signals() {
            let stream = &mut streams[signal as usize];
            let batches = otlp2records::decode_otap(signal, stream, message)?;
            sum += batches.iter().map(|batch| batch.num_rows()).sum::<usize>();
        }
        Ok(sum)
    };
    let mut contenders = vec![Contender::new("otlake", ours)];
    match theirs() {
        Ok(_) => contenders.push(Contender::new("otlp2records", || theirs().unwrap())),
        Err(error) => eprintln!(
            "otlp2records cannot read OTAP of {}: {error}",
            workload.name
        ),
    }
    let times = measure(options.rounds, &mut contenders);
    print("decode OTAP", workload, &messages, &times, report);
}

fn print(stage: &str, workload: &Workload, bodies: &[Bytes], times: &Times, report: &mut Report) {
    let bytes: usize = bodies.iter().map(Bytes::len).sum();
    report.line(&Line {
        stage,
        workload: workload.name,
        rows: workload.rows,
        seconds: times.median(0),
        bytes_a_row: bytes as f64 / workload.rows as f64,
        beside: (times.0.len() > 1).then(|| Beside {
            name: "otlp2records",
            seconds: times.median(1),
            ratio: times.ratio_to(1),
            bytes_a_row: None,
        }),
    });
}
