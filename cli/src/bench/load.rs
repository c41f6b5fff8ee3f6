//! The clients and the loop that drives them all.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use mio::{Events, Poll, Token};
use whimbrel_client::single::Link;
use whimbrel_client::{Error, Event, Limits, Millis};
use whimbrel_codec::{Connect, Disconnect, Properties, Publish, ReasonCode, Subscription};

use super::stamp::{Sequence, Stamp};
use super::{Bench, Scenario, report};
use crate::args::Setup;

/// Connections that wait for CONNACK at one time.
const CONNECTING_MAX: usize = 100;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Silence after which what has not arrived counts as lost.
const SILENCE: Duration = Duration::from_secs(2);
/// How often the rate and the progress bar are attended to while nothing else happens.
const TICK: Duration = Duration::from_millis(1);

struct Slot {
    link: Link,
    /// Waits in `Load::ready`.
    queued: bool,
    connecting_since: Option<Instant>,
    role: Role,
}

enum Role {
    Idle,
    Publisher {
        topic: String,
    },
    /// Of each publisher that it hears.
    Subscriber {
        sequences: Vec<Sequence>,
    },
}

/// All clients of a bench.
pub struct Load<'a> {
    setup: &'a Setup<'a>,
    prefix: &'a str,
    start: Instant,
    poll: Poll,
    events: Events,
    buffer: Vec<u8>,
    slots: Vec<Slot>,
    ready: Vec<usize>,
    unanswered: usize,
    counts: Counts,
}

struct Counts {
    /// Clients without CONNACK.
    connecting: usize,
    connect_us: Histogram<u64>,
    latency_us: Histogram<u64>,
    /// By publisher: sent, and arrived at all its subscribers together.
    published: Vec<u64>,
    received: Vec<u64>,
    duplicates: u64,
    last_arrival: Instant,
}

impl<'a> Load<'a> {
    /// No client yet.
    pub fn new(setup: &'a Setup<'a>, prefix: &'a str) -> Result<Load<'a>, Error> {
        let start = Instant::now();
        Ok(Load {
            setup,
            prefix,
            start,
            poll: Poll::new().map_err(Error::Lost)?,
            events: Events::with_capacity(1024),
            buffer: vec![0; 64 * 1024],
            slots: Vec::new(),
            ready: Vec::new(),
            unanswered: 0,
            counts: Counts {
                connecting: 0,
                connect_us: report::histogram(),
                latency_us: report::histogram(),
                published: Vec::new(),
                received: Vec::new(),
                duplicates: 0,
                last_arrival: start,
            },
        })
    }

    /// Connects and subscribes all; how long it took, and each connection from TCP to CONNACK.
    pub fn connect(&mut self, args: &Bench) -> Result<(Duration, Histogram<u64>), Error> {
        let clients = args.clients as usize;
        let (publishers, subscribers) = match args.scenario {
            Scenario::Pairs => (clients, clients),
            Scenario::FanOut => (1, clients),
            Scenario::FanIn => (clients, 1),
            Scenario::Connect => (0, 0),
        };
        let idle = if args.scenario == Scenario::Connect { clients } else { 0 };
        let total = publishers + subscribers + idle;
        self.counts.published = vec![0; publishers];
        self.counts.received = vec![0; publishers];
        let base = format!("bench/{}", std::process::id());
        let bar = bar(total as u64, "connecting {wide_bar} {pos}/{len}");
        let start = Instant::now();
        for index in 0..total {
            self.wait_until(|load| load.counts.connecting < CONNECTING_MAX)?;
            self.open(index)?;
            bar.set_position(index as u64);
            if let Some(slot) = self.slots.last_mut() {
                if index < publishers {
                    slot.role = Role::Publisher { topic: format!("{base}/{index}") };
                } else if index < publishers + subscribers {
                    slot.role =
                        Role::Subscriber { sequences: vec![Sequence::default(); publishers] };
                }
            }
        }
        self.wait_until(|load| load.counts.connecting == 0)?;
        let elapsed = start.elapsed();
        for number in 0..subscribers {
            let filter = match args.scenario {
                Scenario::Pairs => format!("{base}/{number}"),
                _ => format!("{base}/+"),
            };
            if let Some(slot) = self.slots.get_mut(publishers + number) {
                let filters = [Subscription::new(&filter, args.qos.0)];
                slot.link.client.subscribe(&filters, Properties::NONE)?;
                self.unanswered += 1;
                self.queue(publishers + number);
            }
        }
        self.wait_until(|load| load.unanswered == 0)?;
        bar.finish_and_clear();
        Ok((elapsed, self.counts.connect_us.clone()))
    }

    fn open(&mut self, index: usize) -> Result<(), Error> {
        let client_id = format!("{}{}-{index}", self.prefix, std::process::id());
        // Clients that only wait are not looked at, so they could not ping.
        let connect = Connect { client_id: &client_id, keep_alive_s: 0, ..self.setup.connect() };
        let limits = Limits { max_in_flight: u16::MAX, ..Limits::default() };
        let since = Instant::now();
        let address = &self.setup.address;
        let mut link = Link::connect(address, CONNECT_TIMEOUT, limits, &connect, self.now())?;
        link.register(self.poll.registry(), Token(index)).map_err(Error::Lost)?;
        let connecting_since = Some(since);
        self.counts.connecting += 1;
        self.slots.push(Slot { link, queued: false, connecting_since, role: Role::Idle });
        self.queue(index);
        self.turn(Duration::ZERO)
    }

    /// Publishes for `duration`, then waits for what is under way.
    pub fn publish(&mut self, args: &Bench, duration: Duration) -> Result<report::Result, Error> {
        let fan = if args.scenario == Scenario::FanOut { u64::from(args.clients) } else { 1 };
        let mut payload = vec![0; args.payload as usize];
        let bar = bar(duration.as_millis() as u64, "{msg} {wide_bar} {eta}");
        let start = Instant::now();
        self.counts.last_arrival = start;
        let mut shown = start;
        while start.elapsed() < duration {
            self.publish_some(args, fan, start, &mut payload)?;
            self.turn(TICK)?;
            if shown.elapsed() > Duration::from_millis(100) {
                shown = Instant::now();
                let received: u64 = self.counts.received.iter().sum();
                let rate = received as f64 / start.elapsed().as_secs_f64();
                bar.set_position(start.elapsed().as_millis() as u64);
                bar.set_message(format!("{rate:.0} messages/s"));
            }
        }
        bar.finish_and_clear();
        let published: u64 = self.counts.published.iter().sum();
        self.counts.last_arrival = self.counts.last_arrival.max(Instant::now());
        while self.counts.received.iter().sum::<u64>() < published * fan
            && self.counts.last_arrival.elapsed() < SILENCE
        {
            self.turn(TICK)?;
        }
        let received: u64 = self.counts.received.iter().sum();
        Ok(report::Result {
            published,
            received,
            lost: (published * fan).saturating_sub(received),
            duplicates: self.counts.duplicates,
            elapsed: self.counts.last_arrival - start,
            latency_us: self.counts.latency_us.clone(),
            memory_bytes: None,
        })
    }

    /// As much as the rate or the window allows now.
    fn publish_some(
        &mut self,
        args: &Bench,
        fan: u64,
        start: Instant,
        payload: &mut [u8],
    ) -> Result<(), Error> {
        let publishers = self.counts.published.len();
        let mut allowed = match args.rate {
            0 => u64::MAX,
            rate => {
                let due = (start.elapsed().as_secs_f64() * rate as f64) as u64;
                due.saturating_sub(self.counts.published.iter().sum())
            }
        };
        // What is lost must not close the window for ever.
        let stalled = self.counts.last_arrival.elapsed() > SILENCE;
        let mut blocked = 0;
        let mut index = 0;
        while allowed > 0 && blocked < publishers {
            let sent = self.counts.published.get(index).copied().unwrap_or(0);
            let arrived = self.counts.received.get(index).copied().unwrap_or(0);
            let open = args.rate > 0 || stalled || sent * fan < arrived + args.window * fan;
            if open && self.publish_one(index, sent, args, payload)? {
                allowed -= 1;
                blocked = 0;
            } else {
                blocked += 1;
            }
            index = (index + 1) % publishers;
            if stalled && index == 0 {
                self.counts.last_arrival = Instant::now();
                break;
            }
        }
        Ok(())
    }

    /// False if the client has no room.
    fn publish_one(
        &mut self,
        index: usize,
        sequence: u64,
        args: &Bench,
        payload: &mut [u8],
    ) -> Result<bool, Error> {
        let sent_ns = self.start.elapsed().as_nanos() as u64;
        let Some(slot) = self.slots.get_mut(index) else { return Ok(false) };
        let Role::Publisher { topic } = &slot.role else { return Ok(false) };
        Stamp { publisher: index as u32, sequence, sent_ns }.write(payload);
        let properties = Properties::new(&self.setup.lists.publish);
        let publish = Publish { qos: args.qos.0, properties, ..Publish::new(topic, payload) };
        match slot.link.client.publish(&publish) {
            Ok(_) => {}
            Err(whimbrel_client::CommandError::Full) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        if let Some(published) = self.counts.published.get_mut(index) {
            *published += 1;
        }
        self.queue(index);
        Ok(true)
    }

    fn wait_until(&mut self, done: impl Fn(&Load<'_>) -> bool) -> Result<(), Error> {
        let until = Instant::now() + Duration::from_secs(30);
        while !done(self) {
            if Instant::now() > until {
                return Err(Error::Timeout);
            }
            self.turn(Duration::from_millis(50))?;
        }
        Ok(())
    }

    fn queue(&mut self, index: usize) {
        if let Some(slot) = self.slots.get_mut(index)
            && !slot.queued
        {
            slot.queued = true;
            self.ready.push(index);
        }
    }

    /// Drives each ready client once; waits for one if there is none.
    fn turn(&mut self, timeout: Duration) -> Result<(), Error> {
        let timeout = if self.ready.is_empty() { timeout } else { Duration::ZERO };
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => {
                return Err(Error::Lost(error));
            }
            _ => {}
        }
        for event in &self.events {
            let index = event.token().0;
            if let Some(slot) = self.slots.get_mut(index) {
                slot.link.handle_ready(event.is_readable(), event.is_writable());
                if !slot.queued {
                    slot.queued = true;
                    self.ready.push(index);
                }
            }
        }
        let now = self.now();
        for index in std::mem::take(&mut self.ready) {
            let Some(slot) = self.slots.get_mut(index) else { continue };
            slot.queued = false;
            let driven = slot.link.drive(now, &mut self.buffer);
            let answered = self.counts.handle_events(slot, self.start)?;
            driven?;
            // The answers to what came go out now, not when the socket reports next.
            slot.link.write(now)?;
            let again = slot.link.is_ready();
            self.unanswered -= answered;
            if again {
                self.queue(index);
            }
        }
        Ok(())
    }

    /// Ends all connections as they should end; what goes wrong now changes no figure.
    pub fn disconnect(&mut self) {
        let now = self.now();
        for slot in &mut self.slots {
            let _ = slot.link.client.disconnect(&Disconnect::new(ReasonCode::Success));
            let _ = slot.link.write(now);
        }
    }

    fn now(&self) -> Millis {
        Millis(self.start.elapsed().as_millis() as u64)
    }
}

impl Counts {
    /// How many subscriptions were answered.
    fn handle_events(&mut self, slot: &mut Slot, start: Instant) -> Result<usize, Error> {
        let Slot { link, connecting_since, role, .. } = slot;
        let mut answered = 0;
        let now_ns = start.elapsed().as_nanos() as u64;
        while let Some(event) = link.poll_event() {
            match event {
                Event::Message(message) => self.handle_message(role, message.payload, now_ns),
                Event::Connected { .. } => {
                    if let Some(since) = connecting_since.take() {
                        self.connecting -= 1;
                        self.connect_us.saturating_record(since.elapsed().as_micros() as u64);
                    }
                }
                Event::Subscribed(ack) => {
                    if let Some(reason) = ack.codes.iter().find(|code| code.is_error()) {
                        return Err(Error::Refused(reason, None));
                    }
                    answered += 1;
                }
                Event::Refused(ack) => return Err(Error::Refused(ack.reason, None)),
                Event::Disconnected(packet) => {
                    return Err(Error::Disconnected(packet.reason, None));
                }
                Event::Failed(failure) => return Err(failure.into()),
                _ => {}
            }
        }
        Ok(answered)
    }

    fn handle_message(&mut self, role: &mut Role, payload: &[u8], now_ns: u64) {
        let Role::Subscriber { sequences } = role else { return };
        let Some(stamp) = Stamp::read(payload) else { return };
        let publisher = stamp.publisher as usize;
        let Some(sequence) = sequences.get_mut(publisher) else { return };
        if !sequence.take(stamp.sequence) {
            self.duplicates += 1;
            return;
        }
        if let Some(received) = self.received.get_mut(publisher) {
            *received += 1;
        }
        self.last_arrival = Instant::now();
        self.latency_us.saturating_record(now_ns.saturating_sub(stamp.sent_ns) / 1000);
    }
}

/// Only on a terminal; elsewhere it draws nothing.
fn bar(len: u64, template: &str) -> ProgressBar {
    let bar = ProgressBar::new(len);
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
