use crate::broker::Broker;
use crate::tool::{Tool, on, run, start_on, subscribed};

/// A running `rr` whose subscription stands.
fn asking(broker: &Broker, words: &[&str]) -> Tool {
    let mut rr = start_on(broker, "rr", &[&["-d", "-t", "ask", "-m", "6 * 7"], words].concat());
    rr.wait_for("PUBLISH sent");
    rr
}

/// What a service gets of one request: response topic, correlation data, payload.
fn service(broker: &Broker) -> Tool {
    subscribed(broker, &["-V", "5", "-t", "ask", "-C", "1", "-F", "%R|%D|%p"])
}

fn answer(broker: &Broker, topic: &str, data: &str, payload: &str) {
    let property = ["-D", "publish", "correlation-data", data];
    on(broker, "pub", &[&["-t", topic, "-m", payload, "-q", "1"], &property[..]].concat()).ok();
}

#[test]
fn a_request_says_where_the_response_belongs() {
    let broker = Broker::start();
    for qos in ["0", "1", "2"] {
        let service = service(&broker);
        let rr = asking(&broker, &["-q", qos, "-v"]);
        let request = service.done().ok();
        let [topic, data, payload] = request.split('|').collect::<Vec<_>>()[..] else {
            panic!("{request}")
        };
        assert_eq!((payload, data.len()), ("6 * 7\n", 16));
        assert!(topic.starts_with("whimbrel/response/"), "{topic}");
        answer(&broker, topic, "another", "41");
        answer(&broker, topic, data, "42");
        assert_eq!(rr.done().ok(), format!("{topic} 42\n"));
    }
}

#[test]
fn topic_and_data_may_be_chosen() {
    let broker = Broker::start();
    let service = service(&broker);
    let own = ["-e", "me", "-D", "publish", "correlation-data", "mine", "-F", "%t %D %p"];
    let rr = asking(&broker, &own);
    assert_eq!(service.done().ok(), "me|mine|6 * 7\n");
    answer(&broker, "me", "mine", "42");
    assert_eq!(rr.done().ok(), "me mine 42\n");
    // Services of before 5.0 know where to answer, and have no correlation data.
    for version in ["31", "311", "5"] {
        let rr = asking(&broker, &["-e", "me", "-V", version]);
        on(&broker, "pub", &["-t", "me", "-m", "42", "-q", "1"]).ok();
        assert_eq!(rr.done().ok(), "42\n");
    }
}

#[test]
fn retained_messages_may_be_no_response() {
    let broker = Broker::start();
    on(&broker, "pub", &["-t", "me", "-m", "old", "-r", "-q", "1"]).ok();
    let mut rr = asking(&broker, &["-e", "me", "-R"]);
    rr.wait_for("no response");
    on(&broker, "pub", &["-t", "me", "-m", "new", "-q", "1"]).ok();
    assert_eq!(rr.done().ok(), "new\n");
    assert_eq!(asking(&broker, &["-e", "me"]).done().ok(), "old\n");
}

#[test]
fn no_response_is_27() {
    let broker = Broker::start();
    on(&broker, "rr", &["-t", "ask", "-n", "-W", "1"]).fails(27, "no response in time");
    let done = on(&broker, "rr", &["-t", "ask", "-n", "-W", "1", "-q", "1"]);
    assert!(done.stderr.contains("nobody has subscribed to ask"), "{done:?}");
    assert_eq!(done.code, Some(27));
}

#[test]
fn wrong_usage_is_1_and_says_what() {
    for (words, what) in [
        ("-t a", "--message"),
        ("-m x", "--topic"),
        ("-t a/# -m x", "-t a/#"),
        ("-t a -e b/+ -m x", "-e b/+"),
        ("-t a -m x -V 311", "no response topic"),
        ("-t a -m x -f y", "cannot be used"),
    ] {
        run("rr", &words.split(' ').collect::<Vec<_>>()).fails(1, what);
    }
}
