//! Whimbrel: store.
