//! PUBLISH packets for subscribers: encoded at most once per variant of a message, then copied and
//! patched.

use whimbrel_codec::{
    MAX_REMAINING_LENGTH, PacketId, QoS, variable_byte_integer_len, write_variable_byte_integer,
};
use whimbrel_protocol::OutgoingAlias;

use crate::Millis;
use crate::conn::Conn;
use crate::message::Publication;
use crate::output::{BY_REFERENCE_BYTES, Pool};

/// Subscription identifiers of one delivery. A client that gives one to each of very many filters
/// that match the same topics would make large packets of small messages: those are dropped.
pub(crate) const MAX_IDS: usize = 1024;

/// What a PUBLISH to one subscriber adds to the message.
#[derive(Clone, Copy)]
pub(crate) struct Envelope<'a> {
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) dup: bool,
    /// With QoS 1 and 2.
    pub(crate) packet_id: Option<PacketId>,
    /// Subscription identifiers.
    pub(crate) ids: &'a [u32],
}

/// The packet was larger than the client accepts, or than any should be, and was not sent
/// `[MQTT-3.1.2-24]`.
#[derive(Debug)]
pub(crate) struct TooLarge;

/// Encodes one publication for its subscribers, one after the other.
#[derive(Default)]
pub(crate) struct Encoder {
    scratch: Vec<u8>,
    /// By (5.0, QoS above 0).
    variants: [Option<Variant>; 4],
    /// Several subscribers are expected: a variant will be copied more than once.
    many: bool,
    /// For bodies that are put together to be kept.
    pub(crate) body: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Variant {
    start: usize,
    end: usize,
    /// Where the packet identifier stands, counted from `start`.
    id_at: usize,
    /// Length of the whole packet.
    packet_len: usize,
    /// The payload is not among its bytes. It is decided once: a message may be kept between two
    /// subscribers of the same variant.
    by_reference: bool,
}

impl Encoder {
    /// Another publication comes, for about this many subscribers.
    #[inline]
    pub(crate) fn next_publication(&mut self, receivers: usize) {
        self.many = receivers > 1;
        if self.many {
            self.scratch.clear();
            self.variants = [None; 4];
        }
    }

    /// Appends the packet to the connection's output. By reference if the payload is large and the
    /// message is kept already.
    pub(crate) fn send(
        &mut self,
        now: Millis,
        conn: &mut Conn,
        pool: &mut Pool,
        p: &Publication<'_>,
        e: &Envelope<'_>,
    ) -> Result<(), TooLarge> {
        let by_reference = p.payload.len() >= BY_REFERENCE_BYTES && p.kept().is_some();
        if !self.many || !e.ids.is_empty() || conn.sends_aliases() {
            return Self::send_alone(now, conn, pool, p, e, by_reference);
        }
        let at = usize::from(conn.version.is_v5()) * 2 + usize::from(e.qos != QoS::AtMostOnce);
        let variant = match self.variants.get(at).copied().flatten() {
            Some(variant) => variant,
            None => self.encode(at, now, conn, p, e, by_reference),
        };
        if variant.packet_len > conn.max_packet_size as usize {
            return Err(TooLarge);
        }
        let buf = conn.output.buf(pool);
        let start = buf.len();
        buf.extend_from_slice(self.scratch.get(variant.start..variant.end).unwrap_or_default());
        if let Some(first) = buf.get_mut(start) {
            *first = first_byte(e);
        }
        if let Some(id) = e.packet_id
            && let Some(place) = buf.get_mut(start + variant.id_at..start + variant.id_at + 2)
        {
            place.copy_from_slice(&id.get().to_be_bytes());
        }
        conn.output.appended(variant.end - variant.start);
        if variant.by_reference
            && let Some(message) = p.kept()
        {
            conn.output.append_payload(message.clone());
        }
        Ok(())
    }

    fn encode(
        &mut self,
        at: usize,
        now: Millis,
        conn: &Conn,
        p: &Publication<'_>,
        e: &Envelope<'_>,
        by_reference: bool,
    ) -> Variant {
        let start = self.scratch.len();
        let head = Head::new(now, conn, p, e, OutgoingAlias::None);
        let id_at = head.write(p, e, &mut self.scratch) - start;
        if !by_reference {
            self.scratch.extend_from_slice(p.payload);
        }
        let packet_len = head.packet_len();
        let end = self.scratch.len();
        let variant = Variant { start, end, id_at, packet_len, by_reference };
        if let Some(slot) = self.variants.get_mut(at) {
            *slot = Some(variant);
        }
        variant
    }

    /// For one subscriber; with subscription identifiers or aliases a packet is like no other.
    fn send_alone(
        now: Millis,
        conn: &mut Conn,
        pool: &mut Pool,
        p: &Publication<'_>,
        e: &Envelope<'_>,
        by_reference: bool,
    ) -> Result<(), TooLarge> {
        let mut head = Head::new(now, conn, p, e, OutgoingAlias::None);
        // An alias may add three bytes; a packet so close to the limit goes without.
        if conn.sends_aliases()
            && head.packet_len().saturating_add(5) <= conn.max_packet_size as usize
        {
            let alias = conn.choose_alias(p.topic);
            head = Head::new(now, conn, p, e, alias);
        }
        if head.packet_len() > conn.max_packet_size as usize || e.ids.len() > MAX_IDS {
            return Err(TooLarge);
        }
        let buf = conn.output.buf(pool);
        let start = buf.len();
        head.write(p, e, buf);
        if !by_reference {
            buf.extend_from_slice(p.payload);
        }
        let copied = buf.len() - start;
        conn.output.appended(copied);
        if by_reference && let Some(message) = p.kept() {
            conn.output.append_payload(message.clone());
        }
        Ok(())
    }
}

fn first_byte(e: &Envelope<'_>) -> u8 {
    0x30 | u8::from(e.dup) << 3 | (e.qos as u8) << 1 | u8::from(e.retain)
}

/// The lengths of a PUBLISH packet.
struct Head {
    v5: bool,
    alias: OutgoingAlias,
    expiry_s: Option<u32>,
    topic_len: usize,
    properties_len: usize,
    remaining_len: usize,
}

impl Head {
    fn new(
        now: Millis,
        conn: &Conn,
        p: &Publication<'_>,
        e: &Envelope<'_>,
        alias: OutgoingAlias,
    ) -> Head {
        let v5 = conn.version.is_v5();
        let topic_len = if matches!(alias, OutgoingAlias::Known(_)) { 0 } else { p.topic.len() };
        let id_len = if e.qos == QoS::AtMostOnce { 0 } else { 2 };
        let mut head = Head {
            v5,
            alias,
            expiry_s: None,
            topic_len,
            properties_len: 0,
            remaining_len: 2 + topic_len + id_len + p.payload.len(),
        };
        if v5 {
            // [MQTT-3.3.2-6] What was received less the time that it waited here.
            head.expiry_s = (p.expires != Millis::NEVER).then(|| now.seconds_until(p.expires));
            let ids: usize = e.ids.iter().map(|&id| 1 + variable_byte_integer_len(id)).sum();
            head.properties_len = p.properties.len()
                + ids
                + if head.expiry_s.is_some() { 5 } else { 0 }
                + if alias == OutgoingAlias::None { 0 } else { 3 };
            head.remaining_len +=
                variable_byte_integer_len(head.properties_len as u32) + head.properties_len;
        }
        head
    }

    /// Of the whole packet; too large for any client if it cannot be expressed.
    fn packet_len(&self) -> usize {
        if self.remaining_len > MAX_REMAINING_LENGTH as usize {
            return usize::MAX;
        }
        1 + variable_byte_integer_len(self.remaining_len as u32) + self.remaining_len
    }

    /// Everything before the payload. Gives the place of the packet identifier in `buf`.
    fn write(&self, p: &Publication<'_>, e: &Envelope<'_>, buf: &mut Vec<u8>) -> usize {
        buf.push(first_byte(e));
        put_length(buf, self.remaining_len);
        buf.extend_from_slice(&(self.topic_len as u16).to_be_bytes());
        buf.extend_from_slice(p.topic.as_bytes().get(..self.topic_len).unwrap_or_default());
        let id_at = buf.len();
        if e.qos != QoS::AtMostOnce {
            buf.extend_from_slice(&e.packet_id.map_or(0, PacketId::get).to_be_bytes());
        }
        if !self.v5 {
            return id_at;
        }
        put_length(buf, self.properties_len);
        if let Some(expiry_s) = self.expiry_s {
            buf.push(2);
            buf.extend_from_slice(&expiry_s.to_be_bytes());
        }
        for &id in e.ids {
            buf.push(11);
            put_length(buf, id as usize);
        }
        if let OutgoingAlias::New(alias) | OutgoingAlias::Known(alias) = self.alias {
            buf.push(35);
            buf.extend_from_slice(&alias.to_be_bytes());
        }
        buf.extend_from_slice(p.properties);
        id_at
    }
}

/// Lengths beyond the protocol's were refused by [`Head::packet_len`].
fn put_length(buf: &mut Vec<u8>, len: usize) {
    let _ = write_variable_byte_integer(buf, len as u32);
}

/// Whether the message is worth keeping, since many will share its large payload.
pub(crate) fn is_shared(p: &Publication<'_>, receivers: usize) -> bool {
    p.payload.len() >= BY_REFERENCE_BYTES && receivers > 1
}
