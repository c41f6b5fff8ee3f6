//! Whimbrel: conformance.
