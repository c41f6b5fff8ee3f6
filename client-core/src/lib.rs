//! Whimbrel: client-core.
