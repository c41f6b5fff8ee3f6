//! Whimbrel: transport.
