//! Which connection a request was answered on of late.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};

use crate::journal::Digest;

/// So many locks share the table: enough that connections seldom meet at one.
const SHARDS: usize = 64;

/// Places of a shard. A later request takes the place of an earlier one: 65,536 places last for a moment even where every
/// request is of one record.
const PLACES: usize = 1024;

/// A connection that may have ended without our having noticed.
pub trait Connection: fmt::Debug + Send + Sync {
    /// Looks whether it has, and if so tells what became of its answers.
    fn look(&self);
}

/// The connections that requests were answered on, by the requests' digests. Bounded: what is older is overwritten.
pub(super) struct Answered {
    shards: [Mutex<Vec<Option<Entry>>>; SHARDS],
}

type Entry = (Digest, Weak<dyn Connection>);

impl Default for Answered {
    fn default() -> Answered {
        Answered {
            shards: [const { Mutex::new(Vec::new()) }; SHARDS],
        }
    }
}

impl Answered {
    pub(super) fn insert(&self, digest: Digest, connection: Weak<dyn Connection>) {
        let (mut shard, place) = self.place(digest);
        if shard.is_empty() {
            shard.resize(PLACES, None);
        }
        let before = shard[place].replace((digest, connection));
        // It may be the last to go.
        drop(shard);
        drop(before);
    }

    /// The connection on which a request with these bytes was answered last.
    pub(super) fn get(&self, digest: Digest) -> Option<Weak<dyn Connection>> {
        let (shard, place) = self.place(digest);
        let (equal, connection) = shard.get(place)?.as_ref()?;
        (*equal == digest).then(|| connection.clone())
    }

    fn place(&self, digest: Digest) -> (MutexGuard<'_, Vec<Option<Entry>>>, usize) {
        let [first, second, third, ..] = digest.to_bytes();
        let shard = &self.shards[usize::from(first) % SHARDS];
        let place = usize::from(u16::from_le_bytes([second, third])) % PLACES;
        (shard.lock().unwrap_or_else(PoisonError::into_inner), place)
    }
}
