//! OTAP: streams of Arrow record batches.

mod backpressure;
mod differential;
mod in_flight;
mod produced;
mod recorded;
mod streams;
