//! `whimbrel store`, as an operator uses it on the directory of a broker that was stopped.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use whimbrel_codec::{Properties, Property, Publish, QoS};

#[allow(dead_code)]
#[path = "support/peer.rs"]
mod peer;
#[allow(dead_code)]
mod support;

use peer::{KEPT, Opening, Peer};
use support::{Broker, new_folder};

/// A folder that is removed in the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        Folder(new_folder())
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What the command left behind.
#[derive(Debug)]
struct Done {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Done {
    fn ok(self) -> String {
        assert_eq!((self.code, self.err.as_str()), (Some(0), ""), "{}", self.out);
        self.out
    }

    /// One line on stderr, and this exit code.
    fn fails(self, code: i32, what: &str) -> String {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.err.contains(what), "{what:?} is missing: {self:?}");
        assert_eq!(self.err.lines().count(), 1, "{self:?}");
        self.out
    }
}

fn store(words: &[&str]) -> Done {
    store_with(words, "")
}

fn store_with(words: &[&str], input: &str) -> Done {
    let mut command = Command::new(env!("CARGO_BIN_EXE_whimbrel"));
    command.arg("store").args(words);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // Who refuses does not read.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Done { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

fn start(data_dir: &str) -> Broker {
    Broker::with_flags(&["--shards", "2", "--data-dir", data_dir])
}

fn stop(mut broker: Broker, signal: &str) {
    broker.signal(signal);
    broker.wait();
}

/// Every file and its content.
fn files(dir: &str) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| {
            (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())
        })
        .collect()
}

/// Sessions of all kinds in a data directory, and a stop.
fn fill(data_dir: &str, signal: &str) {
    let broker = start(data_dir);
    let mut keeper = Peer::kept(&broker, "keeper");
    keeper.subscribe("a/#", QoS::AtLeastOnce, 0);
    keeper.subscribe("b/+", QoS::ExactlyOnce, 7);
    keeper.subscribe("will", QoS::AtLeastOnce, 0);
    let mut member = Peer::kept(&broker, "member \"1\"");
    member.subscribe("$share/group/work", QoS::AtLeastOnce, 9);
    let never = Opening { expiry_s: u32::MAX, ..KEPT };
    let mut publisher = Peer::connect(&broker, "publisher", &never);

    publisher.publish("a/in flight", b"1", QoS::AtLeastOnce);
    publisher.publish("b/in flight", b"2", QoS::ExactlyOnce);
    publisher.publish("b/released", b"3", QoS::ExactlyOnce);
    let in_flight = keeper.burst(3);
    keeper.receive(&in_flight[2]);
    drop((keeper, member));
    std::thread::sleep(std::time::Duration::from_millis(100));

    let expiry = [
        Property::MessageExpiryIntervalS(3000),
        Property::ContentType("text/plain"),
        Property::UserProperty("wer", "Bär"),
        Property::CorrelationData(&[0, 0xff]),
    ];
    let properties = Properties::new(&expiry);
    let rich = Publish { properties, qos: QoS::ExactlyOnce, ..Publish::new("b/rich", b"\xff\0") };
    publisher.publish_with(rich);
    publisher.publish("a/text", "gr\u{fc}n \u{1F426} \"\\\n".as_bytes(), QoS::AtLeastOnce);
    (0..3).for_each(|n| publisher.publish("work", &[b'0' + n], QoS::AtLeastOnce));
    publisher.publish_with(Publish { retain: true, topic: "a/retained", ..rich });
    let plain = Publish { retain: true, qos: QoS::AtLeastOnce, ..Publish::new("r", b"plain") };
    publisher.publish_with(plain);
    let will = Opening { will: Some(("will", b"\xfe")), will_delay_s: 2, ..KEPT };
    let willing = Peer::connect(&broker, "willing", &will);
    // A message of QoS 2 that its publisher has not released.
    publisher.begin_exactly_once("a/received", b"r");
    drop((publisher, willing));
    std::thread::sleep(std::time::Duration::from_millis(100));
    stop(broker, signal);
}

/// All that [`fill`] has left is there, once.
fn expect_all(data_dir: &str) {
    let broker = start(data_dir);
    let mut keeper = Peer::kept(&broker, "keeper");
    assert!(keeper.session_present);
    let messages = keeper.burst(7);
    keeper.pubrel();
    let of = |topic: &str| {
        let all: Vec<_> = messages.iter().filter(|got| got.topic == topic).collect();
        assert_eq!(all.len(), 1, "{topic}: {all:?}");
        all[0]
    };
    assert_eq!((&*of("a/in flight").payload, of("a/in flight").dup), (&b"1"[..], true));
    assert_eq!((&*of("b/in flight").payload, of("b/in flight").dup), (&b"2"[..], true));
    assert_eq!(of("a/text").payload, "gr\u{fc}n \u{1F426} \"\\\n".as_bytes());
    assert_eq!(of("a/received").payload, b"r");
    let rich = of("b/rich");
    assert_eq!((&*rich.payload, rich.qos), (&b"\xff\0"[..], QoS::ExactlyOnce));
    let shown = rich.properties.join(" ");
    for what in [
        "SubscriptionIdentifier(7)",
        "ContentType(\"text/plain\")",
        "UserProperty(\"wer\", \"Bär\")",
        "CorrelationData([0, 255])",
        "MessageExpiryIntervalS(",
    ] {
        assert!(shown.contains(what), "{what} is missing: {shown}");
    }
    // It was forwarded when it was published, and is not a retained message here.
    assert!(!of("a/retained").retain);
    keeper.acknowledge_all(&messages);
    assert_eq!(of("will").payload, b"\xfe");

    let mut member = Peer::kept(&broker, "member \"1\"");
    assert!(member.session_present);
    for n in 0..3 {
        assert_eq!(member.takes("work", &[b'0' + n]).properties, ["SubscriptionIdentifier(9)"]);
    }
    let mut new = Peer::kept(&broker, "new");
    new.subscribe("#", QoS::AtLeastOnce, 0);
    let mut retained = new.burst(2);
    retained.sort_by(|one, other| one.topic.cmp(&other.topic));
    assert_eq!((&*retained[0].topic, &*retained[0].payload), ("a/retained", &b"\xff\0"[..]));
    assert_eq!((&*retained[1].topic, &*retained[1].payload), ("r", &b"plain"[..]));
    new.acknowledge_all(&retained);
    let mut publisher = Peer::kept(&broker, "publisher");
    assert!(publisher.session_present);
    publisher.publish("work", b"after", QoS::AtLeastOnce);
    member.takes("work", b"after");
    new.takes("work", b"after");
    [keeper, member, new].iter_mut().for_each(Peer::has_all);
}

#[test]
fn what_was_exported_and_imported_is_all_there() {
    let folder = Folder::new();
    let (old, new, file) = (folder.path("old"), folder.path("new"), folder.path("lines"));
    fill(&old, "TERM");
    assert_eq!(store(&["export", &old, &file]).ok(), "");
    assert_eq!(store(&["import", &new, &file]).ok(), "");
    let lines = std::fs::read_to_string(&file).unwrap();
    assert_eq!(store(&["export", &new]).ok(), lines);
    for what in [
        r#"{"whimbrel_store":1,"#,
        r#""topic":"b/rich","payload_base64":"/wA=","qos":2,"expires_ms":"#,
        r#""content_type":"text/plain","user_properties":[["wer","Bär"]]"#,
        r#"{"session":"member \"1\"","expiry_s":3600,"detached_ms":"#,
        r#""subscriptions":[{"filter":"$share/group/work","qos":1,"id":9}]"#,
        r#""group":"$share/group/work","ids":[9]}"#,
        r#""will":{"topic":"will","payload_base64":"/g==","qos":1,"delay_s":2}"#,
        r#""released":true}"#,
        r#"{"session":"publisher","expiry_s":"never","#,
        r#""received":["#,
        r#"{"end":true,"#,
    ] {
        assert!(lines.contains(what), "{what} is missing in\n{lines}");
    }
    expect_all(&new);
    expect_all(&old);
}

#[test]
fn after_a_kill_too() {
    let folder = Folder::new();
    let (old, new) = (folder.path("old"), folder.path("new"));
    fill(&old, "KILL");
    let before = files(&old);
    let lines = store(&["export", &old]).ok();
    assert!(lines.contains(r#""stopped":false"#), "{lines}");
    let report = store(&["check", &old]).ok();
    assert!(report.contains("not in good order"), "{report}");
    assert_eq!(files(&old), before, "check and export change nothing");
    store_with(&["import", &new], &lines).ok();
    assert_eq!(store(&["export", &new]).ok(), lines);
    expect_all(&new);
}

#[test]
fn check_says_what_is_there() {
    let folder = Folder::new();
    let dir = folder.path("data");
    fill(&dir, "TERM");
    let before = files(&dir);
    let report = store(&["check", &dir]).ok();
    for what in [
        "well, the broker would start",
        "segments       1, ",
        "sessions       4",
        "subscriptions  4",
        "in flight      3",
        "retained       2",
        "last stop      in good order",
    ] {
        assert!(report.contains(what), "{what} is missing in\n{report}");
    }
    assert!(store(&["repair", &dir]).ok().contains("nothing was changed"));
    assert_eq!(files(&dir), before);
}

#[test]
fn a_torn_end_is_no_damage_and_is_left_to_the_broker() {
    let folder = Folder::new();
    let dir = folder.path("data");
    fill(&dir, "TERM");
    let (name, mut content) =
        files(&dir).into_iter().find(|(name, _)| name.starts_with("log-")).unwrap();
    content.truncate(content.len() - 3);
    std::fs::write(Path::new(&dir).join(name), &content).unwrap();
    let before = files(&dir);
    let report = store(&["check", &dir]).ok();
    assert!(report.contains("torn end"), "{report}");
    let lines = store(&["export", &dir]).ok();
    assert!(lines.contains(r#""stopped":false"#), "its last frame said so: {lines}");
    store(&["repair", &dir]).ok();
    assert_eq!(files(&dir), before);
    expect_all(&dir);
}

#[test]
fn a_damaged_store_is_found_out_and_repaired() {
    let folder = Folder::new();
    let dir = folder.path("data");
    fill(&dir, "TERM");
    let (name, mut content) =
        files(&dir).into_iter().find(|(name, _)| name.starts_with("log-")).unwrap();
    let at = content.windows(5).rposition(|bytes| bytes == b"plain").unwrap();
    content[at] ^= 1;
    std::fs::write(Path::new(&dir).join(&name), &content).unwrap();
    let before = files(&dir);
    let report = store(&["check", &dir]).fails(1, "whimbrel store repair");
    assert!(report.contains(&format!("! {name}, offset ")), "{report}");
    store(&["export", &dir]).fails(1, &name);
    assert_eq!(files(&dir), before);

    let repaired = store(&["repair", &dir]).ok();
    for what in ["repaired, the broker can start", "found: ", "aside: ", "kept:  4 sessions"] {
        assert!(repaired.contains(what), "{what} is missing in\n{repaired}");
    }
    assert!(files(&dir).values().any(|old| *old == content), "the damaged file is still there");
    store(&["check", &dir]).ok();
    let broker = start(&dir);
    let mut keeper = Peer::kept(&broker, "keeper");
    assert!(keeper.session_present);
    assert!(keeper.burst(7).iter().any(|got| got.topic == "b/rich"));
}

#[test]
fn a_directory_in_use_is_refused() {
    let folder = Folder::new();
    let dir = folder.path("data");
    let broker = start(&dir);
    for command in ["check", "repair", "export"] {
        store(&[command, &dir]).fails(2, "a running broker uses this data directory");
    }
    store(&["import", &dir]).fails(2, "there is a store already");
    stop(broker, "TERM");
    store(&["check", &dir]).ok();
}

#[test]
fn what_is_no_store_is_refused_and_left_alone() {
    let folder = Folder::new();
    let (nowhere, empty) = (folder.path("nowhere"), folder.path("empty"));
    std::fs::create_dir(&empty).unwrap();
    for command in ["check", "repair", "export"] {
        store(&[command, &nowhere]).fails(2, "there is no such directory");
        store(&[command, &empty]).fails(2, "this is no data directory");
        store(&[command]).fails(2, "whimbrel store --help");
    }
    assert!(!Path::new(&nowhere).exists() && files(&empty).is_empty());
    store(&["frobnicate", &empty]).fails(2, "frobnicate");
    store(&[]).fails(2, "a command is missing after store; see `whimbrel store --help`");
    std::fs::write(Path::new(&empty).join("file"), "mine").unwrap();
    store(&["import", &empty]).fails(2, "not empty");
    assert_eq!(files(&empty).len(), 1);
}

const HEAD: &str = "{\"whimbrel_store\":1}\n\
                    {\"message\":1,\"topic\":\"t\",\"payload\":\"p\",\"qos\":1}\n";

#[test]
fn a_bad_line_is_named_and_leaves_nothing() {
    let folder = Folder::new();
    let (absent, empty) = (folder.path("absent"), folder.path("empty"));
    std::fs::create_dir(&empty).unwrap();
    let session = |rest: &str| format!(r#"{{"session":"s","expiry_s":9,{rest}}}"#);
    for (line, what) in [
        ("nonsense", "line 3: this is not JSON"),
        ("[]", "line 3: the line must be an object"),
        ("{}", "line 3: there is no `message`"),
        (r#"{"message":1,"topic":"t","payload":""}"#, "line 3: message 1 was there already"),
        (r#"{"message":2,"topic":"a/#","payload":""}"#, "\"a/#\" is not a topic name"),
        (r#"{"message":2,"topic":"t"}"#, "`payload` or `payload_base64` is missing"),
        (r#"{"message":2,"topic":"t","payload_base64":"?"}"#, "is not base64"),
        (r#"{"message":2,"topic":"t","payload":"","qos":3}"#, "`qos` must be 0, 1 or 2"),
        (r#"{"message":2,"topic":"t","payload":"","colour":3}"#, "no field `colour`"),
        (r#"{"message":2,"topic":"t","payload":"","properties_base64":"AAAA"}"#, "no properties"),
        (r#"{"retained":2}"#, "there is no message 2 before this line"),
        (r#"{"session":"s"}"#, "`expiry_s` is missing"),
        (r#"{"queue_of":"s","queue":[1]}"#, "the line of session \"s\" has not come before"),
        (&session(r#""queue":[1,5]"#), "there is no message 5"),
        (&session(r#""queue":[{"message":1,"qos":0}]"#), "must be 1 or 2"),
        (&session(r#""received":[0]"#), "a packet identifier must be 1 to 65535"),
        (&session(r#""subscriptions":[{"filter":"a#"}]"#), "\"a#\" is not a topic filter"),
        (r#"{"end":true,"messages":7}"#, "the lines were cut"),
        ("", "line 4: the line with \"end\" is missing"),
    ] {
        let lines = format!("{HEAD}{line}\n");
        store_with(&["import", &absent], &lines).fails(1, what);
        store_with(&["import", &empty], &lines).fails(1, what);
        assert!(!Path::new(&absent).exists(), "{line}");
        assert!(files(&empty).is_empty(), "{line}");
    }
    store_with(&["import", &absent], "{\"whimbrel_store\":2}\n").fails(1, "line 1: version 2");
    store_with(&["import", &absent], "{\"a\":2}\n").fails(1, "line 1: the first line must be");
    store_with(&["import", &absent], "").fails(1, "the line with \"end\" is missing");
    store(&["import", &absent, "/nowhere/x"]).fails(2, "/nowhere/x");
}

#[test]
fn no_broker_opens_an_import_that_was_broken_off() {
    let folder = Folder::new();
    let dir = folder.path("data");
    let mut command = Command::new(env!("CARGO_BIN_EXE_whimbrel"));
    let mut child = command.args(["store", "import", &dir]).stdin(Stdio::piped()).spawn().unwrap();
    // Enough for the first batches to be written.
    let mut lines = String::from("{\"whimbrel_store\":1}\n");
    let payload = "x".repeat(1000);
    for n in 0..20_000 {
        lines += &format!("{{\"message\":{n},\"topic\":\"t\",\"payload\":\"{payload}\"}}\n");
    }
    child.stdin.as_mut().unwrap().write_all(lines.as_bytes()).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let flags = ["--port", "0", "--no-websocket", "--data-dir", &dir];
    let (code, _, error) = support::outcome(&mut support::whimbrel(&flags));
    assert_eq!(code, Some(2), "{error}");
    for command in ["check", "repair", "export"] {
        store(&[command, &dir]).fails(2, "was broken off");
    }
}

#[test]
fn long_queues_take_several_lines() {
    let folder = Folder::new();
    let (dir, again) = (folder.path("data"), folder.path("again"));
    let mut lines = String::from("{\"whimbrel_store\":1,\"stopped\":true}\n");
    for n in 0..25_000 {
        lines += &format!("{{\"message\":{n},\"topic\":\"t\",\"payload\":\"{n}\",\"qos\":1}}\n");
    }
    let numbers: Vec<String> = (0..25_000).map(|n| n.to_string()).collect();
    lines += &format!(
        "{{\"session\":\"s\",\"expiry_s\":\"never\",\"queue\":[{}]}}\n{{\"end\":true}}\n",
        numbers.join(",")
    );
    store_with(&["import", &dir], &lines).ok();
    let exported = store(&["export", &dir]).ok();
    assert_eq!(exported.lines().filter(|line| line.contains("\"queue_of\":\"s\"")).count(), 2);
    store_with(&["import", &again], &exported).ok();
    assert_eq!(store(&["export", &again]).ok(), exported);
    assert!(store(&["check", &again]).ok().contains("queued         25000"));
    let broker = start(&again);
    let mut peer = Peer::connect(&broker, "s", &Opening { expiry_s: u32::MAX, ..KEPT });
    (0..100).for_each(|n| drop(peer.takes("t", n.to_string().as_bytes())));
}

#[test]
fn help_has_examples() {
    for command in ["check", "repair", "export", "import"] {
        let help = store(&[command, "--help"]).ok();
        assert!(help.contains(&format!("whimbrel store {command} /var/lib/whimbrel")), "{help}");
    }
    assert!(store(&["--help"]).ok().contains("Exit codes:"));
}
