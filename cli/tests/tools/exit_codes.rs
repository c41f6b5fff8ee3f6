use crate::broker::{Broker, free_port};
use crate::tool::{on, run};

#[test]
fn a_refused_connection_has_the_brokers_code() {
    let broker = Broker::with("allow_anonymous false");
    for (version, code) in [("31", 5), ("311", 5), ("5", 135)] {
        let words = ["-t", "a", "-m", "x", "-V", version];
        on(&broker, "pub", &words).fails(code, "not authorized");
        on(&broker, "sub", &["-t", "a", "-V", version]).fails(code, "not authorized");
        let quiet = on(&broker, "sub", &["-t", "a", "-V", version, "--quiet"]);
        assert_eq!((quiet.code, quiet.stderr.as_str()), (Some(code), ""));
    }
}

#[test]
fn nobody_there_is_1() {
    let port = free_port().to_string();
    run("pub", &["-p", &port, "-t", "a", "-m", "x"]).fails(1, "is a broker running there?");
    run("sub", &["-p", &port, "-t", "a"]).fails(1, &port);
    run("sub", &["-h", "host.invalid", "-t", "a"]).fails(1, "host.invalid");
    run("sub", &["--unix", "/nowhere/socket", "-t", "a"]).fails(1, "/nowhere/socket");
}

#[test]
fn a_timeout_is_27() {
    let broker = Broker::start();
    on(&broker, "sub", &["-t", "a", "-W", "1"]).fails(27, "timed out");
}

#[test]
fn denied_subscriptions_and_messages_have_the_brokers_code() {
    let dir = std::env::temp_dir().join(format!("whimbrel-acl-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let acl = dir.join("acl");
    std::fs::write(&acl, "topic readwrite open\n").unwrap();
    let broker = Broker::with(&format!("allow_anonymous true\nacl_file {}", acl.display()));
    let words = ["-t", "closed", "-m", "x", "-q", "1", "-V", "5"];
    let denied = on(&broker, "pub", &words);
    assert_eq!(denied.code, Some(135), "{denied:?}");
    on(&broker, "pub", &["-t", "open", "-m", "x", "-q", "1", "-V", "5"]).ok();
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn wrong_usage_is_1_and_says_what() {
    for (command, words, what) in [
        ("pub", "-t a", "--message"),
        ("pub", "-m x", "--topic"),
        ("pub", "-t a -m x -n", "cannot be used"),
        ("pub", "-t a/+ -m x", "must not be empty or contain"),
        ("pub", "-t a -m x -q 3", "expected 0, 1 or 2"),
        ("pub", "-t a -m x -V 4", "expected 5, 311 or 31"),
        ("pub", "-t a -f /nowhere", "/nowhere"),
        ("pub", "-t a -m x -D publish colour red", "content-type"),
        ("pub", "-t a -m x -V 311 -D publish content-type y", "-V 5"),
        ("pub", "-t a -m x --will-payload y", "--will-topic"),
        ("pub", "-t a -m x -P secret", "-u"),
        ("pub", "-t a -m x -S", "-S: SRV records are not looked up"),
        ("pub", "-t a -m x --psk 00 --psk-identity x", "use certificates"),
        ("sub", "-t a --ciphers ALL", "--tls-version"),
        ("sub", "-t a --tls-engine tpm2", "--key"),
        ("rr", "-t a -m x --keyform engine", "PEM"),
        ("pub", "-t a -m x --speed 2", "--replay"),
        ("pub", "--replay x -t a", "--topic-prefix"),
        ("pub", "--replay x --speed 0", "above 0, or max"),
        ("pub", "--replay x --topic-prefix a/#", "--topic-prefix"),
        ("sub", "-t a --random-filter 0", "0.1 to 100"),
        ("sub", "-t a --json -v", "cannot be used"),
        ("sub", "-t a --view xml", "raw, text, json, hex, cbor, auto"),
        ("sub", "", "--topic"),
        ("sub", "-t a#", "not a topic filter"),
        ("sub", "-t a -F %z", "no sequence %z"),
        ("sub", "-t a -F %", "ends inside a % sequence"),
        ("sub", "-t a -c", "add -i"),
        ("sub", "-t a -C 0", "0 is not in"),
        ("sub", "-t a --frobnicate", "--frobnicate"),
        ("bench", "--payload 3", "3 is not in"),
    ] {
        let words: Vec<_> = words.split_whitespace().collect();
        run(command, &words).fails(1, what);
    }
}

#[test]
fn help_is_on_stdout() {
    for command in ["pub", "sub", "rr", "bench", "simulate"] {
        let help = run(command, &["--help"]).ok();
        assert!(help.contains("--protocol-version") && help.contains("-h, --host"), "{help}");
    }
}
