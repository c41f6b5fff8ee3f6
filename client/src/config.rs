//! How a client is set up.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use whimbrel_client_core::Limits;
use whimbrel_codec::{Connect, Property, Version, Will};

use crate::login::{Login, Shown};
#[cfg(feature = "socks")]
use crate::net::Proxy;
use crate::net::Stream;
use crate::store::{File, Owner, Recovered, Store};
use crate::{Address, Backoff, Client, Connected, Error, InvalidUrl, Message, PropertyList, Url};
#[cfg(feature = "tls")]
use crate::{Tls, TlsOptions};

/// How long the session of a client outlives a connection that is lost, in seconds, where nothing
/// else is asked for: enough to come back to it.
const SESSION_EXPIRY_S: u32 = 300;

/// As above, for a client with a store: enough for a machine that is restarted or repaired.
const STORED_SESSION_EXPIRY_S: u32 = 7 * 24 * 3600;

/// As good as for ever, and within what clocks can say.
pub(crate) const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Opens byte streams of the application's own kind.
pub trait Connector: Send + Sync {
    /// Opens one; called for every connection.
    fn open(&self) -> Opening<'_>;
}

/// What [`Connector::open`] gives: the stream, later.
pub type Opening<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send + 'a>>;

/// All settings of a client.
#[derive(Clone)]
pub(crate) struct Config {
    pub(crate) address: Address,
    pub(crate) connector: Option<Arc<dyn Connector>>,
    pub(crate) bind_address: Option<IpAddr>,
    #[cfg(feature = "socks")]
    pub(crate) proxy: Option<Box<Proxy>>,
    pub(crate) version: Version,
    pub(crate) client_id: String,
    pub(crate) clean_start: bool,
    pub(crate) session_expiry_s: Option<u32>,
    pub(crate) keep_alive_s: u16,
    pub(crate) receive_maximum: u16,
    pub(crate) topic_alias_maximum: u16,
    pub(crate) topic_aliases_out: u16,
    pub(crate) will: Option<Box<Message>>,
    pub(crate) will_delay_s: u32,
    pub(crate) properties: PropertyList,
    pub(crate) disconnect_properties: PropertyList,
    pub(crate) login: Login,
    pub(crate) limits: Limits,
    pub(crate) queue_messages: usize,
    pub(crate) queue_bytes: usize,
    pub(crate) store: Option<Store>,
    pub(crate) connect_timeout: Duration,
    pub(crate) drain_timeout: Duration,
    pub(crate) backoff: Backoff,
    pub(crate) reconnects: bool,
}

impl Config {
    /// Whether the broker is asked to keep the session when the connection is lost.
    pub(crate) fn session_stays(&self) -> bool {
        match self.version {
            Version::V5 => self.session_expiry_s != Some(0),
            _ => !self.clean_start,
        }
    }

    /// Whether it is to be kept even when the client leaves.
    pub(crate) fn session_is_kept(&self) -> bool {
        match self.version {
            Version::V5 => match self.session_expiry_s {
                Some(seconds) => seconds > 0,
                None => self.store.is_some(),
            },
            _ => !self.clean_start,
        }
    }

    /// 3.1 cannot say whether the broker knows the session.
    pub(crate) fn assumes_session(&self) -> bool {
        self.version == Version::V3_1 && !self.clean_start
    }

    fn open_store(&self) -> Result<Option<(File, Recovered)>, Error> {
        let Some(store) = &self.store else { return Ok(None) };
        let owner = Owner {
            client_id: self.client_id.clone(),
            broker: self.address.to_string(),
            version: version_name(self.version).into(),
        };
        let opened = File::open(store, &owner).map_err(|error| Error::Store(Arc::new(error)))?;
        Ok(Some(opened))
    }

    /// Hands the CONNECT to `use_it`: `again` if the session of a former connection may be there.
    pub(crate) fn with_connect<R>(
        &self,
        client_id: &str,
        again: bool,
        shown: &Shown,
        use_it: impl FnOnce(&Connect<'_>) -> R,
    ) -> R {
        let (properties, will_properties) = match self.version {
            Version::V5 => (self.connect_properties(shown), self.will_properties()),
            _ => (PropertyList::new(), PropertyList::new()),
        };
        let will = self.will.as_ref().map(|will| Will {
            topic: &will.topic,
            payload: &will.payload,
            qos: will.qos,
            retain: will.retain,
            properties: will_properties.view(),
        });
        use_it(&Connect {
            version: self.version,
            clean_start: match self.version {
                Version::V5 => self.clean_start && !again,
                _ => self.clean_start,
            },
            keep_alive_s: self.keep_alive_s,
            properties: properties.view(),
            client_id,
            will,
            user_name: shown.user_name.as_deref(),
            password: shown.password.as_deref(),
        })
    }

    fn connect_properties(&self, shown: &Shown) -> PropertyList {
        let mut list = self.properties.clone();
        let given = |id: u8| self.properties.iter().any(|property| property.id() == id);
        let expiry_s = match self.store {
            Some(_) => STORED_SESSION_EXPIRY_S,
            None => SESSION_EXPIRY_S,
        };
        let ours = [
            Property::SessionExpiryIntervalS(self.session_expiry_s.unwrap_or(expiry_s)),
            Property::ReceiveMaximum(self.receive_maximum),
            Property::TopicAliasMaximum(self.topic_alias_maximum),
            Property::RequestResponseInformation(1),
        ];
        ours.into_iter().filter(|property| !given(property.id())).for_each(|p| list.push(p));
        if let Some((method, data)) = &shown.method {
            list.push(Property::AuthenticationMethod(method));
            if !data.is_empty() {
                list.push(Property::AuthenticationData(data));
            }
        }
        list
    }

    fn will_properties(&self) -> PropertyList {
        let Some(will) = &self.will else { return PropertyList::new() };
        let mut list = will.properties.clone();
        if let Some(seconds) = will.expiry_s {
            list.push(Property::MessageExpiryIntervalS(seconds));
        }
        if self.will_delay_s > 0 {
            list.push(Property::WillDelayIntervalS(self.will_delay_s));
        }
        list
    }
}

const fn version_name(version: Version) -> &'static str {
    match version {
        Version::V3_1 => "3.1",
        Version::V3_1_1 => "3.1.1",
        Version::V5 => "5.0",
    }
}

/// Settings of a client before it is made, by [`Client::builder`]. A clone makes another client.
#[derive(Clone)]
pub struct Builder {
    config: Config,
    /// The URL asks for TLS.
    url_tls: bool,
    #[cfg(feature = "tls")]
    tls: Option<Tls>,
}

impl Builder {
    pub(crate) fn from_url(url: &str) -> Result<Builder, InvalidUrl> {
        let url: Url = url.parse()?;
        let mut builder = Builder::from_address(url.address);
        builder.url_tls = url.tls;
        if url.user_name.is_some() || url.password.is_some() {
            builder.config.login =
                Login::password(url.user_name, url.password.map(String::into_bytes));
        }
        Ok(builder)
    }

    pub(crate) fn from_address(address: Address) -> Builder {
        let config = Config {
            address,
            connector: None,
            bind_address: None,
            #[cfg(feature = "socks")]
            proxy: None,
            version: Version::V5,
            client_id: String::new(),
            clean_start: true,
            session_expiry_s: None,
            keep_alive_s: 60,
            receive_maximum: 256,
            topic_alias_maximum: 32,
            topic_aliases_out: 16,
            will: None,
            will_delay_s: 0,
            properties: PropertyList::new(),
            disconnect_properties: PropertyList::new(),
            login: Login::none(),
            limits: Limits { max_in_flight: 256, ..Limits::default() },
            queue_messages: 1024,
            queue_bytes: 16 * 1024 * 1024,
            store: None,
            connect_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(10),
            backoff: Backoff::default(),
            reconnects: true,
        };
        Builder {
            config,
            url_tls: false,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// The version of MQTT; 5.0 at first.
    pub fn version(mut self, version: Version) -> Builder {
        self.config.version = version;
        self
    }

    /// The client identifier; made up by the broker if it is not given. A session that is to
    /// outlive the process needs one.
    pub fn client_id(mut self, client_id: impl Into<String>) -> Builder {
        self.config.client_id = client_id.into();
        self
    }

    /// Whether the first connection begins with a new session, as it does at first. Later
    /// connections of this client go on with the session, if the broker still has it.
    ///
    /// Before 5.0 this is clean session: a new session for every connection, or one that is kept.
    pub fn clean_start(mut self, clean: bool) -> Builder {
        self.config.clean_start = clean;
        self
    }

    /// Seconds that the session outlives the client (5.0); `u32::MAX`: for ever. If it is not
    /// given, the session outlives a lost connection for five minutes, and not the client.
    pub fn session_expiry_s(mut self, seconds: u32) -> Builder {
        self.config.session_expiry_s = Some(seconds);
        self
    }

    /// Seconds without a packet after which a ping shows that both sides live; 60 at first, 0:
    /// never.
    pub fn keep_alive_s(mut self, seconds: u16) -> Builder {
        self.config.keep_alive_s = seconds;
        self
    }

    /// QoS 1 and 2 messages that the broker may send without an acknowledgement (5.0); 256 at
    /// first.
    pub fn receive_maximum(mut self, messages: u16) -> Builder {
        self.config.receive_maximum = messages.max(1);
        self
    }

    /// QoS 1 and 2 messages that may wait for the broker's acknowledgement, if it allows as many;
    /// 256 at first.
    pub fn max_in_flight(mut self, messages: u16) -> Builder {
        self.config.limits.max_in_flight = messages.max(1);
        self
    }

    /// The longest packet that is accepted, in bytes; 5.0 brokers are told.
    pub fn max_packet_size_bytes(mut self, bytes: u32) -> Builder {
        self.config.limits.max_packet_size_bytes = bytes.max(1);
        self.config.properties.push(Property::MaximumPacketSizeBytes(bytes.max(1)));
        self
    }

    /// Topic aliases (5.0): how many the broker may use towards us, and how many we use towards
    /// it, if it allows them; 32 and 16 at first.
    pub fn topic_aliases(mut self, incoming: u16, outgoing: u16) -> Builder {
        self.config.topic_alias_maximum = incoming;
        self.config.topic_aliases_out = outgoing;
        self
    }

    /// What the broker publishes if this client is lost, after so many seconds (5.0).
    pub fn will(mut self, message: Message, delay_s: u32) -> Builder {
        self.config.will = Some(Box::new(message));
        self.config.will_delay_s = delay_s;
        self
    }

    /// User name and password.
    pub fn password(
        mut self,
        user_name: impl Into<String>,
        password: impl Into<Vec<u8>>,
    ) -> Builder {
        self.config.login = Login::password(Some(user_name.into()), Some(password.into()));
        self
    }

    /// How the client shows who it is, see [`Login`].
    pub fn login(mut self, login: Login) -> Builder {
        self.config.login = login;
        self
    }

    /// TLS with these authorities and this certificate. An `mqtts` or `wss` URL without it trusts
    /// the authorities of the system.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: Tls) -> Builder {
        self.tls = Some(tls);
        self
    }

    /// Adds a property to CONNECT (5.0); it takes the place of the client's own.
    pub fn connect_property(mut self, property: Property<'_>) -> Builder {
        match property {
            Property::SessionExpiryIntervalS(s) => self.config.session_expiry_s = Some(s),
            Property::ReceiveMaximum(messages) => return self.receive_maximum(messages),
            Property::TopicAliasMaximum(most) => self.config.topic_alias_maximum = most,
            Property::MaximumPacketSizeBytes(bytes) => return self.max_packet_size_bytes(bytes),
            property => self.config.properties.push(property),
        }
        self
    }

    /// Adds a property to DISCONNECT (5.0); it takes the place of the client's own.
    pub fn disconnect_property(mut self, property: Property<'_>) -> Builder {
        self.config.disconnect_properties.push(property);
        self
    }

    /// How many messages, and bytes of them, may be queued because the broker is away or slow;
    /// 1,024 and 16 MiB at first. Then publishing waits, or fails if asked.
    pub fn queue(mut self, messages: usize, bytes: usize) -> Builder {
        self.config.queue_messages = messages.max(1);
        self.config.queue_bytes = bytes.max(1);
        self
    }

    /// Keeps messages of QoS 1 and 2 on disk, in the file at a path or as a [`Store`] says: what is
    /// queued and in flight survives the end of the process, and a client that is made with the
    /// same file goes on with it. See [the chapter on it](crate#store-and-forward).
    ///
    /// It takes a client identifier, and a session that the broker keeps: where nothing else is
    /// asked for, seven days after the connection is lost or closed. A clean start is asked for
    /// only as long as the store knows of no session.
    pub fn store(mut self, store: impl Into<Store>) -> Builder {
        self.config.store = Some(store.into());
        self
    }

    /// How long an attempt to connect may take, for each address and for the broker's answer; 10
    /// seconds at first.
    pub fn connect_timeout(mut self, timeout: Duration) -> Builder {
        let timeout = timeout.min(LONGEST);
        self.config.connect_timeout = timeout;
        self.config.limits.connect_timeout_ms = timeout.as_millis() as u64;
        self
    }

    /// How long [`Client::disconnect`] waits for what is still to be delivered; 10 seconds at
    /// first. The same holds when the last handle of a client is dropped.
    pub fn drain_timeout(mut self, timeout: Duration) -> Builder {
        self.config.drain_timeout = timeout.min(LONGEST);
        self
    }

    /// How long to wait between attempts to connect.
    pub fn backoff(mut self, backoff: Backoff) -> Builder {
        self.config.backoff = backoff;
        self
    }

    /// Whether a lost connection is made again, as it is at first; otherwise the client ends.
    pub fn reconnect(mut self, yes: bool) -> Builder {
        self.config.reconnects = yes;
        self
    }

    /// The address of this machine to connect from.
    pub fn bind_address(mut self, address: IpAddr) -> Builder {
        self.config.bind_address = Some(address);
        self
    }

    /// The SOCKS5 proxy to connect by way of: `socks5h://[user[:password]@]host[:port]`. It is the
    /// proxy that looks up the broker's name.
    ///
    /// # Errors
    /// What is wrong with the URL.
    #[cfg(feature = "socks")]
    pub fn proxy(mut self, url: &str) -> Result<Builder, InvalidUrl> {
        self.config.proxy = Some(Box::new(Proxy::from_url(url)?));
        Ok(self)
    }

    /// Byte streams of the application's own kind in place of a socket; the URL still says whether
    /// TLS and WebSocket are spoken on them.
    pub fn connector(mut self, connector: Arc<dyn Connector>) -> Builder {
        self.config.connector = Some(connector);
        self
    }

    /// Connects in the background, from the first attempt on as after a lost connection. To be
    /// called in a tokio runtime.
    ///
    /// A store is opened before this returns, which takes the time to read its file.
    ///
    /// # Errors
    /// Settings that contradict each other, authorities that cannot be read, or a store that
    /// cannot be used.
    pub fn start(self) -> Result<Client, Error> {
        let config = self.finish()?;
        let opened = config.open_store()?;
        Client::start(config, opened)
    }

    /// Connects, and fails if the first attempt does; later ones are made in the background.
    ///
    /// # Errors
    /// As [`Builder::start`]; no connection; or the broker refuses it.
    pub async fn connect(self) -> Result<Client, Error> {
        Ok(self.connect_with_info().await?.0)
    }

    /// As [`Builder::connect`], with what CONNACK said.
    ///
    /// # Errors
    /// As [`Builder::connect`].
    pub async fn connect_with_info(self) -> Result<(Client, Connected), Error> {
        let config = self.finish()?;
        let (config, opened) = match config.store {
            None => (config, None),
            Some(_) => {
                let opening = spawn_blocking(move || config.open_store().map(|it| (config, it)));
                // It is not cancelled, and does not panic.
                opening.await.map_err(|_| Error::Timeout)??
            }
        };
        Client::connect(config, opened).await
    }

    fn finish(self) -> Result<Config, Error> {
        let invalid = |what: &'static str| Err(Error::Settings(what));
        #[cfg(feature = "tls")]
        let mut config = {
            let mut config = self.config;
            let wants_tls = self.url_tls || self.tls.is_some();
            if wants_tls && !matches!(config.address, Address::Tls { .. }) {
                let tls = match self.tls {
                    Some(tls) => tls,
                    None => Tls::new(&TlsOptions::default()).map_err(Error::TlsSettings)?,
                };
                config.address = Address::Tls { inner: Box::new(config.address), tls };
            }
            config
        };
        #[cfg(not(feature = "tls"))]
        let mut config = match self.url_tls {
            false => self.config,
            true => return invalid("this client was built without TLS (feature `tls`)"),
        };
        let is_websocket = config.address.is_websocket();
        if is_websocket && cfg!(not(feature = "websocket")) {
            return invalid("this client was built without WebSocket (feature `websocket`)");
        }
        if config.login.is_enhanced() && !config.version.is_v5() {
            return invalid("an authentication method needs MQTT 5.0");
        }
        if config.login.needs_websocket() && !is_websocket {
            return invalid("a token in the request of a WebSocket needs ws:// or wss://");
        }
        if config.version != Version::V5 && config.client_id.is_empty() && !config.clean_start {
            return invalid("a session that is kept needs a client identifier");
        }
        if config.store.is_some() {
            if config.client_id.is_empty() {
                return invalid("a store needs a client identifier");
            }
            if config.version != Version::V5 {
                // What is in flight belongs to a session, which a clean one would end.
                config.clean_start = false;
            }
        }
        if let Some(will) = &config.will
            && whimbrel_topics::validate_topic_name(&will.topic).is_err()
        {
            return invalid("the will's topic must not be empty or contain + or #");
        }
        let will = config.will.as_ref().map_or(Ok(()), |will| will.properties.check());
        let checked = config.properties.check().and(config.disconnect_properties.check()).and(will);
        checked.map_err(|error| Error::Command(error.into()))?;
        Ok(config)
    }
}
