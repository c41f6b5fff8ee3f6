//! What one client, user, address or listener may take of the broker: `[[limit]]` tables.

use core::fmt;
use core::hash::{Hash, Hasher};
use core::net::IpAddr;
use core::str::FromStr;
use std::collections::hash_map::DefaultHasher;

use whimbrel_auth::is_like;

/// Whose connections and messages are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Per {
    /// All that came to one listener.
    Listener,
    /// All from one address; of IPv6, from one network of 64 bits.
    Address,
    /// All of one user; those whom nobody knows are one user.
    User,
    /// One client identifier of one user.
    Client,
}

impl Per {
    /// Every one of them.
    pub const ALL: [Per; 4] = [Per::Listener, Per::Address, Per::User, Per::Client];
}

/// A table of limits. Of those that fit a client, and for each [`Per`], the first one that has a
/// value decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Whose sum is limited.
    pub per: Per,
    /// To whom it applies.
    pub of: Selection,
    /// How much.
    pub values: Values,
}

/// To whom a table applies: all that is given must fit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selection {
    /// Index of the listener.
    pub listener: Option<u16>,
    /// The client comes from there.
    pub address: Option<Network>,
    /// The name of its principal; `*` stands for any characters.
    pub user: Option<Box<str>>,
    /// Its client identifier; `*` stands for any characters.
    pub client_id: Option<Box<str>>,
    /// Whether nobody knows it.
    pub anonymous: Option<bool>,
}

/// How much is allowed; none: this table does not say. The last five are of each client alone,
/// whatever [`Per`] says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Values {
    /// Connections at a time.
    pub max_connections: Option<u32>,
    /// Connections opened in a second.
    pub max_connects_per_s: Option<u32>,
    /// PUBLISH packets in a second.
    pub max_messages_per_s: Option<u32>,
    /// Bytes received in a second.
    pub max_bytes_per_s: Option<u32>,
    /// Most bytes that a packet may have.
    pub max_packet_size_bytes: Option<u32>,
    /// Subscriptions of a session.
    pub max_subscriptions: Option<u32>,
    /// Deliveries of QoS 1 and 2 in flight.
    pub max_inflight: Option<u16>,
    /// Messages that wait for a session.
    pub max_queued_messages: Option<u32>,
    /// Bytes of messages that wait for a session.
    pub max_queued_bytes: Option<u64>,
}

/// A connection or client that tables are held against.
#[derive(Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) listener: u16,
    pub(crate) address: Option<IpAddr>,
    /// User and client identifier, once they are known.
    pub(crate) client: Option<(&'a str, &'a str)>,
}

/// Whose sum it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Whose {
    Listener(u16),
    Address(IpAddr),
    User(Box<str>),
    Client(Box<str>, Box<str>),
}

impl Limit {
    fn fits(&self, subject: &Subject<'_>) -> bool {
        let Selection { listener, address, user, client_id, anonymous } = &self.of;
        listener.is_none_or(|listener| listener == subject.listener)
            && address.is_none_or(|net| subject.address.is_some_and(|ip| net.contains(ip)))
            && match subject.client {
                Some((name, id)) => {
                    user.as_ref().is_none_or(|pattern| is_like(pattern, name))
                        && client_id.as_ref().is_none_or(|pattern| is_like(pattern, id))
                        && anonymous.is_none_or(|anonymous| anonymous == name.is_empty())
                }
                None => !self.needs_client(),
            }
            && (self.per != Per::Address || subject.address.is_some())
    }

    /// Whether it can be judged only once the client is known.
    pub(crate) fn needs_client(&self) -> bool {
        let Selection { user, client_id, anonymous, .. } = &self.of;
        matches!(self.per, Per::User | Per::Client)
            || user.is_some()
            || client_id.is_some()
            || anonymous.is_some()
    }

    /// What is counted: the same for the same table before and after a change of its values.
    pub(crate) fn key(&self, subject: &Subject<'_>) -> Option<(u64, Whose)> {
        let whose = match self.per {
            Per::Listener => Whose::Listener(subject.listener),
            Per::Address => Whose::Address(source(subject.address?)),
            Per::User => Whose::User(subject.client?.0.into()),
            Per::Client => {
                let (user, client_id) = subject.client?;
                Whose::Client(user.into(), client_id.into())
            }
        };
        let mut hasher = DefaultHasher::new();
        self.of.hash(&mut hasher);
        Some((hasher.finish(), whose))
    }
}

/// For each [`Per`], the first table that fits and has this value.
pub(crate) fn deciding<'a>(
    limits: &'a [Limit],
    subject: &'a Subject<'_>,
    value: impl Fn(&Values) -> Option<u32> + Copy + 'a,
) -> impl Iterator<Item = (&'a Limit, u32)> + 'a {
    Per::ALL.into_iter().filter_map(move |per| {
        let mut fitting = limits.iter().filter(|limit| limit.per == per && limit.fits(subject));
        fitting.find_map(|limit| Some((limit, value(&limit.values)?)))
    })
}

/// The value of the first table that fits and has it.
pub(crate) fn first<T>(
    limits: &[Limit],
    subject: &Subject<'_>,
    value: impl Fn(&Values) -> Option<T>,
) -> Option<T> {
    limits.iter().filter(|limit| limit.fits(subject)).find_map(|limit| value(&limit.values))
}

/// What counts as one address: whoever has one of IPv6 has 2^64 of them.
pub(crate) fn source(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) >> 64 << 64).into()),
        v4 => v4,
    }
}

/// A network of addresses, such as `10.0.0.0/8`; an address alone is one of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    address: IpAddr,
    /// Bits of it that count.
    prefix: u8,
}

impl Network {
    /// Whether an address is in it; `::ffff:10.0.0.1` is `10.0.0.1`.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.address, ip.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => {
                (u32::from(net) ^ u32::from(ip)).leading_zeros() >= u32::from(self.prefix)
            }
            (IpAddr::V6(net), IpAddr::V6(ip)) => {
                (u128::from(net) ^ u128::from(ip)).leading_zeros() >= u32::from(self.prefix)
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = ();

    fn from_str(text: &str) -> Result<Network, ()> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(drop)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(most), str::parse).map_err(drop)?;
        if prefix > most { Err(()) } else { Ok(Network { address, prefix }) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, fits) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("a*", "a", true),
            ("a*", "ba", false),
            ("*a", "ba", true),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("a*b*c", "a-b-c", true),
            ("a*b*c", "abbc", true),
            ("a*b*c", "ac-b", false),
            ("**", "x", true),
        ] {
            assert_eq!(is_like(pattern, text), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn networks() {
        let net = |text: &str| text.parse::<Network>();
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        for (text, address, inside) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("0.0.0.0/0", "::1", false),
            ("2001:db8::/32", "2001:db8:1::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
        ] {
            assert_eq!(net(text).expect("a network").contains(ip(address)), inside, "{text}");
        }
        for bad in ["", "10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/", "host"] {
            assert!(net(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_of_one_network_of_ipv6_are_one() {
        let ip = |text: &str| source(text.parse().expect("an address"));
        assert_eq!(ip("2001:db8:0:1::1"), ip("2001:db8:0:1:ffff::2"));
        assert_ne!(ip("2001:db8:0:1::1"), ip("2001:db8:0:2::1"));
        assert_eq!(ip("::ffff:10.0.0.1"), ip("10.0.0.1"));
        assert_ne!(ip("10.0.0.1"), ip("10.0.0.2"));
    }
}
