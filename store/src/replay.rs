//! From records to what was alive: sessions with their queues, retained messages, and messages
//! that were on their way.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::collect::OnItsWay;
use crate::layout::{INDEX_ENTRY_BYTES, IndexEntry, SEGMENT_HEADER_BYTES};
use crate::record::{DELIVERED, QUEUED, QUEUED_MANY, RawRecords};
use crate::scan::{Frames, Window};
use crate::segments::{PackedIndex, Segment};
use crate::survey::failed;
use crate::{
    Entry, EntryQueue, InFlightRecovered, MessageBody, OpenError, Position, Record, SessionKey,
    SessionRecovered, Stored, SubscriptionRecovered, Unrouted, WillRecord, WillRecovered,
};

/// The state as it grows from record to record.
#[derive(Default)]
pub(crate) struct Replay {
    sessions: HashMap<u64, SessionRecovered>,
    /// Retained messages that were stated again, with their numbers.
    pub retained: Vec<(Stored, u64)>,
}

/// Reads the frames of all segments from the one at `began` on.
pub(crate) fn replay(
    segments: &[Arc<Segment>],
    began: u64,
    identity: u64,
) -> Result<Replay, OpenError> {
    let mut replay = Replay::default();
    each_record(segments, began, identity, &mut |raw| {
        replay.apply(&raw.record()?);
        Ok(())
    })?;
    Ok(replay)
}

pub(crate) type EachRecord<'a> =
    dyn FnMut(&crate::record::RawRecord<'_>) -> Result<(), &'static str> + 'a;

/// Reads frames from `from` on; places that are damaged are left out.
pub(crate) fn each_record(
    segments: &[Arc<Segment>],
    from: u64,
    identity: u64,
    each: &mut EachRecord<'_>,
) -> Result<(), OpenError> {
    for segment in segments.iter().filter(|segment| segment.packed.is_none()) {
        if segment.end() <= from {
            continue;
        }
        let name = segment.name();
        let read = |error| OpenError::Io { file: name.clone(), doing: "read", error };
        let bounds = (segment.start, Some(segment.end()));
        let from = from.max(segment.start);
        let mut frames = Frames::new(&segment.file, bounds, from, identity).map_err(read)?;
        loop {
            while let Some(frame) = frames.next().map_err(read)? {
                for raw in RawRecords::new(frame.base, frame.records) {
                    let result = raw.map_err(|error| error.what).and_then(|raw| each(&raw));
                    result.map_err(|what| OpenError::Damaged {
                        file: name.clone(),
                        offset: frame.position - segment.start + SEGMENT_HEADER_BYTES,
                        what,
                    })?;
                }
            }
            let end = frames.position();
            if end >= segment.end() || !frames.seek(end + 1).map_err(read)? {
                break;
            }
        }
    }
    Ok(())
}

impl Replay {
    fn apply(&mut self, record: &Record<'_>) {
        if let Record::Session { key, .. } = record {
            self.sessions.insert(key.0, session(record));
            return;
        }
        if let Record::Retained { stored, number } = record {
            return self.retained.push((*stored, *number));
        }
        let Some(key) = key_of(record) else { return };
        if let Record::Ended { .. } = record {
            self.sessions.remove(&key.0);
        } else if let Some(session) = self.sessions.get_mut(&key.0) {
            apply(session, record);
        }
    }

    /// Sessions in the order of their making.
    pub(crate) fn finish(self) -> Vec<SessionRecovered> {
        let mut sessions: Vec<SessionRecovered> = self.sessions.into_values().collect();
        sessions.sort_unstable_by_key(|session| session.key);
        sessions
    }
}

fn key_of(record: &Record<'_>) -> Option<SessionKey> {
    match record {
        Record::Session { key, .. }
        | Record::Owner { key, .. }
        | Record::Ended { key }
        | Record::Connected { key, .. }
        | Record::Detached { key, .. }
        | Record::WillGone { key }
        | Record::Subscribed { key, .. }
        | Record::Unsubscribed { key, .. }
        | Record::Queued { key, .. }
        | Record::QueuedMany { key, .. }
        | Record::Delivered { key, .. }
        | Record::Sent { key, .. }
        | Record::Dropped { key }
        | Record::Acknowledged { key, .. }
        | Record::Released { key, .. }
        | Record::Received { key, .. }
        | Record::ReceivedReleased { key, .. } => Some(*key),
        _ => None,
    }
}

fn session(record: &Record<'_>) -> SessionRecovered {
    let mut made = SessionRecovered {
        key: SessionKey(0),
        client_id: Box::default(),
        principal: None,
        expiry_s: 0,
        detached: None,
        keeps_messages: false,
        will: None,
        subscriptions: Vec::new(),
        in_flight: VecDeque::new(),
        queue: EntryQueue::default(),
        received: Vec::new(),
    };
    if let Record::Session { key, client_id, expiry_s, detached, keeps_messages, will } = record {
        made.key = *key;
        made.client_id = (*client_id).into();
        made.expiry_s = *expiry_s;
        made.detached = *detached;
        made.keeps_messages = *keeps_messages;
        made.will = will.as_ref().map(recovered_will);
    }
    made
}

fn apply(session: &mut SessionRecovered, record: &Record<'_>) {
    match record {
        Record::Owner { principal, .. } => {
            session.principal = (!principal.is_empty()).then(|| Box::from(*principal));
        }
        Record::Connected { expiry_s, will, .. } => {
            session.expiry_s = *expiry_s;
            session.detached = None;
            session.will = will.as_ref().map(recovered_will);
        }
        Record::Detached { at, expiry_s, .. } => {
            session.detached = Some(*at);
            session.expiry_s = *expiry_s;
        }
        Record::WillGone { .. } => session.will = None,
        Record::Subscribed { .. } => subscribe(session, record),
        Record::Unsubscribed { filter, .. } => {
            session.subscriptions.retain(|subscription| *subscription.filter != **filter);
        }
        Record::Queued { entry, .. } => session.queue.push(entry),
        Record::QueuedMany { entries, .. } => {
            entries.iter().for_each(|entry| session.queue.push(&entry));
        }
        Record::Delivered { packet_id, entry, .. } => {
            let entry = Some(entry.clone());
            session.in_flight.push_back(InFlightRecovered { packet_id: *packet_id, entry });
        }
        Record::Sent { packet_id, .. } => {
            if let Some(entry) = session.queue.pop() {
                let entry = Some(entry);
                session.in_flight.push_back(InFlightRecovered { packet_id: *packet_id, entry });
            }
        }
        Record::Dropped { .. } => drop(session.queue.pop()),
        Record::Acknowledged { packet_id, .. } => {
            let mut all = session.in_flight.iter();
            if let Some(index) = all.position(|delivery| delivery.packet_id == *packet_id) {
                session.in_flight.remove(index);
            }
        }
        Record::Released { packet_id, .. } => {
            let mut all = session.in_flight.iter_mut();
            match all.find(|delivery| delivery.packet_id == *packet_id) {
                Some(delivery) => delivery.entry = None,
                None => session
                    .in_flight
                    .push_back(InFlightRecovered { packet_id: *packet_id, entry: None }),
            }
        }
        Record::Received { packet_id, .. } if !session.received.contains(packet_id) => {
            session.received.push(*packet_id);
        }
        Record::ReceivedReleased { packet_id, .. } => {
            session.received.retain(|id| id != packet_id);
        }
        _ => {}
    }
}

fn subscribe(session: &mut SessionRecovered, record: &Record<'_>) {
    let Record::Subscribed { filter, qos, no_local, retain_as_published, id, group, .. } = record
    else {
        return;
    };
    let made = SubscriptionRecovered {
        filter: (*filter).into(),
        qos: *qos,
        no_local: *no_local,
        retain_as_published: *retain_as_published,
        id: *id,
        group: *group,
    };
    let mut all = session.subscriptions.iter_mut();
    match all.find(|subscription| *subscription.filter == **filter) {
        Some(subscription) => *subscription = made,
        None => session.subscriptions.push(made),
    }
}

fn recovered_will(will: &WillRecord<'_>) -> WillRecovered {
    WillRecovered {
        topic: will.topic.into(),
        properties: will.properties.into(),
        payload: will.payload.into(),
        qos: will.qos,
        retain: will.retain,
        delay_s: will.delay_s,
        expiry_s: will.expiry_s,
    }
}

/// For each message that was on its way, who has got it.
pub(crate) fn unrouted(
    segments: &[Arc<Segment>],
    chain_start: u64,
    identity: u64,
    routing: &HashMap<(u64, Option<u32>), OnItsWay>,
    sessions: &[SessionRecovered],
) -> Result<Vec<Unrouted>, OpenError> {
    let Some(first) = routing.keys().map(|(position, _)| position).min() else {
        return Ok(Vec::new());
    };
    let mut reached: HashMap<(u64, Option<u32>), Vec<SessionKey>> = HashMap::new();
    let mut note = |at: Position, key: SessionKey, entry: &Entry| {
        let position = entry.stored.position.0;
        // Of a group only what came after its message was given away.
        let of_all = routing.contains_key(&(position, None)).then_some(None);
        let given = entry.group.and_then(|_| routing.get(&(position, entry.group)));
        let of_group = given.is_some_and(|given| given.since < at).then_some(entry.group);
        for group in [of_all, of_group].into_iter().flatten() {
            let keys = reached.entry((position, group)).or_default();
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
    };
    // Who has got it says so behind the message; its segment is read from its first frame on.
    let mut segments_behind = segments.iter().filter(|segment| segment.end() > *first);
    let from = segments_behind.next().map_or(chain_start, |segment| segment.start);
    each_record(segments, from.max(chain_start), identity, &mut |raw| {
        if matches!(raw.kind(), QUEUED | QUEUED_MANY | DELIVERED) {
            match raw.record()? {
                Record::Queued { key, entry } | Record::Delivered { key, entry, .. } => {
                    note(raw.position, key, &entry);
                }
                Record::QueuedMany { key, entries } => {
                    entries.iter().for_each(|entry| note(raw.position, key, &entry));
                }
                _ => {}
            }
        }
        Ok(())
    })?;
    let filter_of = |group: u32| {
        let all = sessions.iter().flat_map(|session| &session.subscriptions);
        all.into_iter().find(|s| s.group == Some(group)).map(|s| s.filter.clone())
    };
    let mut all = Vec::new();
    for (place, OnItsWay { stored, from, .. }) in routing {
        let reached = reached.remove(place).unwrap_or_default();
        let group = match place.1 {
            None => None,
            Some(_) if !reached.is_empty() => continue,
            Some(group) => match filter_of(group) {
                Some(filter) => Some(filter),
                // Nobody is left in the group.
                None => continue,
            },
        };
        let (stored, from, group_key) = (*stored, *from, place.1);
        all.push(Unrouted { stored, from, group, group_key, reached });
    }
    all.sort_unstable_by(|a, b| (a.stored, &a.group).cmp(&(b.stored, &b.group)));
    Ok(all)
}

/// Reads many messages in the order of their positions.
pub(crate) struct Bodies<'a> {
    segments: &'a [Arc<Segment>],
    open: Option<OpenSegment>,
}

struct OpenSegment {
    segment: Arc<Segment>,
    window: Window,
    /// Of a packed segment.
    index: Vec<IndexEntry>,
}

impl<'a> Bodies<'a> {
    pub(crate) fn new(segments: &'a [Arc<Segment>]) -> Bodies<'a> {
        Bodies { segments, open: None }
    }

    /// The message, or none if there is none at this place.
    pub(crate) fn read(&mut self, stored: Stored) -> Result<Option<MessageBody>, OpenError> {
        let position = stored.position.0;
        let holds = |segment: &Segment| segment.start <= position && position < segment.end();
        if !self.open.as_ref().is_some_and(|open| holds(&open.segment)) {
            let behind = self.segments.partition_point(|segment| segment.start <= position);
            let segment = behind.checked_sub(1).and_then(|index| self.segments.get(index));
            let Some(segment) = segment.filter(|segment| holds(segment)) else {
                return Err(OpenError::MissingMessage { position });
            };
            self.open = Some(OpenSegment::new(segment)?);
        }
        let Some(open) = &mut self.open else { return Ok(None) };
        let place = if open.segment.packed.is_none() {
            position - open.segment.start + SEGMENT_HEADER_BYTES
        } else {
            match open.index.binary_search_by_key(&position, |entry| entry.position) {
                Ok(at) => open.index.get(at).map_or(0, |entry| entry.place),
                Err(_) => return Ok(None),
            }
        };
        let bytes = open.window.get(place, stored.len.into());
        let bytes = bytes.map_err(failed(&open.segment.name(), "read"))?;
        Ok(bytes.and_then(|bytes| MessageBody::new(bytes.into()).ok()))
    }
}

impl OpenSegment {
    fn new(segment: &Arc<Segment>) -> Result<OpenSegment, OpenError> {
        let name = segment.name();
        let mut window = Window::new(&segment.file).map_err(failed(&name, "read"))?;
        let mut index = Vec::new();
        if let Some(packed) = &segment.packed {
            index
                .reserve((packed.count() as usize).min(window.size() as usize / INDEX_ENTRY_BYTES));
            let bounds = (segment.start, segment.end());
            let loaded = PackedIndex::load(&mut window, bounds, &mut |entry| index.push(entry));
            // It was verified just before.
            let _ = loaded.map_err(failed(&name, "read"))?;
        }
        Ok(OpenSegment { segment: segment.clone(), window, index })
    }
}
