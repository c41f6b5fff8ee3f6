//! Mosquitto's `acl_file`, as mosquitto.conf(5) describes it.

use std::sync::Arc;

use whimbrel_auth::{Access, Action, Decision, Method, Principal, Rights, Rules};

const FILE: &str = "\
# For clients without a name.
topic read public/#
topic $SYS/broker/uptime

user roger
topic foo/bar
topic read sensors/#
topic readwrite my topic/a b
topic deny sensors/secret/#
topic literal/%c

user mary ann
topic write orders/+/new\t
topic #

# For all, whatever stands before.
pattern write device/%c/data
pattern read device/%u/#
pattern deny device/+/admin
";

fn rights(user: &str, client_id: &str) -> Rights {
    let rules = Arc::new(Rules::from_mosquitto("acl", FILE).expect("an ACL file"));
    let method = if user.is_empty() { Method::Anonymous } else { Method::Password };
    Rights::new(&rules, Arc::new(Principal::new(user, method)), client_id, None)
}

#[test]
fn the_documented_meaning() {
    use Action::{Publish, Receive, Subscribe};
    for (user, action, topic, expected) in [
        // Lines before the first user are for anonymous clients alone.
        ("", Subscribe, "public/#", true),
        ("", Receive, "public/a", true),
        ("", Publish, "public/a", false),
        ("roger", Subscribe, "public/a", false),
        // Without a word for the access it is readwrite.
        ("", Publish, "$SYS/broker/uptime", true),
        ("roger", Publish, "foo/bar", true),
        ("roger", Subscribe, "foo/bar", true),
        ("roger", Subscribe, "foo/+", false),
        ("mary ann", Publish, "foo/bar", true),
        // Names and topics with spaces.
        ("roger", Publish, "my topic/a b", true),
        ("mary ann", Publish, "orders/1/new", true),
        ("mary", Publish, "orders/1/new", false),
        // Denied is denied, before or after what allows it.
        ("roger", Subscribe, "sensors/a", true),
        ("roger", Receive, "sensors/secret/a", false),
        ("roger", Subscribe, "sensors/secret/a", false),
        ("roger", Publish, "sensors/a", false),
        // Refused here; there it would be filtered.
        ("roger", Subscribe, "sensors/#", false),
        // # is not for $SYS.
        ("mary ann", Subscribe, "$SYS/#", false),
        ("mary ann", Publish, "anything/at/all", true),
        // %c in a topic line is text.
        ("roger", Publish, "literal/%c", true),
        ("roger", Publish, "literal/c1", false),
        // Patterns are for all.
        ("roger", Publish, "device/c1/data", true),
        ("", Publish, "device/c1/data", true),
        ("nobody else", Publish, "device/c2/data", false),
        ("roger", Subscribe, "device/roger/#", false),
        ("roger", Subscribe, "device/roger/x", true),
        ("roger", Subscribe, "device/mary ann/x", false),
        ("mary ann", Publish, "device/x/admin", false),
        ("roger", Receive, "device/roger/admin", false),
        ("", Subscribe, "device//x", false),
    ] {
        let access = Access { action, topic, qos: 2, retain: true };
        let decision = rights(user, "c1").authorize(&access);
        assert_eq!(decision == Decision::Allowed, expected, "{user:?} {action:?} {topic}");
    }
}

#[test]
fn names_in_patterns_lead_nowhere_else() {
    for (user, id) in [("+", "+"), ("#", "#"), ("a/b", "a/b"), ("/", "/"), ("a\0", "a\0")] {
        let rights = rights(user, id);
        for (action, topic) in [
            (Action::Publish, "device/victim/data"),
            (Action::Publish, "device/a/b/data"),
            (Action::Subscribe, "device/+/x"),
            (Action::Subscribe, "device/victim/x"),
            (Action::Subscribe, "device/#"),
        ] {
            let access = Access { action, topic, qos: 0, retain: false };
            assert_eq!(rights.authorize(&access), Decision::Denied, "{user:?} {topic}");
        }
    }
}

#[test]
fn names_have_no_stars() {
    let rules = Rules::from_mosquitto("acl", "user *\ntopic #\n").expect("an ACL file");
    let ann = Arc::new(Principal::new("ann", Method::Password));
    let rights = Rights::new(&Arc::new(rules), ann, "c1", None);
    assert_eq!(rights.authorize_subscribe("a", 0), None);
}

#[test]
fn mistakes_name_their_line_and_what_to_do() {
    for (text, line, part) in [
        ("user\n", 1, "a name must follow"),
        ("user a\ntopic\n", 2, "a topic must follow"),
        ("topic my topic\n", 1, "readwrite before"),
        ("\ntopics a\n", 2, "none of user, topic and pattern"),
        ("pattern a-%u\n", 1, "a whole level"),
        ("topic a/#/b\n", 1, "no topic filter"),
        ("topic read $share/g/a\n", 1, "leave out"),
    ] {
        let error = Rules::from_mosquitto("acl", text).expect_err(text);
        assert_eq!((error.line, error.what.contains(part)), (line, true), "{text}: {error}");
    }
}
