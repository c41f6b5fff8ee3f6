//! What a principal may do: rules of a file, and the permissions of its proof.
//!
//! A file is read into [`Rules`], which all connections share. Each connection has its [`Rights`]:
//! which of the rules are for it.

mod acl;
mod client;
mod explain;
mod file;
mod pattern;
mod rights;
mod subject;
mod table;

use serde::{Deserialize, Serialize};

pub use explain::{Explanation, Verdict};
pub use file::RuleError;
pub use rights::Rights;
pub use subject::is_like;
pub use table::Rules;

/// What a client wants to do with a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Publish to a topic name, or leave it as a will.
    Publish,
    /// Subscribe to a topic filter (what follows `$share/<group>/`).
    Subscribe,
    /// Get a message of this topic name that is retained or was queued earlier.
    Receive,
}

/// One thing that a client wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access<'a> {
    /// What.
    pub action: Action,
    /// Topic name, or topic filter for [`Action::Subscribe`].
    pub topic: &'a str,
    /// Of the message, or wanted by the subscription; does not count for [`Action::Receive`].
    pub qos: u8,
    /// Whether the message is to be retained; counts for [`Action::Publish`] alone.
    pub retain: bool,
}

/// Whether it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may.
    Allowed,
    /// It may not.
    Denied,
}
