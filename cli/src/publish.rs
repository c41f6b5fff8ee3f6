//! `whimbrel pub`: publish messages, with the habits of mosquitto_pub.

use std::collections::VecDeque;
use std::io::{self, BufRead};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::{ArgGroup, Args};
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::{Instant, sleep, sleep_until};
use whimbrel_client::{Client, Completion, Message, Outcome, PublishError};
use whimbrel_codec::{Properties, Publish, QoS, ReasonCode};

use crate::args::{Connection, QosArg, Setup};
use crate::failure::Failure;
use crate::online::{self, block_on};
use crate::payload::PayloadArgs;
use crate::record::{self, Recorded, Recording};
use crate::{defaults, message_line, topic, unsupported};

/// Lines of stdin that wait to be published, at most.
const LINES_MAX: usize = 64;

/// Messages that are not known to have arrived, at most.
const PENDING_MAX: usize = 1024;

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
    /// Messages of QoS 1 and 2 that may wait for the broker at one time.
    #[arg(short = 'M', long, value_name = "COUNT", default_value_t = 256)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    max_inflight: u16,
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
    let message = Publish {
        qos: args.qos.map_or(QoS::AtMostOnce, |QosArg(qos)| qos),
        retain: args.retain,
        properties: Properties::new(&setup.lists.publish),
        ..Publish::new(topic, &payload)
    };
    block_on(publish(args, &setup, online::message(&message), delay))
}

async fn publish(
    args: &Pub,
    setup: &Setup<'_>,
    message: Message,
    delay: Duration,
) -> Result<(), Failure> {
    // One message is either published or not; what takes time outlives a lost connection.
    let is_stream = args.stdin_line || args.replay.is_some() || args.repeat > 1;
    let builder = setup.builder_of_tool().max_in_flight(args.max_inflight).reconnect(is_stream);
    let (client, mut watch) = online::connect(setup, builder).await?;
    let mut publisher = Publisher::new(setup, client);
    let published = async {
        if let Some(path) = &args.replay {
            publisher.replay(path, args).await?;
        } else if args.stdin_line {
            publisher.publish_lines(&message).await?;
        } else {
            publisher.publish_repeatedly(&message, args.repeat, delay).await?;
        }
        publisher.finish().await
    };
    tokio::select! {
        biased;
        failure = watch.failure() => Err(failure),
        published = published => published,
    }
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

struct Publisher<'a> {
    setup: &'a Setup<'a>,
    client: Client,
    /// What is not known to have arrived, in order.
    pending: VecDeque<Completion>,
    /// The last refusal; the others are published all the same.
    refused: Option<ReasonCode>,
    /// Messages of which it is not known that they arrived, and never will be.
    lost: u64,
}

impl<'a> Publisher<'a> {
    const fn new(setup: &'a Setup<'a>, client: Client) -> Publisher<'a> {
        Publisher { setup, client, pending: VecDeque::new(), refused: None, lost: 0 }
    }

    async fn publish_repeatedly(
        &mut self,
        message: &Message,
        count: u64,
        delay: Duration,
    ) -> Result<(), Failure> {
        for index in 0..count {
            if index > 0 {
                sleep(delay).await;
            }
            self.publish(message.clone()).await?;
            self.settle(0).await?;
        }
        Ok(())
    }

    async fn publish_lines(&mut self, message: &Message) -> Result<(), Failure> {
        let mut lines = read_lines();
        loop {
            tokio::select! {
                line = lines.recv() => match line {
                    Some(Ok(line)) => {
                        self.publish(Message { payload: line.into(), ..message.clone() }).await?;
                    }
                    Some(Err(error)) => {
                        let what = format!("cannot read stdin: {error}");
                        return Err(self.setup.failed(1, what));
                    }
                    None => return Ok(()),
                },
                outcome = first(&mut self.pending) => self.handle(outcome)?,
            }
        }
    }

    /// Each message at its time, as long as the broker keeps up.
    async fn replay(&mut self, path: &Path, args: &Pub) -> Result<(), Failure> {
        let speed = args.speed.unwrap_or(Speed::Times(1.0));
        let prefix = args.topic_prefix.as_deref().unwrap_or_default();
        loop {
            let start = Instant::now();
            let mut recording = Recording::open(path)?;
            while let Some(Recorded { at, mut message }) = recording.next()? {
                if let Some(at) = start.checked_add(speed.of(at)) {
                    self.wait_until(at).await?;
                }
                message.topic.insert_str(0, prefix);
                let recorded = message.publish();
                let qos = args.qos.map_or(recorded.qos, |QosArg(qos)| qos);
                let retain = recorded.retain || args.retain;
                let message = online::message(&Publish { qos, retain, ..recorded });
                self.publish(message).await?;
            }
            self.settle(0).await?;
            if !args.endless {
                return Ok(());
            }
        }
    }

    async fn publish(&mut self, message: Message) -> Result<(), Failure> {
        let (topic, len) = (message.topic.clone(), message.payload.len());
        match self.client.publish(message).await {
            Ok(completion) => self.pending.push_back(completion),
            Err(error) => self.handle(Err(error))?,
        }
        self.setup.debug(|| format!("PUBLISH sent, {topic}, {len} bytes"));
        self.settle(PENDING_MAX).await
    }

    /// Until so few messages are not known to have arrived.
    async fn settle(&mut self, most: usize) -> Result<(), Failure> {
        while self.pending.len() > most {
            let outcome = first(&mut self.pending).await;
            self.handle(outcome)?;
        }
        Ok(())
    }

    async fn wait_until(&mut self, at: Instant) -> Result<(), Failure> {
        loop {
            tokio::select! {
                () = sleep_until(at) => return Ok(()),
                outcome = first(&mut self.pending) => self.handle(outcome)?,
            }
        }
    }

    /// Fails if nothing more can be published.
    fn handle(&mut self, outcome: Outcome) -> Result<(), Failure> {
        match outcome {
            Ok(reason) => self.setup.debug(|| format!("PUBLISH acknowledged: {reason}")),
            Err(PublishError::Refused(reason, text)) => {
                let text = text.map(|text| format!(": {text}")).unwrap_or_default();
                self.setup.warn(&format!("the broker refused a message: {reason}{text}"));
                self.refused = Some(reason);
            }
            Err(PublishError::Closed(why)) => return Err(online::closed(self.setup, why.as_ref())),
            Err(PublishError::Invalid(error)) => {
                return Err(self.setup.failed(1, error.to_string()));
            }
            Err(error) => {
                self.setup.warn(&format!("a message may not have arrived: {error}"));
                self.lost += 1;
            }
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), Failure> {
        self.settle(0).await?;
        // Nothing is left to be delivered.
        let _ = self.client.disconnect().await;
        self.setup.debug(|| "DISCONNECT sent".into());
        if let Some(reason) = self.refused {
            let message = format!("the broker refused what was published: {reason}");
            return Err(self.setup.failed(reason as u8, message));
        }
        match self.lost {
            0 => Ok(()),
            lost => {
                let what = format!("{lost} messages may not have arrived; QoS 1 would repeat them");
                Err(self.setup.failed(1, what))
            }
        }
    }
}

/// What became of the oldest message. Nothing is lost if the future is dropped.
async fn first(pending: &mut VecDeque<Completion>) -> Outcome {
    match pending.front_mut() {
        Some(completion) => {
            let outcome = completion.await;
            pending.pop_front();
            outcome
        }
        None => std::future::pending().await,
    }
}

/// Lines are read on a thread of their own: nothing else can wait for stdin and be ended.
fn read_lines() -> Receiver<io::Result<Vec<u8>>> {
    let (sender, receiver) = channel(LINES_MAX);
    std::thread::spawn(move || {
        for line in io::stdin().lock().split(b'\n') {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds() {
        let at = Duration::from_secs(3);
        for (text, ms) in [("1", 3000), ("2", 1500), ("0.5", 6000), ("max", 0)] {
            let speed: Speed = text.parse().unwrap();
            assert_eq!(speed.of(at), Duration::from_millis(ms), "{text}");
        }
        let slowest: Speed = "1e-300".parse().unwrap();
        assert_eq!(slowest.of(at), Duration::MAX);
        for text in ["0", "-1", "NaN", "inf", "fast"] {
            assert!(text.parse::<Speed>().is_err(), "{text}");
        }
    }
}
