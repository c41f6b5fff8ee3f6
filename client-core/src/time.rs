//! Points in time and the limits of a client.

/// A point in time: milliseconds since any fixed moment, never running backwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

impl Millis {
    /// The moment `ms` milliseconds later.
    pub const fn plus(self, ms: u64) -> Millis {
        Millis(self.0.saturating_add(ms))
    }

    /// How long until `later`, in milliseconds; 0 if it has passed.
    pub const fn until(self, later: Millis) -> u64 {
        later.0.saturating_sub(self.0)
    }
}

/// All that bounds a client's memory and patience.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// QoS 1 and 2 messages that wait for the server at one time; the server may allow fewer, and
    /// the identifiers of the oldest and the newest are less than 16,384 apart.
    pub max_in_flight: u16,
    /// Bytes of these messages, as packets, and four for each.
    pub max_in_flight_bytes: usize,
    /// Bytes of the topics that aliases stand for, and four for each, one way.
    pub max_alias_bytes: usize,
    /// Longest packet accepted, in bytes, where CONNECT does not announce a smaller one.
    pub max_packet_size_bytes: u32,
    /// Bytes waiting to be sent above which no more packets are taken in. Commands fail from half
    /// of it on.
    pub max_output_bytes: usize,
    /// How long to wait for CONNACK, in milliseconds.
    pub connect_timeout_ms: u64,
}

impl Limits {
    /// What [`Limits::default`] gives.
    pub const DEFAULT: Limits = {
        Limits {
            max_in_flight: 64,
            // Memory is taken only as it is needed, and one message of any size must fit.
            max_in_flight_bytes: whimbrel_codec::MAX_REMAINING_LENGTH as usize + 16,
            max_alias_bytes: 1024 * 1024,
            max_packet_size_bytes: whimbrel_codec::MAX_REMAINING_LENGTH + 5,
            max_output_bytes: 256 * 1024,
            connect_timeout_ms: 30_000,
        }
    };
}

impl Default for Limits {
    fn default() -> Self {
        Limits::DEFAULT
    }
}
