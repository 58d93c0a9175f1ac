//! Any bytes as export requests in OTLP/JSON, one a line: no panic, no memory beyond a multiple of the input, and the rows of
//! each line alone.

#![no_main]

use libfuzzer_sys::fuzz_target;
use otlake::decode::Encoding;

#[path = "../otlp.rs"]
mod otlp;

fuzz_target!(|input: &[u8]| otlp::check(
    Encoding::Ndjson,
    otlp::support::otlp_input::ndjson,
    input
));
