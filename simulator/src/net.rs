//! Network connections: two streams of bytes that are slow, stall, and break.

use std::collections::VecDeque;

use whimbrel_broker_core::ConnId;

/// Bytes that a socket takes before it blocks.
pub const SOCKET_BYTES: usize = 8192;

/// A network connection.
#[derive(Debug)]
pub struct Link {
    /// Index of the client.
    pub client: usize,
    /// Where the broker has it.
    pub shard: u16,
    /// What the shard calls it; none: it is on its way there, or closed.
    pub conn: Option<ConnId>,
    /// What is to be handed over with it.
    pub moved: Option<Vec<u8>>,
    /// From the client to the broker.
    pub up: VecDeque<u8>,
    /// From the broker to the client.
    pub down: VecDeque<u8>,
    /// The client's end is open.
    pub client_open: bool,
    /// The broker's end is open, or is to be opened.
    pub broker_open: bool,
    /// Nothing follows what is in `up`.
    pub up_ends: bool,
    /// The end is not seen before this time.
    pub up_ends_after_ms: u64,
    /// The broker gets nothing before this time.
    pub up_stalled_until_ms: u64,
    /// The client gets nothing before this time.
    pub down_stalled_until_ms: u64,
    /// The broker does not read.
    pub paused: bool,
    /// The broker waits until the socket takes more.
    pub blocked: bool,
    /// The broker has said that the client is connected.
    pub connected: bool,
    /// Session expiry of the DISCONNECT that the client has sent last.
    pub disconnect_expiry_s: Option<u32>,
}

impl Link {
    /// A connection to this shard, which has not accepted it.
    pub fn new(client: usize, shard: u16) -> Link {
        Link {
            client,
            shard,
            conn: None,
            moved: Some(Vec::new()),
            up: VecDeque::new(),
            down: VecDeque::new(),
            client_open: true,
            broker_open: true,
            up_ends: false,
            up_ends_after_ms: 0,
            up_stalled_until_ms: 0,
            down_stalled_until_ms: 0,
            paused: false,
            blocked: false,
            connected: false,
            disconnect_expiry_s: None,
        }
    }

    /// Nobody needs it any more.
    pub fn is_gone(&self) -> bool {
        !self.client_open && !self.broker_open
    }
}
