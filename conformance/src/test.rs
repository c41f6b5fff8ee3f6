//! A test: which statements it shows, in which versions, and its script.

use whimbrel_codec::Version;

use crate::bench::Bench;
use crate::outcome::Outcome;

/// The script of a test.
pub type Script = fn(&Bench<'_>) -> Outcome;

/// One test; it runs once for each of its versions.
#[derive(Clone, Copy, Debug)]
pub struct Test {
    /// What is shown, in words joined by underscores.
    pub name: &'static str,
    /// The versions that it runs with.
    pub versions: &'static [Version],
    /// Statements of 5.0 that it shows.
    pub v5: &'static [&'static str],
    /// Statements of 3.1.1 that it shows.
    pub v3: &'static [&'static str],
    /// Waits for time to pass, so it should start early.
    pub slow: bool,
    /// The steps.
    pub script: Script,
}

type Ids = &'static [&'static str];

/// A test of 5.0 alone.
pub const fn v5(name: &'static str, ids: Ids, script: Script) -> Test {
    Test { name, versions: &[Version::V5], v5: ids, v3: &[], slow: false, script }
}

/// A test of 3.1.1 alone.
pub const fn v3(name: &'static str, ids: Ids, script: Script) -> Test {
    Test { name, versions: &[Version::V3_1_1], v5: &[], v3: ids, slow: false, script }
}

/// A test of 5.0 and 3.1.1, with the statements of each.
pub const fn both(name: &'static str, v5: Ids, v3: Ids, script: Script) -> Test {
    let versions = &[Version::V5, Version::V3_1_1];
    Test { name, versions, v5, v3, slow: false, script }
}

/// A test of 5.0, 3.1.1 and 3.1; the last has no numbered statements.
pub const fn all(name: &'static str, v5: Ids, v3: Ids, script: Script) -> Test {
    let versions = &[Version::V5, Version::V3_1_1, Version::V3_1];
    Test { name, versions, v5, v3, slow: false, script }
}

impl Test {
    /// Marks a test that waits for time to pass.
    pub const fn slow(mut self) -> Test {
        self.slow = true;
        self
    }

    /// The statements that a run with `version` shows.
    pub const fn ids(&self, version: Version) -> Ids {
        match version {
            Version::V5 => self.v5,
            Version::V3_1_1 => self.v3,
            Version::V3_1 => &[],
        }
    }
}
