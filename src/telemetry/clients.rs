//! Who has sent something of late, for `otlake doctor`: bounded, and without a lock that one request holds against another.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use hashbrown::HashTable;

use crate::signal::{Protocol, Signal};

/// So many clients are known; of more, the one that was silent the longest is forgotten.
pub const CLIENTS_MAX: usize = 256;

/// The longest service name that is kept, in characters.
const SERVICE_CHARS_MAX: usize = 200;

/// A service that sent a signal in some way, and when it did so last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientSeen {
    /// Its resource's `service.name`; empty when it has none.
    pub service: String,
    /// Its `user-agent`.
    pub user_agent: String,
    /// What it sends.
    pub signal: Signal,
    /// How.
    pub protocol: Protocol,
    /// Its last accepted request, Unix milliseconds.
    pub last_unix_ms: i64,
    /// Accepted requests that had rows of it, since it is known.
    pub requests: u64,
    /// Their rows.
    pub rows: u64,
}

/// What tells one client from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key<'a> {
    pub(super) service: &'a str,
    pub(super) user_agent: &'a str,
    pub(super) signal: Signal,
    pub(super) protocol: Protocol,
}

#[derive(Debug)]
struct Entry {
    service: String,
    user_agent: String,
    signal: Signal,
    protocol: Protocol,
    last_unix_ms: AtomicI64,
    requests: AtomicU64,
    rows: AtomicU64,
}

impl Entry {
    fn new(key: Key<'_>) -> Entry {
        Entry {
            service: key.service.to_owned(),
            user_agent: key.user_agent.to_owned(),
            signal: key.signal,
            protocol: key.protocol,
            last_unix_ms: AtomicI64::new(0),
            requests: AtomicU64::new(0),
            rows: AtomicU64::new(0),
        }
    }

    fn key(&self) -> Key<'_> {
        Key {
            service: &self.service,
            user_agent: &self.user_agent,
            signal: self.signal,
            protocol: self.protocol,
        }
    }

    fn seen(&self) -> ClientSeen {
        ClientSeen {
            service: self.service.clone(),
            user_agent: self.user_agent.clone(),
            signal: self.signal,
            protocol: self.protocol,
            last_unix_ms: self.last_unix_ms.load(Ordering::Relaxed),
            requests: self.requests.load(Ordering::Relaxed),
            rows: self.rows.load(Ordering::Relaxed),
        }
    }
}

/// Rows of a request, and whose they are. Found before the rows are kept, so that little is to be done when they are.
#[derive(Clone, Debug)]
pub struct Sent {
    entry: Arc<Entry>,
    rows: u64,
}

impl Sent {
    /// The rows were accepted.
    pub(super) fn accepted(&self, unix_ms: i64) {
        let entry = &self.entry;
        entry.last_unix_ms.fetch_max(unix_ms, Ordering::Relaxed);
        entry.requests.fetch_add(1, Ordering::Relaxed);
        entry.rows.fetch_add(self.rows, Ordering::Relaxed);
    }
}

/// The clients that are known. Written to only when a new one comes.
#[derive(Debug, Default)]
pub(super) struct Clients {
    hasher: RandomState,
    entries: RwLock<HashTable<Arc<Entry>>>,
}

impl Clients {
    /// The entry of a client, which is known from then on.
    fn entry(&self, key: Key<'_>) -> Arc<Entry> {
        let key = Key {
            service: cut(key.service),
            ..key
        };
        let hash = self.hasher.hash_one(key);
        let is_same = |entry: &Arc<Entry>| entry.key() == key;
        let known = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = known.find(hash, is_same) {
            return Arc::clone(entry);
        }
        drop(known);
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        // Another request of it may have come first.
        if entries.find(hash, is_same).is_none() && entries.len() >= CLIENTS_MAX {
            forget_oldest(&mut entries);
        }
        let rehash = |entry: &Arc<Entry>| self.hasher.hash_one(entry.key());
        let entry = entries.entry(hash, is_same, rehash);
        Arc::clone(entry.or_insert_with(|| Arc::new(Entry::new(key))).get())
    }

    /// Whose rows these are.
    pub(super) fn sent(&self, key: Key<'_>, rows: u64) -> Sent {
        Sent {
            entry: self.entry(key),
            rows,
        }
    }

    /// Every client that is known, the last to send first.
    pub(super) fn seen(&self) -> Vec<ClientSeen> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let mut seen: Vec<ClientSeen> = entries.iter().map(|entry| entry.seen()).collect();
        drop(entries);
        // Of some nothing was accepted yet.
        seen.retain(|client| client.requests > 0);
        seen.sort_by(|a, b| {
            let by_time = b.last_unix_ms.cmp(&a.last_unix_ms);
            by_time.then_with(|| (&a.service, a.signal).cmp(&(&b.service, b.signal)))
        });
        seen
    }
}

fn forget_oldest(entries: &mut HashTable<Arc<Entry>>) {
    let last = |entry: &Arc<Entry>| entry.last_unix_ms.load(Ordering::Relaxed);
    let oldest = entries.iter().map(last).min().unwrap_or_default();
    let mut is_forgotten = false;
    entries.retain(|entry| {
        let goes = !is_forgotten && last(entry) <= oldest;
        is_forgotten |= goes;
        !goes
    });
}

/// The beginning of a name that is too long.
fn cut(service: &str) -> &str {
    match service.char_indices().nth(SERVICE_CHARS_MAX) {
        Some((end, _)) => service.get(..end).unwrap_or_default(),
        None => service,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(service: &str) -> Key<'_> {
        Key {
            service,
            user_agent: "agent",
            signal: Signal::Logs,
            protocol: Protocol::Grpc,
        }
    }

    /// Scenario: one service sends twice, with another user agent, and another signal; of another nothing is accepted.
    /// Guarantees: each kind of sender is counted by itself, with the time of its last request; who was only refused is not there.
    #[test]
    fn each_kind_of_sender_is_counted_by_itself() {
        let clients = Clients::default();
        clients.sent(key("shop"), 3).accepted(1000);
        clients.sent(key("shop"), 4).accepted(3000);
        let other = Key {
            user_agent: "other",
            ..key("shop")
        };
        clients.sent(other, 5).accepted(2000);
        let spans = Key {
            signal: Signal::Traces,
            ..key("shop")
        };
        clients.sent(spans, 6).accepted(1500);
        let _refused = clients.sent(key("nobody"), 7);
        let seen: Vec<_> = clients.seen();
        let rows = seen.iter().map(|seen| (seen.rows, seen.requests));
        assert_eq!(rows.collect::<Vec<_>>(), [(7, 2), (5, 1), (6, 1)]);
        assert_eq!(seen[0].last_unix_ms, 3000);
    }

    /// Scenario: far more services than are kept, whose names are longer than is kept.
    /// Guarantees: no more are held than the bound says, in text and number; those that sent last are.
    #[test]
    fn only_the_last_ones_are_known() {
        let clients = Clients::default();
        for number in 0..3 * CLIENTS_MAX {
            let service = format!("{number:0>4}{}", "é".repeat(1000));
            let now = i64::try_from(number).unwrap();
            clients.sent(key(&service), 1).accepted(now);
        }
        let seen = clients.seen();
        assert_eq!(seen.len(), CLIENTS_MAX);
        for (place, seen) in seen.iter().enumerate() {
            let number = 3 * CLIENTS_MAX - 1 - place;
            assert!(seen.service.starts_with(&format!("{number:0>4}é")));
            assert_eq!(seen.service.chars().count(), SERVICE_CHARS_MAX);
        }
    }
}
