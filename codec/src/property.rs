//! Properties of 5.0 (section 2.2.2).

use core::fmt;

use crate::wire::{Counter, Reader, put_binary};
use crate::{DecodeError, EncodeError, ReasonCode, Sink, Version, write_variable_byte_integer};

/// The layouts that a property's value can have.
macro_rules! kind {
    (ty byte, $a:lifetime) => { u8 };
    (ty two, $a:lifetime) => { u16 };
    (ty four, $a:lifetime) => { u32 };
    (ty variable, $a:lifetime) => { u32 };
    (ty string, $a:lifetime) => { &$a str };
    (ty binary, $a:lifetime) => { &$a [u8] };
    (read byte, $r:ident) => { $r.u8()? };
    (read two, $r:ident) => { $r.u16()? };
    (read four, $r:ident) => { $r.u32()? };
    (read variable, $r:ident) => { $r.variable_byte_integer()? };
    (read string, $r:ident) => { $r.string()? };
    (read binary, $r:ident) => { $r.binary()? };
    (write byte, $s:ident, $v:ident) => { $s.put(&[*$v]) };
    (write two, $s:ident, $v:ident) => { $s.put(&$v.to_be_bytes()) };
    (write four, $s:ident, $v:ident) => { $s.put(&$v.to_be_bytes()) };
    (write variable, $s:ident, $v:ident) => {
        match *$v > crate::MAX_REMAINING_LENGTH {
            true => Err(EncodeError::NumberTooLarge),
            false => write_variable_byte_integer($s, *$v),
        }
    };
    (write string, $s:ident, $v:ident) => { put_binary($s, $v.as_bytes()) };
    (write binary, $s:ident, $v:ident) => { put_binary($s, $v) };
}

macro_rules! properties {
    ($($name:ident = $id:literal $kind:ident, $doc:literal;)*) => {
        /// One property. Numbers are as on the wire; names end in their unit where they have one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Property<'a> {
            $(#[doc = $doc] $name(kind!(ty $kind, 'a)),)*
            /// A name and a value; may come any number of times, and order is kept.
            UserProperty(&'a str, &'a str),
        }

        impl<'a> Property<'a> {
            /// The property identifier.
            pub const fn id(&self) -> u8 {
                match self {
                    $(Property::$name(_) => $id,)*
                    Property::UserProperty(..) => 38,
                }
            }

            fn read(r: &mut Reader<'a>) -> Result<Property<'a>, DecodeError> {
                // [MQTT-1.5.5-1] An identifier is a variable byte integer; all are below 128.
                match r.u8()? {
                    $($id => Ok(Property::$name(kind!(read $kind, r))),)*
                    38 => Ok(Property::UserProperty(r.string()?, r.string()?)),
                    _ => Err(DecodeError::malformed("unknown property identifier")),
                }
            }

            fn write(&self, sink: &mut impl Sink) -> Result<(), EncodeError> {
                sink.put(&[self.id()])?;
                match self {
                    $(Property::$name(value) => kind!(write $kind, sink, value),)*
                    Property::UserProperty(name, value) => {
                        put_binary(sink, name.as_bytes())?;
                        put_binary(sink, value.as_bytes())
                    }
                }
            }
        }
    };
}

properties! {
    PayloadFormatIndicator = 1 byte, "0: bytes; 1: UTF-8.";
    MessageExpiryIntervalS = 2 four, "Lifetime of the message, in seconds.";
    ContentType = 3 string, "MIME type or any other agreed name.";
    ResponseTopic = 8 string, "Where a response is expected.";
    CorrelationData = 9 binary, "Which request a response belongs to.";
    SubscriptionIdentifier = 11 variable, "1 to 268,435,455.";
    SessionExpiryIntervalS = 17 four, "Seconds; 0xFFFFFFFF: never.";
    AssignedClientIdentifier = 18 string, "The identifier that the server chose.";
    ServerKeepAliveS = 19 two, "Seconds, instead of the client's.";
    AuthenticationMethod = 21 string, "Name of the authentication method.";
    AuthenticationData = 22 binary, "Defined by the method.";
    RequestProblemInformation = 23 byte, "0: no reason strings except where needed.";
    WillDelayIntervalS = 24 four, "Seconds before the will message is published.";
    RequestResponseInformation = 25 byte, "1: please send response information.";
    ResponseInformation = 26 string, "Basis for response topics.";
    ServerReference = 28 string, "Another server to use.";
    ReasonString = 31 string, "For a person's eyes.";
    ReceiveMaximum = 33 two, "QoS 1 and 2 publications in flight, 1 or more.";
    TopicAliasMaximum = 34 two, "Highest topic alias accepted; 0: none.";
    TopicAlias = 35 two, "1 or more.";
    MaximumQos = 36 byte, "0 or 1.";
    RetainAvailable = 37 byte, "0 or 1.";
    MaximumPacketSizeBytes = 39 four, "Bytes, 1 or more.";
    WildcardSubscriptionAvailable = 40 byte, "0 or 1.";
    SubscriptionIdentifierAvailable = 41 byte, "0 or 1.";
    SharedSubscriptionAvailable = 42 byte, "0 or 1.";
}

impl Property<'_> {
    /// The rules on single values that sections 3.1 to 3.15 give.
    fn check(&self) -> Result<(), DecodeError> {
        match *self {
            Property::PayloadFormatIndicator(v)
            | Property::RequestProblemInformation(v)
            | Property::RequestResponseInformation(v)
            | Property::MaximumQos(v)
            | Property::RetainAvailable(v)
            | Property::WildcardSubscriptionAvailable(v)
            | Property::SubscriptionIdentifierAvailable(v)
            | Property::SharedSubscriptionAvailable(v)
                if v > 1 =>
            {
                Err(DecodeError::protocol("a property must be 0 or 1"))
            }
            Property::ReceiveMaximum(0) => Err(DecodeError::protocol("receive maximum 0")),
            Property::MaximumPacketSizeBytes(0) => {
                Err(DecodeError::protocol("maximum packet size 0"))
            }
            // [MQTT-3.3.2-8]
            Property::TopicAlias(0) => {
                Err(DecodeError::new(ReasonCode::TopicAliasInvalid, "topic alias 0"))
            }
            // [MQTT-3.3.2-14]
            Property::ResponseTopic(topic)
                if topic.is_empty() || topic.bytes().any(|b| b == b'+' || b == b'#') =>
            {
                Err(DecodeError::protocol("a response topic is empty or has a wildcard"))
            }
            Property::SubscriptionIdentifier(0) => {
                Err(DecodeError::protocol("subscription identifier 0"))
            }
            _ => Ok(()),
        }
    }
}

/// Which properties a packet may carry, as a set of identifiers.
#[derive(Clone, Copy)]
pub(crate) struct Allowed {
    pub(crate) ids: u64,
    pub(crate) repeated: u64,
}

impl Allowed {
    pub(crate) const fn new(ids: &[u8]) -> Allowed {
        let mut set = 1 << 38;
        let mut i = 0;
        while i < ids.len() {
            set |= 1 << ids[i];
            i += 1;
        }
        Allowed { ids: set, repeated: 1 << 38 }
    }

    pub(crate) const fn repeating(mut self, id: u8) -> Allowed {
        self.repeated |= 1 << id;
        self
    }
}

/// The properties of one packet: the wire's bytes when decoded, a slice when built by the caller.
#[derive(Clone, Copy)]
pub struct Properties<'a>(Repr<'a>);

#[derive(Clone, Copy)]
enum Repr<'a> {
    /// Checked when decoded.
    Raw(&'a [u8]),
    List(&'a [Property<'a>]),
}

impl<'a> Properties<'a> {
    /// No properties.
    pub const NONE: Properties<'static> = Properties(Repr::Raw(&[]));

    /// Properties for a packet to encode.
    pub const fn new(list: &'a [Property<'a>]) -> Properties<'a> {
        Properties(Repr::List(list))
    }

    /// Properties as [`Properties::raw`] gave them. Bytes that are not properties end the
    /// iteration early; nothing worse.
    pub const fn from_raw(raw: &'a [u8]) -> Properties<'a> {
        Properties(Repr::Raw(raw))
    }

    /// The wire's bytes without the length before them; none for a list.
    pub const fn raw(&self) -> Option<&'a [u8]> {
        match self.0 {
            Repr::Raw(raw) => Some(raw),
            Repr::List(_) => None,
        }
    }

    /// In the order of the packet.
    pub const fn iter(&self) -> PropertiesIter<'a> {
        match self.0 {
            Repr::Raw(raw) => PropertiesIter { raw: Reader::new(raw), list: &[] },
            Repr::List(list) => PropertiesIter { raw: Reader::new(&[]), list },
        }
    }

    /// Writes the properties that `keep` chooses as they stand on the wire, in order, without the
    /// length before them: what [`Properties::from_raw`] takes.
    pub fn write_raw(
        &self,
        sink: &mut impl Sink,
        keep: impl Fn(&Property<'_>) -> bool,
    ) -> Result<(), EncodeError> {
        self.iter().filter(|property| keep(property)).try_for_each(|p| p.write(sink))
    }

    /// True where there is none.
    pub const fn is_empty(&self) -> bool {
        match self.0 {
            Repr::Raw(raw) => raw.is_empty(),
            Repr::List(list) => list.is_empty(),
        }
    }

    pub(crate) fn decode(
        r: &mut Reader<'a>,
        version: Version,
        allowed: Allowed,
    ) -> Result<Properties<'a>, DecodeError> {
        if !version.is_v5() {
            return Ok(Properties::NONE);
        }
        let len = r.variable_byte_integer()?;
        let raw = r.take(len as usize)?;
        let mut reader = Reader::new(raw);
        let mut seen = 0u64;
        while !reader.is_empty() {
            let property = Property::read(&mut reader)?;
            let bit = 1 << property.id();
            if allowed.ids & bit == 0 {
                return Err(DecodeError::malformed("a property does not belong in this packet"));
            }
            if seen & bit & !allowed.repeated != 0 {
                return Err(DecodeError::protocol("a property stands twice"));
            }
            seen |= bit;
            property.check()?;
        }
        // Section 3.1.2.11.10: data without a method cannot be understood.
        if seen & (1 << 22) != 0 && seen & (1 << 21) == 0 {
            return Err(DecodeError::protocol("authentication data without a method"));
        }
        Ok(Properties(Repr::Raw(raw)))
    }

    fn write_all(&self, sink: &mut impl Sink) -> Result<(), EncodeError> {
        match self.0 {
            Repr::Raw(raw) => sink.put(raw),
            Repr::List(list) => list.iter().try_for_each(|property| property.write(sink)),
        }
    }

    pub(crate) fn encode(&self, version: Version, sink: &mut impl Sink) -> Result<(), EncodeError> {
        if !version.is_v5() {
            return Ok(());
        }
        let mut len = Counter::default();
        self.write_all(&mut len)?;
        let len = u32::try_from(len.0).map_err(|_| EncodeError::PacketTooLong)?;
        write_variable_byte_integer(sink, len)?;
        self.write_all(sink)
    }
}

impl<'a> IntoIterator for Properties<'a> {
    type Item = Property<'a>;
    type IntoIter = PropertiesIter<'a>;

    fn into_iter(self) -> PropertiesIter<'a> {
        self.iter()
    }
}

impl Default for Properties<'_> {
    fn default() -> Self {
        Properties::NONE
    }
}

impl fmt::Debug for Properties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Equal when the same properties stand in the same order.
impl PartialEq for Properties<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Properties<'_> {}

/// Iterates over [`Properties`].
pub struct PropertiesIter<'a> {
    raw: Reader<'a>,
    list: &'a [Property<'a>],
}

impl<'a> Iterator for PropertiesIter<'a> {
    type Item = Property<'a>;

    fn next(&mut self) -> Option<Property<'a>> {
        if let Some((first, rest)) = self.list.split_first() {
            self.list = rest;
            return Some(*first);
        }
        if self.raw.is_empty() {
            return None;
        }
        let property = Property::read(&mut self.raw).ok();
        if property.is_none() {
            self.raw.rest();
        }
        property
    }
}
