//! `whimbrel shell` in a terminal, against a broker.

#[path = "../support/mod.rs"]
#[allow(dead_code)]
mod support;
mod terminal;

use std::process::{Command, Stdio};

use support::Broker;
use terminal::Terminal;

/// The broker's host and port, as flags.
fn flags(broker: &Broker) -> Vec<String> {
    let address = broker.address("tcp");
    let (host, port) = address.rsplit_once(':').expect("host and port");
    ["-h", host, "-p", port].map(String::from).to_vec()
}

/// Runs a tool to its end; what it printed.
fn tool(broker: &Broker, command: &str, words: &[&str]) -> String {
    let mut tool = Command::new(env!("CARGO_BIN_EXE_whimbrel"));
    let tool = tool.arg(command).args(flags(broker)).args(words);
    let (code, stdout, stderr) = support::outcome(tool);
    assert_eq!(code, Some(0), "{stderr}");
    stdout
}

/// A broker with two retained messages, and a shell that shows them.
fn watching() -> (Broker, Terminal) {
    let broker = Broker::with_flags(&[]);
    for (topic, text) in [("house/boiler", "64.5"), ("house/door", "shut")] {
        tool(&broker, "pub", &["-t", topic, "-m", text, "-q", "1", "-r"]);
    }
    let mut shell = Terminal::start(&flags(&broker));
    shell.wait_for("house");
    shell.keys("E");
    shell.wait_for("shut");
    (broker, shell)
}

#[test]
fn messages_appear_as_they_come() {
    let (broker, mut shell) = watching();
    shell.wait_for("64.5");
    shell.wait_for("R0");
    tool(&broker, "pub", &["-t", "house/window/left", "-m", "open"]);
    shell.wait_for("▸ window");
    shell.keys("E");
    shell.wait_for("open");
    tool(&broker, "pub", &["-t", "house/boiler", "-m", "65.5", "-q", "1"]);
    shell.wait_for("65.5");
    shell.keys("/boiler\rj");
    shell.wait_for("Last 2 values 64.5 to 65.5");
    shell.quit();
}

#[test]
fn the_dialogue_publishes() {
    let (broker, mut shell) = watching();
    // Topic, payload, QoS, retain.
    shell.keys("/door\rjp");
    shell.wait_for("Payload shut");
    shell.keys("\x15open\t2\r");
    shell.wait_for("published to house/door");
    shell.wait_for("Last 2 values");
    let retained = tool(&broker, "sub", &["-t", "house/door", "-C", "1", "-W", "5"]);
    assert_eq!(retained, "open\n");
    shell.quit();
}

#[test]
fn retained_messages_are_removed() {
    let (broker, mut shell) = watching();
    shell.keys("rd");
    shell.wait_for("Have the broker forget 2 retained messages?");
    shell.keys("y");
    shell.wait_for("no such topic; r shows all");
    // Nothing is retained any more, so this one comes first.
    tool(&broker, "pub", &["-t", "house/door", "-m", "new", "-q", "1", "-r"]);
    assert_eq!(tool(&broker, "sub", &["-t", "house/#", "-C", "1", "-W", "5"]), "new\n");
    shell.quit();
}

#[test]
fn filters_are_subscribed_to_and_left() {
    let (broker, mut shell) = watching();
    shell.keys("s\x1b[3~");
    shell.wait_for("unsubscribed from #");
    shell.keys("other/#\r");
    shell.wait_for("other/#  QoS 0");
    shell.keys("\x1b");
    tool(&broker, "pub", &["-t", "house/door", "-m", "unseen"]);
    tool(&broker, "pub", &["-t", "other", "-m", "seen"]);
    shell.wait_for("seen");
    assert!(!shell.text().contains("unseen"), "{}", shell.text());
    shell.quit();
}

#[test]
fn the_view_follows_the_size_of_the_terminal() {
    let (_broker, shell) = watching();
    assert!(!shell.text().contains("z zoom"));
    shell.resize(40, 140);
    shell.wait_for("z zoom");
    shell.resize(5, 20);
    shell.wait_until("a small screen", |text| text.contains("Topics") && text.len() < 200);
    shell.resize(24, 80);
    shell.wait_for("64.5");
    shell.quit();
}

#[test]
fn a_broker_that_comes_back_is_found_again() {
    let (broker, mut shell) = watching();
    let address = broker.address("tcp");
    let (_, port) = address.rsplit_once(':').expect("a port");
    let port = port.to_owned();
    drop(broker);
    shell.wait_for("reconnecting in");
    let folder = support::new_folder();
    let mut again = support::whimbrel(&["--port", &port, "--no-websocket"]);
    let broker = Broker::start(folder, &mut again);
    shell.wait_until("a connection", |text| text.contains("● ") && !text.contains("reconnecting"));
    // Published until the subscription is there again.
    shell.wait_while("the subscription", |text| {
        tool(&broker, "pub", &["-t", "house/boiler", "-m", "70.5"]);
        !text.contains("70.5")
    });
    shell.keys("i");
    shell.wait_for("connected to");
    // Any key closes the list.
    shell.keys("qq");
    shell.wait_end(0);
}

#[test]
fn a_signal_gives_the_terminal_back() {
    for signal in ["TERM", "INT", "HUP"] {
        let (_broker, mut shell) = watching();
        assert!(shell.is_taken());
        shell.signal(signal);
        shell.wait_end(0);
        assert!(!shell.is_taken(), "SIG{signal}");
    }
}

#[test]
fn without_a_terminal_or_a_broker_it_says_so() {
    let run = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_whimbrel"));
        support::outcome(command.arg("shell").args(words).stdin(Stdio::null()))
    };
    let (code, _, stderr) = run(&[]);
    assert_eq!((code, stderr.lines().count()), (Some(1), 1));
    assert!(stderr.contains("shell needs a terminal; for scripts there is `whimbrel sub`"));
    let (code, _, stderr) = run(&["-t", "a#"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("\"a#\" is not a topic filter"), "{stderr}");
    let mut shell = Terminal::start(&["-p", "1"].map(String::from));
    shell.wait_for("Error: cannot connect to");
    shell.wait_end(1);
    assert!(!shell.is_taken());
}
