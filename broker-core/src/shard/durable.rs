//! What the store is told, and what waits until it is durable.
//!
//! The rules, each with the harm that it prevents:
//!
//! - PUBACK and PUBREC wait until every shard has recorded the message for its sessions: what was
//!   acknowledged is delivered, whatever happens.
//! - A delivery of QoS 2 and its PUBREL wait until the step before is recorded: otherwise a broker
//!   that was stopped could use the packet identifier for another message, which the client would
//!   take for a repetition, or repeat what the client has already finished.
//! - A delivery of QoS 1 does not wait, unless of a will: at worst it comes once more, because its
//!   publisher repeats it.
//! - PUBCOMP, SUBACK, UNSUBACK and the CONNACK of a durable session wait for what they say.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use whimbrel_codec::{Packet, PacketId, QoS};
use whimbrel_store::{
    Entry, MessageRecord, Position, Record, SessionKey, Store, Stored, Ticket, WallMs, WillRecord,
};
use whimbrel_topics::HasTopic;

use super::restate::Restating;
use super::{Shard, sys};
use crate::held::{Held, HeldQueue, Release};
use crate::message::{Account, Message, Publication, ReplyTo};
use crate::session::{NO_GROUP, Session, Will};
use crate::stats::Count;
use crate::{ConnId, Millis, ShardId, Shared};

/// A shard's side of its store.
pub(super) struct Durable {
    pub(super) store: Box<dyn Store>,
    /// There is a store that keeps something.
    pub(super) on: bool,
    /// Acknowledgements wait for it.
    waits: bool,
    held: HeldQueue,
    /// Records made so far.
    records: u64,
    /// Of the last batch.
    last: Ticket,
    /// Something was recorded since.
    dirty: bool,
    /// Kept messages of this batch, whose place is known when it is committed.
    fresh: Vec<Message>,
    /// Sessions that have spilled messages of this batch.
    pub(super) spilled: Vec<u32>,
    /// Acknowledgements of other shards that wait for this batch.
    replies: Vec<ReplyTo>,
    /// The same for earlier batches.
    replies_due: std::collections::VecDeque<(Ticket, Vec<ReplyTo>)>,
    /// Sessions whose messages are being read back, by token.
    pub(super) loading: Vec<(u64, u32)>,
    pub(super) last_token: u64,
    /// Clients (hashes of their identifiers) whose session in the store has ended, until the batch
    /// that says so is durable.
    ended: std::collections::VecDeque<(Ticket, u64)>,
    /// The same in this batch.
    ended_now: Vec<u64>,
    pub(super) restating: Option<Restating>,
}

impl Durable {
    pub(super) fn new(store: Box<dyn Store>) -> Durable {
        let on = store.is_durable();
        Durable {
            on,
            waits: on && store.synced() != Ticket(u64::MAX),
            store,
            held: HeldQueue::default(),
            records: 0,
            last: Ticket(0),
            dirty: false,
            fresh: Vec::new(),
            spilled: Vec::new(),
            replies: Vec::new(),
            replies_due: Default::default(),
            loading: Vec::new(),
            last_token: 0,
            ended: Default::default(),
            ended_now: Vec::new(),
            restating: None,
        }
    }

    /// Everything that was recorded is durable, and nothing waits.
    fn is_settled(&self) -> bool {
        !self.dirty && self.held.is_empty() && self.last <= self.store.synced()
    }

    /// The batch is to be committed, though nothing was recorded through here.
    pub(super) fn note_dirty(&mut self) {
        self.records += 1;
        self.dirty = true;
    }

    /// The session of a client is to be forgotten.
    pub(super) fn note_ended(&mut self, client: u64) {
        if self.waits {
            self.ended_now.push(client);
        }
    }

    /// Whether a crash could still bring back a session of the client that has ended.
    pub(super) fn may_bring_back(&mut self, client: u64) -> bool {
        let synced = self.store.synced();
        while self.ended.front().is_some_and(|(ticket, _)| *ticket <= synced) {
            self.ended.pop_front();
        }
        self.ended_now.contains(&client) || self.ended.iter().any(|(_, ended)| *ended == client)
    }

    /// What [`Shard::keep`] does. Whoever keeps a message of this batch goes this way, or its place
    /// would never be told.
    pub(super) fn keep(
        &mut self,
        own: ShardId,
        p: &mut Publication<'_>,
        account: &Arc<Account>,
        scratch: &mut Vec<u8>,
    ) -> Message {
        let new = p.kept().is_none();
        let message = p.keep(account, scratch);
        if new && p.stored.writer() == Some(own.0) {
            self.fresh.push(message.clone());
        }
        message
    }

    pub(super) fn record(&mut self, record: &Record<'_>) {
        self.note_dirty();
        self.store.record(record);
    }
}

impl Shared {
    /// As a time that a restart does not change.
    pub(crate) fn wall(&self, at: Millis) -> Option<WallMs> {
        let origin = self.wall_origin_ms.load(Ordering::Relaxed);
        (at != Millis::NEVER).then(|| WallMs(origin.saturating_add(at.0)))
    }

    /// The time here; 0 if it was before that.
    pub(crate) fn here_at(&self, at: WallMs) -> Millis {
        Millis(at.0.saturating_sub(self.wall_origin_ms.load(Ordering::Relaxed)))
    }
}

impl Shard {
    // ---- inputs and outputs of the store

    /// Looks at what the store has done: sends what waited for it, takes messages that were read
    /// back. Called in every tick; the store tells the runtime when there is something.
    pub fn handle_store(&mut self, now: Millis) {
        if !self.durable.on {
            return;
        }
        self.now = now;
        let synced = self.durable.store.synced();
        while let Some((ticket, _)) = self.durable.replies_due.front()
            && *ticket <= synced
            && let Some((_, replies)) = self.durable.replies_due.pop_front()
        {
            for reply in replies {
                self.tell_recorded(reply);
            }
        }
        self.release(synced);
        while let Some(fetched) = self.durable.store.poll_fetched() {
            self.loaded(fetched);
        }
    }

    /// Bytes that the store has still to write, of all shards.
    pub fn store_backlog_bytes(&self) -> usize {
        self.durable.store.backlog_bytes()
    }

    /// Ends the batch of this tick.
    pub(super) fn commit(&mut self) {
        if !self.durable.on {
            return;
        }
        self.restate();
        self.end_batch();
    }

    /// The same without a part of a pass.
    pub(super) fn end_batch(&mut self) {
        self.durable.dirty = false;
        // Even an empty batch tells the store that this shard has done a round.
        if let Some(committed) = self.durable.store.commit() {
            self.durable.last = committed.ticket;
            self.settle(committed.base);
        }
        let last = self.durable.last;
        let ended = self.durable.ended_now.drain(..);
        self.durable.ended.extend(ended.map(|client| (last, client)));
        self.durable.held.wait_for(last);
        let replies = std::mem::take(&mut self.durable.replies);
        if last <= self.durable.store.synced() {
            // The store has nothing more to tell for which this shard would be woken.
            replies.into_iter().for_each(|reply| self.tell_recorded(reply));
        } else if !replies.is_empty() {
            self.durable.replies_due.push_back((last, replies));
        }
    }

    /// What was recorded in this batch has its place in the log.
    fn settle(&mut self, base: Position) {
        for message in self.durable.fresh.drain(..) {
            message.set_position(message.position().settled(base));
        }
        let id = self.id.0;
        self.mail.iter_mut().for_each(|mail| mail.settle(id, base));
        self.durable.held.settle(base);
        for slot in self.durable.spilled.drain(..) {
            if let Some(session) = self.sessions.get_mut(slot as usize)
                && let Some(spilled) = session.outbound.as_mut().and_then(|o| o.spilled.as_mut())
            {
                spilled.settle(base);
            }
        }
    }

    // ---- waiting

    /// Whether something was recorded since `mark`, which an earlier call gave.
    pub(super) fn records(&self) -> u64 {
        self.durable.records
    }

    /// Whether acknowledgements wait for the disk at all.
    #[inline]
    pub(super) fn waits(&self) -> bool {
        self.durable.waits
    }

    /// Holds something for a connection; `mails`: other shards that are to record its message.
    fn hold(&mut self, id: ConnId, mails: u32, what: Release) {
        let Some(conn) = self.conns.get_mut(id.0 as usize) else { return };
        conn.held += 1;
        let (conn, serial) = (id, conn.serial);
        let receipt = (mails > 0).then(|| self.durable.held.await_receipts(mails));
        self.durable.held.push(Held { conn, serial, receipt, what });
    }

    fn release(&mut self, synced: Ticket) {
        while let Some(Held { conn: id, serial, what, .. }) = self.durable.held.release(synced) {
            if let Release::Routed(position, group) = what {
                self.durable.record(&Record::Routed { position, group });
                continue;
            }
            let Some(conn) = self.conns.get_mut(id.0 as usize) else { continue };
            if conn.serial != serial {
                continue;
            }
            conn.held -= 1;
            if conn.state != crate::conn::State::Connected {
                continue;
            }
            match what {
                Release::Ack(len, bytes) => {
                    self.append(id, bytes.get(..usize::from(len)).unwrap_or_default());
                }
                Release::Packet(bytes) => self.append(id, &bytes),
                Release::Deliver { packet_id, dup } => {
                    let slot = conn.session;
                    self.deliver_released(slot, packet_id, dup);
                }
                Release::Open => {
                    conn.gated = false;
                    self.mark_dirty(id);
                }
                Release::Routed(..) => {}
            }
        }
    }

    fn append(&mut self, id: ConnId, bytes: &[u8]) {
        let Some(conn) = self.conns.get_mut(id.0 as usize) else { return };
        conn.output.buf(&mut self.pool).extend_from_slice(bytes);
        conn.output.appended(bytes.len());
        self.buffered += bytes.len();
        self.mark_dirty(id);
    }

    /// What waited to be sent may have been finished in the meantime.
    fn deliver_released(&mut self, slot: u32, packet_id: PacketId, dup: bool) {
        if !self.send_in_flight(slot, packet_id, dup) {
            self.pump(slot);
        }
    }

    /// Sends an acknowledgement; it waits if the store was told something since
    /// `mark`, if other shards are to record the message, or if an earlier one waits.
    #[inline]
    pub(super) fn acknowledge_when_durable(
        &mut self,
        id: ConnId,
        packet: &Packet<'_>,
        mark: u64,
        mails: u32,
    ) {
        match self.waits() {
            true => self.acknowledge_later(id, packet, mark, mails),
            false => self.reply_ack(id, packet),
        }
    }

    fn acknowledge_later(&mut self, id: ConnId, packet: &Packet<'_>, mark: u64, mails: u32) {
        let Some(conn) = self.conns.get(id.0 as usize) else { return };
        if self.durable.records == mark && mails == 0 && conn.held == 0 {
            return self.reply_ack(id, packet);
        }
        self.hold_packet(id, packet, mails);
    }

    /// Sends a packet that says something of a session's state: it waits until all is durable.
    #[inline]
    pub(super) fn reply_when_durable(&mut self, id: ConnId, packet: &Packet<'_>) {
        if !self.waits() {
            return self.reply_ack(id, packet);
        }
        let Some(conn) = self.conns.get(id.0 as usize) else { return };
        let held = conn.held > 0;
        let has_key = self.sessions.get(conn.session as usize).is_some_and(|s| s.key.is_some());
        if !held && (!has_key || self.durable.is_settled()) {
            return self.reply_ack(id, packet);
        }
        self.hold_packet(id, packet, 0);
    }

    fn hold_packet(&mut self, id: ConnId, packet: &Packet<'_>, mails: u32) {
        let Some(conn) = self.conns.get(id.0 as usize) else { return };
        let (v5, plain) = (conn.version.is_v5(), super::ack::plain(packet));
        let what = match plain {
            Some((first, ack)) => {
                let (len, bytes) = super::ack::bytes(first, ack, v5);
                Release::Ack(len, bytes)
            }
            None => match super::encoded(packet, conn) {
                Some(bytes) => Release::Packet(bytes.into()),
                None => return,
            },
        };
        self.hold(id, mails, what);
    }

    /// Sends a delivery that is in flight when it is durable, unless all is. False if there is
    /// nothing to send.
    pub(super) fn send_when_durable(&mut self, slot: u32, packet_id: PacketId, dup: bool) -> bool {
        let Some(session) = self.sessions.get(slot as usize) else { return false };
        match session.conn {
            Some(id) if self.waits() && session.durable && !self.durable.is_settled() => {
                self.hold(id, 0, Release::Deliver { packet_id, dup });
                true
            }
            _ => self.send_in_flight(slot, packet_id, dup),
        }
    }

    /// Nothing goes to this connection before what its CONNACK says is durable.
    pub(super) fn gate(&mut self, id: ConnId) {
        if self.waits()
            && !self.durable.is_settled()
            && let Some(conn) = self.conn(id)
        {
            conn.gated = true;
            self.hold(id, 0, Release::Open);
        }
    }

    // ---- between shards

    /// To whom other shards reply that they have recorded a message whose acknowledgement is held
    /// next.
    pub(super) fn reply_to(&self) -> Option<ReplyTo> {
        let number = self.durable.held.next_receipt();
        self.waits().then(|| ReplyTo::new(self.id.0, number))
    }

    /// The same for a message that a session gives away.
    pub(super) fn reply_to_of(&self, slot: u32) -> Option<ReplyTo> {
        let has_key = self.sessions.get(slot as usize).is_some_and(|s| s.key.is_some());
        self.reply_to().filter(|_| has_key)
    }

    /// This shard has recorded what it must of a message from another.
    pub(super) fn reply_when_recorded(&mut self, p: &Publication<'_>) {
        // One that was passed on is answered by who got it.
        if let Some(reply) = p.reply_to.filter(|_| p.mails == 0) {
            self.durable.replies.push(reply);
        }
    }

    fn tell_recorded(&mut self, reply: ReplyTo) {
        if reply.shard() == self.id.0 {
            self.durable.held.recorded(reply.number());
        } else if let Some(mail) = self.mail.get_mut(usize::from(reply.shard())) {
            mail.push_recorded(reply.number());
        }
    }

    pub(super) fn handle_recorded(&mut self, numbers: &[u64]) {
        numbers.iter().for_each(|number| self.durable.held.recorded(*number));
        self.release(self.durable.store.synced());
    }

    /// A message is on its way to `mails` other shards, and nobody will send it again: should the
    /// broker stop before they have it, the next start completes its way. `group`: it is for one of
    /// its members only.
    pub(super) fn keep_routing(
        &mut self,
        from: SessionKey,
        group: Option<u32>,
        p: &Publication<'_>,
    ) {
        let Some(stored) = self.stored(p).filter(|_| p.mails > 0) else { return };
        self.durable.record(&Record::Routing { stored, from, group });
        let receipt = Some(self.durable.held.await_receipts(p.mails));
        let (conn, what) = (ConnId(u32::MAX), Release::Routed(stored.position, group));
        self.durable.held.push(Held { conn, serial: 0, receipt, what });
    }

    /// The same for a message that a session has given to another member of a group.
    pub(super) fn keep_sharing(&mut self, slot: u32, group: u32, p: &Publication<'_>) {
        if p.mails > 0
            && let Some(key) = self.sessions.get(slot as usize).and_then(Session::key)
        {
            self.keep_routing(key, Some(group), p);
        }
    }

    // ---- messages

    fn stored(&self, p: &Publication<'_>) -> Option<Stored> {
        let own = p.stored.writer().is_none_or(|writer| writer == self.id.0);
        (p.stored != Position(0) && own).then(|| Stored {
            position: p.stored,
            len: Stored::len_of(p.topic.len(), p.properties.len(), p.payload.len()),
        })
    }

    /// Where the message is in the store, which it enters now if it is not there.
    pub(super) fn store(&mut self, p: &mut Publication<'_>, retained: Option<u64>) -> Stored {
        if let Some(stored) = self.stored(p) {
            return stored;
        }
        let record = MessageRecord {
            topic: p.topic,
            properties: p.properties,
            payload: p.payload,
            qos: p.qos,
            expires: self.shared.wall(p.expires),
            retained,
        };
        let len = record.len();
        let offset = self.durable.store.message(&record);
        self.durable.note_dirty();
        p.stored = Position::here(self.id.0, offset);
        if let Some(kept) = p.kept()
            && kept.position() == Position(0)
        {
            kept.set_position(p.stored);
            self.durable.fresh.push(kept.clone());
        }
        Stored { position: p.stored, len }
    }

    /// The message to keep; made once, however many keep it.
    pub(super) fn keep(&mut self, p: &mut Publication<'_>) -> Message {
        self.durable.keep(self.id, p, &self.shared.account, &mut self.encoder.body)
    }

    pub(super) fn entry(
        &self,
        stored: Stored,
        p: &Publication<'_>,
        qos: QoS,
        retain: bool,
        ids: &[u32],
        group: u32,
    ) -> Entry {
        let group = (group != NO_GROUP).then_some(group);
        let expires = self.shared.wall(p.expires);
        Entry { stored, qos, retain, dup: p.dup, expires, group, ids: ids.to_vec() }
    }

    // ---- sessions

    /// The store has no room: what would have to be kept is refused until it has.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.durable.on && self.durable.store.is_full()
    }

    /// A session that is to be in the store gets its number.
    pub(super) fn record_session(&mut self, slot: u32, keeps_messages: bool) {
        let key = self.durable.store.new_key();
        if let Some(session) = self.sessions.get_mut(slot as usize) {
            session.key = NonZeroU64::new(key.0);
            session.durable = keeps_messages;
        }
        if let Some(session) = self.sessions.get(slot as usize) {
            record_state(&mut self.durable, session);
        }
    }

    pub(super) fn record_connected(&mut self, slot: u32) {
        let Some(session) = self.sessions.get(slot as usize) else { return };
        if let Some(key) = session.key() {
            let will = session.will.as_deref().map(will_record);
            let expiry_s = session.expiry_s;
            self.durable.record(&Record::Connected { key, expiry_s, will });
        }
    }

    /// Records something of a session that is in the store.
    pub(super) fn record_of(
        &mut self,
        slot: u32,
        record: impl FnOnce(SessionKey) -> Record<'static>,
    ) {
        if let Some(key) = self.sessions.get(slot as usize).and_then(Session::key) {
            self.durable.record(&record(key));
        }
    }

    /// Whether a message is retained in the store too: what the broker tells of itself is not.
    pub(super) fn is_stored_topic(&self, topic: &str) -> bool {
        self.durable.on && !sys::is_sys(topic)
    }

    pub(super) fn count_lost(&self, n: u64) {
        self.count(Count::Dropped, n);
        self.shared.stats.sub(self.id.0, Count::Queued, n);
    }
}

/// The record with which a session begins, without what follows it.
pub(super) fn record_state(durable: &mut Durable, session: &Session) {
    let Some(key) = session.key() else { return };
    durable.record(&Record::Session {
        key,
        client_id: &session.client_id,
        expiry_s: session.expiry_s,
        detached: if session.conn.is_some() { None } else { session.detached },
        keeps_messages: session.durable,
        will: session.will.as_deref().map(will_record),
    });
    if let Some(rights) = &session.rights {
        let principal = rights.principal().encode();
        durable.record(&Record::Owner { key, principal: &principal });
    }
}

fn will_record(will: &Will) -> WillRecord<'_> {
    WillRecord {
        topic: will.message.topic(),
        properties: will.message.properties(),
        payload: will.message.payload(),
        qos: will.message.qos(),
        retain: will.retain,
        delay_s: will.delay_s,
        expiry_s: will.expiry_s,
    }
}
