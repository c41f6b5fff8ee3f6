//! The subscribers of one filter: no allocation for one, a list for few, per shard for many.

use std::sync::Arc;

use crate::group::Group;
use crate::indexed::{Indexed, Keyed};
use crate::route::{self, Route};
use crate::routes::{SessionRef, SubscriptionOptions};
use crate::seed::spread;

/// Above this, subscribers are kept per shard and found by hash.
const FEW_MAX: usize = 32;

/// [`SubscriptionOptions`] in four bytes: an identifier has 28 bits, the rest are flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packed(u32);

impl Packed {
    pub fn new(options: SubscriptionOptions) -> Self {
        let flags = route::flags(options.qos, options.no_local, options.retain_as_published);
        Self(options.id << 4 | u32::from(flags))
    }

    /// `durable` has no room in here.
    pub fn unpack(self, durable: bool) -> SubscriptionOptions {
        let (qos, no_local, retain_as_published) = route::unpack_flags(self.flags());
        SubscriptionOptions { qos, no_local, retain_as_published, id: self.id(), durable }
    }

    pub fn flags(self) -> u8 {
        (self.0 & 0b1111) as u8
    }

    pub fn id(self) -> u32 {
        self.0 >> 4
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Subscriber {
    session: u32,
    options: Packed,
    shard: u16,
    durable: bool,
}

impl Subscriber {
    pub fn new(who: SessionRef, options: SubscriptionOptions) -> Self {
        let SessionRef { shard, session } = who;
        Self { session, options: Packed::new(options), shard, durable: options.durable }
    }

    fn is(&self, who: SessionRef) -> bool {
        self.session == who.session && self.shard == who.shard
    }
}

/// The subscribers of one filter, ordinary and shared.
#[derive(Default)]
pub(crate) enum Subscribers {
    #[default]
    None,
    One(Subscriber),
    Many(Box<Many>),
}

const _: () = assert!(size_of::<Subscribers>() == 16);

#[derive(Default)]
pub(crate) struct Many {
    ordinary: Ordinary,
    groups: Option<Box<Indexed<Arc<Group>>>>,
}

enum Ordinary {
    Few(Vec<Subscriber>),
    PerShard(Vec<ShardList>),
}

impl Default for Ordinary {
    fn default() -> Self {
        Ordinary::Few(Vec::new())
    }
}

/// Subscribers of one shard, so that a resolve for a shard does not walk those of others.
struct ShardList {
    shard: u16,
    sessions: Indexed<Session>,
    /// How many of them are durable.
    durable: u32,
}

struct Session {
    session: u32,
    options: Packed,
    durable: bool,
}

impl Keyed for Session {
    fn key_hash(&self) -> u64 {
        spread(u64::from(self.session))
    }
}

impl Subscribers {
    pub fn is_empty(&self) -> bool {
        matches!(self, Subscribers::None)
    }

    /// Adds an ordinary subscriber; true if it replaced one of the same session.
    pub fn subscribe(&mut self, new: Subscriber) -> bool {
        let who = SessionRef { shard: new.shard, session: new.session };
        match self {
            Subscribers::None => {
                *self = Subscribers::One(new);
                false
            }
            Subscribers::One(one) if one.is(who) => {
                *one = new;
                true
            }
            _ => self.make_many().ordinary.subscribe(who, new),
        }
    }

    /// Removes an ordinary subscriber; true if there was one.
    pub fn unsubscribe(&mut self, who: SessionRef) -> bool {
        let existed = match self {
            Subscribers::One(one) if one.is(who) => {
                *self = Subscribers::None;
                return true;
            }
            Subscribers::None | Subscribers::One(_) => return false,
            Subscribers::Many(many) => many.ordinary.unsubscribe(who),
        };
        self.simplify();
        existed
    }

    /// What the ordinary subscription of this session asks for.
    pub fn options(&self, who: SessionRef) -> Option<SubscriptionOptions> {
        let (options, durable) = match self {
            Subscribers::None => return None,
            Subscribers::One(one) => one.is(who).then_some((one.options, one.durable))?,
            Subscribers::Many(many) => many.ordinary.options(who)?,
        };
        Some(options.unpack(durable))
    }

    pub fn group(&self, name: &str, name_hash: u64) -> Option<&Arc<Group>> {
        let Subscribers::Many(many) = self else { return None };
        let groups = many.groups.as_ref()?;
        groups.items().get(groups.position(name_hash, |group| &*group.name == name)?)
    }

    /// Adds a group that is not there yet.
    pub fn add_group(&mut self, group: Arc<Group>) {
        self.make_many().groups.get_or_insert_default().push(group);
    }

    pub fn remove_group(&mut self, group: &Group) {
        let Subscribers::Many(many) = self else { return };
        let Some(groups) = &mut many.groups else { return };
        if let Some(position) = groups.position(group.name_hash, |other| other.key == group.key) {
            groups.swap_remove(position);
        }
        if groups.len() == 0 {
            many.groups = None;
        }
        self.simplify();
    }

    /// Adds everyone to a route seen from `shard`.
    pub fn collect(&self, shard: u16, route: &mut Route) {
        match self {
            Subscribers::None => {}
            Subscribers::One(one) => {
                route.add_filter();
                one.collect(shard, route);
            }
            Subscribers::Many(many) => {
                route.add_filter();
                many.ordinary.collect(shard, route);
                for group in many.groups.iter().flat_map(|groups| groups.items()) {
                    route.add_group(group);
                }
            }
        }
    }

    fn make_many(&mut self) -> &mut Many {
        if !matches!(self, Subscribers::Many(_)) {
            let mut many = Box::<Many>::default();
            if let Subscribers::One(one) = self {
                many.ordinary = Ordinary::Few(vec![*one]);
            }
            *self = Subscribers::Many(many);
        }
        match self {
            Subscribers::Many(many) => many,
            _ => unreachable!("made above"),
        }
    }

    fn simplify(&mut self) {
        let Subscribers::Many(many) = self else { return };
        if many.groups.is_some() {
            return;
        }
        let Ordinary::Few(few) = &many.ordinary else { return };
        match few.as_slice() {
            [] => *self = Subscribers::None,
            &[one] => *self = Subscribers::One(one),
            _ => {}
        }
    }
}

impl Subscriber {
    fn collect(&self, shard: u16, route: &mut Route) {
        if self.shard == shard {
            route.add_local(self.session, self.options);
        } else {
            let who = SessionRef { shard: self.shard, session: self.session };
            route.add_remote(who, self.options, self.durable);
        }
    }
}

impl Ordinary {
    fn subscribe(&mut self, who: SessionRef, new: Subscriber) -> bool {
        match self {
            Ordinary::Few(few) => {
                if let Some(old) = few.iter_mut().find(|old| old.is(who)) {
                    *old = new;
                    return true;
                }
                few.push(new);
                if few.len() > FEW_MAX {
                    let mut lists = Vec::new();
                    for &subscriber in few.iter() {
                        subscribe_per_shard(&mut lists, subscriber);
                    }
                    *self = Ordinary::PerShard(lists);
                }
                false
            }
            Ordinary::PerShard(lists) => subscribe_per_shard(lists, new),
        }
    }

    fn options(&self, who: SessionRef) -> Option<(Packed, bool)> {
        match self {
            Ordinary::Few(few) => {
                few.iter().find(|one| one.is(who)).map(|one| (one.options, one.durable))
            }
            Ordinary::PerShard(lists) => {
                let list = lists.iter().find(|list| list.shard == who.shard)?;
                let session = list.sessions.items().get(list.position(who.session)?)?;
                Some((session.options, session.durable))
            }
        }
    }

    fn unsubscribe(&mut self, who: SessionRef) -> bool {
        match self {
            Ordinary::Few(few) => {
                let Some(position) = few.iter().position(|old| old.is(who)) else { return false };
                few.swap_remove(position);
                true
            }
            Ordinary::PerShard(lists) => {
                let existed = unsubscribe_per_shard(lists, who);
                if lists.iter().map(|list| list.sessions.len()).sum::<usize>() <= FEW_MAX / 2 {
                    *self = Ordinary::Few(lists.iter().flat_map(ShardList::subscribers).collect());
                }
                existed
            }
        }
    }

    fn collect(&self, shard: u16, route: &mut Route) {
        match self {
            Ordinary::Few(few) => few.iter().for_each(|one| one.collect(shard, route)),
            Ordinary::PerShard(lists) => {
                for list in lists {
                    if list.shard != shard {
                        route.add_remote_shard(list.shard, list.durable > 0);
                        continue;
                    }
                    for session in list.sessions.items() {
                        route.add_local(session.session, session.options);
                    }
                }
            }
        }
    }
}

impl ShardList {
    fn position(&self, session: u32) -> Option<usize> {
        self.sessions.position(spread(u64::from(session)), |old| old.session == session)
    }

    fn subscribers(&self) -> impl Iterator<Item = Subscriber> {
        self.sessions.items().iter().map(|session| Subscriber {
            session: session.session,
            options: session.options,
            shard: self.shard,
            durable: session.durable,
        })
    }
}

fn subscribe_per_shard(lists: &mut Vec<ShardList>, new: Subscriber) -> bool {
    let list = match lists.iter().position(|list| list.shard == new.shard) {
        Some(position) => lists.get_mut(position),
        None => {
            let sessions = Indexed::default();
            lists.push(ShardList { shard: new.shard, sessions, durable: 0 });
            lists.last_mut()
        }
    };
    let Some(list) = list else { return false };
    let session = Session { session: new.session, options: new.options, durable: new.durable };
    list.durable += u32::from(new.durable);
    let position = list.position(new.session);
    match position.and_then(|position| list.sessions.get_mut(position)) {
        Some(old) => {
            list.durable -= u32::from(old.durable);
            *old = session;
            true
        }
        None => {
            list.sessions.push(session);
            false
        }
    }
}

fn unsubscribe_per_shard(lists: &mut Vec<ShardList>, who: SessionRef) -> bool {
    let Some(at) = lists.iter().position(|list| list.shard == who.shard) else { return false };
    let Some(list) = lists.get_mut(at) else { return false };
    let Some(position) = list.position(who.session) else { return false };
    let removed = list.sessions.swap_remove(position);
    list.durable -= u32::from(removed.is_some_and(|session| session.durable));
    if list.sessions.len() == 0 {
        lists.swap_remove(at);
    }
    true
}
