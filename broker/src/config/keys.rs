//! Every key but the listeners: its name, its meaning, and how to read and show it.

use std::ops::RangeInclusive;

use toml::de::DeValue;

use super::{Config, Durability, LogFormat, LogLevel};

/// A key of the configuration.
pub struct Key {
    /// Its path in the file, such as `limits.max_packet_size_bytes`.
    pub path: &'static str,
    /// What it means.
    pub doc: &'static str,
    /// Whether a running broker takes a new value when it gets SIGHUP.
    pub live: bool,
    /// Whether its flag may stand without a value.
    pub is_switch: bool,
    pub(super) set: fn(&mut Config, &Input<'_>) -> Result<(), String>,
    show: fn(&Config) -> Option<String>,
}

impl Key {
    /// Its environment variable: `limits.` is left out, since names of limits are unique.
    pub fn variable(&self) -> String {
        format!("WHIMBREL_{}", self.short().to_uppercase().replace('.', "_"))
    }

    /// Its flag, without the dashes.
    pub fn flag(&self) -> String {
        self.short().replace(['.', '_'], "-")
    }

    /// Its value in `config`, as in the file; none if it was not written down.
    pub fn shown(&self, config: &Config) -> Option<String> {
        (self.show)(config)
    }

    fn short(&self) -> &'static str {
        self.path.strip_prefix("limits.").unwrap_or(self.path)
    }

    pub(super) fn section(&self) -> Option<&'static str> {
        self.path.split_once('.').map(|(section, _)| section)
    }

    pub(super) fn name(&self) -> &'static str {
        self.path.rsplit_once('.').map_or(self.path, |(_, name)| name)
    }
}

/// A value as it was written.
pub(super) enum Input<'a> {
    /// In an environment variable or a flag.
    Text(&'a str),
    /// In the file.
    Toml(&'a DeValue<'a>),
}

/// A type that a key can have.
trait Value: Sized {
    fn read(input: &Input<'_>, range: RangeInclusive<u64>) -> Result<Self, String>;
    fn show(&self) -> Option<String>;
}

macro_rules! keys {
    ($($path:literal, $live:literal, $type:ty, $range:expr, $($field:ident).+, $doc:literal;)*) => {
        /// Every key but the listeners, in the order in which they are shown.
        pub const KEYS: &[Key] = &[$(Key {
            path: $path,
            doc: $doc,
            live: $live,
            is_switch: <$type>::IS_SWITCH,
            set: |config, input| {
                config.$($field).+ = <$type as Value>::read(input, $range)?;
                Ok(())
            },
            show: |config| Value::show(&config.$($field).+),
        }),*];
    };
}

/// Whether the flag of such a key may stand without a value.
trait Switch {
    const IS_SWITCH: bool = false;
}
impl Switch for u16 {}
impl Switch for u32 {}
impl Switch for u64 {}
impl Switch for String {}
impl Switch for LogLevel {}
impl Switch for LogFormat {}
impl Switch for Durability {}
impl Switch for bool {
    const IS_SWITCH: bool = true;
}
impl Switch for Option<bool> {
    const IS_SWITCH: bool = true;
}

/// The longest packet that MQTT can express.
pub(super) const LONGEST: u64 = 268_435_460;
pub(super) const U16: u64 = u16::MAX as u64;
pub(super) const U32: u64 = u32::MAX as u64;
/// The largest number of the file's format.
pub(super) const U63: u64 = i64::MAX as u64;

keys! {
    "allow_anonymous", true, Option<bool>, 0..=0, allow_anonymous,
        "Whether clients that show nothing may connect. Unless given, they may on loopback as long \
         as no way of authentication is configured, and nowhere else.";
    "password_file", true, String, 0..=0, password_file,
        "File of users and passwords, made with `whimbrel passwd`; those of Mosquitto are read \
         too. Empty: none.";
    "rules_file", true, String, 0..=0, rules_file,
        "File of rules that say who may publish and subscribe to what. Empty: everybody to \
         everything.";
    "acl_file", true, String, 0..=0, acl_file,
        "The same in Mosquitto's format.";
    "http_ca_file", true, String, 0..=0, http_ca_file,
        "Authorities, in PEM, of those who are asked over https: issuers of tokens and the service \
         of [http]. Empty: those of the system.";
    "shards", false, u16, 0..=whimbrel_topics::MAX_SHARDS as u64, shards,
        "Threads that serve clients. 0: one per core.";
    "data_dir", false, String, 0..=0, data_dir,
        "Directory in which sessions, queued and retained messages survive any stop. Empty: all is \
         in memory only.";
    "control_socket", false, String, 0..=0, control_socket,
        "Unix socket on which the broker answers `whimbrel explain --control` and other questions \
         of an operator; only its own user may connect. Empty: none.";
    "durability", false, Durability, 0..=0, durability,
        "What an acknowledgement promises with a data_dir: fsync (it survives a power cut), os (it \
         survives the end of the process) or memory (nothing).";
    "sys_interval_s", true, u16, 0..=U16, core.sys_interval_s,
        "Seconds between updates of the `$SYS` topics. 0: never.";
    "client_state_messages", true, bool, 0..=0, core.client_state_messages,
        "Whether `$SYS/clients/<client id>/state` tells who is connected.";
    "response_information", true, String, 0..=0, core.response_information,
        "Clients that ask for response information get this, `/` and their client identifier. \
         Empty: none.";
    "log.level", true, LogLevel, 0..=0, log_level,
        "How much is logged: off, error, warn, info or debug. RUST_LOG goes before it.";
    "log.format", false, LogFormat, 0..=0, log_format,
        "How a line of the log looks: text or json.";
    "limits.connect_timeout_s", true, u16, 1..=U16, core.connect_timeout_s,
        "Seconds in which a connection must send its CONNECT.";
    "limits.max_connect_size_bytes", true, u32, 64..=LONGEST, core.max_connect_size_bytes,
        "Most bytes that a CONNECT packet may have.";
    "limits.max_packet_size_bytes", true, u32, 64..=LONGEST, core.max_packet_size_bytes,
        "Most bytes that a packet from a client may have.";
    "limits.max_connections", true, u32, 1..=U32, core.max_connections,
        "Most connections; those beyond are refused.";
    "limits.max_pending_connections", true, u32, 1..=U32, core.max_pending_connections,
        "Connections that have not sent CONNECT; beyond it the oldest of them are closed.";
    "limits.receive_maximum", true, u16, 1..=U16, core.receive_maximum,
        "QoS 2 messages that a client may have in flight towards the broker.";
    "limits.max_inflight", true, u16, 1..=U16, core.max_inflight,
        "QoS 1 and 2 messages that the broker has in flight to one client.";
    "limits.topic_alias_maximum", true, u16, 0..=U16, core.topic_alias_maximum,
        "Topic aliases that a client may set. 0: none.";
    "limits.max_keep_alive_s", true, u16, 0..=U16, core.max_keep_alive_s,
        "A longer keep alive, or none at all, is replaced by this. 0: whatever the client wants.";
    "limits.max_session_expiry_s", true, u32, 0..=U32, core.max_session_expiry_s,
        "A longer session expiry is cut to this many seconds. 4294967295: no limit.";
    "limits.max_client_id_bytes", true, u16, 1..=U16, core.max_client_id_bytes,
        "Longest client identifier that is accepted.";
    "limits.max_subscriptions", true, u32, 1..=U32, core.max_subscriptions,
        "Subscriptions that one session may have.";
    "limits.max_topic_levels", true, u16, 1..=U16, core.max_topic_levels,
        "Levels that a topic name or topic filter may have.";
    "limits.max_queued_messages", true, u32, 0..=U32, core.max_queued_messages,
        "QoS 1 and 2 messages that wait for one session; those beyond are dropped.";
    "limits.max_queued_bytes", true, u64, 0..=U63, core.max_queued_bytes,
        "Bytes of messages that wait for one session.";
    "limits.max_queue_memory_bytes", true, u64, 0..=U63, core.max_queue_memory_bytes,
        "Bytes of messages that wait for one session in memory. Beyond it they are in the data_dir \
         only; without one this does not count.";
    "limits.max_output_bytes", true, u32, 1024..=U32, core.max_output_bytes,
        "Bytes that wait to be sent on one connection. Beyond it QoS 0 is dropped, QoS 1 and 2 \
         wait in the queue.";
    "limits.max_blocked_s", true, u16, 0..=U16, core.max_blocked_s,
        "Seconds after which a connection is closed that takes nothing of what waits for it; after \
         half as long again at the latest. 0: never.";
    "limits.max_retained_messages", true, u64, 0..=U63, core.max_retained_messages,
        "Retained messages of the whole broker; those beyond are not retained.";
    "limits.memory_budget_bytes", true, u64, 1024 * 1024..=U63, core.memory_budget_bytes,
        "Memory for messages, buffers and subscriptions; half of the machine's unless given. At 96 % \
         of it new connections are refused, at 97 % QoS 0 to slow readers is dropped, at 98 % large \
         packets that have not come whole are refused, at 99 % nothing more is queued, retained or \
         subscribed to, at 100 % publishers are slowed, and at 110 % the connections with the \
         largest buffers are closed.";
    "limits.max_failed_logins", true, u16, 0..=U16, core.max_failed_logins,
        "Logins of one user name that may fail from one address in failed_logins_window_s before \
         that name is banned from there. 0: any number.";
    "limits.max_failed_logins_per_address", true, u16, 0..=U16,
        core.max_failed_logins_per_address,
        "Logins of any user name that may fail from one address in that time before the address is \
         banned. 0: any number.";
    "limits.failed_logins_window_s", true, u16, 1..=U16, core.failed_logins_window_s,
        "Seconds in which failed logins are counted.";
    "limits.max_reconnects", true, u16, 0..=U16, core.max_reconnects,
        "How often a client may connect from one address in reconnects_window_s before it is banned \
         there. 0: any number.";
    "limits.reconnects_window_s", true, u16, 1..=U16, core.reconnects_window_s,
        "Seconds in which its connections are counted.";
    "limits.ban_s", true, u16, 1..=U16, core.ban_s,
        "Seconds that a ban lasts.";
    "limits.ban_loopback", true, bool, 0..=0, core.ban_loopback,
        "Whether clients on this machine are banned as well.";
    "limits.segment_bytes", false, u64, 64 * 1024..=4 * 1024 * 1024 * 1024, segment_bytes,
        "Size of the files in data_dir. They hold about this much more than what is alive, three \
         times over.";
    "limits.max_store_backlog_bytes", true, u64, 1024..=U63, max_store_backlog_bytes,
        "Bytes that wait to be written to the data_dir. Beyond it clients are not read.";
    "limits.max_mailbox_bytes", true, u64, 1024..=U63, max_mailbox_bytes,
        "Bytes that wait from one shard for another. Beyond it the sender stops reading its \
         clients.";
}

/// The key with this path, or what to say of one that does not exist.
pub(super) fn find(path: &str) -> Result<&'static Key, String> {
    KEYS.iter().find(|key| key.path == path).ok_or_else(|| unknown(path))
}

fn unknown(path: &str) -> String {
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    let nearest = KEYS.iter().min_by_key(|key| distance(key.name(), &last(path)));
    match nearest {
        Some(key) if distance(key.name(), &last(path)) <= 3 => {
            format!("unknown key `{path}`; did you mean `{}`?", key.path)
        }
        _ => format!("unknown key `{path}`; `whimbrel broker --print-config` shows all keys"),
    }
}

/// How many letters must be changed, added or removed.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (y, above) in b.bytes().zip(row.iter_mut().skip(1)) {
            let best = (*above + 1).min(left + 1).min(diagonal + usize::from(x != y));
            diagonal = *above;
            *above = best;
            left = best;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

// ---- the types of values

pub(super) fn number(input: &Input<'_>, range: RangeInclusive<u64>) -> Result<u64, String> {
    let parsed = match input {
        Input::Text(text) => text.replace('_', "").parse().ok(),
        Input::Toml(DeValue::Integer(n)) => {
            u64::from_str_radix(&n.as_str().replace('_', ""), n.radix()).ok()
        }
        Input::Toml(_) => None,
    };
    parsed.filter(|n| range.contains(n)).ok_or_else(|| {
        format!(
            "must be a whole number from {} to {}, not {}",
            range.start(),
            range.end(),
            written(input)
        )
    })
}

macro_rules! number {
    ($($type:ty),*) => {$(
        impl Value for $type {
            fn read(input: &Input<'_>, range: RangeInclusive<u64>) -> Result<Self, String> {
                // The range of a key never goes beyond its type.
                <$type>::try_from(number(input, range)?).map_err(|error| error.to_string())
            }

            fn show(&self) -> Option<String> {
                Some(self.to_string())
            }
        }
    )*};
}
number!(u16, u32, u64);

impl Value for bool {
    fn read(input: &Input<'_>, _: RangeInclusive<u64>) -> Result<Self, String> {
        match input {
            Input::Text("true") | Input::Toml(DeValue::Boolean(true)) => Ok(true),
            Input::Text("false") | Input::Toml(DeValue::Boolean(false)) => Ok(false),
            _ => Err(format!("must be true or false, not {}", written(input))),
        }
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Value for Option<bool> {
    fn read(input: &Input<'_>, range: RangeInclusive<u64>) -> Result<Self, String> {
        bool::read(input, range).map(Some)
    }

    fn show(&self) -> Option<String> {
        self.map(|value| value.to_string())
    }
}

impl Value for String {
    fn read(input: &Input<'_>, _: RangeInclusive<u64>) -> Result<Self, String> {
        match input {
            Input::Text(text) => Ok((*text).to_owned()),
            Input::Toml(DeValue::String(text)) => Ok(text.to_string()),
            _ => Err(format!("must be text in quotes, not {}", written(input))),
        }
    }

    fn show(&self) -> Option<String> {
        Some(toml::Value::from(self.as_str()).to_string())
    }
}

/// One of a few words.
fn word<T: Copy>(input: &Input<'_>, words: &[(&str, T)]) -> Result<T, String> {
    let text = match input {
        Input::Text(text) => text,
        Input::Toml(DeValue::String(text)) => text.as_ref(),
        Input::Toml(_) => "",
    };
    words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
        let all: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        format!("must be one of {}, not {}", all.join(", "), written(input))
    })
}

fn show_word<T: Copy + PartialEq>(value: T, words: &[(&str, T)]) -> Option<String> {
    words.iter().find(|(_, other)| *other == value).map(|(word, _)| format!("\"{word}\""))
}

const LEVELS: &[(&str, LogLevel)] = &[
    ("off", LogLevel::Off),
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
];

impl Value for LogLevel {
    fn read(input: &Input<'_>, _: RangeInclusive<u64>) -> Result<Self, String> {
        word(input, LEVELS)
    }

    fn show(&self) -> Option<String> {
        show_word(*self, LEVELS)
    }
}

const FORMATS: &[(&str, LogFormat)] = &[("text", LogFormat::Text), ("json", LogFormat::Json)];

impl Value for LogFormat {
    fn read(input: &Input<'_>, _: RangeInclusive<u64>) -> Result<Self, String> {
        word(input, FORMATS)
    }

    fn show(&self) -> Option<String> {
        show_word(*self, FORMATS)
    }
}

const DURABILITIES: &[(&str, Durability)] =
    &[("fsync", Durability::Fsync), ("os", Durability::Os), ("memory", Durability::Memory)];

impl Value for Durability {
    fn read(input: &Input<'_>, _: RangeInclusive<u64>) -> Result<Self, String> {
        word(input, DURABILITIES)
    }

    fn show(&self) -> Option<String> {
        show_word(*self, DURABILITIES)
    }
}

fn written(input: &Input<'_>) -> String {
    match input {
        Input::Text(text) => format!("\"{text}\""),
        Input::Toml(DeValue::String(text)) => format!("\"{text}\""),
        Input::Toml(DeValue::Integer(n)) => n.to_string(),
        Input::Toml(DeValue::Float(n)) => n.to_string(),
        Input::Toml(DeValue::Boolean(value)) => value.to_string(),
        Input::Toml(value) => format!("a value of type {}", value.type_str()),
    }
}
