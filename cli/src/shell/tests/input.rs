//! What keys, the mouse and the clipboard do.

use ratatui::crossterm::event::{MouseButton, MouseEvent, MouseEventKind};

use super::*;
use crate::shell::dialog::Draft;
use crate::shell::model::Focus;

fn selected(model: &Model) -> String {
    model.topics.topic(model.selected)
}

fn mouse(model: &mut Model, kind: MouseEventKind, column: u16, row: u16) {
    let modifiers = KeyModifiers::NONE;
    model.handle_input(&Event::Mouse(MouseEvent { kind, column, row, modifiers }));
}

#[test]
fn moving_about_the_tree() {
    let mut model = house();
    keys(&mut model, "C");
    assert_eq!((selected(&model).as_str(), model.rows.len()), ("house", 2));
    keys(&mut model, "<right>");
    assert_eq!(model.rows.len(), 4);
    keys(&mut model, "<right>");
    assert_eq!(selected(&model), "house/boiler");
    keys(&mut model, "<enter>jjj");
    assert_eq!(selected(&model), "house/boiler/temperature");
    keys(&mut model, "<left>");
    assert_eq!(selected(&model), "house/boiler");
    keys(&mut model, "<left><left>");
    assert_eq!((selected(&model).as_str(), model.rows.len()), ("house", 4));
    keys(&mut model, "<end>");
    assert_eq!(selected(&model), "meter");
    keys(&mut model, "j<home>kk");
    assert_eq!(selected(&model), "house");
    keys(&mut model, "e");
    assert_eq!(model.rows.len(), 7);
    keys(&mut model, "jjc<home>c");
    assert_eq!(model.rows.len(), 2);
}

#[test]
fn the_selection_stays_where_it_is() {
    let mut model = house();
    keys(&mut model, "<end>");
    assert_eq!(selected(&model), "meter/raw");
    publish(&mut model, "a/new/topic", b"1");
    model.refresh();
    assert_eq!(selected(&model), "meter/raw");
    // A place that is hidden leaves the selection to the one above.
    keys(&mut model, "C");
    assert_eq!(selected(&model), "meter");
}

#[test]
fn the_selected_row_is_on_the_screen() {
    let mut model = model();
    (0..200).for_each(|i| publish(&mut model, &format!("t{i:03}"), b"x"));
    for steps in ["<end>", "<pgup>", "<pgup>", "<home>", "<pgdn>", "jjjjj", "<end>"] {
        keys(&mut model, steps);
        let row = model.selected_row().unwrap();
        assert!((model.offset..model.offset + model.page()).contains(&row), "{steps}");
        assert!(seen(&mut model).contains(&selected(&model)));
    }
    screen(&mut model, 80, 10);
    assert!(screen(&mut model, 80, 10).contains("t199"));
}

#[test]
fn searching_follows_each_key() {
    let mut model = house();
    keys(&mut model, "C/TEMP");
    assert_eq!(model.rows.len(), 3);
    keys(&mut model, "xyz");
    assert!(seen(&mut model).contains("no such topic; Esc ends the search"));
    keys(&mut model, "<bs><bs><bs><enter>");
    assert_eq!((model.rows.len(), model.dialog.is_none()), (3, true));
    keys(&mut model, "<esc>");
    assert_eq!(model.rows.len(), 2);
    keys(&mut model, "/+/door<enter>");
    assert_eq!(model.rows.len(), 2);
    keys(&mut model, "/<esc>");
    assert_eq!(model.wanted.search, "");
}

#[test]
fn publishing_begins_with_the_last_message() {
    let mut model = model();
    let message = Publish { qos: QoS::ExactlyOnce, retain: true, ..Publish::new("a/b", b"on") };
    model.handle_message(&message);
    let action = keys(&mut model, "Ejp<enter>");
    let draft = |topic: &str, payload: &str, qos, retain| {
        Some(Action::Publish(Draft { topic: topic.into(), payload: payload.into(), qos, retain }))
    };
    assert_eq!(action, draft("a/b", "on", QoS::ExactlyOnce, true));
    assert!(model.dialog.is_none());
    let action = keys(&mut model, "p<c-u>off<tab>1<tab> <tab>/x<enter>");
    assert_eq!(action, draft("a/b/x", "off", QoS::AtLeastOnce, false));
    assert_eq!(keys(&mut model, "p<esc>"), None);
}

#[test]
fn what_cannot_be_published_is_said() {
    let mut model = model();
    assert_eq!(keys(&mut model, "p<enter>"), None);
    assert!(seen(&mut model).contains("a topic must not be empty or contain + or #"));
    assert_eq!(keys(&mut model, "a/#<enter>"), None);
    assert!(keys(&mut model, "<bs><bs><enter>").is_some());
    publish(&mut model, "bin", b"\xff\xfe");
    keys(&mut model, "<home>p");
    assert!(seen(&mut model).contains("the last payload is no text, or too long"));
}

#[test]
fn pasted_text_is_typed() {
    let mut model = model();
    keys(&mut model, "p");
    model.handle_input(&Event::Paste("dev/1".into()));
    keys(&mut model, "<tab>");
    model.handle_input(&Event::Paste("{\r\n \"a\": 1}".into()));
    let Some(Action::Publish(draft)) = keys(&mut model, "<enter>") else { panic!("no draft") };
    assert_eq!((draft.topic.as_str(), draft.payload.as_str()), ("dev/1", "{\n \"a\": 1}"));
}

#[test]
fn filters_come_and_go() {
    let mut model = model();
    let filter = "$SYS/#".to_string();
    let action = keys(&mut model, "s<tab>$SYS/#<enter>");
    assert_eq!(action, Some(Action::Subscribe { filter, qos: QoS::AtLeastOnce }));
    model.handle_subscribing("$SYS/#", QoS::AtLeastOnce);
    for wrong in ["a#", "#"] {
        assert_eq!(keys(&mut model, &format!("{wrong}<enter>")), None, "{wrong}");
        keys(&mut model, "<bs><bs>");
    }
    assert_eq!(keys(&mut model, "<down><del>"), Some(Action::Unsubscribe("$SYS/#".into())));
    model.handle_unsubscribed("$SYS/#");
    assert_eq!(keys(&mut model, "<down><down><del>"), Some(Action::Unsubscribe("#".into())));
    model.handle_unsubscribed("#");
    assert_eq!(keys(&mut model, "<del><esc>"), None);
    assert!(seen(&mut model).contains("subscribed to nothing"));
}

#[test]
fn retained_messages_are_removed_only_after_y() {
    let mut model = house();
    assert_eq!(keys(&mut model, "dn"), None);
    let all = vec!["house/boiler/name".to_string(), "house/boiler/state".to_string()];
    assert_eq!(keys(&mut model, "dy"), Some(Action::Remove(all.clone())));
    for topic in &all {
        model.handle_removed(topic);
    }
    assert_eq!(keys(&mut model, "d"), None);
    assert!(seen(&mut model).contains("no retained message is known"));
}

#[test]
fn an_empty_retained_message_ends_the_mark() {
    let mut model = house();
    let state = model.topics.find("house/boiler/state").unwrap();
    publish(&mut model, "house/boiler/state", b"off");
    assert!(model.topics.node(state).is_retained, "it was not about the retained one");
    publish_retained(&mut model, "house/boiler/state", b"");
    assert!(!model.topics.node(state).is_retained);
    assert_eq!(model.topics.node(0).retained, 1);
}

#[test]
fn while_paused_messages_are_counted_alone() {
    let mut model = house();
    let before = model.topics.node(0).all.count();
    keys(&mut model, " ");
    publish(&mut model, "late", b"1");
    assert!(seen(&mut model).contains("PAUSED, 1 missed"));
    keys(&mut model, " ");
    publish(&mut model, "later", b"1");
    assert_eq!(model.topics.node(0).all.count(), before + 1);
    assert_eq!((model.topics.find("late"), model.paused), (None, None));
}

#[test]
fn payloads_are_scrolled_within_their_lines() {
    let mut model = model();
    let text: String = (0..100).map(|line| format!("line {line}\n")).collect();
    publish(&mut model, "long", text.as_bytes());
    keys(&mut model, "<tab>jj");
    assert_eq!((model.focus, model.scroll), (Focus::Details, 2));
    keys(&mut model, "<end>");
    assert_eq!(model.scroll, 99);
    assert!(seen(&mut model).contains("line 99"));
    keys(&mut model, "<pgup><home>");
    assert_eq!(model.scroll, 0);
    keys(&mut model, "<end><tab>");
    publish(&mut model, "long", b"short");
    seen(&mut model);
    assert!(seen(&mut model).contains("short"), "a shorter payload is seen all the same");
}

#[test]
fn a_pane_alone() {
    let mut model = house();
    keys(&mut model, "z");
    assert!(!seen(&mut model).contains(" Topic "));
    keys(&mut model, "<tab>");
    assert!(!seen(&mut model).contains(" Topics "));
    keys(&mut model, "z");
    assert!(seen(&mut model).contains(" Topics "));
}

#[test]
fn the_mouse_selects_opens_and_scrolls() {
    let mut model = house();
    keys(&mut model, "C");
    seen(&mut model);
    let left = MouseEventKind::Down(MouseButton::Left);
    mouse(&mut model, left, 5, 3);
    assert_eq!(selected(&model), "meter");
    mouse(&mut model, left, 5, 3);
    assert_eq!(model.rows.len(), 4);
    mouse(&mut model, MouseEventKind::ScrollDown, 5, 5);
    assert_eq!(selected(&model), "meter/raw");
    mouse(&mut model, left, 60, 5);
    assert_eq!(model.focus, Focus::Details);
    mouse(&mut model, left, 5, 20);
    assert_eq!((selected(&model).as_str(), model.focus), ("meter/raw", Focus::Topics));
}

#[test]
fn leaving() {
    assert_eq!(keys(&mut model(), "q"), Some(Action::Quit));
    assert_eq!(keys(&mut model(), "<c-c>"), Some(Action::Quit));
    assert_eq!(keys(&mut model(), "p<c-c>"), Some(Action::Quit));
    assert_eq!(keys(&mut model(), "pq"), None);
}

#[test]
fn it_is_drawn_only_when_something_changed() {
    let mut model = house();
    model.take_changed();
    assert!(!model.take_changed());
    model.handle_time(START_MS + 20_900);
    assert!(!model.take_changed(), "the same second");
    model.handle_time(START_MS + 21_000);
    assert!(model.take_changed(), "ages are a second more");
    publish(&mut model, "x", b"");
    assert!(model.take_changed());
    keys(&mut model, "j");
    assert!(model.take_changed());
    mouse(&mut model, MouseEventKind::Moved, 5, 5);
    assert!(!model.take_changed());
}

#[test]
fn notices_go_after_a_while() {
    let mut model = model();
    model.tell("published".into());
    assert!(seen(&mut model).contains("published"));
    model.take_changed();
    model.handle_time(START_MS + 5000);
    assert!(model.take_changed() && !seen(&mut model).contains("published"));
}
