//! Recordings: what a subscriber received and when, to be published again. Lines of JSON, so that
//! other programs can read and make them too.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use whimbrel_codec::Publish;

use crate::failure::Failure;
use crate::lines::{Fields, Object, Wrong, quoted};
use crate::message_line::{self, Message};

/// The version of the format.
const VERSION: u64 = 1;

/// The format, for `--help`.
pub const FORMAT_HELP: &str = "\
A recording is a text file with one JSON object in each line. The first line is
  {\"whimbrel_recording\":1,\"started\":\"2026-01-31T12:00:00.000000Z\",\"filters\":[\"a/#\"]}
and each further line a message, with at_us: microseconds since the start, and the fields";

/// Writes a recording.
pub struct Recorder {
    out: BufWriter<File>,
    name: String,
    start: Instant,
}

impl Recorder {
    /// Makes the file, or empties it, and writes the first line.
    pub fn create(path: &Path, filters: &[&str]) -> Result<Recorder, Failure> {
        let name = path.display().to_string();
        let file = File::create(path)
            .map_err(|error| Failure::new(1, format!("--record {name}: {error}")))?;
        let mut first = Object::new();
        first.number("whimbrel_recording", VERSION);
        first.text("started", &format!("{:.6}", Timestamp::now()));
        first.list("filters", filters.iter().map(|filter| quoted(filter)));
        let mut recorder = Recorder { out: BufWriter::new(file), name, start: Instant::now() };
        recorder.line(first)?;
        recorder.flush()?;
        Ok(recorder)
    }

    /// Appends a message that came now.
    pub fn record(&mut self, message: &Publish<'_>) -> Result<(), Failure> {
        let mut line = Object::new();
        line.number("at_us", u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX));
        message_line::put(&mut line, message);
        self.line(line)
    }

    /// Hands to the system what was recorded; it then survives the end of this process.
    pub fn flush(&mut self) -> Result<(), Failure> {
        let flushed = self.out.flush();
        self.written(flushed)
    }

    fn line(&mut self, line: Object) -> Result<(), Failure> {
        let written = writeln!(self.out, "{}", line.finish());
        self.written(written)
    }

    fn written(&self, result: io::Result<()>) -> Result<(), Failure> {
        let named = |error| Failure::new(1, format!("cannot write to {}: {error}", self.name));
        result.map_err(named)
    }
}

/// Reads a recording, one message at a time.
pub struct Recording<R = BufReader<File>> {
    input: R,
    name: String,
    /// Lines that were read.
    number: u64,
    line: String,
}

/// A message and when it came.
#[derive(Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Since the start of the recording.
    pub at: Duration,
    /// What came.
    pub message: Message,
}

impl Recording {
    /// Opens a file and reads its first line.
    pub fn open(path: &Path) -> Result<Recording, Failure> {
        let name = path.display().to_string();
        match File::open(path) {
            Ok(file) => Recording::start(BufReader::new(file), name),
            Err(error) => Err(Failure::usage(format!("--replay {name}: {error}"))),
        }
    }
}

impl<R: BufRead> Recording<R> {
    fn start(input: R, name: String) -> Result<Recording<R>, Failure> {
        let mut recording = Recording { input, name, number: 0, line: String::new() };
        if !recording.read_line()? {
            return Err(recording.wrong("the file is empty, not a recording"));
        }
        let version = Fields::parse(&recording.line)
            .ok()
            .and_then(|mut fields| fields.number::<u64>("whimbrel_recording").ok().flatten());
        match version {
            Some(VERSION) => Ok(recording),
            Some(other) => Err(recording.wrong(&format!(
                "version {other} of recordings is not known here, only {VERSION}"
            ))),
            None => Err(recording
                .wrong("this is no recording: the first line has no \"whimbrel_recording\"")),
        }
    }

    /// The next message; none at the end. A last line that was cut off is no message.
    pub fn next(&mut self) -> Result<Option<Recorded>, Failure> {
        if !self.read_line()? {
            return Ok(None);
        }
        match recorded(&self.line) {
            Ok(recorded) => Ok(Some(recorded)),
            // The recorder was killed while it wrote.
            Err(_) if !self.line.ends_with('\n') => Ok(None),
            Err(wrong) => Err(self.wrong(&wrong)),
        }
    }

    fn read_line(&mut self) -> Result<bool, Failure> {
        self.line.clear();
        self.number += 1;
        match self.input.read_line(&mut self.line) {
            Ok(len) => Ok(len > 0),
            Err(error) => Err(self.wrong(&error.to_string())),
        }
    }

    fn wrong(&self, what: &str) -> Failure {
        Failure::usage(format!("{}: line {}: {what}", self.name, self.number))
    }
}

fn recorded(line: &str) -> Result<Recorded, Wrong> {
    let mut fields = Fields::parse(line.trim_end())?;
    let at = Duration::from_micros(fields.need_number("at_us")?);
    let message = Message::take(&mut fields)?;
    fields.finish()?;
    Ok(Recorded { at, message })
}

#[cfg(test)]
mod tests {
    use super::*;
    use whimbrel_codec::{Properties, Property, QoS};

    const FIRST: &str = "{\"whimbrel_recording\":1}\n";

    fn read(text: &str) -> Result<Vec<Recorded>, Failure> {
        let mut recording = Recording::start(text.as_bytes(), "r.jsonl".into())?;
        let mut all = Vec::new();
        while let Some(one) = recording.next()? {
            all.push(one);
        }
        Ok(all)
    }

    #[test]
    fn what_was_recorded_is_read() {
        let path = std::env::temp_dir().join(format!("whimbrel-record-{}", std::process::id()));
        let mut recorder = Recorder::create(&path, &["a/#", "\"b\""]).unwrap();
        let properties = [Property::ContentType("x"), Property::UserProperty("k", "v")];
        let properties = Properties::new(&properties);
        let qos = QoS::ExactlyOnce;
        let first = Publish { qos, properties, ..Publish::new("a/b", b"\0\xff\n") };
        let second = Publish { retain: true, ..Publish::new("a", b"") };
        recorder.record(&first).unwrap();
        recorder.record(&second).unwrap();
        recorder.flush().unwrap();
        let mut recording = Recording::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(recording.line.ends_with("\"filters\":[\"a/#\",\"\\\"b\\\"\"]}\n"));
        let one = recording.next().unwrap().unwrap();
        assert_eq!(one.message.publish(), first);
        let two = recording.next().unwrap().unwrap();
        assert_eq!(two.message.publish(), second);
        assert!(one.at <= two.at);
        assert_eq!(recording.next().unwrap(), None);
    }

    #[test]
    fn an_end_that_was_cut_off_is_left_out() {
        let line = "{\"at_us\":5,\"topic\":\"a\",\"payload\":\"x\"}";
        let all = read(&format!("{FIRST}{line}\n{{\"at_us\":7,\"to")).unwrap();
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].at, Duration::from_micros(5));
        // Complete but for its newline.
        assert_eq!(read(&format!("{FIRST}{line}\n{line}")).unwrap().len(), 2);
    }

    #[test]
    fn faults_name_file_and_line() {
        let message = "{\"at_us\":5,\"topic\":\"a\",\"payload\":\"x\"}\n";
        for (text, what) in [
            ("", "r.jsonl: line 1: the file is empty"),
            ("{\"a\":1}\n", "r.jsonl: line 1: this is no recording"),
            ("{\"whimbrel_recording\":2}\n", "r.jsonl: line 1: version 2"),
            (&format!("{FIRST}{message}{{}}\n"), "r.jsonl: line 3: `at_us` is missing"),
            (&format!("{FIRST}\n"), "r.jsonl: line 2: this is not JSON"),
            (&format!("{FIRST}{{\"at_us\":-1}}\n"), "r.jsonl: line 2: `at_us` must be"),
        ] {
            let message = read(text).unwrap_err().message;
            assert!(message.starts_with(what), "{message}");
        }
        let latin = [FIRST.as_bytes(), b"\"\xff\"\n"].concat();
        let mut recording = Recording::start(&latin[..], "r.jsonl".into()).unwrap();
        let message = recording.next().unwrap_err().message;
        assert!(message.starts_with("r.jsonl: line 2:"), "{message}");
    }
}
