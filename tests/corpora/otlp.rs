//! What the fuzzers of OTLP begin with.

use super::write;
use crate::support::otlp::Export;
use crate::support::otlp_input::WRITTEN;
use crate::support::{captured, sample};

/// The longest first input: the fuzzer's own are seldom longer.
const BYTES_MAX: usize = 4 << 10;

/// Writes the inputs that the fuzzers begin with: the sample of each signal, and what agents have sent that is short.
#[test]
#[ignore = "writes the first inputs of the fuzzers anew: only where their format has changed"]
fn write_the_first_inputs() {
    for (number, export) in (0..).zip(sample::exports()) {
        let name = export.signal().to_string();
        write_all(number, &name, &export);
    }
    for agent in ["claude-httpproto", "codex-grpc", "claude-grpc"] {
        for (place, sent) in captured(agent).into_iter().enumerate() {
            let signals = ["logs", "traces", "metrics"];
            let number = signals.iter().position(|signal| *signal == sent.signal);
            let number = u8::try_from(number.unwrap()).unwrap();
            let signal = otlake::signal::Signal::ALL[usize::from(number)];
            assert_eq!(signal.to_string(), sent.signal);
            if let Ok(export) = Export::from_protobuf(signal, &sent.body)
                && sent.body.len() <= BYTES_MAX
            {
                write_all(number, &format!("{agent}_{place}"), &export);
            }
        }
    }
}

fn write_all(number: u8, name: &str, export: &Export) {
    let input = |first: u8, body: &[u8]| [&[first][..], body].concat();
    let body = export.to_protobuf();
    write("otlp_protobuf", name, &input(number, &body));
    let written = input(number | WRITTEN, &body);
    write("otlp_json", &format!("{name}_written"), &written);
    let json = export.to_json();
    if json.to_string().len() <= 2 * BYTES_MAX {
        let compact = json.to_string();
        write("otlp_json", name, &input(number, compact.as_bytes()));
        let lines = input(number, export.to_ndjson().as_bytes());
        write("ndjson", name, &lines);
    }
}
