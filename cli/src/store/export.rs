//! `whimbrel store export`: sessions and messages as lines of JSON.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use whimbrel_store::{Entry, Log, Recovered, SessionRecovered, Stored, Unrouted, WillRecovered};

use super::{EXIT_BAD, VERSION, open_unchanged};
use crate::failure::Failure;
use crate::lines::Object;

/// So much of a queue stands in one line.
const QUEUE_PER_LINE: usize = 10_000;

/// Writes what is in the store to a file, or to stdout.
pub fn run(dir: &Path, file: Option<&Path>) -> Result<(), Failure> {
    let (log, recovered) = open_unchanged(dir)?;
    let (out, name): (Box<dyn Write>, String) = match file {
        None => (Box::new(io::stdout().lock()), "stdout".into()),
        Some(path) => {
            let name = path.display().to_string();
            let file = File::create(path)
                .map_err(|error| Failure::new(EXIT_BAD, format!("cannot make {name}: {error}")))?;
            (Box::new(file), name)
        }
    };
    let out = BufWriter::with_capacity(1 << 16, out);
    let mut export = Export { log: &log, out, numbers: HashMap::new(), names: HashMap::new() };
    let exported = export.all(&recovered).and_then(|()| {
        // Perhaps the store is removed next.
        file.map_or(Ok(()), |path| Ok(File::open(path)?.sync_all()?))
    });
    exported.map_err(|error| match error {
        // The reader has seen enough (`| head`).
        Error::Write(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            Failure { quiet: true, ..Failure::new(EXIT_BAD, error.to_string()) }
        }
        Error::Write(error) => Failure::new(EXIT_BAD, format!("cannot write to {name}: {error}")),
        Error::Read(what) => {
            let dir = dir.display();
            Failure::new(EXIT_BAD, format!("{dir}: {what}; `whimbrel store repair {dir}` first"))
        }
    })
}

enum Error {
    Write(io::Error),
    Read(String),
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Error {
        Error::Write(error)
    }
}

struct Export<'a, W: Write> {
    log: &'a Log,
    out: W,
    /// Messages that were written, by their positions.
    numbers: HashMap<u64, u64>,
    /// How other lines name the sessions whose client identifier another one has too.
    names: HashMap<u64, String>,
}

impl<W: Write> Export<'_, W> {
    fn all(&mut self, recovered: &Recovered) -> Result<(), Error> {
        self.names = names(&recovered.sessions);
        let mut header = Object::new();
        header.number("whimbrel_store", VERSION);
        header.text("version", env!("CARGO_PKG_VERSION"));
        header.raw("stopped", if recovered.stopped { "true" } else { "false" });
        self.line(header)?;
        for stored in &recovered.retained {
            let number = self.message(*stored)?;
            let mut line = Object::new();
            line.number("retained", number);
            self.line(line)?;
        }
        for unrouted in &recovered.unrouted {
            self.unrouted(unrouted, &recovered.sessions)?;
        }
        for session in &recovered.sessions {
            self.session(session)?;
        }
        let mut end = Object::new();
        end.raw("end", "true");
        end.number("messages", self.numbers.len() as u64);
        end.number("retained", recovered.retained.len() as u64);
        end.number("sessions", recovered.sessions.len() as u64);
        self.line(end)?;
        Ok(self.out.flush()?)
    }

    fn line(&mut self, object: Object) -> io::Result<()> {
        let mut text = object.finish();
        text.push('\n');
        self.out.write_all(text.as_bytes())
    }

    /// Writes the message if it was not written, and gives its number.
    fn message(&mut self, stored: Stored) -> Result<u64, Error> {
        if let Some(number) = self.numbers.get(&stored.position.0) {
            return Ok(*number);
        }
        let body = self.log.read(stored).map_err(|error| {
            let position = stored.position.0;
            Error::Read(format!("the message at position {position:#x} cannot be read: {error}"))
        })?;
        let record = body.record();
        let number = self.numbers.len() as u64 + 1;
        let mut line = Object::new();
        line.number("message", number);
        line.text("topic", record.topic);
        line.bytes("payload", record.payload);
        line.number("qos", record.qos as u8);
        if let Some(expires) = record.expires {
            line.number("expires_ms", expires.0);
        }
        line.properties(record.properties);
        self.line(line)?;
        self.numbers.insert(stored.position.0, number);
        Ok(number)
    }

    fn session(&mut self, session: &SessionRecovered) -> Result<(), Error> {
        let mut in_flight = Vec::new();
        for delivery in &session.in_flight {
            let mut object = Object::new();
            object.number("packet_id", delivery.packet_id.get());
            match &delivery.entry {
                None => object.flag("released", true),
                Some(entry) => self.entry(session, entry, &mut object)?,
            }
            in_flight.push(object.finish());
        }
        let mut queue = session.queue.iter();
        let first = self.queue(session, &mut queue)?;
        let mut line = Object::new();
        line.text("session", &session.client_id);
        if let Some(name) = self.names.get(&session.key.0) {
            line.text("name", name);
        }
        if let Some(principal) = &session.principal {
            line.text("principal", &String::from_utf8_lossy(principal));
        }
        match session.expiry_s {
            u32::MAX => line.text("expiry_s", "never"),
            expiry_s => line.number("expiry_s", expiry_s),
        }
        if let Some(at) = session.detached {
            line.number("detached_ms", at.0);
        }
        if !session.keeps_messages {
            line.raw("keeps_messages", "false");
        }
        if let Some(will) = &session.will {
            line.raw("will", &will_object(will));
        }
        line.list(
            "subscriptions",
            session.subscriptions.iter().map(|subscription| {
                let mut object = Object::new();
                object.text("filter", &subscription.filter);
                object.number("qos", subscription.qos as u8);
                object.flag("no_local", subscription.no_local);
                object.flag("retain_as_published", subscription.retain_as_published);
                if subscription.id != 0 {
                    object.number("id", subscription.id);
                }
                object.finish()
            }),
        );
        line.list("received", session.received.iter().map(|id| id.get().to_string()));
        line.list("in_flight", in_flight.into_iter());
        line.list("queue", first.into_iter());
        self.line(line)?;
        loop {
            let more = self.queue(session, &mut queue)?;
            if more.is_empty() {
                return Ok(());
            }
            let mut line = Object::new();
            line.text("queue_of", self.name(session));
            line.list("queue", more.into_iter());
            self.line(line)?;
        }
    }

    /// The next part of a queue; the messages in it are written.
    fn queue(
        &mut self,
        session: &SessionRecovered,
        entries: &mut dyn Iterator<Item = Entry>,
    ) -> Result<Vec<String>, Error> {
        let mut part = Vec::new();
        for entry in entries.take(QUEUE_PER_LINE) {
            let mut object = Object::new();
            self.entry(session, &entry, &mut object)?;
            let number = self.message(entry.stored)?;
            let object = object.finish();
            let plain = format!("{{\"message\":{number},\"qos\":1}}");
            part.push(if object == plain { number.to_string() } else { object });
        }
        Ok(part)
    }

    fn entry(
        &mut self,
        session: &SessionRecovered,
        entry: &Entry,
        object: &mut Object,
    ) -> Result<(), Error> {
        object.number("message", self.message(entry.stored)?);
        object.number("qos", entry.qos as u8);
        object.flag("retain", entry.retain);
        object.flag("dup", entry.dup);
        if let Some(expires) = entry.expires {
            object.number("expires_ms", expires.0);
        }
        // Keys of groups are made anew at each start; the filter is what stays.
        let mut all = session.subscriptions.iter();
        if let Some(subscription) = all.find(|one| one.group.is_some() && one.group == entry.group)
        {
            object.text("group", &subscription.filter);
        }
        object.list("ids", entry.ids.iter().map(u32::to_string));
        Ok(())
    }

    fn unrouted(
        &mut self,
        unrouted: &Unrouted,
        sessions: &[SessionRecovered],
    ) -> Result<(), Error> {
        let number = self.message(unrouted.stored)?;
        let client_id = |key| {
            let index = sessions.binary_search_by_key(&key, |session| session.key).ok()?;
            sessions.get(index).map(|session| self.name(session))
        };
        let mut line = Object::new();
        line.number("on_its_way", number);
        if let Some(from) = client_id(unrouted.from) {
            line.text("from", from);
        }
        if let Some(filter) = &unrouted.group {
            line.text("group", filter);
        }
        let reached = unrouted.reached.iter().filter_map(|key| client_id(*key));
        line.list("reached", reached.map(|id| serde_json::Value::from(id).to_string()));
        Ok(self.line(line)?)
    }

    fn name<'s>(&'s self, session: &'s SessionRecovered) -> &'s str {
        self.names.get(&session.key.0).map_or(&*session.client_id, |name| name)
    }
}

/// Sessions of several principals can have one client identifier.
fn names(sessions: &[SessionRecovered]) -> HashMap<u64, String> {
    let mut count: HashMap<&str, u32> = HashMap::new();
    sessions.iter().for_each(|session| *count.entry(&session.client_id).or_default() += 1);
    let several = sessions.iter().filter(|session| count.get(&*session.client_id) > Some(&1));
    several.map(|s| (s.key.0, format!("{}#{}", s.client_id, s.key.0))).collect()
}

fn will_object(will: &WillRecovered) -> String {
    let mut object = Object::new();
    object.text("topic", &will.topic);
    object.bytes("payload", &will.payload);
    object.number("qos", will.qos as u8);
    object.flag("retain", will.retain);
    object.number("delay_s", will.delay_s);
    if let Some(expiry_s) = will.expiry_s {
        object.number("expiry_s", expiry_s);
    }
    object.properties(&will.properties);
    object.finish()
}
