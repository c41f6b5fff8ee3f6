//! A configuration as the file that would make it.

use std::fmt::{Display, Write};

use super::tls::{CLIENT_CERTIFICATES, IDENTITIES, MIN_VERSIONS};
use super::{Config, Endpoint, KEYS, Listener, Tls, limit};

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
        "Where clients connect: type \"tcp\" has `bind`, type \"websocket\" has `bind`, `path` and \
         `origins`, type \"unix\" has `path`. The first two may have `proxy_protocol_from` and a \
         table [listener.tls] with `certificate` and `key`. `authentication` lists by which methods \
         clients can show who they are, the first to be asked first; unless given, all that are \
         configured. With a listener here there are no default ones.",
    );
    for listener in &config.listeners {
        let _ = writeln!(out, "[[listener]]\ntype = \"{}\"", listener.endpoint.transport());
        let _ = match &listener.endpoint {
            Endpoint::Tcp(address) => writeln!(out, "bind = \"{address}\""),
            Endpoint::WebSocket(address, path) => {
                writeln!(out, "bind = \"{address}\"\npath = {}", text(path))
            }
            Endpoint::Unix(path) => writeln!(out, "path = {}", text(path.display())),
        };
        if let Some(chain) = &listener.authentication {
            let names: Vec<_> = chain.iter().map(|login| text(login.name())).collect();
            let _ = writeln!(out, "authentication = [{}]", names.join(", "));
        }
        options(&mut out, listener);
        out.push('\n');
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

fn options(out: &mut String, listener: &Listener) {
    if !listener.proxy_protocol_from.is_empty() {
        let _ = writeln!(out, "proxy_protocol_from = {}", texts(&listener.proxy_protocol_from));
    }
    if let Some(origins) = &listener.origins {
        let _ = writeln!(out, "origins = {}", texts(origins));
    }
    if let Some(tls) = &listener.tls {
        print_tls(out, tls);
    }
}

fn print_tls(out: &mut String, tls: &Tls) {
    let pairs = tls.certificates.iter().map(|pair| {
        let (certificate, key) = (text(pair.certificate.display()), text(pair.key.display()));
        format!("{{ certificate = {certificate}, key = {key} }}")
    });
    let pairs = pairs.collect::<Vec<_>>().join(", ");
    let _ = writeln!(out, "[listener.tls]\ncertificates = [{pairs}]");
    let _ = writeln!(out, "min_version = {}", word(tls.min_version, MIN_VERSIONS));
    let wanted = word(tls.client_certificates, CLIENT_CERTIFICATES);
    let _ = writeln!(out, "client_certificates = {wanted}");
    if let Some(path) = &tls.client_ca {
        let _ = writeln!(out, "client_ca = {}", text(path.display()));
    }
    if !tls.crl.is_empty() {
        let _ = writeln!(out, "crl = {}", texts(tls.crl.iter().map(|path| path.display())));
    }
    let _ = writeln!(out, "allow_expired_crl = {}", tls.allow_expired_crl);
    let _ = writeln!(out, "identity = {}", word(tls.identity, IDENTITIES));
}

fn text(text: impl Display) -> String {
    toml::Value::from(text.to_string()).to_string()
}

fn texts(all: impl IntoIterator<Item = impl Display>) -> String {
    format!("[{}]", all.into_iter().map(text).collect::<Vec<_>>().join(", "))
}

fn word<T: PartialEq>(value: T, words: &[(&str, T)]) -> String {
    words.iter().find(|(_, one)| *one == value).map(|(word, _)| text(word)).unwrap_or_default()
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
