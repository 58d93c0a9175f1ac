//! What a request is remembered by.

use std::fmt;

/// A 128-bit digest of a request's decoded bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub u128);

impl Digest {
    /// The sixteen bytes, as they are stored.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// The digest of sixteen stored bytes; `None` when there are not sixteen.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Digest> {
        bytes
            .try_into()
            .ok()
            .map(|bytes| Digest(u128::from_be_bytes(bytes)))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}
