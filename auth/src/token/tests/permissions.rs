//! What scopes and claims permit.

use super::*;
use crate::{Action, Permission};

fn permitted(config: IssuerConfig, claims: &Value) -> Option<Vec<Permission>> {
    let verified = verify(&tokens(config), &token(&header(), claims)).expect("a fine token");
    verified.principal.permissions
}

fn with_claim() -> IssuerConfig {
    let mut config = config();
    config.profile.permissions = Some("https://whimbrel/acl".into());
    config
}

fn one(action: Action, filter: &str, qos: u8, retain: bool) -> Permission {
    Permission { action, filter: filter.into(), qos, retain }
}

#[test]
fn scopes() {
    let table: &[(&str, Option<Permission>)] = &[
        ("mqtt:pub:a/b", Some(one(Action::Publish, "a/b", 2, true))),
        ("mqtt:sub:a/+/#", Some(one(Action::Subscribe, "a/+/#", 2, true))),
        ("mqtt:sub:a:b:c", Some(one(Action::Subscribe, "a:b:c", 2, true))),
        ("mqtt:sub:caf%C3%A9/x%20y", Some(one(Action::Subscribe, "caf\u{e9}/x y", 2, true))),
        ("mqtt:sub:%u/%c/%{team}", Some(one(Action::Subscribe, "%u/%c/%{team}", 2, true))),
        ("mqtt:sub:%c3%a9", Some(one(Action::Subscribe, "%c3%a9", 2, true))),
        ("mqtt:sub:a%2Fb", Some(one(Action::Subscribe, "a/b", 2, true))),
        ("mqtt:sub:100%25u", None),
        ("mqtt:sub:%C3", None),
        ("mqtt:sub:a%00b", None),
        ("mqtt:sub:a/#/b", None),
        ("mqtt:sub:a+", None),
        ("mqtt:sub:", None),
        ("mqtt:sub", None),
        ("mqtt:all:a", None),
        ("mqtt:PUB:a", None),
        ("MQTT:pub:a", None),
    ];
    for (scope, wanted) in table {
        let wanted: Vec<Permission> = wanted.iter().cloned().collect();
        let words = json!(format!("openid {scope}  other"));
        let found = permitted(config(), &claims_with("scope", words));
        assert_eq!(found.as_ref(), Some(&wanted), "{scope}");
        let list = json!([scope, "other"]);
        assert_eq!(permitted(config(), &claims_with("scp", list)), Some(wanted), "{scope}");
    }
}

#[test]
fn scope_as_aif() {
    let list =
        json!([["a/#", ["pub", "sub"]], ["b", ["sub", "own"]], ["a/#/b", ["pub"]], ["c"], 1]);
    let wanted = vec![
        one(Action::Publish, "a/#", 2, true),
        one(Action::Subscribe, "a/#", 2, true),
        one(Action::Subscribe, "b", 2, true),
    ];
    let text = list.to_string();
    for scope in [json!(encode(text.as_bytes())), json!(text), list] {
        let found = permitted(config(), &claims_with("scope", scope.clone()));
        assert_eq!(found, Some(wanted.clone()), "{scope}");
    }
}

#[test]
fn a_claim_with_permissions() {
    let table = [
        (json!({"action": "publish", "filter": "a"}), vec![one(Action::Publish, "a", 2, true)]),
        (
            json!({"action": "all", "filter": "%u/#", "qos": 1, "retain": false}),
            vec![one(Action::Publish, "%u/#", 1, false), one(Action::Subscribe, "%u/#", 1, false)],
        ),
        (json!({"action": "subscribe", "filter": "a", "qos": 3}), vec![]),
        (json!({"action": "subscribe", "filter": "a", "qos": -1}), vec![]),
        (json!({"action": "subscribe", "filter": "a", "qos": "1"}), vec![]),
        (json!({"action": "subscribe", "filter": "a", "retain": 1}), vec![]),
        (json!({"action": "subscribe", "filter": "a/#/b"}), vec![]),
        (json!({"action": "subscribe", "filter": ["a"]}), vec![]),
        (json!({"action": "receive", "filter": "a"}), vec![]),
        (json!({"action": "subscribe", "filter": "a", "until": "noon"}), vec![]),
        (json!({"filter": "a"}), vec![]),
        (json!("publish"), vec![]),
    ];
    for (entry, wanted) in table {
        let claims = claims_with("https://whimbrel/acl", json!([entry]));
        assert_eq!(permitted(with_claim(), &claims), Some(wanted), "{entry}");
    }
    let both = changed(
        claims_with("https://whimbrel/acl", json!([{"action": "publish", "filter": "a"}])),
        "scope",
        json!("mqtt:sub:b"),
    );
    assert_eq!(permitted(with_claim(), &both).map(|all| all.len()), Some(2));
    // The claim of another name says nothing.
    assert_eq!(permitted(config(), &both).map(|all| all.len()), Some(1));
}

#[test]
fn a_token_that_says_nothing_of_mqtt_permits_nothing_unless_configured() {
    let mut lax = with_claim();
    lax.profile.silent = Silent::LeavesItToRules;
    for claims in [claims(), claims_with("scope", json!("openid profile"))] {
        assert_eq!(permitted(with_claim(), &claims), Some(vec![]));
        assert_eq!(permitted(lax.clone(), &claims), None);
    }
    // One that speaks of it in a way that is not understood permits nothing.
    for (name, value) in [
        ("scope", json!("mqtt:sub:a/#/b")),
        ("scope", json!("mqtt:")),
        ("https://whimbrel/acl", json!([])),
        ("https://whimbrel/acl", json!("all")),
    ] {
        assert_eq!(permitted(lax.clone(), &claims_with(name, value)), Some(vec![]));
    }
}

#[test]
fn groups_and_claims_for_rules() {
    let mut config = config();
    config.profile.groups = Some("groups".into());
    let claims = changed(
        claims_with("groups", json!(["staff", "ops"])),
        "extra",
        json!({"nested": "is left out"}),
    );
    let claims = changed(changed(claims, "level", json!(3)), "admin", json!(false));
    let verified = verify(&tokens(config.clone()), &token(&header(), &claims)).expect("fine");
    assert_eq!(verified.principal.groups, ["staff".into(), "ops".into()]);
    let mut kept: Vec<String> = Vec::new();
    for (name, value) in &verified.principal.claims {
        kept.push(format!("{name}={value}"));
    }
    kept.sort();
    assert_eq!(
        kept,
        [
            "admin=false",
            "aud=mqtt.example",
            "groups=ops",
            "groups=staff",
            "iss=https://as.example",
            "level=3",
            "sub=ann",
        ]
    );
    for bad in [json!([1]), json!({}), json!(["a\n"]), json!([""]), json!(vec!["x"; 513])] {
        let token = token(&header(), &claims_with("groups", bad));
        refused(verify(&tokens(config.clone()), &token));
    }
    for bad in [json!("x".repeat(4097)), json!(vec![1; 600])] {
        refused(verify(&tokens(super::config()), &token(&header(), &claims_with("x", bad))));
    }
}
