//! Devices under a clock of their own.

use proptest::prelude::*;

use super::super::fleet::Fleet;
use super::*;

fn group(lines: &str) -> Arc<Group> {
    let text = format!("[[group]]\nname = \"g\"\ncount = 3\n{lines}\n");
    let fleet = Fleet::parse("f.toml", &text).unwrap_or_else(|mistake| panic!("{mistake}"));
    Arc::new(fleet.groups.into_iter().next().unwrap())
}

fn device(lines: &str) -> Device {
    Device::new(group(lines), 2, 7, Duration::ZERO)
}

/// All that happens until `end`, connections made at once.
fn run(device: &mut Device, end: Duration) -> Vec<(Duration, Action)> {
    let mut done = Vec::new();
    let mut now = Duration::ZERO;
    while now < end {
        while let Some(action) = device.poll(now, now.as_millis() as i64) {
            if action == Action::Connect {
                device.handle_connected(now);
            }
            done.push((now, action));
        }
        let Some(next) = device.next_at() else { break };
        assert!(next > now, "it does not get on");
        now = next;
    }
    done
}

fn published(done: &[(Duration, Action)]) -> Vec<(Duration, &Outgoing)> {
    let mut messages = Vec::new();
    for (at, action) in done {
        if let Action::Publish(outgoing) = action {
            messages.push((*at, outgoing));
        }
    }
    messages
}

#[test]
fn texts_are_filled_for_each_device() {
    let mut device = device(
        "client_id = \"c{index:03}\"\nuser_name = \"{group}.{client_id}\"\n\
         will = { topic = \"{client_id}/state\", payload = \"gone\", qos = 1, retain = true }",
    );
    assert_eq!(device.client_id(), "c002");
    let user_name = device.group().user_name.clone().unwrap();
    assert_eq!(device.fixed(&user_name), "g.c002");
    let will = Outgoing {
        topic: "c002/state".into(),
        payload: b"gone".into(),
        qos: QoS::AtLeastOnce,
        retain: true,
        correlation_data: None,
    };
    assert_eq!(device.will(0), Some(will));
}

#[test]
fn messages_come_at_their_interval_and_first_those_of_the_connect() {
    let mut device = device(
        "fields.n = { counter = {} }\n\
         [[group.publish]]\ntopic = \"a/{index}\"\nevery_s = 2\npayload = \"{n} {n}\"\n\
         [[group.publish]]\ntopic = \"birth\"\non_connect = true",
    );
    let done = run(&mut device, Duration::from_secs(100));
    assert_eq!(done[0].1, Action::Connect);
    let messages = published(&done);
    assert_eq!((messages[0].0, messages[0].1.topic.as_str()), (Duration::ZERO, "birth"));
    assert_eq!(messages[1].1.topic, "a/2");
    // The birth has all fields, so the counter has counted there.
    assert_eq!(messages[1].1.payload, b"1 1");
    assert_eq!(messages.len(), 1 + 50);
    assert!(messages[1..].windows(2).all(|pair| pair[1].0 - pair[0].0 == Duration::from_secs(2)));
}

#[test]
fn sleepers_come_and_go() {
    let mut device = device(
        "sleep = { awake_s = 2, asleep_s = 8, abrupt = true }\n\
         publish = [{ topic = \"a\", on_connect = true }]",
    );
    let done = run(&mut device, Duration::from_secs(20));
    let seconds: Vec<_> = done.iter().map(|(at, action)| (at.as_secs(), action.clone())).collect();
    let gone = Action::Disconnect { abrupt: true };
    let kinds: Vec<_> = seconds
        .iter()
        .map(|(at, action)| (*at, action == &Action::Connect, action == &gone))
        .collect();
    let once = [(0, true, false), (0, false, false), (2, false, true)];
    let again = once.map(|(at, connect, gone)| (at + 10, connect, gone));
    assert_eq!(kinds, [once, again].concat());
}

#[test]
fn a_lost_connection_stops_messages_until_it_is_there_again() {
    let mut device = device("publish = [{ topic = \"a\", every_s = 1 }]");
    run(&mut device, Duration::from_secs(5));
    device.handle_lost();
    assert_eq!(device.next_at(), None);
    assert_eq!(device.poll(Duration::from_secs(60), 0), None);
    device.handle_connected(Duration::from_secs(60));
    let next = device.next_at().unwrap();
    assert!(next >= Duration::from_secs(60) && next <= Duration::from_secs(61), "{next:?}");
}

#[test]
fn a_device_that_is_late_does_not_send_everything_at_once() {
    let mut device = device("publish = [{ topic = \"a\", every_s = 0.1 }]");
    device.poll(Duration::ZERO, 0);
    device.handle_connected(Duration::ZERO);
    let late = Duration::from_secs(100);
    let mut sent = 0;
    while device.poll(late, 0).is_some() {
        sent += 1;
    }
    assert!((10..=13).contains(&sent), "{sent}");
}

#[test]
fn commands_are_answered() {
    let mut device = device(
        "[[group.subscribe]]\nfilter = \"cmd/{client_id}/+\"\n\
         [group.subscribe.reply]\ntopic = \"done/{client_id}\"\npayload = \"{topic}={payload}\"\n\
         delay_s = 3\nqos = 1\n\
         [[group.subscribe]]\nfilter = \"$share/g/all\"\n[group.subscribe.reply]\npayload = \"ok\"",
    );
    let command = |topic| Command { topic, payload: b"on", response_topic: Some("back") };
    let (delay, reply) = device.handle_command(command("cmd/g-2/relay"), 0).unwrap();
    assert_eq!((delay.as_secs(), reply.topic.as_str()), (3, "done/g-2"));
    assert_eq!(reply.payload, b"cmd/g-2/relay=on");
    let (_, reply) = device.handle_command(command("all"), 0).unwrap();
    assert_eq!((reply.topic.as_str(), &reply.payload[..]), ("back", &b"ok"[..]));
    assert_eq!(device.handle_command(command("cmd/g-3/relay"), 0), None);
    let silent = Command { response_topic: None, ..command("all") };
    assert_eq!(device.handle_command(silent, 0), None);
}

#[test]
fn a_seed_makes_the_same_device_and_another_index_another() {
    let lines = "fields.v = { range = { min = 0, max = 1e9 } }\n\
                 publish = [{ topic = \"a\", every_s = 1, jitter = 0.5 }]";
    let of = |index, seed| {
        let mut device = Device::new(group(lines), index, seed, Duration::ZERO);
        run(&mut device, Duration::from_secs(20))
    };
    assert_eq!(of(1, 5), of(1, 5));
    assert_ne!(of(1, 5), of(2, 5));
    assert_ne!(of(1, 5), of(1, 6));
}

proptest! {
    #[test]
    fn the_mean_rate_is_kept_whatever_the_jitter(
        seed: u64, every_ms in 20_u64..500, jitter in 0.0..=1.0,
    ) {
        let every_s = every_ms as f64 / 1e3;
        let lines = format!("publish = [{{ topic = \"a\", every_s = {every_s}, jitter = {jitter} }}]");
        let mut device = Device::new(group(&lines), 1, seed, Duration::ZERO);
        let count = 400;
        let end = Duration::from_millis(every_ms * count);
        let sent = published(&run(&mut device, end)).len() as f64;
        prop_assert!((sent - count as f64).abs() < 0.2 * count as f64, "{} of {}", sent, count);
    }
}
