//! The server's own logs and counters.
//!
//! Nothing is dropped silently: every refusal is counted by signal, protocol and reason, and logged. The log is limited
//! per reason, and never holds a payload or a token.

mod clients;
mod queries;
mod tokens;

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tracing_subscriber::EnvFilter;

pub use self::clients::{CLIENTS_MAX, ClientSeen, Sent};
use self::clients::{Clients, Key};
pub use self::queries::{Queries, QueryRefusal};
pub use self::tokens::TokenUse;
use crate::config::{LogConfig, LogFormat};
use crate::latency::{Latencies, Latency};
use crate::rows::{RecordError, Rejections};
use crate::signal::{Protocol, Signal};

/// How often the same kind of refusal is logged.
const REFUSAL_LOG_INTERVAL: Duration = Duration::from_secs(5);

/// The longest message of a refusal that is kept, in characters.
const MESSAGE_CHARS_MAX: usize = 500;

/// How the user agents of otlake's own commands begin, but for `otlake send`, which is a client as others are.
const OWN_AGENTS: [&str; 2] = ["otlake/", "otlake-doctor/"];

/// Why a request, or a record of one, was refused: one word each, listed in docs/OPERATIONS.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// No token, or a wrong one.
    Unauthenticated,
    /// A browser's `Origin` that is not allowed.
    ForbiddenOrigin,
    /// A `Host` that no one on this machine would name a loopback listener by.
    ForbiddenHost,
    /// A token that is not for this.
    NotPermitted,
    /// A connection whose TLS handshake failed, or that speaks TLS to a listener without: no request came over it.
    TlsHandshake,
    /// A path that is not one of ours.
    UnknownPath,
    /// A method that the path does not take.
    WrongMethod,
    /// A content type that is not OTLP.
    UnsupportedMediaType,
    /// A compression that is not supported.
    UnsupportedCompression,
    /// Speaks the other listener's protocol.
    WrongProtocol,
    /// The body is over the limit after decompression.
    BodyTooLarge,
    /// The rows would never fit the memory budget.
    RowsTooLarge,
    /// The memory budget is spent for now.
    MemoryFull,
    /// Journal and staged files have the size they are allowed, or the disk is full.
    DiskFull,
    /// The journal cannot be written.
    JournalFailed,
    /// The body cannot be parsed or decompressed.
    Malformed,
    /// The client went away inside the body, or sent it too slowly.
    Incomplete,
    /// The server is stopping.
    Stopping,
    /// Our own fault.
    Internal,
    /// A record that breaks a value rule.
    Record(RecordError),
}

impl Reason {
    /// The reason in one word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Reason::Unauthenticated => "unauthenticated",
            Reason::ForbiddenOrigin => "forbidden_origin",
            Reason::ForbiddenHost => "forbidden_host",
            Reason::NotPermitted => "not_permitted",
            Reason::TlsHandshake => "tls_handshake",
            Reason::UnknownPath => "unknown_path",
            Reason::WrongMethod => "wrong_method",
            Reason::UnsupportedMediaType => "unsupported_media_type",
            Reason::UnsupportedCompression => "unsupported_compression",
            Reason::WrongProtocol => "wrong_protocol",
            Reason::BodyTooLarge => "body_too_large",
            Reason::RowsTooLarge => "rows_too_large",
            Reason::MemoryFull => "memory_full",
            Reason::DiskFull => "disk_full",
            Reason::JournalFailed => "journal_failed",
            Reason::Malformed => "malformed",
            Reason::Incomplete => "incomplete",
            Reason::Stopping => "stopping",
            Reason::Internal => "internal",
            Reason::Record(error) => error.name(),
        }
    }
}

/// Who sent a request, for the log.
#[derive(Clone, Debug)]
pub struct Client {
    /// The peer's address.
    pub peer: Option<SocketAddr>,
    /// Its `user-agent`, cut to a bounded length.
    pub user_agent: String,
    /// The token it showed, where one is asked for.
    pub token: Option<Arc<TokenUse>>,
}

/// What has been counted of one signal over one protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// Requests accepted, partly refused ones included.
    pub requests: u64,
    /// Rows accepted.
    pub rows: u64,
    /// Bodies after decompression, bytes.
    pub bytes: u64,
    /// Requests refused whole.
    pub refused_requests: u64,
    /// Records refused alone.
    pub refused_rows: u64,
    /// Retries of remembered requests: answered as success, not stored again and not among `requests`.
    pub repeated: u64,
}

/// A request that was accepted.
#[derive(Clone, Copy, Debug)]
pub struct Taken<'a> {
    /// What it carried.
    pub signal: Signal,
    /// How it came.
    pub protocol: Protocol,
    /// Rows that were accepted.
    pub rows: u64,
    /// Whose they are.
    pub sent: &'a [Sent],
    /// Its body after decompression.
    pub bytes: usize,
    /// The records of it that were refused alone.
    pub rejections: &'a Rejections,
    /// Who sent it.
    pub client: &'a Client,
    /// From its whole body to its answer.
    pub took: Duration,
}

#[derive(Debug, Default)]
struct AcceptedCounters {
    /// Its count is that of the requests.
    answers: Latency,
    rows: AtomicU64,
    bytes: AtomicU64,
    repeated: AtomicU64,
}

/// How often something was refused for one reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// Whole requests.
    pub requests: u64,
    /// Single records.
    pub rows: u64,
}

/// The signal (where the path told), protocol and reason of a refusal.
pub type RefusalKey = (Option<Signal>, Protocol, Reason);

/// The last refusal of its kind.
#[derive(Clone, Debug)]
pub struct LastRefusal {
    /// When, Unix milliseconds.
    pub unix_ms: i64,
    /// Whose request it was.
    pub client: Client,
    /// What the client was told.
    pub message: String,
}

/// What was refused of a kind.
#[derive(Clone, Debug)]
pub struct RefusalSeen {
    /// Its kind.
    pub key: RefusalKey,
    /// How often.
    pub count: Refused,
    /// Of the requests, those of otlake's own commands: an operator's attempts, and not a client's mistake.
    pub own_requests: u64,
    /// The last one of a client; where there is none, that of a command.
    pub last: LastRefusal,
}

#[derive(Debug, Default)]
struct RefusalEntry {
    count: Refused,
    own_requests: u64,
    last: Option<LastRefusal>,
    last_own: Option<LastRefusal>,
    logged: Option<Instant>,
    unlogged: u64,
}

/// The receiver's counters. Accepting touches atomics only; refusing may take a lock.
#[derive(Debug, Default)]
pub struct Counters {
    accepted: [[AcceptedCounters; Protocol::ALL.len()]; Signal::ALL.len()],
    active: AtomicU64,
    refused: Mutex<BTreeMap<RefusalKey, RefusalEntry>>,
    /// By name; those that were taken away among them.
    tokens: Mutex<BTreeMap<String, Arc<TokenUse>>>,
    clients: Clients,
}

/// A request that is being handled, until this is dropped.
#[derive(Debug)]
pub struct Active(Arc<Counters>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Counters {
    /// Counts a request, whole here, as one that is being handled.
    #[must_use]
    pub fn handle(self: &Arc<Self>) -> Active {
        self.active.fetch_add(1, Ordering::Relaxed);
        Active(Arc::clone(self))
    }

    /// Requests that are being handled.
    #[must_use]
    pub fn active(&self) -> u64 {
        self.active.load(Ordering::Relaxed)
    }

    /// Counts an accepted request and the records of it that were refused alone.
    pub fn accept(&self, taken: &Taken<'_>) {
        let (signal, protocol, client) = (taken.signal, taken.protocol, taken.client);
        let counters = &self.accepted[signal as usize][protocol as usize];
        let bytes = taken.bytes as u64;
        counters.answers.observe(taken.took);
        counters.rows.fetch_add(taken.rows, Ordering::Relaxed);
        counters.bytes.fetch_add(bytes, Ordering::Relaxed);
        if let Some(token) = &client.token {
            token.accept(taken.rows, bytes);
        }
        let now = unix_ms();
        for sent in taken.sent {
            sent.accepted(now);
        }
        for (error, count) in taken.rejections.by_reason() {
            let refused = Refused {
                requests: 0,
                rows: count,
            };
            let key = (Some(signal), protocol, Reason::Record(error));
            self.refuse(key, refused, &error.to_string(), client);
        }
    }

    /// Whose rows these are: the services of a request, each with its rows.
    #[must_use]
    pub fn sent(
        &self,
        signal: Signal,
        protocol: Protocol,
        client: &Client,
        services: &[(&str, u64)],
    ) -> Vec<Sent> {
        let sent = services.iter().map(|(service, rows)| {
            let key = Key {
                service,
                user_agent: &client.user_agent,
                signal,
                protocol,
            };
            self.clients.sent(key, *rows)
        });
        sent.collect()
    }

    /// Who has sent something that was accepted, the last one first; at most [`CLIENTS_MAX`].
    #[must_use]
    pub fn clients(&self) -> Vec<ClientSeen> {
        self.clients.seen()
    }

    /// How long accepted requests of a signal over a protocol took to be answered.
    #[must_use]
    pub fn answers(&self, signal: Signal, protocol: Protocol) -> Latencies {
        self.accepted[signal as usize][protocol as usize]
            .answers
            .so_far()
    }

    /// Counts a retry of a remembered request, which is answered as success and not stored again.
    pub fn repeat(&self, signal: Signal, protocol: Protocol) {
        let counters = &self.accepted[signal as usize][protocol as usize];
        counters.repeated.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts and logs a request refused whole.
    pub fn refuse_request(&self, key: RefusalKey, message: &str, client: &Client) {
        let refused = Refused {
            requests: 1,
            rows: 0,
        };
        self.refuse(key, refused, message, client);
    }

    /// What is counted of the token of this name, from its first use on.
    #[must_use]
    pub fn token(&self, name: &str) -> Arc<TokenUse> {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let token = tokens
            .entry(name.to_owned())
            .or_insert_with(|| Arc::new(TokenUse::new(name)));
        Arc::clone(token)
    }

    /// Every token there is or was since the start, by name.
    #[must_use]
    pub fn tokens(&self) -> Vec<Arc<TokenUse>> {
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.values().cloned().collect()
    }

    fn refuse(&self, key: RefusalKey, refused: Refused, message: &str, client: &Client) {
        let (signal, protocol, reason) = key;
        if let Some(token) = &client.token {
            token.refuse(reason, refused);
        }
        let mut entries = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.entry(key).or_default();
        entry.count.requests += refused.requests;
        entry.count.rows += refused.rows;
        let last = Some(LastRefusal {
            unix_ms: unix_ms(),
            client: client.clone(),
            message: message.chars().take(MESSAGE_CHARS_MAX).collect(),
        });
        if OWN_AGENTS
            .iter()
            .any(|own| client.user_agent.starts_with(own))
        {
            entry.own_requests += refused.requests;
            entry.last_own = last;
        } else {
            entry.last = last;
        }
        let due = entry
            .logged
            .is_none_or(|logged| logged.elapsed() >= REFUSAL_LOG_INTERVAL);
        if !due {
            entry.unlogged += 1;
            return;
        }
        let since_last = std::mem::take(&mut entry.unlogged);
        entry.logged = Some(Instant::now());
        drop(entries);
        tracing::warn!(
            signal = signal.map_or("-", Signal::name),
            protocol = protocol.name(),
            reason = reason.name(),
            requests = refused.requests,
            records = refused.rows,
            not_logged_since_last = since_last,
            peer = client.peer.map(tracing::field::display),
            user_agent = client.user_agent,
            token = client.token.as_deref().map(TokenUse::name),
            "refused: {message}"
        );
    }

    /// What was accepted, refused and repeated of a signal over a protocol.
    #[must_use]
    pub fn accepted(&self, signal: Signal, protocol: Protocol) -> Accepted {
        let counters = &self.accepted[signal as usize][protocol as usize];
        let mut accepted = Accepted {
            requests: counters.answers.count(),
            rows: counters.rows.load(Ordering::Relaxed),
            bytes: counters.bytes.load(Ordering::Relaxed),
            repeated: counters.repeated.load(Ordering::Relaxed),
            ..Accepted::default()
        };
        for ((of, over, _), refused) in self.refused() {
            if of == Some(signal) && over == protocol {
                accepted.refused_requests += refused.requests;
                accepted.refused_rows += refused.rows;
            }
        }
        accepted
    }

    /// Every refusal counted so far, with the last one of its kind.
    #[must_use]
    pub fn refused_last(&self) -> Vec<RefusalSeen> {
        let entries = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = entries.iter().filter_map(|(key, entry)| {
            let last = entry.last.as_ref().or(entry.last_own.as_ref());
            Some(RefusalSeen {
                key: *key,
                count: entry.count,
                own_requests: entry.own_requests,
                last: last?.clone(),
            })
        });
        seen.collect()
    }

    /// Every refusal counted so far.
    #[must_use]
    pub fn refused(&self) -> Vec<(RefusalKey, Refused)> {
        let entries = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        entries
            .iter()
            .map(|(key, entry)| (*key, entry.count))
            .collect()
    }
}

/// The wall clock, Unix milliseconds.
fn unix_ms() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH);
    elapsed.map_or(0, |elapsed| {
        i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
    })
}

/// Starts logging to stderr: lines for people, coloured on a terminal, or one JSON object a line.
pub fn start_logging(config: &LogConfig) {
    let filter = EnvFilter::new(config.level.directives());
    let logging = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // A second logger in one process (tests) keeps the first.
    let _ = match config.format {
        LogFormat::Json => logging.json().flatten_event(true).try_init(),
        LogFormat::Human => logging
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            .try_init(),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a request is accepted, and two retries of it are known.
    /// Guarantees: the retries are counted apart, for their signal and protocol only.
    #[test]
    fn retries_are_counted_apart() {
        let counters = Counters::default();
        let client = Client {
            peer: None,
            user_agent: String::new(),
            token: None,
        };
        let (signal, protocol) = (Signal::Traces, Protocol::Http);
        counters.accept(&Taken {
            signal,
            protocol,
            rows: 3,
            sent: &[],
            bytes: 40,
            rejections: &Rejections::default(),
            client: &client,
            took: Duration::from_millis(3),
        });
        counters.repeat(signal, protocol);
        counters.repeat(signal, protocol);
        let accepted = Accepted {
            requests: 1,
            rows: 3,
            bytes: 40,
            repeated: 2,
            ..Accepted::default()
        };
        assert_eq!(counters.accepted(signal, protocol), accepted);
        assert_eq!(counters.answers(signal, protocol).sum_ns, 3_000_000);
        assert_eq!(counters.accepted(signal, Protocol::Grpc).repeated, 0);
        assert_eq!(counters.accepted(Signal::Logs, protocol).repeated, 0);
    }
}
