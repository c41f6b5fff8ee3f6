//! The flags that all tools share: where the broker is, and who the client is.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{ArgAction, Args};
use whimbrel_client::{Address, Builder, Client, Login, Message, Url};
use whimbrel_codec::{Property, QoS, Version};

use crate::failure::Failure;
use crate::login_args::LoginArgs;
use crate::property::Lists;
use crate::tls_args::TlsArgs;
use crate::unsupported::Unsupported;

/// Session expiry that never comes.
const NEVER_S: u32 = u32::MAX;

/// Flags of the connection.
#[derive(Args, Debug)]
pub struct Connection {
    /// Broker to connect to.
    #[arg(short = 'h', long, default_value = "localhost", help_heading = "Connection")]
    pub host: String,
    /// Its port; 1883 if not given, 8883 with TLS.
    #[arg(short, long, help_heading = "Connection")]
    pub port: Option<u16>,
    /// Connect through a Unix socket instead.
    #[arg(long, value_name = "PATH", conflicts_with = "url", help_heading = "Connection")]
    pub unix: Option<PathBuf>,
    /// All in one: scheme, credentials, host, port, and topic or path.
    // As text of the program: rustdoc would take the brackets for links.
    #[arg(
        short = 'L',
        long,
        help_heading = "Connection",
        help = "All in one: mqtt://[USER[:PASSWORD]@]HOST[:PORT][/TOPIC] or ws://HOST[:PORT][/PATH]; \
                with TLS mqtts:// and wss://"
    )]
    pub url: Option<String>,
    /// Address of this machine to connect from.
    #[arg(short = 'A', value_name = "ADDRESS", conflicts_with_all = ["unix", "proxy"])]
    #[arg(help_heading = "Connection")]
    bind_address: Option<IpAddr>,
    /// SOCKS5 proxy to connect through, which resolves the broker's name.
    #[arg(long, value_name = "URL", conflicts_with = "unix", help_heading = "Connection")]
    #[arg(help = "SOCKS5 proxy to connect through: socks5h://[USER[:PASSWORD]@]HOST[:PORT]")]
    proxy: Option<String>,
    /// Protocol version: 5, 311 or 31 (or mqttv5, ...); 311 if not given, 5 with -D, -x, rr, shell,
    /// and where --auth needs it.
    #[arg(short = 'V', long = "protocol-version", alias = "version", value_name = "VERSION")]
    #[arg(help_heading = "Connection")]
    pub version: Option<VersionArg>,
    /// Keep alive, in seconds.
    #[arg(short, long, value_name = "SECONDS", default_value_t = 60, help_heading = "Connection")]
    pub keepalive: u16,
    /// Client identifier; made up if not given.
    #[arg(short, long, allow_hyphen_values = true, help_heading = "Connection")]
    pub id: Option<String>,
    /// Make the client identifier of this prefix and the process number.
    #[arg(short = 'I', long, value_name = "PREFIX", conflicts_with = "id")]
    #[arg(help_heading = "Connection")]
    pub id_prefix: Option<String>,
    /// User name.
    #[arg(short, long, allow_hyphen_values = true, help_heading = "Connection")]
    pub username: Option<String>,
    /// Password.
    #[arg(short = 'P', long = "pw", value_name = "PASSWORD", allow_hyphen_values = true)]
    #[arg(help_heading = "Connection")]
    pub password: Option<String>,
    /// Keep the session when the client goes; needs -i.
    #[arg(short = 'c', long = "disable-clean-session", help_heading = "Connection")]
    pub keep_session: bool,
    /// Seconds that the session outlives the connection, or -1: never expires (5.0).
    #[arg(short = 'x', long, value_name = "SECONDS", allow_hyphen_values = true)]
    #[arg(help_heading = "Connection")]
    pub session_expiry_interval: Option<String>,
    /// Property of 5.0, as `-D publish content-type text/plain` or `-D connect user-property K V`.
    #[arg(short = 'D', long, num_args = 3..=4, help_heading = "Connection")]
    #[arg(value_names = ["COMMAND", "IDENTIFIER", "VALUE"])]
    pub property: Vec<String>,
    /// Print what is sent and received to stderr.
    #[arg(short, long)]
    pub debug: bool,
    /// Print no errors, except about wrong usage.
    #[arg(long)]
    pub quiet: bool,
    /// Accepted and not needed: small messages are always sent at once.
    #[arg(long, hide = true)]
    pub nodelay: bool,
    #[command(flatten)]
    login: LoginArgs,
    #[command(flatten)]
    tls: TlsArgs,
    #[command(flatten)]
    will: WillArgs,
    #[command(flatten)]
    unsupported: Unsupported,
    /// Print this help.
    #[arg(long, action = ArgAction::HelpShort)]
    pub help: Option<bool>,
}

#[derive(Args, Debug)]
struct WillArgs {
    /// Topic of the will message, published by the broker if this client is lost.
    #[arg(long, value_name = "TOPIC", help_heading = "Will")]
    will_topic: Option<String>,
    /// Its payload.
    #[arg(long, value_name = "TEXT", requires = "will_topic", allow_hyphen_values = true)]
    #[arg(help_heading = "Will")]
    will_payload: Option<String>,
    /// Its QoS.
    #[arg(long, value_name = "QOS", requires = "will_topic", default_value = "0")]
    #[arg(help_heading = "Will")]
    will_qos: QosArg,
    /// Whether it is retained.
    #[arg(long, requires = "will_topic", help_heading = "Will")]
    will_retain: bool,
}

/// 0, 1 or 2.
#[derive(Clone, Copy, Debug)]
pub struct QosArg(pub QoS);

impl FromStr for QosArg {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<QosArg, &'static str> {
        let qos = text.parse().ok().and_then(QoS::from_u8);
        qos.map(QosArg).ok_or("expected 0, 1 or 2")
    }
}

/// A protocol version as users name it.
#[derive(Clone, Copy, Debug)]
pub struct VersionArg(pub Version);

impl FromStr for VersionArg {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<VersionArg, &'static str> {
        match text.trim_start_matches("mqttv") {
            "31" | "3.1" => Ok(VersionArg(Version::V3_1)),
            "311" | "3.1.1" => Ok(VersionArg(Version::V3_1_1)),
            "5" | "5.0" => Ok(VersionArg(Version::V5)),
            _ => Err("expected 5, 311 or 31"),
        }
    }
}

/// Flags made into what a client is connected with.
pub struct Setup<'a> {
    args: &'a Connection,
    /// Where the broker is.
    pub address: Address,
    /// The topic of the URL.
    pub topic: Option<String>,
    /// Of the protocol.
    pub version: Version,
    /// Properties for each packet.
    pub lists: Lists<'a>,
    client_id: String,
    /// Of all that the flags say.
    builder: Builder,
}

impl Connection {
    /// Checks the flags against each other; without -V it is 3.1.1.
    pub fn setup(&self) -> Result<Setup<'_>, Failure> {
        self.setup_for(Version::V3_1_1)
    }

    /// As [`Connection::setup`], with another version.
    pub fn setup_for(&self, default: Version) -> Result<Setup<'_>, Failure> {
        self.unsupported.check()?;
        let mut lists = Lists::parse(&self.property)?;
        let wants_v5 = !self.property.is_empty()
            || self.session_expiry_interval.is_some()
            || self.login.is_enhanced();
        let version = match self.version {
            Some(VersionArg(version)) if wants_v5 && !version.is_v5() => {
                return Err(Failure::usage("-D, -x and this --auth need -V 5"));
            }
            Some(VersionArg(version)) => version,
            None if wants_v5 => Version::V5,
            None => default,
        };
        self.set_session_expiry(version, &mut lists)?;
        let (address, user_name, password, topic) = self.address()?;
        if password.is_some() && user_name.is_none() && !version.is_v5() {
            return Err(Failure::usage("-P needs -u before version 5"));
        }
        if self.will.will_topic.as_deref().is_some_and(|topic| !crate::topic::is_name(topic)) {
            return Err(Failure::usage("--will-topic must not be empty or contain + or #"));
        }
        if self.will.will_topic.is_none() && !lists.will.is_empty() {
            return Err(Failure::usage("-D will needs --will-topic"));
        }
        let client_id = self.client_id(version);
        let login = self.login.login(user_name.as_deref(), password.as_deref())?;
        let builder = Client::builder_for(address.clone());
        let args = self;
        let mut setup = Setup { args, address, topic, version, lists, client_id, builder };
        setup.builder = setup.make_builder(login)?;
        Ok(setup)
    }

    fn set_session_expiry(&self, version: Version, lists: &mut Lists<'_>) -> Result<(), Failure> {
        let expiry_s = match self.session_expiry_interval.as_deref() {
            Some("-1" | "∞") => Some(NEVER_S),
            Some(text) => match text.parse() {
                Ok(seconds) => Some(seconds),
                Err(_) => return Err(Failure::usage("-x takes seconds, or -1 for never")),
            },
            None if self.keep_session && version.is_v5() => Some(NEVER_S),
            None => None,
        };
        if self.id.is_none() && (self.keep_session || expiry_s == Some(NEVER_S)) {
            return Err(Failure::usage("a session that is kept needs a client identifier: add -i"));
        }
        let given = lists.connect.iter().any(|p| matches!(p, Property::SessionExpiryIntervalS(_)));
        match (expiry_s, given) {
            (Some(_), true) if self.session_expiry_interval.is_some() => {
                Err(Failure::usage("give -x or -D connect session-expiry-interval, not both"))
            }
            (Some(seconds), false) => {
                lists.connect.push(Property::SessionExpiryIntervalS(seconds));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    #[allow(clippy::type_complexity)]
    fn address(
        &self,
    ) -> Result<(Address, Option<String>, Option<String>, Option<String>), Failure> {
        let (user, password) = (self.username.clone(), self.password.clone());
        if let Some(text) = &self.url {
            let url: Url =
                text.parse().map_err(|error| Failure::usage(format!("-L {text}: {error}")))?;
            let user = user.or(url.user_name);
            let address = self.tls.below(url.address, url.tls)?;
            return Ok((address, user, password.or(url.password), url.topic));
        }
        if let Some(path) = &self.unix {
            return Ok((Address::Unix(path.clone()), user, password, None));
        }
        let host = self.host.trim_start_matches('[').trim_end_matches(']').to_string();
        let port = self.port.unwrap_or(if self.tls.is_asked_for() { 8883 } else { 1883 });
        let address = self.tls.below(Address::Tcp { host, port }, false)?;
        Ok((address, user, password, None))
    }

    /// In 5.0 the broker can make one up; before, one that it need not remember is safest.
    fn client_id(&self, version: Version) -> String {
        let process = std::process::id();
        match (&self.id, &self.id_prefix) {
            (Some(id), _) => id.clone(),
            (None, Some(prefix)) => format!("{prefix}{process}"),
            (None, None) if version.is_v5() => String::new(),
            (None, None) => {
                let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
                let nanos = now.map_or(0, |time| time.subsec_nanos());
                format!("whimbrel-{process:x}-{nanos:x}")
            }
        }
    }
}

impl Setup<'_> {
    /// A client with all that the flags say, but for what a tool decides itself.
    pub fn builder(&self) -> Builder {
        match self.has_property(|property| matches!(property, Property::SessionExpiryIntervalS(_)))
        {
            true => self.builder.clone(),
            false => self.builder.clone().session_expiry_s(0),
        }
    }

    /// As [`Setup::builder`], with a session that outlives a lost connection, and without topic
    /// aliases of our own: what `-D` and `-F` say is what is sent.
    pub fn builder_of_tool(&self) -> Builder {
        match self.has_property(|property| matches!(property, Property::TopicAliasMaximum(_))) {
            true => self.builder.clone(),
            false => self.builder.clone().topic_aliases(0, 0),
        }
    }

    fn has_property(&self, is_it: impl Fn(&Property<'_>) -> bool) -> bool {
        self.lists.connect.iter().any(is_it)
    }

    fn make_builder(&self, login: Login) -> Result<Builder, Failure> {
        let args = self.args;
        let mut builder = Client::builder_for(self.address.clone())
            .version(self.version)
            .client_id(self.client_id.clone())
            .clean_start(!args.keep_session)
            .keep_alive_s(args.keepalive)
            .login(login);
        for property in &self.lists.connect {
            builder = builder.connect_property(*property);
        }
        for property in &self.lists.disconnect {
            builder = builder.disconnect_property(*property);
        }
        if let Some((will, delay_s)) = self.will() {
            builder = builder.will(will, delay_s);
        }
        if let Some(address) = args.bind_address {
            builder = builder.bind_address(address);
        }
        match &args.proxy {
            None => Ok(builder),
            Some(url) => {
                // The URL may have a password.
                let wrong = |error| Failure::usage(format!("--proxy: {error}"));
                builder.proxy(url).map_err(wrong)
            }
        }
    }

    /// The will message, and its delay in seconds.
    fn will(&self) -> Option<(Message, u32)> {
        let args = &self.args.will;
        let payload = args.will_payload.clone().unwrap_or_default();
        let mut will = Message::new(args.will_topic.clone()?, payload)
            .qos(args.will_qos.0)
            .retain(args.will_retain);
        let mut delay_s = 0;
        for property in &self.lists.will {
            match property {
                Property::WillDelayIntervalS(seconds) => delay_s = *seconds,
                other => will = will.property(*other),
            }
        }
        Some((will, delay_s))
    }

    /// Prints a line of `--debug`.
    pub fn debug(&self, line: impl FnOnce() -> String) {
        if self.args.debug {
            eprintln!("{}", line());
        }
    }

    /// An error of the client, silenced by `--quiet`.
    pub fn failure(&self, error: &whimbrel_client::Error) -> Failure {
        let quiet = self.args.quiet;
        Failure { quiet, ..Failure::client(error, self.version) }
    }

    /// Another failure at run time, silenced by `--quiet`.
    pub fn failed(&self, code: u8, message: impl Into<String>) -> Failure {
        Failure { quiet: self.args.quiet, ..Failure::new(code, message) }
    }

    /// Whether `--quiet` was given.
    pub fn is_quiet(&self) -> bool {
        self.args.quiet
    }

    /// A line on stderr that `--quiet` silences.
    pub fn warn(&self, message: &str) {
        if !self.args.quiet {
            eprintln!("Warning: {message}");
        }
    }
}
