//! Whole screens, compared with files. `UPDATE_GOLDEN=1` writes them anew; look at the difference.

use std::path::Path;

use super::*;
use whimbrel_codec::{Properties, Property};

fn assert_golden(name: &str, shown: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/shell/tests/golden");
    let file = folder.join(format!("{name}.txt"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, shown).unwrap();
    }
    let expected = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(shown == expected, "{name}: expected\n{expected}\nbut saw\n{shown}");
}

#[test]
fn nothing_has_come() {
    assert_golden("empty", &seen(&mut model()));
}

#[test]
fn numbers_with_their_history() {
    let mut model = house();
    keys(&mut model, "/temp<enter>jj");
    assert_golden("number", &seen(&mut model));
    keys(&mut model, "<esc>");
    assert_golden("number-wide", &screen(&mut model, 120, 32));
}

#[test]
fn json_with_its_properties() {
    let mut model = house();
    let properties = [
        Property::ContentType("application/json"),
        Property::UserProperty("unit", "W"),
        Property::MessageExpiryIntervalS(60),
        Property::CorrelationData(b"\x01x"),
    ];
    let message = Publish {
        qos: QoS::AtLeastOnce,
        properties: Properties::new(&properties),
        ..Publish::new("meter/power", br#"{"power_w": 1400, "phase": [1, 2]}"#)
    };
    model.handle_message(&message);
    keys(&mut model, "/meter/power<enter>j");
    assert_golden("json", &seen(&mut model));
}

#[test]
fn views_of_binary_payloads() {
    let mut model = house();
    keys(&mut model, "/door<enter>j");
    assert_golden("cbor", &seen(&mut model));
    keys(&mut model, "/<c-u>raw<enter>j");
    assert_golden("hex", &seen(&mut model));
    keys(&mut model, "v");
    assert!(seen(&mut model).contains(r"\x00\x01\x02"), "as text");
}

#[test]
fn figures_of_a_branch() {
    assert_golden("branch", &screen(&mut house(), 80, 16));
}

#[test]
fn retained_messages_alone_and_the_question() {
    let mut model = house();
    keys(&mut model, "r");
    assert_golden("retained", &screen(&mut model, 80, 12));
    keys(&mut model, "d");
    assert_golden("remove", &seen(&mut model));
}

#[test]
fn dialogs() {
    let mut model = house();
    keys(&mut model, "/temp<enter>jjp<tab><tab><tab> ");
    assert_golden("publish", &seen(&mut model));
    keys(&mut model, "<esc>s$SYS/#");
    model.handle_suback("#", Ok(QoS::AtMostOnce));
    model.handle_subscribing("secret/+", QoS::AtLeastOnce);
    model.handle_suback("secret/+", Err("not authorized".into()));
    assert_golden("subscriptions", &seen(&mut model));
    keys(&mut model, "<esc>?");
    assert_golden("help", &seen(&mut model));
    keys(&mut model, "<esc>i");
    assert_golden("events", &seen(&mut model));
}

#[test]
fn a_lost_connection() {
    let mut model = house();
    let until_ms = START_MS + 24_500;
    model.handle_connection(Connection::Waiting { until_ms, why: "connection reset".into() });
    let head = |model: &mut Model| seen(model).lines().next().unwrap_or_default().to_owned();
    assert!(head(&mut model).starts_with(" whimbrel ○ reconnecting in 5 s: connection"));
    model.handle_time(START_MS + 23_000);
    assert!(head(&mut model).contains("in 2 s"), "{}", head(&mut model));
    model.handle_connection(Connection::Connected);
    assert!(head(&mut model).starts_with(" whimbrel ● mqtt://localhost:1883"));
    model.handle_connection(Connection::Closed { why: "not authorized".into() });
    assert!(head(&mut model).starts_with(" whimbrel ✕ not authorized"));
    assert_eq!(model.events.len(), 5);
}

#[test]
fn narrow_screens_have_the_panes_below_each_other() {
    assert_golden("narrow", &screen(&mut house(), 44, 20));
    assert_golden("tiny", &screen(&mut house(), 24, 6));
}

#[test]
fn a_terminal_is_not_told_anything_by_a_peer() {
    let mut model = model();
    publish(&mut model, "a\u{1b}[2J\u{7}/\u{202e}b", b"\x1b]0;owned\x07");
    keys(&mut model, "Ejj");
    let shown = seen(&mut model);
    assert!(!shown.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{shown:?}");
    assert!(shown.contains(r"a\x1b[2J\x07"), "{shown}");
}
