//! `whimbrel pub`: publish messages, with the habits of mosquitto_pub.

use std::io::{BufRead, Read};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use clap::{ArgGroup, Args};
use whimbrel_client::single::{Client, Settings};
use whimbrel_client::{Error, Event};
use whimbrel_codec::{Disconnect, Properties, Publish, ReasonCode};

use crate::args::{Connection, QosArg, Setup};
use crate::failure::Failure;
use crate::topic;

/// Lines of stdin that wait for the broker, at most.
const LINES_MAX: usize = 64;

/// Long enough to matter to nobody; keep alive and the waker end the wait earlier.
const LONG: Duration = Duration::from_secs(3600);

/// A broker that takes nothing for so long will not take the rest.
const STALLED: Duration = Duration::from_secs(60);

/// Publish messages.
#[derive(Args, Debug)]
#[command(disable_help_flag = true, disable_version_flag = true)]
#[command(group(ArgGroup::new("payload").required(true)))]
pub struct Pub {
    /// Topic to publish to.
    #[arg(short, long, allow_hyphen_values = true, required_unless_present = "url")]
    topic: Option<String>,
    /// Publish this text.
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true, group = "payload")]
    message: Option<String>,
    /// Publish the content of a file as one message.
    #[arg(short, long, group = "payload")]
    file: Option<PathBuf>,
    /// Publish each line of stdin as a message.
    #[arg(short = 'l', long, group = "payload")]
    stdin_line: bool,
    /// Publish all of stdin as one message.
    #[arg(short, long, group = "payload")]
    stdin_file: bool,
    /// Publish an empty message.
    #[arg(short, long, group = "payload")]
    null_message: bool,
    /// Quality of service.
    #[arg(short, long, default_value = "0")]
    qos: QosArg,
    /// Have the broker keep the message for later subscribers.
    #[arg(short, long)]
    retain: bool,
    /// Publish the message so many times, each once the one before has arrived.
    #[arg(long, value_name = "COUNT", conflicts_with = "stdin_line", default_value_t = 1)]
    repeat: u64,
    /// Seconds between repeated messages.
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0)]
    repeat_delay: f64,
    #[command(flatten)]
    connection: Connection,
}

/// Connects, publishes, waits until everything has arrived, disconnects.
pub fn run(args: &Pub) -> Result<(), Failure> {
    let setup = args.connection.setup()?;
    let topic = args.topic.as_deref().or(setup.topic.as_deref());
    let topic = topic.ok_or_else(|| Failure::usage("no topic: add -t, or a path to the URL"))?;
    if !topic::is_name(topic) {
        return Err(Failure::usage(format!(
            "-t {topic}: a topic to publish to must not be empty or contain + or #"
        )));
    }
    let delay = Duration::try_from_secs_f64(args.repeat_delay)
        .map_err(|_| Failure::usage("--repeat-delay takes a number of seconds"))?;
    let payload = payload(args)?;
    let (client, connected) =
        Client::connect(&setup.address, &setup.connect(), &Settings::default())
            .map_err(|error| setup.failure(&error))?;
    setup.debug(|| format!("CONNACK received, session present: {}", connected.session_present));
    let message = Publish {
        qos: args.qos.0,
        retain: args.retain,
        properties: Properties::new(&setup.lists.publish),
        ..Publish::new(topic, &payload)
    };
    let mut publisher = Publisher { setup: &setup, client, message, refused: None };
    let published = if args.stdin_line {
        publisher.publish_lines()
    } else {
        publisher.publish_repeatedly(args.repeat, delay)
    };
    published.and_then(|()| publisher.finish()).map_err(|stop| match stop {
        Stop::Client(error) => setup.failure(&error),
        Stop::Failure(failure) => failure,
    })
}

/// What is published by everything but `-l`.
fn payload(args: &Pub) -> Result<Vec<u8>, Failure> {
    if let Some(path) = &args.file {
        let named = |error| Failure::usage(format!("-f {}: {error}", path.display()));
        return std::fs::read(path).map_err(named);
    }
    let mut payload = Vec::new();
    if args.stdin_file {
        let read = std::io::stdin().lock().read_to_end(&mut payload);
        read.map_err(|error| Failure::new(1, format!("cannot read stdin: {error}")))?;
    } else if let Some(message) = &args.message {
        payload.extend_from_slice(message.as_bytes());
    }
    Ok(payload)
}

/// Why publishing ended early.
enum Stop {
    Client(Error),
    Failure(Failure),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Client(error)
    }
}

struct Publisher<'a> {
    setup: &'a Setup<'a>,
    client: Client,
    message: Publish<'a>,
    /// The last refusal; the others are published all the same.
    refused: Option<ReasonCode>,
}

impl Publisher<'_> {
    fn publish_repeatedly(&mut self, count: u64, delay: Duration) -> Result<(), Stop> {
        for index in 0..count {
            if index > 0 {
                self.pause(delay)?;
            }
            self.publish(None)?;
            self.settle()?;
        }
        Ok(())
    }

    /// Lines are read on a thread of their own, so that pings go on while none comes.
    fn publish_lines(&mut self) -> Result<(), Stop> {
        let lines = read_lines(self.client.waker());
        loop {
            match lines.try_recv() {
                Ok(Ok(line)) => self.publish(Some(&line))?,
                Ok(Err(error)) => {
                    let failure = self.setup.failed(1, format!("cannot read stdin: {error}"));
                    return Err(Stop::Failure(failure));
                }
                Err(TryRecvError::Empty) => self.poll(LONG)?,
                Err(TryRecvError::Disconnected) => return Ok(()),
            }
        }
    }

    fn publish(&mut self, line: Option<&[u8]>) -> Result<(), Stop> {
        let message = Publish { payload: line.unwrap_or(self.message.payload), ..self.message };
        loop {
            match self.client.publish(&message) {
                Ok(id) => {
                    let id = id.map_or(0, |id| id.get());
                    self.setup.debug(|| {
                        let (topic, len) = (message.topic, message.payload.len());
                        format!("PUBLISH sent, id {id}, {topic}, {len} bytes")
                    });
                    return Ok(());
                }
                Err(error) if is_full(&error) => self.poll(LONG)?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Until everything published has arrived.
    fn settle(&mut self) -> Result<(), Stop> {
        while self.client.core().in_flight() > 0 {
            self.poll(LONG)?;
        }
        Ok(self.client.flush(STALLED)?)
    }

    fn pause(&mut self, delay: Duration) -> Result<(), Stop> {
        let until = Instant::now() + delay;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            self.poll(left)?;
        }
    }

    fn poll(&mut self, timeout: Duration) -> Result<(), Stop> {
        if let Some(Event::Published(ack)) = self.client.poll(timeout)? {
            let id = ack.packet_id.get();
            self.setup.debug(|| format!("PUBLISH acknowledged, id {id}: {}", ack.reason));
            if ack.reason.is_error() {
                self.setup.warn(&format!("the broker refused message {id}: {}", ack.reason));
                self.refused = Some(ack.reason);
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(), Stop> {
        self.settle()?;
        let properties = Properties::new(&self.setup.lists.disconnect);
        let disconnect = Disconnect { reason: ReasonCode::Success, properties };
        self.client.disconnect(&disconnect)?;
        self.setup.debug(|| "DISCONNECT sent".into());
        match self.refused {
            Some(reason) => {
                let message = format!("the broker refused what was published: {reason}");
                Err(Stop::Failure(self.setup.failed(reason as u8, message)))
            }
            None => Ok(()),
        }
    }
}

/// Whether to poll and try again.
pub fn is_full(error: &Error) -> bool {
    matches!(error, Error::Command(error) if *error == whimbrel_client::CommandError::Full)
}

type Lines = Receiver<std::io::Result<Vec<u8>>>;

fn read_lines(waker: std::sync::Arc<whimbrel_client::single::Waker>) -> Lines {
    let (sender, receiver) = sync_channel(LINES_MAX);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().split(b'\n') {
            if sender.send(line).is_err() {
                return;
            }
            // A failed wake-up can only mean that the client is gone, and then so is the receiver.
            let _ = waker.wake();
        }
        drop(sender);
        let _ = waker.wake();
    });
    receiver
}
