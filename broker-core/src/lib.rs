//! Whimbrel: broker-core.
