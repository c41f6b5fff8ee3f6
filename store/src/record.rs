//! Records: one change of durable state each, as bytes (`format.md`, "Records").

use whimbrel_codec::{PacketId, QoS};

use crate::fields::{
    QOS_BITS, Reader, encode_entry, put_bytes, put_stored, put_text, put_varint, put_will,
};
use crate::message::{MESSAGE, MessageRecord};
use crate::{Entry, EntryQueue, Position, SessionKey, Stored, WallMs};

/// A will message as its session's record holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WillRecord<'a> {
    /// Topic name.
    pub topic: &'a str,
    /// Properties to forward, as on the wire.
    pub properties: &'a [u8],
    /// The application's bytes.
    pub payload: &'a [u8],
    /// Of the will.
    pub qos: QoS,
    /// Whether it is to be retained.
    pub retain: bool,
    /// Will delay interval, in seconds.
    pub delay_s: u32,
    /// Message expiry interval, in seconds from its publication.
    pub expiry_s: Option<u32>,
}

/// A change of durable state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// A body. Made by [`Store::message`](crate::Store::message) only.
    Message(MessageRecord<'a>),
    /// A session begins, or is stated again: what was known of it is replaced by this, and by the
    /// records of this session that follow.
    Session {
        /// Its number.
        key: SessionKey,
        /// Whose session.
        client_id: &'a str,
        /// Seconds; 0xFFFFFFFF: never.
        expiry_s: u32,
        /// When its connection was lost; none while it is connected.
        detached: Option<WallMs>,
        /// False: it is here only for its will and ends with its connection.
        keeps_messages: bool,
        /// Its will.
        will: Option<WillRecord<'a>>,
    },
    /// Whose session it is; none before it: nobody's.
    Owner {
        /// Which session.
        key: SessionKey,
        /// The principal as its crate writes it; empty: nobody's.
        principal: &'a [u8],
    },
    /// The session ended.
    Ended {
        /// Which session.
        key: SessionKey,
    },
    /// The session has a connection again.
    Connected {
        /// Which session.
        key: SessionKey,
        /// In force from now on.
        expiry_s: u32,
        /// In place of an earlier one.
        will: Option<WillRecord<'a>>,
    },
    /// The session has lost its connection.
    Detached {
        /// Which session.
        key: SessionKey,
        /// When.
        at: WallMs,
        /// DISCONNECT may have changed it.
        expiry_s: u32,
    },
    /// The will was published or withdrawn.
    WillGone {
        /// Which session.
        key: SessionKey,
    },
    /// A subscription was made or changed.
    Subscribed {
        /// Which session.
        key: SessionKey,
        /// As the client sent it, `$share/...` included.
        filter: &'a str,
        /// Maximum QoS.
        qos: QoS,
        /// Messages that the session itself published are not for it.
        no_local: bool,
        /// The retain flag is forwarded as it was published.
        retain_as_published: bool,
        /// Subscription identifier, 0 for none.
        id: u32,
        /// Key of the shared-subscription group, as entries refer to it.
        group: Option<u32>,
    },
    /// A subscription was removed.
    Unsubscribed {
        /// Which session.
        key: SessionKey,
        /// As the client sent it.
        filter: &'a str,
    },
    /// A message joins the session's queue.
    Queued {
        /// Which session.
        key: SessionKey,
        /// The message.
        entry: Entry,
    },
    /// Many messages join the session's queue.
    QueuedMany {
        /// Which session.
        key: SessionKey,
        /// The messages.
        entries: EntryQueue,
    },
    /// A message is in flight to the client, which was not in the queue.
    Delivered {
        /// Which session.
        key: SessionKey,
        /// Its packet identifier.
        packet_id: PacketId,
        /// The message.
        entry: Entry,
    },
    /// The oldest message of the queue is in flight now.
    Sent {
        /// Which session.
        key: SessionKey,
        /// Its packet identifier.
        packet_id: PacketId,
    },
    /// The oldest message of the queue was dropped.
    Dropped {
        /// Which session.
        key: SessionKey,
    },
    /// A delivery has ended.
    Acknowledged {
        /// Which session.
        key: SessionKey,
        /// Its packet identifier.
        packet_id: PacketId,
    },
    /// PUBREC has come for a delivery of QoS 2: its body is no longer needed.
    Released {
        /// Which session.
        key: SessionKey,
        /// Its packet identifier.
        packet_id: PacketId,
    },
    /// A QoS 2 message was received from the client.
    Received {
        /// Which session.
        key: SessionKey,
        /// Its packet identifier.
        packet_id: PacketId,
    },
    /// The client has released a QoS 2 message.
    ReceivedReleased {
        /// Which session.
        key: SessionKey,
        /// Its packet identifier.
        packet_id: PacketId,
    },
    /// A topic's retained message, stated again.
    Retained {
        /// Its body.
        stored: Stored,
        /// Which of two is later.
        number: u64,
    },
    /// A topic has no retained message any more.
    Unretained {
        /// Which topic.
        topic: &'a str,
        /// Which of two is later.
        number: u64,
    },
    /// A message is on its way to other shards, and nobody will send it again. Should the broker
    /// stop before [`Record::Routed`], it is to be given to all who did not get it.
    Routing {
        /// The message.
        stored: Stored,
        /// Who published it, or gave it away.
        from: SessionKey,
        /// It is for one member of this group only, which `from` has left or cannot serve.
        group: Option<u32>,
    },
    /// All other shards have recorded the message.
    Routed {
        /// The message.
        position: Position,
        /// As in [`Record::Routing`].
        group: Option<u32>,
    },
    /// A pass of stating everything again begins. Made by the log only.
    PassBegan {
        /// Its number.
        pass: u64,
    },
    /// A pass has ended: what was stated since `began` is all that counts. Made by the log only.
    PassEnded {
        /// Its number.
        pass: u64,
        /// Where it began.
        began: Position,
    },
    /// The broker was stopped in good order: nothing follows but a new start. Made by the log
    /// only.
    Stopped,
}

/// Bytes that are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordError {
    /// Where in the batch.
    pub offset: usize,
    /// What is wrong.
    pub what: &'static str,
}

pub(crate) const SESSION: u8 = 2;
const ENDED: u8 = 3;
const CONNECTED: u8 = 4;
const DETACHED: u8 = 5;
const WILL_GONE: u8 = 6;
const SUBSCRIBED: u8 = 7;
const UNSUBSCRIBED: u8 = 8;
pub(crate) const QUEUED: u8 = 9;
pub(crate) const QUEUED_MANY: u8 = 10;
pub(crate) const DELIVERED: u8 = 11;
const SENT: u8 = 12;
const DROPPED: u8 = 13;
const ACKNOWLEDGED: u8 = 14;
const RELEASED: u8 = 15;
const RECEIVED: u8 = 16;
const RECEIVED_RELEASED: u8 = 17;
const RETAINED: u8 = 18;
pub(crate) const UNRETAINED: u8 = 19;
pub(crate) const ROUTING: u8 = 20;
pub(crate) const ROUTED: u8 = 21;
pub(crate) const PASS_BEGAN: u8 = 22;
pub(crate) const PASS_ENDED: u8 = 23;
pub(crate) const STOPPED: u8 = 24;
const OWNER: u8 = 25;

/// In the tag of a record with an entry or a stored message: the position counts from the batch's
/// base.
const IN_BATCH: u8 = 0x80;

impl<'a> Record<'a> {
    /// Appends the record. A position in this batch stays one; see [`Position::here`].
    pub fn encode(&self, out: &mut Vec<u8>) {
        if let Record::Message(message) = self {
            return message.encode(out);
        }
        let start = out.len();
        // Few records have more than 127 bytes; the length of the others is moved into place.
        out.extend_from_slice(&[self.tag(), 0]);
        self.encode_body(out);
        let len = out.len() - start - 2;
        if len < 0x80 {
            if let Some(place) = out.get_mut(start + 1) {
                *place = len as u8;
            }
            return;
        }
        let mut long = Vec::with_capacity(10);
        put_varint(&mut long, len as u64);
        out.splice(start + 1..start + 2, long);
    }

    fn tag(&self) -> u8 {
        let here = |position: Position| if position.writer().is_some() { IN_BATCH } else { 0 };
        match self {
            Record::Message(_) => MESSAGE,
            Record::Session { .. } => SESSION,
            Record::Ended { .. } => ENDED,
            Record::Connected { .. } => CONNECTED,
            Record::Detached { .. } => DETACHED,
            Record::WillGone { .. } => WILL_GONE,
            Record::Owner { .. } => OWNER,
            Record::Subscribed { .. } => SUBSCRIBED,
            Record::Unsubscribed { .. } => UNSUBSCRIBED,
            Record::Queued { entry, .. } => QUEUED | here(entry.stored.position),
            Record::QueuedMany { .. } => QUEUED_MANY,
            Record::Delivered { entry, .. } => DELIVERED | here(entry.stored.position),
            Record::Sent { .. } => SENT,
            Record::Dropped { .. } => DROPPED,
            Record::Acknowledged { .. } => ACKNOWLEDGED,
            Record::Released { .. } => RELEASED,
            Record::Received { .. } => RECEIVED,
            Record::ReceivedReleased { .. } => RECEIVED_RELEASED,
            Record::Retained { stored, .. } => RETAINED | here(stored.position),
            Record::Unretained { .. } => UNRETAINED,
            Record::Routing { stored, .. } => ROUTING | here(stored.position),
            Record::Routed { .. } => ROUTED,
            Record::PassBegan { .. } => PASS_BEGAN,
            Record::PassEnded { .. } => PASS_ENDED,
            Record::Stopped => STOPPED,
        }
    }

    fn encode_body(&self, out: &mut Vec<u8>) {
        match self {
            Record::Message(_) | Record::Stopped => {}
            Record::Session { key, client_id, expiry_s, detached, keeps_messages, will } => {
                put_varint(out, key.0);
                put_text(out, client_id);
                put_varint(out, (*expiry_s).into());
                put_varint(out, detached.map_or(0, |at| at.0));
                out.push((*keeps_messages).into());
                put_will(out, will.as_ref());
            }
            Record::Owner { key, principal } => {
                put_varint(out, key.0);
                put_bytes(out, principal);
            }
            Record::Ended { key } | Record::WillGone { key } | Record::Dropped { key } => {
                put_varint(out, key.0);
            }
            Record::Connected { key, expiry_s, will } => {
                put_varint(out, key.0);
                put_varint(out, (*expiry_s).into());
                put_will(out, will.as_ref());
            }
            Record::Detached { key, at, expiry_s } => {
                put_varint(out, key.0);
                put_varint(out, at.0);
                put_varint(out, (*expiry_s).into());
            }
            Record::Subscribed { key, filter, qos, no_local, retain_as_published, id, group } => {
                put_varint(out, key.0);
                put_text(out, filter);
                let flags = u8::from(*no_local) << 2
                    | u8::from(*retain_as_published) << 3
                    | u8::from(group.is_some()) << 4;
                out.push(*qos as u8 | flags);
                put_varint(out, (*id).into());
                if let Some(group) = group {
                    put_varint(out, (*group).into());
                }
            }
            Record::Unsubscribed { key, filter } => {
                put_varint(out, key.0);
                put_text(out, filter);
            }
            Record::Queued { key, entry } => {
                put_varint(out, key.0);
                encode_entry(entry, out);
            }
            Record::QueuedMany { key, entries } => {
                put_varint(out, key.0);
                entries.encode(out);
            }
            Record::Delivered { key, packet_id, entry } => {
                put_varint(out, key.0);
                out.extend_from_slice(&packet_id.get().to_le_bytes());
                encode_entry(entry, out);
            }
            Record::Sent { key, packet_id }
            | Record::Acknowledged { key, packet_id }
            | Record::Released { key, packet_id }
            | Record::Received { key, packet_id }
            | Record::ReceivedReleased { key, packet_id } => {
                put_varint(out, key.0);
                out.extend_from_slice(&packet_id.get().to_le_bytes());
            }
            Record::Retained { stored, number } => {
                put_stored(out, *stored);
                put_varint(out, *number);
            }
            Record::Unretained { topic, number } => {
                put_text(out, topic);
                put_varint(out, *number);
            }
            Record::Routing { stored, from, group } => {
                put_stored(out, *stored);
                put_varint(out, from.0);
                put_varint(out, group.map_or(0, |group| u64::from(group) + 1));
            }
            Record::Routed { position, group } => {
                put_varint(out, position.0);
                put_varint(out, group.map_or(0, |group| u64::from(group) + 1));
            }
            Record::PassBegan { pass } => put_varint(out, *pass),
            Record::PassEnded { pass, began } => {
                put_varint(out, *pass);
                put_varint(out, began.0);
            }
        }
    }

    fn decode(tag: u8, base: Position, reader: &mut Reader<'a>) -> Option<Record<'a>> {
        let in_batch = tag & IN_BATCH != 0;
        let place = |mut stored: Stored| {
            if in_batch {
                stored.position.0 = base.0.checked_add(stored.position.0)?;
            }
            stored.position.writer().is_none().then_some(stored)
        };
        let entry = |reader: &mut Reader<'a>| {
            let mut entry = Entry::decode(Position(0), reader)?;
            entry.stored = place(entry.stored)?;
            Some(entry)
        };
        let tag = tag & !IN_BATCH;
        if in_batch && !matches!(tag, QUEUED | DELIVERED | RETAINED | ROUTING) {
            return None;
        }
        Some(match tag {
            SESSION => Record::Session {
                key: reader.key()?,
                client_id: reader.text()?,
                expiry_s: reader.varint_u32()?,
                detached: Some(reader.varint()?).filter(|&at| at != 0).map(WallMs),
                keeps_messages: reader.flag()?,
                will: reader.will()?,
            },
            OWNER => Record::Owner { key: reader.key()?, principal: reader.bytes()? },
            ENDED => Record::Ended { key: reader.key()? },
            CONNECTED => Record::Connected {
                key: reader.key()?,
                expiry_s: reader.varint_u32()?,
                will: reader.will()?,
            },
            DETACHED => Record::Detached {
                key: reader.key()?,
                at: WallMs(reader.varint()?),
                expiry_s: reader.varint_u32()?,
            },
            WILL_GONE => Record::WillGone { key: reader.key()? },
            SUBSCRIBED => {
                let (key, filter, flags) = (reader.key()?, reader.text()?, reader.byte()?);
                Record::Subscribed {
                    key,
                    filter,
                    qos: QoS::from_u8(flags & QOS_BITS)?,
                    no_local: flags & 4 != 0,
                    retain_as_published: flags & 8 != 0,
                    id: reader.varint_u32()?,
                    group: if flags & 16 != 0 { Some(reader.varint_u32()?) } else { None },
                }
            }
            UNSUBSCRIBED => Record::Unsubscribed { key: reader.key()?, filter: reader.text()? },
            QUEUED => Record::Queued { key: reader.key()?, entry: entry(reader)? },
            QUEUED_MANY => {
                Record::QueuedMany { key: reader.key()?, entries: EntryQueue::decode(reader)? }
            }
            DELIVERED => Record::Delivered {
                key: reader.key()?,
                packet_id: reader.packet_id()?,
                entry: entry(reader)?,
            },
            SENT => Record::Sent { key: reader.key()?, packet_id: reader.packet_id()? },
            DROPPED => Record::Dropped { key: reader.key()? },
            ACKNOWLEDGED => {
                Record::Acknowledged { key: reader.key()?, packet_id: reader.packet_id()? }
            }
            RELEASED => Record::Released { key: reader.key()?, packet_id: reader.packet_id()? },
            RECEIVED => Record::Received { key: reader.key()?, packet_id: reader.packet_id()? },
            RECEIVED_RELEASED => {
                Record::ReceivedReleased { key: reader.key()?, packet_id: reader.packet_id()? }
            }
            RETAINED => {
                Record::Retained { stored: place(reader.stored()?)?, number: reader.varint()? }
            }
            UNRETAINED => Record::Unretained { topic: reader.text()?, number: reader.varint()? },
            ROUTING => Record::Routing {
                stored: place(reader.stored()?)?,
                from: SessionKey(reader.varint()?),
                group: reader.group()?,
            },
            ROUTED => {
                Record::Routed { position: Position(reader.varint()?), group: reader.group()? }
            }
            PASS_BEGAN => Record::PassBegan { pass: reader.varint()? },
            PASS_ENDED => {
                Record::PassEnded { pass: reader.varint()?, began: Position(reader.varint()?) }
            }
            STOPPED => Record::Stopped,
            _ => return None,
        })
    }
}

/// The records of a batch, in order, each with its position.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    base: Position,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Records<'a> {
    /// Of a batch whose records begin at `base`.
    pub fn new(base: Position, bytes: &'a [u8]) -> Records<'a> {
        Records { base, bytes, at: 0 }
    }

    /// The next record, not yet looked into.
    fn next_raw(&mut self) -> Result<RawRecord<'a>, &'static str> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let position = Position(self.base.0 + self.at as u64);
        let base = self.base;
        if rest.first() == Some(&MESSAGE) {
            let (_, len) = MessageRecord::parse(rest)?;
            self.at += len;
            let body = rest.get(..len).unwrap_or_default();
            return Ok(RawRecord { position, tag: MESSAGE, base, body });
        }
        let mut reader = Reader::new(rest);
        let parsed = (|| {
            let tag = reader.byte()?;
            let len = usize::try_from(reader.varint()?).ok()?;
            Some((tag, reader.take(len)?))
        })();
        let (tag, body) = parsed.ok_or("the record is cut short")?;
        self.at += rest.len() - reader.rest().len();
        Ok(RawRecord { position, tag, base, body })
    }
}

/// A record that was not yet looked into.
pub(crate) struct RawRecord<'a> {
    pub position: Position,
    pub tag: u8,
    base: Position,
    /// Its fields; of a message, all of it.
    body: &'a [u8],
}

impl<'a> RawRecord<'a> {
    /// Its fields. A message's checksum is not looked at: its frame's says the same.
    pub(crate) fn record(&self) -> Result<Record<'a>, &'static str> {
        if self.tag == MESSAGE {
            return Ok(Record::Message(MessageRecord::parse(self.body)?.0));
        }
        let mut fields = Reader::new(self.body);
        let record = Record::decode(self.tag, self.base, &mut fields).ok_or("this is no record")?;
        if !fields.rest().is_empty() {
            return Err("the record is longer than it should be");
        }
        Ok(record)
    }

    /// Bytes of a message's record.
    pub(crate) fn len(&self) -> u32 {
        self.body.len() as u32
    }

    /// The tag without the sign that positions count from the batch.
    pub(crate) fn kind(&self) -> u8 {
        if self.tag == MESSAGE { MESSAGE } else { self.tag & !IN_BATCH }
    }
}

/// The records of a batch, in order, not yet looked into.
pub(crate) struct RawRecords<'a>(Records<'a>);

impl<'a> RawRecords<'a> {
    pub(crate) fn new(base: u64, bytes: &'a [u8]) -> RawRecords<'a> {
        RawRecords(Records::new(Position(base), bytes))
    }
}

impl<'a> Iterator for RawRecords<'a> {
    type Item = Result<RawRecord<'a>, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.step(Ok)
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<(Position, Record<'a>), RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step(|raw| Ok((raw.position, raw.record()?)))
    }
}

impl<'a> Records<'a> {
    fn step<T>(
        &mut self,
        look: impl FnOnce(RawRecord<'a>) -> Result<T, &'static str>,
    ) -> Option<Result<T, RecordError>> {
        if self.at >= self.bytes.len() {
            return None;
        }
        let offset = self.at;
        let next = self.next_raw().and_then(look);
        if next.is_err() {
            self.at = self.bytes.len();
        }
        Some(next.map_err(|what| RecordError { offset, what }))
    }
}
