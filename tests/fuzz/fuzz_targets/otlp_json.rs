//! Any bytes as an export request in OTLP/JSON: no panic, no memory beyond a multiple of the input, and the same rows however it
//! is spelled; any request that a protobuf library reads has the same rows in JSON.

#![no_main]

use libfuzzer_sys::fuzz_target;
use otlake::decode::Encoding;

#[path = "../otlp.rs"]
mod otlp;

fuzz_target!(|input: &[u8]| otlp::check(Encoding::Json, otlp::support::otlp_input::json, input));
