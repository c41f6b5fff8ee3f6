//! Our own tools, by each way to log in.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;

use super::issuer::{self, claims, header, token};
use super::passwords;
use super::server::Server;
use super::support::outcome;

/// Publishes with these flags; the exit code, and what was on stderr.
fn publish(url: &str, flags: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_whimbrel"));
    command.args(["pub", "-L", url, "-t", "t", "-m", "x", "-q", "1"]).args(flags);
    let (code, _, errors) = outcome(command.env("XDG_CONFIG_HOME", "/nowhere"));
    (code, errors)
}

fn url(server: &Server, scheme: &str, transport: &str) -> String {
    let address = server.broker.address(transport);
    let address = address.trim_start_matches("ws://");
    format!("{scheme}://{address}")
}

fn comes_in(url: &str, flags: &[&str]) {
    assert_eq!(publish(url, flags), (Some(0), String::new()), "{flags:?}");
}

#[test]
fn passwords_and_scram() {
    let server = passwords::server();
    let url = url(&server, "mqtt", "tcp");
    server.write("password", "right\n");
    server.write("wrong", "wrong\n");
    let path = |name: &str| server.path(name).display().to_string();
    let (right, wrong) = (path("password"), path("wrong"));
    comes_in(&url, &["-u", "ann", "--password-file", &right]);
    for method in ["scram-sha-256", "scram-sha-512"] {
        comes_in(&url, &["-u", "ann", "-P", "right", "--auth", method]);
        comes_in(&url, &["-u", "ann", "--password-file", &right, "--auth", method]);
        let (code, errors) =
            publish(&url, &["-u", "ann", "--password-file", &wrong, "--auth", method]);
        assert!(matches!(code, Some(134 | 135)), "{code:?} {errors}");
        assert!(!errors.contains("wrong"), "a password in an error: {errors}");
    }
    let (code, errors) = publish(&url, &["--password-file", "/nowhere/p", "-u", "ann"]);
    assert_eq!(code, Some(1));
    assert!(errors.contains("/nowhere/p"), "{errors}");
}

#[test]
fn tokens_from_a_file_by_each_carrier() {
    let server = issuer::server();
    let file = server.path("token").display().to_string();
    server.write("token", &format!("{}\n", token(&header(), &claims())));
    let (mqtt, ws) = (url(&server, "mqtt", "tcp"), url(&server, "ws", "websocket"));
    comes_in(&mqtt, &["--token-file", &file, "-V", "5"]);
    comes_in(&mqtt, &["--token-file", &file, "--auth", "oauth2-jwt"]);
    comes_in(&ws, &["--token-file", &file, "--auth", "bearer"]);
    server.write("token", "e30.e30.c2ln");
    let (code, errors) = publish(&mqtt, &["--token-file", &file, "--auth", "oauth2-jwt"]);
    assert_eq!(code, Some(135), "{errors}");
    assert!(!errors.contains("e30"), "a token in an error: {errors}");
}

/// An authorization server for one request; gives the request.
fn token_endpoint(token: &str) -> (String, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/token", listener.local_addr().unwrap());
    let body =
        format!("{{\"access_token\":\"{token}\",\"token_type\":\"Bearer\",\"expires_in\":600}}");
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = String::new();
        let mut buffer = [0; 4096];
        while !request.contains("grant_type=") {
            let len = stream.read(&mut buffer).unwrap();
            assert!(len > 0, "{request}");
            request += std::str::from_utf8(&buffer[..len]).unwrap();
        }
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n";
        let answer = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).unwrap();
        request
    });
    (url, thread)
}

#[test]
fn tokens_of_an_authorization_server() {
    let server = issuer::server();
    let mqtt = url(&server, "mqtt", "tcp");
    let (endpoint, asked) = token_endpoint(&token(&header(), &claims()));
    server.write("secret", "s3cret\n");
    let file = server.path("secret").display().to_string();
    let flags = ["--oauth-token-url", &endpoint, "--oauth-client-id", "viewer"];
    let more = ["--oauth-client-secret-file", &file, "--oauth-scope", "a", "--oauth-scope", "b"];
    comes_in(&mqtt, &[&flags[..], &more, &["--auth", "oauth2-jwt"]].concat());
    let request = asked.join().unwrap();
    assert!(request.contains("client_credentials") && request.contains("scope=a+b"), "{request}");
    assert!(request.contains("Basic dmlld2VyOnMzY3JldA=="), "viewer:s3cret, {request}");
    for (flags, what) in [
        (&["--auth", "oauth2-jwt"][..], "--token-file"),
        (&["--auth", "scram-sha-256", "-u", "ann"], "--password-file"),
        (&["--oauth-token-url", "http://as.example/t"], "--oauth-client-id"),
    ] {
        let (code, errors) = publish(&mqtt, flags);
        assert_eq!(code, Some(1), "{flags:?}");
        assert!(errors.contains(what), "{errors}");
    }
}
