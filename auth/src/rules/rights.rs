//! What one connection may do.

use core::net::IpAddr;
use std::sync::Arc;

use whimbrel_topics::{covers, validate_topic_filter};

use super::client::Client;
use super::{Access, Action, Decision, Rules};
use crate::{Permission, Principal};

/// What one connection may do: the rules as they look for it.
#[derive(Debug)]
pub struct Rights {
    pub(super) rules: Arc<Rules>,
    pub(super) principal: Arc<Principal>,
    client_id: Box<str>,
    address: Option<IpAddr>,
    /// Which clauses of the rules are for this client, beside those for everybody.
    own: Option<Arc<[u32]>>,
}

impl Rights {
    /// Of this principal with this client identifier, connected from this address.
    pub fn new(
        rules: &Arc<Rules>,
        principal: Arc<Principal>,
        client_id: &str,
        address: Option<IpAddr>,
    ) -> Rights {
        let own = rules.own(&Client { principal: &principal, client_id, address });
        Rights { rules: rules.clone(), principal, client_id: client_id.into(), address, own }
    }

    /// The same under other rules.
    pub fn under(&self, rules: &Arc<Rules>) -> Rights {
        Rights::new(rules, self.principal.clone(), &self.client_id, self.address)
    }

    /// Whose they are.
    pub fn principal(&self) -> &Arc<Principal> {
        &self.principal
    }

    /// The client identifier for which they are.
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// From where the client is connected.
    pub fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// Whether everything is allowed, so that nobody needs to ask.
    pub fn is_unlimited(&self) -> bool {
        self.rules.is_open() && self.principal.permissions.is_none()
    }

    /// Whether this is allowed.
    ///
    /// The first rule decides that matches the topic name, or covers all of the topic filter. A
    /// denial also decides on a filter that has only a topic in common with it. Where no rule
    /// decides, the permissions of the principal do.
    ///
    /// Who may subscribe to a topic at some QoS may receive what was published there at any.
    pub fn authorize(&self, access: &Access<'_>) -> Decision {
        let allowed = match self.decisive(access).and_then(|at| self.rules.clause(at)) {
            Some(clause) => clause.effect.allow,
            None => match &self.principal.permissions {
                Some(permissions) => permissions.iter().any(|one| one.permits(access)),
                None => self.rules.is_open(),
            },
        };
        if allowed { Decision::Allowed } else { Decision::Denied }
    }

    /// The highest QoS, up to the wanted one, at which the client may subscribe to this topic
    /// filter; none if it may not at all.
    pub fn authorize_subscribe(&self, filter: &str, qos: u8) -> Option<u8> {
        let access = |qos| Access { action: Action::Subscribe, topic: filter, qos, retain: false };
        (0..=qos).rev().find(|qos| self.authorize(&access(*qos)) == Decision::Allowed)
    }

    /// The clause of the rules that decides, if any does.
    pub(super) fn decisive(&self, access: &Access<'_>) -> Option<u32> {
        let own = self.own.as_deref().unwrap_or_default();
        self.rules.first(own, access, &self.client())
    }

    pub(super) fn client(&self) -> Client<'_> {
        Client { principal: &self.principal, client_id: &self.client_id, address: self.address }
    }
}

impl Permission {
    pub(super) fn permits(&self, access: &Access<'_>) -> bool {
        let concerns = match access.action {
            Action::Publish => {
                self.action == Action::Publish
                    && access.qos <= self.qos
                    && (self.retain || !access.retain)
            }
            Action::Subscribe => self.action == Action::Subscribe && access.qos <= self.qos,
            Action::Receive => self.action == Action::Subscribe,
        };
        // It comes from outside: what is no filter permits nothing.
        concerns
            && covers(&self.filter, access.topic)
            && validate_topic_filter(&self.filter).is_ok()
    }
}
