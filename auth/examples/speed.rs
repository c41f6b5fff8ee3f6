//! Nanoseconds per decision, and what rights cost, with many rules.
//!
//! `cargo run --release -p whimbrel-auth --example speed`

use std::fmt::Write;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use whimbrel_auth::{Access, Action, Method, Principal, Rights, Rules};

const ROUNDS: u32 = 300;
const BATCHES: u32 = 100;

fn main() {
    let usual = "[[rule]]\nallow = [\"publish\", \"subscribe\"]\ntopics = [\"device/%c/#\"]\n\
                 [[rule]]\nallow = \"subscribe\"\ntopics = [\"news/#\", \"site/%{site}/state\"]\n";
    case("2 rules for everybody, 1st", usual, "device/c17/temperature");
    case("2 rules for everybody, last", usual, "site/north/state");
    case("2 rules for everybody, none", usual, "elsewhere/at/all");
    let own = format!("{}{usual}", many("user = \"user-NUMBER\"\n", "plant/NUMBER/#"));
    case("1,000 rules of others, 2 for everybody", &own, "device/c17/temperature");
    let all = many("", "plant/line-NUMBER/state");
    case("1,000 rules for everybody, the last", &all, "plant/line-999/state");
    case("1,000 rules for everybody, none", &all, "plant/line-998/other");
    let group = many("group = \"g\"\n", "plant/+/NUMBER/#");
    case("1,000 rules for a group, alike, the last", &group, "plant/x/999/state");
    let globs = many("client_id = \"device-NUMBER-*\"\n", "plant/NUMBER/#");
    case("1,000 rules with globs of others", &globs, "plant/1/x");
}

fn many(subject: &str, topic: &str) -> String {
    (0..1000).fold(String::new(), |mut text, number| {
        let rule = format!("[[rule]]\nallow = \"publish\"\ntopics = \"{topic}\"\n{subject}");
        let _ = write!(text, "{}", rule.replace("NUMBER", &number.to_string()));
        text
    })
}

fn case(what: &str, file: &str, topic: &str) {
    let rules = Arc::new(Rules::from_toml("rules.toml", file).expect("a rule file"));
    let mut principal = Principal::new("ann", Method::Token);
    principal.groups = vec!["g".into()];
    principal.claims = vec![("site".into(), "north".into())];
    let principal = Arc::new(principal);
    let build = least(|| {
        black_box(Rights::new(&rules, principal.clone(), "c17", None));
    });
    let rights = Rights::new(&rules, principal.clone(), "c17", None);
    let time = |action| {
        let access = Access { action, topic, qos: 0, retain: false };
        least(|| {
            black_box(rights.authorize(black_box(&access)));
        })
    };
    let (publish, subscribe) = (time(Action::Publish), time(Action::Subscribe));
    println!("{what:<44} rights {build:>6}  publish {publish:>6}  subscribe {subscribe:>6} ns");
}

/// Nanoseconds of the quickest of many batches: what others do on the machine counts little.
fn least(run: impl Fn()) -> u128 {
    let batch = || {
        let start = Instant::now();
        (0..ROUNDS).for_each(|_| run());
        start.elapsed().as_nanos() / u128::from(ROUNDS)
    };
    (0..BATCHES).map(|_| batch()).min().unwrap_or_default()
}
