//! What the fuzzers begin with and have found, replayed; and the making of their first inputs.

mod otap;
mod otlp;
mod requests;

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{compression_input, journal_input, otap_input, otlp_input, request_input};

/// What a target runs on an input.
type Run = fn(&[u8]);

/// Each target of `scripts/fuzz`, and what it runs on its inputs.
const TARGETS: [(&str, Run); 9] = [
    ("journal_recovery", journal_input::recover),
    ("otap_batch", otap_input::batch),
    ("otap_stream", otap_input::stream),
    ("otap_prewalk", otap_input::records),
    ("otlp_protobuf", otlp_input::protobuf),
    ("otlp_json", otlp_input::json),
    ("ndjson", otlp_input::ndjson),
    ("http_compression", compression_input::compressed),
    ("admin", request_input::request),
];

/// The folder of a target's inputs.
pub fn corpus(target: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("tests/fuzz/corpus").join(target)
}

fn write(target: &str, name: &str, input: &[u8]) {
    fs::create_dir_all(corpus(target)).unwrap();
    fs::write(corpus(target).join(name), input).unwrap();
}

/// Scenario: every input of every fuzzer's corpus.
/// Guarantees: no panic, not even one that is caught, and what each target holds to beside: see its module in `support`.
#[test]
fn the_fuzzers_corpora_hold() {
    for (target, run) in TARGETS {
        let mut count = 0;
        for input in fs::read_dir(corpus(target)).unwrap() {
            let path = input.unwrap().path();
            let input = fs::read(&path).unwrap();
            let ran = std::panic::catch_unwind(|| run(&input));
            assert!(ran.is_ok(), "{}", path.display());
            count += 1;
        }
        assert!(count >= 5, "only {count} inputs of {target}");
    }
}

/// Scenario: the folders of inputs, and the fuzzers' programs.
/// Guarantees: every program's inputs are replayed here.
#[test]
fn every_fuzzer_is_replayed() {
    let known: Vec<&str> = TARGETS.iter().map(|(target, _)| *target).collect();
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/fuzz_targets");
    let programs = fs::read_dir(programs).unwrap().map(|program| {
        let path = program.unwrap().path();
        path.file_stem().unwrap().to_string_lossy().into_owned()
    });
    let mut missing = programs.filter(|program| !known.contains(&program.as_str()));
    assert_eq!(missing.next(), None);
}
