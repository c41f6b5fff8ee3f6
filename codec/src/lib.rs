//! Whimbrel: codec.
