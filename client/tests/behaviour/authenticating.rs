//! Showing who the client is: passwords, tokens that end, SCRAM, and brokers that misbehave.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use whimbrel_client::{
    BoxError, Carrier, Client, Error, Events, Login, Message, OAUTH2_JWT, QoS, Secret, Status,
    Token, Version,
};
use whimbrel_codec::{ConnAck, Packet, Properties, Property, ReasonCode};

use crate::peer::{BUFFERED, Peer, Shown, place};

/// Tokens `token 0`, `token 1` and so on, each for so many seconds; while `broken` is not 0 it
/// counts down and there is none.
fn tokens(life_s: u64, broken: &Arc<AtomicU32>, carrier: Carrier) -> Login {
    let (count, broken) = (Arc::new(AtomicU32::new(0)), broken.clone());
    let provider = move || {
        let (count, broken) = (count.clone(), broken.clone());
        async move {
            let left = broken.load(Ordering::Relaxed);
            if left > 0 {
                broken.store(left - 1, Ordering::Relaxed);
                return Err(BoxError::from("out of order"));
            }
            let n = count.fetch_add(1, Ordering::Relaxed);
            Ok(Token::new(format!("token {n}")).expires_in(Duration::from_secs(life_s)))
        }
    };
    Login::token(provider, carrier)
}

fn always() -> Arc<AtomicU32> {
    Arc::new(AtomicU32::new(0))
}

fn password(user_name: Option<&str>, password: &str) -> Shown {
    let user_name = user_name.map(String::from);
    Shown { user_name, password: Some(password.into()), ..Shown::default() }
}

/// The next status that `what` takes.
async fn told<T>(events: &mut Events, what: impl Fn(&Status) -> Option<T>) -> T {
    loop {
        let status = events.next().await.expect("the client lives");
        if let Some(found) = what(&status) {
            return found;
        }
    }
}

async fn lost(events: &mut Events) -> Arc<Error> {
    told(events, |status| match status {
        Status::Disconnected { why, .. } => Some(why.clone()),
        _ => None,
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn a_password_is_asked_for_at_each_connection() {
    let (builder, mut place) = place();
    let count = AtomicU32::new(0);
    let secret = Secret::ask(move || match count.fetch_add(1, Ordering::Relaxed) {
        1 => Err(std::io::Error::other("the safe is closed")),
        n => Ok(format!("secret {n}").into_bytes()),
    });
    let login = Login::password_from(Some("ann".into()), secret);
    let client = builder.login(login).start().expect("valid settings");
    let mut events = client.events();
    let mut peer = place.arrival().await;
    let first = Shown { clean_start: true, ..password(Some("ann"), "secret 0") };
    assert_eq!(peer.recv_login().await, first);
    peer.send_connack(false).await;
    drop(peer);
    lost(&mut events).await;
    let why = lost(&mut events).await.to_string();
    assert_eq!(why, "cannot log in: the safe is closed");
    let mut peer = place.arrival().await;
    assert_eq!(peer.recv_login().await, password(Some("ann"), "secret 2"));
}

#[tokio::test(start_paused = true)]
async fn a_token_is_renewed_on_the_same_connection_before_it_ends() {
    let (builder, mut place) = place();
    let login = tokens(100, &always(), Carrier::default());
    let client = builder.keep_alive_s(0).login(login).start().expect("valid settings");
    let mut events = client.events();
    let mut peer = place.arrival().await;
    let shown = peer.recv_login().await;
    assert_eq!((shown.method.as_deref(), &*shown.data), (Some(OAUTH2_JWT), &b"token 0"[..]));
    assert_eq!((shown.user_name, shown.password), (None, None));
    peer.send_consent(false, OAUTH2_JWT, b"").await;
    let mut before = Instant::now();
    for n in 1..4 {
        let (reason, method, data) = peer.recv_auth().await;
        assert_eq!((reason, &*method), (ReasonCode::Reauthenticate, OAUTH2_JWT));
        assert_eq!(data, format!("token {n}").as_bytes());
        assert!((80..82).contains(&before.elapsed().as_secs()), "{:?}", before.elapsed());
        before = Instant::now();
        peer.send_auth(ReasonCode::Success, OAUTH2_JWT, b"").await;
        told(&mut events, |status| matches!(status, Status::Renewed).then_some(())).await;
    }
    drop(client.publish(Message::new("t", "x")).await.expect("taken"));
    assert_eq!(peer.recv_publish().await.payload, b"x");
}

#[tokio::test(start_paused = true)]
async fn a_renewal_is_tried_again_while_the_old_token_holds() {
    let (builder, mut place) = place();
    let broken = always();
    let login = tokens(100, &broken, Carrier::default());
    let client = builder.keep_alive_s(0).login(login).start().expect("valid settings");
    let mut events = client.events();
    let mut peer = place.arrival().await;
    peer.recv_login().await;
    peer.send_consent(false, OAUTH2_JWT, b"").await;
    told(&mut events, |status| matches!(status, Status::Connected(_)).then_some(())).await;
    broken.store(3, Ordering::Relaxed);
    let mut last = Duration::ZERO;
    for _ in 0..3 {
        let (why, retry_in) = told(&mut events, |status| match status {
            Status::RenewalFailed { why, retry_in } => Some((why.clone(), *retry_in)),
            _ => None,
        })
        .await;
        assert_eq!(why.to_string(), "cannot log in: no token: out of order");
        assert!(retry_in > last / 2 && retry_in <= Duration::from_secs(4), "{retry_in:?}");
        last = retry_in;
        assert!(client.is_connected());
    }
    assert_eq!(peer.recv_auth().await.2, b"token 1");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_refused_is_not_shown_again() {
    let (builder, mut place) = place();
    let login = tokens(1000, &always(), Carrier::Password { user_name: None });
    let _client = builder.login(login).start().expect("valid settings");
    let mut peer = place.arrival().await;
    assert_eq!(peer.recv_login().await.password.as_deref(), Some(&b"token 0"[..]));
    peer.send_refusal(ReasonCode::NotAuthorized).await;
    let mut peer = place.arrival().await;
    assert_eq!(peer.recv_login().await.password.as_deref(), Some(&b"token 1"[..]));
    peer.send_connack(false).await;
    drop(peer);
    // The loss says nothing about the token.
    let mut peer = place.arrival().await;
    assert_eq!(peer.recv_login().await.password.as_deref(), Some(&b"token 1"[..]));
    peer.send_connack(true).await;
    // Revoked.
    peer.send_disconnect(ReasonCode::NotAuthorized).await;
    let mut peer = place.arrival().await;
    assert_eq!(peer.recv_login().await.password.as_deref(), Some(&b"token 2"[..]));
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_is_refused_leads_to_a_new_connection() {
    let (builder, mut place) = place();
    let login = tokens(100, &always(), Carrier::default());
    let client = builder.keep_alive_s(0).login(login).start().expect("valid settings");
    let mut events = client.events();
    let mut peer = place.arrival().await;
    peer.recv_login().await;
    peer.send_consent(false, OAUTH2_JWT, b"").await;
    assert_eq!(peer.recv_auth().await.2, b"token 1");
    peer.send_disconnect(ReasonCode::NotAuthorized).await;
    assert!(matches!(*lost(&mut events).await, Error::Disconnected(ReasonCode::NotAuthorized, _)));
    let mut peer = place.arrival().await;
    assert_eq!(peer.recv_login().await.data, b"token 2");
}

#[tokio::test(start_paused = true)]
async fn a_token_in_the_password_is_renewed_by_a_connection_that_goes_on_with_the_session() {
    let (builder, mut place) = place();
    let login = tokens(100, &always(), Carrier::Password { user_name: Some("ann".into()) });
    let client = builder.keep_alive_s(0).login(login).start().expect("valid settings");
    let mut events = client.events();
    let mut peer = place.arrival().await;
    let first = Shown { clean_start: true, ..password(Some("ann"), "token 0") };
    assert_eq!(peer.recv_login().await, first);
    peer.send_connack(false).await;
    let before = Instant::now();
    let message = |payload: &'static str| Message::new("t", payload).qos(QoS::AtLeastOnce);
    let pending = client.publish(message("pending")).await.expect("taken");
    let id = peer.recv_publish().await.packet_id;
    peer.recv(|packet| match packet {
        // [MQTT-3.1.2-8] No will; and the session stays.
        Packet::Disconnect(disconnect) => {
            assert_eq!(disconnect.reason, ReasonCode::Success);
            assert!(disconnect.properties.is_empty(), "{disconnect:?}");
        }
        other => panic!("expected DISCONNECT, got {other:?}"),
    })
    .await;
    assert!((80..82).contains(&before.elapsed().as_secs()), "{:?}", before.elapsed());
    let queued = client.publish(message("queued")).await.expect("taken");
    drop(peer);
    assert!(matches!(*lost(&mut events).await, Error::TokenEnds));
    let mut peer = place.arrival().await;
    assert!(before.elapsed().as_secs() < 82, "at once");
    assert_eq!(peer.recv_login().await, password(Some("ann"), "token 1"));
    peer.send_connack(true).await;
    let again = peer.recv_publish().await;
    assert_eq!((again.packet_id, again.dup, &*again.payload), (id, true, &b"pending"[..]));
    peer.send_puback(id.expect("QoS 1")).await;
    let next = peer.recv_publish().await;
    assert_eq!((next.dup, &*next.payload), (false, &b"queued"[..]));
    peer.send_puback(next.packet_id.expect("QoS 1")).await;
    pending.await.expect("acknowledged");
    queued.await.expect("acknowledged");
}

/// Before 5.0 a clean session ends with its connection.
#[tokio::test(start_paused = true)]
async fn a_session_that_does_not_stay_is_left_once_nothing_is_in_flight() {
    let (builder, mut place) = place();
    let login = tokens(100, &always(), Carrier::Password { user_name: Some("ann".into()) });
    let builder = builder.version(Version::V3_1_1).keep_alive_s(0).login(login);
    let client = builder.start().expect("valid settings");
    let mut peer = place.arrival().await;
    peer.recv_login().await;
    peer.send_connack(false).await;
    let message = |payload: &'static str| Message::new("t", payload).qos(QoS::ExactlyOnce);
    let pending = client.publish(message("pending")).await.expect("taken");
    let id = peer.recv_publish().await.packet_id.expect("QoS 2");
    sleep(Duration::from_secs(85)).await;
    let queued = client.publish(message("queued")).await.expect("taken");
    peer.send(Packet::PubRec(whimbrel_codec::Ack::new(id))).await;
    assert_eq!(peer.recv_ack().await.0, "PUBREL");
    peer.send(Packet::PubComp(whimbrel_codec::Ack::new(id))).await;
    pending.await.expect("arrived");
    assert_eq!(peer.recv_ack().await.0, "DISCONNECT");
    drop(peer);
    let mut peer = place.arrival().await;
    assert_eq!(peer.recv_login().await.password.as_deref(), Some(&b"token 1"[..]));
    peer.send_connack(false).await;
    assert_eq!(peer.recv_publish().await.payload, b"queued");
    drop(queued);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_reconnect_stays_until_the_broker_ends_it() {
    let (builder, mut place) = place();
    let login = tokens(100, &always(), Carrier::Password { user_name: None });
    let builder = builder.keep_alive_s(0).reconnect(false).login(login);
    let client = builder.start().expect("valid settings");
    let mut peer = place.accept(false).await;
    sleep(Duration::from_secs(90)).await;
    drop(client.publish(Message::new("t", "x")).await.expect("taken"));
    assert_eq!(peer.recv_publish().await.payload, b"x");
    peer.send_disconnect(ReasonCode::NotAuthorized).await;
    let why = client.closed().await.expect("an error");
    assert!(matches!(*why, Error::Disconnected(ReasonCode::NotAuthorized, _)));
}

#[tokio::test(start_paused = true)]
async fn a_token_does_not_hold_up_the_end() {
    let (builder, mut place) = place();
    let login = tokens(100, &always(), Carrier::default());
    let client = builder.keep_alive_s(0).login(login).start().expect("valid settings");
    let mut peer = place.arrival().await;
    peer.recv_login().await;
    peer.send_consent(false, OAUTH2_JWT, b"").await;
    assert_eq!(peer.recv_auth().await.2, b"token 1");
    // No answer to it.
    let (ended, disconnect) = tokio::join!(client.disconnect(), peer.recv_ack());
    ended.expect("nothing is left");
    assert_eq!(disconnect.0, "DISCONNECT");
}

#[tokio::test]
async fn settings_that_contradict_the_login_are_refused() {
    let builder = |url| Client::builder(url).expect("a URL");
    let method = tokens(1, &always(), Carrier::default());
    let old = builder("mqtt://h").version(Version::V3_1_1).login(method);
    assert!(matches!(old.start(), Err(Error::Settings(_))));
    let bearer = tokens(1, &always(), Carrier::WebSocket);
    assert!(matches!(builder("mqtt://h").login(bearer).start(), Err(Error::Settings(_))));
}

#[tokio::test(start_paused = true)]
async fn a_step_that_a_token_does_not_have_is_an_error() {
    let (builder, mut place) = place();
    let login = tokens(100, &always(), Carrier::default());
    let (client, ()) = tokio::join!(builder.login(login).connect(), async {
        let mut peer = place.arrival().await;
        peer.recv_login().await;
        peer.send_auth(ReasonCode::ContinueAuthentication, OAUTH2_JWT, b"more?").await;
        assert!(peer.recv_end().await);
    });
    assert!(matches!(client, Err(Error::Login(_))));
}

#[cfg(feature = "scram")]
mod scram {
    use super::*;
    use whimbrel_client::ScramMechanism;
    use whimbrel_scram::{Mechanism, NONCE_BYTES, Request, StoredKeys};

    const METHOD: &str = "SCRAM-SHA-256";
    const CONTINUE: ReasonCode = ReasonCode::ContinueAuthentication;

    fn login() -> Login {
        Login::scram(ScramMechanism::Sha256, "ann", "pass word")
    }

    fn keys(mechanism: Mechanism, password: &str) -> StoredKeys {
        StoredKeys::new(mechanism, password, b"salt of the test", 4096).expect("a fine password")
    }

    /// Takes CONNECT and the client's proof; gives the broker's own, still to be sent.
    async fn proof(peer: &mut Peer, mechanism: Mechanism, password: &str) -> Vec<u8> {
        let shown = peer.recv_login().await;
        assert_eq!(shown.method.as_deref(), Some(mechanism.name()));
        assert_eq!((shown.user_name, shown.password), (None, None));
        let request = Request::parse(&shown.data).expect("client-first");
        assert_eq!(request.user(), "ann");
        let keys = keys(mechanism, password);
        let (server, challenge) = request.answer(&keys, &[7; NONCE_BYTES]);
        peer.send_auth(CONTINUE, mechanism.name(), &challenge).await;
        let (reason, method, data) = peer.recv_auth().await;
        assert_eq!((reason, &*method), (CONTINUE, mechanism.name()));
        server.finish(&data).expect("the right password")
    }

    #[tokio::test(start_paused = true)]
    async fn both_show_that_they_know_the_password() {
        for mechanism in [ScramMechanism::Sha256, ScramMechanism::Sha512] {
            let (builder, mut place) = place();
            let login = Login::scram(mechanism, "ann", "pass word");
            let (client, mut peer) = tokio::join!(builder.login(login).connect(), async {
                let mut peer = place.arrival().await;
                let last = proof(&mut peer, mechanism, "pass word").await;
                peer.send_consent(false, mechanism.name(), &last).await;
                peer
            });
            drop(client.expect("accepted").publish(Message::new("t", "x")).await.expect("taken"));
            assert_eq!(peer.recv_publish().await.payload, b"x");
        }
    }

    /// Whoever does not know the password gets nothing of what waits, and changes nothing.
    #[tokio::test(start_paused = true)]
    async fn an_impostor_is_found_out_before_anything_else_happens() {
        let (builder, mut place) = place();
        let client = builder.login(login()).start().expect("valid settings");
        let mut events = client.events();
        let message = |payload: &'static str| Message::new("t", payload).qos(QoS::ExactlyOnce);
        let pending = client.publish(message("in flight")).await.expect("taken");
        let mut inbox = {
            let subscribing = client.subscribe("t");
            let (inbox, id) = tokio::join!(subscribing, async {
                let mut peer = place.arrival().await;
                let last = proof(&mut peer, Mechanism::Sha256, "pass word").await;
                peer.send_consent(false, METHOD, &last).await;
                let mut id = None;
                for _ in 0..2 {
                    let (found, subscribed) = peer
                        .recv(|packet| match packet {
                            Packet::Publish(publish) => (publish.packet_id, None),
                            Packet::Subscribe(subscribe) => (None, Some(subscribe.packet_id)),
                            other => panic!("unexpected {other:?}"),
                        })
                        .await;
                    id = id.or(found);
                    if let Some(subscribed) = subscribed {
                        peer.send_suback(subscribed, ReasonCode::GrantedQos2).await;
                    }
                }
                id
            });
            assert!(id.is_some());
            inbox.expect("granted")
        };
        lost(&mut events).await;
        let queued = client.publish(message("queued")).await.expect("taken");

        let mut impostor = place.arrival().await;
        let mut last = proof(&mut impostor, Mechanism::Sha256, "pass word").await;
        last[5] ^= 1;
        impostor.send_consent(false, METHOD, &last).await;
        impostor.send_publish("t", "forged", None, QoS::AtMostOnce).await;
        assert!(impostor.recv_end().await, "nothing is sent");
        let why = lost(&mut events).await;
        assert!(matches!(&*why, Error::Login(_)), "{why}");
        assert!(!client.is_connected());

        let mut peer = place.arrival().await;
        let last = proof(&mut peer, Mechanism::Sha256, "pass word").await;
        peer.send_consent(true, METHOD, &last).await;
        let again = peer.recv_publish().await;
        assert_eq!((again.dup, &*again.payload), (true, &b"in flight"[..]), "as it was");
        assert_eq!(peer.recv_publish().await.payload, b"queued");
        peer.send_publish("t", "true", None, QoS::AtMostOnce).await;
        assert_eq!(inbox.next().await.expect("open").payload, "true");
        drop((pending, queued));
    }

    #[tokio::test(start_paused = true)]
    async fn a_broker_that_does_not_ask_for_the_proof_is_not_trusted() {
        let (builder, mut place) = place();
        let (client, ()) = tokio::join!(builder.login(login()).connect(), async {
            let mut peer = place.arrival().await;
            peer.recv_login().await;
            peer.send_consent(false, METHOD, b"").await;
            assert!(peer.recv_end().await);
        });
        assert!(matches!(client, Err(Error::Login(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn no_challenge_harms_the_client() {
        let nonce = "0123456789abcdef";
        type Attack<'a> = &'a dyn Fn(&str) -> Vec<u8>;
        let attacks: [Attack<'_>; 9] = [
            &|_| vec![],
            &|_| vec![0xff; 100],
            &|_| vec![b'x'; 60_000],
            &|own| format!("r={own},s=c2FsdA==,i=4096").into_bytes(),
            &|_| format!("r={nonce},s=c2FsdA==,i=4096").into_bytes(),
            &|own| format!("r={own}x,s=c2FsdA==,i=1").into_bytes(),
            &|own| format!("r={own}x,s=c2FsdA==,i=4294967295").into_bytes(),
            &|own| format!("r={own}x,s=!,i=4096").into_bytes(),
            &|own| format!("m=x,r={own}x,s=c2FsdA==,i=4096").into_bytes(),
        ];
        for (n, attack) in attacks.iter().enumerate() {
            let (builder, mut place) = place();
            let (client, ()) = tokio::join!(builder.login(login()).connect(), async {
                let mut peer = place.arrival().await;
                let first = String::from_utf8(peer.recv_login().await.data).expect("text");
                let (_, own) = first.split_once("r=").expect("a nonce");
                peer.send_auth(CONTINUE, METHOD, &attack(own)).await;
                assert!(peer.recv_end().await, "attack {n} is answered");
            });
            let error = client.err().expect("refused").to_string();
            assert!(!error.contains("pass word"), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_challenge_is_refused() {
        let (builder, mut place) = place();
        let (client, ()) = tokio::join!(builder.login(login()).connect(), async {
            let mut peer = place.arrival().await;
            proof(&mut peer, Mechanism::Sha256, "pass word").await;
            peer.send_auth(CONTINUE, METHOD, b"r=x,s=c2FsdA==,i=4096").await;
            assert!(peer.recv_end().await);
        });
        assert!(matches!(client, Err(Error::Login(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wrong_password_is_the_brokers_to_refuse() {
        let (builder, mut place) = place();
        let login = Login::scram(ScramMechanism::Sha256, "ann", "wrong");
        let (client, ()) = tokio::join!(builder.login(login).connect(), async {
            let mut peer = place.arrival().await;
            let request = Request::parse(&peer.recv_login().await.data).expect("client-first");
            let keys = keys(Mechanism::Sha256, "pass word");
            let (server, challenge) = request.answer(&keys, &[7; NONCE_BYTES]);
            peer.send_auth(CONTINUE, METHOD, &challenge).await;
            let (_, _, data) = peer.recv_auth().await;
            let fault = server.finish(&data).expect_err("a wrong password");
            let list = [
                Property::AuthenticationMethod(METHOD),
                Property::AuthenticationData(&fault.message()),
            ];
            let properties = whimbrel_codec::Properties::new(&list);
            let reason = ReasonCode::BadUserNameOrPassword;
            let ack = whimbrel_codec::ConnAck { session_present: false, reason, properties };
            peer.send(Packet::ConnAck(ack)).await;
        });
        let error = client.err().expect("refused");
        assert!(matches!(error, Error::Refused(ReasonCode::BadUserNameOrPassword, _)), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_scram_does_not_allow_is_said() {
        for (user, password) in [("ann", &b"bell \x07"[..]), ("ann", b"\xff"), ("\u{7}", b"x")] {
            let (builder, mut place) = place();
            let login = Login::scram(ScramMechanism::Sha512, user, password.to_vec());
            let error = builder.login(login).connect().await.err().expect("no login");
            assert!(matches!(error, Error::Login(_)), "{error}");
            assert!(!place.has_arrival());
        }
    }
}

/// Its DISCONNECT for the sake of the new connection is still on the way.
#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_for_a_new_connection_may_be_told_to_end() {
    let (builder, mut place) = place();
    let login = tokens(100, &always(), Carrier::Password { user_name: None });
    let client = builder.keep_alive_s(0).login(login).start().expect("valid settings");
    let mut peer = place.accept(false).await;
    sleep(Duration::from_secs(1)).await;
    // With what stands before the payload, twice as much as the network holds.
    let payload = vec![0; 2 * BUFFERED - 8];
    drop(client.publish(Message::new("t", payload)).await.expect("taken"));
    sleep(Duration::from_secs(80)).await;
    peer.take_bytes(BUFFERED).await;
    sleep(Duration::from_secs(1)).await;
    let (ended, ()) = tokio::join!(client.disconnect(), async {
        sleep(Duration::from_secs(1)).await;
        peer.take_bytes(BUFFERED + 2).await;
    });
    ended.expect("nothing is left");
    let closed = client.closed().await;
    assert!(closed.is_none(), "{closed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_does_not_read_cannot_hold_up_a_new_connection() {
    let (builder, mut place) = place();
    let login = tokens(100, &always(), Carrier::Password { user_name: None });
    let client = builder.keep_alive_s(0).login(login).start().expect("valid settings");
    let _peer = place.accept(false).await;
    sleep(Duration::from_secs(1)).await;
    drop(client.publish(Message::new("t", vec![0; 150_000])).await.expect("taken"));
    let before = Instant::now();
    place.arrival().await;
    assert!((99..=102).contains(&before.elapsed().as_secs()), "{:?}", before.elapsed());
}

/// The token ends while the client waits for acknowledgements before it ends itself.
#[tokio::test(start_paused = true)]
async fn a_token_that_ends_does_not_disturb_the_end() {
    let (builder, mut place) = place();
    let login = tokens(100, &always(), Carrier::Password { user_name: None });
    let builder = builder.session_expiry_s(0).drain_timeout(Duration::from_secs(30));
    let client = builder.login(login).start().expect("valid settings");
    let mut peer = place.accept(false).await;
    sleep(Duration::from_secs(1)).await;
    let message = Message::new("t", "x").qos(QoS::AtLeastOnce);
    drop(client.publish(message).await.expect("taken"));
    let id = peer.recv_publish().await.packet_id.expect("an identifier");
    let (ended, ()) = tokio::join!(
        async {
            sleep(Duration::from_secs(90)).await;
            client.disconnect().await
        },
        async {
            sleep(Duration::from_secs(110)).await;
            peer.send_puback(id).await;
        }
    );
    ended.expect("delivered");
}

/// The broker's limit is known only after CONNECT, which is not subject to it.
#[tokio::test(start_paused = true)]
async fn a_token_too_long_for_auth_is_renewed_by_a_new_connection() {
    let (builder, mut place) = place();
    let long = "x".repeat(200);
    let provider = move || {
        let token = Token::new(long.clone()).expires_in(Duration::from_secs(100));
        async move { Ok(token) }
    };
    let client = builder.login(Login::token(provider, Carrier::default()));
    let client = client.start().expect("valid settings");
    let mut peer = place.arrival().await;
    peer.recv_login().await;
    let list = [Property::AuthenticationMethod(OAUTH2_JWT), Property::MaximumPacketSizeBytes(100)];
    let (reason, properties) = (ReasonCode::Success, Properties::new(&list));
    peer.send(Packet::ConnAck(ConnAck { session_present: false, reason, properties })).await;
    loop {
        match peer.recv_ack().await.0 {
            "PINGREQ" => peer.send(Packet::PingResp).await,
            other => break assert_eq!(other, "DISCONNECT"),
        }
    }
    drop(peer);
    let mut peer = place.arrival().await;
    assert_eq!(peer.recv_login().await.data.len(), 200);
    peer.send_consent(true, OAUTH2_JWT, b"").await;
    drop(client.publish(Message::new("t", "x")).await.expect("taken"));
    assert_eq!(peer.recv_publish().await.payload, b"x");
}
