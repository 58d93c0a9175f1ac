//! OTAP: streams of Arrow record batches.

mod backpressure;
mod differential;
mod produced;
mod recorded;
mod streams;
