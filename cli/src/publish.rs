//! `whimbrel pub`: publish messages, with the habits of mosquitto_pub.

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use clap::{ArgGroup, Args};
use whimbrel_client::single::{Client, Settings};
use whimbrel_client::{Error, Event};
use whimbrel_codec::{Disconnect, Properties, Publish, QoS, ReasonCode};

use crate::args::{Connection, QosArg, Setup};
use crate::failure::Failure;
use crate::payload::PayloadArgs;
use crate::record::{self, Recorded, Recording};
use crate::{defaults, message_line, topic, unsupported};

/// Lines of stdin that wait for the broker, at most.
const LINES_MAX: usize = 64;

/// Long enough to matter to nobody; keep alive and the waker end the wait earlier.
const LONG: Duration = Duration::from_secs(3600);

/// A broker that takes nothing for so long will not take the rest.
const STALLED: Duration = Duration::from_secs(60);

const EXAMPLES: &str = "\
Examples:
  whimbrel pub -t boiler/temperature -m 64.5              one message
  whimbrel pub -t boiler/state -m on -q 1 -r              acknowledged, and kept for later
  whimbrel pub -t boiler/state -n -r                      remove what was kept
  sensor | whimbrel pub -t boiler/log -l -q 1             each line of stdin
  whimbrel pub -t a -f photo.jpg -D publish content-type image/jpeg
  whimbrel pub --replay day.jsonl --speed 10 --topic-prefix test/

Exit codes:
  0 all was published, and with QoS 1 and 2 acknowledged; the broker's reason code if it refuses
  the connection (CONNACK of 3.1.1: 1 to 5) or a message; 1 anything else.";

fn help() -> String {
    format!(
        "{EXAMPLES}\n\n{}\n{}.\n\n{}\n\n{}",
        record::FORMAT_HELP,
        message_line::FIELDS_HELP,
        defaults::HELP,
        unsupported::HELP,
    )
}

/// Publish messages.
#[derive(Args, Debug)]
#[command(disable_help_flag = true, disable_version_flag = true, after_help = help())]
#[command(args_override_self = true)]
#[command(group(ArgGroup::new("payload").required(true)))]
pub struct Pub {
    /// Topic to publish to.
    #[arg(short, long, allow_hyphen_values = true)]
    #[arg(required_unless_present_any = ["url", "replay"])]
    topic: Option<String>,
    #[command(flatten)]
    payload: PayloadArgs,
    /// Publish each line of stdin as a message.
    #[arg(short = 'l', long, group = "payload", help_heading = "Payload")]
    stdin_line: bool,
    /// Publish what `whimbrel sub --record` wrote, at the same distances.
    #[arg(long, value_name = "FILE", group = "payload", help_heading = "Replay")]
    replay: Option<PathBuf>,
    /// So many times as fast; max: without waiting.
    #[arg(long, value_name = "FACTOR", help_heading = "Replay")]
    speed: Option<Speed>,
    /// Start again at the end of the file, for ever.
    #[arg(long = "loop", help_heading = "Replay")]
    endless: bool,
    /// Put this before each topic of the recording, as in test/.
    #[arg(long, value_name = "PREFIX", allow_hyphen_values = true, help_heading = "Replay")]
    topic_prefix: Option<String>,
    /// Quality of service; 0 if not given, or that of the recording.
    #[arg(short, long)]
    qos: Option<QosArg>,
    /// Have the broker keep the message for later subscribers.
    #[arg(short, long)]
    retain: bool,
    /// Publish the message so many times, each once the one before has arrived.
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    #[arg(conflicts_with_all = ["stdin_line", "replay"])]
    repeat: u64,
    /// Seconds between repeated messages.
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0)]
    repeat_delay: f64,
    #[command(flatten)]
    connection: Connection,
}

/// How many times as fast a recording is published.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Speed {
    Times(f64),
    Max,
}

impl FromStr for Speed {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Speed, &'static str> {
        let factor = text.parse().ok().filter(|factor: &f64| *factor > 0.0 && factor.is_finite());
        match text {
            "max" => Ok(Speed::Max),
            _ => factor.map(Speed::Times).ok_or("expected a number above 0, or max"),
        }
    }
}

impl Speed {
    /// How long after the start a message is published that was recorded after `at`.
    fn of(self, at: Duration) -> Duration {
        match self {
            Speed::Max => Duration::ZERO,
            Speed::Times(factor) => {
                Duration::try_from_secs_f64(at.as_secs_f64() / factor).unwrap_or(Duration::MAX)
            }
        }
    }
}

/// Connects, publishes, waits until everything has arrived, disconnects.
pub fn run(args: &Pub) -> Result<(), Failure> {
    let setup = args.connection.setup()?;
    let topic = args.topic.as_deref().or(setup.topic.as_deref()).unwrap_or_default();
    match &args.replay {
        Some(path) => check_recording(path, args, &setup)?,
        // A requirement that clap does not see, as the group excludes --replay.
        None if args.endless || args.speed.is_some() || args.topic_prefix.is_some() => {
            return Err(Failure::usage("--speed, --loop and --topic-prefix need --replay"));
        }
        None => check_topic(topic)?,
    }
    let delay = Duration::try_from_secs_f64(args.repeat_delay)
        .map_err(|_| Failure::usage("--repeat-delay takes a number of seconds"))?;
    let payload = args.payload.read()?;
    let (client, connected) =
        Client::connect(&setup.address, &setup.connect(), &Settings::default())
            .map_err(|error| setup.failure(&error))?;
    setup.debug(|| format!("CONNACK received, session present: {}", connected.session_present));
    let message = Publish {
        qos: args.qos.map_or(QoS::AtMostOnce, |QosArg(qos)| qos),
        retain: args.retain,
        properties: Properties::new(&setup.lists.publish),
        ..Publish::new(topic, &payload)
    };
    let mut publisher = Publisher { setup: &setup, client, refused: None };
    let published = if let Some(path) = &args.replay {
        publisher.replay(path, args)
    } else if args.stdin_line {
        publisher.publish_lines(&message)
    } else {
        publisher.publish_repeatedly(&message, args.repeat, delay)
    };
    published.and_then(|()| publisher.finish()).map_err(|stop| match stop {
        Stop::Client(error) => setup.failure(&error),
        Stop::Failure(failure) => failure,
    })
}

fn check_topic(topic: &str) -> Result<(), Failure> {
    match topic {
        "" => Err(Failure::usage("no topic: add -t, or a path to the URL")),
        topic if !topic::is_name(topic) => Err(Failure::usage(format!(
            "-t {topic}: a topic to publish to must not be empty or contain + or #"
        ))),
        _ => Ok(()),
    }
}

/// Reads all of it once: half of a recording is worse than none.
fn check_recording(path: &Path, args: &Pub, setup: &Setup<'_>) -> Result<(), Failure> {
    if args.topic.is_some() {
        let what = "-t and --replay: the topics are in the recording; see --topic-prefix";
        return Err(Failure::usage(what));
    }
    if args.topic_prefix.as_ref().is_some_and(|prefix| !topic::is_name(prefix)) {
        return Err(Failure::usage("--topic-prefix must not be empty or contain + or #"));
    }
    let mut recording = Recording::open(path)?;
    let (mut count, mut has_properties) = (0_u64, false);
    while let Some(recorded) = recording.next()? {
        count += 1;
        has_properties |= !recorded.message.properties.is_empty();
    }
    if has_properties && !setup.version.is_v5() {
        setup.warn("the recording has properties, which only -V 5 can publish");
    }
    let name = path.display();
    if count == 0 {
        return Err(Failure::usage(format!("--replay {name}: there is no message in it")));
    }
    setup.debug(|| format!("{name}: {count} messages"));
    Ok(())
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
    /// The last refusal; the others are published all the same.
    refused: Option<ReasonCode>,
}

impl Publisher<'_> {
    fn publish_repeatedly(
        &mut self,
        message: &Publish<'_>,
        count: u64,
        delay: Duration,
    ) -> Result<(), Stop> {
        for index in 0..count {
            if index > 0 {
                self.wait_until(Instant::now() + delay)?;
            }
            self.publish(message)?;
            self.settle()?;
        }
        Ok(())
    }

    /// Lines are read on a thread of their own, so that pings go on while none comes.
    fn publish_lines(&mut self, message: &Publish<'_>) -> Result<(), Stop> {
        let lines = read_lines(self.client.waker());
        loop {
            match lines.try_recv() {
                Ok(Ok(line)) => self.publish(&Publish { payload: &line, ..*message })?,
                Ok(Err(error)) => {
                    let failure = self.setup.failed(1, format!("cannot read stdin: {error}"));
                    return Err(Stop::Failure(failure));
                }
                Err(TryRecvError::Empty) => self.poll(LONG)?,
                Err(TryRecvError::Disconnected) => return Ok(()),
            }
        }
    }

    /// Each message at its time, as long as the broker keeps up.
    fn replay(&mut self, path: &Path, args: &Pub) -> Result<(), Stop> {
        let speed = args.speed.unwrap_or(Speed::Times(1.0));
        let prefix = args.topic_prefix.as_deref().unwrap_or_default();
        loop {
            let start = Instant::now();
            let mut recording = Recording::open(path).map_err(Stop::Failure)?;
            while let Some(Recorded { at, mut message }) =
                recording.next().map_err(Stop::Failure)?
            {
                if let Some(at) = start.checked_add(speed.of(at)) {
                    self.wait_until(at)?;
                }
                message.topic.insert_str(0, prefix);
                let recorded = message.publish();
                let qos = args.qos.map_or(recorded.qos, |QosArg(qos)| qos);
                let retain = recorded.retain || args.retain;
                self.publish(&Publish { qos, retain, ..recorded })?;
            }
            self.settle()?;
            if !args.endless {
                return Ok(());
            }
        }
    }

    fn publish(&mut self, message: &Publish<'_>) -> Result<(), Stop> {
        loop {
            match self.client.publish(message) {
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

    fn wait_until(&mut self, at: Instant) -> Result<(), Stop> {
        loop {
            let left = at.saturating_duration_since(Instant::now());
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
