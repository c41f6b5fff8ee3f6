//! Bytes per subscription and per retained message, counted by the allocator.
#![allow(unsafe_code, reason = "counting bytes needs a global allocator, which is an unsafe trait")]
#![allow(clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicIsize, Ordering};

use triomphe::ThinArc;
use whimbrel_topics::{HasTopic, Retained, Routes, SessionRef, SubscriptionOptions};

struct Counting;

static LIVE_BYTES: AtomicIsize = AtomicIsize::new(0);

/// What the allocator of glibc takes: a header of 8 bytes, rounded up to 16, at least 32.
fn taken(size: usize) -> isize {
    (size + 8).next_multiple_of(16).max(32) as isize
}

// SAFETY: everything is passed on to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE_BYTES.fetch_add(taken(layout.size()), Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        LIVE_BYTES.fetch_sub(taken(layout.size()), Ordering::Relaxed);
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LIVE_BYTES.fetch_add(taken(size) - taken(layout.size()), Ordering::Relaxed);
        unsafe { System.realloc(ptr, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn live() -> isize {
    LIVE_BYTES.load(Ordering::Relaxed)
}

struct Message(ThinArc<(), u8>);

impl Message {
    fn new(topic: &str) -> Self {
        Self(ThinArc::from_header_and_slice((), topic.as_bytes()))
    }
}

impl HasTopic for Message {
    fn topic(&self) -> &str {
        std::str::from_utf8(&self.0.slice).unwrap()
    }

    fn topic_bytes(&self) -> &[u8] {
        &self.0.slice
    }
}

const COUNT: u32 = 100_000;

fn filters() -> impl Iterator<Item = (u32, String)> {
    (0..COUNT).map(|i| match i % 10 {
        0..7 => (i, format!("cmd/{i}")),
        _ => (i, format!("dev/{i}/+/x")),
    })
}

fn per(bytes: isize) -> f64 {
    bytes as f64 / f64::from(COUNT)
}

/// One test, because the count is of the whole process.
#[test]
fn bytes_each() {
    subscriptions(&filters().collect::<Vec<_>>());
    subscriptions(&(0..COUNT).map(|i| (i, "same/for/all".into())).collect::<Vec<_>>());
    subscriptions(&(0..COUNT).map(|i| (i, format!("two/{}", i / 2))).collect::<Vec<_>>());
    retained();
}

fn subscriptions(filters: &[(u32, String)]) {
    let routes = Routes::with_seed(1);
    let empty = live();
    for (session, filter) in filters {
        let who = SessionRef { shard: (session % 2) as u16, session: *session };
        routes.subscribe(filter, None, who, SubscriptionOptions::default());
    }
    let each = per(live() - empty);
    println!("{each:.0} B per subscription like {}", filters.last().unwrap().1);
    assert!(each <= 150.0, "{each} B per subscription");
    for (session, filter) in filters {
        let who = SessionRef { shard: (session % 2) as u16, session: *session };
        assert!(routes.unsubscribe(filter, None, who));
    }
    // Memory follows what is live.
    let left = live() - empty;
    assert!(left < 20_000, "{left} B left");
}

fn retained() {
    for (order, step) in [("ascending", 1), ("random", 7_919)] {
        let mut retained = Retained::new();
        let topic = |i: u32| format!("retained/{:06}/state", u64::from(i) * step % 100_000);
        let messages: Vec<Message> = (0..COUNT).map(|i| Message::new(&topic(i))).collect();
        let without = live() - taken(messages.capacity() * size_of::<Message>());
        for message in messages {
            retained.insert(message);
        }
        let each = per(live() - without);
        println!("{each:.0} B per retained message in {order} order, beyond the message");
        assert!(each <= 60.0, "{each} B per retained message");
        let mut found = 0;
        let _ = retained.for_each_match("#", &mut |_| {
            found += 1;
            ControlFlow::Continue(())
        });
        assert_eq!(found, COUNT);
    }
}
