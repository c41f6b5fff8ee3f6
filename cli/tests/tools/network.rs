//! Ways to the broker, and what becomes of them.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;

use crate::broker::Broker;
use crate::tool::{on, run, start, start_on, subscribed};

fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    (listener, port)
}

/// A broker that answers one CONNECT of 5.0 with this reason code.
fn connack(listener: &TcpListener, reason: u8) -> TcpStream {
    let (mut stream, _) = listener.accept().unwrap();
    let mut buffer = [0; 1024];
    assert!(stream.read(&mut buffer).unwrap() > 0);
    stream.write_all(&[0x20, 3, 0, reason, 0]).unwrap();
    stream
}

#[test]
fn lines_are_published_over_a_connection_that_was_lost() {
    let broker = Broker::start();
    let sub = subscribed(&broker, &["-t", "a", "-q", "1", "-C", "2"]);
    let words = ["-d", "-t", "a", "-l", "-q", "1", "-i", "same"];
    let mut lines = start_on(&broker, "pub", &words);
    lines.write(b"1\n");
    lines.wait_for("PUBLISH acknowledged");
    // Debian's mosquitto closes the older connection without a DISCONNECT.
    on(&broker, "sub", &["-t", "b", "-i", "same", "-E"]).ok();
    lines.wait_for("connecting again");
    lines.write(b"2\n");
    lines.done().ok();
    assert_eq!(sub.done().ok(), "1\n2\n");
}

#[test]
fn a_broker_that_refuses_later_ends_the_tool_with_its_code() {
    let (listener, port) = listener();
    let words = ["-V", "5", "-p", &port, "-t", "a"];
    for (tool, more) in [("pub", "-l"), ("sub", "-v")] {
        let tool = start(tool, &[&words[..], &[more]].concat());
        drop(connack(&listener, 0));
        let refused = connack(&listener, 0x87);
        let done = tool.ended();
        assert_eq!(done.code, Some(135), "{done:?}");
        assert!(done.stderr.contains("not authorized"), "{done:?}");
        drop(refused);
    }
}

#[test]
fn one_message_is_not_tried_for_ever() {
    let (listener, port) = listener();
    let publish = start("pub", &["-V", "5", "-p", &port, "-t", "a", "-m", "x", "-q", "1"]);
    drop(connack(&listener, 0));
    let done = publish.done();
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.stderr.contains("the connection was lost"), "{done:?}");
}

#[test]
fn the_address_to_connect_from_may_be_chosen() {
    let (listener, port) = listener();
    let publish = start("pub", &["-p", &port, "-t", "a", "-m", "x", "-A", "127.0.0.9"]);
    let (_, from) = listener.accept().unwrap();
    assert_eq!(from.ip().to_string(), "127.0.0.9");
    publish.done();
}

/// A SOCKS5 proxy for one connection (RFC 1928, RFC 1929) that knows one name; gives what the
/// client had to say.
fn proxy(listener: TcpListener, port: u16, with_password: bool) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut said = Vec::new();
        let mut read = |client: &mut TcpStream, len: usize| {
            let mut bytes = vec![0; len];
            client.read_exact(&mut bytes).unwrap();
            said.extend_from_slice(&bytes);
            bytes
        };
        let methods = read(&mut client, 2)[1];
        read(&mut client, methods.into());
        if with_password {
            client.write_all(&[5, 2]).unwrap();
            let len = read(&mut client, 2)[1];
            read(&mut client, len.into());
            let len = read(&mut client, 1)[0];
            read(&mut client, len.into());
            client.write_all(&[1, 0]).unwrap();
        } else {
            client.write_all(&[5, 0]).unwrap();
        }
        let len = read(&mut client, 5)[4];
        read(&mut client, usize::from(len) + 2);
        client.write_all(&[5, 0, 0, 1, 127, 0, 0, 1, 0, 0]).unwrap();
        let mut broker = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (mut from, mut to) = (broker.try_clone().unwrap(), client.try_clone().unwrap());
        let back = std::thread::spawn(move || std::io::copy(&mut from, &mut to));
        // Whoever closes first ends it.
        let _ = std::io::copy(&mut client, &mut broker);
        let _ = broker.shutdown(std::net::Shutdown::Both);
        let _ = back.join().unwrap();
        said
    })
}

#[test]
fn a_proxy_is_asked_for_the_broker_by_name() {
    let broker = Broker::start();
    for (user, with_password) in [("", false), ("us%40er:p@", true)] {
        let sub = subscribed(&broker, &["-t", "a", "-C", "1"]);
        let (listener, port) = listener();
        let proxy = proxy(listener, broker.port, with_password);
        let url = format!("socks5h://{user}127.0.0.1:{port}");
        let words = ["-h", "broker.example", "-p", "99", "--proxy", &url, "-t", "a", "-m", "x"];
        run("pub", &words).ok();
        assert_eq!(sub.done().ok(), "x\n");
        let said = proxy.join().unwrap();
        assert!(said.ends_with(b"\x03\x0ebroker.example\0\x63"), "{said:?}");
        let login = said.windows(9).any(|part| part == b"\x01\x05us@er\x01p");
        assert_eq!(login, with_password, "{said:?}");
    }
    let (_, port) = listener();
    let url = format!("socks5h://127.0.0.1:{port}");
    run("pub", &["--proxy", &url, "-t", "a", "-m", "x"]).fails(1, &format!("127.0.0.1:{port}"));
    run("pub", &["--proxy", "http://p", "-t", "a", "-m", "x"]).fails(1, "socks5h://");
}

#[test]
fn options_from_a_file_come_before_those_of_the_command_line() {
    let broker = Broker::start();
    let dir = std::env::temp_dir().join(format!("whimbrel-defaults-{}", std::process::id()));
    std::fs::create_dir_all(dir.join("whimbrel")).unwrap();
    let file = dir.join("whimbrel/pub");
    let text = format!("# mine\n-p {}\n-t a\n-q 2\n-m from the file\n", broker.port);
    std::fs::write(&file, text).unwrap();
    let sub = subscribed(&broker, &["-t", "a", "-q", "2", "-C", "2", "-F", "%q %p"]);
    let publish = |words: &[&str]| {
        std::process::Command::new(env!("CARGO_BIN_EXE_whimbrel"))
            .arg("pub")
            .args(words)
            .env("XDG_CONFIG_HOME", &dir)
            .output()
            .unwrap()
    };
    assert!(publish(&[]).status.success());
    assert!(publish(&["-q", "1"]).status.success());
    assert_eq!(sub.done().ok(), "2 from the file\n1 from the file\n");
    let wrong = publish(&["--frobnicate"]);
    let error = String::from_utf8(wrong.stderr).unwrap();
    assert!(error.trim_end().ends_with(&format!("and {}", file.display())), "{error}");
    std::fs::remove_dir_all(dir).unwrap();
}
