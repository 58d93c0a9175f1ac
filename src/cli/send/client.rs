//! One connection to a server: an Export request goes out as bytes, and what became of it comes back.

mod grpc;
mod http;
mod otap;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use ::http::HeaderValue;
use anyhow::{Context, bail};
use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::rustls::ClientConfig;

use super::endpoint::{Endpoint, default_port};
use crate::cli::args::{ArrowCompression, SendArgs, SendCompression, SendProtocol};
use crate::cli::tls::{self, Above};
use crate::signal::{Protocol, Signal};

pub(super) use otap::OtapClient;

/// Where and how to send.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// The transport.
    pub(super) protocol: Protocol,
    /// The server.
    pub(super) endpoint: Endpoint,
    compression: SendCompression,
    /// How to speak TLS.
    tls: Arc<ClientConfig>,
    /// `Bearer` and the token.
    authorization: Option<HeaderValue>,
    timeout: Duration,
    /// Over gRPC: streams of Arrow instead of OTLP, written so.
    otap: Option<otap::Settings>,
}

/// How a request is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// OTLP protobuf.
    Protobuf,
    /// OTLP/JSON, over HTTP only.
    Json,
}

/// Batches of one OTAP stream that may wait for their status, unless `--in-flight` says otherwise.
const IN_FLIGHT: u32 = 16;

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The server took it, perhaps without some records (`partial_success`).
    Accepted {
        /// Records that the server refused alone.
        rejected: u64,
        /// Why, or a warning; empty when there is nothing to say.
        message: String,
    },
    /// The server did not take it.
    Refused {
        /// Status of the answer: `UNAVAILABLE`, `503 Service Unavailable`, ...
        reason: String,
        /// The server's words.
        message: String,
    },
    /// No answer came: whether the server took it is not known.
    Unanswered {
        /// What happened, in a few words that are the same each time.
        reason: String,
        /// What happened, in full.
        message: String,
    },
}

impl Target {
    /// The target that the arguments name.
    ///
    /// # Errors
    /// Addresses that are not understood, and tokens that a header cannot carry.
    pub(super) fn new(args: &SendArgs, protocol: Protocol) -> anyhow::Result<Target> {
        let authorization = match &args.token {
            Some(token) => {
                let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose()))
                    .ok()
                    .context("the token has characters that no header can carry")?;
                value.set_sensitive(true);
                Some(value)
            }
            None => None,
        };
        let mut endpoint = Endpoint::parse(args.endpoint.as_deref(), protocol)?;
        let has_scheme = args
            .endpoint
            .as_deref()
            .is_some_and(|given| given.contains("://"));
        if !has_scheme {
            endpoint.is_tls = args.tls.default_scheme() == "https";
        }
        let above = match protocol {
            Protocol::Grpc | Protocol::Otap => Above::Http2,
            Protocol::Http => Above::Http1,
        };
        Ok(Target {
            protocol,
            tls: tls::config(&endpoint.url(), &args.tls, None, above)?,
            endpoint,
            compression: args.compression,
            authorization,
            timeout: args.timeout,
            otap: (args.protocol == SendProtocol::Otap && protocol == Protocol::Grpc).then_some(
                otap::Settings {
                    compression: args.arrow_compression.unwrap_or(ArrowCompression::Zstd),
                    in_flight: args.in_flight.unwrap_or(IN_FLIGHT),
                },
            ),
        })
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// When nobody answers: says what to check.
    pub(super) async fn connect(&self) -> anyhow::Result<Client> {
        self.probe().await?;
        Ok(match self.protocol {
            Protocol::Grpc | Protocol::Otap => match &self.otap {
                Some(settings) => Client::Otap(OtapClient::connect(self, settings).await?),
                None => Client::Grpc(grpc::GrpcClient::connect(self).await?),
            },
            Protocol::Http => Client::Http(http::HttpClient::new(self)?),
        })
    }

    /// Connects and hangs up, because the clients' own errors say less.
    async fn probe(&self) -> anyhow::Result<()> {
        let Endpoint { host, port, .. } = &self.endpoint;
        let cause = match timeout(self.timeout, TcpStream::connect((host.as_str(), *port))).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer in {:?}", self.timeout),
        };
        bail!(
            "cannot reach {} ({cause}): check that `otlake serve` runs there and that this is its {} port, \
             or name the right one with --endpoint",
            self.endpoint.authority(),
            self.protocol,
        )
    }

    /// What to say when nothing was accepted and the port is known for the other protocol.
    pub(super) fn hint(&self) -> Option<String> {
        let other = match self.protocol {
            Protocol::Grpc | Protocol::Otap => Protocol::Http,
            Protocol::Http => Protocol::Grpc,
        };
        (self.endpoint.port == default_port(other)).then(|| {
            format!(
                "{} is usually the port of {other}: try --protocol {other}",
                self.endpoint.port
            )
        })
    }
}

/// One connection; requests go one after the other, but for OTAP.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "there is one a connection, and it stays in its task"
)]
pub(super) enum Client {
    /// Over h2.
    Grpc(grpc::GrpcClient),
    /// Over h2, streams of Arrow.
    Otap(OtapClient),
    /// Over HTTP/1.1, kept alive.
    Http(http::HttpClient),
}

impl Client {
    /// Sends one Export request and waits for the answer; compresses it first, if that is asked for.
    ///
    /// A connection that broke is opened again by the next request.
    ///
    /// # Errors
    /// Over OTAP, when the request is not what it should be and cannot be written.
    pub(super) async fn send(
        &mut self,
        signal: Signal,
        encoding: Encoding,
        request: Bytes,
    ) -> anyhow::Result<Outcome> {
        Ok(match self {
            Client::Otap(client) => client.submit(signal, &request).await?.outcome().await.0,
            Client::Grpc(client) => {
                assert_eq!(encoding, Encoding::Protobuf, "gRPC carries no JSON");
                client.send(signal, request).await
            }
            Client::Http(client) => client.send(signal, encoding, request).await,
        })
    }

    /// Ends what is open on the connection; says how streams ended that did not end well.
    pub(super) async fn close(self) -> anyhow::Result<Vec<Outcome>> {
        match self {
            Client::Otap(mut client) => client.close().await,
            Client::Grpc(_) | Client::Http(_) => Ok(Vec::new()),
        }
    }

    /// How it carries requests, as the user chose it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Client::Grpc(_) => Protocol::Grpc.name(),
            Client::Otap(_) => "otap",
            Client::Http(_) => Protocol::Http.name(),
        }
    }
}

/// What a server says when it has nothing to complain about.
const ACCEPTED: Outcome = Outcome::Accepted {
    rejected: 0,
    message: String::new(),
};

/// The outcome of a request that ran out of time.
fn late(limit: Duration) -> Outcome {
    Outcome::Unanswered {
        reason: "no answer in time".to_owned(),
        message: format!("nothing came within {limit:?} (--timeout)"),
    }
}

/// The reason of [`disconnected`].
const NO_CONNECTION: &str = "no connection";

impl Outcome {
    /// Whether the connection failed, which may take no time at all.
    pub(super) fn is_disconnected(&self) -> bool {
        matches!(self, Outcome::Unanswered { reason, .. } if reason == NO_CONNECTION)
    }
}

/// How long to wait after so many failures in a row, so that a server has the time to start again: 20 ms, then twice as long
/// each time, one second at most.
pub(super) fn pause(failures: u32) -> Duration {
    match failures {
        0 => Duration::ZERO,
        failures => Duration::from_millis(20 << (failures - 1).min(6)).min(Duration::from_secs(1)),
    }
}

/// The outcome of a request whose connection failed.
fn disconnected(error: &(dyn Error + 'static)) -> Outcome {
    Outcome::Unanswered {
        reason: NO_CONNECTION.to_owned(),
        message: tls::explain(error).unwrap_or_else(|| chain(error)),
    }
}

/// An error with its causes, each said once.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        next = cause.source();
    }
    text
}
