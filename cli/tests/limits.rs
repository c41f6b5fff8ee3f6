//! Limits that hold under attack, over real sockets.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[allow(dead_code)]
mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use support::{Broker, PATIENCE, connect, publish, publish_qos1};

/// A broker on any port with these tables.
fn broker(rest: &str) -> Broker {
    let listener = "[[listener]]\ntype = \"tcp\"\nbind = \"127.0.0.1:0\"\n";
    Broker::with_file(&format!("{rest}\n{listener}"))
}

/// Whether a new connection is closed or reset before it is answered.
fn is_turned_away(broker: &Broker) -> bool {
    let mut stream = TcpStream::connect(broker.address("tcp")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // It may be closed already.
    let _ = stream.write_all(&connect("turned away"));
    match stream.read(&mut [0; 16]) {
        Ok(n) => n == 0,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            true
        }
    }
}

#[test]
fn an_address_has_so_many_connections_and_gets_its_place_back() {
    let broker = broker("[[limit]]\nper = \"address\"\nmax_connections = 3");
    let mut clients: Vec<_> = (0..3).map(|_| broker.tcp()).collect();
    for (at, client) in clients.iter_mut().enumerate() {
        client.connect(&format!("c{at}"));
    }
    assert!(is_turned_away(&broker));
    let mut gone = clients.pop().unwrap();
    gone.send(&[0xe0, 0]);
    assert!(gone.is_closed());
    let begin = Instant::now();
    while is_turned_away(&broker) {
        assert!(begin.elapsed() < PATIENCE, "its place is not given back");
    }
}

#[test]
fn tables_change_on_sighup() {
    let table = |n: u32| {
        format!(
            "[[limit]]\nper = \"listener\"\nmax_connections = {n}\n\
             [[listener]]\ntype = \"tcp\"\nbind = \"127.0.0.1:0\"\n"
        )
    };
    let broker = Broker::with_file(&table(1));
    let mut client = broker.tcp();
    client.connect("c");
    assert!(is_turned_away(&broker));
    broker.reload(&table(2));
    let begin = Instant::now();
    while is_turned_away(&broker) {
        assert!(begin.elapsed() < PATIENCE, "the new table does not hold");
    }
}

/// Every message of a client beyond its rate arrives, later; a ping of somebody else is answered
/// long before.
#[test]
fn who_is_too_fast_is_held_back_and_nobody_else() {
    const MESSAGES: usize = 300;
    let table = "[[limit]]\nper = \"client\"\nclient_id = \"fast\"\nmax_messages_per_s = 100";
    let broker = broker(table);
    let mut subscriber = broker.tcp();
    subscriber.connect("subscriber");
    subscriber.subscribe("t");
    let mut fast = broker.tcp();
    fast.connect("fast");
    let begin = Instant::now();
    let all: Vec<u8> = (0..MESSAGES).flat_map(|at| publish("t", &[at as u8])).collect();
    fast.send(&all);
    // The first are here, so the others wait already.
    subscriber.packet();
    let mut other = broker.tcp();
    other.connect("other");
    let mut pings = 0;
    let mut last = vec![];
    for at in 1..MESSAGES {
        last = subscriber.packet();
        if at % 30 == 0 {
            other.send(&publish_qos1("elsewhere", b"x"));
            assert_eq!(other.packet()[0], 0x40, "PUBACK");
            pings += 1;
        }
    }
    assert_eq!(last.last(), Some(&((MESSAGES - 1) as u8)));
    assert_eq!(pings, 9);
    // A burst of 100, then 200 at 100 a second: never sooner.
    assert!(begin.elapsed() > Duration::from_millis(1900), "{:?}", begin.elapsed());
}

/// The kernel's buffers fill, and then the client itself is stopped.
#[test]
fn the_network_holds_back_who_sends_too_many_bytes() {
    let broker = broker("[[limit]]\nper = \"address\"\nmax_bytes_per_s = 100000");
    let mut client = broker.tcp();
    client.connect("c");
    client.0.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let message = publish("t", &[7; 60_000]);
    let mut sent = 0;
    // Far more than any buffers on the way hold.
    while sent < 200_000_000 {
        match client.0.write(&message) {
            Ok(n) => sent += n,
            Err(error) => {
                let kind = error.kind();
                assert!(matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut), "{kind}");
                return;
            }
        }
    }
    panic!("the broker took {sent} bytes");
}

#[test]
fn a_connect_byte_by_byte_is_too_late() {
    let broker = Broker::with_flags(&["--connect-timeout-s", "1"]);
    let mut slow = broker.tcp();
    slow.0.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let bytes = connect(&"x".repeat(200));
    for byte in bytes {
        if slow.0.write_all(&[byte]).is_err() || matches!(slow.0.read(&mut [0; 8]), Ok(0)) {
            return;
        }
    }
    panic!("it had all the time it wanted");
}

#[test]
fn connections_without_connect_make_room_for_others() {
    let broker = Broker::with_flags(&["--max-pending-connections", "4", "--shards", "1"]);
    let mut silent: Vec<_> = (0..10).map(|_| broker.tcp()).collect();
    for stream in silent.iter_mut().take(6) {
        assert!(stream.is_closed(), "the oldest go");
    }
    broker.tcp().connect("c");
}

#[test]
fn a_client_that_reads_nothing_is_closed() {
    let broker = Broker::with_flags(&["--max-blocked-s", "1"]);
    let mut dead = broker.tcp();
    dead.connect("dead");
    dead.subscribe("t");
    let mut publisher = broker.tcp();
    publisher.connect("publisher");
    let begin = Instant::now();
    // As long as it is there, somebody gets each message.
    loop {
        publisher.send(&publish_qos1("t", &[7; 100_000]));
        let puback = publisher.packet();
        assert_eq!(puback[0], 0x40, "PUBACK");
        // Reason code 0x10: no matching subscribers.
        if puback.get(4) == Some(&0x10) {
            break;
        }
        assert!(begin.elapsed() < Duration::from_secs(20), "it is still there");
    }
    assert!(begin.elapsed() > Duration::from_millis(900), "{:?}", begin.elapsed());
}
