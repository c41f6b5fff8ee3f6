//! Tools of several makes: our own, mosquitto's, and OpenSSL.

use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

use crate::setup::{Certs, broker, tls};
use crate::support::{Broker, outcome};

fn port(broker: &Broker) -> String {
    broker.address("tls").rsplit(':').next().expect("a port").to_owned()
}

/// A command and the words that it needs to reach the broker.
fn tool(words: &[&str], broker: &Broker, certs: &Certs) -> Command {
    let [program, arguments @ ..] = words else { panic!("no program") };
    let ours = env!("CARGO_BIN_EXE_whimbrel");
    let mut command = Command::new(if *program == "whimbrel" { ours } else { program });
    command.args(arguments).args(["-h", "localhost", "-p", &port(broker)]);
    command.args(["--cafile", &certs.path("ca.pem")]);
    command
}

/// Waits until somebody has subscribed to `t`, by means of a retained message.
fn got(subscriber: Child) -> String {
    let output = subscriber.wait_with_output().expect("it ends");
    String::from_utf8(output.stdout).expect("text")
}

const PUBLISHERS: [&[&str]; 2] = [&["whimbrel", "pub"], &["mosquitto_pub"]];
const SUBSCRIBERS: [&[&str]; 2] = [&["whimbrel", "sub"], &["mosquitto_sub"]];

#[test]
fn our_tools_and_mosquittos_speak_tls_to_the_broker() {
    let certs = Certs::new(&["alice"]);
    let broker = broker(&certs.mutual("required"));
    let shown = ["--cert", &certs.path("alice.pem"), "--key", &certs.path("alice.key")];
    let mut count = 0;
    for version in ["tlsv1.3", "tlsv1.2"] {
        for (publisher, subscriber) in
            PUBLISHERS.into_iter().flat_map(|p| SUBSCRIBERS.map(|s| (p, s)))
        {
            count += 1;
            let text = format!("{version} {count}");
            let mut publish = tool(publisher, &broker, &certs);
            publish.args(shown).args(["--tls-version", version, "-t", "t", "-r", "-m", &text]);
            let (code, _, errors) = outcome(&mut publish);
            assert_eq!((code, errors.as_str()), (Some(0), ""), "{publisher:?}");
            let mut subscribe = tool(subscriber, &broker, &certs);
            subscribe.args(shown).args(["--tls-version", version, "-t", "t", "-C", "1"]);
            let subscribe = subscribe.stdout(Stdio::piped()).spawn().expect("it runs");
            assert_eq!(got(subscribe), format!("{text}\n"), "{subscriber:?}");
        }
    }
}

#[test]
fn our_tools_open_urls_with_tls() {
    let certs = Certs::new(&[]);
    let wss = "[[listener]]\ntype = \"websocket\"\nbind = \"127.0.0.1:0\"\n";
    let text = crate::setup::listener(&certs.table("")) + wss + &certs.table("");
    let broker = Broker::with_file(&text);
    let wss = format!("wss://{}", broker.address("wss"));
    let mqtts = format!("mqtts://{}", broker.address("tls"));
    let ca = certs.path("ca.pem");
    let run = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_whimbrel"));
        let (code, text, errors) = outcome(command.args(words).args(["--cafile", &ca]));
        assert_eq!((code, errors.as_str()), (Some(0), ""), "{words:?}");
        text
    };
    let long = "x".repeat(100_000);
    for (from, to) in [(&wss, &mqtts), (&mqtts, &wss)] {
        let (from, to) = match from == &wss {
            true => (vec!["-L", from, "-t", "t"], vec!["-L", to, "-t", "t"]),
            false => (vec!["-L", from, "-t", "t"], vec!["-L", to, "-t", "t"]),
        };
        run(&[&["pub", "-r", "-q", "1", "-m", &long], &from[..]].concat());
        assert_eq!(run(&[&["sub", "-C", "1"], &to[..]].concat()).trim_end(), long);
    }
}

#[test]
fn our_tools_tell_what_is_wrong_with_tls() {
    let certs = Certs::new(&["alice"]);
    let others = Certs::new(&[]);
    let broker = broker(&certs.mutual("required"));
    let port = port(&broker);
    let failure_at = |port: &str, words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_whimbrel"));
        let (code, _, text) =
            outcome(command.args(["pub", "-p", port, "-t", "t", "-m", "x"]).args(words));
        assert_eq!(code, Some(1), "{text}");
        text
    };
    let failure = |words: &[&str]| failure_at(&port, words);
    let (ca, other_ca) = (certs.path("ca.pem"), others.path("ca.pem"));
    let text = failure(&["--cafile", &other_ca]);
    assert!(text.contains("authority that is not trusted; give its authority with"), "{text}");
    let text = failure(&["--cafile", &ca]);
    assert!(text.contains("wants a certificate of this client; give one with --cert"), "{text}");
    let text = failure(&["--cafile", "/nowhere.pem"]);
    assert!(text.contains("/nowhere.pem: No such file"), "{text}");
    let (key, wrong) = (certs.path("server.key"), certs.path("alice.pem"));
    let text = failure(&["--cafile", &ca, "--cert", &wrong, "--key", &key]);
    assert!(text.contains("is not the key of"), "{text}");
    let elsewhere = Certs(crate::support::new_folder());
    elsewhere.make(&["--host", "elsewhere.test"]);
    let named = crate::setup::broker(&elsewhere.table(""));
    let (named_port, named_ca) = (self::port(&named), elsewhere.path("ca.pem"));
    let text = failure_at(&named_port, &["--cafile", &named_ca]);
    assert!(text.contains("is for another name"), "{text}");
    let mut insecure = tool(&["whimbrel", "pub", "--insecure"], &named, &elsewhere);
    assert_eq!(outcome(insecure.args(["-t", "t", "-m", "x"])).0, Some(0));
    let plain = Broker::with_flags(&[]);
    let plain = plain.address("tcp").rsplit(':').next().expect("a port").to_owned();
    let text = failure_at(&plain, &["--cafile", &ca]);
    assert!(text.starts_with("Error: "), "{text}");
}

fn s_client(broker: &Broker, certs: &Certs, words: &[&str]) -> String {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &broker.address("tls"), "-servername", "localhost"]);
    command.args(["-CAfile", &certs.path("ca.pem"), "-verify_return_error"]).args(words);
    let (_, text, errors) = outcome(command.stdin(Stdio::null()));
    text + &errors
}

#[test]
fn openssl_agrees_with_us() {
    let certs = Certs::new(&[]);
    let broker = broker(&certs.table(""));
    for (flag, name) in [("-tls1_3", "TLSv1.3"), ("-tls1_2", "TLSv1.2")] {
        let text = s_client(&broker, &certs, &[flag, "-alpn", "mqtt"]);
        assert!(text.contains(&format!("New, {name}")), "{text}");
        assert!(
            text.contains("ALPN protocol: mqtt") && text.contains("Verification: OK"),
            "{text}"
        );
        assert!(text.contains("Secure Renegotiation IS NOT") || name == "TLSv1.2", "{text}");
    }
    for flag in ["-tls1_1", "-tls1"] {
        let text = s_client(&broker, &certs, &[flag]);
        assert!(text.contains("Cipher is (NONE)"), "{text}");
    }
    let text = s_client(&broker, &certs, &["-tls1_2", "-sess_out", &certs.path("session")]);
    assert!(text.contains("New, TLSv1.2"), "{text}");
    let text = s_client(&broker, &certs, &["-tls1_2", "-sess_in", &certs.path("session")]);
    assert!(text.contains("Reused, TLSv1.2"), "{text}");
}

/// `R` on a line of its own has s_client ask for a renegotiation.
#[test]
fn a_renegotiation_is_refused() {
    use std::io::Write;
    let certs = Certs::new(&[]);
    let broker = broker(&certs.table(""));
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &broker.address("tls"), "-tls1_2"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("openssl runs");
    // It stays open, so that what comes back is seen.
    child.stdin.as_mut().expect("a pipe").write_all(b"R\n").expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("no renegotiation"), "{text}");
    let config = certs.client_config(&rustls::version::TLS12, None);
    tls(&broker, config).connect("others are served");
}

#[test]
fn certs_keeps_what_exists_and_hides_keys() {
    let certs = Certs::new(&["alice"]);
    let all = ["ca.pem", "ca.key", "server.pem", "server.key", "alice.pem", "alice.key"];
    let contents = || all.map(|name| std::fs::read(certs.path(name)).expect("it is there"));
    let before = contents();
    let text = certs.make(&["--client", "alice", "--client", "bob"]);
    assert!(text.contains("whimbrel broker --tls-port 8883 --certificate "), "{text}");
    assert_eq!(contents(), before);
    for key in ["ca.key", "server.key", "alice.key", "bob.key"] {
        let mode = std::fs::metadata(certs.path(key)).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
    certs.make(&["revoke", "alice"]);
    certs.make(&["revoke", "bob"]);
    let mut command = Command::new("openssl");
    command.args(["crl", "-in", &certs.path("ca.crl"), "-CAfile", &certs.path("ca.pem")]);
    let (_, text, errors) = outcome(command.args(["-noout", "-text"]));
    assert_eq!(text.matches("Serial Number:").count(), 2, "{text}");
    assert!(errors.contains("verify OK"), "{errors}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_whimbrel"));
    command.args(["certs", "--dir", &certs.path(""), "--client", "../x"]);
    let (code, _, errors) = outcome(&mut command);
    assert_eq!(code, Some(2));
    assert!(errors.contains("cannot be the name of a client"), "{errors}");
}

#[test]
fn our_bench_measures_through_tls() {
    let certs = Certs::new(&[]);
    let broker = broker(&certs.table(""));
    let words = ["whimbrel", "bench", "latency", "--rate", "100", "-q", "1", "--json"];
    let mut bench = tool(&words, &broker, &certs);
    let (code, text, _) = outcome(bench.args(["--duration", "1", "--warm-up", "0"]));
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("\"transport\":\"tls\"") && text.contains("\"lost\":0"), "{text}");
}
