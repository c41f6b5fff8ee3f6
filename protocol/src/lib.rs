//! Whimbrel: protocol.
