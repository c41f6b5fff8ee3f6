//! Any bytes as what a WebSocket peer sends: however they are torn, the same MQTT bytes come out
//! and the connection ends for the same reason. Web pages come in only from where they may, and no
//! token is shown. The first byte chooses the role, the limit and the origins, the second the size
//! of the pieces.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use whimbrel_transport::websocket::server::{Config, Received, Request, Server};
use whimbrel_transport::websocket::{Decoded, Decoder, End, Role};

const ORIGIN: &str = "https://page.example";

fuzz_target!(|bytes: &[u8]| {
    let Some((&[mode, step], bytes)) = bytes.split_first_chunk() else { return };
    let step = usize::from(step).max(1);
    let limit = (mode & 4 != 0).then_some(64);
    let (whole, torn) = (bytes.len(), step);
    match mode & 3 {
        2 | 3 => {
            let origins = (mode & 8 != 0).then(|| vec![ORIGIN.to_owned()]);
            let config = Arc::new(Config { message_len_max: limit, origins, ..Config::default() });
            assert_eq!(serve(&config, bytes, torn), serve(&config, bytes, whole));
        }
        other => {
            let role = if other == 0 { Role::Server } else { Role::Client };
            assert_eq!(decode(role, limit, bytes, torn), decode(role, limit, bytes, whole));
        }
    }
});

/// The MQTT bytes and the end of the connection, with `bytes` torn into pieces of `step`.
fn decode(role: Role, limit: Option<u32>, bytes: &[u8], step: usize) -> (Vec<u8>, Option<End>) {
    let mut decoder = Decoder::new(role, limit);
    let mut all = Vec::new();
    let mut why = None;
    let mut output = Vec::new();
    for piece in bytes.chunks(step.max(1)) {
        let mut piece = piece.to_vec();
        let Decoded { mqtt, end } = decoder.handle_bytes(&mut piece);
        assert!(why.is_none() || (mqtt.is_empty() && end.is_none()), "nothing follows the end");
        all.extend_from_slice(mqtt);
        why = why.or(end);
        output.clear();
        decoder.poll_output(&mut || Some([1, 2, 3, 4]), &mut output);
        // At most a pong and a close frame, which are short.
        assert!(output.len() <= 2 * (2 + 4 + 125), "{} bytes of answers", output.len());
        assert!(!decoder.has_output());
    }
    (all, why)
}

/// As [`decode`], opening handshake included; a slow socket takes what is sent.
fn serve(config: &Arc<Config>, bytes: &[u8], step: usize) -> (bool, Vec<u8>, Option<End>) {
    let mut server = Server::new(config.clone());
    let mut all = Vec::new();
    let mut why = None;
    let mut was_opened = false;
    let mut head = Vec::new();
    let mut waiting = 300;
    for piece in bytes.chunks(step.max(1)) {
        let mut piece = piece.to_vec();
        let Received { opened, mqtt, end } = server.handle_bytes(&mut piece);
        assert!(opened.is_none() || !was_opened, "opened once");
        assert!(why.is_none() || (mqtt.is_empty() && end.is_none()), "nothing follows the end");
        was_opened |= opened.is_some();
        if let Some(request) = opened {
            check(&request, config);
        }
        assert!(was_opened || mqtt.is_empty(), "MQTT bytes before the handshake");
        all.extend_from_slice(mqtt);
        why = why.or(end);
        let allowed = server.poll_send(waiting, &mut head);
        assert!(allowed <= waiting);
        let taken = step.min(head.len() + allowed);
        let written = server.handle_written(taken, &head);
        assert!(written <= allowed && written <= taken);
        waiting -= written;
    }
    (was_opened, all, why)
}

/// What was let in.
fn check(request: &Request, config: &Config) {
    if let (Some(origin), Some(_)) = (&request.origin, &config.origins) {
        assert!(origin.eq_ignore_ascii_case(ORIGIN), "a page of {origin} was let in");
    }
    if let Some(token) = request.bearer() {
        assert!(request.authorization.as_deref().is_some_and(|header| header.ends_with(token)));
        let shown = format!("{request:?}");
        let plain = Request { authorization: None, ..request.clone() };
        assert_eq!(shown, format!("{plain:?}"), "a token is shown");
    }
}
