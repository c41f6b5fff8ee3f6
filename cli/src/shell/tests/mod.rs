//! The model and its view, without a terminal.

mod golden;
mod input;
mod limits;
mod properties;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers};
use whimbrel_codec::{Publish, QoS};

use super::model::{Action, Connection, Model};
use super::topics::Limits;
use super::view;

/// 2026-09-21 14:13:20 UTC.
const START_MS: u64 = 1_790_000_000_000;

/// Connected, and subscribed to everything.
fn model() -> Model {
    let mut model = Model::new("mqtt://localhost:1883".into(), Limits::default(), START_MS);
    model.handle_connection(Connection::Connecting);
    model.handle_connection(Connection::Connected);
    model.handle_subscribing("#", QoS::AtMostOnce);
    model.handle_suback("#", Ok(QoS::AtMostOnce));
    model
}

fn publish(model: &mut Model, topic: &str, payload: &[u8]) {
    model.handle_message(&Publish::new(topic, payload));
}

fn publish_retained(model: &mut Model, topic: &str, payload: &[u8]) {
    model.handle_message(&Publish { retain: true, ..Publish::new(topic, payload) });
}

/// A house with a boiler: 20 seconds of it.
fn house() -> Model {
    let mut model = model();
    publish_retained(&mut model, "house/boiler/state", b"on");
    publish_retained(&mut model, "house/boiler/name", "Kessel \u{2014} Keller".as_bytes());
    publish(&mut model, "house/door", b"\xa2\x64open\xf5\x67battery\x18\x57");
    publish(&mut model, "meter/raw", &(0..=40).collect::<Vec<u8>>());
    for second in 0..20 {
        model.handle_time(START_MS + second * 1000);
        let temperature = 60.0 + (second as f64 / 3.0).sin() * 4.0;
        publish(&mut model, "house/boiler/temperature", format!("{temperature:.1}").as_bytes());
        if second % 4 == 0 {
            let json = format!(r#"{{"power_w": {}, "phase": [1, 2]}}"#, 1200 + second * 10);
            publish(&mut model, "meter/power", json.as_bytes());
        }
    }
    model.handle_time(START_MS + 20_000);
    keys(&mut model, "E");
    model
}

/// Presses keys: each a character, or `<name>`. The last action that one of them asked for.
fn keys(model: &mut Model, text: &str) -> Option<Action> {
    let mut action = None;
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let named = rest.strip_prefix('<').and_then(|tail| tail.split_once('>'));
        let (key, tail) = match named {
            Some((name, tail)) => (named_key(name), tail),
            None => (KeyEvent::from(KeyCode::Char(first)), &rest[first.len_utf8()..]),
        };
        action = model.handle_input(&Event::Key(key)).or(action);
        rest = tail;
    }
    action
}

fn named_key(name: &str) -> KeyEvent {
    if let Some(letter) = name.strip_prefix("c-") {
        let code = KeyCode::Char(letter.chars().next().unwrap());
        return KeyEvent::new(code, KeyModifiers::CONTROL);
    }
    KeyEvent::from(match name {
        "esc" => KeyCode::Esc,
        "enter" => KeyCode::Enter,
        "tab" => KeyCode::Tab,
        "up" => KeyCode::Up,
        "down" => KeyCode::Down,
        "left" => KeyCode::Left,
        "right" => KeyCode::Right,
        "home" => KeyCode::Home,
        "end" => KeyCode::End,
        "pgup" => KeyCode::PageUp,
        "pgdn" => KeyCode::PageDown,
        "del" => KeyCode::Delete,
        "bs" => KeyCode::Backspace,
        other => panic!("no key {other}"),
    })
}

/// What is on a screen of this size, without spaces at the ends of lines.
fn screen(model: &mut Model, width: u16, height: u16) -> String {
    model.handle_input(&Event::Resize(width, height));
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| view::draw(frame, model)).unwrap();
    let buffer = terminal.backend().buffer();
    let mut out = String::new();
    for y in 0..height {
        let mut line = String::new();
        let mut hidden = 0;
        for x in 0..width {
            let symbol = buffer[(x, y)].symbol();
            if hidden == 0 {
                line.push_str(symbol);
                hidden = ratatui::text::Span::raw(symbol).width();
            }
            hidden = hidden.saturating_sub(1);
        }
        out += line.trim_end();
        out.push('\n');
    }
    out
}

/// The same on a screen of 80 by 24.
fn seen(model: &mut Model) -> String {
    screen(model, 80, 24)
}
