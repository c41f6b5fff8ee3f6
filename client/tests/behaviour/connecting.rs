//! Connecting, losing the connection, and ending.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use whimbrel_client::{
    Client, Connector, Error, Message, Opening, PublishError, QoS, Status, Version,
};
use whimbrel_codec::{ConnAck, Packet, Properties, Property, ReasonCode};

use crate::peer::place;

#[tokio::test(start_paused = true)]
async fn the_first_connection_is_clean_and_later_ones_go_on_with_the_session() {
    let (builder, mut place) = place();
    let (client, mut peer) = tokio::join!(builder.connect(), async {
        let mut peer = place.arrival().await;
        assert_eq!(peer.recv_connect().await, (true, "c".into()));
        peer.send_connack(false).await;
        peer
    });
    let client = client.expect("accepted");
    assert!(client.is_connected());
    peer.send_bytes(&[]).await;
    drop(peer);
    let mut peer = place.arrival().await;
    assert_eq!(peer.recv_connect().await, (false, "c".into()));
    peer.send_connack(true).await;
    client.publish(Message::new("t", "x")).await.expect("taken").await.expect("written");
    assert_eq!(peer.recv_publish().await.payload, b"x");
}

#[tokio::test(start_paused = true)]
async fn a_refused_first_connection_is_an_error_at_once() {
    let (builder, mut place) = place();
    let (client, ()) = tokio::join!(builder.connect(), async {
        let mut peer = place.arrival().await;
        peer.recv_connect().await;
        let reason = ReasonCode::BadUserNameOrPassword;
        let ack = ConnAck { session_present: false, reason, properties: Properties::NONE };
        peer.send(Packet::ConnAck(ack)).await;
    });
    let refused = matches!(client, Err(Error::Refused(ReasonCode::BadUserNameOrPassword, None)));
    assert!(refused);
    sleep(Duration::from_secs(100)).await;
    assert!(!place.has_arrival(), "it is not tried again");
}

#[tokio::test(start_paused = true)]
async fn attempts_are_made_at_growing_intervals_and_told() {
    let (builder, mut place) = place();
    let client = builder.start().expect("valid settings");
    let mut events = client.events();
    let mut last = Duration::ZERO;
    for _ in 0..5 {
        let before = Instant::now();
        drop(place.arrival().await);
        let Some(Status::Disconnected { retry_in: Some(wait), .. }) = events.next().await else {
            panic!("expected to be told of the loss");
        };
        assert!(wait >= last / 2 && wait <= Duration::from_secs(60), "{wait:?} after {last:?}");
        assert!(before.elapsed() <= last + Duration::from_secs(1));
        last = wait;
    }
    place.accept(false).await;
    assert!(matches!(events.next().await, Some(Status::Connected(_))));
}

const TAKEN_OVER: Packet<'_> = Packet::Disconnect(whimbrel_codec::Disconnect {
    reason: ReasonCode::SessionTakenOver,
    properties: Properties::NONE,
});

/// By an attempt of its own that reached the broker late; or by another, who comes again.
#[tokio::test(start_paused = true)]
async fn a_broker_that_accepts_and_at_once_gives_up_is_not_stormed() {
    let (builder, mut place) = place();
    let _client = builder.start().expect("valid settings");
    drop(place.accept(false).await);
    let mut lasting = Duration::ZERO;
    for whole_s in [1, 2, 4, 8] {
        let lost = Instant::now();
        let peer = place.accept(false).await;
        let (wait, whole) = (lost.elapsed(), Duration::from_secs(whole_s));
        assert!(wait >= whole / 2 && wait <= whole + Duration::from_millis(2), "{wait:?}");
        lasting = wait;
        drop(peer);
    }
    let peer = place.accept(false).await;
    sleep(lasting * 4).await;
    drop(peer);
    let lost = Instant::now();
    place.accept(false).await;
    assert!(lost.elapsed() <= Duration::from_millis(1002), "{:?}", lost.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_session_taken_over_at_once_is_taken_back_twice() {
    let (builder, mut place) = place();
    let client = builder.start().expect("valid settings");
    for _ in 0..3 {
        let mut peer = place.accept(false).await;
        peer.send(TAKEN_OVER).await;
    }
    client.closed().await.expect("an error");
    assert!(!place.has_arrival());
}

#[tokio::test(start_paused = true)]
async fn a_session_taken_over_ends_the_client() {
    let (builder, mut place) = place();
    let client = builder.start().expect("valid settings");
    let mut peer = place.accept(false).await;
    sleep(Duration::from_secs(10)).await;
    peer.send(TAKEN_OVER).await;
    let why = client.closed().await.expect("an error");
    assert!(matches!(*why, Error::Disconnected(ReasonCode::SessionTakenOver, None)));
    assert!(client.publish(Message::new("t", "x")).await.is_err());
    assert!(client.subscribe("t").await.is_err());
    assert!(!place.has_arrival());
}

#[tokio::test(start_paused = true)]
async fn disconnect_delivers_first_and_leaves_no_session_behind() {
    let (builder, mut place) = place();
    let client = builder.start().expect("valid settings");
    let message = Message::new("t", "x").qos(QoS::AtLeastOnce);
    let completion = client.publish(message).await.expect("queued");
    let (ended, ()) = tokio::join!(client.disconnect(), async {
        let mut peer = place.accept(false).await;
        let id = peer.recv_publish().await.packet_id.expect("an identifier");
        sleep(Duration::from_secs(5)).await;
        peer.send_puback(id).await;
        peer.recv(|packet| match packet {
            // [MQTT-3.14.2-2]
            Packet::Disconnect(disconnect) => {
                let list: Vec<_> = disconnect.properties.iter().collect();
                assert_eq!(list, [Property::SessionExpiryIntervalS(0)]);
            }
            other => panic!("expected DISCONNECT, got {other:?}"),
        })
        .await;
        // [MQTT-3.14.4-1] [MQTT-3.14.4-2]
        assert!(peer.recv_end().await);
    });
    ended.expect("delivered");
    completion.await.expect("acknowledged");
}

#[tokio::test(start_paused = true)]
async fn disconnect_tells_what_could_not_be_delivered() {
    let (builder, mut place) = place();
    let client = builder.start().expect("valid settings");
    drop(place.arrival().await);
    let completion = client.publish(Message::new("t", "x").qos(QoS::AtLeastOnce)).await;
    let before = Instant::now();
    let ended = client.disconnect().await;
    assert_eq!(ended.expect_err("no broker").messages, 1);
    assert!(before.elapsed() >= Duration::from_secs(10));
    assert!(completion.expect("queued").await.is_err());
}

#[tokio::test(start_paused = true)]
async fn the_last_handle_ends_the_client() {
    let (builder, mut place) = place();
    let client = builder.start().expect("valid settings");
    let mut peer = place.accept(false).await;
    let other = client.clone();
    drop(client);
    sleep(Duration::from_secs(1)).await;
    assert!(other.is_connected());
    drop(other);
    assert_eq!(peer.recv_ack().await.0, "DISCONNECT");
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_falls_silent_is_given_up() {
    let (builder, mut place) = place();
    let _client = builder.keep_alive_s(10).start().expect("valid settings");
    let mut peer = place.accept(false).await;
    let before = Instant::now();
    // [MQTT-3.1.2-20]
    assert_eq!(peer.recv_ack().await.0, "PINGREQ");
    peer.send(Packet::PingResp).await;
    assert_eq!(peer.recv_ack().await.0, "PINGREQ");
    assert!((19..=22).contains(&before.elapsed().as_secs()), "{:?}", before.elapsed());
    place.accept(true).await;
    assert!((29..=33).contains(&before.elapsed().as_secs()), "{:?}", before.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_kept_needs_an_identifier_before_5_0() {
    let builder = Client::builder("mqtt://nowhere").expect("a URL").version(Version::V3_1_1);
    assert!(matches!(builder.clean_start(false).start(), Err(Error::Settings(_))));
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_does_not_read_cannot_hold_up_the_end() {
    for len_bytes in [100_000, 200_000] {
        let (builder, mut place) = place();
        let client = builder.keep_alive_s(0).start().expect("valid settings");
        let _peer = place.accept(false).await;
        sleep(Duration::from_secs(1)).await;
        drop(client.publish(Message::new("t", vec![0; len_bytes])).await.expect("taken"));
        sleep(Duration::from_secs(1)).await;
        let before = Instant::now();
        let _ = client.disconnect().await;
        assert!(before.elapsed() < Duration::from_secs(12), "{:?}", before.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn the_longest_times_may_be_asked_for() {
    let (builder, mut place) = place();
    let builder = builder.drain_timeout(Duration::MAX).connect_timeout(Duration::MAX);
    let client = builder.start().expect("valid settings");
    let mut peer = place.accept(false).await;
    let (ended, ack) = tokio::join!(client.disconnect(), peer.recv_ack());
    ended.expect("nothing is left");
    assert_eq!(ack.0, "DISCONNECT");
}

#[tokio::test(start_paused = true)]
async fn a_property_of_disconnect_takes_the_place_of_the_clients_own() {
    let (builder, mut place) = place();
    let expiry = Property::SessionExpiryIntervalS(60);
    let client = builder.disconnect_property(expiry).start().expect("valid settings");
    let mut peer = place.accept(false).await;
    let (ended, ()) = tokio::join!(client.disconnect(), async {
        peer.recv(|packet| match packet {
            Packet::Disconnect(disconnect) => {
                assert_eq!(disconnect.properties.iter().collect::<Vec<_>>(), [expiry]);
            }
            other => panic!("expected DISCONNECT, got {other:?}"),
        })
        .await;
    });
    ended.expect("nothing is left");
}

#[tokio::test(start_paused = true)]
async fn a_will_that_cannot_be_said_is_refused() {
    let (builder, _place) = place();
    let long = "x".repeat(70_000);
    let will = Message::new("t", "x").content_type(&long);
    assert!(matches!(builder.will(will, 0).start(), Err(Error::Command(_))));
}

struct Broken;

impl Connector for Broken {
    fn open(&self) -> Opening<'_> {
        panic!("a fault of the application")
    }
}

#[tokio::test(start_paused = true)]
async fn a_connector_that_panics_ends_the_client() {
    let (builder, _place) = place();
    let client = builder.connector(Arc::new(Broken)).start().expect("valid settings");
    let completion = client.publish(Message::new("t", "x").qos(QoS::AtLeastOnce)).await;
    let outcome = timeout(Duration::from_secs(60), completion.expect("queued")).await;
    assert!(matches!(outcome, Ok(Err(PublishError::Closed(_)))), "{outcome:?}");
    let ended = timeout(Duration::from_secs(60), client.disconnect()).await;
    assert_eq!(ended.expect("an end").expect_err("one is left").messages, 1);
}

#[test]
fn the_end_of_its_runtime_ends_the_client() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build();
    let first = runtime().expect("a runtime");
    let (builder, _place) = place();
    let client = first.block_on(async { builder.start() }).expect("valid settings");
    drop(first);
    runtime().expect("a runtime").block_on(async {
        let end = timeout(Duration::from_secs(20), client.disconnect()).await;
        assert!(end.is_ok(), "it has ended");
    });
}

struct Silent;

impl Connector for Silent {
    fn open(&self) -> Opening<'_> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test(start_paused = true)]
async fn a_connector_that_takes_too_long_is_given_up() {
    let (builder, _place) = place();
    let client = builder.connector(Arc::new(Silent)).start().expect("valid settings");
    let mut events = client.events();
    let told = timeout(Duration::from_secs(60), events.next()).await;
    assert!(matches!(told, Ok(Some(Status::Disconnected { .. }))), "{told:?}");
}
