//! `whimbrel store import`: a new store of lines of JSON.

use std::collections::HashMap;
use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use whimbrel_codec::{PacketId, QoS};
use whimbrel_store::{
    Entry, EntryQueue, InFlightRecovered, Journal, Log, MessageRecord, Options, Record, SessionKey,
    SessionRecovered, Store, Stored, SubscriptionRecovered, Ticket, WallMs, WillRecovered, restate,
};

use super::disks::Unfinished;
use super::{EXIT_BAD, VERSION, open_failure, refused};
use crate::failure::Failure;
use crate::lines::{Fields, Wrong, number};
use crate::topic;

/// So much is collected before it is written.
const WRITE_BYTES: usize = 8 << 20;

/// So many bytes of messages are one batch.
const BATCH_BYTES: u32 = 1 << 20;

/// As long as a line can be: the largest packet in base64, and some.
const LINE_BYTES_MAX: u64 = 512 << 20;

/// The largest packet.
const MESSAGE_BYTES_MAX: usize = 256 << 20;

/// Makes the store.
pub fn run(dir: &Path, file: Option<&Path>) -> Result<(), Failure> {
    let (input, name): (Box<dyn BufRead>, String) = match file {
        None => (Box::new(io::stdin().lock()), "stdin".into()),
        Some(path) => {
            let name = path.display().to_string();
            let file = File::open(path).map_err(|error| {
                Failure::new(super::EXIT_REFUSED, format!("cannot open {name}: {error}"))
            })?;
            (Box::new(BufReader::with_capacity(1 << 16, file)), name)
        }
    };
    let was_there = expect_empty(dir)?;
    let imported = import(dir, input, &name);
    if imported.is_err() {
        remove(dir, was_there);
    }
    imported
}

/// Refuses a directory with anything in it; says whether it is there.
fn expect_empty(dir: &Path) -> Result<bool, Failure> {
    let mut entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(refused(dir, &error.to_string())),
        Ok(entries) => entries,
    };
    if dir.join(super::disks::STORE).exists() {
        return Err(refused(dir, "there is a store already; choose another directory"));
    }
    match entries.find(|entry| entry.as_ref().is_ok_and(|e| e.file_name() != "lost+found")) {
        None => Ok(true),
        Some(_) => Err(refused(dir, "the directory is not empty; choose another one")),
    }
}

/// Takes away what was made. The directory was empty, so all that a store consists of is ours.
fn remove(dir: &Path, was_there: bool) {
    let entries = std::fs::read_dir(dir).into_iter().flatten();
    for entry in entries.filter_map(Result::ok).filter(|entry| entry.file_name() != "lost+found") {
        let _ = std::fs::remove_file(entry.path());
    }
    if !was_there {
        let _ = std::fs::remove_dir(dir);
    }
}

fn import(dir: &Path, input: Box<dyn BufRead>, name: &str) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::new(EXIT_BAD, format!("{}: {error}", dir.display()));
    let disk = Arc::new(Unfinished::open(dir).map_err(failed)?);
    let trouble: Arc<Mutex<String>> = Arc::default();
    let told = trouble.clone();
    let options = Options {
        pass_after_bytes: u64::MAX,
        reserve_bytes: 0,
        on_event: Box::new(move |event| {
            *told.lock().unwrap_or_else(PoisonError::into_inner) = event.to_string();
        }),
        ..Options::default()
    };
    let identity = RandomState::new().build_hasher().finish();
    let (log, _) =
        Log::open(disk.clone(), options, identity).map_err(|error| open_failure(dir, &error))?;
    let mut import = Import::new(log.clone());
    import.lines(input).map_err(|problem| match problem {
        Problem::Line(line, what) => {
            Failure::new(EXIT_BAD, format!("{name}, line {line}: {what}; nothing was imported"))
        }
        Problem::Read(error) => {
            Failure::new(EXIT_BAD, format!("cannot read {name}: {error}; nothing was imported"))
        }
        Problem::Disk => {
            let what = trouble.lock().unwrap_or_else(PoisonError::into_inner);
            Failure::new(EXIT_BAD, format!("{}: {what}; nothing was imported", dir.display()))
        }
    })?;
    if import.stopped {
        log.stop().map_err(failed)?;
    }
    disk.finish().map_err(failed)
}

enum Problem {
    Line(u64, Wrong),
    Read(io::Error),
    Disk,
}

struct Import {
    log: Arc<Log>,
    journal: Journal,
    /// Of the header; none: it has not come.
    header: bool,
    stopped: bool,
    end: bool,
    /// Messages by their numbers in the lines.
    messages: HashMap<u64, Stored>,
    /// Those in the batch: number, offset and length.
    batch: Vec<(u64, u32, u32)>,
    batch_bytes: u32,
    ticket: Ticket,
    last_retained: u64,
    sessions: HashMap<String, SessionKey>,
    /// Sessions that were named before their lines came, with the messages that had reached them.
    named: HashMap<String, (SessionKey, Vec<Stored>)>,
    /// Keys of groups, by their filters.
    groups: HashMap<String, u32>,
}

impl Import {
    fn new(log: Arc<Log>) -> Import {
        Import {
            journal: log.journal(0),
            log,
            header: false,
            stopped: false,
            end: false,
            messages: HashMap::new(),
            batch: Vec::new(),
            batch_bytes: 0,
            ticket: Ticket::default(),
            last_retained: 0,
            sessions: HashMap::new(),
            named: HashMap::new(),
            groups: HashMap::new(),
        }
    }

    fn lines(&mut self, mut input: Box<dyn BufRead>) -> Result<(), Problem> {
        let mut line = String::new();
        let mut count = 0;
        loop {
            line.clear();
            count += 1;
            let mut limited = io::Read::take(&mut input, LINE_BYTES_MAX);
            match limited.read_line(&mut line) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    return Err(Problem::Line(count, "this is not UTF-8".into()));
                }
                Err(error) => return Err(Problem::Read(error)),
            }
            if !line.trim().is_empty() {
                self.line(&line).map_err(|what| Problem::Line(count, what))?;
                self.write(WRITE_BYTES)?;
            }
        }
        if !self.end {
            let what = "the line with \"end\" is missing: the lines were cut off";
            return Err(Problem::Line(count, what.into()));
        }
        self.commit();
        self.write(0)
    }

    fn line(&mut self, line: &str) -> Result<(), Wrong> {
        let mut fields = Fields::parse(line)?;
        if self.end {
            return Err("nothing may follow the line with \"end\"".into());
        }
        if !self.header {
            self.header(&mut fields)?;
        } else if fields.has("message") {
            self.message(&mut fields)?;
        } else if fields.has("retained") && !fields.has("end") {
            self.retained(&mut fields)?;
        } else if fields.has("on_its_way") {
            self.on_its_way(&mut fields)?;
        } else if fields.has("session") {
            self.session(&mut fields)?;
        } else if fields.has("queue_of") {
            self.more_queue(&mut fields)?;
        } else if fields.has("end") {
            self.end(&mut fields)?;
        } else {
            return Err("there is no `message`, `retained`, `session`, `queue_of`, `on_its_way` \
                        or `end`"
                .into());
        }
        fields.finish()
    }

    fn header(&mut self, fields: &mut Fields) -> Result<(), Wrong> {
        let version: Option<u64> = fields.number("whimbrel_store")?;
        match version {
            Some(VERSION) => {}
            Some(other) => {
                return Err(format!(
                    "version {other} of these lines is not known here, only {VERSION}"
                ));
            }
            None => return Err("the first line must be {\"whimbrel_store\":1}".into()),
        }
        fields.text("version")?;
        self.stopped = fields.flag_or("stopped", true)?;
        self.header = true;
        Ok(())
    }

    fn end(&mut self, fields: &mut Fields) -> Result<(), Wrong> {
        if !fields.flag("end")? {
            return Err("`end` must be true".into());
        }
        for (name, there) in [
            ("messages", self.messages.len() + self.batch.len()),
            ("retained", self.last_retained as usize),
            ("sessions", self.sessions.len()),
        ] {
            let said: Option<usize> = fields.number(name)?;
            if said.is_some_and(|said| said != there) {
                return Err(format!("the lines were cut: `{name}` should be {there} here"));
            }
        }
        self.end = true;
        Ok(())
    }

    fn message(&mut self, fields: &mut Fields) -> Result<(), Wrong> {
        let number: u64 = fields.need_number("message")?;
        let known = self.messages.contains_key(&number);
        if known || self.batch.iter().any(|(other, ..)| *other == number) {
            return Err(format!("message {number} was there already"));
        }
        let topic = need_topic(fields)?;
        let (payload, properties) = (fields.payload()?, fields.properties()?);
        if payload.len() + properties.len() > MESSAGE_BYTES_MAX {
            return Err("the message is larger than a packet can be".into());
        }
        let record = MessageRecord {
            topic: &topic,
            properties: &properties,
            payload: &payload,
            qos: fields.qos()?.unwrap_or_default(),
            expires: fields.number("expires_ms")?.map(WallMs),
            retained: None,
        };
        let offset = self.journal.message(&record);
        self.batch.push((number, offset, record.len()));
        self.batch_bytes += record.len();
        if self.batch_bytes > BATCH_BYTES || self.batch.len() >= 1000 {
            self.commit();
        }
        Ok(())
    }

    fn retained(&mut self, fields: &mut Fields) -> Result<(), Wrong> {
        let number: u64 = fields.need_number("retained")?;
        let stored = self.stored(number)?;
        self.last_retained += 1;
        self.journal.record(&Record::Retained { stored, number: self.last_retained });
        Ok(())
    }

    fn on_its_way(&mut self, fields: &mut Fields) -> Result<(), Wrong> {
        let number: u64 = fields.need_number("on_its_way")?;
        let stored = self.stored(number)?;
        let from = match fields.text("from")? {
            Some(client_id) => self.name(client_id).0,
            None => self.journal.new_key(),
        };
        for client_id in fields.list("reached")? {
            let Value::String(client_id) = client_id else {
                return Err("each of `reached` must be text".into());
            };
            self.name(client_id).1.push(stored);
        }
        let group = fields.text("group")?.map(|filter| self.group(&filter));
        self.journal.record(&Record::Routing { stored, from, group });
        Ok(())
    }

    fn name(&mut self, client_id: String) -> &mut (SessionKey, Vec<Stored>) {
        let journal = &mut self.journal;
        self.named.entry(client_id).or_insert_with(|| (journal.new_key(), Vec::new()))
    }

    fn session(&mut self, fields: &mut Fields) -> Result<(), Wrong> {
        let client_id = fields.need_text("session")?;
        let name = fields.text("name")?.unwrap_or_else(|| client_id.clone());
        if self.sessions.contains_key(&name) {
            return Err(format!("session {name:?} was there already"));
        }
        let (key, reached) = self.name(name.clone()).clone();
        let mut session = SessionRecovered {
            key,
            client_id: client_id.as_str().into(),
            principal: fields.text("principal")?.map(|text| text.into_bytes().into()),
            expiry_s: expiry(fields)?,
            detached: fields.number("detached_ms")?.map(WallMs),
            keeps_messages: fields.flag_or("keeps_messages", true)?,
            will: fields.object("will")?.map(will).transpose()?,
            subscriptions: self.subscriptions(fields)?,
            in_flight: Default::default(),
            queue: EntryQueue::default(),
            received: Vec::new(),
        };
        for value in fields.list("received")? {
            session.received.push(packet_id(number(&value, "each of `received`")?)?);
        }
        for mut delivery in fields.objects("in_flight")? {
            let packet_id = packet_id(delivery.need_number("packet_id")?)?;
            let released = delivery.flag("released")?;
            let entry = if released { None } else { Some(self.entry(&mut delivery)?) };
            delivery.finish()?;
            session.in_flight.push_back(InFlightRecovered { packet_id, entry });
        }
        session.queue = self.queue(fields)?;
        self.sessions.insert(name, key);
        let journal = &mut self.journal;
        restate(&session, &mut |record| journal.record(record));
        self.note_reached(&session, &reached);
        self.commit();
        Ok(())
    }

    /// A message that has reached the session and was acknowledged leaves no other trace than that
    /// it was there.
    fn note_reached(&mut self, session: &SessionRecovered, reached: &[Stored]) {
        let taken = |id: &PacketId| session.in_flight.iter().any(|one| one.packet_id == *id);
        let free = (1..=u16::MAX).filter_map(PacketId::new).find(|id| !taken(id));
        let Some(packet_id) = free else { return };
        let key = session.key;
        for stored in reached {
            let entry = plain_entry(*stored);
            self.journal.record(&Record::Delivered { key, packet_id, entry });
            self.journal.record(&Record::Acknowledged { key, packet_id });
        }
    }

    fn more_queue(&mut self, fields: &mut Fields) -> Result<(), Wrong> {
        let name = fields.need_text("queue_of")?;
        let Some(key) = self.sessions.get(&name).copied() else {
            return Err(format!("the line of session {name:?} has not come before"));
        };
        let entries = self.queue(fields)?;
        if !entries.is_empty() {
            self.journal.record(&Record::QueuedMany { key, entries });
        }
        self.commit();
        Ok(())
    }

    fn subscriptions(&mut self, fields: &mut Fields) -> Result<Vec<SubscriptionRecovered>, Wrong> {
        let mut all = Vec::new();
        for mut fields in fields.objects("subscriptions")? {
            let filter = fields.need_text("filter")?;
            if !topic::is_filter(&filter) {
                return Err(format!("{filter:?} is not a topic filter"));
            }
            let shared = filter.starts_with("$share/");
            all.push(SubscriptionRecovered {
                group: shared.then(|| self.group(&filter)),
                filter: filter.into(),
                qos: fields.qos()?.unwrap_or_default(),
                no_local: fields.flag("no_local")?,
                retain_as_published: fields.flag("retain_as_published")?,
                id: subscription_id(fields.number("id")?.unwrap_or(0))?,
            });
            fields.finish()?;
        }
        Ok(all)
    }

    fn group(&mut self, filter: &str) -> u32 {
        let next = self.groups.len() as u32 + 1;
        *self.groups.entry(filter.to_owned()).or_insert(next)
    }

    fn queue(&mut self, fields: &mut Fields) -> Result<EntryQueue, Wrong> {
        let mut queue = EntryQueue::default();
        for value in fields.list("queue")? {
            let entry = match value {
                Value::Object(_) => {
                    let mut fields = Fields::of(value, "an entry")?;
                    let entry = self.entry(&mut fields)?;
                    fields.finish()?;
                    entry
                }
                _ => plain_entry(self.stored(number(&value, "each of `queue`")?)?),
            };
            queue.push(&entry);
        }
        Ok(queue)
    }

    fn entry(&mut self, fields: &mut Fields) -> Result<Entry, Wrong> {
        let message: u64 = fields.need_number("message")?;
        let qos = fields.qos()?.unwrap_or(QoS::AtLeastOnce);
        if qos == QoS::AtMostOnce {
            return Err("`qos` of what waits for a session must be 1 or 2".into());
        }
        let mut ids = Vec::new();
        for value in fields.list("ids")? {
            ids.push(subscription_id(number(&value, "each of `ids`")?)?);
        }
        let stored = self.stored(message)?;
        let (retain, dup) = (fields.flag("retain")?, fields.flag("dup")?);
        let expires = fields.number("expires_ms")?.map(WallMs);
        let group = fields.text("group")?.map(|filter| self.group(&filter));
        Ok(Entry { stored, qos, retain, dup, expires, group, ids })
    }

    /// Where the message of this number is.
    fn stored(&mut self, number: u64) -> Result<Stored, Wrong> {
        if !self.batch.is_empty() {
            self.commit();
        }
        let stored = self.messages.get(&number).copied();
        stored.ok_or_else(|| format!("there is no message {number} before this line"))
    }

    /// Ends the batch; now its messages have positions.
    fn commit(&mut self) {
        let Some(committed) = self.journal.commit() else { return };
        self.ticket = committed.ticket;
        self.batch_bytes = 0;
        for (number, offset, len) in self.batch.drain(..) {
            let position = whimbrel_store::Position(committed.base.0 + u64::from(offset));
            self.messages.insert(number, Stored { position, len });
        }
    }

    /// Writes what was committed if there is more of it than this.
    fn write(&mut self, more_than: usize) -> Result<(), Problem> {
        if self.log.backlog_bytes() > more_than {
            self.log.work(0);
            if self.log.is_full() || self.log.synced() < self.ticket {
                return Err(Problem::Disk);
            }
        }
        Ok(())
    }
}

fn plain_entry(stored: Stored) -> Entry {
    let (qos, ids) = (QoS::AtLeastOnce, Vec::new());
    Entry { stored, qos, retain: false, dup: false, expires: None, group: None, ids }
}

fn expiry(fields: &mut Fields) -> Result<u32, Wrong> {
    let value = fields.value("expiry_s").ok_or("`expiry_s` is missing")?;
    if value == "never" {
        return Ok(u32::MAX);
    }
    number(&value, "`expiry_s`").map_err(|_| "`expiry_s` must be seconds or \"never\"".into())
}

fn need_topic(fields: &mut Fields) -> Result<String, Wrong> {
    let name = fields.need_text("topic")?;
    if topic::is_name(&name) { Ok(name) } else { Err(format!("{name:?} is not a topic name")) }
}

fn will(mut fields: Fields) -> Result<WillRecovered, Wrong> {
    let made = WillRecovered {
        topic: need_topic(&mut fields)?.into(),
        payload: fields.payload()?.into(),
        properties: fields.properties()?.into(),
        qos: fields.qos()?.unwrap_or_default(),
        retain: fields.flag("retain")?,
        delay_s: fields.number("delay_s")?.unwrap_or(0),
        expiry_s: fields.number("expiry_s")?,
    };
    fields.finish()?;
    Ok(made)
}

fn packet_id(id: u16) -> Result<PacketId, Wrong> {
    PacketId::new(id).ok_or_else(|| "a packet identifier must be 1 to 65535".into())
}

fn subscription_id(id: u32) -> Result<u32, Wrong> {
    let fits = id <= 268_435_455;
    if fits { Ok(id) } else { Err("a subscription identifier must be 1 to 268435455".into()) }
}
