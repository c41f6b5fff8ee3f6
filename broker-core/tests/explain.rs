//! What an operator is told agrees with what the broker then does.
#![allow(clippy::unwrap_used, reason = "tests")]

mod harness;

use std::sync::Arc;

use harness::{Broker, Got, quiet};
use whimbrel_auth::{Attempt, Authenticator, Method, Outcome, Principal, Rules, Ticket, Verdict};
use whimbrel_broker_core::{
    Answer, Config, Event, Fate, Group, Judgement, Question, Receiver, Shared, Wanted, Why,
};
use whimbrel_codec::{Connect, Properties, Property, QoS, ReasonCode, Subscription, Version};
use whimbrel_store::MemoryStore;

/// Everybody is who they say.
struct Believing;

impl Authenticator for Believing {
    fn begin(&self, _: Ticket, attempt: Attempt) -> Option<Outcome> {
        let name = attempt.user_name.as_deref().unwrap_or_default();
        let method = if name.is_empty() { Method::Anonymous } else { Method::Password };
        let principal = Arc::new(Principal::new(name, method));
        Some(Outcome::Accepted { principal, data: None })
    }
}

const RULES: &str = "\
[[rule]]
allow = ['publish', 'subscribe']
topics = '#'
user = 'root'

[[rule]]
allow = ['publish', 'subscribe']
topics = 'own/%u/#'
qos = 1
";

const PUBLISH: Wanted = Wanted::Publish { retain: false, payload_bytes: 0 };
const SESSION: [Property<'static>; 1] = [Property::SessionExpiryIntervalS(600)];

fn with_rules(shards: u16) -> Broker {
    let rules = Rules::from_toml("rules.toml", RULES).expect("rules");
    Broker::with_access(shards, Arc::new(Believing), rules)
}

fn client(broker: &mut Broker, user: &'static str, client_id: &'static str) -> usize {
    let user_name = Some(user).filter(|user| !user.is_empty());
    let properties = Properties::new(&SESSION);
    let connect = Connect { user_name, properties, ..Connect::new(Version::V5, client_id) };
    let link = broker.connect(connect);
    broker.received(link);
    link
}

fn question(client_id: &str, wanted: Wanted, topic: &str, qos: u8) -> Question {
    Question { client_id: client_id.into(), user: None, wanted, topic: topic.into(), qos, most: 9 }
}

fn of_user(user: &str, question: Question) -> Question {
    Question { user: Some(user.into()), ..question }
}

/// Of all shards together.
fn explain(broker: &Broker, question: &Question) -> Answer {
    let mut all = Answer::default();
    for shard in &broker.shards {
        let answer = shard.explain(question);
        assert!(answer.judgement.is_none() || all.judgement.is_none(), "two shards judge");
        all.judgement = all.judgement.or(answer.judgement);
        all.clients.extend(answer.clients);
        all.receivers.extend(answer.receivers);
        all.groups.extend(answer.groups);
        all.more += answer.more;
    }
    all.receivers.sort_by(|a, b| a.client_id.cmp(&b.client_id));
    all
}

fn judge(broker: &Broker, question: &Question) -> Judgement {
    explain(broker, question).judgement.expect("one shard judges")
}

/// As `client id, QoS, filters, fate`.
fn shown(receiver: &Receiver) -> String {
    let mut filters: Vec<&str> = receiver.filters.iter().map(|filter| &**filter).collect();
    filters.sort_unstable();
    let fate = match receiver.fate {
        Fate::Sent => "sent",
        Fate::Queued => "queued",
        Fate::Dropped(_) => "dropped",
    };
    format!("{} {} {} {fate}", receiver.client_id, receiver.qos, filters.join(" "))
}

#[test]
fn who_is_named_are_those_who_get_it() {
    for shards in [1, 3] {
        let mut broker = Broker::new(shards, quiet());
        let links: Vec<_> = ["a", "b", "c", "d", "from"]
            .into_iter()
            .map(|name| client(&mut broker, "", name))
            .collect();
        broker.subscribe(links[0], "t/+", QoS::AtMostOnce);
        broker.subscribe(links[0], "t/x", QoS::AtLeastOnce);
        broker.subscribe(links[0], "other", QoS::AtLeastOnce);
        broker.subscribe(links[1], "#", QoS::ExactlyOnce);
        broker.subscribe(links[2], "t/#", QoS::AtMostOnce);
        broker.subscribe(links[3], "t/y", QoS::ExactlyOnce);
        let own = Subscription { no_local: true, ..Subscription::new("t/x", QoS::ExactlyOnce) };
        broker.subscribe_with(links[4], &[own], None);
        broker.cut(links[1]);
        broker.cut(links[2]);
        let about = |qos| question("from", PUBLISH, "t/x", qos);
        let told = |qos| -> Vec<String> {
            explain(&broker, &about(qos)).receivers.iter().map(shown).collect()
        };
        assert_eq!(told(1), ["a 1 t/+ t/x sent", "b 1 # queued", "c 0 t/# dropped"]);
        assert_eq!(told(0), ["a 0 t/+ t/x sent", "b 0 # dropped", "c 0 t/# dropped"]);
        // One who has no session yet has no own messages.
        let stranger = explain(&broker, &question("nobody", PUBLISH, "t/x", 2));
        assert!(stranger.receivers.iter().any(|receiver| &*receiver.client_id == "from"));
        assert!(stranger.clients.is_empty());
        // The broker does as it said.
        for link in &links {
            broker.received(*link);
        }
        broker.publish(links[4], "t/x", b"x", QoS::AtLeastOnce, false);
        assert_eq!(broker.publishes(links[0]).len(), 1);
        assert_eq!(broker.publishes(links[4]).len(), 0);
        let b = explain(&broker, &question("b", PUBLISH, "t/x", 1)).clients.remove(0);
        assert_eq!((b.queued, b.subscriptions, b.conn), (1, 1, None));
    }
}

#[test]
fn no_more_are_listed_than_wanted_and_the_others_counted() {
    let mut broker = Broker::new(3, quiet());
    for n in 0..40 {
        let link = broker.client(Version::V5, &format!("client {n}"));
        broker.subscribe(link, "news", QoS::AtMostOnce);
    }
    let few = Question { most: 2, ..question("from", PUBLISH, "news", 0) };
    let answer = explain(&broker, &few);
    assert_eq!((answer.receivers.len(), answer.more), (6, 34));
}

#[test]
fn the_member_whose_turn_it_is_is_named_and_keeps_its_turn() {
    let mut broker = Broker::new(3, quiet());
    let names = ["a", "b", "c"];
    let links = names.map(|name| client(&mut broker, "", name));
    for link in links {
        broker.subscribe(link, "$share/g/t/+", QoS::AtLeastOnce);
        broker.received(link);
    }
    let from = client(&mut broker, "", "from");
    for _ in 0..6 {
        let asked = || explain(&broker, &question("from", PUBLISH, "t/x", 1)).groups;
        let [Group { name, members: 3, next, .. }] = &asked()[..] else { panic!("one group") };
        assert_eq!(asked()[0].next.client_id, next.client_id, "asking takes no turn");
        assert_eq!((&**name, &*next.filters[0]), ("g", "$share/g/t/+"));
        let next = next.client_id.clone();
        broker.publish(from, "t/x", b"x", QoS::AtMostOnce, false);
        let got: Vec<_> = (0..3).filter(|at| !broker.publishes(links[*at]).is_empty()).collect();
        assert_eq!(got.iter().map(|at| names[*at]).collect::<Vec<_>>(), [&*next]);
    }
}

#[test]
fn the_rule_that_decides_is_told_for_who_is_here_and_who_is_not() {
    let mut broker = with_rules(3);
    client(&mut broker, "ann", "c");
    let place = |judgement: Judgement| match judgement.rules.unwrap().verdict {
        Verdict::Rule { place, .. } => place,
        other => format!("{other:?}"),
    };
    let own = question("c", PUBLISH, "own/ann/x", 1);
    assert!(judge(&broker, &own).allowed);
    assert_eq!(place(judge(&broker, &own)), "rules.toml:6");
    assert!(!judge(&broker, &question("c", PUBLISH, "own/ann/x", 2)).allowed);
    // Nobody of that name is here: the rules for such a user.
    let root = of_user("root", question("c", PUBLISH, "own/ann/x", 2));
    assert_eq!(place(judge(&broker, &root)), "rules.toml:1");
    assert!(!judge(&broker, &question("new", PUBLISH, "own/ann/x", 1)).allowed);
    // The QoS that SUBACK would grant.
    let subscribe = question("c", Wanted::Subscribe, "$share/g/own/ann/#", 2);
    let Judgement { allowed: true, qos: 1, .. } = judge(&broker, &subscribe) else {
        panic!("granted with QoS 1")
    };
    assert!(!judge(&broker, &question("c", Wanted::Subscribe, "#", 0)).allowed);
}

#[test]
fn several_users_of_one_client_id_are_told_apart() {
    let mut broker = with_rules(3);
    let root = client(&mut broker, "root", "c");
    let ann = client(&mut broker, "ann", "c");
    let both = explain(&broker, &question("c", PUBLISH, "t", 0));
    assert_eq!(both.clients.len(), 2);
    assert!(both.judgement.is_none());
    let about = |user| of_user(user, question("c", PUBLISH, "t", 0));
    assert!(judge(&broker, &about("root")).allowed);
    assert!(!judge(&broker, &about("ann")).allowed);

    let now = broker.now;
    let end = |broker: &mut Broker, user| {
        let all = broker.shards.iter_mut().map(|shard| shard.disconnect_client(now, "c", user));
        let users = all.filter(|one| !one.users.is_empty()).collect::<Vec<_>>();
        broker.settle();
        users
    };
    assert_eq!(end(&mut broker, None)[0].users.len(), 2);
    assert!(broker.links[root].open && broker.links[ann].open);
    assert!(end(&mut broker, Some("ann"))[0].was_connected);
    let reason = ReasonCode::AdministrativeAction;
    assert_eq!(broker.received(ann), [Got::Disconnect(reason)]);
    assert!(broker.links[root].open && !broker.links[ann].open);
    let why = |event: &Event| match event {
        Event::Disconnected { why: Why::Broker(reason, _), .. } => Some(*reason),
        _ => None,
    };
    assert_eq!(broker.events.iter().filter_map(why).collect::<Vec<_>>(), [reason]);
    // Its session goes on.
    assert!(!end(&mut broker, Some("ann"))[0].was_connected);
    assert!(end(&mut broker, Some("bob")).is_empty());
}

#[test]
fn limits_are_told_before_rules() {
    let config = Config {
        max_packet_size_bytes: 100,
        max_topic_levels: 3,
        max_subscriptions: 1,
        max_queued_messages: 1,
        max_queued_bytes: 80,
        max_retained_messages: 1,
        ..quiet()
    };
    let mut broker = Broker::with_shared(Shared::new(1, 7), config, |_| Box::new(MemoryStore));
    let c = client(&mut broker, "", "c");
    broker.subscribe(c, "t", QoS::AtLeastOnce);
    let limit = |wanted, topic: &str| {
        let judgement = judge(&broker, &question("c", wanted, topic, 1));
        assert_eq!(judgement.allowed, judgement.limit.is_none());
        judgement.limit.unwrap_or_default()
    };
    let sized = |payload_bytes| Wanted::Publish { retain: false, payload_bytes };
    assert!(limit(PUBLISH, "$SYS/x").contains("$SYS"));
    assert!(limit(PUBLISH, "a/b/c/d").contains("max_topic_levels"));
    assert!(limit(Wanted::Subscribe, "a/b/c/d").contains("max_topic_levels"));
    assert!(limit(Wanted::Subscribe, "u").contains("max_subscriptions"));
    assert_eq!(limit(Wanted::Subscribe, "t"), "", "it is there already");
    // Two bytes of header, two of the topic's length, two of the identifier, one of properties.
    assert_eq!(limit(sized(92), "t"), "");
    assert!(limit(sized(93), "t").contains("101 bytes"));
    assert!(limit(sized(u64::MAX), "t").contains("max_packet_size"));
    // A queue that is full.
    broker.cut(c);
    let about = question("from", PUBLISH, "t", 1);
    assert_eq!(explain(&broker, &about).receivers[0].fate, Fate::Queued);
    let large = Question { wanted: sized(81), ..about.clone() };
    let Fate::Dropped(why) = explain(&broker, &large).receivers[0].fate else { panic!("room") };
    assert!(why.contains("max_queued_bytes"));
    let from = client(&mut broker, "", "from");
    broker.publish(from, "t", b"1", QoS::AtLeastOnce, true);
    let Fate::Dropped(why) = explain(&broker, &about).receivers[0].fate else { panic!("full") };
    assert!(why.contains("max_queued_messages"));
    // Retained ones.
    assert_eq!(broker.shared.retained_count("#"), (1, true));
    assert_eq!(broker.shared.retained_count("$share/g/#"), (0, true));
    assert_eq!(broker.shared.retained_count("t"), (1, true));
    assert_eq!(broker.shared.retained_count("u"), (0, true));
    let retained = Wanted::Publish { retain: true, payload_bytes: 0 };
    assert!(judge(&broker, &question("c", retained, "u", 0)).note.is_some());
    assert!(judge(&broker, &question("c", retained, "t", 0)).note.is_none());
}

#[test]
fn pages_hold_everybody_once() {
    let mut broker = Broker::new(1, quiet());
    let names: Vec<String> = (0..25).map(|n| format!("client {n:02}")).collect();
    for name in &names {
        broker.client(Version::V5, name);
    }
    let (mut found, mut from) = (Vec::new(), Some(0));
    while let Some(slot) = from {
        let (page, next) = broker.shards[0].clients(slot, 4);
        assert!(page.len() <= 4);
        found.extend(page.into_iter().map(|client| client.client_id.to_string()));
        from = next;
    }
    found.sort_unstable();
    assert_eq!(found, names);
}
