//! A network connection: what does not outlive it.

use core::net::SocketAddr;
use std::collections::VecDeque;
use std::sync::Arc;

use whimbrel_auth::{Exchange, Proof};
use whimbrel_codec::Version;
use whimbrel_protocol::{IncomingAliases, OutgoingAlias, OutgoingAliases};
use whimbrel_topics::Cursor;

use crate::Millis;
use crate::access::AllowedCache;
use crate::output::Output;
use crate::quota::Quota;

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// `tcp`, `websocket`, `unix`, ...
    pub transport: &'static str,
    /// None for a Unix socket.
    pub address: Option<SocketAddr>,
    /// Index of the listener, in the order of the configuration.
    pub listener: u16,
}

impl Peer {
    /// A peer without a socket, as tests and simulators have it.
    pub const MEMORY: Peer = Peer { transport: "memory", address: None, listener: 0 };
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing but CONNECT may come.
    AwaitsConnect,
    /// The authenticator has the CONNECT, or the AUTH that followed it.
    Authenticates,
    /// Nothing but AUTH and DISCONNECT may come.
    AwaitsAuth,
    /// CONNECT was accepted.
    Connected,
    /// The runtime was told to close or move it; whatever comes is ignored.
    Ended,
}

/// A network connection. Idle, it owns no buffer.
pub(crate) struct Conn {
    pub(crate) state: State,
    pub(crate) version: Version,
    /// Already in the list of those with something to send.
    pub(crate) dirty: bool,
    /// It is not read until others have caught up.
    pub(crate) paused: bool,
    /// It is not read until its rate allows more.
    pub(crate) throttled: bool,
    /// Its client has a rate to keep.
    pub(crate) metered: bool,
    /// Its timer looks whether the socket takes what waits.
    pub(crate) watched: bool,
    /// How often in a row it was found to have taken nothing.
    pub(crate) stalls: u8,
    /// The client wants reason strings and user properties in every packet.
    pub(crate) problem_information: bool,
    pub(crate) keep_alive_s: u16,
    /// Deliveries in flight at once: the client's receive maximum, or the broker's limit if lower.
    pub(crate) receive_maximum: u16,
    /// The client's; [`u32::MAX`] if it named none.
    pub(crate) max_packet_size: u32,
    /// Most bytes that a packet from it may have.
    pub(crate) max_incoming_size: u32,
    /// Bytes that its socket has taken, as far as they tell whether it has.
    pub(crate) taken: u32,
    /// The same when its timer last looked.
    pub(crate) taken_before: u32,
    /// When that was.
    pub(crate) looked: Millis,
    /// Nothing is sent before what its CONNACK says is durable.
    pub(crate) gated: bool,
    /// What its client does is asked for: it may not do everything.
    pub(crate) limited: bool,
    /// What waits for its client may have been queued under other rights.
    pub(crate) recheck: bool,
    /// Index of its listener.
    pub(crate) listener: u16,
    /// Tells it from those that had its slot before.
    pub(crate) serial: u32,
    /// Packets for it that wait until something is durable.
    pub(crate) held: u32,
    /// Slot of its session, once connected.
    pub(crate) session: u32,
    /// When it was opened, or when the last packet came.
    pub(crate) last_packet: Millis,
    pub(crate) output: Output,
    /// The beginning of a packet whose rest has not come.
    pub(crate) tail: Vec<u8>,
    /// What is counted for it, if it is limited by a table.
    pub(crate) quota: Option<Box<Quota>>,
    /// Until its CONNECT is accepted.
    pub(crate) opening: Option<Box<Opening>>,
    pub(crate) extra: Option<Box<Extra>>,
}

/// What is known of a connection whose CONNECT is not accepted yet.
pub(crate) struct Opening {
    pub(crate) peer: Peer,
    /// No whole CONNECT has come.
    pub(crate) pending: bool,
    /// What the layers below MQTT have shown.
    pub(crate) proof: Option<Arc<Proof>>,
    /// The CONNECT packet, while the authenticator has it.
    pub(crate) connect: Vec<u8>,
    /// The client identifier, if the client has none of its own.
    pub(crate) assigned: Option<Box<str>>,
    /// Where the exchange stands that the next AUTH continues.
    pub(crate) exchange: Option<Exchange>,
}

/// Enhanced authentication of a connected client (section 4.12).
pub(crate) struct Enhanced {
    pub(crate) method: Box<str>,
    pub(crate) peer: Peer,
    pub(crate) proof: Option<Arc<Proof>>,
    /// Where the re-authentication stands that the next AUTH continues.
    pub(crate) exchange: Option<Exchange>,
    /// The authenticator has an AUTH.
    pub(crate) asks: bool,
}

/// What few connections have.
#[derive(Default)]
pub(crate) struct Extra {
    pub(crate) enhanced: Option<Box<Enhanced>>,
    /// What its client was found to be allowed, or not, of late.
    pub(crate) allowed: Option<Box<AllowedCache>>,
    pub(crate) incoming_aliases: IncomingAliases,
    pub(crate) outgoing_aliases: Option<OutgoingAliases>,
    /// Retained messages that are still to be sent, a subscription after the other.
    pub(crate) retained: VecDeque<RetainedScan>,
    /// They are looked for again in the next tick.
    pub(crate) searching: bool,
}

impl Extra {
    pub(crate) fn is_empty(&self) -> bool {
        self.enhanced.is_none()
            && self.allowed.is_none()
            && self.outgoing_aliases.is_none()
            && self.incoming_aliases.is_empty()
            && self.retained.is_empty()
    }
}

/// The retained messages for a new subscription.
pub(crate) struct RetainedScan {
    pub(crate) filter: Box<str>,
    pub(crate) cursor: Cursor,
    pub(crate) qos: u8,
    pub(crate) id: u32,
}

/// No session has this slot.
pub(crate) const NO_SESSION: u32 = u32::MAX;

impl Conn {
    /// `max_connect_size`: most bytes that its CONNECT may have.
    pub(crate) fn new(now: Millis, serial: u32, peer: Peer, max_connect_size: u32) -> Conn {
        Conn {
            state: State::AwaitsConnect,
            version: Version::V3_1_1,
            dirty: false,
            paused: false,
            throttled: false,
            metered: false,
            watched: false,
            stalls: 0,
            problem_information: true,
            keep_alive_s: 0,
            receive_maximum: u16::MAX,
            max_packet_size: u32::MAX,
            max_incoming_size: max_connect_size,
            taken: 0,
            taken_before: 0,
            looked: now,
            gated: false,
            limited: false,
            recheck: false,
            listener: peer.listener,
            serial,
            held: 0,
            session: NO_SESSION,
            last_packet: now,
            output: Output::default(),
            tail: Vec::new(),
            quota: None,
            opening: Some(Box::new(Opening {
                peer,
                pending: true,
                proof: None,
                connect: Vec::new(),
                assigned: None,
                exchange: None,
            })),
            extra: None,
        }
    }

    pub(crate) fn extra(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    #[inline]
    pub(crate) fn sends_aliases(&self) -> bool {
        self.extra.as_ref().is_some_and(|extra| extra.outgoing_aliases.is_some())
    }

    pub(crate) fn choose_alias(&mut self, topic: &str) -> OutgoingAlias {
        match self.extra.as_mut().and_then(|extra| extra.outgoing_aliases.as_mut()) {
            Some(aliases) => aliases.choose(topic),
            None => OutgoingAlias::None,
        }
    }
}
