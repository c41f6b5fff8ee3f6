//! Our own client library and how it shows who it is.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use whimbrel_client::blocking::{Client, Events};
use whimbrel_client::{
    Builder, Carrier, ClientAuthentication, ClientCredentials, Error, Login, Message, QoS,
    ReasonCode, ScramMechanism, Secret, SigningKey, Status,
};

use super::issuer::{self, now_s, scoped};
use super::passwords;
use super::server::Server;
use super::web::{Answer, Web};

/// How long a token holds as the authorization server says, and how much longer it really does:
/// its end is in whole seconds.
const LIFE_S: u64 = 2;
const MORE_S: u64 = 1;

fn builder(server: &Server, carrier: &Carrier) -> Builder {
    let url = match carrier {
        Carrier::WebSocket => format!("ws://{}", server.broker.address("websocket")),
        _ => format!("mqtt://{}", server.broker.address("tcp")),
    };
    Client::builder(&url).unwrap().client_id("boiler")
}

/// An authorization server whose tokens hold for a short time.
fn authorization_server() -> Web {
    let web = Web::start();
    web.put("/token", minted());
    web
}

fn minted() -> Answer {
    Answer::Made(Arc::new(|| {
        let token = scoped("mqtt:pub:# mqtt:sub:#", now_s() + LIFE_S + MORE_S);
        let answer = json!({"access_token": token, "token_type": "Bearer", "expires_in": LIFE_S});
        answer.to_string()
    }))
}

fn credentials(web: &Web) -> ClientCredentials {
    let secret = ClientAuthentication::SecretBasic(Secret::from("a s3cret"));
    let tokens = ClientCredentials::new(&web.url("/token"), "boiler", secret).unwrap();
    tokens.scope("mqtt:pub:# mqtt:sub:#").resource("urn:broker").audience("broker")
}

/// Waits for something; what else comes must not be a lost connection.
fn wait(events: &mut Events, what: impl Fn(&Status) -> bool) {
    loop {
        match events.next().unwrap() {
            status if what(&status) => return,
            Status::Disconnected { why, .. } => panic!("lost: {why}"),
            _ => {}
        }
    }
}

fn publish(client: &Client, topic: &str) -> ReasonCode {
    let message = Message::new(topic, "x").qos(QoS::AtLeastOnce);
    client.publish(message).unwrap().wait().unwrap()
}

#[test]
fn our_client_logs_in_by_scram() {
    let server = passwords::server();
    for mechanism in [ScramMechanism::Sha256, ScramMechanism::Sha512] {
        let builder = |password: &str| {
            let login = Login::scram(mechanism, "ann", password);
            Client::builder(&format!("mqtt://{}", server.broker.address("tcp")))
                .unwrap()
                .login(login)
        };
        let client = Client::connect(builder("right")).unwrap();
        assert_eq!(publish(&client, "t"), ReasonCode::NoMatchingSubscribers);
        let error = Client::connect(builder("wrong")).err().unwrap();
        let refused = matches!(error, Error::Refused(ReasonCode::BadUserNameOrPassword, _));
        assert!(refused, "{error}");
    }
}

#[test]
fn our_client_reads_a_password_file_at_each_connection() {
    let server = passwords::server();
    let path = server.path("password");
    let login = Login::password_from(Some("ann".into()), Secret::file(&path));
    let url = format!("mqtt://{}", server.broker.address("tcp"));
    let builder = || Client::builder(&url).unwrap().login(login.clone());
    let error = Client::connect(builder()).err().unwrap().to_string();
    assert!(error.contains(&path.display().to_string()), "{error}");
    server.write("password", "wrong\n");
    assert!(matches!(Client::connect(builder()), Err(Error::Refused(..))));
    server.write("password", "right\n");
    Client::connect(builder()).unwrap();
}

#[test]
fn our_client_renews_its_token_on_the_same_connection() {
    let (server, web) = (issuer::server(), authorization_server());
    let login = Login::token(credentials(&web), Carrier::default());
    let client = Client::connect(builder(&server, &Carrier::default()).login(login)).unwrap();
    let mut events = client.events();
    // The first token has ended when the second renewal comes.
    for _ in 0..2 {
        wait(&mut events, |status| matches!(status, Status::Renewed));
    }
    assert_eq!(publish(&client, "t"), ReasonCode::NoMatchingSubscribers);
    let requests = web.requests("/token");
    assert_eq!(requests.len(), 3);
    for request in requests {
        let shown = format!("Basic {}", STANDARD.encode("boiler:a+s3cret"));
        assert_eq!(request.headers["authorization"], shown);
        let fields: Vec<&str> = request.body.split('&').collect();
        for field in [
            "grant_type=client_credentials",
            "scope=mqtt%3Apub%3A%23+mqtt%3Asub%3A%23",
            "resource=urn%3Abroker",
            "audience=broker",
        ] {
            assert!(fields.contains(&field), "no {field} in {}", request.body);
        }
    }
}

#[test]
fn our_client_renews_what_only_a_new_connection_can_show() {
    let (server, web) = (issuer::server(), authorization_server());
    let writer = issuer::Carrier::Password;
    let (mut writer, _) = writer.present(&server, &scoped("mqtt:pub:#", now_s() + 600), "writer");
    for carrier in [Carrier::Password { user_name: None }, Carrier::WebSocket] {
        let login = Login::token(credentials(&web), carrier.clone());
        let client = Client::connect(builder(&server, &carrier).login(login)).unwrap();
        let mut events = client.events();
        let filter = whimbrel_client::Filter::new("t").qos(QoS::AtLeastOnce);
        let mut subscription = client.subscribe(filter).unwrap();
        let told = events.find(|status| !matches!(status, Status::Subscribed { .. }));
        match told.unwrap() {
            Status::Disconnected { why, retry_in } => {
                assert!(matches!(*why, Error::TokenEnds), "{why}");
                assert_eq!(retry_in, Some(Duration::ZERO));
            }
            other => panic!("expected the end of the token, got {other:?}"),
        }
        assert_eq!(writer.publish("t", b"meanwhile", false), ReasonCode::Success);
        match events.next().unwrap() {
            Status::Connected(connected) => assert!(connected.session_present),
            other => panic!("expected a new connection, got {other:?}"),
        }
        let message = subscription.next_timeout(super::support::PATIENCE).expect("it is kept");
        assert_eq!(message.payload, "meanwhile");
        client.disconnect().unwrap();
    }
}

#[test]
fn our_client_waits_for_an_authorization_server() {
    let (server, web) = (issuer::server(), Web::start());
    let login = Login::token(credentials(&web), Carrier::default());
    let builder = builder(&server, &Carrier::default()).login(login);
    let client = Client::start(builder).unwrap();
    let mut events = client.events();
    let refusal = r#"{"error": "invalid_client", "error_description": "who are you?"}"#;
    for (answer, said) in [
        (Answer::Down, ""),
        (Answer::Status(503), "empty error response"),
        (Answer::Json(refusal.into()), "`access_token`"),
        (Answer::Json(String::new()), "empty response body"),
    ] {
        web.put("/token", answer);
        // The last answer may be that of the page before.
        for _ in 0..2 {
            let why = match events.next().unwrap() {
                Status::Disconnected { why, .. } => why.to_string(),
                other => panic!("expected a failure, got {other:?}"),
            };
            assert!(why.contains(&web.url("/token")), "{why}");
            assert!(!why.contains("s3cret"), "{why}");
            if why.contains(said) {
                break;
            }
        }
    }
    web.put("/token", minted());
    loop {
        match events.next().unwrap() {
            Status::Connected(_) => break,
            Status::Disconnected { .. } => {}
            other => panic!("expected a connection, got {other:?}"),
        }
    }
}

#[test]
fn our_client_signs_who_it_is() {
    let (server, web) = (issuer::server(), authorization_server());
    let key = rcgen::KeyPair::generate().unwrap();
    let key = SigningKey::from_pem(key.serialize_pem().as_bytes()).unwrap().key_id("first");
    let key = ClientAuthentication::PrivateKey(key);
    let tokens = ClientCredentials::new(&web.url("/token"), "boiler", key).unwrap();
    let login = Login::token(tokens, Carrier::default());
    Client::connect(builder(&server, &Carrier::default()).login(login)).unwrap();
    let [request] = &web.requests("/token")[..] else { panic!("one request") };
    for field in ["client_id=boiler", "client_assertion=ey", "client_assertion_type=urn%3A"] {
        assert!(request.body.contains(field), "no {field} in {}", request.body);
    }
    assert!(!request.headers.contains_key("authorization"));
}
