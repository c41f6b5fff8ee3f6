//! `whimbrel sub`: subscribe and print messages, with the habits of mosquitto_sub.

use std::io::{BufWriter, ErrorKind, StdoutLock, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use signal_hook::consts::{SIGINT, SIGTERM};
use whimbrel_client::single::{Client, Settings};
use whimbrel_client::{Error, Event, Failure as Failed};
use whimbrel_codec::{Disconnect, Properties, Publish, QoS, ReasonCode, Subscription};

use crate::args::{Connection, QosArg, Setup};
use crate::failure::Failure;
use crate::format::Format;
use crate::publish::is_full;
use crate::topic;

/// The exit code of `-W`, as scripts for mosquitto_sub expect it.
const TIMED_OUT: u8 = 27;
const LONG: Duration = Duration::from_secs(3600);
const RETRY: Duration = Duration::from_secs(1);

/// Subscribe, and print messages.
#[derive(Args, Debug)]
#[command(disable_help_flag = true, disable_version_flag = true)]
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
    /// Print the topic before the payload.
    #[arg(short, long, help_heading = "Output")]
    verbose: bool,
    /// Print in this format: %t topic, %p payload, %q QoS, %r retained, %l length, %m packet
    /// identifier, %x %X hexadecimal payload, %I %U time, %j %J JSON, %A %C %D %E %F %P %R %S
    /// properties, @X strftime, \n \t \e ... as in mosquitto_sub(1).
    #[arg(short = 'F', value_name = "FORMAT", allow_hyphen_values = true, help_heading = "Output")]
    format: Option<String>,
    /// Indent the JSON of %j and %J.
    #[arg(long, help_heading = "Output")]
    pretty: bool,
    /// Do not end each message with a newline.
    #[arg(short = 'N', help_heading = "Output")]
    no_newline: bool,
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
    #[command(flatten)]
    connection: Connection,
}

/// Connects, subscribes and prints until told to end.
pub fn run(args: &Sub) -> Result<(), Failure> {
    let setup = args.connection.setup()?;
    let filters = filters(args, &setup)?;
    let format = format(args)?;
    let stop = Arc::new(AtomicBool::new(false));
    let (client, connected) =
        Client::connect(&setup.address, &setup.connect(), &Settings::default())
            .map_err(|error| setup.failure(&error))?;
    setup.debug(|| format!("CONNACK received, session present: {}", connected.session_present));
    wake_on_signal(&client, stop.clone())
        .map_err(|error| Failure::new(1, format!("cannot wait for signals: {error}")))?;
    let mut subscriber = Subscriber {
        args,
        setup: &setup,
        filters,
        client,
        stop,
        deadline: args.timeout.map(|seconds| Instant::now() + Duration::from_secs(seconds)),
        printer: Printer { out: BufWriter::new(std::io::stdout().lock()), format },
        printed: 0,
        answers: 0,
    };
    let result = subscriber.run();
    let end = match result {
        Ok(end) => end,
        Err(error) => return Err(setup.failure(&error)),
    };
    subscriber.finish(end)
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

fn format(args: &Sub) -> Result<Format, Failure> {
    let mut text = match (&args.format, args.verbose) {
        (Some(format), _) => format.clone(),
        (None, true) => "%t %p".into(),
        (None, false) => "%p".into(),
    };
    if !args.no_newline {
        text.push_str("\\n");
    }
    Format::parse(&text, args.pretty).map_err(|error| Failure::usage(format!("-F: {error}")))
}

/// The signal's thread wakes the client's poll; a flag alone could be missed before a long wait.
fn wake_on_signal(client: &Client, stop: Arc<AtomicBool>) -> std::io::Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
    let waker = client.waker();
    std::thread::spawn(move || {
        for _ in signals.forever() {
            stop.store(true, Ordering::SeqCst);
            // A failed wake-up can only mean that the client is gone already.
            let _ = waker.wake();
        }
    });
    Ok(())
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
    Output(std::io::Error),
}

struct Subscriber<'a> {
    args: &'a Sub,
    setup: &'a Setup<'a>,
    filters: Vec<&'a str>,
    client: Client,
    stop: Arc<AtomicBool>,
    deadline: Option<Instant>,
    printer: Printer,
    printed: u64,
    /// SUBACK and UNSUBACK that are still to come.
    answers: usize,
}

struct Printer {
    out: BufWriter<StdoutLock<'static>>,
    format: Format,
}

impl Subscriber<'_> {
    fn run(&mut self) -> Result<End, Error> {
        self.subscribe()?;
        loop {
            if self.stop.load(Ordering::SeqCst) {
                return Ok(End::Done);
            }
            let timeout = match self.deadline {
                None => LONG,
                Some(at) => at.saturating_duration_since(Instant::now()),
            };
            if timeout.is_zero() {
                return Ok(End::TimedOut);
            }
            match self.step(timeout) {
                Ok(Some(end)) => return Ok(end),
                Ok(None) => {}
                Err(error) if is_final(&error) => return Err(error),
                Err(error) => {
                    if let Some(end) = self.reconnect(&error)? {
                        return Ok(end);
                    }
                }
            }
        }
    }

    fn subscribe(&mut self) -> Result<(), Error> {
        self.answers = 0;
        let subscriptions: Vec<_> = self
            .filters
            .iter()
            .map(|filter| Subscription {
                retain_as_published: self.args.retain_as_published,
                ..Subscription::new(filter, self.args.qos.0)
            })
            .collect();
        if !subscriptions.is_empty() {
            let properties = Properties::new(&self.setup.lists.subscribe);
            self.client.subscribe(&subscriptions, properties)?;
            self.answers += 1;
        }
        if !self.args.unsubscribe.is_empty() {
            let filters: Vec<_> = self.args.unsubscribe.iter().map(String::as_str).collect();
            let properties = Properties::new(&self.setup.lists.unsubscribe);
            self.client.unsubscribe(&filters, properties)?;
            self.answers += 1;
        }
        Ok(())
    }

    /// Handles one event; an end if it is one.
    fn step(&mut self, timeout: Duration) -> Result<Option<End>, Error> {
        let mut remove = None;
        let end = match self.client.poll(timeout)? {
            None => self.printer.flush(),
            Some(Event::Message(message)) => {
                self.setup.debug(|| {
                    let (topic, len) = (message.topic, message.payload.len());
                    format!("PUBLISH received, {topic}, {len} bytes")
                });
                let args = self.args;
                let out =
                    args.filter_out.iter().any(|filter| topic::matches(filter, message.topic));
                if args.remove_retained && message.retain && !out {
                    remove = Some(message.topic.to_string());
                }
                if out || (args.no_retained && message.retain) {
                    None
                } else if args.retained_only && !message.retain {
                    Some(End::Done)
                } else {
                    self.printed += 1;
                    let printed = self.printer.print(&message);
                    let all = args.count.is_some_and(|count| self.printed >= count);
                    printed.or(all.then_some(End::Done))
                }
            }
            Some(Event::Subscribed(ack)) => {
                self.answers -= 1;
                let codes: Vec<_> = ack.codes.iter().collect();
                handle_suback(self.setup, &self.filters, &codes)
            }
            Some(Event::Unsubscribed(_)) => {
                self.answers -= 1;
                self.setup.debug(|| "UNSUBACK received".into());
                None
            }
            Some(_) => None,
        };
        if let Some(topic) = remove {
            self.remove_retained(&topic)?;
        }
        let acknowledged = self.args.exit_after_suback && self.answers == 0;
        Ok(end.or(acknowledged.then_some(End::Done)))
    }

    fn remove_retained(&mut self, topic: &str) -> Result<(), Error> {
        let qos = QoS::AtLeastOnce;
        let empty = Publish { qos, retain: true, ..Publish::new(topic, b"") };
        match self.client.publish(&empty) {
            // The window is far larger than what one read can bring, unless the broker is slow.
            Err(error) if is_full(&error) => {
                self.client.publish(&Publish { qos: QoS::AtMostOnce, ..empty }).map(drop)
            }
            result => result.map(drop),
        }
    }

    /// Tries again every second; an end if told to end meanwhile.
    fn reconnect(&mut self, error: &Error) -> Result<Option<End>, Error> {
        self.setup.warn(&format!("{error}; connecting again"));
        loop {
            let again = Instant::now() + RETRY;
            while Instant::now() < again {
                if self.stop.load(Ordering::SeqCst) {
                    return Ok(Some(End::Done));
                }
                if self.deadline.is_some_and(|at| Instant::now() >= at) {
                    return Ok(Some(End::TimedOut));
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            match self.client.reconnect(&self.setup.address, &self.setup.connect()) {
                Ok(_) => {
                    self.subscribe()?;
                    return Ok(None);
                }
                Err(error) if is_final(&error) => return Err(error),
                Err(_) => {}
            }
        }
    }

    fn finish(mut self, end: End) -> Result<(), Failure> {
        let flushed = self.printer.flush();
        // Removals of retained messages are to arrive; whatever goes wrong now changes nothing.
        let until = Instant::now() + Duration::from_secs(5);
        while self.client.core().in_flight() > 0 && Instant::now() < until {
            if self.client.poll(Duration::from_millis(200)).is_err() {
                break;
            }
        }
        let properties = Properties::new(&self.setup.lists.disconnect);
        let disconnect = Disconnect { reason: ReasonCode::Success, properties };
        if self.client.disconnect(&disconnect).is_ok() {
            self.setup.debug(|| "DISCONNECT sent".into());
        }
        match flushed.unwrap_or(end) {
            End::Done | End::BrokenPipe => Ok(()),
            End::TimedOut => Err(self.setup.failed(TIMED_OUT, "timed out (-W)")),
            End::Denied(reason) => {
                let message = format!("the broker granted no subscription: {reason}");
                Err(self.setup.failed(reason as u8, message))
            }
            End::Output(error) => Err(self.setup.failed(1, format!("cannot write: {error}"))),
        }
    }
}

fn handle_suback(setup: &Setup<'_>, filters: &[&str], codes: &[ReasonCode]) -> Option<End> {
    setup.debug(|| format!("SUBACK received: {codes:?}"));
    if let Some(last) = codes.last()
        && codes.iter().all(|code| code.is_error())
    {
        return Some(End::Denied(*last));
    }
    for (filter, code) in filters.iter().zip(codes).filter(|(_, code)| code.is_error()) {
        setup.warn(&format!("the broker did not grant {filter}: {code}"));
    }
    None
}

/// Errors that connecting again would only repeat.
fn is_final(error: &Error) -> bool {
    match error {
        Error::Refused(..)
        | Error::Command(_)
        | Error::WebSocket(_)
        | Error::Tls(_)
        | Error::TlsSettings(_)
        | Error::Settings(_)
        | Error::Store(_)
        | Error::Login(_) => true,
        Error::Failed(Failed::ServerMisbehaved(_)) => true,
        Error::Disconnected(reason, _) => {
            !matches!(reason, ReasonCode::ServerShuttingDown | ReasonCode::ServerBusy)
        }
        Error::Connect(..)
        | Error::Lost(_)
        | Error::Failed(_)
        | Error::TokenEnds
        | Error::Timeout => false,
    }
}

impl Printer {
    fn print(&mut self, message: &Publish<'_>) -> Option<End> {
        let mut line = Vec::new();
        if let Err(error) = self.format.render(message, &mut line) {
            eprintln!("Error: {error}");
        }
        self.out.write_all(&line).err().map(End::from)
    }

    fn flush(&mut self) -> Option<End> {
        self.out.flush().err().map(End::from)
    }
}

impl From<std::io::Error> for End {
    fn from(error: std::io::Error) -> End {
        match error.kind() {
            ErrorKind::BrokenPipe => End::BrokenPipe,
            _ => End::Output(error),
        }
    }
}
