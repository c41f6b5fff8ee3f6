//! A configuration as the file that would make it.

use std::fmt::Write;

use super::{Config, Endpoint, KEYS, limit};

/// Lines of comments are not longer than this.
const WIDTH: usize = 96;

/// The configuration as TOML, a comment for each key. Read as a file, it gives the same again.
pub fn print(config: &Config) -> String {
    let mut out = String::new();
    let mut section = None;
    for key in KEYS {
        if key.section() != section {
            section = key.section();
            let _ = writeln!(out, "[{}]", section.unwrap_or_default());
        }
        comment(&mut out, key.doc);
        let _ = match key.shown(config) {
            Some(value) => writeln!(out, "{} = {value}\n", key.name()),
            None => writeln!(out, "# {} = true\n", key.name()),
        };
    }
    comment(
        &mut out,
        "Where clients connect: type \"tcp\" has `bind`, type \"websocket\" has `bind` and `path`, \
         type \"unix\" has `path`. With a listener here there are no default ones.",
    );
    for listener in &config.listeners {
        let text = |text: &str| toml::Value::from(text).to_string();
        let _ = writeln!(out, "[[listener]]\ntype = \"{}\"", listener.endpoint.transport());
        let _ = match &listener.endpoint {
            Endpoint::Tcp(address) => writeln!(out, "bind = \"{address}\"\n"),
            Endpoint::WebSocket(address, path) => {
                writeln!(out, "bind = \"{address}\"\npath = {}\n", text(path))
            }
            Endpoint::Unix(path) => {
                writeln!(out, "path = {}\n", text(&path.display().to_string()))
            }
        };
    }
    comment(
        &mut out,
        "Limits of some clients: [[limit]] tables. `per` says whose sum is limited: that of a \
         listener, address, user or client. To whom it applies: `listener`, `address`, `user`, \
         `client_id` (both may have `*`), `anonymous`.",
    );
    limit::print(&mut out, &config.core.limits, &config.listeners);
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

fn comment(out: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.len() + word.len() >= WIDTH {
            let _ = writeln!(out, "{line}");
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    let _ = writeln!(out, "{line}");
}
