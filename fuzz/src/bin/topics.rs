//! Lines of text as operations on the routes and the retained messages, against lists and a naive
//! matcher. The first byte of a line is the operation, of `s` and `u` the second is the session.
#![no_main]

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use libfuzzer_sys::fuzz_target;
use whimbrel_topics::*;

fuzz_target!(|text: &str| {
    let mut table = Table::default();
    let mut shelf = Shelf::default();
    for line in text.lines().take(300) {
        let mut chars = line.chars();
        match chars.next() {
            Some('s') => table.subscribe(chars.next(), chars.as_str()),
            Some('u') => table.unsubscribe(chars.next(), chars.as_str()),
            Some('p') => table.publish(chars.as_str()),
            Some('r') => shelf.retain(chars.as_str()),
            Some('d') => shelf.remove(chars.as_str()),
            Some('f') => shelf.find(chars.as_str()),
            _ => {}
        }
    }
});

/// Section 4.7.1 level by level.
fn is_filter(filter: &str) -> bool {
    let levels: Vec<_> = filter.split('/').collect();
    let last = levels.len() - 1;
    let fine = |(at, level): (usize, &&str)| {
        *level == "+" || (*level == "#" && at == last) || !level.contains(['+', '#', '\0'])
    };
    !filter.is_empty() && levels.iter().enumerate().all(fine)
}

fn is_match(filter: &str, topic: &str) -> bool {
    let hidden = topic.starts_with('$') && !filter.starts_with('$');
    let wild = filter.starts_with(['+', '#']);
    let filter: Vec<_> = filter.split('/').collect();
    let topic: Vec<_> = topic.split('/').collect();
    let (head, open) = match filter.split_last() {
        Some((&"#", head)) => (head, true),
        _ => (&filter[..], false),
    };
    let fits = if open { topic.len() >= head.len() } else { topic.len() == head.len() };
    !(hidden && wild)
        && fits
        && head.iter().zip(&topic).all(|(wanted, level)| *wanted == "+" || wanted == level)
}

#[derive(PartialEq)]
struct Row {
    filter: String,
    group: Option<String>,
    who: SessionRef,
    options: SubscriptionOptions,
}

#[derive(Default)]
struct Table {
    routes: Routes,
    rows: Vec<Row>,
}

/// Four sessions on each of four shards; the other bits are options.
fn session(name: char) -> (SessionRef, SubscriptionOptions) {
    let bits = u32::from(name);
    let who = SessionRef { shard: (bits & 3) as u16, session: bits >> 2 & 3 };
    let options = SubscriptionOptions {
        qos: (bits >> 4) as u8 % 3,
        no_local: bits & 64 != 0,
        retain_as_published: bits & 128 != 0,
        id: bits >> 5 & 3,
        durable: bits & 256 != 0,
    };
    (who, options)
}

/// The filter and its group, if `text` is a filter.
fn parse(text: &str) -> Option<(&str, Option<&str>)> {
    match parse_shared(text) {
        Err(_) => None,
        Ok(Some(shared)) => {
            assert!(is_filter(shared.filter));
            assert_eq!(format!("$share/{}/{}", shared.group, shared.filter), text);
            Some((shared.filter, Some(shared.group)))
        }
        Ok(None) => {
            assert_eq!(validate_topic_filter(text).is_ok(), is_filter(text), "{text:?}");
            is_filter(text).then_some((text, None))
        }
    }
}

impl Table {
    fn position(&self, filter: &str, group: Option<&str>, who: SessionRef) -> Option<usize> {
        self.rows
            .iter()
            .position(|row| row.filter == filter && row.group.as_deref() == group && row.who == who)
    }

    fn subscribe(&mut self, name: Option<char>, text: &str) {
        let (Some(name), Some((filter, group))) = (name, parse(text)) else { return };
        let (who, options) = session(name);
        let old = self.position(filter, group, who);
        assert_eq!(self.routes.subscribe(filter, group, who, options), old.is_some());
        if let Some(old) = old {
            self.rows.swap_remove(old);
        }
        let (filter, group) = (filter.to_owned(), group.map(str::to_owned));
        self.rows.push(Row { filter, group, who, options });
        assert_eq!(self.routes.subscription_count(), self.rows.len());
    }

    fn unsubscribe(&mut self, name: Option<char>, text: &str) {
        let (Some(name), Some((filter, group))) = (name, parse(text)) else { return };
        let (who, _) = session(name);
        let old = self.position(filter, group, who);
        assert_eq!(self.routes.unsubscribe(filter, group, who), old.is_some());
        if let Some(old) = old {
            self.rows.swap_remove(old);
        }
        assert_eq!(self.routes.subscription_count(), self.rows.len());
    }

    fn publish(&self, topic: &str) {
        let valid = !topic.is_empty() && !topic.contains(['+', '#', '\0']);
        assert_eq!(validate_topic_name(topic).is_ok(), valid, "{topic:?}");
        if !valid {
            return;
        }
        let mut route = Route::default();
        let hash = self.routes.topic_hash(topic);
        let stamp = self.routes.resolve(topic, hash, 0, &mut route);
        assert!(self.routes.is_current(hash, stamp));
        let matching: Vec<&Row> = self.rows.iter().filter(|row| self.fits(row, topic)).collect();
        let groups: BTreeSet<_> =
            matching.iter().filter_map(|r| Some((r.group.as_ref()?, &r.filter))).collect();
        assert_eq!(route.groups.len(), groups.len(), "groups of {topic:?}");
        assert!(route.groups.iter().all(|group| group.choose().is_some()));
        let plain: Vec<&Row> = matching.into_iter().filter(|row| row.group.is_none()).collect();
        let remote: BTreeSet<u16> = plain.iter().map(|r| r.who.shard).filter(|s| *s != 0).collect();
        assert!(route.remote.iter().eq(remote), "shards of {topic:?}");
        for session in 0..4 {
            for own in [false, true] {
                check_local(&route, &plain, session, own);
            }
        }
    }

    fn fits(&self, row: &Row, topic: &str) -> bool {
        let fits = is_match(&row.filter, topic);
        assert_eq!(matches(&row.filter, topic), fits, "{:?} {topic:?}", row.filter);
        fits
    }
}

/// What a session of shard 0 gets of a message, its own or another's.
fn check_local(route: &Route, plain: &[&Row], session: u32, own: bool) {
    let who = SessionRef { shard: 0, session };
    let of: Vec<_> = plain
        .iter()
        .filter(|row| row.who == who && !(own && row.options.no_local))
        .map(|row| row.options)
        .collect();
    let entries: Vec<_> =
        route.local.iter().filter(|e| e.session == session && e.receives(own)).collect();
    assert_eq!(entries.len(), usize::from(!of.is_empty()), "session {session}, own: {own}");
    for entry in entries {
        assert_eq!(Some(entry.qos()), of.iter().map(|options| options.qos).max());
        let ids: BTreeSet<u32> = route.ids_of(entry).iter().copied().collect();
        assert_eq!(ids, of.iter().map(|options| options.id).filter(|id| *id != 0).collect());
    }
}

struct Message(String);

impl HasTopic for Message {
    fn topic(&self) -> &str {
        &self.0
    }
}

#[derive(Default)]
struct Shelf {
    retained: Retained<Message>,
    topics: BTreeSet<String>,
}

impl Shelf {
    fn retain(&mut self, topic: &str) {
        if validate_topic_name(topic).is_ok() {
            let new = self.topics.insert(topic.to_owned());
            assert_eq!(self.retained.insert(Message(topic.to_owned())).is_none(), new);
            assert_eq!(self.retained.len(), self.topics.len());
        }
    }

    fn remove(&mut self, topic: &str) {
        assert_eq!(self.retained.get(topic).is_some(), self.topics.contains(topic));
        assert_eq!(self.retained.remove(topic).is_some(), self.topics.remove(topic));
        assert_eq!(self.retained.len(), self.topics.len());
    }

    fn find(&self, filter: &str) {
        if !is_filter(filter) {
            return;
        }
        let mut found = Vec::new();
        let mut cursor = Cursor::default();
        while !self.retained.scan(filter, &mut cursor, 3, &mut |message| {
            found.push(message.0.clone());
            ControlFlow::Continue(())
        }) {}
        let count = found.len();
        let found: BTreeSet<String> = found.into_iter().collect();
        assert_eq!(found.len(), count, "a message is visited once");
        assert!(found.iter().eq(self.topics.iter().filter(|topic| is_match(filter, topic))));
    }
}
