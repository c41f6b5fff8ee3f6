//! The broker as a process: how it starts, is steered, and stops; what its sockets do.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

mod support;

use support::{
    Broker, Client, PATIENCE, connect, new_folder, outcome, publish, publish_qos1, subscribe,
    whimbrel,
};

#[test]
fn says_where_it_listens() {
    let broker = Broker::with_flags(&[]);
    let address = broker.address("tcp");
    let version = env!("CARGO_PKG_VERSION");
    let summary = format!(
        "whimbrel {version}: mqtt://{address}; anonymous, loopback only, everything in memory"
    );
    assert_eq!(broker.lines, [format!("listening tcp {address}"), summary, "ready".into()]);
    broker.tcp().connect("one");
}

#[test]
fn an_occupied_port_ends_it_with_one_line_and_code_2() {
    let occupied = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = occupied.local_addr().unwrap();
    let port = address.port().to_string();
    let (code, out, err) = outcome(&mut whimbrel(&["--port", &port, "--no-websocket"]));
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert_eq!(
        err,
        format!(
            "Error: flag --port: cannot listen on tcp {address}: the address is already in use; \
             stop the program that has it or choose another\n"
        )
    );
}

#[test]
fn a_fault_of_the_configuration_ends_it_with_one_line_and_code_2() {
    let file = new_folder().join("b.toml");
    let name = file.display().to_string();
    for (text, expected) in [
        ("\nshard = 1\n", ":2: unknown key `shard`; did you mean `shards`?"),
        (
            "[[listener]]\ntype = \"tcp\"\nbind = \"0.0.0.0:0\"\n",
            ":1: listener tcp 0.0.0.0:0 is open to the network without authentication; name a \
             `password_file` or another way of authentication, bind it to a loopback address, or \
             write `allow_anonymous = true`",
        ),
        (
            "durability = \"hope\"",
            ":1: key `durability` must be one of \"fsync\", \"os\", \"memory\", not \"hope\"",
        ),
    ] {
        std::fs::write(&file, text).unwrap();
        let (code, out, err) = outcome(&mut whimbrel(&["--config", &name]));
        assert_eq!((code, out.as_str()), (Some(2), ""), "{text}");
        assert_eq!(err, format!("Error: {name}{expected}\n"));
    }
    std::fs::remove_dir_all(file.parent().unwrap()).unwrap();
}

#[test]
fn the_printed_configuration_is_a_file_that_gives_the_same() {
    let flags = ["--print-config", "--max-inflight", "7", "--client-state-messages"];
    let (code, printed, err) =
        outcome(whimbrel(&flags).env("WHIMBREL_MAX_INFLIGHT", "9").env("WHIMBREL_SHARDS", "3"));
    assert_eq!((code, err.as_str()), (Some(0), ""));
    for line in ["max_inflight = 7", "shards = 3", "client_state_messages = true"] {
        assert!(printed.lines().any(|l| l == line), "{line} is missing in\n{printed}");
    }
    let file = new_folder().join("b.toml");
    std::fs::write(&file, &printed).unwrap();
    let again = outcome(&mut whimbrel(&["--print-config", "--config", file.to_str().unwrap()]));
    assert_eq!(again, (Some(0), printed, String::new()));
    std::fs::remove_dir_all(file.parent().unwrap()).unwrap();
}

#[test]
fn sigterm_tells_the_clients_and_ends_with_code_0() {
    let mut broker = Broker::with_flags(&["--shards", "2"]);
    let mut clients: Vec<_> = (0..8)
        .map(|n| {
            let mut client = broker.tcp();
            client.connect(&format!("client {n}"));
            client
        })
        .collect();
    broker.signal("TERM");
    for client in &mut clients {
        let disconnect = client.packet();
        assert_eq!((disconnect[0], disconnect[2]), (0xe0, 0x8b), "DISCONNECT, shutting down");
        assert!(client.is_closed());
    }
    drop(clients);
    assert_eq!(broker.wait(), Some(0));
}

#[test]
fn sigterm_does_not_wait_long_for_one_who_stays() {
    let mut broker = Broker::with_flags(&[]);
    let mut client = broker.tcp();
    client.connect("stays");
    let begin = Instant::now();
    broker.signal("INT");
    assert_eq!(broker.wait(), Some(0));
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_second_signal_ends_it_at_once_with_code_1() {
    let mut broker = Broker::with_flags(&[]);
    let mut client = broker.tcp();
    client.connect("stays");
    let begin = Instant::now();
    broker.signal("TERM");
    assert_eq!(client.packet()[0], 0xe0, "DISCONNECT: the first signal was taken");
    broker.signal("INT");
    assert_eq!(broker.wait(), Some(1));
    assert!(begin.elapsed() < Duration::from_secs(1));
}

const LIMIT: &str = "[limits]\nmax_packet_size_bytes = ";
const LISTENER: &str = "\n[[listener]]\ntype = \"tcp\"\nbind = \"127.0.0.1:0\"\n";

/// The maximum packet size that CONNACK tells.
fn told_max_packet_size(broker: &Broker) -> u32 {
    let connack = broker.tcp().connect("asks");
    let at = connack.iter().skip(5).position(|byte| *byte == 0x27).unwrap() + 6;
    u32::from_be_bytes(connack[at..at + 4].try_into().unwrap())
}

#[test]
fn sighup_puts_new_limits_in_force_and_a_bad_file_changes_nothing() {
    let broker = Broker::with_file(&format!("{LIMIT}1000{LISTENER}"));
    assert_eq!(told_max_packet_size(&broker), 1000);
    broker.reload(&format!("{LIMIT}2000{LISTENER}"));
    let begin = Instant::now();
    while told_max_packet_size(&broker) != 2000 {
        assert!(begin.elapsed() < PATIENCE, "the new limit never came");
        std::thread::sleep(Duration::from_millis(20));
    }
    broker.reload("nonsense = 1\n");
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(told_max_packet_size(&broker), 2000);
}

#[test]
fn unix_socket() {
    let mut broker = Broker::with_file(
        "shards = 2\n[[listener]]\ntype = \"unix\"\npath = \"{folder}/mqtt.sock\"\n",
    );
    let path = broker.address("unix");
    for n in 0..4 {
        let stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut client = Client(stream);
        client.connect(&format!("unix {n}"));
        client.subscribe("a");
        client.send(&publish("a", b"over a file"));
        assert!(client.packet().ends_with(b"over a file"));
    }
    broker.signal("TERM");
    assert_eq!(broker.wait(), Some(0));
    assert!(!std::path::Path::new(&path).exists(), "the file is removed");
}

const WEBSOCKET: &str = "shards = 2\n[limits]\nconnect_timeout_s = 1\n\n[[listener]]\n\
                         type = \"websocket\"\nbind = \"127.0.0.1:0\"\npath = \"/x\"\n";

fn websocket(broker: &Broker) -> TcpStream {
    let address = broker.address("websocket");
    let stream = TcpStream::connect(address.strip_suffix("/x").unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// A binary frame of a client; the mask of zeros leaves the payload as it is.
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    [&[0x80 | opcode, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat()
}

/// The next frame of the server: its opcode and payload.
fn read_frame(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut head = [0; 2];
    stream.read_exact(&mut head).unwrap();
    let mut payload = vec![0; usize::from(head[1])];
    stream.read_exact(&mut payload).unwrap();
    (head[0] & 0xf, payload)
}

#[test]
fn websocket_with_torn_frames_pings_and_close() {
    let broker = Broker::with_file(WEBSOCKET);
    for n in 0..4 {
        let mut stream = websocket(&broker);
        let mut bytes = b"GET /x HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\
            Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
            Sec-WebSocket-Protocol: mqtt\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            .to_vec();
        for byte in connect(&format!("ws {n}")) {
            bytes.extend(frame(2, &[byte]));
        }
        bytes.extend(frame(2, &subscribe("a")));
        bytes.extend(frame(9, b"ping"));
        for part in bytes.chunks(7) {
            stream.write_all(part).unwrap();
        }
        let mut response = Vec::new();
        while !response.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            response.push(byte[0]);
        }
        assert!(response.starts_with(b"HTTP/1.1 101 "));
        let (mut mqtt, mut pong) = (Vec::new(), None);
        while pong.is_none() || !mqtt.windows(2).any(|pair| pair == [0x90, 4]) {
            match read_frame(&mut stream) {
                (2, payload) => mqtt.extend(payload),
                (10, payload) => pong = Some(payload),
                (other, _) => panic!("a frame of type {other}"),
            }
        }
        assert_eq!(pong.unwrap(), b"ping");
        stream.write_all(&frame(2, &publish("a", b"framed"))).unwrap();
        let (opcode, payload) = read_frame(&mut stream);
        assert_eq!(opcode, 2);
        assert!(payload.ends_with(b"framed"));
        stream.write_all(&frame(8, &1000u16.to_be_bytes())).unwrap();
        assert_eq!(read_frame(&mut stream), (8, 1000u16.to_be_bytes().to_vec()));
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    }
}

#[test]
fn websocket_refuses_another_path_and_one_who_never_asks() {
    let broker = Broker::with_file(WEBSOCKET);
    let mut silent = websocket(&broker);
    let mut stream = websocket(&broker);
    stream.write_all(b"GET /y HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    assert!(response.starts_with("HTTP/1.1 404 "), "{response}");
    assert_eq!(silent.read(&mut [0]).unwrap(), 0);
}

#[test]
fn one_who_never_sends_connect_is_closed_in_time() {
    let broker = Broker::with_flags(&["--connect-timeout-s", "1"]);
    let begin = Instant::now();
    let mut silent = broker.tcp();
    let mut half = broker.tcp();
    half.send(&connect("half")[..9]);
    let mut whole = broker.tcp();
    whole.connect("whole");
    assert!(silent.is_closed() && half.is_closed());
    assert!(begin.elapsed() > Duration::from_millis(900), "closed too early");
    assert!(begin.elapsed() < Duration::from_secs(5), "closed too late");
    whole.send(&[0xc0, 0]);
    assert_eq!(whole.packet(), [0xd0, 0], "PINGRESP: it stays");
}

#[test]
fn clients_reach_their_home_shard_with_all_they_sent() {
    let broker = Broker::with_flags(&["--shards", "4"]);
    let mut clients = Vec::new();
    for n in 0..64 {
        let mut client = broker.tcp();
        if n % 2 == 0 {
            // The socket is accepted, and watched, before the CONNECT comes.
            std::thread::sleep(Duration::from_millis(2));
        }
        let (name, topic) = (format!("client {n}"), format!("to/{n}"));
        let all = [connect(&name), subscribe(&topic), subscribe("to/all")].concat();
        if n % 3 == 0 {
            let (front, back) = all.split_at(all.len() - 9);
            client.send(front);
            client.send(back);
        } else {
            client.send(&all);
        }
        clients.push(client);
    }
    for client in &mut clients {
        assert_eq!(client.packet()[0], 0x20, "CONNACK");
        assert_eq!(client.packet()[0], 0x90, "SUBACK");
        assert_eq!(client.packet()[0], 0x90, "SUBACK");
    }
    let mut publisher = broker.tcp();
    publisher.connect("publisher");
    for n in 0..64 {
        publisher.send(&publish(&format!("to/{n}"), format!("for {n}").as_bytes()));
    }
    publisher.send(&publish("to/all", b"for all"));
    for (n, client) in clients.iter_mut().enumerate() {
        assert!(client.packet().ends_with(format!("for {n}").as_bytes()));
        assert!(client.packet().ends_with(b"for all"));
    }
}

#[test]
fn many_connections_at_once() {
    let broker = Broker::with_flags(&["--shards", "2"]);
    let mut clients: Vec<_> = (0..500).map(|_| broker.tcp()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(&[connect(&format!("c{n}")), subscribe("news")].concat());
    }
    for client in &mut clients {
        assert_eq!(client.packet()[0], 0x20);
        assert_eq!(client.packet()[0], 0x90);
    }
    clients[0].send(&publish("news", b"to everybody"));
    for client in &mut clients {
        assert!(client.packet().ends_with(b"to everybody"));
    }
}

#[test]
fn a_message_of_a_mebibyte() {
    let broker = Broker::with_flags(&["--shards", "2"]);
    let payload: Vec<u8> = (0..1 << 20).map(|n: u32| (n % 251) as u8).collect();
    for n in 0..4 {
        let (mut subscriber, mut publisher) = (broker.tcp(), broker.tcp());
        subscriber.connect(&format!("subscriber {n}"));
        subscriber.subscribe("big");
        publisher.connect(&format!("publisher {n}"));
        publisher.send(&publish_qos1("big", &payload));
        assert_eq!(publisher.packet()[0], 0x40, "PUBACK");
        let received = subscriber.packet();
        assert_eq!(received[0], 0x32);
        assert!(received.ends_with(&payload));
    }
}

#[test]
fn a_slow_reader_does_not_disturb_its_neighbours() {
    let broker = Broker::with_flags(&["--shards", "1", "--max-output-bytes", "100000"]);
    let (mut slow, mut fast, mut publisher) = (broker.tcp(), broker.tcp(), broker.tcp());
    slow.connect("slow");
    slow.subscribe("flow");
    fast.connect("fast");
    fast.subscribe("flow");
    publisher.connect("publisher");
    let payload = vec![b'x'; 65_000];
    let begin = Instant::now();
    for n in 0..400 {
        publisher.send(&publish("flow", &payload));
        assert!(fast.packet().ends_with(&payload), "message {n}");
    }
    assert!(begin.elapsed() < PATIENCE);
    // The slow one lost some but is still there, and in step.
    publisher.send(&publish("flow", b"last"));
    let mut received = 0;
    slow.send(&[0xc0, 0]);
    while slow.packet()[0] != 0xd0 {
        received += 1;
    }
    assert!((1..400).contains(&received), "{received}");
}

#[test]
fn a_full_mailbox_slows_the_sender_and_loses_nothing() {
    let broker = Broker::with_flags(&["--shards", "2", "--max-mailbox-bytes", "1024"]);
    let mut subscribers: Vec<_> = (0..8).map(|_| broker.tcp()).collect();
    for (n, subscriber) in subscribers.iter_mut().enumerate() {
        subscriber.connect(&format!("subscriber {n}"));
        subscriber.subscribe("flow");
    }
    let mut publishers: Vec<_> = (0..8).map(|_| broker.tcp()).collect();
    for (n, publisher) in publishers.iter_mut().enumerate() {
        publisher.connect(&format!("publisher {n}"));
    }
    std::thread::scope(|scope| {
        for (n, publisher) in publishers.iter_mut().enumerate() {
            scope.spawn(move || {
                for count in 0..500u16 {
                    let [high, low] = count.to_be_bytes();
                    let payload = [&[b'x'; 100][..], &[n as u8, high, low]].concat();
                    publisher.send(&publish("flow", &payload));
                }
            });
        }
        for subscriber in &mut subscribers {
            scope.spawn(move || {
                let mut next = [0u16; 8];
                for _ in 0..8 * 500 {
                    let packet = subscriber.packet();
                    let [.., n, high, low] = packet[..] else { panic!("a short packet") };
                    assert_eq!(u16::from_be_bytes([high, low]), next[usize::from(n)], "order");
                    next[usize::from(n)] += 1;
                }
            });
        }
    });
}

#[test]
fn one_with_too_many_open_files_goes_on_when_some_are_closed() {
    let command = "ulimit -n 60; exec \"$0\" \"$@\"";
    let broker = Broker::under_shell(command, &["--shards", "1"]);
    let mut clients: Vec<_> = (0..100).map(|_| broker.tcp()).collect();
    clients[0].connect("first");
    for (n, client) in clients.iter_mut().enumerate().skip(1) {
        client.send(&connect(&format!("c{n}")));
    }
    std::thread::sleep(Duration::from_millis(300));
    clients[0].send(&[0xc0, 0]);
    assert_eq!(clients[0].packet(), [0xd0, 0], "PINGRESP: those who are there are served");
    let mut last = clients.pop().unwrap();
    drop(clients);
    assert_eq!(last.packet()[0], 0x20, "CONNACK, once there is room");
}
