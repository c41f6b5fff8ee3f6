//! MQTT over WebSocket (section 6); skipped where the broker is reached in another way.

use super::prelude::*;

pub const TESTS: &[Test] = &[
    both("a_text_frame_closes", &["MQTT-6.0.0-1"], &["MQTT-6.0.0-1"], |t| {
        let mut c = t.connect()?;
        need(c.send_text(&[0xc0, 0]), "WebSocket here")?;
        c.expect_closed()?;
        check(!c.has(PacketType::PingResp), "a text frame was taken for packets")
    }),
    both(
        "frames_need_not_align_with_packets",
        &["MQTT-6.0.0-2", "MQTT-6.0.0-4"],
        &["MQTT-6.0.0-2", "MQTT-6.0.0-4"],
        |t| {
            let mut c = t.connect()?;
            need(c.has_frames(), "WebSocket here")?;
            let topic = t.topic("a");
            c.subscribe(&topic, AtMostOnce)?;
            let publish = raw::publish(t.version, topic.as_bytes(), &[], b"x");
            // Two packets and a half in a frame, then the other half.
            let (half, rest) = publish.split_at(publish.len() / 2);
            c.send_raw(&[&publish, &publish, half].concat());
            c.send_raw(rest);
            for _ in 0..3 {
                c.expect_payload("x")?;
            }
            c.expect_nothing()
        },
    ),
];
