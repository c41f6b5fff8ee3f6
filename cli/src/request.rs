//! `whimbrel rr`: publish a request and print its response, with the habits of mosquitto_rr.

use std::time::{Duration, Instant};

use clap::{ArgGroup, Args};
use whimbrel_client::Event;
use whimbrel_client::single::{Client, Settings};
use whimbrel_codec::{
    Disconnect, Properties, Property, Publish, ReasonCode, Subscription, Version,
};

use crate::args::{Connection, QosArg, Setup};
use crate::failure::{Failure, TIMED_OUT};
use crate::output::{OutputArgs, Printer};
use crate::payload::PayloadArgs;
use crate::{defaults, message_line, topic, unsupported};

const LONG: Duration = Duration::from_secs(3600);

const EXAMPLES: &str = "\
Examples:
  whimbrel rr -t service/time -m now -W 5                   the response, or exit code 27 after 5 s
  whimbrel rr -t service/time -e answers/me -m now -v       with a response topic of your own
  whimbrel rr -V 311 -t service/time -e answers/me -m now   where the service knows answers/me

With 5.0 the request has a response topic and correlation data. A response with other correlation
data is not ours and left alone; one without any is taken.

Exit codes:
  0 a response was printed; 27 -W ran out; the broker's reason code if it refuses the connection
  (CONNACK of 3.1.1: 1 to 5), the subscription or the request; 1 anything else.";

fn help() -> String {
    let fields = message_line::FIELDS_HELP;
    let json = "--json prints time (RFC 3339) and the fields";
    let (defaults, unsupported) = (defaults::HELP, unsupported::HELP);
    format!("{EXAMPLES}\n\n{json}\n{fields}.\n\n{defaults}\n\n{unsupported}")
}

/// Publish a request, and print the response.
#[derive(Args, Debug)]
#[command(disable_help_flag = true, disable_version_flag = true, after_help = help())]
#[command(args_override_self = true)]
#[command(group(ArgGroup::new("payload").required(true)))]
pub struct Rr {
    /// Topic to publish the request to.
    #[arg(short, long, allow_hyphen_values = true, required_unless_present = "url")]
    topic: Option<String>,
    /// Topic of the response; made up if not given, with 5.0.
    #[arg(short = 'e', value_name = "TOPIC", allow_hyphen_values = true)]
    response_topic: Option<String>,
    #[command(flatten)]
    payload: PayloadArgs,
    /// Quality of service, of the request and of the response.
    #[arg(short, long, default_value = "0")]
    qos: QosArg,
    /// End after so many seconds without a response, with exit code 27.
    #[arg(short = 'W', value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    timeout: Option<u64>,
    /// Take no retained message for a response.
    #[arg(short = 'R')]
    no_retained: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connection: Connection,
}

/// Connects, subscribes to the response, publishes the request, prints the response.
pub fn run(args: &Rr) -> Result<(), Failure> {
    let setup = args.connection.setup_for(Version::V5)?;
    let topic = args.topic.as_deref().or(setup.topic.as_deref());
    let topic = topic.ok_or_else(|| Failure::usage("no topic: add -t, or a path to the URL"))?;
    let payload = args.payload.read()?;
    let (topic_made_up, data_made_up) = made_up()?;
    let mut properties = setup.lists.publish.clone();
    let response_topic = response_topic(args, &setup, &topic_made_up)?;
    check_topics(topic, response_topic)?;
    if setup.version.is_v5() {
        add(&mut properties, Property::ResponseTopic(response_topic));
        add(&mut properties, Property::CorrelationData(data_made_up.as_bytes()));
    }
    let properties = Properties::new(&properties);
    let request = Publish { qos: args.qos.0, properties, ..Publish::new(topic, &payload) };
    let mut printer = args.output.printer()?;
    let (client, _) = Client::connect(&setup.address, &setup.connect(), &Settings::default())
        .map_err(|error| setup.failure(&error))?;
    let deadline = args.timeout.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut requester = Requester { args, setup: &setup, client, deadline };
    requester.exchange(&request, response_topic, &mut printer)?;
    let properties = Properties::new(&setup.lists.disconnect);
    // The response is there; that the goodbye does not arrive changes nothing.
    let _ = requester.client.disconnect(&Disconnect { reason: ReasonCode::Success, properties });
    Ok(())
}

/// A response topic and correlation data that nobody else has.
fn made_up() -> Result<(String, String), Failure> {
    let random =
        || getrandom::u64().map_err(|error| Failure::new(1, format!("no random number: {error}")));
    Ok((format!("whimbrel/response/{:016x}", random()?), format!("{:016x}", random()?)))
}

fn response_topic<'a>(
    args: &'a Rr,
    setup: &Setup<'a>,
    made_up: &'a str,
) -> Result<&'a str, Failure> {
    let property = setup.lists.publish.iter().find_map(|property| match property {
        Property::ResponseTopic(topic) => Some(*topic),
        _ => None,
    });
    match args.response_topic.as_deref().or(property) {
        Some(topic) => Ok(topic),
        None if setup.version.is_v5() => Ok(made_up),
        None => Err(Failure::usage("no response topic: add -e, or use -V 5")),
    }
}

fn check_topics(topic: &str, response_topic: &str) -> Result<(), Failure> {
    for (flag, topic) in [("-t", topic), ("-e", response_topic)] {
        if !topic::is_name(topic) {
            let what = "the topic must not be empty or contain + or #";
            return Err(Failure::usage(format!("{flag} {topic}: {what}")));
        }
    }
    Ok(())
}

/// What -D has given stays.
fn add<'a>(properties: &mut Vec<Property<'a>>, property: Property<'a>) {
    if properties.iter().all(|given| given.id() != property.id()) {
        properties.push(property);
    }
}

struct Requester<'a> {
    args: &'a Rr,
    setup: &'a Setup<'a>,
    client: Client,
    deadline: Option<Instant>,
}

impl Requester<'_> {
    /// The request is published once the subscription stands; ends with the response.
    fn exchange(
        &mut self,
        request: &Publish<'_>,
        response_topic: &str,
        printer: &mut Printer,
    ) -> Result<(), Failure> {
        let setup = self.setup;
        let subscription = Subscription::new(response_topic, self.args.qos.0);
        let properties = Properties::new(&setup.lists.subscribe);
        let subscribed = self.client.subscribe(&[subscription], properties);
        subscribed.map_err(|error| setup.failure(&error))?;
        loop {
            let left = match self.deadline {
                None => LONG,
                Some(at) => at.saturating_duration_since(Instant::now()),
            };
            if left.is_zero() {
                return Err(setup.failed(TIMED_OUT, "no response in time (-W)"));
            }
            match self.client.poll(left).map_err(|error| setup.failure(&error))? {
                Some(Event::Subscribed(ack)) => {
                    setup.debug(|| "SUBACK received".into());
                    if let Some(code) = ack.codes.iter().find(|code| code.is_error()) {
                        return Err(refused(setup, "subscription to the response", code));
                    }
                    self.client.publish(request).map_err(|error| setup.failure(&error))?;
                    setup.debug(|| format!("PUBLISH sent, {}", request.topic));
                }
                Some(Event::Published(ack)) if ack.reason.is_error() => {
                    return Err(refused(setup, "request", ack.reason));
                }
                Some(Event::Published(ack)) => {
                    setup.debug(|| format!("PUBLISH acknowledged: {}", ack.reason));
                    if ack.reason == ReasonCode::NoMatchingSubscribers {
                        setup.warn(&format!("nobody has subscribed to {}", request.topic));
                    }
                }
                Some(Event::Message(message))
                    if is_response(self.args, setup, &message, request) =>
                {
                    let printed = printer.print(&message).and_then(|()| printer.flush());
                    return printed.map_err(|error| {
                        setup.failed(1, format!("cannot write to stdout: {error}"))
                    });
                }
                _ => {}
            }
        }
    }
}

fn is_response(args: &Rr, setup: &Setup<'_>, message: &Publish<'_>, request: &Publish<'_>) -> bool {
    let answers = match (correlation_data(message), correlation_data(request)) {
        (Some(one), Some(other)) => one == other,
        _ => true,
    };
    let taken = answers && !(args.no_retained && message.retain);
    if !taken {
        setup.debug(|| format!("PUBLISH received, no response: {}", message.topic));
    }
    taken
}

fn refused(setup: &Setup<'_>, what: &str, code: ReasonCode) -> Failure {
    setup.failed(code as u8, format!("the broker refused the {what}: {code}"))
}

fn correlation_data<'a>(message: &Publish<'a>) -> Option<&'a [u8]> {
    message.properties.iter().find_map(|property| match property {
        Property::CorrelationData(data) => Some(data),
        _ => None,
    })
}
