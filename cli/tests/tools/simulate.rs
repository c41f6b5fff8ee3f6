use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::ChildStdout;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

use crate::broker::{Broker, free_port};
use crate::tool::{Tool, on, run, start_on, subscribed};

/// A fleet's file, removed in the end.
struct Fleet(PathBuf);

impl Fleet {
    fn new(text: &str) -> Fleet {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::SeqCst);
        let name = format!("whimbrel-fleet-{}-{number}.toml", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).unwrap();
        Fleet(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

/// Who hears everything: topic, retained, payload.
struct Listener {
    lines: BufReader<ChildStdout>,
    tool: Tool,
}

impl Listener {
    fn new(broker: &Broker) -> Listener {
        let mut tool = subscribed(broker, &["-t", "#", "-q", "2", "-F", "%t %p"]);
        let lines = BufReader::new(tool.process.stdout.take().unwrap());
        Listener { lines, tool }
    }

    fn next(&mut self) -> (String, String) {
        let mut line = String::new();
        assert!(self.lines.read_line(&mut line).unwrap() > 0, "the listener has ended");
        let (topic, payload) = line.trim_end().split_once(' ').unwrap();
        (topic.into(), payload.into())
    }

    /// Everything that the broker has got so far.
    fn all(&mut self, broker: &Broker) -> Vec<(String, String)> {
        on(broker, "pub", &["-t", "end", "-m", "end", "-q", "2"]).ok();
        let mut all = Vec::new();
        loop {
            match self.next() {
                (topic, _) if topic == "end" => return all,
                message => all.push(message),
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.tool.process.kill().unwrap();
        self.tool.process.wait().unwrap();
    }
}

fn simulate(broker: &Broker, fleet: &Fleet, words: &[&str]) -> Value {
    let words = [&[fleet.path(), "--duration", "1", "--json"], words].concat();
    serde_json::from_str(&on(broker, "simulate", &words).ok()).unwrap()
}

#[test]
fn what_the_summary_says_is_what_comes() {
    let broker = Broker::start();
    let mut listener = Listener::new(&broker);
    let fleet = Fleet::new(
        "[[group]]\nname = \"a\"\ncount = 3\nclient_id = \"a{index:02}\"\n\
         fields.n = { counter = {} }\n\
         [[group.publish]]\ntopic = \"t/{client_id}\"\nevery_s = 0.05\nqos = 2\n\
         payload = { n = \"{n}\", id = \"{index}\" }\n\
         [[group]]\nname = \"b\"\ncount = 1\n\
         publish = [{ topic = \"born\", on_connect = true, qos = 1, payload = \"{client_id}\" }]\n",
    );
    let summary = simulate(&broker, &fleet, &["--scale", "2"]);
    let mut by_topic: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (topic, payload) in listener.all(&broker) {
        by_topic.entry(topic).or_default().push(payload);
    }
    let born = by_topic.remove("born").unwrap();
    assert_eq!(born.len(), 2, "{born:?}");
    assert!(born.contains(&"b-1".into()) && born.contains(&"b-2".into()), "{born:?}");
    let topics: Vec<_> = by_topic.keys().map(String::as_str).collect();
    assert_eq!(topics, ["t/a01", "t/a02", "t/a03", "t/a04", "t/a05", "t/a06"]);
    let mut counted = 0;
    for (index, payloads) in (1..).zip(by_topic.values()) {
        for (n, payload) in payloads.iter().enumerate() {
            assert_eq!(payload, &format!("{{\"id\":{index},\"n\":{n}}}"));
        }
        counted += payloads.len();
    }
    let group = &summary["groups"][0];
    assert_eq!((&group["devices"], &group["connects"]), (&6.into(), &6.into()), "{summary}");
    assert_eq!((&group["published"], &group["acknowledged"]), (&counted.into(), &counted.into()));
    assert_eq!(summary["total"]["published"], counted + 2);
    assert_eq!(
        (&summary["total"]["failures"], &summary["total"]["refused"]),
        (&0.into(), &0.into())
    );
}

#[test]
fn sleepers_leave_a_will_only_if_they_go_abruptly() {
    let broker = Broker::start();
    let mut listener = Listener::new(&broker);
    let group = |name: &str, abrupt: bool| {
        format!(
            "[[group]]\nname = \"{name}\"\ncount = 2\n\
             will = {{ topic = \"will/{{client_id}}\", payload = \"gone\", qos = 1 }}\n\
             sleep = {{ awake_s = 0.1, asleep_s = 0.1, abrupt = {abrupt} }}\n"
        )
    };
    let fleet = Fleet::new(&(group("a", true) + &group("b", false)));
    let summary = simulate(&broker, &fleet, &[]);
    let all = listener.all(&broker);
    let wills = |topic: &str| all.iter().filter(|(of, _)| of == topic).count() as u64;
    let sleeps = summary["groups"][0]["sleeps"].as_u64().unwrap();
    assert!(sleeps >= 2, "{summary}");
    assert!(summary["groups"][1]["sleeps"].as_u64().unwrap() >= 2, "{summary}");
    assert_eq!(wills("will/a-1") + wills("will/a-2"), sleeps, "{summary}");
    assert_eq!(wills("will/b-1") + wills("will/b-2"), 0);
    assert_eq!(summary["total"]["failures"], 0, "{summary}");
}

#[test]
fn devices_whose_process_is_killed_leave_their_wills() {
    let broker = Broker::start();
    let mut listener = Listener::new(&broker);
    let fleet = Fleet::new(
        "[[group]]\nname = \"a\"\ncount = 3\nwill = { topic = \"will\", payload = \"{client_id}\" }\n\
         publish = [{ topic = \"born\", payload = \"x\", on_connect = true, qos = 1 }]\n",
    );
    let mut tool = start_on(&broker, "simulate", &[fleet.path()]);
    for _ in 0..3 {
        assert_eq!(listener.next().0, "born");
    }
    tool.process.kill().unwrap();
    tool.process.wait().unwrap();
    let mut wills: Vec<_> = (0..3).map(|_| listener.next()).collect();
    wills.sort();
    assert_eq!(wills, ["a-1", "a-2", "a-3"].map(|id| ("will".to_string(), id.to_string())));
}

#[test]
fn commands_are_answered_and_a_signal_ends_the_fleet_well() {
    let broker = Broker::start();
    on(&broker, "pub", &["-t", "set/a-1/x", "-m", "on", "-r", "-q", "1"]).ok();
    let mut listener = Listener::new(&broker);
    assert_eq!(listener.next().0, "set/a-1/x");
    let fleet = Fleet::new(
        "[[group]]\nname = \"a\"\ncount = 1\nwill = { topic = \"will\", payload = \"gone\" }\n\
         [[group.subscribe]]\nfilter = \"set/{client_id}/+\"\nqos = 1\n\
         [group.subscribe.reply]\ntopic = \"done/{client_id}\"\npayload = \"{topic}={payload}\"\n\
         delay_s = 0.05\nqos = 1\n",
    );
    let tool = start_on(&broker, "simulate", &[fleet.path(), "--json"]);
    assert_eq!(listener.next(), ("done/a-1".into(), "set/a-1/x=on".into()));
    tool.signal("TERM");
    let summary: Value = serde_json::from_str(&tool.done().ok()).unwrap();
    assert_eq!(
        (&summary["total"]["received"], &summary["total"]["replies"]),
        (&1.into(), &1.into())
    );
    assert_eq!(summary["total"]["connected"], 1, "{summary}");
    assert_eq!(listener.all(&broker), []);
}

#[test]
fn the_example_runs_and_its_summary_is_documented() {
    let broker = Broker::start();
    let fleet = Fleet::new(&run("simulate", &["--example"]).ok());
    let summary = simulate(&broker, &fleet, &["--scale", "0.1", "-V", "5"]);
    let names: Vec<_> = summary["groups"].as_array().unwrap().iter().map(|g| &g["name"]).collect();
    assert_eq!(names, ["controller", "truck", "drive", "sensor"]);
    assert_eq!(summary["seed"], 2026);
    let text = std::fs::read_to_string("../docs/simulate.md").unwrap();
    let counts = summary["total"].as_object().unwrap().keys();
    let keys: Vec<_> = summary.as_object().unwrap().keys().chain(counts).collect();
    let missing: Vec<_> = keys.iter().filter(|key| !text.contains(&format!("`{key}`"))).collect();
    assert!(missing.is_empty(), "docs/simulate.md does not explain {missing:?}");
}

#[test]
fn mistakes_are_one_line() {
    let fleet = Fleet::new("[[group]]\nname = \"a\"\ncount = 1\ncolour = 2\n");
    let place = format!("{}:4: key `group[0].colour`: unknown field", fleet.path());
    run("simulate", &[fleet.path()]).fails(1, &place);
    run("simulate", &["/missing.toml"]).fails(1, "cannot read /missing.toml");
    run("simulate", &[]).fails(1, "whimbrel simulate --help");
    run("simulate", &[fleet.path(), "-i", "x"]).fails(1, "no -i, -I");
}

#[test]
fn a_fleet_that_nobody_lets_in_has_failed() {
    let fleet = Fleet::new("[[group]]\nname = \"a\"\ncount = 2\n");
    let port = free_port().to_string();
    let words = [fleet.path(), "-p", &port, "--duration", "1", "--quiet"];
    let out = run("simulate", &words);
    assert_eq!((out.code, out.stderr.as_str()), (Some(1), ""), "{out:?}");
    let broker = Broker::with("allow_anonymous false");
    let out = on(&broker, "simulate", &[fleet.path(), "--duration", "1"]);
    assert!(out.stderr.contains("no device could connect"), "{out:?}");
    assert!(out.stdout.contains("connections: the broker refused"), "{out:?}");
}
