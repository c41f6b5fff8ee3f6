//! Any split of a stream of bytes gives the same result, and no bytes panic.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use proptest::prelude::*;
use whimbrel_transport::websocket::client::{self, Client};
use whimbrel_transport::websocket::server::{Config, Request, Server};
use whimbrel_transport::websocket::{Decoder, End, Role};

const REQUEST: &[u8] = b"GET /mqtt?a HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
    Connection: upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\
    Authorization: Basic abc\r\n\r\n";

/// All that can be seen of a server that got a stream.
#[derive(Debug, PartialEq)]
struct Seen {
    opened: Option<Box<Request>>,
    mqtt: Vec<u8>,
    end: Option<End>,
    output: Vec<u8>,
}

/// Feeds `pieces` to a server; output is taken at the end.
fn serve<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Seen {
    let config = Config { message_len_max: Some(100_000), ..Config::default() };
    let mut server = Server::new(Arc::new(config));
    let mut seen = Seen { opened: None, mqtt: vec![], end: None, output: vec![] };
    for piece in pieces {
        let mut piece = piece.to_vec();
        let received = server.handle_bytes(&mut piece);
        assert!(seen.opened.is_none() || received.opened.is_none());
        assert!(seen.end.is_none() || (received.end.is_none() && received.mqtt.is_empty()));
        seen.opened = seen.opened.or(received.opened);
        seen.end = seen.end.or(received.end);
        seen.mqtt.extend(received.mqtt);
    }
    let mut head = Vec::new();
    loop {
        server.poll_send(0, &mut head);
        server.handle_written(head.len(), &head);
        seen.output.append(&mut head);
        if !server.wants_send() {
            return seen;
        }
    }
}

/// `bytes` cut at `cuts`, which need neither order nor sense.
fn cut<'a>(bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.sort_unstable();
    let mut pieces = Vec::new();
    let mut from = 0;
    for cut in cuts.into_iter().chain([bytes.len()]) {
        pieces.push(&bytes[from..cut]);
        from = cut;
    }
    pieces
}

#[derive(Clone, Debug)]
struct Frame {
    first: u8,
    payload: Vec<u8>,
    key: [u8; 4],
}

impl Frame {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.first);
        match self.payload.len() {
            len @ 0..126 => out.push(0x80 | len as u8),
            len => {
                out.push(0x80 | 126);
                out.extend(u16::try_from(len).unwrap().to_be_bytes());
            }
        }
        out.extend(self.key);
        out.extend(self.payload.iter().zip(self.key.iter().cycle()).map(|(byte, key)| byte ^ key));
    }
}

fn frame(first: u8, payload: Vec<u8>) -> Frame {
    Frame { first, payload, key: [0x12, 0x9a, 0xff, 0x01] }
}

fn encode(frames: &[Frame]) -> Vec<u8> {
    let mut out = REQUEST.to_vec();
    for frame in frames {
        frame.encode(&mut out);
    }
    out
}

/// Messages of one or more fragments with control frames between, as a correct client sends them;
/// with a broken frame now and then.
fn frames() -> impl Strategy<Value = Vec<Frame>> {
    let bytes = |max| proptest::collection::vec(any::<u8>(), 0..max);
    let control = prop_oneof![Just(0x89u8), Just(0x8a)];
    let control = (control, bytes(126)).prop_map(|(first, payload)| vec![frame(first, payload)]);
    let message = proptest::collection::vec((bytes(300), proptest::option::of(bytes(20))), 1..4)
        .prop_map(|fragments| {
            let last = fragments.len() - 1;
            let mut frames = Vec::new();
            for (i, (payload, ping)) in fragments.into_iter().enumerate() {
                let opcode = if i == 0 { 2 } else { 0 };
                frames.push(frame(opcode | if i == last { 0x80 } else { 0 }, payload));
                frames.extend(ping.map(|payload| frame(0x89, payload)));
            }
            frames
        });
    let close = (1000u16..1012).prop_map(|code| vec![frame(0x88, code.to_be_bytes().to_vec())]);
    let any_frame = (any::<u8>(), bytes(200)).prop_map(|(first, p)| vec![frame(first, p)]);
    let part = prop_oneof![8 => message, 4 => control, 1 => close, 1 => any_frame];
    (proptest::collection::vec(part, 0..8), any::<[u8; 4]>()).prop_map(|(parts, key)| {
        parts.into_iter().flatten().map(|frame| Frame { key, ..frame }).collect()
    })
}

/// The MQTT bytes of frames up to the first that is not good, by the plainest of rules.
fn model(frames: &[Frame]) -> Vec<u8> {
    let (mut mqtt, mut in_message) = (Vec::new(), false);
    for Frame { first, payload, .. } in frames {
        let (fin, opcode) = (first & 0x80 != 0, first & 0x7f);
        match (opcode, in_message) {
            (2, false) | (0, true) => {
                mqtt.extend(payload);
                in_message = !fin;
            }
            (9 | 10, _) if fin && payload.len() < 126 => {}
            _ => break,
        }
    }
    mqtt
}

#[test]
fn every_split_of_a_sample() {
    let samples = [
        vec![
            frame(0x82, b"whole".to_vec()),
            frame(0x02, vec![7; 130]),
            frame(0x89, b"ping".to_vec()),
            frame(0x80, b"last".to_vec()),
            frame(0x88, b"\x03\xe8bye".to_vec()),
            frame(0x82, b"ignored".to_vec()),
        ],
        vec![frame(0x82, b"good".to_vec()), frame(0x81, b"text".to_vec())],
        vec![frame(0x89, vec![1; 125]), frame(0x88, vec![3, 232, 0xff])],
    ];
    for frames in samples {
        let bytes = encode(&frames);
        let whole = serve([&bytes[..]].into_iter());
        assert_eq!(whole.mqtt, model(&frames));
        assert!(whole.opened.is_some() && whole.end.is_some());
        assert_eq!(serve(bytes.chunks(1)), whole);
        for first in 0..=bytes.len() {
            assert_eq!(serve(cut(&bytes, &[first]).into_iter()), whole, "split at {first}");
            for second in (first..=bytes.len()).step_by(7) {
                let pieces = cut(&bytes, &[first, second]);
                assert_eq!(serve(pieces.into_iter()), whole, "split at {first}, {second}");
            }
        }
    }
}

proptest! {
    #[test]
    fn any_split_of_any_frames(
        frames in frames(),
        cuts in proptest::collection::vec(any::<usize>(), 0..20),
    ) {
        let bytes = encode(&frames);
        let whole = serve([&bytes[..]].into_iter());
        prop_assert_eq!(&whole.mqtt, &model(&frames));
        prop_assert_eq!(serve(cut(&bytes, &cuts).into_iter()), whole);
    }

    #[test]
    fn a_head_with_any_change_in_any_split(
        at in 0..REQUEST.len(),
        byte: u8,
        cuts in proptest::collection::vec(any::<usize>(), 0..6),
    ) {
        let mut bytes = encode(&[frame(0x82, b"mqtt".to_vec())]);
        bytes[at] = byte;
        let whole = serve([&bytes[..]].into_iter());
        prop_assert_eq!(serve(cut(&bytes, &cuts).into_iter()), whole);
    }

    #[test]
    fn any_bytes_in_any_split_never_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
        cuts in proptest::collection::vec(any::<usize>(), 0..6),
        message_len_max in proptest::option::of(any::<u32>()),
    ) {
        serve(cut(&bytes, &cuts).into_iter());
        let opened = [REQUEST, &bytes].concat();
        prop_assert_eq!(serve(cut(&opened, &cuts).into_iter()), serve([&opened[..]].into_iter()));
        let request = client::Request { host: "a", path: "/mqtt", headers: &[] };
        let mut client = Client::new(&request, [1; 16]).unwrap();
        let mut decoder = Decoder::new(Role::Client, message_len_max);
        for piece in cut(&bytes, &cuts) {
            client.handle_bytes(&mut piece.to_vec());
            decoder.handle_bytes(&mut piece.to_vec());
        }
    }
}
