//! `whimbrel explain`: which rule or limit decides what a client may do, by a rule file or by a
//! running broker, and whom a message would reach there.

use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{ArgGroup, Args};
use serde_json::{Value, json};
use whimbrel_auth::{Access, Action, Decision, Method, Principal, Rights, Rules};
use whimbrel_topics::{parse_shared, validate_topic_filter, validate_topic_name};

use crate::control;
use crate::failure::Failure;

/// The client may not.
const EXIT_DENIED: u8 = 1;

/// Wrong usage, or rules that cannot be read.
const EXIT_ERROR: u8 = 2;

const HELP: &str = "\
Examples:
  whimbrel explain --rules rules.toml --client sensor-7 --publish plant/sensor-7/state
  whimbrel explain --rules rules.toml --user ann --group ops --subscribe 'plant/#' --qos 2
  whimbrel explain --control /run/whimbrel/control --client sensor-7 --publish plant/7/state
  whimbrel explain --acl-file /etc/mosquitto/acl --user roger --subscribe '$share/g/foo/+'

With --control a running broker answers, for the client as it is known there: what limits and rules
say, and who would get the message. Without, the client is who the options say. Exit codes: 0 if it
may, 1 if it may not, 2 if there is no answer, or question or rules have a mistake.";

/// Tell which rule allows or denies something.
#[derive(Args, Debug)]
#[command(after_help = HELP)]
#[command(group = ArgGroup::new("source").required(true))]
#[command(group = ArgGroup::new("action").required(true))]
pub struct Explain {
    /// The rule file.
    #[arg(long, value_name = "FILE", group = "source")]
    rules: Option<PathBuf>,
    /// A file in the format of Mosquitto's acl_file.
    #[arg(long, value_name = "FILE", group = "source")]
    acl_file: Option<PathBuf>,
    /// The control socket of a running broker, its key `control_socket`.
    #[arg(long, value_name = "SOCKET", group = "source", requires = "client")]
    #[arg(conflicts_with_all = ["group", "claim", "certificate", "address", "method"])]
    control: Option<PathBuf>,
    /// Most receivers that a running broker lists, up to 1,000.
    #[arg(long, value_name = "N", default_value_t = 20)]
    most: usize,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    who: Who,
    #[command(flatten)]
    what: What,
}

/// The client.
#[derive(Args, Debug)]
struct Who {
    /// The user name; a client without one is anonymous. With --control: whoever has the client
    /// identifier, unless given.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// The client identifier.
    #[arg(long, value_name = "ID")]
    client: Option<String>,
    /// A group of the user; may be given several times.
    #[arg(long, value_name = "NAME")]
    group: Vec<String>,
    /// Something that its token says; may be given several times.
    #[arg(long, value_name = "NAME=VALUE", value_parser = claim)]
    claim: Vec<(String, String)>,
    /// The name in its certificate.
    #[arg(long, value_name = "NAME")]
    certificate: Option<String>,
    /// The address it comes from.
    #[arg(long)]
    address: Option<IpAddr>,
    /// How it has shown who it is: anonymous, password, certificate, token, scram, ace or http;
    /// password if it has a user name.
    #[arg(long, value_parser = method)]
    method: Option<Method>,
}

/// What it wants.
#[derive(Args, Debug)]
struct What {
    /// It publishes to this topic.
    #[arg(long, value_name = "TOPIC", group = "action")]
    publish: Option<String>,
    /// It subscribes to this topic filter.
    #[arg(long, value_name = "FILTER", group = "action")]
    subscribe: Option<String>,
    /// With this QoS.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    qos: u8,
    /// The message is to be retained.
    #[arg(long, conflicts_with = "subscribe")]
    retain: bool,
    /// Its payload has this many bytes; counts for a running broker's limits.
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "subscribe")]
    payload_bytes: u64,
}

fn claim(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn method(name: &str) -> Result<Method, String> {
    Method::parse(name)
}

/// Runs the command.
pub fn run(args: &Explain) -> Result<(), Failure> {
    let access = args.what.access()?;
    if let Some(socket) = &args.control {
        let answer = control::ask(socket, &args.request())
            .map_err(|error| Failure::new(EXIT_ERROR, error))?;
        let text = if args.json { answer.to_string() } else { control::explained(&answer) };
        return print(answer["allowed"] == true, &text);
    }
    let rights = args.who.rights(&Arc::new(read(args)?));
    let (decision, mut text) = answer(&rights, &access);
    let allowed = decision == Decision::Allowed;
    if args.json {
        text = json!({ "allowed": allowed, "text": text }).to_string();
    }
    print(allowed, &text)
}

impl Explain {
    /// For a running broker.
    fn request(&self) -> Value {
        let What { publish, subscribe, qos, retain, payload_bytes } = &self.what;
        json!({
            "command": "explain",
            "client": self.who.client,
            "user": self.who.user,
            "publish": publish,
            "subscribe": subscribe,
            "qos": qos,
            "retain": retain,
            "payload_bytes": payload_bytes,
            "most": self.most,
        })
    }
}

/// What the rules say, as a line or a few; a denial is an error without words of its own.
fn answer(rights: &Rights, access: &Access<'_>) -> (Decision, String) {
    let granted = match access.action {
        Action::Subscribe => rights.authorize_subscribe(access.topic, access.qos),
        _ => None,
    };
    let access = Access { qos: granted.unwrap_or(access.qos), ..*access };
    let explanation = rights.explain(&access);
    let mut text = explanation.to_string();
    if let Some(granted) = granted {
        text.push_str(&format!("\n  the subscription is granted with QoS {granted}"));
    }
    (explanation.decision, text)
}

fn print(allowed: bool, text: &str) -> Result<(), Failure> {
    // A reader that has seen enough (`| head`) is no error.
    let _ = writeln!(io::stdout().lock(), "{text}");
    match allowed {
        true => Ok(()),
        false => Err(Failure { quiet: true, ..Failure::new(EXIT_DENIED, "denied") }),
    }
}

fn read(args: &Explain) -> Result<Rules, Failure> {
    let text = |path: &Path| {
        std::fs::read_to_string(path).map_err(|error| {
            Failure::new(EXIT_ERROR, format!("cannot read the rules {}: {error}", path.display()))
        })
    };
    let rules = match (&args.rules, &args.acl_file) {
        (Some(path), _) => Rules::from_toml(&path.display().to_string(), &text(path)?),
        (None, Some(path)) => Rules::from_mosquitto(&path.display().to_string(), &text(path)?),
        (None, None) => Ok(Rules::open()),
    };
    rules.map_err(|error| Failure::new(EXIT_ERROR, error.to_string()))
}

impl Who {
    fn rights(&self, rules: &Arc<Rules>) -> Rights {
        let user = self.user.as_deref().unwrap_or_default();
        let known = !user.is_empty();
        let usual = if known { Method::Password } else { Method::Anonymous };
        let mut principal = Principal::new(user, self.method.unwrap_or(usual));
        principal.groups = self.group.iter().map(|group| group.as_str().into()).collect();
        let claims = self.claim.iter();
        principal.claims =
            claims.map(|(name, value)| (name.as_str().into(), value.as_str().into())).collect();
        principal.certificate = self.certificate.as_deref().map(Into::into);
        let client = self.client.as_deref().unwrap_or_default();
        Rights::new(rules, Arc::new(principal), client, self.address)
    }
}

impl What {
    fn access(&self) -> Result<Access<'_>, Failure> {
        let (qos, retain) = (self.qos, self.retain);
        let bad = |topic: &str, error: &dyn std::fmt::Display| {
            Failure::new(EXIT_ERROR, format!("{topic}: {error}"))
        };
        if let Some(topic) = self.publish.as_deref() {
            validate_topic_name(topic).map_err(|error| bad(topic, &error))?;
            return Ok(Access { action: Action::Publish, topic, qos, retain });
        }
        let filter = self.subscribe.as_deref().unwrap_or_default();
        let shared = parse_shared(filter).map_err(|error| bad(filter, &error))?;
        let topic = shared.map_or(filter, |shared| shared.filter);
        validate_topic_filter(topic).map_err(|error| bad(filter, &error))?;
        Ok(Access { action: Action::Subscribe, topic, qos, retain })
    }
}
