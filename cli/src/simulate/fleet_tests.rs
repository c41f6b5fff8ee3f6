//! Fleets are read, and their mistakes told.

use super::*;

fn parse(text: &str) -> Result<Fleet, String> {
    Fleet::parse("f.toml", text).map_err(|mistake| mistake.to_string())
}

fn said(text: &str) -> String {
    parse(text).err().unwrap_or_else(|| panic!("accepted: {text}"))
}

#[test]
fn a_short_fleet_is_enough() {
    let fleet = parse(
        "[[group]]\nname = \"a\"\ncount = 2\nfields.t = { range = { min = 0, max = 9 } }\n\
         publish = [{ topic = \"x/{index}\", every_s = 2 }]\n",
    )
    .unwrap();
    let group = &fleet.groups[0];
    assert_eq!((group.count, group.keep_alive_s, group.clean_start), (2, 60, true));
    let every = When::Every { interval: Duration::from_secs(2), jitter: 0.0 };
    assert_eq!(group.publish[0].when, every);
    let payload = group.publish[0].message.payload.fill(&mut |_| serde_json::json!(4));
    assert_eq!(payload, b"{\"t\":4}");
}

#[test]
fn mistakes_name_line_and_key() {
    let group = "[[group]]\nname = \"a\"\ncount = 2\n";
    for (lines, place, what) in [
        ("client_id = \"x\"", "f.toml:4: key `group[0].client_id`", "{index}"),
        ("client_id = \"{t}{index}\"", "f.toml:4: key `group[0].client_id`", "{t} is not known"),
        ("fields.t = { range = { min = 2, max = 1 } }", "f.toml:4: key `group[0].fields.t`", "min"),
        ("fields.index = { uuid = {} }", "f.toml:4: key `group[0].fields.index`", "meaning"),
        ("fields.t = { wlak = {} }", "f.toml:4: key `group[0].fields.t.wlak`", "unknown variant"),
        ("sleep = { awake_s = [3, 2], asleep_s = 1 }", "group[0].sleep.awake_s`", "least"),
        ("sleep = { awake_s = -1, asleep_s = 1 }", "group[0].sleep.awake_s`", "negative"),
        ("will = { topic = \"a/+\" }", "f.toml:4: key `group[0].will.topic`", "no topic"),
        (
            "[[group.publish]]\ntopic = \"a\"",
            "f.toml:5: key `group[0].publish[0].topic`",
            "give one",
        ),
        (
            "[[group.publish]]\ntopic = \"a\"\nevery_s = 0",
            "f.toml:6: key `group[0].publish[0].every_s`",
            "greater than 0",
        ),
        (
            "[[group.publish]]\ntopic = \"a\"\nevery_s = 1\nqos = 3",
            "f.toml:7: key `group[0].publish[0].qos`",
            "0, 1 or 2",
        ),
        (
            "[[group.publish]]\ntopic = \"a\"\nevery_s = 1\npayload = \"{x}\"",
            "f.toml:7: key `group[0].publish[0].payload`",
            "there are {index}, {group}, {client_id}",
        ),
        (
            "[[group.publish]]\ntopic = \"a\"\nevery_s = 1\njitter = 2",
            "f.toml:7: key `group[0].publish[0].jitter`",
            "between 0 and 1",
        ),
        ("[[group.subscribe]]\nfilter = \"a#\"", "group[0].subscribe[0].filter`", "topic filter"),
        (
            "[[group.subscribe]]\nfilter = \"a\"\n[group.subscribe.reply]\npayload = \"{y}\"",
            "f.toml:7: key `group[0].subscribe[0].reply.payload`",
            "{topic}, {payload}",
        ),
        ("[[group]]\nname = \"a\"\ncount = 1", "f.toml:5: key `group[1].name`", "another group"),
    ] {
        let said = said(&format!("{group}{lines}\n"));
        assert!(said.contains(place) && said.contains(what), "{lines}\n{said}");
    }
    assert!(said("").contains("missing field `group`"));
}

#[test]
fn the_example_is_a_fleet() {
    let fleet = parse(super::super::EXAMPLE).unwrap();
    assert!(fleet.groups.len() >= 3);
}
