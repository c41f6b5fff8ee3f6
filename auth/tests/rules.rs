//! What rule files mean, case by case: attacks on them, and mistakes in them.

use std::sync::Arc;

use whimbrel_auth::{Access, Action, Decision, Method, Permission, Principal, Rights, Rules};

fn read(text: &str) -> Arc<Rules> {
    Arc::new(Rules::from_toml("rules.toml", text).expect("a rule file"))
}

fn rights(rules: &Arc<Rules>, user: &str, client_id: &str) -> Rights {
    let method = if user.is_empty() { Method::Anonymous } else { Method::Password };
    Rights::new(rules, Arc::new(Principal::new(user, method)), client_id, None)
}

fn may(rights: &Rights, action: Action, topic: &str) -> bool {
    let access = Access { action, topic, qos: 0, retain: false };
    rights.authorize(&access) == Decision::Allowed
}

fn may_publish(rights: &Rights, topic: &str) -> bool {
    may(rights, Action::Publish, topic)
}

fn may_subscribe(rights: &Rights, filter: &str) -> bool {
    may(rights, Action::Subscribe, filter)
}

const OWN: &str = "
[[rule]]
allow = ['publish', 'subscribe']
topics = ['dev/%c/#', '%u/own/#', 'part-%c/x']
";

#[test]
fn a_client_id_leads_nowhere_else() {
    let rules = read(OWN);
    let long = "x".repeat(65_535);
    for id in ["#", "+", "/", "a/b", "a/#", "+/+", "a\0", "", "..", "%c", "%u", &long] {
        let rights = rights(&rules, "ann", id);
        for topic in ["dev/victim/x", "dev/a/b", "dev/x", "dev//x", "dev", "bob/own/x"] {
            assert!(!may_publish(&rights, topic), "{id:?} {topic}");
            assert!(!may_subscribe(&rights, topic), "{id:?} {topic}");
        }
        for filter in ["#", "+/#", "dev/#", "dev/+/#", "dev/+/x", "+/own/#", "part-+/x"] {
            assert!(!may_subscribe(&rights, filter), "{id:?} {filter}");
        }
    }
    assert!(may_publish(&rights(&rules, "ann", "c1"), "dev/c1/x"));
    assert!(may_publish(&rights(&rules, "ann", "%u"), "dev/%u/x"), "a value is no pattern");
    assert!(may_subscribe(&rights(&rules, "ann", "$x"), "dev/$x/#"), "within a topic $ is a sign");
    assert!(may_publish(&rights(&rules, "ann", &"y".repeat(60_000)), &{
        format!("dev/{}/x", "y".repeat(60_000))
    }));
}

#[test]
fn a_user_name_leads_nowhere_else() {
    let rules = read(OWN);
    for name in ["$SYS", "#", "+", "a/b", "/", "$SYS/broker", "a\0"] {
        let rights = rights(&rules, name, "c1");
        for topic in ["$SYS/own/x", "$SYS/own", "a/b/own/x", "x/own/x", "/own/x", "a/own/b"] {
            assert!(!may_publish(&rights, topic), "{name:?} {topic}");
        }
        for filter in ["$SYS/#", "$SYS/own/#", "+/own/#", "#", "a/b/own/#"] {
            assert!(!may_subscribe(&rights, filter), "{name:?} {filter}");
        }
    }
    let nobody = rights(&rules, "", "c1");
    assert!(!may_publish(&nobody, "/own/x") && !may_publish(&nobody, "own/x"));
}

/// A strange name must not get a client around what is denied to it.
#[test]
fn a_denial_holds_for_values_that_stand_in_no_topic() {
    let rules = read(
        "[[rule]]\ndeny = 'publish'\ntopics = ['lock/%c/open']\n\
         [[rule]]\nallow = ['publish', 'subscribe']\ntopics = ['lock/#', '%c']\n",
    );
    let plain = rights(&rules, "ann", "c1");
    assert!(!may_publish(&plain, "lock/c1/open") && may_publish(&plain, "lock/c2/open"));
    for id in ["+", "#", "c1/open", "a\0"] {
        let strange = rights(&rules, "ann", id);
        assert!(!may_publish(&strange, "lock/c1/open"), "{id:?}");
        assert!(may_publish(&strange, "lock/c1/close"), "{id:?}");
    }
}

#[test]
fn wildcards_do_not_reach_dollar_topics() {
    let rules = read("[[rule]]\nallow = ['publish', 'subscribe']\ntopics = ['#', '+/x/#']\n");
    let rights = rights(&rules, "ann", "c1");
    assert!(may_subscribe(&rights, "#") && may_subscribe(&rights, "+/#"));
    for topic in ["$SYS/#", "$SYS/x/y", "$SYS", "$SYS/+", "$queue/x/#"] {
        assert!(!may_subscribe(&rights, topic), "{topic}");
        assert!(!may(&rights, Action::Receive, topic), "{topic}");
    }
    let rules = read("[[rule]]\nallow = 'subscribe'\ntopics = ['$SYS/#']\n");
    let rights = self::rights(&rules, "ann", "c1");
    assert!(may_subscribe(&rights, "$SYS/broker/+") && !may_subscribe(&rights, "#"));
}

#[test]
fn a_subscription_wider_than_the_rights_is_refused() {
    let rules = read(
        "[[rule]]\ndeny = 'subscribe'\ntopics = ['a/secret/#']\n\
         [[rule]]\nallow = 'subscribe'\ntopics = ['a/#', 'b/+/state']\n",
    );
    let rights = rights(&rules, "ann", "c1");
    for (filter, expected) in [
        ("#", false),
        ("a/#", false),
        ("a/+", false),
        ("a/+/+", false),
        ("a/x/#", true),
        ("a", true),
        ("a/secret", false),
        ("b/+/state", true),
        ("b/1/state", true),
        ("b/1/+", false),
        ("b/#", false),
        ("+/x", false),
    ] {
        assert_eq!(may_subscribe(&rights, filter), expected, "{filter}");
    }
    assert!(!may_publish(&rights, "a/x"));
}

#[test]
fn the_first_rule_that_matches_decides() {
    let deny = "[[rule]]\ndeny = 'publish'\ntopics = ['a/secret']\n";
    let allow = "[[rule]]\nallow = 'publish'\ntopics = ['a/+']\n";
    let (first, last) = (format!("{deny}{allow}"), format!("{allow}{deny}"));
    assert!(!may_publish(&rights(&read(&first), "ann", "c1"), "a/secret"));
    assert!(may_publish(&rights(&read(&last), "ann", "c1"), "a/secret"));
    // Also between rules for everybody and rules for some.
    let (first, last) =
        (format!("{deny}user = 'ann'\n{allow}"), format!("{allow}{deny}user='ann'"));
    assert!(!may_publish(&rights(&read(&first), "ann", "c1"), "a/secret"));
    assert!(may_publish(&rights(&read(&last), "ann", "c1"), "a/secret"));
}

#[test]
fn qos_and_retain_are_limits() {
    let rules = read(
        "[[rule]]\nallow = ['publish', 'subscribe']\ntopics = ['a']\nqos = 1\nretain = false\n\
         [[rule]]\ndeny = 'publish'\ntopics = ['b']\nretain = true\n\
         [[rule]]\nallow = 'publish'\ntopics = ['b']\n",
    );
    let rights = rights(&rules, "ann", "c1");
    let publish = |topic, qos, retain| {
        let access = Access { action: Action::Publish, topic, qos, retain };
        rights.authorize(&access) == Decision::Allowed
    };
    assert!(publish("a", 1, false) && !publish("a", 2, false) && !publish("a", 0, true));
    assert!(publish("b", 2, false) && !publish("b", 0, true));
    assert_eq!(rights.authorize_subscribe("a", 2), Some(1));
    assert_eq!(rights.authorize_subscribe("a", 0), Some(0));
    assert_eq!(rights.authorize_subscribe("b", 2), None);
}

#[test]
fn whom_a_rule_is_for() {
    let mut ann = Principal::new("ann", Method::Token);
    ann.groups = vec!["ops".into(), "dev".into()];
    ann.claims = vec![("site".into(), "n".into()), ("site".into(), "s".into())];
    ann.certificate = Some("gate-7".into());
    let ann = Arc::new(ann);
    let address = "10.1.2.3".parse().ok();
    for (subject, expected) in [
        ("", true),
        ("user = 'ann'", true),
        ("user = ['bob', 'a*']", true),
        ("user = 'a'", false),
        ("client_id = 'dev-*'", true),
        ("client_id = 'dev-*'\nuser = 'bob'", false),
        ("group = 'dev'", true),
        ("group = ['x', 'y']", false),
        ("certificate = 'gate-*'", true),
        ("claim = { site = 's' }", true),
        ("claim = { site = 's', role = '*' }", false),
        ("claim.site = ['x', 'n*']", true),
        ("address = '10.0.0.0/8'", true),
        ("address = ['192.168.0.0/16', '10.1.2.3']", true),
        ("address = '10.1.2.4'", false),
        ("method = ['password', 'token']", true),
        ("method = 'scram'", false),
        ("anonymous = true", false),
        ("anonymous = false", true),
    ] {
        let rules = read(&format!("[[rule]]\nallow = 'publish'\ntopics = 't'\n{subject}\n"));
        let rights = Rights::new(&rules, ann.clone(), "dev-1", address);
        assert_eq!(may_publish(&rights, "t"), expected, "{subject}");
        let mapped = "::ffff:10.1.2.3".parse().ok();
        let rights = Rights::new(&rules, ann.clone(), "dev-1", mapped);
        assert_eq!(may_publish(&rights, "t"), expected, "{subject}, mapped address");
        let nobody = Arc::new(Principal::new("", Method::Anonymous));
        let rights = Rights::new(&rules, nobody, "x", None);
        let open = subject.is_empty() || subject == "anonymous = true";
        assert_eq!(may_publish(&rights, "t"), open, "{subject}, nobody");
    }
}

#[test]
fn permissions_count_after_the_rules() {
    let permission =
        |action, filter: &str| Permission { action, filter: filter.into(), qos: 1, retain: false };
    let mut ann = Principal::new("ann", Method::Token);
    ann.permissions = Some(vec![
        permission(Action::Publish, "a/+"),
        permission(Action::Subscribe, "a/#"),
        permission(Action::Subscribe, "b/#/c"),
    ]);
    let ann = Arc::new(ann);
    let alone = Rights::new(&Arc::new(Rules::open()), ann.clone(), "c1", None);
    assert!(!alone.is_unlimited());
    assert!(may_publish(&alone, "a/x") && !may_publish(&alone, "b"));
    assert_eq!(alone.authorize_subscribe("a/+/c", 2), Some(1));
    assert_eq!(alone.authorize_subscribe("#", 2), None);
    assert_eq!(alone.authorize_subscribe("b/x", 0), None, "b/#/c is no filter");
    let retained = Access { action: Action::Publish, topic: "a/x", qos: 0, retain: true };
    assert_eq!(alone.authorize(&retained), Decision::Denied);

    let rules = read("[[rule]]\ndeny = ['publish', 'subscribe']\ntopics = ['a/x']\n");
    let both = alone.under(&rules);
    assert!(may_publish(&both, "a/y") && !may_publish(&both, "a/x"));
    assert!(!may_subscribe(&both, "a/#") && may_subscribe(&both, "a/y/#"));
    let other = rights(&rules, "bob", "c1");
    assert!(!may_publish(&other, "a/y"), "rules and no permission: what is not allowed is denied");
}

#[test]
fn without_rules_and_permissions_nothing_is_asked() {
    let open = rights(&Arc::new(Rules::open()), "", "c1");
    assert!(open.is_unlimited() && may_publish(&open, "$SYS/x") && may_subscribe(&open, "#"));
    let empty = open.under(&read(""));
    assert!(!empty.is_unlimited() && !may_publish(&empty, "a"), "a file without rules denies all");
}

#[test]
fn mistakes_name_their_line_and_what_to_do() {
    for (text, line, part) in [
        ("x = 1", 1, "`x` is no key here"),
        ("[rule]\nallow = 'publish'", 1, "write [[rule]]"),
        ("[[rule]]\nallow = 'publish'\ntopics = [", 3, "not valid TOML"),
        ("\n[[rule]]\nallow = 'publish'", 2, "no topics"),
        ("[[rule]]\ntopics = 'a'", 1, "neither allows nor denies"),
        ("[[rule]]\nallow = 'publish'\ndeny = 'publish'\ntopics = 'a'", 3, "make two rules"),
        ("[[rule]]\nallow = ['publish',\n'receive']\ntopics = 'a'", 3, "`receive` is no action"),
        ("[[rule]]\nallow = 'publish'\ntopics = ['a',\n'a#']", 4, "no topic filter"),
        ("[[rule]]\nallow = 'publish'\ntopics = 'a'\nusr = 'x'", 4, "`usr` is no key of a rule"),
        ("[[rule]]\nallow = 'publish'\ntopics = 'a'\nuser = ''", 4, "anonymous = true"),
        ("[[rule]]\nallow = 'publish'\ntopics = 'a'\nuser = []", 4, "is empty"),
        ("[[rule]]\nallow = 'publish'\ntopics = 'a'\nuser = 1", 4, "must be text"),
        ("[[rule]]\nallow = 'publish'\ntopics = 'a'\nclaim = 'x'", 4, "must be a table"),
        ("[[rule]]\nallow = 'publish'\ntopics = 'a'\nqos = 3", 4, "0, 1 or 2"),
        ("[[rule]]\nallow = 'publish'\ntopics = 'a'\naddress = '10.0.0.1/8'", 4, "10.0.0.0/8"),
        ("[[rule]]\nallow = 'publish'\ntopics = 'a'\naddress = 'host'", 4, "is no network"),
        ("[[rule]]\nallow = 'publish'\ntopics = 'a'\naddress = '::ffff:10.0.0.0/104'", 4, "IPv4"),
        ("[[rule]]\nallow = 'publish'\ntopics = 'a'\nmethod = 'jwt'", 4, "is no method"),
        ("[[rule]]\nallow = 'publish'\ntopics = 'a'\nanonymous = 1", 4, "true or false"),
        ("[[rule]]\ndeny = 'publish'\ntopics = 'a'\nqos = 1", 1, "every QoS"),
        ("[[rule]]\ndeny = 'publish'\ntopics = 'a'\nretain = false", 1, "remove `retain`"),
        ("[[rule]]\nallow = 'subscribe'\ntopics = 'a'\nretain = false", 1, "about publishing"),
        ("[[rule]]\ndeny = ['subscribe', 'publish']\ntopics = 'a'\nretain = true", 1, "of its own"),
    ] {
        let error = Rules::from_toml("r.toml", text).expect_err(text);
        assert_eq!(error.line, line, "{text}: {error}");
        assert!(error.to_string().starts_with(&format!("r.toml:{line}: ")), "{error}");
        assert!(error.what.contains(part), "{text}: {error}");
    }
}

#[test]
fn what_decides_is_told() {
    let rules = read(
        "[[rule]]\n# Their own.\nallow = ['publish']\ntopics = ['dev/%c/#']\nqos = 1\n\n\
         [[rule]]\nallow = 'publish'\ntopics = 'dev/#'\nuser = 'admin'\n\n\
         [[rule]]\ndeny = 'subscribe'\ntopics = 'x/secret'\n\n\
         [[rule]]\nallow = 'subscribe'\ntopics = 'x/+'\n",
    );
    let rights = rights(&rules, "ann", "c1");
    let told = |action, topic, qos| {
        rights.explain(&Access { action, topic, qos, retain: false }).to_string()
    };
    assert_eq!(
        told(Action::Publish, "dev/c1/x", 0),
        "allowed by rules.toml:1: allow = ['publish'] topics = ['dev/%c/#'] qos = 1"
    );
    let own = "allow = ['publish'] topics = ['dev/%c/#'] qos = 1";
    let admin = "rules.toml:7 is for others (user): \
                 allow = 'publish' topics = 'dev/#' user = 'admin'";
    assert_eq!(
        told(Action::Publish, "dev/c1/x", 2),
        format!(
            "denied: no rule allows it\n  rules.toml:1 allows no more than QoS 1: {own}\n  {admin}"
        )
    );
    assert_eq!(
        told(Action::Publish, "dev/c2/x", 0),
        format!(
            "denied: no rule allows it\n  rules.toml:1 has `%c`, and the client id is c1: {own}\n  \
             {admin}"
        )
    );
    assert_eq!(
        told(Action::Subscribe, "x/+", 0),
        "denied by rules.toml:12: deny = 'subscribe' topics = 'x/secret'\n  a part of the filter \
         is denied, and so all of it"
    );
    assert_eq!(
        told(Action::Subscribe, "+/b", 0),
        "denied: no rule allows it\n  rules.toml:16 allows only a part of this filter: \
         allow = 'subscribe' topics = 'x/+'"
    );
    let open = self::rights(&Arc::new(Rules::open()), "ann", "c1");
    let access = Access { action: Action::Publish, topic: "a", qos: 0, retain: false };
    assert_eq!(open.explain(&access).to_string(), "allowed: there are no rules");
}
