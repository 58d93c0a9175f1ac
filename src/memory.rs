//! The memory budget: one count of bytes over everything between receipt and the staged file.
//!
//! A [`Reservation`] is taken before bytes are held and travels with them: from the request's body, through
//! its rows, into the open buffer and the seal. Dropping it gives the bytes back. Nothing waits here: when
//! the budget is spent the caller refuses the request in its protocol's own words.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Why bytes could not be reserved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// Others hold the memory now; trying again later can succeed.
    #[error("{wanted} bytes do not fit: {reserved} of {limit} bytes of buffer memory are in use")]
    Full {
        /// Bytes asked for.
        wanted: u64,
        /// Bytes that the request held already.
        held: u64,
        /// Bytes reserved at that moment, by all.
        reserved: u64,
        /// The budget's size.
        limit: u64,
    },
    /// The request would not fit even into an empty buffer; trying again is pointless.
    #[error("the request needs more than the {limit} bytes of buffer memory there are")]
    NeverFits {
        /// The budget's size.
        limit: u64,
    },
}

impl MemoryError {
    /// Whether the same request can succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, MemoryError::Full { .. })
    }

    /// The same failure of a request that holds `beside` bytes in another reservation: what would not fit if nobody
    /// else held any never fits. Can be called for each of several others.
    #[must_use]
    pub fn holding(self, beside: u64) -> MemoryError {
        let MemoryError::Full {
            wanted,
            held,
            reserved,
            limit,
        } = self
        else {
            return self;
        };
        let held = held.saturating_add(beside);
        if wanted.saturating_add(held) > limit {
            return MemoryError::NeverFits { limit };
        }
        MemoryError::Full {
            wanted,
            held,
            reserved,
            limit,
        }
    }
}

/// A bounded count of bytes, shared by all that hold telemetry in memory.
#[derive(Clone, Debug)]
pub struct Budget {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    limit: u64,
    reserved: AtomicU64,
}

impl Budget {
    /// A budget of `limit` bytes, none of them reserved.
    #[must_use]
    pub fn new(limit: u64) -> Budget {
        Budget {
            shared: Arc::new(Shared {
                limit,
                reserved: AtomicU64::new(0),
            }),
        }
    }

    /// The size of the budget, bytes.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.shared.limit
    }

    /// Bytes reserved now.
    #[must_use]
    pub fn reserved(&self) -> u64 {
        self.shared.reserved.load(Ordering::Relaxed)
    }

    /// Whether nothing new should begin: the last eighth is for what is inside already.
    #[must_use]
    pub fn is_nearly_spent(&self) -> bool {
        self.reserved() > self.limit() / 8 * 7
    }

    /// An empty reservation, to be grown.
    #[must_use]
    pub fn empty(&self) -> Reservation {
        Reservation {
            budget: self.clone(),
            bytes: 0,
        }
    }

    /// Reserves `bytes`.
    ///
    /// # Errors
    /// [`MemoryError`] when they do not fit; nothing is reserved then.
    pub fn reserve(&self, bytes: u64) -> Result<Reservation, MemoryError> {
        let mut reservation = self.empty();
        reservation.grow_to(bytes)?;
        Ok(reservation)
    }
}

/// Bytes taken from a [`Budget`], given back on drop.
#[derive(Debug)]
pub struct Reservation {
    budget: Budget,
    bytes: u64,
}

impl Reservation {
    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes the reservation at least `bytes` large.
    ///
    /// # Errors
    /// [`MemoryError`] when the growth does not fit; the reservation stays as it was.
    pub fn grow_to(&mut self, bytes: u64) -> Result<(), MemoryError> {
        if bytes <= self.bytes {
            return Ok(());
        }
        let shared = &self.budget.shared;
        if bytes > shared.limit {
            return Err(MemoryError::NeverFits {
                limit: shared.limit,
            });
        }
        let more = bytes - self.bytes;
        shared
            .reserved
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |reserved| {
                reserved
                    .checked_add(more)
                    .filter(|sum| *sum <= shared.limit)
            })
            .map_err(|reserved| MemoryError::Full {
                wanted: more,
                held: self.bytes,
                reserved,
                limit: shared.limit,
            })?;
        self.bytes = bytes;
        Ok(())
    }

    /// Gives back all but `bytes`, when more is held.
    pub fn shrink_to(&mut self, bytes: u64) {
        if bytes < self.bytes {
            let less = self.bytes - bytes;
            self.budget
                .shared
                .reserved
                .fetch_sub(less, Ordering::Relaxed);
            self.bytes = bytes;
        }
    }

    /// Moves the bytes into a reservation of their own; this one is left empty.
    #[must_use]
    pub fn take(&mut self) -> Reservation {
        Reservation {
            budget: self.budget.clone(),
            bytes: std::mem::take(&mut self.bytes),
        }
    }

    /// Takes over the bytes of another reservation of the same budget.
    pub fn absorb(&mut self, mut other: Reservation) {
        debug_assert!(Arc::ptr_eq(&self.budget.shared, &other.budget.shared));
        self.bytes += other.bytes;
        other.bytes = 0;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: reservations grow, are refused, merge and are dropped.
    /// Guarantees: the count never passes the limit and returns to zero.
    #[test]
    fn reservations_are_bounded_and_given_back() {
        let budget = Budget::new(100);
        let mut first = budget.reserve(60).unwrap();
        assert_eq!(
            budget.reserve(50).unwrap_err(),
            MemoryError::Full {
                wanted: 50,
                held: 0,
                reserved: 60,
                limit: 100
            }
        );
        assert!(!budget.reserve(101).unwrap_err().is_retryable());
        let second = budget.reserve(40).unwrap();
        let full = first.grow_to(61).unwrap_err();
        assert!(full.is_retryable());
        assert!(full.clone().holding(39).is_retryable());
        assert!(!full.clone().holding(40).is_retryable());
        assert!(!full.holding(39).holding(1).is_retryable());
        first.absorb(second);
        assert_eq!((first.bytes(), budget.reserved()), (100, 100));
        first.shrink_to(10);
        assert_eq!(budget.reserved(), 10);
        drop(first);
        assert_eq!(budget.reserved(), 0);
    }
}
