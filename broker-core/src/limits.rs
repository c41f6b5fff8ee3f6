//! Every limit of the core, in one place.

use crate::quota::Limit;

/// What may be chosen; all of it is bounded. Lengths are in bytes, times in seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// A connection that has not sent a whole CONNECT by then is closed.
    pub connect_timeout_s: u16,
    /// Most bytes that a CONNECT packet may have.
    pub max_connect_size_bytes: u32,
    /// Connections that have not sent a whole CONNECT, of the whole broker; beyond it the oldest of
    /// them are closed.
    pub max_pending_connections: u32,
    /// Most bytes that a packet from a client may have; told to 5.0 clients.
    pub max_packet_size_bytes: u32,
    /// Most connections of the whole broker; those beyond are refused with 0x89.
    pub max_connections: u32,
    /// QoS 2 messages that a client may have in flight towards the broker; told to 5.0 clients.
    pub receive_maximum: u16,
    /// Deliveries of QoS 1 and 2 that the broker has in flight to one client, whose own receive
    /// maximum may be lower.
    pub max_inflight: u16,
    /// Topic aliases that a client may set; told to 5.0 clients. 0: none.
    pub topic_alias_maximum: u16,
    /// A longer keep alive (or none at all) is replaced by this one, which 5.0 clients are told.
    /// 0: whatever the client wants.
    pub max_keep_alive_s: u16,
    /// A longer session expiry is cut to this. 0xFFFFFFFF: no limit.
    pub max_session_expiry_s: u32,
    /// Longest client identifier that is accepted.
    pub max_client_id_bytes: u16,
    /// Subscriptions that one session may have; those beyond are refused with 0x97.
    pub max_subscriptions: u32,
    /// Levels that a topic name or topic filter may have.
    pub max_topic_levels: u16,
    /// Messages of QoS 1 and 2 that wait for one session; those beyond are dropped and counted.
    pub max_queued_messages: u32,
    /// Bytes of messages that wait for one session.
    pub max_queued_bytes: u64,
    /// Bytes of messages that wait for one session in memory; those beyond are in the store only,
    /// if there is one.
    pub max_queue_memory_bytes: u64,
    /// Bytes that wait to be sent on one connection. Beyond it QoS 0 is dropped and counted, QoS 1
    /// and 2 wait in the queue.
    pub max_output_bytes: u32,
    /// A connection that takes nothing of what waits for it is closed after this time, and after
    /// half as long again at the latest. 0: never.
    pub max_blocked_s: u16,
    /// Retained messages of the whole broker; those beyond are not retained.
    pub max_retained_messages: u64,
    /// Memory for messages, buffers and subscriptions of the whole broker. Near it new connections
    /// are refused, then QoS 0 to slow readers is dropped, large packets that have not come whole
    /// are refused, nothing more is queued, and publishers are slowed; a tenth beyond it the
    /// connections with the largest buffers are closed.
    pub memory_budget_bytes: u64,
    /// Logins of one user that fail from one address within [`Config::failed_logins_window_s`]
    /// before they are refused for [`Config::ban_s`] without being looked at. 0: any number.
    pub max_failed_logins: u16,
    /// Logins that fail from one address, whoever tries, before it may not even connect for that
    /// long. 0: any number.
    pub max_failed_logins_per_address: u16,
    /// The time in which failed logins are counted.
    pub failed_logins_window_s: u16,
    /// CONNECTs of one client from one address within [`Config::reconnects_window_s`] before it is
    /// refused for [`Config::ban_s`]. 0: any number.
    pub max_reconnects: u16,
    /// The time in which they are counted.
    pub reconnects_window_s: u16,
    /// How long a ban lasts.
    pub ban_s: u16,
    /// Whether clients on this machine are banned as well.
    pub ban_loopback: bool,
    /// Tables of limits for some clients; the first that fits decides.
    pub limits: Vec<Limit>,
    /// What `$SYS` shows is published this often. 0: never.
    pub sys_interval_s: u16,
    /// Whether `$SYS/clients/<client id>/state` tells who is connected.
    pub client_state_messages: bool,
    /// The response information given to those who ask for it is this, `/` and the client id.
    /// Empty: none.
    pub response_information: String,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            connect_timeout_s: 10,
            max_connect_size_bytes: 256 * 1024,
            max_pending_connections: 20_000,
            max_packet_size_bytes: 16 * 1024 * 1024,
            max_connections: 10_000_000,
            receive_maximum: 1024,
            max_inflight: 1024,
            topic_alias_maximum: 32,
            max_keep_alive_s: 0,
            max_session_expiry_s: u32::MAX,
            max_client_id_bytes: 65_535,
            max_subscriptions: 100_000,
            max_topic_levels: 512,
            max_queued_messages: 1_000_000,
            max_queued_bytes: 1024 * 1024 * 1024,
            max_queue_memory_bytes: 256 * 1024,
            max_output_bytes: 4 * 1024 * 1024,
            max_blocked_s: 60,
            max_retained_messages: 100_000_000,
            memory_budget_bytes: 8 * 1024 * 1024 * 1024,
            max_failed_logins: 5,
            max_failed_logins_per_address: 20,
            failed_logins_window_s: 60,
            max_reconnects: 100,
            reconnects_window_s: 60,
            ban_s: 60,
            ban_loopback: false,
            limits: Vec::new(),
            sys_interval_s: 10,
            client_state_messages: false,
            response_information: String::from("response"),
        }
    }
}
