use crate::broker::Broker;
use crate::tool::{on, run, start_on, subscribed};

#[test]
fn every_version_and_qos_arrives() {
    let broker = Broker::start();
    for version in ["31", "mqttv311", "5"] {
        for qos in ["0", "1", "2"] {
            let sub = subscribed(&broker, &["-t", "a", "-q", "2", "-C", "1", "-F", "%q %p"]);
            on(&broker, "pub", &["-t", "a", "-m", version, "-q", qos, "-V", version]).ok();
            assert_eq!(sub.done().ok(), format!("{qos} {version}\n"));
        }
    }
}

#[test]
fn every_transport_carries() {
    let broker = Broker::start();
    let sub = subscribed(&broker, &["-t", "a/#", "-v", "-C", "3"]);
    let url = format!("mqtt://127.0.0.1:{}/a/url", broker.port);
    run("pub", &["-L", &url, "-m", "1", "-q", "1"]).ok();
    let path = broker.unix.display().to_string();
    run("pub", &["--unix", &path, "-t", "a/unix", "-m", "2", "-q", "1"]).ok();
    let url = format!("ws://127.0.0.1:{}/mqtt", broker.websocket_port);
    // Longer than one WebSocket frame of ours.
    let payload = "3".repeat(100_000);
    run("pub", &["-L", &url, "-t", "a/ws", "-m", &payload, "-q", "2"]).ok();
    assert_eq!(sub.done().ok(), format!("a/url 1\na/unix 2\na/ws {payload}\n"));
}

#[test]
fn subscribing_over_websocket() {
    let broker = Broker::start();
    on(&broker, "pub", &["-t", "a", "-m", "kept", "-r", "-q", "1"]).ok();
    let url = format!("ws://127.0.0.1:{}", broker.websocket_port);
    assert_eq!(run("sub", &["-L", &url, "-t", "a", "-C", "1"]).ok(), "kept\n");
}

#[test]
fn lines_of_stdin_are_messages() {
    let broker = Broker::start();
    let sub = subscribed(&broker, &["-t", "a", "-q", "1", "-C", "300"]);
    let lines: String = (0..300).map(|n| format!("{n}\n")).collect();
    start_on(&broker, "pub", &["-t", "a", "-l", "-q", "1"]).input(lines.as_bytes()).done().ok();
    assert_eq!(sub.done().ok(), lines);
}

#[test]
fn stdin_file_and_nothing_are_one_message() {
    let broker = Broker::start();
    let sub = subscribed(&broker, &["-t", "a", "-C", "3", "-F", "%l %x"]);
    start_on(&broker, "pub", &["-t", "a", "-s"]).input(b"a\nb").done().ok();
    on(&broker, "pub", &["-t", "a", "-n"]).ok();
    let file = std::env::temp_dir().join(format!("whimbrel-pub-{}", std::process::id()));
    std::fs::write(&file, [0, 255]).unwrap();
    on(&broker, "pub", &["-t", "a", "-f", file.to_str().unwrap()]).ok();
    std::fs::remove_file(file).unwrap();
    assert_eq!(sub.done().ok(), "3 610a62\n0 \n2 00ff\n");
}

#[test]
fn a_message_may_look_like_a_flag() {
    let broker = Broker::start();
    let sub = subscribed(&broker, &["-t", "a", "-C", "1"]);
    on(&broker, "pub", &["-t", "a", "-m", "-5"]).ok();
    assert_eq!(sub.done().ok(), "-5\n");
}

#[test]
fn repeated_messages_keep_their_distance() {
    let broker = Broker::start();
    let sub = subscribed(&broker, &["-t", "a", "-C", "3"]);
    let start = std::time::Instant::now();
    let words = ["-t", "a", "-m", "x", "--repeat", "3", "--repeat-delay", "0.2", "-q", "1"];
    on(&broker, "pub", &words).ok();
    assert!(start.elapsed().as_millis() >= 400);
    assert_eq!(sub.done().ok(), "x\nx\nx\n");
}

#[test]
fn properties_arrive() {
    let broker = Broker::start();
    let format = "%C|%P|%D|%R|%F|%E|%S";
    let words = ["-t", "a", "-V", "5", "-C", "1", "-F", format];
    let sub = subscribed(
        &broker,
        &[&words[..], &["-D", "subscribe", "subscription-identifier", "9"]].concat(),
    );
    let words = [
        "-t a -m x -D publish content-type text/plain -D publish user-property k v",
        "-D publish user-property k w -D publish correlation-data id -D publish response-topic r",
        "-D publish payload-format-indicator 1 -D publish message-expiry-interval 100",
    ];
    let words = words.join(" ");
    on(&broker, "pub", &words.split(' ').collect::<Vec<_>>()).ok();
    assert_eq!(sub.done().ok(), "text/plain|k:v k:w|id|r|1|100|9\n");
}

#[test]
fn debian_understands_us_and_we_it() {
    let broker = Broker::start();
    let port = broker.port.to_string();
    let sub = subscribed(&broker, &["-t", "a", "-q", "2", "-C", "1"]);
    let theirs = std::process::Command::new("mosquitto_pub")
        .args(["-p", &port, "-t", "a", "-m", "theirs", "-q", "2", "-r"])
        .status()
        .expect("mosquitto-clients must be installed: run ./check");
    assert!(theirs.success());
    assert_eq!(sub.done().ok(), "theirs\n");
    on(&broker, "pub", &["-t", "a", "-m", "ours", "-q", "2", "-r"]).ok();
    let theirs = std::process::Command::new("mosquitto_sub")
        .args(["-p", &port, "-t", "a", "-C", "1", "-W", "5"])
        .output()
        .unwrap();
    assert_eq!(theirs.stdout, b"ours\n");
}
