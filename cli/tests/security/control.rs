//! The control socket of a broker with users.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::Command;

use super::link::Link;
use super::passwords::password_file;
use super::server::{LISTENER, Server};
use super::support::{PATIENCE, outcome};

#[test]
fn users_of_one_client_id_are_told_apart_and_no_password_is_shown() {
    let config = format!(
        "control_socket = \"{{folder}}/control\"\npassword_file = \"{{folder}}/users\"\n{LISTENER}"
    );
    let users = password_file(&[("ann", "secret-a", &["staff"]), ("bob", "secret-b", &[])]);
    let server = Server::start(&config, &[("users", &users)]);
    let mut ann = Link::login(&server, "ann", b"secret-a", "c");
    let _bob = Link::login(&server, "bob", b"secret-b", "c");
    assert_eq!(ann.subscribe("t"), 1);
    let socket = server.path("control");
    let explain = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_whimbrel"));
        command.args(["explain", "--client", "c", "--publish", "t", "--control"]).arg(&socket);
        outcome(command.args(more))
    };
    let (code, out, err) = explain(&[]);
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert!(err.starts_with("Error: several users have a client `c`: `"), "{err}");
    assert!(err.contains("`ann`") && err.contains("`bob`; ") | err.contains("`bob`, "), "{err}");
    let (code, out, err) = explain(&["--user", "ann"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.contains("client: c (ann), by password, groups staff, connected from "), "{out}");
    assert!(out.contains("  c (ann), QoS 0, through t: sent"), "{out}");

    let mut stream = UnixStream::connect(&socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"{\"command\": \"clients\"}").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).unwrap();
    assert!(all.contains("\"user\":\"ann\"") && !all.contains("secret"), "{all}");
}
