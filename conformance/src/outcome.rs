//! How a test ends early, and the comparisons that end it.

use std::fmt::{Debug, Display};

/// Why a test stopped before its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The broker did something else than the standard says.
    Failed(String),
    /// The broker does not announce an optional feature.
    Skipped(String),
}

/// What a test, or a step of it, comes to.
pub type Outcome<T = ()> = Result<T, Stop>;

/// Fails with `what` unless `right`.
pub fn check(right: bool, what: &str) -> Outcome {
    if right { Ok(()) } else { Err(Stop::Failed(what.to_owned())) }
}

/// Fails unless what came is what was expected.
pub fn equal<T: Debug + PartialEq>(what: &str, came: T, expected: T) -> Outcome {
    if came == expected {
        return Ok(());
    }
    Err(Stop::Failed(format!("{what}: expected {expected:?}, came {came:?}")))
}

/// Fails unless what came is one of those expected.
pub fn one_of<T: Debug + PartialEq>(what: &str, came: T, expected: &[T]) -> Outcome {
    if expected.contains(&came) {
        return Ok(());
    }
    Err(Stop::Failed(format!("{what}: expected one of {expected:?}, came {came:?}")))
}

/// Skips the test unless the broker announces `feature`.
pub fn need(available: bool, feature: &str) -> Outcome {
    if available { Ok(()) } else { Err(Stop::Skipped(format!("the broker offers no {feature}"))) }
}

impl Stop {
    /// The same, with `of` before what failed.
    pub fn of(self, of: impl Display) -> Stop {
        match self {
            Stop::Failed(why) => Stop::Failed(format!("{of}: {why}")),
            skipped => skipped,
        }
    }
}
