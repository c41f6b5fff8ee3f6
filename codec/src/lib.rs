//! Bytes to MQTT control packets and back, for versions 3.1, 3.1.1 and 5.0.
//!
//! Packets are borrowed views over the bytes they were decoded from: nothing is copied and nothing
//! is allocated, so the same code serves a microcontroller and a broker. The same types are
//! encoded, with slices of the caller in place of the wire's bytes.
//!
//! ```
//! use whimbrel_codec::*;
//!
//! let publish = Publish::new("boiler/temperature", b"64.5");
//! let mut bytes = Vec::new();
//! Packet::Publish(publish).encode(Version::V5, &mut bytes).unwrap();
//!
//! let frame = Frame::parse(&bytes, u32::MAX).unwrap().unwrap();
//! let packet = Packet::decode(Version::V5, &frame, &bytes).unwrap();
//! assert!(matches!(packet, Packet::Publish(p) if p.payload == b"64.5"));
//! ```
//!
//! Decoding checks all that a packet can be checked for by itself; what depends on the state of a
//! connection (a second CONNECT, an unknown alias) is for `whimbrel-protocol` and those above.
#![no_std]

#[cfg(any(feature = "alloc", test))]
extern crate alloc;

mod ack;
mod connack;
mod connect;
mod disconnect;
mod frame;
mod packet;
mod property;
mod publish;
mod reason;
mod subscribe;
mod types;
mod wire;

pub use ack::Ack;
pub use connack::ConnAck;
pub use connect::{Connect, Will};
pub use disconnect::{Auth, Disconnect};
pub use frame::{Frame, PacketType};
pub use packet::Packet;
pub use property::{Properties, PropertiesIter, Property};
pub use publish::Publish;
pub use reason::ReasonCode;
pub use subscribe::{
    Codes, Filters, FiltersIter, RetainHandling, SubAck, Subscribe, Subscription, Topics,
    TopicsIter, UnsubAck, Unsubscribe,
};
pub use types::{DecodeError, EncodeError, PacketId, QoS, Version};
pub use wire::{Sink, SliceSink, variable_byte_integer_len, write_variable_byte_integer};

/// The largest remaining length that the wire can carry (section 1.5.5 of 5.0).
pub const MAX_REMAINING_LENGTH: u32 = 268_435_455;
