//! The opening handshake, rule by rule, from both ends.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use whimbrel_transport::websocket::client::{self, Client, Failure};
use whimbrel_transport::websocket::server::{Config, Refusal, Server};
use whimbrel_transport::websocket::{End, close_code};

const REQUEST: &str = "GET /mqtt HTTP/1.1\r\nHost: broker\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";

fn server() -> Server {
    Server::new(Arc::new(Config::default()))
}

/// What the server answers to `request`, and why it refuses it.
fn ask(request: &str) -> (String, Option<End>) {
    let mut server = server();
    let mut bytes = request.as_bytes().to_vec();
    let received = server.handle_bytes(&mut bytes);
    assert_eq!(received.opened.is_some(), received.end.is_none());
    let end = received.end;
    let mut head = Vec::new();
    assert_eq!(server.poll_send(0, &mut head), 0);
    assert_eq!(server.handle_written(head.len(), &head), 0);
    assert!(!server.wants_send());
    (String::from_utf8(head).unwrap(), end)
}

#[track_caller]
fn refused(request: &str, refusal: Refusal, status: &str) -> String {
    let (response, end) = ask(request);
    assert_eq!(end, Some(End::Refused(refusal)));
    assert!(response.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{response}");
    assert!(response.contains("\r\nConnection: close"), "{response}");
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("\r\nContent-Length: {}", body.len())), "{response}");
    response
}

#[track_caller]
fn accepted(request: &str) -> String {
    let (response, end) = ask(request);
    assert_eq!(end, None);
    assert!(response.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{response}");
    response
}

#[test]
fn the_response_of_the_rfc() {
    assert_eq!(
        accepted(REQUEST),
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
         Sec-WebSocket-Protocol: mqtt\r\n\r\n"
    );
}

#[test]
fn names_and_tokens_in_any_case_and_in_lists() {
    accepted(&REQUEST.replace("Connection: Upgrade", "connection: keep-alive, uPGRADE"));
    accepted(&REQUEST.replace("Upgrade: websocket", "UPGRADE: h2c,\tWebSocket "));
    accepted(&REQUEST.replace("Host:", "hOST:"));
}

#[test]
fn the_query_and_the_uri_form_do_not_matter_to_the_path() {
    accepted(&REQUEST.replace("/mqtt ", "/mqtt?token=a/b://c "));
    accepted(&REQUEST.replace("/mqtt ", "http://broker:8083/mqtt?x "));
    for path in ["/", "/mqtt/", "/MQTT", "/mqtt2", "http://mqtt", "*", "/?/mqtt", "/?a://b/mqtt"] {
        let request = REQUEST.replace("/mqtt ", &format!("{path} "));
        refused(&request, Refusal::Path, "404 Not Found");
    }
}

#[test]
fn the_caller_learns_target_authorization_and_origin() {
    let request = REQUEST.replace("/mqtt ", "/mqtt?a=1 ").replace(
        "Host: broker\r\n",
        "Host: page.example\r\nAuthorization: Bearer abc\r\nOrigin: https://page.example\r\n",
    );
    let mut bytes = request.into_bytes();
    let opened = server().handle_bytes(&mut bytes).opened.unwrap();
    assert_eq!(&*opened.target, "/mqtt?a=1");
    assert_eq!(opened.authorization.as_deref(), Some("Bearer abc"));
    assert_eq!(opened.origin.as_deref(), Some("https://page.example"));
}

/// [MQTT-6.0.0-3] [MQTT-6.0.0-4]
#[test]
fn the_sub_protocol_is_mqtt() {
    let offer = |list: &str| REQUEST.replace("Protocol: mqtt\r", &format!("Protocol: {list}\r"));
    for (list, chosen) in [
        ("mqttv3.1", "mqttv3.1"),
        ("chat, mqtt", "mqtt"),
        ("mqttv3.1,mqtt", "mqtt"),
        ("chat\r\nSec-WebSocket-Protocol: mqtt", "mqtt"),
    ] {
        let response = accepted(&offer(list));
        assert!(response.contains(&format!("Sec-WebSocket-Protocol: {chosen}\r\n")), "{response}");
    }
    for list in ["chat", "MQTT", "mqtt5", "", "mqtt;q=1"] {
        refused(&offer(list), Refusal::SubProtocol, "400 Bad Request");
    }
    let none = REQUEST.replace("Sec-WebSocket-Protocol: mqtt\r\n", "");
    refused(&none, Refusal::SubProtocol, "400 Bad Request");
}

#[test]
fn another_version_is_told_which_one() {
    for version in ["12", "8", "130", "13, 8", ""] {
        let request = REQUEST.replace("Version: 13", &format!("Version: {version}"));
        let response = refused(&request, Refusal::WebSocketVersion, "426 Upgrade Required");
        assert!(response.contains("\r\nSec-WebSocket-Version: 13\r\n"), "{response}");
        assert!(response.contains("\r\nUpgrade: websocket\r\n"), "{response}");
    }
}

#[test]
fn a_plain_http_request_is_told_to_upgrade() {
    for request in [
        REQUEST.replace("Upgrade: websocket\r\n", ""),
        REQUEST.replace("Upgrade: websocket", "Upgrade: websocket2"),
        REQUEST.replace("Connection: Upgrade", "Connection: keep-alive"),
    ] {
        refused(&request, Refusal::NoUpgrade, "426 Upgrade Required");
    }
}

#[test]
fn keys_that_are_no_16_bytes() {
    for key in [
        "",
        "dGhl",
        "dGhlIHNhbXBsZSBub25jZQ",
        "!!!!IHNhbXBsZSBub25jZQ==",
        "dGhlIHNhbXBsZSBub25jZWE=",
    ] {
        let request = REQUEST.replace("dGhlIHNhbXBsZSBub25jZQ==", key);
        refused(&request, Refusal::Header("Sec-WebSocket-Key"), "400 Bad Request");
    }
}

#[test]
fn headers_that_are_missing_or_repeated() {
    let missing = REQUEST.replace("Host: broker\r\n", "");
    refused(&missing, Refusal::Header("Host"), "400 Bad Request");
    for (name, line) in [
        ("Host", "Host: other"),
        ("Sec-WebSocket-Key", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
        ("Authorization", "Authorization: a\r\nAuthorization: b"),
        ("Transfer-Encoding", "Transfer-Encoding: chunked"),
        ("Content-Length", "Content-Length: 5"),
    ] {
        let request = REQUEST.replace("\r\n\r\n", &format!("\r\n{line}\r\n\r\n"));
        refused(&request, Refusal::Header(name), "400 Bad Request");
    }
    accepted(&REQUEST.replace("\r\n\r\n", "\r\nContent-Length: 0\r\n\r\n"));
}

#[test]
fn other_methods_and_versions_of_http() {
    let response =
        refused(&REQUEST.replace("GET", "POST"), Refusal::Method, "405 Method Not Allowed");
    assert!(response.contains("\r\nAllow: GET\r\n"), "{response}");
    let status = "505 HTTP Version Not Supported";
    refused(&REQUEST.replace("HTTP/1.1", "HTTP/1.0"), Refusal::HttpVersion, status);
    refused("PRI * HTTP/2.0\r\n\r\n", Refusal::HttpVersion, status);
}

#[test]
fn what_is_no_http_is_refused_at_its_first_byte() {
    for first in ["\x10", "\x16", "\r", "\0", " "] {
        refused(first, Refusal::NotHttp, "400 Bad Request");
    }
    refused("GET nothing\r\n\r\n", Refusal::NotHttp, "400 Bad Request");
}

#[test]
fn the_head_has_a_limit() {
    let padded = |len: usize| {
        let pad = "a".repeat(len - REQUEST.len() - "X: \r\n".len());
        REQUEST.replace("\r\n\r\n", &format!("\r\nX: {pad}\r\n\r\n"))
    };
    assert_eq!(padded(8192).len(), 8192);
    accepted(&padded(8192));
    let status = "431 Request Header Fields Too Large";
    refused(&padded(8193), Refusal::HeadTooLong, status);
    let many = REQUEST.replace("\r\n\r\n", &format!("\r\n{}\r\n", "X: y\r\n".repeat(64)));
    refused(&many, Refusal::HeadTooLong, status);
}

#[test]
fn a_refused_connection_ignores_what_follows() {
    let mut server = server();
    assert!(server.handle_bytes(&mut b"\x10\x0c".to_vec()).end.is_some());
    let mut rest = REQUEST.as_bytes().to_vec();
    let received = server.handle_bytes(&mut rest);
    assert!(received.opened.is_none() && received.end.is_none() && received.mqtt.is_empty());
    assert!(server.wants_send());
}

/// A client's request, and the client that waits for its answer.
fn client() -> (Client, String) {
    let headers = [("Authorization", "Bearer abc")];
    let request = client::Request { host: "broker:8083", path: "/mqtt", headers: &headers };
    let mut client = Client::new(&request, *b"the sample nonce").unwrap();
    let mut out = Vec::new();
    client.poll_output(&mut || [0; 4], &mut out);
    (client, String::from_utf8(out).unwrap())
}

const RESPONSE: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
    Sec-WebSocket-Protocol: mqtt\r\n\r\n";

#[test]
fn the_client_asks_once_and_opens_on_the_right_answer_however_torn() {
    let (_, request) = client();
    assert!(request.contains("\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"));
    assert!(request.contains("\r\nHost: broker:8083\r\n"));
    assert!(request.contains("\r\nAuthorization: Bearer abc\r\n"));
    accepted(&request);
    let bytes = [RESPONSE.as_bytes(), b"\x82\x02\x20\x02"].concat();
    for split in 0..=bytes.len() {
        let (mut client, _) = client();
        let mut again = Vec::new();
        client.poll_output(&mut || [0; 4], &mut again);
        assert!(again.is_empty());
        let mut bytes = bytes.clone();
        let (front, back) = bytes.split_at_mut(split);
        let mut mqtt = client.handle_bytes(front).mqtt.to_vec();
        assert_eq!(client.is_open(), split >= RESPONSE.len());
        mqtt.extend(client.handle_bytes(back).mqtt);
        assert!(client.is_open());
        assert_eq!(mqtt, b"\x20\x02");
    }
}

#[test]
fn the_client_refuses_wrong_answers() {
    for (response, failure) in [
        (RESPONSE.replace("101 Switching Protocols", "401 Unauthorized"), Failure::Status(401)),
        (RESPONSE.replace("Upgrade: w", "Upgrade: x"), Failure::Header("Upgrade")),
        (RESPONSE.replace("Connection: Upgrade", "A: b"), Failure::Header("Connection")),
        (RESPONSE.replace("s3p", "S3p"), Failure::Header("Sec-WebSocket-Accept")),
        (RESPONSE.replace("mqtt", "chat"), Failure::SubProtocol),
        (RESPONSE.replace("Sec-WebSocket-Protocol: mqtt\r\n", ""), Failure::SubProtocol),
        (
            RESPONSE.replace("\r\n\r\n", "\r\nSec-WebSocket-Extensions: x\r\n\r\n"),
            Failure::Header("Sec-WebSocket-Extensions"),
        ),
        ("SSH-2.0-OpenSSH\r\n\r\n".to_owned(), Failure::NotHttp),
        ("a".repeat(9000), Failure::HeadTooLong),
    ] {
        let (mut client, _) = client();
        let mut bytes = response.into_bytes();
        assert_eq!(client.handle_bytes(&mut bytes).end, Some(End::Failed(failure)));
        assert!(!client.is_open());
    }
}

#[test]
fn the_client_sends_no_mqtt_before_it_is_open_nor_after_its_close() {
    let (mut client, _) = client();
    let (mut mask, mut out) = (|| [0; 4], Vec::new());
    assert!(!client.encode(b"x", &mut mask, &mut out));
    client.handle_bytes(&mut RESPONSE.as_bytes().to_vec());
    assert!(client.encode(b"x", &mut mask, &mut out));
    client.close(close_code::NORMAL);
    client.poll_output(&mut mask, &mut out);
    assert!(!client.encode(b"y", &mut mask, &mut out));
    assert_eq!(out, b"\x82\x81\0\0\0\0x\x88\x82\0\0\0\0\x03\xe8");
}

#[test]
fn a_request_cannot_smuggle_lines() {
    let new = |host, path, headers: &[(&str, &str)]| {
        Client::new(&client::Request { host, path, headers }, [0; 16]).map_err(|e| e.part).err()
    };
    assert_eq!(new("a", "/b", &[("c", "d e")]), None);
    assert_eq!(new("a\r\nX: y", "/b", &[]).as_deref(), Some("host"));
    assert_eq!(new("a", "/b c", &[]).as_deref(), Some("path"));
    assert_eq!(new("a", "b", &[]).as_deref(), Some("path"));
    assert_eq!(new("a", "/b", &[("c", "d\r\nX: y")]).as_deref(), Some("c"));
    assert_eq!(new("a", "/b", &[("c:", "d")]).as_deref(), Some("c:"));
}

fn ask_from(origin: &str, host: &str, origins: Option<&[&str]>) -> Option<End> {
    let origins = origins.map(|all| all.iter().map(|origin| (*origin).to_owned()).collect());
    let mut server = Server::new(Arc::new(Config { origins, ..Config::default() }));
    let headers = format!("Host: {host}\r\nOrigin: {origin}\r\n");
    let mut bytes = REQUEST.replace("Host: broker\r\n", &headers).into_bytes();
    server.handle_bytes(&mut bytes).end
}

#[test]
fn web_pages_of_other_hosts_are_refused() {
    for (origin, host) in [
        ("http://broker", "broker:8083"),
        ("https://BROKER:3000", "broker:8083"),
        ("http://127.0.0.1:8000", "127.0.0.1:8083"),
        ("http://[::1]:8000", "[::1]:8083"),
        ("http://[::1]", "[::1]"),
    ] {
        assert_eq!(ask_from(origin, host, None), None, "{origin} to {host}");
    }
    for (origin, host) in [
        ("https://evil.example", "127.0.0.1:8083"),
        ("null", "127.0.0.1:8083"),
        ("null", "null"),
        ("", ""),
        ("http://", ""),
        ("http://broker.evil.example", "broker"),
        ("http://broker@evil.example", "broker"),
        ("http://127.0.0.1.evil.example", "127.0.0.1"),
        ("http://[::1]", "[::2]"),
    ] {
        let end = ask_from(origin, host, None);
        assert!(matches!(end, Some(End::Refused(_))), "{origin} to {host}");
    }
    let request = REQUEST.replace("broker", "127.0.0.1\r\nOrigin: https://evil.example");
    refused(&request, Refusal::Origin, "403 Forbidden");
}

#[test]
fn a_list_of_origins_decides_alone() {
    let list = Some(&["https://one.example", "https://two.example:8443"][..]);
    assert_eq!(ask_from("https://one.example", "broker", list), None);
    assert_eq!(ask_from("https://TWO.example:8443", "broker", list), None);
    for origin in ["https://broker", "http://one.example", "https://two.example", "null"] {
        let refusal = Some(End::Refused(Refusal::Origin));
        assert_eq!(ask_from(origin, "broker", list), refusal, "{origin}");
    }
    assert_eq!(ask_from("https://any.example", "broker", Some(&["*"])), None);
    let none = ask_from("https://broker", "broker", Some(&[]));
    assert_eq!(none, Some(End::Refused(Refusal::Origin)));
}

#[test]
fn a_bearer_token_is_found_and_shown_nowhere() {
    let bearer = |header: &str| {
        let fields = format!("Host: broker\r\nAuthorization: {header}\r\n");
        let mut bytes = REQUEST.replace("Host: broker\r\n", &fields).into_bytes();
        let mut server = server();
        let (start, rest) = bytes.split_at_mut(120);
        server.handle_bytes(start);
        assert!(!format!("{server:?}").contains(header), "{server:?}");
        let opened = server.handle_bytes(rest).opened.expect("accepted");
        assert!(!format!("{opened:?}").contains("secret"), "{opened:?}");
        opened.bearer().map(str::to_owned)
    };
    assert_eq!(bearer("Bearer secret").as_deref(), Some("secret"));
    assert_eq!(bearer("bEARER  secret").as_deref(), Some("secret"));
    for header in ["Basic secret", "Bearersecret", "Bearer ", "secret"] {
        assert_eq!(bearer(header), None, "{header}");
    }
}
