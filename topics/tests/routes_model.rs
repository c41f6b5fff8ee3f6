//! [`Routes`] against a list of subscriptions and the naive matcher.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;
use whimbrel_topics::{
    GroupMember, Route, Routes, SessionRef, Stamp, SubscriptionOptions, filter, matches,
};

const SHARDS: u16 = 3;

#[derive(Clone, Debug)]
enum Operation {
    Subscribe {
        filter: String,
        group: Option<&'static str>,
        who: SessionRef,
        options: Options,
    },
    Unsubscribe {
        filter: String,
        group: Option<&'static str>,
        who: SessionRef,
    },
    SetConnected {
        filter: String,
        group: &'static str,
        who: SessionRef,
        connected: bool,
    },
    /// Fifty sessions of all shards (un)subscribe one after another.
    Crowd {
        filter: String,
        group: Option<&'static str>,
        subscribe: bool,
    },
    /// Ends the nth subscription there is.
    End(prop::sample::Index),
}

type Options = (u8, bool, bool, u32);

fn options((qos, no_local, retain_as_published, id): Options) -> SubscriptionOptions {
    // Durable or not is independent enough of the others.
    let durable = id == 1;
    SubscriptionOptions { qos, no_local, retain_as_published, id, durable }
}

fn level() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", "a", "a", "b", "$s", "a-level-that-is-not-inline"])
}

fn topic() -> impl Strategy<Value = String> {
    prop::collection::vec(level(), 1..4)
        .prop_map(|levels| levels.join("/"))
        .prop_filter("a topic is not empty", |topic| !topic.is_empty())
}

fn topic_filter() -> impl Strategy<Value = String> {
    let level = prop_oneof![3 => level(), 1 => Just("+")];
    let levels = prop::collection::vec(level, 0..4);
    (levels, prop::bool::weighted(0.3))
        .prop_map(|(mut levels, all)| {
            if all {
                levels.push("#");
            }
            levels.join("/")
        })
        .prop_filter("a filter is not empty", |filter| !filter.is_empty())
}

fn session() -> impl Strategy<Value = SessionRef> {
    (0..SHARDS, 0..3_u32).prop_map(|(shard, session)| SessionRef { shard, session })
}

fn group() -> impl Strategy<Value = Option<&'static str>> {
    prop::sample::select(vec![None, None, Some("g"), Some("h")])
}

fn operation() -> impl Strategy<Value = Operation> {
    let options = (0..3_u8, any::<bool>(), any::<bool>(), 0..3_u32);
    prop_oneof![
        8 => (topic_filter(), group(), session(), options).prop_map(
            |(filter, group, who, options)| Operation::Subscribe { filter, group, who, options }
        ),
        2 => (topic_filter(), group(), session())
            .prop_map(|(filter, group, who)| Operation::Unsubscribe { filter, group, who }),
        5 => any::<prop::sample::Index>().prop_map(Operation::End),
        1 => (topic_filter(), group(), any::<bool>())
            .prop_map(|(filter, group, subscribe)| Operation::Crowd { filter, group, subscribe }),
        2 => (topic_filter(), session(), any::<bool>()).prop_map(|(filter, who, connected)| {
            Operation::SetConnected { filter, group: "g", who, connected }
        }),
    ]
}

type Key = (String, Option<String>, SessionRef);

/// The table as a list.
#[derive(Default)]
struct Model(BTreeMap<Key, (SubscriptionOptions, bool)>);

/// What a route means, in an order of its own: who gets a message of a publisher (itself or
/// another), the other shards, and each group's members.
type Meaning = (Vec<(bool, u32, u8, bool, Vec<u32>)>, Vec<u16>, Vec<Vec<Member>>);
type Member = (SessionRef, Options, bool);

impl Model {
    fn meaning(&self, topic: &str, shard: u16) -> Meaning {
        let matching = || self.0.iter().filter(|((filter, _, _), _)| matches(filter, topic));
        let mut local: BTreeMap<(bool, u32), (u8, bool, Vec<u32>)> = BTreeMap::new();
        let mut remote = Vec::new();
        let mut groups: BTreeMap<(&str, &str), Vec<Member>> = BTreeMap::new();
        for ((filter, group, who), (options, connected)) in matching() {
            if let Some(group) = group {
                let members = groups.entry((filter, group)).or_default();
                members.push((*who, plain(*options), *connected));
            } else if who.shard != shard {
                remote.push(who.shard);
            } else {
                for own in [false, true].into_iter().filter(|own| !(*own && options.no_local)) {
                    let entry = local.entry((own, who.session)).or_default();
                    entry.0 = entry.0.max(options.qos);
                    entry.1 |= options.retain_as_published;
                    entry.2.extend((options.id != 0).then_some(options.id));
                    entry.2.sort_unstable();
                }
            }
        }
        let local = local.into_iter().map(|((own, s), (qos, rap, ids))| (own, s, qos, rap, ids));
        remote.sort_unstable();
        remote.dedup();
        let mut groups: Vec<Vec<Member>> = groups.into_values().map(choosable).collect();
        groups.sort_unstable();
        (local.collect(), remote, groups)
    }
}

/// What a route may say of the only subscriber of other shards.
fn check_only_remote(model: &Model, topic: &str, shard: u16, route: &Route) {
    let remote = |((filter, group, who), _): &(&Key, &(SubscriptionOptions, bool))| {
        group.is_none() && who.shard != shard && matches(filter, topic)
    };
    let remote: Vec<_> = model.0.iter().filter(remote).collect();
    let durable = remote.iter().any(|(_, (options, _))| options.durable);
    assert_eq!(route.is_remote_durable(), durable);
    match (route.only_remote(), remote.as_slice()) {
        (Some((who, options)), [(key, (expected, _))]) => {
            assert_eq!((who, options), (key.2, *expected));
        }
        (Some(_), _) => panic!("not the only one of {}", remote.len()),
        (None, _) => {}
    }
}

#[test]
fn the_only_subscriber_of_other_shards_is_known() {
    let routes = Routes::with_seed(3);
    let hash = routes.topic_hash("a/b");
    let mut route = Route::default();
    let far = |session| SessionRef { shard: 1, session };
    routes.subscribe("a/+", None, far(7), options((1, false, true, 5)));
    routes.resolve("a/b", hash, 0, &mut route);
    let (who, wanted) = route.only_remote().expect("one subscription elsewhere");
    assert_eq!((who, plain(wanted)), (far(7), (1, false, true, 5)));
    routes.resolve("a/b", hash, 1, &mut route);
    assert!(route.only_remote().is_none(), "it is local there");
    routes.subscribe("a/b", None, far(7), options((0, false, false, 0)));
    routes.resolve("a/b", hash, 0, &mut route);
    assert!(route.only_remote().is_none(), "two subscriptions overlap");
}

fn plain(o: SubscriptionOptions) -> Options {
    (o.qos, o.no_local, o.retain_as_published, o.id)
}

fn choosable(mut members: Vec<Member>) -> Vec<Member> {
    if members.iter().any(|member| member.2) {
        members.retain(|member| member.2);
    }
    members.sort_unstable();
    members
}

fn meaning(route: &Route) -> Meaning {
    let mut local = Vec::new();
    for own in [false, true] {
        for entry in route.local.iter().filter(|entry| entry.receives(own)) {
            let mut ids = route.ids_of(entry).to_vec();
            ids.sort_unstable();
            local.push((own, entry.session, entry.qos(), entry.retain_as_published(), ids));
        }
    }
    local.sort_unstable();
    let mut groups = Vec::new();
    for group in &route.groups {
        let first = group.choose();
        let mut members: Vec<GroupMember> = first.into_iter().collect();
        // Round robin: everyone once before anyone twice.
        while let Some(next) = group.choose().filter(|next| !members.contains(next)) {
            members.push(next);
        }
        for member in &members {
            let other = group.choose_except(member.who);
            assert!(other.is_none_or(|other| other.connected && other.who != member.who));
            assert_eq!(other.is_some(), member.connected && members.len() > 1);
        }
        let member = |m: &GroupMember| (m.who, plain(m.options), m.connected);
        groups.push(choosable(members.iter().map(member).collect()));
    }
    groups.sort_unstable();
    (local, route.remote.iter().collect(), groups)
}

fn apply(routes: &Routes, model: &mut Model, operation: Operation) {
    match operation {
        Operation::Subscribe { filter, group, who, options: wanted } => {
            let wanted = options(wanted);
            let replaced = routes.subscribe(&filter, group, who, wanted);
            let key = (filter, group.map(String::from), who);
            let connected = model.0.get(&key).is_none_or(|old| old.1);
            assert_eq!(replaced, model.0.insert(key, (wanted, connected)).is_some());
        }
        Operation::Unsubscribe { filter, group, who } => {
            let existed = routes.unsubscribe(&filter, group, who);
            let key = (filter, group.map(String::from), who);
            assert_eq!(existed, model.0.remove(&key).is_some());
        }
        Operation::SetConnected { filter, group, who, connected } => {
            routes.set_connected(&filter, group, who, connected);
            if let Some(member) = model.0.get_mut(&(filter, Some(group.into()), who)) {
                member.1 = connected;
            }
        }
        Operation::Crowd { filter, group, subscribe } => {
            for number in 0..50_u32 {
                let who = SessionRef { shard: number as u16 % SHARDS, session: number / 2 };
                let filter = filter.clone();
                let options = (number as u8 % 3, false, false, number % 2);
                apply(
                    routes,
                    model,
                    match subscribe {
                        true => Operation::Subscribe { filter, group, who, options },
                        false => Operation::Unsubscribe { filter, group, who },
                    },
                );
            }
        }
        Operation::End(index) => {
            let Some(at) = (!model.0.is_empty()).then(|| index.index(model.0.len())) else {
                return;
            };
            let (filter, group, who) = model.0.keys().nth(at).unwrap().clone();
            assert!(routes.unsubscribe(&filter, group.as_deref(), who));
            model.0.remove(&(filter, group, who));
        }
    }
    assert_eq!(routes.subscription_count(), model.0.len());
    for ((filter, group, who), (options, _)) in &model.0 {
        let group = group.as_deref();
        assert_eq!(routes.options(filter, group, *who), Some(*options));
        assert_eq!(group.is_some(), group.and_then(|g| routes.group_key(filter, g)).is_some());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_route_is_what_the_naive_matcher_says_and_a_current_one_is_never_stale(
        operations in prop::collection::vec(operation(), 1..50),
        topics in prop::collection::vec(topic(), 1..6),
    ) {
        let routes = Routes::with_seed(3);
        let mut model = Model::default();
        let mut cache: HashMap<(&str, u16), (Stamp, Route)> = HashMap::new();
        for operation in operations {
            apply(&routes, &mut model, operation);
            for topic in &topics {
                let hash = routes.topic_hash(topic);
                for shard in 0..SHARDS {
                    let expected = model.meaning(topic, shard);
                    let cached = cache.entry((topic, shard)).or_default();
                    if routes.is_current(hash, cached.0) {
                        prop_assert_eq!(meaning(&cached.1), expected, "cached {}", topic);
                        check_only_remote(&model, topic, shard, &cached.1);
                        continue;
                    }
                    cached.0 = routes.resolve(topic, hash, shard, &mut cached.1);
                    prop_assert!(routes.is_current(hash, cached.0));
                    prop_assert_eq!(meaning(&cached.1), expected, "resolved {}", topic);
                    check_only_remote(&model, topic, shard, &cached.1);
                    for group in &cached.1.groups {
                        prop_assert_eq!(routes.group(group.key()).unwrap().key(), group.key());
                    }
                }
            }
        }
    }

    #[test]
    fn everything_generated_is_valid(topic in topic(), filter in topic_filter()) {
        prop_assert_eq!(filter::validate_topic_name(&topic), Ok(()));
        prop_assert_eq!(filter::validate_topic_filter(&filter), Ok(()));
    }
}
