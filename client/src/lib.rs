//! Whimbrel: client.
