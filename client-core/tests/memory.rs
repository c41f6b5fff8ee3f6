//! What a client takes from the allocator: nothing while it is idle, nothing for a message once it
//! runs, and nothing at all where memory is lent.
#![cfg(feature = "alloc")]
#![expect(unsafe_code, reason = "an allocator that counts is an unsafe trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use whimbrel_client_core::{ArrivalSlot, Client, Event, Limits, Memory, Millis};
use whimbrel_codec::{Ack, Connect, Packet, PacketId, Publish, QoS, SliceSink, Version};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
    static BYTES: Cell<isize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator as it is; the counters are plain cells.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        BYTES.set(BYTES.get() + layout.size() as isize);
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES.set(BYTES.get() - layout.size() as isize);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const NOW: Millis = Millis(0);

/// Packets of the server, without an allocator.
fn receive(client: &mut Client<'_>, packets: &[Packet<'_>]) {
    let mut bytes = [0; 1024];
    let mut sink = SliceSink::new(&mut bytes);
    packets.iter().for_each(|packet| packet.encode(Version::V5, &mut sink).expect("room"));
    assert_eq!(client.handle_bytes(NOW, sink.written()), sink.written().len());
}

fn drain(client: &mut Client<'_>) -> usize {
    let mut events = 0;
    while let Some(event) = client.poll_event() {
        assert!(!matches!(event, Event::Failed(_)), "{event:?}");
        events += 1;
    }
    while let Some(len) = client.poll_transmit().map(<[u8]>::len) {
        client.handle_transmitted(NOW, len);
    }
    events
}

fn connect(client: &mut Client<'_>) {
    let connect = Connect { keep_alive_s: 60, ..Connect::new(Version::V5, "c") };
    client.connect(NOW, &connect).expect("a CONNECT");
    drain(client);
    client.handle_bytes(NOW, &[0x20, 3, 0, 0, 0]);
    assert_eq!(drain(client), 1);
}

/// Eight messages of each QoS out, and as many in.
fn turn(client: &mut Client<'_>) {
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let message = Publish { qos, ..Publish::new("a/b", &[7; 100]) };
        for _ in 0..8 {
            let id = client.publish(&message).expect("room");
            drain(client);
            let Some(id) = id else { continue };
            if qos == QoS::AtLeastOnce {
                receive(client, &[Packet::PubAck(Ack::new(id))]);
                assert_eq!(drain(client), 1);
            } else {
                receive(client, &[Packet::PubRec(Ack::new(id)), Packet::PubComp(Ack::new(id))]);
                assert_eq!(drain(client), 2);
            }
        }
        for n in 1..=8 {
            let id = PacketId::new(n).filter(|_| qos != QoS::AtMostOnce);
            receive(client, &[Packet::Publish(Publish { packet_id: id, ..message })]);
            assert_eq!(drain(client), 1);
            if let Some(id) = id.filter(|_| qos == QoS::ExactlyOnce) {
                receive(client, &[Packet::PubRel(Ack::new(id))]);
                assert_eq!(drain(client), 1);
            }
        }
    }
}

/// Allocations while `run` runs.
fn allocations(run: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    run();
    ALLOCATIONS.get() - before
}

#[test]
fn a_message_costs_no_allocation() {
    let mut client = Client::new(Limits::default());
    connect(&mut client);
    turn(&mut client);
    assert_eq!(allocations(|| (0..50).for_each(|_| turn(&mut client))), 0);
}

#[test]
fn an_idle_client_holds_no_memory() {
    let before = BYTES.get();
    let mut client = Client::new(Limits::default());
    assert_eq!(BYTES.get(), before);
    connect(&mut client);
    turn(&mut client);
    assert!(BYTES.get() > before);
    // A ping is due: nothing has happened for a while.
    client.handle_timeout(client.poll_timeout().expect("a keep alive"));
    assert_eq!(drain(&mut client), 0);
    let held = BYTES.get() - before;
    assert!(held <= 16, "{held} bytes");
    client.release_memory();
    assert_eq!(BYTES.get(), before);
    // And it goes on.
    receive(&mut client, &[Packet::PingResp]);
    drain(&mut client);
    turn(&mut client);
}

#[test]
fn lent_memory_is_all_there_is() {
    let used = allocations(|| {
        let (mut input, mut output) = ([0; 256], [0; 256]);
        let (mut in_flight, mut outgoing) = ([0; 256], [None; 4]);
        let (mut incoming, mut arrivals) = ([0; 8], [ArrivalSlot::EMPTY; 8]);
        let memory = Memory {
            input: &mut input,
            output: &mut output,
            in_flight: &mut in_flight,
            outgoing: &mut outgoing,
            incoming: &mut incoming,
            arrivals: &mut arrivals,
            ..Memory::default()
        };
        let mut client = Client::with_memory(memory, Limits::default());
        connect(&mut client);
        (0..50).for_each(|_| turn(&mut client));
    });
    assert_eq!(used, 0);
}

/// Whoever has a thousand clients counts on it.
#[test]
fn the_client_itself_is_small() {
    let size = size_of::<Client<'_>>();
    assert!(size <= 800, "{size} bytes");
}
