//! Whimbrel: broker.
