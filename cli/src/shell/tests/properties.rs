//! No sequence of messages, keys and sizes does harm.

use proptest::prelude::*;
use ratatui::crossterm::event::{MouseButton, MouseEvent, MouseEventKind};

use super::*;

#[derive(Clone, Debug)]
enum Op {
    Message { topic: String, payload: Vec<u8>, retain: bool },
    Key(KeyEvent),
    Paste(String),
    Mouse(MouseEventKind, u16, u16),
    Size(u16, u16),
    Wait(u64),
    Connection(u8),
    Suback(bool),
}

fn key() -> impl Strategy<Value = KeyEvent> {
    let named = prop::sample::select(vec![
        KeyCode::Enter,
        KeyCode::Esc,
        KeyCode::Tab,
        KeyCode::BackTab,
        KeyCode::Up,
        KeyCode::Down,
        KeyCode::Left,
        KeyCode::Right,
        KeyCode::Home,
        KeyCode::End,
        KeyCode::PageUp,
        KeyCode::PageDown,
        KeyCode::Delete,
        KeyCode::Backspace,
        KeyCode::F(1),
    ]);
    let letters: Vec<_> =
        "?/ipsdrvVz xqjkhlgGeEcCyn012ab#+é漢".chars().map(KeyCode::Char).collect();
    let letter = prop::sample::select(letters);
    let modifiers = prop::sample::select(vec![
        KeyModifiers::NONE,
        KeyModifiers::NONE,
        KeyModifiers::NONE,
        KeyModifiers::SHIFT,
        KeyModifiers::CONTROL,
    ]);
    (prop_oneof![named, letter], modifiers)
        .prop_map(|(code, modifiers)| KeyEvent::new(code, modifiers))
}

fn op() -> impl Strategy<Value = Op> {
    let topic = "[ab漢]{0,2}(/[a-c\u{1b}\u{202e}]{0,3}){0,4}";
    let payload = prop_oneof![
        "[0-9.]{0,5}".prop_map(String::into_bytes),
        r#"\{"t": [0-9]{1,4}\}"#.prop_map(String::into_bytes),
        "[a\u{301}漢\n\t\u{1b}]{0,200}".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..200),
    ];
    let message = (topic, payload, any::<bool>())
        .prop_map(|(topic, payload, retain)| Op::Message { topic, payload, retain });
    let kind = prop::sample::select(vec![
        MouseEventKind::Down(MouseButton::Left),
        MouseEventKind::ScrollDown,
        MouseEventKind::ScrollUp,
        MouseEventKind::Moved,
    ]);
    let size = || prop_oneof![0_u16..12, 0_u16..130];
    prop_oneof![
        4 => message,
        8 => key().prop_map(Op::Key),
        1 => "[a/漢\n\r\u{1b}]{0,9}".prop_map(Op::Paste),
        1 => (kind, size(), size()).prop_map(|(kind, x, y)| Op::Mouse(kind, x, y)),
        2 => (size(), size()).prop_map(|(width, height)| Op::Size(width, height)),
        1 => (0_u64..100_000).prop_map(Op::Wait),
        1 => (0_u8..4).prop_map(Op::Connection),
        1 => any::<bool>().prop_map(Op::Suback),
    ]
}

fn apply(model: &mut Model, op: Op) {
    match op {
        Op::Message { topic, payload, retain } => {
            model.handle_message(&Publish { retain, ..Publish::new(&topic, &payload) });
        }
        Op::Key(key) => {
            if let Some(Action::Subscribe { filter, qos }) = model.handle_input(&Event::Key(key)) {
                model.handle_subscribing(&filter, qos);
            }
        }
        Op::Paste(text) => drop(model.handle_input(&Event::Paste(text))),
        Op::Mouse(kind, column, row) => {
            let modifiers = KeyModifiers::NONE;
            model.handle_input(&Event::Mouse(MouseEvent { kind, column, row, modifiers }));
        }
        Op::Size(width, height) => drop(model.handle_input(&Event::Resize(width, height))),
        Op::Wait(ms) => model.handle_time(model.now_ms + ms),
        Op::Connection(state) => {
            let why = "\u{1b}why".to_string();
            model.handle_connection(match state {
                0 => Connection::Connecting,
                1 => Connection::Connected,
                2 => Connection::Waiting { until_ms: model.now_ms + 1500, why },
                _ => Connection::Closed { why },
            });
        }
        Op::Suback(true) => model.handle_suback("#", Ok(QoS::AtMostOnce)),
        Op::Suback(false) => model.handle_suback("#", Err("no\u{7}".into())),
    }
}

/// What must hold of any model.
fn check(model: &mut Model, limits: Limits) {
    model.refresh();
    assert!(model.topics.len() <= limits.nodes);
    let row = model.selected_row();
    assert!(row.is_some() || model.rows.is_empty(), "the selection is a row");
    if let Some(row) = row {
        assert!((model.offset..model.offset + model.page()).contains(&row), "it is in sight");
    }
    let mut topics = [0; 2];
    for id in 0..model.topics.len() {
        let node = model.topics.node(id);
        topics[0] += usize::from(node.last().is_some());
        topics[1] += usize::from(node.is_retained);
        assert!(node.values.len() <= limits.values);
        assert!(id == 0 || node.parent < id);
    }
    let root = model.topics.node(0);
    assert_eq!([root.topics, root.retained], topics);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_sequence_does_harm(ops in prop::collection::vec(op(), 0..60)) {
        let limits = Limits { nodes: 40, values: 8, payload_len: 100, bytes: 8000 };
        let mut model = Model::new("mqtt://localhost".into(), limits, START_MS);
        model.handle_subscribing("#", QoS::AtMostOnce);
        for op in ops {
            apply(&mut model, op);
            check(&mut model, limits);
            let (width, height) = (model.screen.width, model.screen.height);
            let shown = screen(&mut model, width, height);
            prop_assert!(!shown.contains(['\u{1b}', '\u{202e}', '\u{7}']), "{shown:?}");
        }
    }
}
