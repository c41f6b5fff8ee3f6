use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::broker::Broker;
use crate::tool::{on, run, start_on, start_under, subscribed};

/// A file that goes with the test.
struct TempFile(PathBuf);

impl TempFile {
    fn new(name: &str) -> TempFile {
        TempFile(std::env::temp_dir().join(format!("whimbrel-{name}-{}", std::process::id())))
    }

    fn with(name: &str, text: &str) -> TempFile {
        let file = TempFile::new(name);
        std::fs::write(&file.0, text).unwrap();
        file
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    fn read(&self) -> String {
        std::fs::read_to_string(&self.0).unwrap()
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        // One that was never made need not be removed.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Lines of `--json` or of a recording, without what says when.
fn without_times(text: &str) -> Vec<Value> {
    let parse = |line: &str| {
        let mut value: Value = serde_json::from_str(line).unwrap();
        let object = value.as_object_mut().unwrap();
        assert!(object.remove("time").or(object.remove("at_us")).is_some(), "{line}");
        value
    };
    text.lines().map(parse).collect()
}

#[test]
fn what_was_recorded_is_published_again() {
    let broker = Broker::start();
    let file = TempFile::new("round-trip");
    let filter = ["-V", "5", "-q", "2", "-t", "a/#"];
    let words = ["--retain-as-published", "--record", file.path(), "-C", "3", "--json"];
    let recorder = subscribed(&broker, &[&filter[..], &words].concat());
    on(&broker, "pub", &["-t", "a/1", "-m", "ü \"1\"", "-q", "2"]).ok();
    let words = "-t a/2 -n -q 1 -r -D publish content-type x/y -D publish user-property k v";
    on(&broker, "pub", &words.split(' ').collect::<Vec<_>>()).ok();
    start_on(&broker, "pub", &["-t", "a/3", "-s"]).input(b"\0\xff\n").done().ok();
    recorder.done().ok();
    let text = file.read();
    let (first, messages) = text.split_once('\n').unwrap();
    let first: Value = serde_json::from_str(first).unwrap();
    assert_eq!((&first["whimbrel_recording"], &first["filters"][0]), (&1.into(), &"a/#".into()));
    let recorded = without_times(messages);

    let words =
        ["-V", "5", "-q", "2", "-t", "copy/#", "--retain-as-published", "--json", "-C", "3"];
    let copies = subscribed(&broker, &words);
    let words = ["--replay", file.path(), "--speed", "max", "--topic-prefix", "copy/", "-V", "5"];
    on(&broker, "pub", &words).ok();
    let mut expected = recorded.clone();
    for message in &mut expected {
        message["topic"] = format!("copy/{}", message["topic"].as_str().unwrap()).into();
    }
    let mut copied = without_times(&copies.done().ok());
    // Messages of different QoS may overtake each other.
    for messages in [&mut expected, &mut copied] {
        messages.sort_by_key(|message| message["topic"].to_string());
    }
    assert_eq!(copied, expected);
    assert_eq!(copied[1]["user_properties"][0][1], "v");
    assert_eq!(copied[1]["retain"], true);
    assert_eq!(copied[2]["payload_base64"], "AP8K");
}

/// Each message is in the file before it is seen, whatever ends the recorder.
#[test]
fn a_recorder_that_is_killed_leaves_what_it_printed() {
    let broker = Broker::start();
    for signal in ["KILL", "INT"] {
        let file = TempFile::new(&format!("killed-{signal}"));
        let mut sub = subscribed(&broker, &["-t", "a", "--record", file.path()]);
        on(&broker, "pub", &["-t", "a", "-m", "x"]).ok();
        let mut line = String::new();
        BufReader::new(sub.process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "x\n");
        sub.signal(signal);
        sub.process.wait().unwrap();
        assert_eq!(file.read().lines().count(), 2, "{}", file.read());
    }
}

/// A message is acknowledged when it is in the file and on stdout, and not before.
#[test]
fn what_cannot_be_written_stays_with_the_broker() {
    let broker = Broker::start();
    let long = "x".repeat(2000);
    for qos in ["1", "2"] {
        let file = TempFile::new(&format!("full-{qos}"));
        let session = ["-c", "-i", "keeper", "-q", qos, "-t", "a"];
        on(&broker, "sub", &[&session[..], &["-E"]].concat()).ok();
        // A file may have 512 bytes, or 1,024: the shells differ.
        let full_file = "trap '' XFSZ; ulimit -f 1; exec \"$0\" \"$@\"";
        let words = [&session[..], &["--record", file.path()]].concat();
        let mut sub = start_under(full_file, &broker, "sub", &words);
        on(&broker, "pub", &["-t", "a", "-m", "short", "-q", qos]).ok();
        let mut line = String::new();
        let mut stdout = BufReader::new(sub.process.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line, "short\n");
        on(&broker, "pub", &["-t", "a", "-m", &long, "-q", qos]).ok();
        sub.done().fails(1, &format!("cannot write to {}: File too large", file.path()));

        let full_disk = "exec \"$0\" \"$@\" >/dev/full";
        let sub = start_under(full_disk, &broker, "sub", &session);
        sub.done().fails(1, "cannot write to stdout: No space left on device");
        on(&broker, "pub", &["-t", "a", "-m", "last", "-q", qos]).ok();
        let left = on(&broker, "sub", &[&session[..], &["-C", "2"]].concat()).ok();
        assert_eq!(left, format!("{long}\nlast\n"));
        on(&broker, "pub", &["-t", "a", "-m", "new", "-q", qos]).ok();
        assert_eq!(on(&broker, "sub", &[&session[..], &["-C", "1"]].concat()).ok(), "new\n");
    }
}

/// What was acknowledged is in one of the files, wherever the kill struck.
#[test]
fn a_recorder_that_is_killed_loses_nothing_of_a_kept_session() {
    let broker = Broker::start();
    let session = ["-c", "-i", "keeper", "-q", "1", "-t", "a"];
    on(&broker, "sub", &[&session[..], &["-E"]].concat()).ok();
    // Mosquitto queues up to a hundred.
    let lines: String = (0..90).map(|n| format!("{n}\n")).collect();
    let words = ["-t", "a", "-l", "-q", "1"];
    start_on(&broker, "pub", &words).input(lines.as_bytes()).done().ok();
    let mut recorded = HashSet::new();
    for round in ["first", "second", "third", "end"] {
        // So there is something to come, whatever the rounds before have taken.
        on(&broker, "pub", &["-t", "a", "-m", round, "-q", "1"]).ok();
        let file = TempFile::new(&format!("kept-{round}"));
        let words = [&session[..], &["--record", file.path()]].concat();
        let mut sub = start_on(&broker, "sub", &words);
        let stdout = BufReader::new(sub.process.stdout.take().unwrap());
        assert!(stdout.lines().any(|line| round != "end" || line.unwrap() == "end"));
        sub.signal("KILL");
        sub.process.wait().unwrap();
        let text = file.read();
        let whole = text.lines().skip(1).filter_map(|line| serde_json::from_str(line).ok());
        recorded.extend(whole.map(|line: Value| line["payload"].as_str().unwrap().to_owned()));
    }
    assert_eq!(recorded.len(), 94);
}

const TWO: &str = "\
{\"whimbrel_recording\":1}
{\"at_us\":0,\"topic\":\"a\",\"payload\":\"1\"}
{\"at_us\":400000,\"topic\":\"a\",\"qos\":1,\"payload\":\"2\"}
";

#[test]
fn messages_keep_their_distance() {
    let broker = Broker::start();
    let file = TempFile::with("distance", TWO);
    for (speed, least) in [("1", 400), ("2.0", 200), ("max", 0)] {
        let sub = subscribed(&broker, &["-t", "a", "-C", "2", "-q", "1", "-F", "%q%p"]);
        let start = Instant::now();
        on(&broker, "pub", &["--replay", file.path(), "--speed", speed]).ok();
        assert!(start.elapsed() >= Duration::from_millis(least));
        assert_eq!(sub.done().ok(), "01\n12\n");
    }
}

#[test]
fn a_loop_begins_again() {
    let broker = Broker::start();
    let file = TempFile::with("loop", TWO);
    let sub = subscribed(&broker, &["-t", "a", "-C", "5"]);
    let words = ["--replay", file.path(), "--loop", "--speed", "20", "-q", "2"];
    let replay = start_on(&broker, "pub", &words);
    assert_eq!(sub.done().ok(), "1\n2\n1\n2\n1\n");
    replay.signal("TERM");
    replay.done();
}

#[test]
fn nothing_of_a_recording_with_a_fault_is_published() {
    let broker = Broker::start();
    let sub = subscribed(&broker, &["-t", "a", "-C", "1"]);
    let file = TempFile::with("fault", &format!("{TWO}{{\"at_us\":0,\"topic\":\"a/#\"}}\n"));
    let what = format!("{}: line 4: `topic` must not be empty or contain", file.path());
    on(&broker, "pub", &["--replay", file.path()]).fails(1, &what);
    run("pub", &["--replay", "/nowhere/file"]).fails(1, "/nowhere/file");
    let empty = TempFile::with("empty", "{\"whimbrel_recording\":1}\n");
    run("pub", &["--replay", empty.path()]).fails(1, "there is no message in it");
    run("sub", &["-t", "a", "--record", "/nowhere/file"]).fails(1, "--record /nowhere/file");
    on(&broker, "pub", &["-t", "a", "-m", "first"]).ok();
    assert_eq!(sub.done().ok(), "first\n");
}
