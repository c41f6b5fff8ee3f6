//! Shared-subscription groups.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::indexed::{Indexed, Keyed};
use crate::routes::{SessionRef, SubscriptionOptions};
use crate::subscribers::Packed;

/// The sessions that share one filter under one share name.
///
/// Routes hold the group itself, not a copy of its members, so a member that comes or goes is
/// seen by the next choice and invalidates no cached route.
pub(crate) struct Group {
    pub key: u32,
    pub name: Box<str>,
    pub name_hash: u64,
    next: AtomicUsize,
    members: RwLock<Members>,
}

/// Invariant: the first `connected` members are the connected ones.
#[derive(Default)]
struct Members {
    list: Indexed<Member>,
    connected: usize,
}

struct Member {
    who: SessionRef,
    options: Packed,
    durable: bool,
}

impl Keyed for Member {
    fn key_hash(&self) -> u64 {
        self.who.spread()
    }
}

impl Keyed for Arc<Group> {
    fn key_hash(&self) -> u64 {
        self.name_hash
    }
}

impl Group {
    pub fn new(key: u32, name: &str, name_hash: u64) -> Self {
        Self {
            key,
            name: name.into(),
            name_hash,
            next: AtomicUsize::new(0),
            members: RwLock::default(),
        }
    }

    /// True if `who` was a member; a new member counts as connected.
    pub fn subscribe(&self, who: SessionRef, options: SubscriptionOptions) -> bool {
        let (options, durable) = (Packed::new(options), options.durable);
        let mut members = self.write();
        if let Some(position) = members.position(who) {
            if let Some(member) = members.list.get_mut(position) {
                *member = Member { who, options, durable };
            }
            return true;
        }
        members.list.push(Member { who, options, durable });
        let last = members.list.len() - 1;
        let connected = members.connected;
        members.list.swap(connected, last);
        members.connected += 1;
        false
    }

    /// True if `who` was a member.
    pub fn unsubscribe(&self, who: SessionRef) -> bool {
        let mut members = self.write();
        members.set_connected(who, false);
        let Some(position) = members.position(who) else { return false };
        members.list.swap_remove(position).is_some()
    }

    pub fn set_connected(&self, who: SessionRef, connected: bool) {
        self.write().set_connected(who, connected);
    }

    pub fn is_empty(&self) -> bool {
        self.read().list.len() == 0
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Members> {
        self.members.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Members> {
        self.members.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Members {
    fn position(&self, who: SessionRef) -> Option<usize> {
        self.list.position(who.spread(), |member| member.who == who)
    }

    fn set_connected(&mut self, who: SessionRef, connected: bool) {
        let Some(position) = self.position(who) else { return };
        match (position < self.connected, connected) {
            (false, true) => {
                self.list.swap(position, self.connected);
                self.connected += 1;
            }
            (true, false) => {
                self.connected -= 1;
                self.list.swap(position, self.connected);
            }
            _ => {}
        }
    }

    fn get(&self, position: usize) -> Option<GroupMember> {
        let member = self.list.items().get(position)?;
        Some(GroupMember {
            who: member.who,
            options: member.options.unpack(member.durable),
            connected: position < self.connected,
        })
    }
}

/// A member of a group, as chosen for one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupMember {
    /// The session to deliver to.
    pub who: SessionRef,
    /// The options of its shared subscription.
    pub options: SubscriptionOptions,
    /// Whether it had a network connection when it was chosen.
    pub connected: bool,
}

/// A shared-subscription group that a topic matches; a handle to the live group.
#[derive(Clone)]
pub struct GroupRoute {
    pub(crate) group: Arc<Group>,
}

impl GroupRoute {
    /// Chooses the next member: round robin over the connected ones, over all when none is.
    ///
    /// The turn is shared by all holders of the group. `None` when the last member has gone.
    pub fn choose(&self) -> Option<GroupMember> {
        let members = self.group.read();
        let of = match members.connected {
            0 => members.list.len(),
            connected => connected,
        };
        members.get(self.turn(of)?)
    }

    /// Chooses the next connected member other than `not`.
    pub fn choose_except(&self, not: SessionRef) -> Option<GroupMember> {
        let members = self.group.read();
        let excluded = members.position(not).filter(|&position| position < members.connected);
        match excluded {
            None => members.get(self.turn(members.connected)?),
            Some(excluded) => {
                let turn = self.turn(members.connected - 1)?;
                members.get(if turn < excluded { turn } else { turn + 1 })
            }
        }
    }

    /// Whether [`choose_except`](Self::choose_except) would find a member; takes no turn.
    pub fn has_connected_except(&self, not: SessionRef) -> bool {
        let members = self.group.read();
        let itself = members.position(not).is_some_and(|position| position < members.connected);
        members.connected > usize::from(itself)
    }

    /// The member that this session is, if it is one.
    pub fn member(&self, who: SessionRef) -> Option<GroupMember> {
        let members = self.group.read();
        members.get(members.position(who)?)
    }

    /// Whom [`choose`](Self::choose) would choose now; takes no turn.
    pub fn peek(&self) -> Option<GroupMember> {
        let members = self.group.read();
        let of = match members.connected {
            0 => members.list.len(),
            connected => connected,
        };
        members.get(self.group.next.load(Ordering::Relaxed).checked_rem(of)?)
    }

    /// How many members there are, connected or not.
    pub fn member_count(&self) -> usize {
        self.group.read().list.len()
    }

    /// The share name.
    pub fn name(&self) -> &str {
        &self.group.name
    }

    /// Identifies the group while it exists; see [`Routes::group`](crate::Routes::group).
    pub fn key(&self) -> u32 {
        self.group.key
    }

    fn turn(&self, of: usize) -> Option<usize> {
        self.group.next.fetch_add(1, Ordering::Relaxed).checked_rem(of)
    }
}

impl std::fmt::Debug for GroupRoute {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GroupRoute")
            .field("key", &self.key())
            .field("name", &self.group.name)
            .finish()
    }
}
