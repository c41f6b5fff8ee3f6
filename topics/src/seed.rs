//! Keyed hashing: a peer that chooses topics cannot choose where they land in a table.

use std::hash::{BuildHasher, Hasher};

use foldhash::SharedSeed;
use foldhash::quality::FoldHasher;

/// The key of the hash function.
pub(crate) struct Seed {
    hasher: u64,
    shared: SharedSeed,
    /// Hash of `+`, which every step of a walk needs.
    pub plus: u64,
    /// Hash of `#`, likewise.
    pub number_sign: u64,
}

impl Seed {
    pub fn new(seed: u64) -> Self {
        let shared = SharedSeed::from_u64(seed.rotate_left(32));
        let mut seed = Self { hasher: seed, shared, plus: 0, number_sign: 0 };
        (seed.plus, seed.number_sign) = (seed.hash(b"+"), seed.hash(b"#"));
        seed
    }

    /// A seed nobody outside the process can guess.
    pub fn random() -> Self {
        Self::new(std::hash::RandomState::new().build_hasher().finish())
    }

    pub fn hash(&self, bytes: &[u8]) -> u64 {
        let mut hasher = FoldHasher::with_seed(self.hasher, &self.shared);
        hasher.write(bytes);
        hasher.finish()
    }
}

/// Spreads a small integer that no peer chooses over all bits.
pub(crate) fn spread(value: u64) -> u64 {
    let wide = u128::from(value ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93;
    (wide as u64) ^ ((wide >> 64) as u64)
}
