//! The normative statements of the standards, each in a few words of our own.
//!
//! `mqtt-v5.0.txt` and `mqtt-v3.1.1.txt` list the identifiers as in appendix B of each standard;
//! the tables here say what each is about, and why a statement has no test if it has none.

mod v311;
mod v5;

pub use v5::STATEMENTS as V5;
pub use v311::STATEMENTS as V3_1_1;

/// A normative statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Such as `MQTT-3.1.2-4`.
    pub id: &'static str,
    /// What it demands, in up to twelve words.
    pub text: &'static str,
    /// Why no test shows it; none if a test does.
    pub untested: Option<&'static str>,
}

const CLIENT: &str = "binds the client only";
const AUTHENTICATION: &str = "needs an authentication method that both sides know; tried in \
     `broker-core/tests/authenticate.rs`";
const SUPPORTED: &str = "for servers that lack the feature; the tests need servers that have it";

/// A statement with a test.
const fn tested(id: &'static str, text: &'static str) -> Statement {
    Statement { id, text, untested: None }
}

/// A statement that a server cannot be tested for.
const fn not(id: &'static str, text: &'static str, why: &'static str) -> Statement {
    Statement { id, text, untested: Some(why) }
}
