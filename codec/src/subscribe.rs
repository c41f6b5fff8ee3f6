//! SUBSCRIBE, SUBACK, UNSUBSCRIBE and UNSUBACK (sections 3.8 to 3.11).

use core::fmt;

use crate::property::Allowed;
use crate::wire::{Reader, put_binary};
use crate::{
    DecodeError, EncodeError, PacketId, PacketType, Properties, QoS, ReasonCode, Sink, Version,
};

const SUBSCRIBE: Allowed = Allowed::new(&[11]);
const UNSUBSCRIBE: Allowed = Allowed::new(&[]);
const ACK: Allowed = Allowed::new(&[31]);

/// When retained messages are sent for a subscription (section 3.8.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RetainHandling {
    /// 0: at each SUBSCRIBE.
    #[default]
    Send = 0,
    /// 1: only if the subscription is new.
    SendIfNew = 1,
    /// 2: never.
    DoNotSend = 2,
}

/// One topic filter of a SUBSCRIBE with its options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscription<'a> {
    /// As sent, `$share/...` included; its form is for the receiver to check.
    pub filter: &'a str,
    /// The highest QoS wanted.
    pub qos: QoS,
    /// 5.0: not what this client published itself.
    pub no_local: bool,
    /// 5.0: RETAIN as the publisher set it.
    pub retain_as_published: bool,
    /// 5.0: what to do with retained messages.
    pub retain_handling: RetainHandling,
}

impl<'a> Subscription<'a> {
    /// All other options at their defaults.
    pub const fn new(filter: &'a str, qos: QoS) -> Subscription<'a> {
        Subscription {
            filter,
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Send,
        }
    }

    fn read(r: &mut Reader<'a>, version: Version) -> Result<Subscription<'a>, DecodeError> {
        let filter = r.string()?;
        let options = r.u8()?;
        // [MQTT-3.8.3-5]; before 5.0 all but the QoS is reserved ([MQTT-3.8.3-4] of 3.1.1).
        let reserved = if version.is_v5() { 0xc0 } else { 0xfc };
        if options & reserved != 0 {
            return Err(DecodeError::malformed("reserved bits of the subscription options"));
        }
        let qos = QoS::from_u8(options & 3).ok_or(DecodeError::protocol("QoS 3"))?;
        let retain_handling = match options >> 4 {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            _ => return Err(DecodeError::protocol("retain handling 3")),
        };
        let no_local = options & 4 != 0;
        // [MQTT-3.8.3-4]
        if no_local && filter.starts_with("$share/") {
            return Err(DecodeError::protocol("no local on a shared subscription"));
        }
        let retain_as_published = options & 8 != 0;
        Ok(Subscription { filter, qos, no_local, retain_as_published, retain_handling })
    }

    fn write(&self, version: Version, sink: &mut impl Sink) -> Result<(), EncodeError> {
        put_binary(sink, self.filter.as_bytes())?;
        if !version.is_v5() {
            return sink.put(&[self.qos as u8]);
        }
        sink.put(&[self.qos as u8
            | u8::from(self.no_local) << 2
            | u8::from(self.retain_as_published) << 3
            | (self.retain_handling as u8) << 4])
    }
}

/// The list of a SUBSCRIBE: the wire's bytes when decoded, a slice when built by the caller.
#[derive(Clone, Copy)]
pub struct Filters<'a>(FiltersRepr<'a>);

#[derive(Clone, Copy)]
enum FiltersRepr<'a> {
    Raw(Version, &'a [u8]),
    List(&'a [Subscription<'a>]),
}

impl<'a> Filters<'a> {
    /// For a packet to encode.
    pub const fn new(list: &'a [Subscription<'a>]) -> Filters<'a> {
        Filters(FiltersRepr::List(list))
    }

    /// In the order of the packet.
    pub const fn iter(&self) -> FiltersIter<'a> {
        match self.0 {
            FiltersRepr::Raw(version, raw) => {
                FiltersIter { version, raw: Reader::new(raw), list: &[] }
            }
            FiltersRepr::List(list) => {
                FiltersIter { version: Version::V5, raw: Reader::new(&[]), list }
            }
        }
    }
}

/// Iterates over [`Filters`].
pub struct FiltersIter<'a> {
    version: Version,
    raw: Reader<'a>,
    list: &'a [Subscription<'a>],
}

impl<'a> Iterator for FiltersIter<'a> {
    type Item = Subscription<'a>;

    fn next(&mut self) -> Option<Subscription<'a>> {
        if let Some((first, rest)) = self.list.split_first() {
            self.list = rest;
            return Some(*first);
        }
        if self.raw.is_empty() {
            return None;
        }
        Subscription::read(&mut self.raw, self.version).ok()
    }
}

/// The list of an UNSUBSCRIBE: the wire's bytes when decoded, a slice when built by the caller.
#[derive(Clone, Copy)]
pub struct Topics<'a>(TopicsRepr<'a>);

#[derive(Clone, Copy)]
enum TopicsRepr<'a> {
    Raw(&'a [u8]),
    List(&'a [&'a str]),
}

impl<'a> Topics<'a> {
    /// For a packet to encode.
    pub const fn new(list: &'a [&'a str]) -> Topics<'a> {
        Topics(TopicsRepr::List(list))
    }

    /// In the order of the packet.
    pub const fn iter(&self) -> TopicsIter<'a> {
        match self.0 {
            TopicsRepr::Raw(raw) => TopicsIter { raw: Reader::new(raw), list: &[] },
            TopicsRepr::List(list) => TopicsIter { raw: Reader::new(&[]), list },
        }
    }
}

/// Iterates over [`Topics`].
pub struct TopicsIter<'a> {
    raw: Reader<'a>,
    list: &'a [&'a str],
}

impl<'a> Iterator for TopicsIter<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        if let Some((first, rest)) = self.list.split_first() {
            self.list = rest;
            return Some(first);
        }
        if self.raw.is_empty() {
            return None;
        }
        self.raw.string().ok()
    }
}

macro_rules! list_impls {
    ($list:ident, $iter:ident, $item:ty) => {
        impl<'a> IntoIterator for $list<'a> {
            type Item = $item;
            type IntoIter = $iter<'a>;

            fn into_iter(self) -> $iter<'a> {
                self.iter()
            }
        }

        impl fmt::Debug for $list<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_list().entries(self.iter()).finish()
            }
        }

        /// Equal when the same items stand in the same order.
        impl PartialEq for $list<'_> {
            fn eq(&self, other: &Self) -> bool {
                self.iter().eq(other.iter())
            }
        }

        impl Eq for $list<'_> {}
    };
}

list_impls!(Filters, FiltersIter, Subscription<'a>);
list_impls!(Topics, TopicsIter, &'a str);

/// A client's wish for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// Comes back in SUBACK.
    pub packet_id: PacketId,
    /// 5.0 only.
    pub properties: Properties<'a>,
    /// At least one.
    pub filters: Filters<'a>,
}

impl<'a> Subscribe<'a> {
    pub(crate) fn decode(version: Version, body: &'a [u8]) -> Result<Subscribe<'a>, DecodeError> {
        let r = &mut Reader::new(body);
        let packet_id = r.packet_id()?;
        let properties = Properties::decode(r, version, SUBSCRIBE)?;
        let raw = r.rest();
        // [MQTT-3.8.3-2]
        if raw.is_empty() {
            return Err(DecodeError::protocol("a SUBSCRIBE without a topic filter"));
        }
        let check = &mut Reader::new(raw);
        while !check.is_empty() {
            Subscription::read(check, version)?;
        }
        Ok(Subscribe { packet_id, properties, filters: Filters(FiltersRepr::Raw(version, raw)) })
    }

    pub(crate) fn encode_body(
        &self,
        version: Version,
        sink: &mut impl Sink,
    ) -> Result<(), EncodeError> {
        sink.put(&self.packet_id.get().to_be_bytes())?;
        self.properties.encode(version, sink)?;
        self.filters.iter().try_for_each(|subscription| subscription.write(version, sink))
    }
}

/// A client's end of interest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// Comes back in UNSUBACK.
    pub packet_id: PacketId,
    /// 5.0 only.
    pub properties: Properties<'a>,
    /// At least one topic filter.
    pub filters: Topics<'a>,
}

impl<'a> Unsubscribe<'a> {
    pub(crate) fn decode(version: Version, body: &'a [u8]) -> Result<Unsubscribe<'a>, DecodeError> {
        let r = &mut Reader::new(body);
        let packet_id = r.packet_id()?;
        let properties = Properties::decode(r, version, UNSUBSCRIBE)?;
        let raw = r.rest();
        // [MQTT-3.10.3-2]
        if raw.is_empty() {
            return Err(DecodeError::protocol("an UNSUBSCRIBE without a topic filter"));
        }
        let check = &mut Reader::new(raw);
        while !check.is_empty() {
            check.string()?;
        }
        Ok(Unsubscribe { packet_id, properties, filters: Topics(TopicsRepr::Raw(raw)) })
    }

    pub(crate) fn encode_body(
        &self,
        version: Version,
        sink: &mut impl Sink,
    ) -> Result<(), EncodeError> {
        sink.put(&self.packet_id.get().to_be_bytes())?;
        self.properties.encode(version, sink)?;
        self.filters.iter().try_for_each(|filter| put_binary(sink, filter.as_bytes()))
    }
}

/// A list of reason codes, one byte each.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Codes<'a>(&'a [u8]);

impl<'a> Codes<'a> {
    /// For a packet to encode: bytes of [`ReasonCode`]s.
    pub const fn new(bytes: &'a [u8]) -> Codes<'a> {
        Codes(bytes)
    }

    /// The bytes as on the wire.
    pub const fn bytes(&self) -> &'a [u8] {
        self.0
    }

    /// In the order of the filters that they answer.
    pub fn iter(&self) -> impl Iterator<Item = ReasonCode> + 'a {
        self.0.iter().filter_map(|&code| ReasonCode::from_u8(code))
    }
}

impl fmt::Debug for Codes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// The answer to SUBSCRIBE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubAck<'a> {
    /// Of the SUBSCRIBE.
    pub packet_id: PacketId,
    /// 5.0 only.
    pub properties: Properties<'a>,
    /// One for each filter; in 3.1.1 every failure is 0x80, in 3.1 there is no failure.
    pub codes: Codes<'a>,
}

/// The answer to UNSUBSCRIBE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnsubAck<'a> {
    /// Of the UNSUBSCRIBE.
    pub packet_id: PacketId,
    /// 5.0 only.
    pub properties: Properties<'a>,
    /// 5.0 only: one for each filter.
    pub codes: Codes<'a>,
}

impl<'a> SubAck<'a> {
    pub(crate) fn decode(version: Version, body: &'a [u8]) -> Result<SubAck<'a>, DecodeError> {
        let (packet_id, properties, codes) = decode_ack(version, body)?;
        let known = |&code: &u8| match version {
            // [MQTT-3.9.3-1]
            Version::V5 => ReasonCode::decode(code, PacketType::SubAck).is_ok(),
            // [MQTT-3.9.3-2] of 3.1.1
            Version::V3_1 | Version::V3_1_1 => matches!(code, 0..=2 | 0x80),
        };
        if !codes.iter().all(known) {
            return Err(DecodeError::malformed("a reason code that this packet does not have"));
        }
        if codes.is_empty() {
            return Err(DecodeError::malformed("a SUBACK without reason codes"));
        }
        Ok(SubAck { packet_id, properties, codes: Codes(codes) })
    }

    pub(crate) fn encode_body(
        &self,
        version: Version,
        sink: &mut impl Sink,
    ) -> Result<(), EncodeError> {
        sink.put(&self.packet_id.get().to_be_bytes())?;
        self.properties.encode(version, sink)?;
        if version.is_v5() {
            return sink.put(self.codes.0);
        }
        // [MQTT-3.9.3-2] of 3.1.1: 0, 1, 2 or 0x80.
        self.codes.0.iter().try_for_each(|&code| sink.put(&[code.min(0x80)]))
    }
}

impl<'a> UnsubAck<'a> {
    pub(crate) fn decode(version: Version, body: &'a [u8]) -> Result<UnsubAck<'a>, DecodeError> {
        let (packet_id, properties, codes) = decode_ack(version, body)?;
        // [MQTT-3.11.3-2]
        for &code in codes {
            ReasonCode::decode(code, PacketType::UnsubAck)?;
        }
        if codes.is_empty() == version.is_v5() {
            return Err(DecodeError::malformed("reason codes of an UNSUBACK"));
        }
        Ok(UnsubAck { packet_id, properties, codes: Codes(codes) })
    }

    pub(crate) fn encode_body(
        &self,
        version: Version,
        sink: &mut impl Sink,
    ) -> Result<(), EncodeError> {
        sink.put(&self.packet_id.get().to_be_bytes())?;
        self.properties.encode(version, sink)?;
        if version.is_v5() { sink.put(self.codes.0) } else { Ok(()) }
    }
}

fn decode_ack(
    version: Version,
    body: &[u8],
) -> Result<(PacketId, Properties<'_>, &[u8]), DecodeError> {
    let r = &mut Reader::new(body);
    let packet_id = r.packet_id()?;
    let properties = Properties::decode(r, version, ACK)?;
    Ok((packet_id, properties, r.rest()))
}
