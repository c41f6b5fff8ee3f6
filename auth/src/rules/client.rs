//! What rules look at in a client.

use core::net::IpAddr;

use crate::Principal;

/// A client as rules see it.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    pub principal: &'a Principal,
    pub client_id: &'a str,
    pub address: Option<IpAddr>,
}

/// A property of a client that is text: rules compare it, and placeholders stand for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    /// `user`, `%u`.
    User,
    /// `client_id`, `%c`.
    ClientId,
    /// `group`.
    Group,
    /// `certificate`, `%{certificate}`.
    Certificate,
    /// `claim`, `%{NAME}`.
    Claim(Box<str>),
}

impl<'a> Client<'a> {
    /// The values of a property, none of them empty; several of groups and claims that are lists.
    pub fn values<'b>(&self, field: &'b Field) -> impl Iterator<Item = &'a str> + use<'a, 'b> {
        let principal = self.principal;
        let one = match field {
            Field::User => Some(&*principal.name),
            Field::ClientId => Some(self.client_id),
            Field::Certificate => principal.certificate.as_deref(),
            Field::Group | Field::Claim(_) => None,
        };
        let groups: &[_] = if *field == Field::Group { &principal.groups } else { &[] };
        let claims: (_, &[_]) = match field {
            Field::Claim(name) => (&**name, &principal.claims),
            _ => ("", &[]),
        };
        let claims = claims.1.iter().filter(move |(name, _)| **name == *claims.0);
        one.into_iter()
            .chain(groups.iter().map(|group| &**group))
            .chain(claims.map(|(_, value)| &**value))
            .filter(|value| !value.is_empty())
    }
}
