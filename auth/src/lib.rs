//! Whimbrel: auth.
