//! `whimbrel rr`: publish a request and print its response, with the habits of mosquitto_rr.

use std::pin::pin;
use std::time::Duration;

use clap::{ArgGroup, Args};
use tokio::time::sleep;
use whimbrel_client::{Client, Filter, Incoming, Outcome, PublishError, WhenFull};
use whimbrel_codec::{Properties, Property, Publish, ReasonCode, Version};

use crate::args::{Connection, QosArg, Setup};
use crate::failure::{Failure, TIMED_OUT};
use crate::online::{self, block_on};
use crate::output::OutputArgs;
use crate::payload::PayloadArgs;
use crate::{defaults, message_line, topic, unsupported};

/// Messages that wait to be looked at.
const QUEUE_LEN: usize = 1024;

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
    block_on(exchange(args, &setup, &request, response_topic, |response| {
        let printed = printer.print(response).and_then(|()| printer.flush());
        printed.map_err(|error| setup.failed(1, format!("cannot write to stdout: {error}")))
    }))
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

/// The request is published once the subscription stands; ends with the response.
async fn exchange(
    args: &Rr,
    setup: &Setup<'_>,
    request: &Publish<'_>,
    response_topic: &str,
    print: impl FnOnce(&Publish<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let (client, mut watch) =
        online::connect(setup, setup.builder_of_tool().reconnect(false)).await?;
    let answered = async {
        let mut messages = client.all_messages(QUEUE_LEN, WhenFull::Drop);
        subscribe(args, setup, &client, response_topic).await?;
        let completion = client.publish(online::message(request)).await;
        setup.debug(|| format!("PUBLISH sent, {}", request.topic));
        let mut outcome = pin!(async {
            match completion {
                Ok(completion) => completion.await,
                Err(error) => Err(error),
            }
        });
        let mut is_known = false;
        loop {
            tokio::select! {
                outcome = &mut outcome, if !is_known => {
                    is_known = true;
                    handle(setup, request.topic, outcome)?;
                }
                message = messages.next() => match message {
                    Some(message) if is_response(args, setup, &message, request) => {
                        return Ok(message);
                    }
                    Some(_) => {}
                    None => return Err(online::closed(setup, client.closed().await.as_ref())),
                },
            }
        }
    };
    let patience = async {
        match args.timeout {
            Some(seconds) => sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    };
    let response = tokio::select! {
        biased;
        failure = watch.failure() => Err(failure),
        response = answered => response,
        () = patience => Err(setup.failed(TIMED_OUT, "no response in time (-W)")),
    }?;
    online::with_packet(&response, print)?;
    // The response is there; that the goodbye does not arrive changes nothing.
    let _ = client.disconnect().await;
    Ok(())
}

async fn subscribe(
    args: &Rr,
    setup: &Setup<'_>,
    client: &Client,
    response_topic: &str,
) -> Result<(), Failure> {
    let mut filter = Filter::new(response_topic).qos(args.qos.0);
    filter.properties = setup.lists.subscribe.iter().copied().collect();
    match client.subscribe_for_all(filter).await {
        Ok(_) => Ok(()),
        Err(error) => Err(online::not_subscribed(setup, response_topic, &error)),
    }
}

/// What became of the request.
fn handle(setup: &Setup<'_>, topic: &str, outcome: Outcome) -> Result<(), Failure> {
    match outcome {
        Ok(reason) => {
            setup.debug(|| format!("PUBLISH acknowledged: {reason}"));
            if reason == ReasonCode::NoMatchingSubscribers {
                setup.warn(&format!("nobody has subscribed to {topic}"));
            }
            Ok(())
        }
        Err(PublishError::Refused(reason, _)) => {
            Err(setup.failed(reason as u8, format!("the broker refused the request: {reason}")))
        }
        Err(PublishError::Closed(why)) => Err(online::closed(setup, why.as_ref())),
        Err(error) => Err(setup.failed(1, format!("the request: {error}"))),
    }
}

fn is_response(args: &Rr, setup: &Setup<'_>, message: &Incoming, request: &Publish<'_>) -> bool {
    let asked = request.properties.iter().find_map(|property| match property {
        Property::CorrelationData(data) => Some(data),
        _ => None,
    });
    let answers = match (message.correlation_data(), asked) {
        (Some(one), Some(other)) => one == other,
        _ => true,
    };
    let taken = answers && !(args.no_retained && message.retain);
    if !taken {
        setup.debug(|| format!("PUBLISH received, no response: {}", message.topic));
    }
    taken
}
