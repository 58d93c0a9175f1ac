//! Receive: sockets, limits, auth, and the protocols' own words.
//!
//! ```text
//! listener (TLS) -> gate (origin, token) -> grpc | otap | http -> intake (admission, decode) -> keep -> journal, seal queue
//!    ^                                                   |
//!    '- connection <- answer <- status <-----------------'   what is not delivered is remembered by retries
//! ```
//! Everything that arrives is either accepted whole, accepted with single records refused, or refused with a reason
//! that is counted and logged. Only [`status`] makes gRPC statuses and HTTP errors.

pub mod admin;
mod answer;
pub mod auth;
pub mod body;
mod connection;
pub mod grpc;
mod handshake;
pub mod http;
mod in_flight;
pub mod intake;
pub mod keep;
pub mod listener;
pub mod metrics;
pub mod otap;
pub mod overview;
mod pace;
pub mod readiness;
pub mod refusal;
pub mod retries;
pub mod router;
mod services;
pub mod status;
pub mod tail;
pub mod tls;
pub mod tokens;
