//! The rules on frames, and what goes out around the MQTT bytes.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use whimbrel_transport::websocket::server::{Config, Server};
use whimbrel_transport::websocket::{Decoder, End, Role, Violation, close_code};

const KEY: [u8; 4] = [0xa1, 0xb2, 0xc3, 0xd4];

/// A masked frame whose first byte is `first`, its length minimally encoded.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        len @ 0..126 => out.push(0x80 | len as u8),
        len @ 126..65_536 => {
            out.push(0x80 | 126);
            out.extend((len as u16).to_be_bytes());
        }
        len => {
            out.push(0x80 | 127);
            out.extend((len as u64).to_be_bytes());
        }
    }
    out.extend(KEY);
    out.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
    out
}

fn run(decoder: &mut Decoder, bytes: &[u8]) -> (Vec<u8>, Option<End>) {
    let mut bytes = bytes.to_vec();
    let decoded = decoder.handle_bytes(&mut bytes);
    (decoded.mqtt.to_vec(), decoded.end)
}

fn output(decoder: &mut Decoder) -> Vec<u8> {
    let mut out = Vec::new();
    decoder.poll_output(&mut || None, &mut out);
    out
}

fn decode(bytes: &[u8]) -> (Vec<u8>, Option<End>, Vec<u8>) {
    let mut decoder = Decoder::new(Role::Server, None);
    let (mqtt, end) = run(&mut decoder, bytes);
    let out = output(&mut decoder);
    (mqtt, end, out)
}

/// The frames before the bad one are delivered, the close frame has `code`, nothing follows.
#[track_caller]
fn violates(bad: &[u8], violation: Violation, code: u16) {
    let mut bytes = masked(0x82, b"before");
    bytes.extend(bad);
    bytes.extend(masked(0x82, b"after"));
    let (mqtt, end, out) = decode(&bytes);
    assert_eq!(mqtt, b"before");
    assert_eq!(end, Some(End::Violation(violation)));
    assert_eq!(out, [&[0x88, 2][..], &code.to_be_bytes()].concat());
}

#[test]
fn states_are_small() {
    assert!(size_of::<Decoder>() <= 40, "{}", size_of::<Decoder>());
    assert!(size_of::<Server>() <= 56, "{}", size_of::<Server>());
}

#[test]
fn every_length_is_delivered() {
    for len in [0, 1, 7, 8, 9, 125, 126, 127, 65_535, 65_536, 70_000] {
        let payload: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
        let (mqtt, end, out) = decode(&masked(0x82, &payload));
        assert_eq!((mqtt == payload, end, out.len()), (true, None, 0), "length {len}");
    }
}

/// [MQTT-6.0.0-2]
#[test]
fn frames_and_fragments_make_one_stream() {
    let bytes = [
        masked(0x82, b"one "),
        masked(0x02, b"two "),
        masked(0x89, b"ping"),
        masked(0x00, b""),
        masked(0x8a, b"unasked pong"),
        masked(0x00, b"three "),
        masked(0x80, b"four "),
        masked(0x82, b""),
        masked(0x82, b"five"),
    ]
    .concat();
    let (mqtt, end, out) = decode(&bytes);
    assert_eq!(mqtt, b"one two three four five");
    assert_eq!(end, None);
    assert_eq!(out, b"\x8a\x04ping");
}

#[test]
fn payload_is_delivered_before_its_frame_is_whole() {
    let mut decoder = Decoder::new(Role::Server, None);
    let frame = masked(0x82, b"abcdef");
    assert_eq!(run(&mut decoder, &frame[..9]).0, b"abc");
    assert_eq!(run(&mut decoder, &frame[9..]).0, b"def");
}

/// [MQTT-6.0.0-1]
#[test]
fn text_is_refused() {
    violates(&masked(0x81, b"hello"), Violation::Text, close_code::UNSUPPORTED_DATA);
    violates(&masked(0x01, b"hello"), Violation::Text, close_code::UNSUPPORTED_DATA);
}

#[test]
fn broken_frames_are_protocol_errors() {
    let violates = |bad: &[u8], violation| violates(bad, violation, close_code::PROTOCOL_ERROR);
    violates(&[0x82, 5], Violation::NotMasked);
    for bit in [0x40, 0x20, 0x10] {
        violates(&[0x82 | bit, 0x80], Violation::ReservedBits);
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        violates(&[0x80 | opcode, 0x80], Violation::ReservedOpcode);
    }
    violates(&masked(0x80, b"x"), Violation::NothingToContinue);
    for opcode in [8, 9, 10] {
        violates(&[opcode, 0x80], Violation::ControlFragmented);
        violates(&[0x80 | opcode, 0x80 | 126], Violation::ControlTooLong);
        violates(&[0x80 | opcode, 0x80 | 127], Violation::ControlTooLong);
    }
    let long = |len: u64| [&[0x82, 0xff][..], &len.to_be_bytes(), &KEY].concat();
    violates(&long(1 << 63), Violation::LengthTooLarge);
    violates(&long(u64::MAX), Violation::LengthTooLarge);
    violates(&long(65_535), Violation::LengthNotMinimal);
    violates(&long(0), Violation::LengthNotMinimal);
    let short = |len: u16| [&[0x82, 0xfe][..], &len.to_be_bytes(), &KEY].concat();
    violates(&short(125), Violation::LengthNotMinimal);
}

#[test]
fn the_longest_length_is_no_error_and_takes_no_memory() {
    let header = [&[0x82, 0xff][..], &(u64::MAX >> 1).to_be_bytes(), &[0; 4], b"abc"].concat();
    let (mqtt, end, _) = decode(&header);
    assert_eq!((&mqtt[..], end), (&b"abc"[..], None));
}

#[test]
fn a_message_within_a_fragmented_one() {
    let bytes = [masked(0x02, b"a"), masked(0x82, b"b")].concat();
    let (mqtt, end, _) = decode(&bytes);
    assert_eq!(mqtt, b"a");
    assert_eq!(end, Some(End::Violation(Violation::MessageInterleaved)));
}

#[test]
fn a_client_takes_no_masked_frames() {
    let mut decoder = Decoder::new(Role::Client, None);
    assert_eq!(run(&mut decoder, b"\x82\x02hi"), (b"hi".to_vec(), None));
    assert_eq!(run(&mut decoder, b"\x82\x82").1, Some(End::Violation(Violation::Masked)));
}

#[test]
fn close_frames_are_answered_with_their_code() {
    for (payload, code) in [
        (&b""[..], None),
        (b"\x03\xe8", Some(1000)),
        (b"\x03\xe9gr\xc3\xbc\xc3\x9fe", Some(1001)),
        (b"\x0b\xb8", Some(3000)),
        (b"\x13\x87", Some(4999)),
    ] {
        let (_, end, out) = decode(&masked(0x88, payload));
        assert_eq!(end, Some(End::PeerClosed { code }));
        let echo = code.map(u16::to_be_bytes);
        let echo = echo.as_ref().map_or(&[][..], |code| code.as_slice());
        assert_eq!(out, [&[0x88, echo.len() as u8], echo].concat());
    }
}

#[test]
fn bad_close_payloads() {
    violates(&masked(0x88, b"\x03"), Violation::CloseTruncated, 1002);
    for code in [0u16, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535] {
        violates(&masked(0x88, &code.to_be_bytes()), Violation::CloseCode, 1002);
    }
    violates(&masked(0x88, b"\x03\xe8\xff\xfe"), Violation::CloseReason, 1007);
}

#[test]
fn nothing_after_a_close_is_looked_at() {
    let mut decoder = Decoder::new(Role::Server, None);
    let close = masked(0x88, b"\x03\xe8");
    assert!(run(&mut decoder, &close).1.is_some());
    assert_eq!(run(&mut decoder, &masked(0x82, b"x")), (vec![], None));
    assert_eq!(run(&mut decoder, b"\xff\xff"), (vec![], None));
    assert_eq!(output(&mut decoder), b"\x88\x02\x03\xe8");
    assert!(!decoder.has_output());
}

#[test]
fn our_close_is_not_sent_twice() {
    let mut decoder = Decoder::new(Role::Server, None);
    decoder.close(close_code::GOING_AWAY);
    decoder.close(close_code::NORMAL);
    assert_eq!(output(&mut decoder), b"\x88\x02\x03\xe9");
    let bytes =
        [masked(0x82, b"on its way"), masked(0x89, b""), masked(0x88, b"\x03\xe9")].concat();
    let (mqtt, end) = run(&mut decoder, &bytes);
    assert_eq!(mqtt, b"on its way");
    assert_eq!(end, Some(End::PeerClosed { code: Some(1001) }));
    assert_eq!(output(&mut decoder), b"");
}

#[test]
fn messages_have_a_limit_if_configured() {
    let limited = || Decoder::new(Role::Server, Some(10));
    let within = [masked(0x82, &[0; 10]), masked(0x02, &[0; 6]), masked(0x80, &[0; 4])].concat();
    assert_eq!(run(&mut limited(), &within), (vec![0; 20], None));
    let too_long = Some(End::Violation(Violation::MessageTooLong));
    // The header alone tells.
    assert_eq!(run(&mut limited(), &masked(0x82, &[0; 11])[..6]), (vec![], too_long.clone()));
    let mut decoder = limited();
    let fragments = [masked(0x02, &[0; 6]), masked(0x80, &[0; 5])].concat();
    assert_eq!(run(&mut decoder, &fragments), (vec![0; 6], too_long));
    assert_eq!(output(&mut decoder), b"\x88\x02\x03\xf1");
    // So long that a sum would overflow.
    let huge = [&[0x80, 0xff][..], &(u64::MAX >> 1).to_be_bytes(), &KEY].concat();
    let mut decoder = limited();
    assert!(run(&mut decoder, &[masked(0x02, b"a"), huge].concat()).1.is_some());
}

#[test]
fn only_the_latest_ping_is_answered() {
    let mut decoder = Decoder::new(Role::Server, None);
    for round in 0..10_000u32 {
        run(&mut decoder, &masked(0x89, &round.to_be_bytes()));
    }
    assert!(decoder.has_output());
    assert_eq!(output(&mut decoder), [&[0x8a, 4][..], &9_999u32.to_be_bytes()].concat());
    assert!(!decoder.has_output());
    assert_eq!(output(&mut decoder), b"");
}

#[test]
fn a_ping_of_the_greatest_size_torn_at_every_byte() {
    let mut decoder = Decoder::new(Role::Server, None);
    for byte in masked(0x89, &[b'p'; 125]) {
        assert_eq!(run(&mut decoder, &[byte]), (vec![], None));
    }
    assert_eq!(output(&mut decoder), [&[0x8a, 125][..], &[b'p'; 125]].concat());
}

/// An open server and its whole output so far taken.
fn open() -> Server {
    let mut server = Server::new(Arc::new(Config::default()));
    let mut request = b"GET /mqtt HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\
        \r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Protocol: mqtt\r\n\r\n"
        .to_vec();
    assert!(server.handle_bytes(&mut request).opened.is_some());
    let mut head = Vec::new();
    server.poll_send(0, &mut head);
    server.handle_written(head.len(), &head);
    server
}

/// Sends `mqtt` through a socket that takes at most `step` bytes and would block in between. Ends
/// with a close frame.
fn send_in_steps(server: &mut Server, mut mqtt: &[u8], step: usize) -> Vec<u8> {
    let (mut wire, mut head) = (Vec::new(), Vec::new());
    server.close(close_code::NORMAL);
    while !mqtt.is_empty() || server.wants_send() {
        let payload = server.poll_send(mqtt.len(), &mut head);
        let sent: Vec<u8> = head.iter().chain(&mqtt[..payload]).copied().take(step).collect();
        let taken = server.handle_written(sent.len(), &head);
        wire.extend(sent);
        mqtt = &mqtt[taken..];
        // What would block is asked for again, and is the same.
        server.poll_send(mqtt.len(), &mut head);
        let before = head.clone();
        assert_eq!(server.handle_written(0, &head), 0);
        server.poll_send(mqtt.len(), &mut head);
        assert_eq!(head, before);
        assert_eq!(server.handle_written(0, &head), 0);
    }
    wire
}

#[test]
fn partial_writes_never_break_a_frame() {
    let mqtt: Vec<u8> = (0..300u32).map(|i| (i % 251) as u8).collect();
    for step in 1..310 {
        let mut server = open();
        let wire = send_in_steps(&mut server, &mqtt, step);
        let expected = [&[0x82, 126, 1, 44][..], &mqtt, &[0x88, 2, 3, 0xe8]].concat();
        assert_eq!(wire, expected, "step {step}");
    }
}

#[test]
fn a_pong_waits_for_the_border_of_frames() {
    let mut server = open();
    let mut head = Vec::new();
    assert_eq!(server.poll_send(4, &mut head), 4);
    assert_eq!(head, [0x82, 4]);
    assert_eq!(server.handle_written(3, &head), 1);
    server.handle_bytes(&mut masked(0x89, b"p"));
    assert!(!server.wants_send(), "a frame is under way");
    // More has come to wait, but the frame is as long as it was said to be.
    assert_eq!(server.poll_send(9, &mut head), 3);
    assert_eq!(head, []);
    assert_eq!(server.handle_written(3, &head), 3);
    assert!(server.wants_send());
    assert_eq!(server.poll_send(6, &mut head), 6);
    assert_eq!(head, [0x8a, 1, b'p', 0x82, 6]);
}

#[test]
fn pings_to_one_who_never_reads_take_no_memory() {
    for waiting in [0, 1] {
        let mut server = open();
        let mut head = Vec::new();
        for _ in 0..1000 {
            server.handle_bytes(&mut masked(0x89, &[0; 125]));
            server.poll_send(waiting, &mut head);
            server.handle_written(0, &head);
            assert!((1..=127 + 2).contains(&head.len()), "{}", head.len());
        }
    }
}

#[test]
fn no_mqtt_follows_our_close_frame() {
    let mut server = open();
    let mut head = Vec::new();
    server.close(close_code::NORMAL);
    assert_eq!(server.poll_send(0, &mut head), 0);
    server.handle_written(head.len(), &head);
    assert_eq!(server.poll_send(5, &mut head), 0);
    assert_eq!(head, []);
}
