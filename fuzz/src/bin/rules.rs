//! A rule file or an ACL file, and questions to it. Nothing panics, and whatever the rules: who may
//! subscribe to a filter may receive each topic that it matches.
//!
//! The first line is the client: `t` or `m` for the format, then its name, client identifier and
//! a claim `k`, with spaces between them. Up to a line `---` follow filters, then the file.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use whimbrel_auth::{Access, Action, Decision, Method, Principal, Rights, Rules};
use whimbrel_topics::{covers, matches, overlaps, validate_topic_filter, validate_topic_name};

fuzz_target!(|text: &str| {
    let Some((head, file)) = text.split_once("\n---\n") else { return };
    let mut lines = head.lines();
    let who = lines.next().unwrap_or_default();
    let (format, who) = who.split_at(who.chars().next().map_or(0, char::len_utf8));
    let rules = match format {
        "m" => Rules::from_mosquitto("file", file),
        _ => Rules::from_toml("file", file),
    };
    let rules = match rules {
        Ok(rules) => Arc::new(rules),
        Err(error) => {
            assert!(error.line > 0 && error.line <= file.lines().count() + 1, "{error}");
            return;
        }
    };
    let rights = rights(&rules, who);
    let filters: Vec<&str> = lines.take(8).filter(|f| validate_topic_filter(f).is_ok()).collect();
    for filter in &filters {
        ask(&rights, filter, &filters);
    }
});

fn rights(rules: &Arc<Rules>, who: &str) -> Rights {
    let mut words = who.splitn(3, ' ');
    let mut next = || words.next().unwrap_or_default();
    let (name, client_id, claim) = (next(), next(), next());
    let method = if name.is_empty() { Method::Anonymous } else { Method::Token };
    let mut principal = Principal::new(name, method);
    principal.claims = claim.split(' ').map(|value| ("k".into(), value.into())).collect();
    Rights::new(rules, Arc::new(principal), client_id, "10.0.0.1".parse().ok())
}

fn access(action: Action, topic: &str, qos: u8) -> Access<'_> {
    Access { action, topic, qos, retain: false }
}

fn ask(rights: &Rights, filter: &str, others: &[&str]) {
    let granted = rights.authorize_subscribe(filter, 2);
    for qos in 0..3 {
        let subscribe = access(Action::Subscribe, filter, qos);
        let decision = rights.authorize(&subscribe);
        assert_eq!(decision == Decision::Allowed, granted.is_some_and(|most| qos <= most));
        assert_eq!(rights.explain(&subscribe).decision, decision);
    }
    let publish = access(Action::Publish, filter, 0);
    assert_eq!(rights.explain(&publish).decision, rights.authorize(&publish));
    let topics = others.iter().flat_map(|other| topics(filter, other));
    for topic in topics.filter(|topic| matches(filter, topic)) {
        assert!(overlaps(filter, &topic) && covers(filter, &topic));
        if granted.is_some() {
            let decision = rights.authorize(&access(Action::Receive, &topic, 2));
            assert_eq!(decision, Decision::Allowed, "{filter:?} {topic:?}");
        }
    }
}

/// Topic names that `filter` may match: its wildcards take the levels of `other`.
fn topics(filter: &str, other: &str) -> Vec<String> {
    let mut levels = other.split('/').chain(["x"].into_iter().cycle());
    let mut name = Vec::new();
    for level in filter.split('/') {
        let of_other = levels.next().unwrap_or_default();
        name.push(if matches!(level, "+" | "#") { of_other } else { level });
    }
    let short = filter.strip_suffix("/#").unwrap_or_default().to_owned();
    let long = format!("{}/x", name.join("/"));
    let all = [name.join("/"), short, long, other.to_owned()];
    all.into_iter().filter(|topic| validate_topic_name(topic).is_ok()).collect()
}
