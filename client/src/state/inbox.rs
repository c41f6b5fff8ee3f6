//! Subscriptions, and the way of a message to those that want it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use foldhash::fast::RandomState;
use slab::Slab;
use smallvec::SmallVec;
use tokio::sync::oneshot;
use whimbrel_client_core::{Client as Core, Error as CommandError};
use whimbrel_codec::{
    ConnAck, PacketId, Properties, Property, Publish, QoS, ReasonCode, SubAck, Subscription,
    UnsubAck,
};

use super::queue::{Pushed, Queue};
use super::{AckToken, Shared};
use crate::{Filter, Incoming, PropertyList, SubscribeError};

/// Topics whose subscriptions are remembered.
const MOST_ROUTES: usize = 1024;
/// QoS 0 messages kept that no subscription wants yet.
const MOST_UNCLAIMED: usize = 1024;

type Answer = Result<ReasonCode, SubscribeError>;
type Takers = SmallVec<[Weak<Queue>; 1]>;

/// What a caller waits for, and where the answer comes.
pub(crate) struct Wanted {
    pub(crate) key: usize,
    pub(crate) queue: Arc<Queue>,
    pub(crate) answer: oneshot::Receiver<Answer>,
}

/// What a consumer that has left leaves behind.
pub(crate) struct Left {
    /// It was the last of a filter that the broker may know; the filter is forgotten here.
    pub(crate) is_last: bool,
    /// Not acknowledged, and nobody else has them.
    pub(crate) messages: Vec<Incoming>,
}

/// One topic filter at the broker, with all that was subscribed by it here.
struct Wire {
    filter: Filter,
    stage: Stage,
    queues: SmallVec<[Arc<Queue>; 1]>,
    waiting: SmallVec<[oneshot::Sender<Answer>; 1]>,
    /// SUBSCRIBE was sent at some time.
    was_sent: bool,
    /// For the stream of all messages: it stays without queues, and has no identifier of ours.
    is_plain: bool,
}

impl Wire {
    fn new(filter: Filter) -> Wire {
        Wire {
            filter,
            stage: Stage::Wanted,
            queues: SmallVec::new(),
            waiting: SmallVec::new(),
            was_sent: false,
            is_plain: false,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// SUBSCRIBE is to be sent.
    Wanted,
    /// SUBACK is awaited.
    Sent(PacketId),
    Active,
}

struct Unsubscribe {
    filter: Arc<str>,
    properties: PropertyList,
    packet_id: Option<PacketId>,
    answer: Option<oneshot::Sender<Answer>>,
}

/// Where messages to one topic go.
struct Route {
    topic: Arc<str>,
    keys: SmallVec<[usize; 2]>,
}

pub(crate) struct Inbox {
    /// The key of a subscription, plus one, is its subscription identifier.
    wires: Slab<Wire>,
    by_filter: HashMap<Arc<str>, usize>,
    routes: HashMap<Arc<str>, Arc<Route>, RandomState>,
    /// The one used last.
    last_route: Option<Arc<Route>>,
    /// Of who wants all messages, whatever brought them.
    all: Option<Arc<Queue>>,
    /// Of a session that outlived the process, for instance: not acknowledged until wanted.
    unclaimed: VecDeque<Incoming>,
    unsubscribes: Vec<Unsubscribe>,
    /// QoS 2 messages that some of several consumers have taken, and who: the broker sends them
    /// again after a reconnect, as not all have.
    partly_taken: HashMap<PacketId, Takers, RandomState>,
    /// Of these, those that came again when only who had taken them was left.
    owed: Vec<PacketId>,
    /// Something is to be sent.
    is_dirty: bool,
    is_v5: bool,
    has_identifiers: bool,
    session_present: bool,
    /// Queues that were full when last looked at.
    full: Vec<Arc<Queue>>,
    /// Filters of those that missed a message since this was last asked.
    missed: Vec<Arc<str>>,
}

impl Inbox {
    pub(crate) fn new(is_v5: bool) -> Inbox {
        Inbox {
            wires: Slab::new(),
            by_filter: HashMap::new(),
            routes: HashMap::default(),
            last_route: None,
            all: None,
            unclaimed: VecDeque::new(),
            unsubscribes: Vec::new(),
            partly_taken: HashMap::default(),
            owed: Vec::new(),
            is_dirty: false,
            is_v5,
            has_identifiers: false,
            session_present: false,
            full: Vec::new(),
            missed: Vec::new(),
        }
    }

    /// Enters a subscription; SUBSCRIBE follows with the next flush.
    pub(crate) fn subscribe(&mut self, filter: Filter) -> Wanted {
        let queue = Arc::new(Queue::new(&filter));
        for message in self.take_unclaimed(&filter) {
            queue.push(message);
        }
        let (key, answer) = self.enter(filter);
        if let Some(wire) = self.wires.get_mut(key) {
            wire.queues.push(queue.clone());
        }
        Wanted { key, queue, answer }
    }

    /// As [`Inbox::subscribe`], for the stream of all messages.
    pub(crate) fn subscribe_plain(&mut self, filter: Filter) -> oneshot::Receiver<Answer> {
        let (key, answer) = self.enter(filter);
        if let Some(wire) = self.wires.get_mut(key) {
            wire.is_plain = true;
        }
        answer
    }

    fn enter(&mut self, filter: Filter) -> (usize, oneshot::Receiver<Answer>) {
        let (sender, answer) = oneshot::channel();
        self.forget_routes();
        self.is_dirty = true;
        // A leaving one that has not been sent yet would undo this.
        self.settle(|_, u| u.packet_id.is_none() && u.filter == filter.filter);
        let key = match self.by_filter.get(&filter.filter) {
            Some(&key) => key,
            None => {
                let name = filter.filter.clone();
                if self.wires.is_empty() {
                    // Most clients have one.
                    self.wires.reserve_exact(1);
                }
                let key = self.wires.insert(Wire::new(filter.clone()));
                self.by_filter.insert(name, key);
                key
            }
        };
        if let Some(wire) = self.wires.get_mut(key) {
            let qos = wire.filter.qos.max(filter.qos);
            wire.filter = Filter { qos, ..filter };
            wire.stage = Stage::Wanted;
            wire.waiting.push(sender);
        }
        (key, answer)
    }

    /// Gives everything that comes to `queue` as well, from what nobody has claimed on; in place
    /// of another that had this.
    pub(crate) fn give_all(&mut self, queue: &Arc<Queue>) {
        for message in std::mem::take(&mut self.unclaimed) {
            queue.push(message);
        }
        if let Some(other) = self.all.replace(queue.clone()) {
            other.close();
        }
    }

    /// Takes a queue of [`Inbox::give_all`] away. Gives what is to be acknowledged.
    pub(crate) fn leave_all(&mut self, queue: &Arc<Queue>) -> Vec<Incoming> {
        if self.all.as_ref().is_some_and(|all| Arc::ptr_eq(all, queue)) {
            self.all = None;
        }
        self.put_back(unacknowledged(queue))
    }

    fn take_unclaimed(&mut self, filter: &Filter) -> Vec<Incoming> {
        let all = std::mem::take(&mut self.unclaimed);
        let (taken, left): (VecDeque<_>, _) =
            all.into_iter().partition(|message| matches(&filter.filter, &message.topic));
        self.unclaimed = left;
        taken.into()
    }

    /// Takes one consumer's queue away.
    pub(crate) fn leave(&mut self, key: usize, queue: &Arc<Queue>) -> Left {
        let messages = unacknowledged(queue);
        Left { is_last: self.take_queue(key, queue), messages }
    }

    fn take_queue(&mut self, key: usize, queue: &Arc<Queue>) -> bool {
        let Some(wire) = self.wires.get_mut(key) else { return false };
        // The key may be another filter's by now.
        let Some(at) = wire.queues.iter().position(|other| Arc::ptr_eq(other, queue)) else {
            return false;
        };
        wire.queues.swap_remove(at);
        if !wire.queues.is_empty() || wire.is_plain {
            return false;
        }
        let wire = self.wires.remove(key);
        self.by_filter.remove(&wire.filter.filter);
        self.forget_routes();
        wire.stage != Stage::Wanted || wire.was_sent
    }

    /// As if nobody had wanted these yet; gives those back that somebody has taken.
    pub(crate) fn put_back(&mut self, messages: Vec<Incoming>) -> Vec<Incoming> {
        let is_taken = |message: &Incoming| message.token.as_ref().is_some_and(AckToken::is_taken);
        let (taken, unclaimed): (_, Vec<_>) = messages.into_iter().partition(is_taken);
        self.unclaimed.extend(unclaimed);
        taken
    }

    /// Leaves out what a new subscription to the same filter has made void.
    fn settle(&mut self, is_void: impl Fn(&Inbox, &Unsubscribe) -> bool) {
        let unsubscribes = std::mem::take(&mut self.unsubscribes);
        let (void, left): (Vec<_>, _) = unsubscribes.into_iter().partition(|u| is_void(self, u));
        self.unsubscribes = left;
        for sender in void.into_iter().filter_map(|unsubscribe| unsubscribe.answer) {
            let _ = sender.send(Ok(ReasonCode::Success));
        }
    }

    /// UNSUBSCRIBE follows with the next flush.
    pub(crate) fn unsubscribe(
        &mut self,
        filter: Arc<str>,
        properties: PropertyList,
        answer: Option<oneshot::Sender<Answer>>,
    ) {
        self.is_dirty = true;
        self.unsubscribes.push(Unsubscribe { filter, properties, packet_id: None, answer });
    }

    /// Messages of the filter that nobody wants any more, to be acknowledged and forgotten.
    pub(crate) fn forget_unclaimed(&mut self, filter: &str) -> Vec<Incoming> {
        let mut forgotten = Vec::new();
        let wires = &self.wires;
        self.unclaimed.retain(|message| {
            let wanted = wires.iter().any(|(_, wire)| matches(&wire.filter.filter, &message.topic));
            let keep = wanted || !matches(filter, &message.topic);
            if !keep {
                forgotten.push(message.clone());
            }
            keep
        });
        forgotten
    }

    /// Sends what is to be sent, as far as the core takes it.
    pub(crate) fn flush(&mut self, core: &mut Core) {
        if !self.is_dirty {
            return;
        }
        let (mut refused, mut is_full) = (Vec::new(), false);
        for (key, wire) in &mut self.wires {
            if wire.stage != Stage::Wanted {
                continue;
            }
            let identified = self.has_identifiers && !wire.is_plain;
            match subscribe(core, key, &wire.filter, identified) {
                Ok(packet_id) => {
                    wire.stage = Stage::Sent(packet_id);
                    wire.was_sent = true;
                }
                Err(CommandError::Full | CommandError::NotConnected) => {
                    is_full = true;
                    break;
                }
                Err(error) => refused.push((key, SubscribeError::Invalid(error))),
            }
        }
        for (key, error) in refused {
            self.refuse(key, &error);
        }
        if is_full {
            return;
        }
        let sent = |one: &Unsubscribe| one.packet_id.is_some();
        while let Some(at) = self.unsubscribes.iter().position(|one| !sent(one))
            && let Some(unsubscribe) = self.unsubscribes.get_mut(at)
        {
            let properties = unsubscribe.properties.view();
            match core.unsubscribe(&[&unsubscribe.filter], properties) {
                Ok(packet_id) => unsubscribe.packet_id = Some(packet_id),
                Err(CommandError::Full | CommandError::NotConnected) => return,
                Err(error) => {
                    if let Some(sender) = self.unsubscribes.remove(at).answer {
                        let _ = sender.send(Err(SubscribeError::Invalid(error)));
                    }
                }
            }
        }
        self.is_dirty = false;
    }

    /// The filter that was answered, and how.
    pub(crate) fn handle_suback(&mut self, ack: &SubAck<'_>) -> Option<(Arc<str>, ReasonCode)> {
        let sent = |wire: &Wire| wire.stage == Stage::Sent(ack.packet_id);
        let (key, wire) = self.wires.iter_mut().find(|(_, wire)| sent(wire))?;
        let filter = wire.filter.filter.clone();
        let reason = ack.codes.iter().next().unwrap_or(ReasonCode::UnspecifiedError);
        if reason.is_error() {
            self.refuse(key, &SubscribeError::Refused(reason));
        } else {
            wire.stage = Stage::Active;
            for sender in wire.waiting.drain(..) {
                let _ = sender.send(Ok(reason));
            }
        }
        Some((filter, reason))
    }

    /// Ends a subscription that the broker does not grant; if it was granted before, the streams
    /// that it had end too.
    fn refuse(&mut self, key: usize, error: &SubscribeError) {
        let Some(wire) = self.wires.try_remove(key) else { return };
        self.by_filter.remove(&wire.filter.filter);
        self.forget_routes();
        for sender in wire.waiting {
            let _ = sender.send(Err(error.clone()));
        }
        wire.queues.iter().for_each(|queue| queue.close());
    }

    pub(crate) fn handle_unsuback(&mut self, ack: &UnsubAck<'_>) {
        let reason = ack.codes.iter().next().unwrap_or(ReasonCode::Success);
        let sent = |unsubscribe: &Unsubscribe| unsubscribe.packet_id == Some(ack.packet_id);
        let Some(at) = self.unsubscribes.iter().position(sent) else { return };
        if let Some(sender) = self.unsubscribes.swap_remove(at).answer {
            let _ = sender.send(match reason.is_error() {
                true => Err(SubscribeError::Refused(reason)),
                false => Ok(reason),
            });
        }
    }

    /// Without a session, everything is subscribed again.
    pub(crate) fn handle_connected(&mut self, ack: &ConnAck<'_>) {
        self.session_present = ack.session_present;
        if !ack.session_present {
            self.partly_taken.clear();
        }
        let without = |p| matches!(p, Property::SubscriptionIdentifierAvailable(0));
        self.has_identifiers = self.is_v5 && !ack.properties.iter().any(without);
        for (_, wire) in &mut self.wires {
            if !ack.session_present || wire.stage != Stage::Active {
                wire.stage = Stage::Wanted;
            }
            wire.queues.iter().for_each(|queue| queue.release(ack.session_present));
        }
        self.all.iter().for_each(|queue| queue.release(ack.session_present));
        // Sent before SUBSCRIBE then, it would come behind it now.
        self.settle(|inbox, u| inbox.by_filter.contains_key(&u.filter));
        for unsubscribe in &mut self.unsubscribes {
            unsubscribe.packet_id = None;
        }
        self.is_dirty = true;
    }

    /// The broker will send again what was not acknowledged, if it keeps the session.
    pub(crate) fn handle_lost(&mut self, session_stays: bool) {
        let queues = self.wires.iter().flat_map(|(_, wire)| &wire.queues).chain(&self.all);
        for queue in queues {
            queue.hold();
            if !session_stays {
                queue.release(false);
            }
        }
        if session_stays {
            self.unclaimed.retain(|message| message.qos == QoS::AtMostOnce);
        }
        for message in &mut self.unclaimed {
            message.token = None;
        }
        let too_many = self.unclaimed.len().saturating_sub(MOST_UNCLAIMED);
        self.unclaimed.drain(..too_many);
    }

    pub(crate) fn handle_closed(&mut self) {
        for wire in self.wires.drain() {
            wire.queues.iter().for_each(|queue| queue.close());
        }
        self.all.take().iter().for_each(|queue| queue.close());
        self.by_filter.clear();
        self.unsubscribes.clear();
        self.unclaimed.clear();
    }

    /// Whether the session of the last connection was there before.
    pub(crate) const fn session_present(&self) -> bool {
        self.session_present
    }

    /// Whether a consumer is so far behind that nothing more is to be read.
    pub(crate) fn is_full(&mut self) -> bool {
        self.full.retain(|queue| queue.is_full());
        !self.full.is_empty()
    }

    /// The filters of those that missed a message since this was last asked.
    pub(crate) fn take_missed(&mut self) -> Vec<Arc<str>> {
        std::mem::take(&mut self.missed)
    }

    /// QoS 2 messages to be acknowledged without another delivery.
    pub(crate) fn take_owed(&mut self) -> Vec<PacketId> {
        std::mem::take(&mut self.owed)
    }

    /// Gives a message to whoever wants it.
    pub(crate) fn deliver(&mut self, publish: &Publish<'_>, shared: &Arc<Shared>, connection: u64) {
        let route = self.route(publish.topic);
        let narrowed;
        let keys: &[usize] = match route.keys.len() {
            0 | 1 => &route.keys,
            _ => {
                narrowed = narrow(&route.keys, &publish.properties);
                &narrowed
            }
        };
        let takers = self.takers(publish);
        let wires = keys.iter().filter_map(|key| self.wires.get(*key));
        let wires = wires.flat_map(|wire| wire.queues.iter().map(move |queue| (queue, Some(wire))));
        let all = self.all.iter().map(|queue| (queue, None)).chain(wires);
        let all = all.filter(|(queue, _)| !takers.iter().any(|t| t.as_ptr() == Arc::as_ptr(queue)));
        let receivers = all.clone().count();
        if let (0, false, Some(id)) = (receivers, takers.is_empty(), publish.packet_id) {
            self.owed.push(id);
            return self.forget_taken(id);
        }
        let token = publish
            .packet_id
            .map(|id| AckToken::new(shared.clone(), connection, id, publish.qos, receivers));
        let message = Incoming {
            topic: route.topic.clone(),
            payload: Bytes::copy_from_slice(publish.payload),
            qos: publish.qos,
            retain: publish.retain,
            dup: publish.dup,
            packet_id: publish.packet_id,
            properties: PropertyList::copy_of(&publish.properties),
            token,
        };
        if receivers == 0 {
            self.leave_unclaimed(message);
            return;
        }
        let mut left = receivers;
        let mut message = Some(message);
        for (queue, wire) in all {
            left -= 1;
            let mut copy = if left == 0 { message.take() } else { message.clone() };
            if receivers > 1
                && let Some(token) = copy.as_mut().and_then(|copy| copy.token.as_mut())
            {
                token.receiver = Arc::downgrade(queue);
            }
            match copy.map(|copy| queue.push(copy)) {
                Some(Pushed::Full) => {
                    if !self.full.iter().any(|full| Arc::ptr_eq(full, queue)) {
                        self.full.push(queue.clone());
                    }
                }
                Some(Pushed::Missed) => {
                    self.missed.push(wire.map_or_else(|| "#".into(), |w| w.filter.filter.clone()));
                }
                Some(Pushed::Taken | Pushed::MissedMore) | None => {}
            }
        }
    }

    /// Who has taken this message on a connection before.
    fn takers(&mut self, publish: &Publish<'_>) -> Takers {
        let Some(id) = publish.packet_id.filter(|_| !self.partly_taken.is_empty()) else {
            return Takers::new();
        };
        // [MQTT-3.3.1-1] Without DUP the identifier is that of another message.
        match publish.dup && publish.qos == QoS::ExactlyOnce {
            true => self.partly_taken.get(&id).cloned().unwrap_or_default(),
            false => {
                self.partly_taken.remove(&id);
                Takers::new()
            }
        }
    }

    pub(crate) fn note_taken(&mut self, packet_id: PacketId, by: &Weak<Queue>) {
        self.partly_taken.entry(packet_id).or_default().push(by.clone());
    }

    /// All have taken it.
    pub(crate) fn forget_taken(&mut self, packet_id: PacketId) {
        if !self.partly_taken.is_empty() {
            self.partly_taken.remove(&packet_id);
        }
    }

    fn leave_unclaimed(&mut self, message: Incoming) {
        let of_qos0 = |other: &&Incoming| other.qos == QoS::AtMostOnce;
        if message.qos > QoS::AtMostOnce
            || self.unclaimed.iter().filter(of_qos0).count() < MOST_UNCLAIMED
        {
            self.unclaimed.push_back(message);
        }
    }

    fn route(&mut self, topic: &str) -> Arc<Route> {
        // The same topic often comes many times in a row.
        if let Some(last) = &self.last_route
            && *last.topic == *topic
        {
            return last.clone();
        }
        let route = match self.routes.get(topic) {
            Some(route) => route.clone(),
            None => {
                if self.routes.len() >= MOST_ROUTES {
                    self.routes.clear();
                }
                let wanted = |(_, wire): &(usize, &Wire)| matches(&wire.filter.filter, topic);
                let keys = self.wires.iter().filter(wanted).map(|(key, _)| key).collect();
                let route = Arc::new(Route { topic: topic.into(), keys });
                self.routes.insert(route.topic.clone(), route.clone());
                route
            }
        };
        self.last_route = Some(route.clone());
        route
    }

    /// The subscriptions have changed.
    fn forget_routes(&mut self) {
        self.routes.clear();
        self.last_route = None;
    }
}

/// Of the subscriptions that match, those whose identifiers the message carries: the broker sends
/// a message to overlapping subscriptions once for each, or once with all identifiers.
fn narrow(keys: &[usize], properties: &Properties<'_>) -> SmallVec<[usize; 2]> {
    let of = |property| match property {
        Property::SubscriptionIdentifier(id) => Some(id as usize - 1),
        _ => None,
    };
    let carries = |key: &usize| properties.iter().filter_map(of).any(|other| other == *key);
    let carried: SmallVec<_> = keys.iter().copied().filter(carries).collect();
    // Identifiers of a process before this one name other filters.
    if carried.is_empty() { keys.into() } else { carried }
}

/// What nobody will take from a queue and must be acknowledged: not what others are to acknowledge.
fn unacknowledged(queue: &Queue) -> Vec<Incoming> {
    queue.close();
    let all = queue.drain().into_iter();
    all.filter(|message| message.token.as_ref().is_some_and(|token| !token.leave())).collect()
}

fn subscribe(
    core: &mut Core,
    key: usize,
    filter: &Filter,
    identified: bool,
) -> Result<PacketId, CommandError> {
    let subscription = Subscription {
        filter: &filter.filter,
        qos: filter.qos,
        no_local: filter.no_local,
        retain_as_published: filter.retain_as_published,
        retain_handling: filter.retain_handling,
    };
    let mut properties = filter.properties.clone();
    if identified {
        properties.push(Property::SubscriptionIdentifier(key as u32 + 1));
    }
    core.subscribe(&[subscription], properties.view())
}

/// Whether a message to `topic` comes by `filter`, which may be that of a shared subscription.
fn matches(filter: &str, topic: &str) -> bool {
    match whimbrel_topics::parse_shared(filter) {
        Ok(Some(shared)) => whimbrel_topics::matches(shared.filter, topic),
        _ => whimbrel_topics::matches(filter, topic),
    }
}
