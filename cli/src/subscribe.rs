//! `whimbrel sub`: subscribe and print messages, with the habits of mosquitto_sub.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::pin::pin;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use whimbrel_client::{
    AllMessages, Client, Filter, Incoming, Message, PropertyList, SubscribeError, WhenFull,
};
use whimbrel_codec::{Publish, QoS, ReasonCode};

use crate::args::{Connection, QosArg, Setup};
use crate::failure::{Failure, TIMED_OUT};
use crate::message_line;
use crate::online::{self, Watch, block_on};
use crate::output::{OutputArgs, Printer};
use crate::record::{self, Recorder};
use crate::{defaults, topic, unsupported};

/// Messages that wait to be printed, before no more are read.
const QUEUE_LEN: usize = 1024;

/// Messages that are written before they are flushed and acknowledged together.
const BATCH_MAX: usize = 1024;

/// Retained messages that are being removed at one time, and how long the last ones may take.
const REMOVALS_MAX: usize = 1024;
const REMOVALS_PATIENCE: Duration = Duration::from_secs(5);

/// Of a timer that is not looked at.
const FOR_EVER: Duration = Duration::from_secs(86_400);

const EXAMPLES: &str = "\
Examples:
  whimbrel sub -t 'boiler/#' -v                    topics and payloads, until ctrl-C
  whimbrel sub -t boiler/state -C 1                wait for one message, print it, and end
  whimbrel sub -t 'boiler/#' -v --view auto        JSON indented, CBOR and bytes readable
  whimbrel sub -t '#' --json | jq .topic           for scripts
  whimbrel sub -t 'boiler/#' --record day.jsonl    to be published again by pub --replay
  whimbrel sub -t 'boiler/#' --retained-only --remove-retained -v -W 1

Exit codes:
  0 ended as asked; 27 -W ran out; the broker's reason code if it refuses the connection or grants
  no subscription (CONNACK of 3.1.1: 1 to 5); 1 anything else.";

fn help() -> String {
    format!(
        "{EXAMPLES}\n\n--json prints time (RFC 3339) and the fields\n{}.\n\n{} of --json.\n\n{}\n\n{}",
        message_line::FIELDS_HELP,
        record::FORMAT_HELP,
        defaults::HELP,
        unsupported::HELP,
    )
}

/// Subscribe, and print messages.
#[derive(Args, Debug)]
#[command(disable_help_flag = true, disable_version_flag = true, after_help = help())]
#[command(args_override_self = true)]
pub struct Sub {
    /// Topic filter to subscribe to; may be repeated.
    #[arg(short, long, value_name = "FILTER", required_unless_present_any = ["url", "unsubscribe"])]
    topic: Vec<String>,
    /// Do not print messages whose topic matches this filter; may be repeated.
    #[arg(short = 'T', long, value_name = "FILTER")]
    filter_out: Vec<String>,
    /// Unsubscribe from this filter, of a session that was kept; may be repeated.
    #[arg(short = 'U', long, value_name = "FILTER")]
    unsubscribe: Vec<String>,
    /// Quality of service wanted.
    #[arg(short, long, default_value = "0")]
    qos: QosArg,
    /// End after so many messages.
    #[arg(short = 'C', value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after so many seconds, with exit code 27.
    #[arg(short = 'W', value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    timeout: Option<u64>,
    /// End once the subscriptions are acknowledged.
    #[arg(short = 'E')]
    exit_after_suback: bool,
    /// Do not print retained messages.
    #[arg(short = 'R', help_heading = "Retained messages")]
    no_retained: bool,
    /// Print only retained messages, and end at the first other one.
    #[arg(long, conflicts_with = "no_retained", help_heading = "Retained messages")]
    retained_only: bool,
    /// Remove each retained message that comes from the broker, except those that -T matches.
    #[arg(long, help_heading = "Retained messages")]
    remove_retained: bool,
    /// Have the retained flag as the publisher set it (5.0).
    #[arg(long, help_heading = "Retained messages")]
    retain_as_published: bool,
    /// Print only so many of 100 messages, chosen at random: 0.1 to 100.
    #[arg(long, value_name = "PERCENT", help_heading = "Output")]
    random_filter: Option<Percent>,
    /// Write what is received to this file too, with its timing, for `whimbrel pub --replay`.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    record: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connection: Connection,
}

/// 0.1 to 100.
#[derive(Clone, Copy, Debug)]
struct Percent(f64);

impl FromStr for Percent {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Percent, &'static str> {
        let percent = text.parse().ok().filter(|percent| (0.1..=100.0).contains(percent));
        percent.map(Percent).ok_or("expected a number from 0.1 to 100")
    }
}

/// Connects, subscribes and prints until told to end.
pub fn run(args: &Sub) -> Result<(), Failure> {
    let setup = args.connection.setup()?;
    let filters = filters(args, &setup)?;
    let printer = args.output.printer()?;
    let recorder = args.record.as_deref().map(|path| Recorder::create(path, &filters));
    let received = Received::new(args, printer, recorder.transpose()?);
    block_on(async {
        let (client, watch) = online::connect(&setup, setup.builder_of_tool()).await?;
        let mut subscriber = Subscriber::new(args, &setup, client, received);
        let end = subscriber.run(&filters, watch).await;
        subscriber.finish(end?).await
    })
}

fn filters<'a>(args: &'a Sub, setup: &'a Setup<'_>) -> Result<Vec<&'a str>, Failure> {
    let topics = args.topic.iter().chain(&setup.topic).map(String::as_str);
    let filters: Vec<_> = topics.collect();
    if filters.is_empty() && args.unsubscribe.is_empty() {
        return Err(Failure::usage("no topic: add -t, or a path to the URL"));
    }
    if args.retain_as_published && !setup.version.is_v5() {
        return Err(Failure::usage("--retain-as-published needs -V 5"));
    }
    let others = args.filter_out.iter().chain(&args.unsubscribe).map(String::as_str);
    match filters.iter().copied().chain(others).find(|filter| !topic::is_filter(filter)) {
        Some(filter) => Err(Failure::usage(format!(
            "{filter:?} is not a topic filter: + must be a whole level, # the last one"
        ))),
        None => Ok(filters),
    }
}

/// Why subscribing ends.
enum End {
    /// As asked for.
    Done,
    TimedOut,
    /// Nobody reads stdout any more.
    BrokenPipe,
    /// The broker granted no subscription.
    Denied(ReasonCode),
    /// What was received could not be written.
    Output(Failure),
}

struct Subscriber<'a> {
    args: &'a Sub,
    setup: &'a Setup<'a>,
    client: Client,
    received: Received<'a>,
    answers: JoinSet<Answer>,
    /// The codes of SUBACK so far.
    codes: Vec<ReasonCode>,
    /// Empty messages on their way to take the place of retained ones.
    removals: JoinSet<()>,
}

/// What the broker said about a filter.
enum Answer {
    Subscribed(String, Result<ReasonCode, SubscribeError>),
    Unsubscribed(String, Result<ReasonCode, SubscribeError>),
}

impl<'a> Subscriber<'a> {
    fn new(
        args: &'a Sub,
        setup: &'a Setup<'a>,
        client: Client,
        received: Received<'a>,
    ) -> Subscriber<'a> {
        let (answers, removals) = (JoinSet::new(), JoinSet::new());
        Subscriber { args, setup, client, received, answers, codes: Vec::new(), removals }
    }

    /// Until one of many reasons to end.
    async fn run(&mut self, filters: &[&str], mut watch: Watch<'_>) -> Result<End, Failure> {
        let unheard = |error| Failure::new(1, format!("cannot wait for signals: {error}"));
        let mut interrupt = signal(SignalKind::interrupt()).map_err(unheard)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(unheard)?;
        let seconds = self.args.timeout.map_or(FOR_EVER, Duration::from_secs);
        let mut patience = pin!(sleep(seconds));
        let mut messages = self.client.all_messages(QUEUE_LEN, WhenFull::Wait).manual_ack();
        self.ask(filters);
        loop {
            let is_idle = self.removals.len() < REMOVALS_MAX;
            let end = tokio::select! {
                biased;
                _ = interrupt.recv() => Some(End::Done),
                _ = terminate.recv() => Some(End::Done),
                () = &mut patience, if self.args.timeout.is_some() => Some(End::TimedOut),
                Some(Ok(answer)) = self.answers.join_next() => self.handle_answer(answer)?,
                Some(_) = self.removals.join_next() => None,
                message = messages.next(), if is_idle => match message {
                    Some(message) => self.handle_messages(message, &mut messages).err(),
                    // The watch says why.
                    None => return Err(watch.failure().await),
                },
                failure = watch.failure() => return Err(failure),
            };
            if let Some(end) = end {
                return Ok(end);
            }
        }
    }

    fn ask(&mut self, filters: &[&str]) {
        let property = self.setup.lists.subscribe.iter().copied();
        for name in filters {
            let mut filter = Filter::new(*name).qos(self.args.qos.0);
            filter = filter.retain_as_published(self.args.retain_as_published);
            filter.properties = property.clone().collect();
            let (client, name) = (self.client.clone(), name.to_string());
            self.answers.spawn(async move {
                Answer::Subscribed(name, client.subscribe_for_all(filter).await)
            });
        }
        for name in &self.args.unsubscribe {
            let properties: PropertyList = self.setup.lists.unsubscribe.iter().copied().collect();
            let (client, name) = (self.client.clone(), name.clone());
            self.answers.spawn(async move {
                let answer = client.unsubscribe(&name, properties).await;
                Answer::Unsubscribed(name, answer)
            });
        }
    }

    fn handle_answer(&mut self, answer: Answer) -> Result<Option<End>, Failure> {
        match answer {
            Answer::Subscribed(_, Ok(code) | Err(SubscribeError::Refused(code))) => {
                self.codes.push(code);
            }
            Answer::Unsubscribed(name, Ok(code) | Err(SubscribeError::Refused(code))) => {
                self.setup.debug(|| format!("UNSUBACK received, {name}: {code}"));
            }
            // The watch says why.
            Answer::Subscribed(_, Err(SubscribeError::Closed(_))) => {}
            Answer::Subscribed(name, Err(error)) | Answer::Unsubscribed(name, Err(error)) => {
                return Err(online::not_subscribed(self.setup, &name, &error));
            }
        }
        if !self.answers.is_empty() {
            return Ok(None);
        }
        self.setup.debug(|| "all subscriptions are answered".into());
        let denied = self.codes.last().filter(|_| self.codes.iter().all(|code| code.is_error()));
        Ok(match denied {
            Some(code) => Some(End::Denied(*code)),
            None => self.args.exit_after_suback.then_some(End::Done),
        })
    }

    /// Hands on the messages that are here, which are acknowledged when the system has all of them.
    fn handle_messages(&mut self, first: Incoming, more: &mut AllMessages) -> Result<(), End> {
        let (mut next, mut taken) = (Some(first), 0);
        while let Some(message) = next {
            self.handle_message(message)?;
            taken += 1;
            let takes_more = taken < BATCH_MAX && self.removals.len() < REMOVALS_MAX;
            next = if takes_more { more.try_next() } else { None };
        }
        self.received.flush()
    }

    fn handle_message(&mut self, message: Incoming) -> Result<(), End> {
        self.setup.debug(|| {
            let (topic, len) = (&message.topic, message.payload.len());
            format!("PUBLISH received, {topic}, {len} bytes")
        });
        online::with_packet(&message, |packet| {
            if self.received.is_to_be_removed(packet) {
                let empty = Message::new(packet.topic, "").qos(QoS::AtLeastOnce).retain(true);
                let client = self.client.clone();
                self.removals.spawn(async move {
                    // That it could not be removed shows when it comes again.
                    if let Ok(completion) = client.publish(empty).await {
                        let _ = completion.await;
                    }
                });
            }
            self.received.handle(packet)
        })?;
        self.received.await_flush(message)
    }

    async fn finish(mut self, end: End) -> Result<(), Failure> {
        let flushed = self.received.flush();
        // Whatever goes wrong with them now changes nothing.
        let removed = async { while self.removals.join_next().await.is_some() {} };
        let _ = timeout(REMOVALS_PATIENCE, removed).await;
        if self.client.disconnect().await.is_ok() {
            self.setup.debug(|| "DISCONNECT sent".into());
        }
        match flushed.err().unwrap_or(end) {
            End::Done | End::BrokenPipe => Ok(()),
            End::TimedOut => Err(self.setup.failed(TIMED_OUT, "timed out (-W)")),
            End::Denied(reason) => {
                let message = format!("the broker granted no subscription: {reason}");
                Err(self.setup.failed(reason as u8, message))
            }
            End::Output(failure) => Err(failure),
        }
    }
}

/// What becomes of messages.
struct Received<'a> {
    args: &'a Sub,
    printer: Printer,
    recorder: Option<Recorder>,
    printed: u64,
    /// Handled, and perhaps not with the system yet.
    unacknowledged: Vec<Incoming>,
}

impl<'a> Received<'a> {
    fn new(args: &'a Sub, printer: Printer, recorder: Option<Recorder>) -> Received<'a> {
        Received { args, printer, recorder, printed: 0, unacknowledged: Vec::new() }
    }

    /// Prints and records a message that was asked for; fails with an end if it is not to be taken.
    fn handle(&mut self, message: &Publish<'_>) -> Result<(), End> {
        let args = self.args;
        if self.is_filtered_out(message) || (args.no_retained && message.retain) {
            return Ok(());
        }
        if args.retained_only && !message.retain {
            return Err(End::Done);
        }
        if args.random_filter.is_some_and(|percent| !happens(percent)) {
            return Ok(());
        }
        self.printed += 1;
        if let Some(recorder) = &mut self.recorder {
            recorder.record(message).map_err(End::Output)?;
        }
        Ok(self.printer.print(message)?)
    }

    /// Acknowledges a message that was handled with the next flush. Fails with an end if it was the
    /// last one.
    fn await_flush(&mut self, message: Incoming) -> Result<(), End> {
        if message.packet_id.is_some() {
            self.unacknowledged.push(message);
        }
        let is_last = self.args.count.is_some_and(|count| self.printed >= count);
        if is_last { Err(End::Done) } else { Ok(()) }
    }

    fn is_filtered_out(&self, message: &Publish<'_>) -> bool {
        self.args.filter_out.iter().any(|filter| topic::matches(filter, message.topic))
    }

    fn is_to_be_removed(&self, message: &Publish<'_>) -> bool {
        self.args.remove_retained && message.retain && !self.is_filtered_out(message)
    }

    /// Hands to the system what was printed and recorded, and then acknowledges it.
    fn flush(&mut self) -> Result<(), End> {
        if let Some(recorder) = &mut self.recorder {
            recorder.flush().map_err(End::Output)?;
        }
        self.printer.flush()?;
        for mut message in self.unacknowledged.drain(..) {
            // If its connection is gone, the broker delivers it again.
            let _ = message.ack();
        }
        Ok(())
    }
}

/// True so many times out of 100; also if the system has no randomness to give.
fn happens(Percent(percent): Percent) -> bool {
    let number = getrandom::u32().map_or(0.0, |number| f64::from(number) / f64::from(u32::MAX));
    number * 100.0 <= percent
}

impl From<std::io::Error> for End {
    fn from(error: std::io::Error) -> End {
        match error.kind() {
            ErrorKind::BrokenPipe => End::BrokenPipe,
            _ => End::Output(Failure::new(1, format!("cannot write to stdout: {error}"))),
        }
    }
}
