//! Any bytes as an export request in protobuf: no panic, no memory beyond a multiple of the input, and the rows that a protobuf
//! library's reading of it has.

#![no_main]

use libfuzzer_sys::fuzz_target;
use otlake::decode::Encoding;

#[path = "../otlp.rs"]
mod otlp;

fuzz_target!(|input: &[u8]| otlp::check(
    Encoding::Protobuf,
    otlp::support::otlp_input::protobuf,
    input
));
