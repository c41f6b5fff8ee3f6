//! Rules against a list of them that is read level by level, and what must hold of any rules.

use std::fmt::Write;
use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use proptest::sample::select;
use whimbrel_auth::{Access, Action, Decision, Method, Permission, Principal, Rights, Rules};
use whimbrel_topics::matches;

/// What levels of topics are: texts in rules, values of clients, and one that occurs nowhere.
const LEVELS: [&str; 9] = ["", "a", "u", "c", "x-c", "x-$s", "s", "$s", "z"];

/// One level more than filters and rules have.
const DEPTH: usize = 4;

static TOPICS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut all: Vec<String> = LEVELS.map(str::to_owned).to_vec();
    let mut last = all.clone();
    for _ in 1..DEPTH {
        let longer = |head: &String| LEVELS.map(|level| format!("{head}/{level}"));
        last = last.iter().flat_map(longer).collect();
        all.extend_from_slice(&last);
    }
    all.retain(|topic| !topic.is_empty());
    all
});

#[derive(Clone, Debug)]
struct Rule {
    allow: bool,
    actions: Vec<&'static str>,
    topics: Vec<String>,
    /// Key and value as in the file.
    subject: Option<(&'static str, &'static str)>,
    qos: u8,
    /// Of an allowing rule: may be retained; of a denial: only what is to be retained.
    retain: bool,
}

#[derive(Clone, Debug)]
struct Who {
    principal: Principal,
    client_id: &'static str,
}

fn filter(levels: &'static [&'static str]) -> impl Strategy<Value = String> {
    (prop::collection::vec(select(levels), 0..DEPTH), any::<bool>())
        .prop_map(|(mut levels, all)| {
            levels.truncate(DEPTH - 1 - usize::from(all));
            levels.extend(all.then_some("#"));
            levels.join("/")
        })
        .prop_filter("a filter is not empty", |filter| !filter.is_empty())
}

fn wanted() -> impl Strategy<Value = String> {
    filter(&["", "a", "u", "c", "x-c", "s", "$s", "+", "+"])
}

fn rule() -> impl Strategy<Value = Rule> {
    let topics = filter(&["", "a", "$s", "+", "+", "%u", "%c", "x-%c", "%{k}", "%{certificate}"]);
    let actions: Vec<Vec<&str>> =
        vec![vec!["publish"], vec!["subscribe"], vec!["publish", "subscribe"]];
    let subjects = vec![
        None,
        None,
        Some(("user", "u")),
        Some(("user", "u*")),
        Some(("user", "*")),
        Some(("client_id", "c")),
        Some(("group", "g")),
        Some(("claim", "k")),
        Some(("certificate", "a")),
        Some(("anonymous", "true")),
        Some(("method", "token")),
    ];
    let topics = prop::collection::vec(topics, 1..3);
    let access = (select(actions), 0..3_u8, any::<bool>());
    (any::<bool>(), topics, select(subjects), access).prop_map(
        |(allow, topics, subject, (actions, qos, retain))| Rule {
            allow,
            topics,
            subject,
            qos: if allow { qos } else { 2 },
            retain: if allow { retain } else { retain && actions == ["publish"] },
            actions,
        },
    )
}

fn permissions() -> impl Strategy<Value = Option<Vec<Permission>>> {
    let action = select(vec![Action::Publish, Action::Subscribe]);
    // `a/#/b` is no filter, and permits nothing.
    let filter = prop_oneof![9 => wanted(), 1 => Just("a/#/b".to_owned())];
    let one = (action, filter, 0..3_u8, any::<bool>()).prop_map(|(action, filter, qos, retain)| {
        Permission { action, filter: filter.into(), qos, retain }
    });
    prop::option::of(prop::collection::vec(one, 0..3))
}

fn who() -> impl Strategy<Value = Who> {
    let names = vec!["", "u", "u", "+", "#", "u/a", "$s", "a\0"];
    let values = prop::collection::vec(select(vec!["s", "a", "+", "$s", "", "x/y"]), 0..3);
    let certificate = select(vec![None, Some("a"), Some("#")]);
    let group = any::<bool>();
    let method = select(vec![Method::Password, Method::Token]);
    let identity = (select(names), method, certificate);
    (identity, values, group, select(vec!["c", "c", "+", "$s", "u/c"]), permissions()).prop_map(
        |((name, method, certificate), values, group, client_id, permissions)| {
            let method = if name.is_empty() { Method::Anonymous } else { method };
            let mut principal = Principal::new(name, method);
            principal.claims = values.into_iter().map(|v| ("k".into(), v.into())).collect();
            principal.groups = if group { vec!["f".into(), "g".into()] } else { Vec::new() };
            principal.certificate = certificate.map(Into::into);
            principal.permissions = permissions;
            Who { principal, client_id }
        },
    )
}

fn file(rules: &[Rule]) -> String {
    let mut text = String::new();
    for rule in rules {
        let verb = if rule.allow { "allow" } else { "deny" };
        writeln!(text, "[[rule]]\n{verb} = {:?}\ntopics = {:?}", rule.actions, rule.topics)
            .expect("text");
        match rule.subject {
            None => {}
            Some(("claim", name)) => writeln!(text, "claim = {{ {name} = \"s\" }}").expect("text"),
            Some(("anonymous", value)) => writeln!(text, "anonymous = {value}").expect("text"),
            Some((key, value)) => writeln!(text, "{key} = [\"{value}\", \"-\"]").expect("text"),
        }
        text.push_str(&match (rule.allow, rule.retain, &rule.actions[..]) {
            (true, _, ["subscribe"]) => format!("qos = {}\n", rule.qos),
            (true, ..) => format!("qos = {}\nretain = {}\n", rule.qos, rule.retain),
            (false, true, _) => "retain = true\n".to_owned(),
            (false, false, _) => String::new(),
        });
    }
    text.replace("\"-\"", "\"another\"").replace("[\"token\", \"another\"]", "\"token\"")
}

fn values<'a>(who: &'a Who, placeholder: &str) -> Vec<&'a str> {
    let principal = &who.principal;
    let all: Vec<&str> = match placeholder {
        "%u" => vec![&principal.name],
        "%c" => vec![who.client_id],
        "%{certificate}" => principal.certificate.as_deref().into_iter().collect(),
        _ => principal.claims.iter().map(|(_, value)| &**value).collect(),
    };
    all.into_iter().filter(|value| !value.is_empty()).collect()
}

fn level_fits(level: &str, topic: &str, first: bool, who: &Who, deny: bool) -> bool {
    let Some((before, _)) = level.split_once('%') else { return level == "+" || level == topic };
    values(who, &level[before.len()..]).iter().any(|value| {
        let lost = value.contains(['+', '#', '/', '\0'])
            || (first && before.is_empty() && value.starts_with('$'));
        match lost {
            true => deny && topic.starts_with(before),
            false => format!("{before}{value}") == topic,
        }
    })
}

fn fits(pattern: &str, topic: &str, who: &Who, deny: bool) -> bool {
    if topic.starts_with('$') && pattern.starts_with(['+', '#']) {
        return false;
    }
    let pattern: Vec<&str> = pattern.split('/').collect();
    let topic: Vec<&str> = topic.split('/').collect();
    let (pattern, open) = match pattern.split_last() {
        Some((&"#", head)) => (head, true),
        _ => (&pattern[..], false),
    };
    (topic.len() == pattern.len() || open && topic.len() > pattern.len())
        && pattern
            .iter()
            .zip(&topic)
            .enumerate()
            .all(|(at, (level, topic))| level_fits(level, topic, at == 0, who, deny))
}

impl Rule {
    fn is_for(&self, who: &Who) -> bool {
        let principal = &who.principal;
        match self.subject {
            None => true,
            Some(("user", "u")) => *principal.name == *"u",
            Some(("user", "u*")) => principal.name.starts_with('u'),
            Some(("user", _)) => !principal.name.is_empty(),
            Some(("client_id", id)) => who.client_id == id,
            Some(("group", _)) => !principal.groups.is_empty(),
            Some(("claim", _)) => principal.claims.iter().any(|(_, value)| **value == *"s"),
            Some(("certificate", name)) => principal.certificate.as_deref() == Some(name),
            Some(("anonymous", _)) => principal.method == Method::Anonymous,
            Some(_) => principal.method == Method::Token,
        }
    }

    fn concerns(&self, access: &Access<'_>) -> bool {
        let named = |action| self.actions.contains(&action);
        match access.action {
            Action::Publish => {
                let retain = !access.retain || self.retain;
                let publish = if self.allow { retain } else { !self.retain || access.retain };
                named("publish") && access.qos <= self.qos && publish
            }
            Action::Subscribe => named("subscribe") && access.qos <= self.qos,
            Action::Receive => named("subscribe"),
        }
    }
}

fn permits(who: &Who, access: &Access<'_>, fits: impl Fn(&str) -> bool) -> Decision {
    let permits = |one: &Permission| {
        let action = match access.action {
            Action::Publish => Action::Publish,
            _ => Action::Subscribe,
        };
        let qos = access.action == Action::Receive || access.qos <= one.qos;
        let retain = access.action != Action::Publish || !access.retain || one.retain;
        one.action == action && qos && retain && !one.filter.contains("#/") && fits(&one.filter)
    };
    match who.principal.permissions.iter().flatten().any(permits) {
        true => Decision::Allowed,
        false => Decision::Denied,
    }
}

fn model(rules: &[Rule], who: &Who, access: &Access<'_>) -> Decision {
    let is_filter = access.action == Action::Subscribe;
    let among: Vec<&String> =
        TOPICS.iter().filter(|topic| is_filter && matches(access.topic, topic)).collect();
    for rule in rules.iter().filter(|rule| rule.is_for(who) && rule.concerns(access)) {
        let decides = rule.topics.iter().any(|pattern| match (is_filter, rule.allow) {
            (false, _) => fits(pattern, access.topic, who, !rule.allow),
            (true, true) => among.iter().all(|topic| fits(pattern, topic, who, false)),
            (true, false) => among.iter().any(|topic| fits(pattern, topic, who, true)),
        });
        if decides {
            return if rule.allow { Decision::Allowed } else { Decision::Denied };
        }
    }
    permits(who, access, |filter| match is_filter {
        false => matches(filter, access.topic),
        true => among.iter().all(|topic| matches(filter, topic)),
    })
}

fn rights(rules: &Arc<Rules>, who: &Who) -> Rights {
    Rights::new(rules, Arc::new(who.principal.clone()), who.client_id, None)
}

fn read(rules: &[Rule]) -> Arc<Rules> {
    Arc::new(Rules::from_toml("rules.toml", &file(rules)).expect("a rule file"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..Default::default() })]

    #[test]
    fn decisions_are_those_of_the_list(
        rules in prop::collection::vec(rule(), 0..7),
        who in who(),
        filters in prop::collection::vec(wanted(), 4),
        (qos, retain) in (0..3_u8, any::<bool>()),
    ) {
        let rights = rights(&read(&rules), &who);
        for topic in TOPICS.iter().step_by(3) {
            for action in [Action::Publish, Action::Receive] {
                let access = Access { action, topic, qos, retain };
                prop_assert_eq!(
                    rights.authorize(&access), model(&rules, &who, &access), "{:?}", access
                );
            }
        }
        for topic in &filters {
            let access = Access { action: Action::Subscribe, topic, qos, retain };
            prop_assert_eq!(
                rights.authorize(&access), model(&rules, &who, &access), "{:?}", access
            );
        }
    }

    /// Nobody gets by a subscription what a rule keeps from it, topic by topic.
    #[test]
    fn who_may_subscribe_may_receive_all_that_comes(
        rules in prop::collection::vec(rule(), 0..7),
        who in who(),
        filters in prop::collection::vec(wanted(), 8),
        qos in 0..3_u8,
    ) {
        let rights = rights(&read(&rules), &who);
        for filter in &filters {
            let Some(granted) = rights.authorize_subscribe(filter, qos) else { continue };
            prop_assert!(granted <= qos);
            for topic in TOPICS.iter().filter(|topic| matches(filter, topic)) {
                let access = Access { action: Action::Receive, topic, qos, retain: false };
                prop_assert_eq!(rights.authorize(&access), Decision::Allowed, "{} {}", filter, topic);
            }
        }
    }

    /// The highest QoS is granted at which the subscription is allowed.
    #[test]
    fn the_granted_qos_is_the_highest(
        rules in prop::collection::vec(rule(), 0..7),
        who in who(),
        filter in wanted(),
    ) {
        let rights = rights(&read(&rules), &who);
        let allowed = |qos| {
            let access = Access { action: Action::Subscribe, topic: &filter, qos, retain: false };
            model(&rules, &who, &access) == Decision::Allowed
        };
        for qos in 0..3_u8 {
            let highest = (0..=qos).filter(|qos| allowed(*qos)).max();
            prop_assert_eq!(rights.authorize_subscribe(&filter, qos), highest);
        }
    }

    #[test]
    fn rights_under_other_rules_are_as_if_new(
        before in prop::collection::vec(rule(), 0..7),
        after in prop::collection::vec(rule(), 0..7),
        who in who(),
        filter in wanted(),
    ) {
        let after = read(&after);
        let (moved, fresh) = (rights(&read(&before), &who).under(&after), rights(&after, &who));
        prop_assert_eq!(moved.authorize_subscribe(&filter, 2), fresh.authorize_subscribe(&filter, 2));
        for topic in TOPICS.iter().step_by(7) {
            let access = Access { action: Action::Publish, topic, qos: 0, retain: false };
            prop_assert_eq!(moved.authorize(&access), fresh.authorize(&access));
        }
    }
}
