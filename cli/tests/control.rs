//! The control socket of a running broker, and `whimbrel explain --control`.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

#[allow(dead_code, reason = "each test uses a part")]
mod support;

use support::{Broker, PATIENCE, new_folder, outcome, whimbrel};

const CONFIG: &str = "\
shards = 3
control_socket = '{folder}/control'
rules_file = '{folder}/rules.toml'
[[listener]]
type = 'tcp'
bind = '127.0.0.1:0'
";

const RULES: &str = "\
[[rule]]
allow = ['publish', 'subscribe']
topics = ['t/#', 'client/%c']
qos = 1
";

/// A broker with a control socket.
struct Controlled {
    broker: Broker,
    socket: PathBuf,
}

fn start() -> Controlled {
    let folder = new_folder();
    let file = folder.join("whimbrel.toml");
    std::fs::write(folder.join("rules.toml"), RULES).unwrap();
    std::fs::write(&file, CONFIG.replace("{folder}", folder.to_str().unwrap())).unwrap();
    let socket = folder.join("control");
    let mut command = whimbrel(&["--config", file.to_str().unwrap()]);
    Controlled { broker: Broker::start(folder, &mut command), socket }
}

impl Controlled {
    /// Exit code, stdout and stderr of `whimbrel explain --control`.
    fn explain(&self, words: &str) -> (Option<i32>, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_whimbrel"));
        command.arg("explain").arg("--control").arg(&self.socket).args(words.split(' '));
        outcome(&mut command)
    }

    fn send(&self, bytes: &[u8]) -> Value {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // It may have heard enough before all is written.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(Shutdown::Write);
        // A line: what it did not read resets the connection behind its answer.
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).unwrap();
        assert!(answer.ends_with('\n'), "{answer:?}");
        serde_json::from_str(&answer).unwrap()
    }

    fn ask(&self, request: &Value) -> Value {
        self.send(format!("{request}\n").as_bytes())
    }
}

#[test]
fn the_socket_is_the_brokers_own_and_goes_with_it() {
    let mut controlled = start();
    let mode = controlled.socket.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    controlled.broker.signal("TERM");
    assert_eq!(controlled.broker.wait(), Some(0));
    assert!(!controlled.socket.exists());
}

#[test]
fn a_socket_left_behind_is_replaced_and_one_in_use_is_not() {
    let folder = new_folder();
    let path = folder.join("control");
    let flags = ["--port", "0", "--no-websocket", "--control-socket", path.to_str().unwrap()];
    let other = UnixListener::bind(&path).unwrap();
    let (code, _, err) = outcome(&mut whimbrel(&flags));
    assert_eq!(code, Some(2));
    assert!(err.starts_with("Error: key `control_socket`: cannot listen on "), "{err}");
    assert!(err.contains("already in use"), "{err}");
    drop(other);
    let mut broker = Broker::start(folder, &mut whimbrel(&flags));
    assert!(UnixStream::connect(&path).is_ok());
    broker.signal("TERM");
    assert_eq!(broker.wait(), Some(0));
}

#[test]
fn explain_asks_the_broker_that_runs() {
    let controlled = start();
    let (mut a, mut b) = (controlled.broker.tcp(), controlled.broker.tcp());
    a.connect("a");
    a.subscribe("t/+");
    a.subscribe("t/x");
    b.connect("b");
    b.subscribe("$share/g/t/#");
    let address = a.0.local_addr().unwrap();
    for (words, code, parts) in [
        (
            "--client a --publish t/x --qos 1",
            0,
            &[
                "allowed by ",
                "rules.toml:1: allow",
                &*format!("client: a, anonymous, connected from {address}"),
                "  a, QoS 1, through t/",
                "  group g: its only member: b, QoS 1, through $share/g/t/#: sent",
            ][..],
        ),
        (
            "--client a --publish t/x --qos 2",
            1,
            &["denied: no rule allows it", "no more than QoS 1"],
        ),
        ("--client new --publish client/new", 0, &["client: not known", "nobody would get it"]),
        ("--client new --publish client/a", 1, &["the client id is new"]),
        ("--client a --publish $SYS/x", 1, &["denied: $SYS topics are the broker's"]),
        (
            "--client a --publish t/x --payload-bytes 999999999",
            1,
            &["limits.max_packet_size_bytes is 16777216"],
        ),
        (
            "--client a --subscribe t/# --qos 2",
            0,
            &["granted with QoS 1", "no retained message matches"],
        ),
        ("--client a --subscribe #", 1, &["allows only a part of this filter"]),
    ] {
        let (exit, out, err) = controlled.explain(words);
        assert_eq!(exit, Some(code), "{words}: {out}{err}");
        for part in parts {
            assert!(out.contains(part), "{words}: {part:?} is missing in\n{out}");
        }
        let (exit, out, _) = controlled.explain(&format!("{words} --json"));
        assert_eq!(exit, Some(code), "{words} --json");
        let answer: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(answer["allowed"], code == 0, "{words}: {answer}");
    }
    let (_, out, _) = controlled.explain("--client a --publish t/x --most 0");
    assert!(out.contains("and 1 more\n") && out.contains("and 1 more groups"), "{out}");
}

#[test]
fn a_question_without_an_answer_is_2() {
    let controlled = start();
    let with = "--group x --client a --publish t";
    for (words, part) in [
        ("--publish t", "--client"),
        ("--client a", "--publish"),
        (with, "cannot be used with"),
        ("--client a --publish t/+", "must not contain"),
    ] {
        let (exit, out, err) = controlled.explain(words);
        assert_eq!((exit, out.as_str()), (Some(2), ""), "{words}: {err}");
        assert!(err.contains(part) && err.lines().count() == 1, "{words}: {err}");
    }
    let nowhere = Controlled { socket: "/nowhere/control".into(), ..controlled };
    let (exit, _, err) = nowhere.explain("--client a --publish t");
    assert_eq!(exit, Some(2));
    assert!(err.contains("cannot connect to the control socket /nowhere/control"), "{err}");
}

#[test]
fn a_wrong_request_gets_a_clear_error_and_the_next_its_answer() {
    let controlled = start();
    let long = vec![b' '; 1024 * 1024 + 4096];
    for (request, part) in [
        (&b"not json\n"[..], "the request: expected"),
        (b"", "the request: EOF"),
        (b"{}\n", "missing field `command`"),
        (b"{\"command\": \"fly\"}\n", "unknown variant `fly`, expected one of `explain`"),
        (b"{\"command\": \"clients\", \"form\": \"0:1\"}\n", "unknown field `form`"),
        (b"{\"command\": \"clients\", \"from\": \"x\"}\n", "`from` must be `next`"),
        (b"{\"command\": \"explain\", \"client\": \"a\"}\n", "either `publish` or `subscribe`"),
        (
            b"{\"command\": \"explain\", \"client\": \"a\", \"publish\": \"a\", \"qos\": 3}\n",
            "not 3",
        ),
        (b"{\"command\": \"explain\", \"client\": \"a\", \"publish\": \"#\"}\n", "#: a topic name"),
        (b"{\"command\": \"explain\", \"client\": \"a\", \"subscribe\": \"$share/g\"}\n", "follow"),
        (b"{\"command\": \"disconnect\", \"client\": \"a\\u001b\"}\n", "no client `a\\u{1b}`"),
        (&long, "at most"),
    ] {
        let answer = controlled.send(request);
        let error = answer["error"].as_str().unwrap_or_default();
        assert!(error.contains(part), "{answer}");
    }
    // One who says nothing is told so, and holds up nobody for long.
    let mut silent = UnixStream::connect(&controlled.socket).unwrap();
    assert_eq!(controlled.ask(&json!({"command": "clients"}))["clients"], json!([]));
    let mut told = String::new();
    silent.read_to_string(&mut told).unwrap();
    assert!(told.contains("no request came within 2 s"), "{told}");
}

#[test]
fn clients_are_listed_in_pages_and_can_be_disconnected() {
    let controlled = start();
    let names: Vec<String> = (0..7).map(|n| format!("client {n}")).collect();
    let mut links: Vec<_> = names.iter().map(|_| controlled.broker.tcp()).collect();
    for (link, name) in links.iter_mut().zip(&names) {
        link.connect(name);
    }
    links[3].subscribe("t/x");
    let (mut found, mut from) = (Vec::new(), Value::Null);
    loop {
        let page = controlled.ask(&json!({"command": "clients", "most": 2, "from": from}));
        let clients = page["clients"].as_array().unwrap();
        assert!(clients.len() <= 2, "{page}");
        found.extend(clients.clone());
        from = page["next"].clone();
        if from.is_null() {
            break;
        }
    }
    found.sort_by_key(|client| client["client"].to_string());
    let shown: Vec<_> = found.iter().map(|client| client["client"].as_str().unwrap()).collect();
    assert_eq!(shown, names);
    let third = &found[3];
    assert_eq!((&third["subscriptions"], &third["connected"]), (&json!(1), &json!(true)));
    assert_eq!(third["address"], links[3].0.local_addr().unwrap().to_string());

    let end = json!({"command": "disconnect", "client": "client 3"});
    assert_eq!(controlled.ask(&end)["was_connected"], true);
    let disconnect = links[3].packet();
    assert_eq!((disconnect[0], disconnect[2]), (0xe0, 0x98), "DISCONNECT, administrative action");
    assert!(links[3].is_closed());
    assert_eq!(controlled.ask(&end), json!({"error": "there is no client `client 3`"}));
    links[4].send(&[0xc0, 0]);
    assert_eq!(links[4].packet(), [0xd0, 0], "PINGRESP: the others stay");
}

#[test]
fn a_file_that_is_no_socket_stays() {
    let folder = new_folder();
    let path = folder.join("precious");
    File::create(&path).unwrap().write_all(b"x").unwrap();
    let flags = ["--port", "0", "--no-websocket", "--control-socket", path.to_str().unwrap()];
    let (code, _, err) = outcome(&mut whimbrel(&flags));
    assert_eq!(code, Some(2), "{err}");
    assert_eq!(std::fs::read(&path).unwrap(), b"x");
    std::fs::remove_dir_all(folder).unwrap();
}
