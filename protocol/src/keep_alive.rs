//! Keep alive (section 3.1.2.10).

/// When a server must give a client up: one and a half times the keep alive after its last packet
/// `[MQTT-3.1.2-22]`. None for keep alive 0. Times in milliseconds.
pub const fn keep_alive_deadline_ms(last_packet_ms: u64, keep_alive_s: u16) -> Option<u64> {
    if keep_alive_s == 0 { None } else { Some(last_packet_ms + keep_alive_s as u64 * 1500) }
}
