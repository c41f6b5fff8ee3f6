//! The examples of the client library, each run against a broker and held to what it promises.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use whimbrel_codec::{Publish, QoS};

#[allow(dead_code)]
#[path = "support/peer.rs"]
mod peer;
#[allow(dead_code)]
mod support;

use peer::Peer;
use support::Broker;

/// Longer than any example takes unless it is broken.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running example; killed when dropped.
struct Example {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Example {
    fn start(name: &str, broker: &Broker, arguments: &[&str]) -> Example {
        let binary = Path::new(env!("CARGO_BIN_EXE_whimbrel"));
        let program = binary.with_file_name("examples").join(name);
        let how = "build the examples: cargo build --workspace --examples";
        assert!(program.exists(), "{} is missing; {how}", program.display());
        let mut command = Command::new(program);
        command.arg(format!("mqtt://{}", broker.address("tcp"))).args(arguments);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Example { child, stdout }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// What is left of its output, once it has ended well.
    fn ends(mut self) -> String {
        let begin = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            assert!(begin.elapsed() < PATIENCE, "the example does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        assert!(self.child.wait().unwrap().success(), "{rest}");
        rest
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn broker() -> Broker {
    Broker::with_flags(&[])
}

#[test]
fn a_sensor_is_there_measures_and_leaves() {
    let broker = broker();
    let mut peer = Peer::kept(&broker, "watcher");
    peer.subscribe("sensors/#", QoS::AtLeastOnce, 0);
    let sensor = Example::start("sensor", &broker, &["boiler", "3"]);
    peer.takes("sensors/boiler/status", b"online");
    for reading in ["20.00", "20.10", "20.20"] {
        let got = peer.takes("sensors/boiler/temperature", reading.as_bytes());
        let expiry = |p: &String| p.starts_with("MessageExpiryIntervalS(");
        assert!(got.properties.iter().any(expiry), "{got:?}");
    }
    peer.takes("sensors/boiler/status", b"offline");
    sensor.ends();
    let mut late = Peer::kept(&broker, "late");
    late.subscribe("sensors/+/status", QoS::AtLeastOnce, 0);
    assert!(late.takes("sensors/boiler/status", b"offline").retain);
    peer.has_all();
}

#[test]
fn a_sensor_that_is_killed_is_told_to_be_lost() {
    let broker = broker();
    let mut peer = Peer::kept(&broker, "watcher");
    peer.subscribe("sensors/+/status", QoS::AtLeastOnce, 0);
    let sensor = Example::start("sensor", &broker, &["boiler"]);
    peer.takes("sensors/boiler/status", b"online");
    drop(sensor);
    peer.takes("sensors/boiler/status", b"lost");
}

#[test]
fn commands_are_carried_out_and_answered() {
    let broker = broker();
    let mut peer = Peer::kept(&broker, "operator");
    peer.subscribe("devices/+/state", QoS::AtLeastOnce, 0);
    let mut device = Example::start("commands", &broker, &["pump"]);
    assert_eq!(device.line(), "waiting for commands on devices/pump/set");
    peer.publish("devices/pump/set", b"on", QoS::AtLeastOnce);
    peer.takes("devices/pump/state", b"on");
    peer.publish("devices/pump/set", b"jump", QoS::AtLeastOnce);
    peer.takes("devices/pump/state", b"unknown command \"jump\"");
    drop(device);
    // Away, and killed at that: commands wait.
    peer.publish("devices/pump/set", b"off", QoS::AtLeastOnce);
    peer.publish("devices/pump/set", b"exit", QoS::AtLeastOnce);
    let device = Example::start("commands", &broker, &["pump"]);
    peer.takes("devices/pump/state", b"off");
    peer.takes("devices/pump/state", b"exit");
    assert!(device.ends().ends_with("off\nexit\n"));
    peer.has_all();
}

#[test]
fn requests_are_answered() {
    let broker = broker();
    let calls = Example::start("request_response", &broker, &[]);
    assert_eq!(calls.ends(), "100 calls answered\n");
}

#[test]
fn a_dashboard_shows_last_values() {
    let broker = broker();
    let mut peer = Peer::kept(&broker, "sensors");
    let mut retained = |topic, payload| {
        let publish =
            Publish { qos: QoS::AtLeastOnce, retain: true, ..Publish::new(topic, payload) };
        peer.publish_with(publish);
    };
    retained("sensors/a", b"kept");
    let dashboard = Example::start("dashboard", &broker, &["sensors/#", "2"]);
    for value in [b"1", b"2", b"3"] {
        retained("sensors/b", value);
    }
    let output = dashboard.ends();
    let words: Vec<Vec<&str>> =
        output.lines().map(|line| line.split_whitespace().collect()).collect();
    assert!(words.contains(&vec!["sensors/a", "kept", "(1)"]), "{output}");
    assert!(words.iter().any(|w| w.len() == 3 && w[..2] == ["sensors/b", "3"]), "{output}");
}

#[test]
fn a_gateway_that_is_killed_delivers_what_it_has_called_safe() {
    let broker = broker();
    let mut peer = Peer::kept(&broker, "watcher");
    peer.subscribe("boiler/temperature", QoS::AtLeastOnce, 0);
    let store = support::new_folder().join("queue.store");
    let store = store.to_str().unwrap();
    let mut gateway = Example::start("gateway", &broker, &[store, "100000"]);
    let safe: Vec<String> = (0..5).map(|_| gateway.line()).collect();
    drop(gateway);
    // The next run has nothing of its own to say.
    assert_eq!(Example::start("gateway", &broker, &[store, "0"]).ends(), "");
    for line in safe {
        let payload = line.strip_prefix("safe: boiler/temperature ").unwrap();
        peer.takes("boiler/temperature", payload.as_bytes());
    }
}
