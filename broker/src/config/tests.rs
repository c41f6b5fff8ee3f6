use std::collections::BTreeSet;

use whimbrel_transport::tls::{ClientCertificates, MinVersion, NameKind};

use super::load::apply_file;
use super::*;

fn from_file(text: &str) -> Result<Config, String> {
    let mut config = Config::default();
    apply_file(&mut config, "b.toml", text).map_err(|error| error.to_string())?;
    config.check().map_err(|error| error.to_string())?;
    Ok(config)
}

fn error(text: &str) -> String {
    from_file(text).expect_err("a bad file was taken")
}

fn sources(file: Option<&str>, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Sources {
    let owned = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    };
    Sources {
        file: file.map(Into::into),
        environment: owned(environment),
        flags: owned(flags),
        shortcuts: Shortcuts::default(),
    }
}

#[test]
fn errors_name_file_line_and_key() {
    assert_eq!(
        error("shards = 1\n[limits]\nmax_pakcet_size_bytes = 7\n"),
        "b.toml:3: unknown key `limits.max_pakcet_size_bytes`; did you mean \
         `limits.max_packet_size_bytes`?"
    );
    assert_eq!(
        error("colour = \"blue\"\n"),
        "b.toml:1: unknown key `colour`; `whimbrel broker --print-config` shows all keys"
    );
    assert_eq!(
        error("\nshards = \"two\"\n"),
        "b.toml:2: key `shards` must be a whole number from 0 to 1024, not \"two\""
            .replace("1024", &whimbrel_topics::MAX_SHARDS.to_string())
    );
    assert_eq!(
        error("[limits]\nreceive_maximum = 65536\n"),
        "b.toml:2: key `limits.receive_maximum` must be a whole number from 1 to 65535, not 65536"
    );
    assert_eq!(
        error("[limits]\nreceive_maximum = -1\n"),
        "b.toml:2: key `limits.receive_maximum` must be a whole number from 1 to 65535, not -1"
    );
    assert_eq!(
        error("[log]\nlevel = \"loud\"\n"),
        "b.toml:2: key `log.level` must be one of \"off\", \"error\", \"warn\", \"info\", \
         \"debug\", not \"loud\""
    );
    assert_eq!(
        error("client_state_messages = 1\n"),
        "b.toml:1: key `client_state_messages` must be true or false, not 1"
    );
    assert_eq!(error("log = 3\n"), "b.toml:1: key `log` must be a table: write [log]");
    assert_eq!(error("data_dir = 7\n"), "b.toml:1: key `data_dir` must be text in quotes, not 7");
    assert_eq!(
        error("durability = \"hope\"\n"),
        "b.toml:1: key `durability` must be one of \"fsync\", \"os\", \"memory\", not \"hope\""
    );
    assert!(error("shards = \n").starts_with("b.toml:1: not valid TOML: "));
    assert!(!error("shards = \n").contains('\n'));
}

#[test]
fn errors_of_listeners() {
    assert_eq!(
        error("shards = 1\n[[listener]]\ntype = \"tcp\"\nbind = \"1883\"\n"),
        "b.toml:4: key `listener.bind` must be an IP address and a port, such as \
         \"127.0.0.1:1883\" or \"[::]:1883\", not \"1883\""
    );
    assert_eq!(
        error("[[listener]]\ntype = \"tcp\"\nbind = \"127.0.0.1:1\"\norigins = []\n"),
        "b.toml:4: unknown key `listener.origins`; a listener of type tcp has type, bind, \
         authentication, tls, proxy_protocol_from"
    );
    assert_eq!(
        error("[[listener]]\ntype = \"quic\"\n"),
        "b.toml:2: key `listener.type` must be \"tcp\", \"websocket\" or \"unix\", not \"quic\""
    );
    assert_eq!(
        error("[[listener]]\ntype = \"unix\"\n"),
        "b.toml:1: this [[listener]] has no `path`"
    );
    assert_eq!(
        error("\n[[listener]]\ntype = \"tcp\"\nbind = \"0.0.0.0:1883\"\n"),
        "b.toml:2: listener tcp 0.0.0.0:1883 is open to the network without authentication; name a \
         `password_file` or another way of authentication, bind it to a loopback address, or write \
         `allow_anonymous = true`"
    );
    assert_eq!(error("listener = []\n"), "configuration: there is no listener; add a [[listener]]");
    assert!(error("allow_anonymous = false\n").contains("would let nobody in"));
    assert_eq!(
        error("[[listener]]\ntype = \"tcp\"\nbind = \"[::1]:1\"\nauthentication = [\"scram\"]\n"),
        "b.toml:1: listener tcp [::1]:1 is to authenticate by \"scram\", but there is no \
         `password_file`"
    );
    let open = "allow_anonymous = true\n[[listener]]\ntype = \"tcp\"\nbind = \"0.0.0.0:1883\"\n";
    assert!(from_file(open).is_ok());
}

#[test]
fn errors_of_tls() {
    let error = |tls: &str| {
        error(&format!("[[listener]]\ntype = \"tcp\"\nbind = \"127.0.0.1:1\"\n{tls}\n"))
    };
    assert_eq!(
        error("tls = 1"),
        "b.toml:4: key `listener.tls` must be a table: write [listener.tls]"
    );
    assert_eq!(
        error("[listener.tls]\ncertificate = \"a.pem\""),
        "b.toml:4: `certificate` and `key` go together"
    );
    assert_eq!(
        error("[listener.tls]"),
        "b.toml:4: [listener.tls] needs `certificate` and `key`, two PEM files"
    );
    let pair = "[listener.tls]\ncertificate = \"a.pem\"\nkey = \"a.key\"\n";
    assert_eq!(
        error(&format!("{pair}min_version = \"1.1\"")),
        "b.toml:7: key `listener.tls.min_version` must be one of \"1.2\", \"1.3\", not \"1.1\""
    );
    assert_eq!(
        error(&format!("{pair}client_certificates = \"required\"")),
        "b.toml:4: client certificates need `client_ca`, a file with the authorities that issue them"
    );
    let what = error(&format!("{pair}crl = [\"a.crl\"]"));
    assert!(what.starts_with("b.toml:4: `client_ca` and `crl` do nothing"), "{what}");
    assert!(
        error(&format!("{pair}ca = \"x\"")).starts_with("b.toml:7: unknown key `listener.tls.ca`")
    );
    assert_eq!(
        error(&format!("{pair}crl = \"a.crl\"")),
        "b.toml:7: key `listener.tls.crl` must be a list of texts, such as [\"a\", \"b\"]"
    );
    assert_eq!(
        error("proxy_protocol_from = [\"10.0.0.0/99\"]"),
        "b.toml:4: key `listener.proxy_protocol_from` must be a list of addresses, each an IP \
         address, or a network such as \"10.0.0.0/8\", not \"10.0.0.0/99\""
    );
    let mut all = sources(None, &[], &[]);
    all.shortcuts.tls_port = Some(0);
    let what = load(&all).expect_err("no certificate").to_string();
    assert!(what.starts_with("flag --tls-port: TLS needs --certificate and --key"), "{what}");
    all.shortcuts.certificate = Some(CertificateFiles::new("/nowhere/a.pem", "/nowhere/a.key"));
    let what = load(&all).expect_err("no such file").to_string();
    assert!(
        what.starts_with("flag --tls-port: cannot read /nowhere/a.pem: No such file"),
        "{what}"
    );
}

#[test]
fn errors_of_limits() {
    assert_eq!(
        error("limit = 7\n"),
        "b.toml:1: key `limit` must be a list of tables: write [[limit]]"
    );
    assert_eq!(
        error("[[limit]]\nper = \"city\"\nmax_connections = 1\n"),
        "b.toml:2: key `limit.per` must be one of \"listener\", \"address\", \"user\", \"client\""
    );
    assert_eq!(
        error("\n[[limit]]\nmax_connections = 1\n"),
        "b.toml:2: this [[limit]] has no `per`, one of \"listener\", \"address\", \"user\", \"client\""
    );
    assert_eq!(
        error("[[limit]]\nper = \"user\"\nuser = \"x\"\n"),
        "b.toml:1: this [[limit]] limits nothing; give it a key such as `max_connections`"
    );
    assert!(
        error("[[limit]]\nper = \"user\"\nmax_conections = 1\n").starts_with(
            "b.toml:3: unknown key `limit.max_conections`; a limit has per, listener, "
        )
    );
    assert_eq!(
        error("[[limit]]\nper = \"user\"\nmax_messages_per_s = 0\n"),
        "b.toml:3: key `limit.max_messages_per_s` must be a whole number from 1 to 100000000, not 0"
    );
    assert_eq!(
        error("[[limit]]\nper = \"user\"\nmax_inflight = 1\naddress = \"10.0.0.0/33\"\n"),
        "b.toml:4: key `limit.address` must be an address or network such as \"10.0.0.0/8\", not \
         \"10.0.0.0/33\""
    );
    assert_eq!(
        error("[[limit]]\nper = \"user\"\nmax_inflight = 1\nlistener = \"127.0.0.1:1\"\n"),
        "b.toml:4: key `limit.listener` must be where one listens: \"127.0.0.1:1883\", \
         \"127.0.0.1:8083\"; not \"127.0.0.1:1\""
    );
    assert!(
        error("[[limit]]\nper = \"client\"\nmax_connections = 1\n")
            .starts_with("b.toml:1: key `limit.max_connections` makes no sense per client")
    );
}

#[test]
fn limits_name_listeners_that_stand_behind_them() {
    let text = "[[limit]]\nper = \"listener\"\nlistener = \"127.0.0.1:2\"\nmax_connections = 5\n\
        [[listener]]\ntype = \"tcp\"\nbind = \"127.0.0.1:1\"\n\
        [[listener]]\ntype = \"tcp\"\nbind = \"127.0.0.1:2\"\n";
    let config = from_file(text).expect("valid");
    assert_eq!(config.core.limits.len(), 1);
    assert_eq!(config.core.limits[0].of.listener, Some(1));
    // After a reload the broker still has the listeners that it began with.
    let turned = "[[limit]]\nper = \"listener\"\nlistener = \"127.0.0.1:2\"\nmax_connections = 6\n\
        [[listener]]\ntype = \"tcp\"\nbind = \"127.0.0.1:2\"\n";
    let again = from_file(turned).expect("valid").with_fixed_of(&config);
    assert_eq!(again.core.limits[0].of.listener, Some(1));
    assert_eq!(again.core.limits[0].values.max_connections, Some(6));
}

#[test]
fn flags_go_before_environment_before_file_before_defaults() {
    let folder = std::env::temp_dir().join(format!("whimbrel-config-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let file = folder.join("b.toml");
    std::fs::write(
        &file,
        "[limits]\nreceive_maximum = 2\nmax_inflight = 2\nmax_topic_levels = 2\n",
    )
    .expect("a file");
    let environment = [("WHIMBREL_RECEIVE_MAXIMUM", "3"), ("WHIMBREL_MAX_INFLIGHT", "3")];
    let flags = [("receive-maximum", "4")];
    let all = sources(file.to_str(), &environment, &flags);
    let core = load(&all).expect("valid").config.core;
    assert_eq!((core.receive_maximum, core.max_inflight, core.max_topic_levels), (4, 3, 2));
    let defaults = load(&sources(None, &[], &[])).expect("valid").config.core;
    assert_eq!(defaults, Config::default().core);
    std::fs::remove_dir_all(folder).expect("removed");
}

#[test]
fn bad_variables_and_flags_are_named() {
    let bad = |sources: Sources| load(&sources).expect_err("was taken").to_string();
    assert_eq!(
        bad(sources(None, &[("WHIMBREL_LOG_FORMAT", "xml")], &[])),
        "environment variable WHIMBREL_LOG_FORMAT: key `log.format` must be one of \"text\", \
         \"json\", not \"xml\""
    );
    assert_eq!(
        bad(sources(None, &[], &[("max-packet-size-bytes", "1")])),
        "flag --max-packet-size-bytes: key `limits.max_packet_size_bytes` must be a whole number \
         from 64 to 268435460, not \"1\""
    );
    assert_eq!(
        bad(sources(Some("/nowhere/b.toml"), &[], &[])),
        "/nowhere/b.toml: cannot read the configuration file: No such file or directory (os error \
         2)"
    );
    let odd = load(&sources(None, &[("WHIMBREL_PORT_1883_TCP", "x")], &[])).expect("valid");
    assert_eq!(odd.warnings.len(), 1);
}

#[test]
fn shortcuts_change_the_listeners() {
    let mut all = sources(None, &[], &[]);
    all.shortcuts = Shortcuts { port: Some(0), ws_port: Some(7), ..Shortcuts::default() };
    let listeners = load(&all).expect("valid").config.listeners;
    let shown: Vec<_> = listeners.iter().map(|l| l.endpoint.to_string()).collect();
    assert_eq!(shown, ["tcp 127.0.0.1:0", "websocket 127.0.0.1:7/mqtt"]);
    all.shortcuts.no_websocket = true;
    all.shortcuts.ws_port = None;
    all.shortcuts.bind = Some([0, 0, 0, 0].into());
    let error = load(&all).expect_err("open to the network").to_string();
    assert!(error.starts_with("flag --port: listener tcp 0.0.0.0:0 is open"), "{error}");
}

#[test]
fn what_is_printed_reads_back_the_same() {
    let mut odd = Config::default();
    for key in KEYS {
        let text = if key.is_switch { "true" } else { "2000" };
        let words = ["warn", "json", "os", "1", "2000000"];
        let set =
            |text: &str, config: &mut Config| (key.set)(config, &keys::Input::Text(text)).is_ok();
        assert!(set(text, &mut odd) || words.iter().any(|w| set(w, &mut odd)), "{}", key.path);
    }
    odd.core.response_information = "a \"quoted\"\ttext".into();
    odd.listeners.push(Listener::new(Endpoint::Unix("/tmp/with \"quotes\".sock".into()), ""));
    odd.listeners.push(Listener {
        authentication: Some(vec![Login::Anonymous, Login::Password]),
        tls: Some(Tls {
            certificates: vec![
                CertificateFiles::new("a.pem", "a.key"),
                CertificateFiles::new("b \"b\".pem", "b.key"),
            ],
            min_version: MinVersion::Tls13,
            client_certificates: ClientCertificates::Optional,
            client_ca: Some("ca.pem".into()),
            crl: vec!["a.crl".into(), "b.crl".into()],
            allow_expired_crl: true,
            identity: NameKind::Uri,
            exporter: false,
        }),
        proxy_protocol_from: vec!["10.0.0.0/8".parse().expect("a network")],
        origins: Some(vec!["https://example.org".into()]),
        ..Listener::new(Endpoint::WebSocket(([127, 0, 0, 1], 7).into(), "/x".into()), "")
    });
    let limits = "[[limit]]\nper = \"address\"\nlistener = \"127.0.0.1:1883\"\n\
        address = \"10.0.0.0/8\"\nuser = \"a\\\"b*\"\nclient_id = \"*\"\nanonymous = false\n\
        max_connections = 1\nmax_connects_per_s = 2\nmax_messages_per_s = 3\n\
        max_bytes_per_s = 4\nmax_packet_size_bytes = 65\nmax_subscriptions = 6\n\
        max_inflight = 7\nmax_queued_messages = 8\nmax_queued_bytes = 9\n\
        [[limit]]\nper = \"client\"\nmax_inflight = 1\n";
    odd.core.limits = from_file(limits).expect("valid").core.limits;
    for config in [Config::default(), odd] {
        let printed = print(&config);
        let again = from_file(&printed).expect("valid");
        assert_eq!(print(&again), printed);
        assert_eq!(again.core, config.core);
        let all = |c: &Config| {
            let one = |l: &Listener| (l.fixed(), l.tls.clone(), l.authentication.clone());
            c.listeners.iter().map(one).collect::<Vec<_>>()
        };
        assert_eq!(all(&again), all(&config));
    }
}

#[test]
fn every_limit_of_the_core_is_a_key() {
    let shown = format!("{:#?}", whimbrel_broker_core::Config::default());
    let fields: BTreeSet<&str> = shown
        .lines()
        .filter_map(|line| line.strip_prefix("    ")?.split_once(':'))
        .map(|f| f.0)
        .collect();
    let mut names: BTreeSet<&str> = KEYS.iter().map(Key::name).collect();
    // [[limit]] tables.
    names.insert("limits");
    assert!(fields.len() > 15);
    assert_eq!(fields.difference(&names).collect::<Vec<_>>(), Vec::<&&str>::new());
    let flags: BTreeSet<String> = KEYS.iter().map(Key::flag).collect();
    assert_eq!(flags.len(), KEYS.len(), "flags and variables are unique");
}
