//! What a principal may do.

use core::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Principal;

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
    /// Of the message, or wanted by the subscription.
    pub qos: u8,
    /// Whether the message is to be retained.
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

/// All rules of the broker.
#[derive(Debug, Default)]
pub struct Rules {}

impl Rules {
    /// Everything is allowed to everybody whose proof does not say what it permits.
    pub fn open() -> Rules {
        Rules {}
    }
}

/// What one connection may do: the rules as they look for it.
#[derive(Debug)]
pub struct Rights {
    principal: Arc<Principal>,
    client_id: Box<str>,
    address: Option<IpAddr>,
}

impl Rights {
    /// Of this principal with this client identifier, connected from this address.
    pub fn new(
        _rules: &Arc<Rules>,
        principal: Arc<Principal>,
        client_id: &str,
        address: Option<IpAddr>,
    ) -> Rights {
        Rights { principal, client_id: client_id.into(), address }
    }

    /// The same under other rules.
    pub fn under(&self, rules: &Arc<Rules>) -> Rights {
        Rights::new(rules, self.principal.clone(), &self.client_id, self.address)
    }

    /// Whose they are.
    pub fn principal(&self) -> &Arc<Principal> {
        &self.principal
    }

    /// Whether everything is allowed, so that nobody needs to ask.
    pub fn is_unlimited(&self) -> bool {
        true
    }

    /// The highest QoS, up to the wanted one, with which this topic filter may be subscribed to;
    /// none if it may not.
    pub fn authorize_subscribe(&self, filter: &str, qos: u8) -> Option<u8> {
        let allows = |qos: &u8| {
            let access =
                Access { action: Action::Subscribe, topic: filter, qos: *qos, retain: false };
            self.authorize(&access) == Decision::Allowed
        };
        (0..=qos).rev().find(allows)
    }

    /// Whether this is allowed.
    pub fn authorize(&self, _access: &Access<'_>) -> Decision {
        Decision::Allowed
    }
}
