//! What one connection may do.

use core::net::IpAddr;
use std::sync::Arc;

use whimbrel_topics::{covers, validate_topic_filter};

use super::client::Client;
use super::pattern::Pattern;
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
                Some(permissions) => {
                    permissions.iter().any(|one| one.permits(access, &self.client()))
                }
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
    /// Placeholders stand for properties of the client, as in rules.
    pub(super) fn permits(&self, access: &Access<'_>, client: &Client<'_>) -> bool {
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
            && match self.filter.contains('%') {
                false => {
                    covers(&self.filter, access.topic)
                        && validate_topic_filter(&self.filter).is_ok()
                }
                true => Pattern::parse(&self.filter)
                    .is_ok_and(|pattern| pattern.covers(access.topic, client, false)),
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Method;

    #[test]
    fn placeholders_in_permissions_stand_for_what_the_client_is() {
        let rules = Arc::new(Rules::open());
        let may = |user: &str, client_id: &str, filter: &str, topic: &str| {
            let mut principal = Principal::new(user, Method::Token);
            principal.claims = vec![("site".into(), "n".into())];
            let (action, filter) = (Action::Subscribe, filter.into());
            let permission = Permission { action, filter, qos: 2, retain: true };
            principal.permissions = Some(vec![permission]);
            let rights = Rights::new(&rules, Arc::new(principal), client_id, None);
            rights.authorize_subscribe(topic, 0).is_some()
        };
        for (user, client_id, filter, topic, expected) in [
            ("ann", "c1", "dev/%u/#", "dev/ann/x", true),
            ("ann", "c1", "dev/%u/#", "dev/%u/x", false),
            ("ann", "c1", "dev/%u/#", "dev/bob/x", false),
            ("ann", "c1", "dev/%c", "dev/c1", true),
            ("ann", "c1", "%{site}/+", "n/x", true),
            ("ann", "c1", "%{area}/+", "n/x", false),
            ("ann", "+", "dev/%c", "dev/+", false),
            ("ann", "#", "dev/%c", "dev/#", false),
            ("ann", "a/b", "dev/%c/#", "dev/a/b", false),
            ("$SYS", "c1", "%u/#", "$SYS/#", false),
            ("ann", "c1", "100%%/x", "100%/x", true),
            ("ann", "c1", "100%/x", "100%/x", false),
            ("ann", "c1", "%u/a+b", "ann/a+b", false),
        ] {
            assert_eq!(may(user, client_id, filter, topic), expected, "{filter} {topic}");
        }
    }

    /// A million sessions have a million of these.
    #[test]
    fn rights_are_small() {
        assert!(size_of::<Rights>() <= 72, "{} bytes", size_of::<Rights>());
    }
}
