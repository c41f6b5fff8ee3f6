//! Whimbrel: topics.
