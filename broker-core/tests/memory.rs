//! What a session costs, measured as resident memory. The bounds leave room for how the allocator
//! rounds; `examples/million_sessions.rs` gives the figures of a million.

#[allow(dead_code, reason = "an example has a main")]
#[path = "../examples/million_sessions.rs"]
mod sessions;

use sessions::{Kind, run};

/// One test alone in its process, so that nobody else's memory is measured.
#[test]
fn a_session_is_small() {
    let kinds = [(Kind::Idle, 400), (Kind::Subscribed, 600), (Kind::Offline, 450)];
    // Kept until the end: memory given back would make the next look small.
    let mut shards = Vec::new();
    for (kind, most) in kinds {
        let (bytes, _, shard) = run(kind, 20_000);
        println!("{kind:?}: {bytes} bytes");
        assert!((100..most).contains(&bytes), "{kind:?}: {bytes} bytes, not below {most}");
        shards.push(shard);
    }
}
