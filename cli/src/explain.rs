//! `whimbrel explain`: which rule decides what a client may do.

use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{ArgGroup, Args};
use whimbrel_auth::{Access, Action, Decision, Method, Principal, Rights, Rules};
use whimbrel_topics::{parse_shared, validate_topic_filter, validate_topic_name};

use crate::failure::Failure;

/// The client may not.
const EXIT_DENIED: u8 = 1;

/// Wrong usage, or rules that cannot be read.
const EXIT_ERROR: u8 = 2;

const HELP: &str = "\
Examples:
  whimbrel explain --rules rules.toml --client sensor-7 --publish plant/sensor-7/state
  whimbrel explain --rules rules.toml --user ann --group ops --subscribe 'plant/#' --qos 2
  whimbrel explain --acl-file /etc/mosquitto/acl --user roger --subscribe '$share/g/foo/+'

The client is who the options say; no broker is asked, and no password. Exit codes: 0 if it may, 1
if it may not, 2 if the question or the rules have a mistake.";

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
    #[command(flatten)]
    who: Who,
    #[command(flatten)]
    what: What,
}

/// The client.
#[derive(Args, Debug)]
struct Who {
    /// The user name; a client without one is anonymous.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    user: String,
    /// The client identifier.
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    client: String,
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
    let rights = args.who.rights(&Arc::new(read(args)?));
    print(&[answer(&rights, &access)])
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

fn print(answers: &[(Decision, String)]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    for (_, text) in answers {
        // A reader that has seen enough (`| head`) is no error.
        let _ = writeln!(out, "{text}");
    }
    match answers.iter().all(|(decision, _)| *decision == Decision::Allowed) {
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
        let known = !self.user.is_empty();
        let usual = if known { Method::Password } else { Method::Anonymous };
        let mut principal = Principal::new(&self.user, self.method.unwrap_or(usual));
        principal.groups = self.group.iter().map(|group| group.as_str().into()).collect();
        let claims = self.claim.iter();
        principal.claims =
            claims.map(|(name, value)| (name.as_str().into(), value.as_str().into())).collect();
        principal.certificate = self.certificate.as_deref().map(Into::into);
        Rights::new(rules, Arc::new(principal), &self.client, self.address)
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
