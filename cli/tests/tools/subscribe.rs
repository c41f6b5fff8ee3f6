use std::io::{BufRead, BufReader};

use crate::broker::Broker;
use crate::tool::{on, start_on, subscribed};

fn publish(broker: &Broker, topic: &str, message: &str, more: &[&str]) {
    let words = [&["-t", topic, "-m", message, "-q", "1"], more].concat();
    on(broker, "pub", &words).ok();
}

#[test]
fn many_topics_some_filtered_out() {
    let broker = Broker::start();
    let sub = subscribed(&broker, &["-t", "a/+", "-t", "b", "-T", "a/2", "-v", "-C", "3"]);
    for topic in ["a/1", "a/2", "b", "c", "a/3"] {
        publish(&broker, topic, "x", &[]);
    }
    assert_eq!(sub.done().ok(), "a/1 x\nb x\na/3 x\n");
}

#[test]
fn formats() {
    let broker = Broker::start();
    let format = r"%t|%5l|%-5q|%05m|%X|\t@Y|%%";
    let sub = subscribed(&broker, &["-t", "a", "-q", "1", "-C", "1", "-F", format]);
    publish(&broker, "a", "hi", &[]);
    let out = sub.done().ok();
    let (head, year) = out.split_once('\t').unwrap();
    assert_eq!(head, "a|    2|1|00001|6869|");
    assert!(year.starts_with("20") && year.ends_with("|%\n"), "{year}");

    let sub = subscribed(&broker, &["-t", "a", "-C", "1", "-F", "%J", "-N"]);
    publish(&broker, "a", r#"{"t":1}"#, &[]);
    let out = sub.done().ok();
    let value: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(value["payload"]["t"], 1);
    assert_eq!(value["topic"], "a");
    assert!(!out.ends_with('\n'));
}

#[test]
fn json_lines() {
    let broker = Broker::start();
    let sub = subscribed(&broker, &["-t", "a", "-q", "1", "-C", "1", "--json"]);
    publish(&broker, "a", "x\ny", &[]);
    let line = sub.done().ok();
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    let rest = line.split_once("Z\",").unwrap().1;
    assert_eq!(rest, "\"topic\":\"a\",\"qos\":1,\"retain\":false,\"payload\":\"x\\ny\"}\n");
    assert!(value["time"].as_str().unwrap().ends_with('Z'), "{line}");
}

#[test]
fn payloads_are_shown_in_a_view() {
    let broker = Broker::start();
    for (view, shown) in [
        ("json", "{\n  \"a\": 1\n}\n"),
        ("hex", "00000000  7b 22 61 22 3a 31 7d                              |{\"a\":1}|\n"),
        ("raw", "{\"a\":1}\n"),
    ] {
        let sub = subscribed(&broker, &["-t", "a", "-C", "1", "--view", view]);
        publish(&broker, "a", "{\"a\":1}", &[]);
        assert_eq!(sub.done().ok(), shown);
    }
}

#[test]
fn colours_only_where_they_are_wanted() {
    let broker = Broker::start();
    publish(&broker, "a", "x", &["-r"]);
    let words = ["-t", "a", "-v", "-C", "1"];
    assert_eq!(on(&broker, "sub", &words).ok(), "a x\n");
    let coloured = on(&broker, "sub", &[&words[..], &["--color", "always"]].concat()).ok();
    assert!(
        coloured.ends_with("\u{1b}[36ma\u{1b}[0m \u{1b}[33mretained\u{1b}[0m x\n"),
        "{coloured:?}"
    );
}

#[test]
fn a_random_choice_of_messages() {
    let broker = Broker::start();
    let words = ["-t", "a", "-q", "1", "--random-filter", "50", "-C", "50"];
    let sub = subscribed(&broker, &words);
    let lines = |count| (0..count).map(|n| format!("{n}\n")).collect::<String>();
    start_on(&broker, "pub", &["-t", "a", "-l", "-q", "1"])
        .input(lines(300).as_bytes())
        .done()
        .ok();
    // Fewer than 50 of 300, or just the first 50, come by chance once in 2 to the 50.
    let printed = sub.done().ok();
    assert_eq!(printed.lines().count(), 50);
    assert_ne!(printed, lines(50));
}

/// More than are written together, and more than wait to be printed.
#[test]
fn messages_that_come_at_once_are_all_printed() {
    let broker = Broker::start();
    publish(&broker, "a", "ready", &["-r"]);
    let mut sub = start_on(&broker, "sub", &["-t", "a", "-C", "3001"]);
    let mut stdout = BufReader::new(sub.process.stdout.take().unwrap()).lines();
    assert_eq!(stdout.next().unwrap().unwrap(), "ready");
    sub.signal("STOP");
    let lines: Vec<_> = (0..3000).map(|n| n.to_string()).collect();
    let publisher = start_on(&broker, "pub", &["-t", "a", "-l"]);
    publisher.input(lines.join("\n").as_bytes()).done().ok();
    sub.signal("CONT");
    let printed: Vec<_> = stdout.take(3000).map(Result::unwrap).collect();
    assert_eq!(printed, lines);
    sub.done().ok();
}

#[test]
fn nothing_is_added_with_n() {
    let broker = Broker::start();
    let sub = subscribed(&broker, &["-t", "a", "-C", "2", "-N"]);
    publish(&broker, "a", "1", &[]);
    publish(&broker, "a", "2", &[]);
    assert_eq!(sub.done().ok(), "12");
}

#[test]
fn retained_messages_are_chosen() {
    let broker = Broker::start();
    publish(&broker, "a/old", "old", &["-r"]);
    let fresh = subscribed(&broker, &["-t", "a/#", "-R", "-C", "1"]);
    let stale = subscribed(&broker, &["-t", "a/#", "--retained-only"]);
    publish(&broker, "a/new", "new", &[]);
    assert_eq!(fresh.done().ok(), "new\n");
    assert_eq!(stale.done().ok(), "old\n");
}

#[test]
fn retained_messages_are_removed() {
    let broker = Broker::start();
    publish(&broker, "a/1", "1", &["-r"]);
    publish(&broker, "a/2", "2", &["-r"]);
    let words = ["-t", "a/#", "-T", "a/2", "--remove-retained", "-W", "1"];
    on(&broker, "sub", &words).fails(27, "timed out");
    let left = on(&broker, "sub", &["-t", "a/#", "-v", "-W", "1"]);
    assert_eq!(left.stdout, "a/2 2\n");
}

#[test]
fn a_kept_session_receives_what_it_missed() {
    let broker = Broker::start();
    for version in ["311", "5"] {
        let session = ["-c", "-i", "keeper", "-q", "1", "-V", version];
        on(&broker, "sub", &[&session[..], &["-t", "a", "-E"]].concat()).ok();
        publish(&broker, "a", "missed", &[]);
        let out = on(&broker, "sub", &[&session[..], &["-t", "a", "-C", "1"]].concat());
        assert_eq!(out.ok(), "missed\n");
        on(&broker, "sub", &[&session[..], &["-U", "a", "-E"]].concat()).ok();
        publish(&broker, "a", "unwanted", &[]);
        let out = on(&broker, "sub", &[&session[..], &["-t", "b", "-W", "1"]].concat());
        assert_eq!((out.stdout.as_str(), out.code), ("", Some(27)));
    }
}

#[test]
fn a_session_expires() {
    let broker = Broker::start();
    let session = ["-c", "-i", "short", "-q", "1", "-V", "5", "-t", "a", "-x", "1"];
    on(&broker, "sub", &[&session[..], &["-E"]].concat()).ok();
    publish(&broker, "a", "too late", &[]);
    std::thread::sleep(std::time::Duration::from_millis(2500));
    let out = on(&broker, "sub", &[&session[..], &["-W", "1"]].concat());
    assert_eq!(out.stdout, "");
}

#[test]
fn an_interrupt_says_goodbye_and_a_kill_leaves_the_will() {
    let broker = Broker::start();
    let will = ["-t", "a", "--will-topic", "gone", "--will-payload", "lost", "--will-qos", "1"];
    let mut wills = subscribed(&broker, &["-t", "gone", "-q", "1"]);
    let polite = subscribed(&broker, &will);
    polite.signal("INT");
    let done = polite.done();
    assert!(done.stderr.contains("DISCONNECT sent"), "{done:?}");
    done.ok();
    let mut killed = subscribed(&broker, &[&will[..], &["--will-retain"]].concat());
    killed.process.kill().unwrap();
    killed.process.wait().unwrap();
    wills.wait_for("PUBLISH received");
    wills.signal("TERM");
    assert_eq!(wills.done().ok(), "lost\n");
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let broker = Broker::start();
    let mut sub = subscribed(&broker, &["-t", "a"]);
    publish(&broker, "a", "1", &[]);
    let mut line = String::new();
    BufReader::new(sub.process.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "1\n");
    publish(&broker, "a", "2", &[]);
    let done = sub.done();
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(!done.stderr.contains("Error"), "{done:?}");
}

#[test]
fn a_lost_connection_is_made_again() {
    let broker = Broker::start();
    let mut sub = subscribed(&broker, &["-t", "a", "-i", "same", "-C", "1"]);
    // Debian's mosquitto closes the older connection without a DISCONNECT.
    on(&broker, "sub", &["-t", "a", "-i", "same", "-E"]).ok();
    sub.wait_for("connecting again");
    sub.wait_for("SUBACK");
    publish(&broker, "a", "after", &[]);
    assert_eq!(sub.done().ok(), "after\n");
}

/// Bytes that nobody reads any more must not turn the goodbye into a reset.
#[test]
fn the_goodbye_arrives_however_much_is_still_coming() {
    let broker = Broker::start();
    let payload = "x".repeat(20_000);
    for number in 0..50 {
        publish(&broker, &format!("a/{number}"), &payload, &["-r"]);
    }
    let watch = subscribed(&broker, &["-t", "gone", "-q", "1", "-C", "1"]);
    let words = ["-t", "a/#", "-C", "1", "--will-topic", "gone", "--will-payload", "lost"];
    on(&broker, "sub", &words).ok();
    std::thread::sleep(std::time::Duration::from_millis(200));
    publish(&broker, "gone", "nothing was lost", &[]);
    assert_eq!(watch.done().ok(), "nothing was lost\n");
}
