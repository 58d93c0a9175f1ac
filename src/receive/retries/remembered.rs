//! What [`super::Retries`] holds behind its lock: no lock, no clock, no channel of its own.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use super::{Digest, REMEMBERED_MAX};

/// What is known of a request's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// They were remembered, and one time less now: the request is a retry.
    Repeat,
    /// A request with the same bytes has lost its client, and whether it is kept is not decided yet.
    Undecided,
    /// Nothing: the request is new.
    New,
}

/// Digests with the time until which each is remembered, and those of which it is not decided yet.
///
/// Two undelivered requests with the same bytes are two entries of one digest.
#[derive(Default)]
pub(super) struct Remembered {
    /// When each entry expires. The number tells entries apart and grows with each.
    entries: BTreeMap<(Digest, u64), Instant>,
    by_expiry: BTreeMap<(Instant, u64), Digest>,
    entries_made: u64,
    undecided: HashMap<Digest, u32>,
}

impl Remembered {
    /// Adds an entry; answers how many were forgotten to make room, those closest to their end first.
    pub(super) fn remember(&mut self, digest: Digest, expires: Instant) -> u64 {
        let mut forgotten = 0;
        while self.entries.len() >= REMEMBERED_MAX {
            let Some(((_, number), oldest)) = self.by_expiry.pop_first() else {
                break;
            };
            self.entries.remove(&(oldest, number));
            forgotten += 1;
        }
        let number = self.entries_made;
        self.entries_made += 1;
        self.entries.insert((digest, number), expires);
        self.by_expiry.insert((expires, number), digest);
        forgotten
    }

    /// Uses up the oldest entry of a digest.
    pub(super) fn take(&mut self, digest: Digest, now: Instant) -> Taken {
        self.expire(now);
        let of_digest = (digest, 0)..=(digest, u64::MAX);
        let oldest = self.entries.range(of_digest).next();
        let Some((&(_, number), &expires)) = oldest else {
            return match self.undecided.contains_key(&digest) {
                true => Taken::Undecided,
                false => Taken::New,
            };
        };
        self.entries.remove(&(digest, number));
        self.by_expiry.remove(&(expires, number));
        Taken::Repeat
    }

    /// A request with this digest has lost its client before it was decided whether it is kept.
    pub(super) fn add_undecided(&mut self, digest: Digest) {
        *self.undecided.entry(digest).or_default() += 1;
    }

    /// It is decided now.
    pub(super) fn remove_undecided(&mut self, digest: Digest) {
        if let Some(count) = self.undecided.get_mut(&digest) {
            *count -= 1;
            if *count == 0 {
                self.undecided.remove(&digest);
            }
        }
    }

    /// Every entry with the time it has left, soonest to expire first.
    pub(super) fn all(&mut self, now: Instant) -> Vec<(Digest, Duration)> {
        self.expire(now);
        let entries = self.by_expiry.iter();
        entries
            .map(|((expires, _), digest)| (*digest, *expires - now))
            .collect()
    }

    /// How many entries there are.
    pub(super) fn len(&mut self, now: Instant) -> usize {
        self.expire(now);
        self.entries.len()
    }

    /// Whether a request could be a retry at all.
    pub(super) fn knows_any(&self) -> bool {
        !self.entries.is_empty() || !self.undecided.is_empty()
    }

    fn expire(&mut self, now: Instant) {
        while let Some(first) = self.by_expiry.first_entry() {
            let (expires, number) = *first.key();
            if expires > now {
                return;
            }
            let digest = first.remove();
            self.entries.remove(&(digest, number));
        }
    }
}
