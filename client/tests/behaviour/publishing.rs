//! Publishing: completions, the queue, and what a lost connection does to messages.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use whimbrel_client::{Message, PublishError, QoS};
use whimbrel_codec::{Ack, Packet, Properties, Property, ReasonCode};

use crate::peer::place;

fn at_least_once(payload: &str) -> Message {
    Message::new("t", payload.to_owned()).qos(QoS::AtLeastOnce)
}

fn exactly_once(payload: &str) -> Message {
    Message::new("t", payload.to_owned()).qos(QoS::ExactlyOnce)
}

#[tokio::test(start_paused = true)]
async fn completions_tell_what_the_broker_said() {
    let (builder, mut place) = place();
    let client = builder.start().expect("valid settings");
    let mut peer = place.accept(false).await;
    let fine = client.publish(at_least_once("fine")).await.expect("taken");
    let refused = client.publish(at_least_once("refused")).await.expect("taken");
    let nobody = client.publish(exactly_once("nobody")).await.expect("taken");
    let id = peer.recv_publish().await.packet_id.expect("an identifier");
    peer.send_puback(id).await;
    let id = peer.recv_publish().await.packet_id.expect("an identifier");
    let properties = [Property::ReasonString("not you")];
    let reason = ReasonCode::NotAuthorized;
    let ack = Ack { packet_id: id, reason, properties: Properties::new(&properties) };
    peer.send(Packet::PubAck(ack)).await;
    let id = peer.recv_publish().await.packet_id.expect("an identifier");
    let reason = ReasonCode::NoMatchingSubscribers;
    peer.send(Packet::PubRec(Ack { reason, ..Ack::new(id) })).await;
    assert_eq!(peer.recv_ack().await, ("PUBREL", id.get(), ReasonCode::Success));
    peer.send(Packet::PubComp(Ack::new(id))).await;
    assert_eq!(fine.await.expect("acknowledged"), ReasonCode::Success);
    let Err(PublishError::Refused(ReasonCode::NotAuthorized, Some(text))) = refused.await else {
        panic!("expected a refusal");
    };
    assert_eq!(text, "not you");
    nobody.await.expect("acknowledged");
}

/// PUBCOMP was lost with the connection, and the broker has forgotten the message (section 4.4).
#[tokio::test(start_paused = true)]
async fn a_release_that_is_repeated_may_be_unknown_to_the_broker() {
    let (builder, mut place) = place();
    let client = builder.start().expect("valid settings");
    let mut peer = place.accept(false).await;
    let completion = client.publish(exactly_once("once")).await.expect("taken");
    let id = peer.recv_publish().await.packet_id.expect("an identifier");
    peer.send(Packet::PubRec(Ack::new(id))).await;
    assert_eq!(peer.recv_ack().await, ("PUBREL", id.get(), ReasonCode::Success));
    drop(peer);
    let mut peer = place.accept(true).await;
    assert_eq!(peer.recv_ack().await, ("PUBREL", id.get(), ReasonCode::Success));
    let reason = ReasonCode::PacketIdNotFound;
    peer.send(Packet::PubComp(Ack { reason, ..Ack::new(id) })).await;
    assert_eq!(completion.await.expect("it has arrived"), ReasonCode::Success);
}

#[tokio::test(start_paused = true)]
async fn messages_wait_for_the_broker_in_order() {
    let (builder, mut place) = place();
    let client = builder.start().expect("valid settings");
    let first = client.publish(Message::new("t", "0")).await.expect("queued");
    let second = client.publish(at_least_once("1")).await.expect("queued");
    let mut peer = place.accept(false).await;
    assert_eq!(peer.recv_publish().await.payload, b"0");
    let publish = peer.recv_publish().await;
    assert_eq!((publish.payload.as_slice(), publish.dup), (b"1".as_slice(), false));
    first.await.expect("written");
    peer.send_puback(publish.packet_id.expect("an identifier")).await;
    second.await.expect("acknowledged");
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_makes_publishers_wait_or_fail_as_asked() {
    let (builder, mut place) = place();
    let client = builder.queue(2, 1 << 20).start().expect("valid settings");
    for payload in ["0", "1"] {
        drop(client.publish(at_least_once(payload)).await.expect("queued"));
    }
    assert!(matches!(client.try_publish(at_least_once("x")), Err(PublishError::Full)));
    {
        let mut given_up = pin!(client.publish(at_least_once("given up")));
        let waits = poll_fn(|cx| Poll::Ready(given_up.as_mut().poll(cx).is_pending())).await;
        assert!(waits);
    }
    let other = client.clone();
    let waiting =
        tokio::spawn(async move { other.publish(at_least_once("2")).await.expect("taken").await });
    tokio::task::yield_now().await;
    let mut peer = place.accept(false).await;
    for payload in [b"0", b"1", b"2"] {
        let publish = peer.recv_publish().await;
        assert_eq!(publish.payload, payload);
        peer.send_puback(publish.packet_id.expect("an identifier")).await;
    }
    waiting.await.expect("no panic").expect("acknowledged");
    assert_eq!(client.undelivered(), 0);
}

#[tokio::test(start_paused = true)]
async fn bytes_bound_the_queue_too() {
    let (builder, _place) = place();
    let client = builder.queue(100, 1000).start().expect("valid settings");
    let large = Message::new("t", vec![0; 600]).qos(QoS::AtLeastOnce);
    drop(client.try_publish(large.clone()).expect("room"));
    drop(client.try_publish(large.clone()).expect("room"));
    assert!(matches!(client.try_publish(large), Err(PublishError::Full)));
}

#[tokio::test(start_paused = true)]
async fn messages_expire_in_the_queue_and_carry_what_is_left_of_their_time() {
    let (builder, mut place) = place();
    let client = builder.start().expect("valid settings");
    let short = client.publish(at_least_once("short").expiry_s(5)).await.expect("queued");
    drop(client.publish(at_least_once("long").expiry_s(60)).await.expect("queued"));
    sleep(Duration::from_secs(10)).await;
    assert!(matches!(short.await, Err(PublishError::Expired)));
    let publish = place.accept(false).await.recv_publish().await;
    assert_eq!(publish.payload, b"long");
    assert_eq!(publish.properties, ["MessageExpiryIntervalS(50)"]);
}

#[tokio::test(start_paused = true)]
async fn a_resumed_session_repeats_what_is_in_flight() {
    let (builder, mut place) = place();
    let client = builder.start().expect("valid settings");
    let mut peer = place.accept(false).await;
    let one = client.publish(at_least_once("1")).await.expect("taken");
    let two = client.publish(exactly_once("2")).await.expect("taken");
    let (first, second) = (peer.recv_publish().await, peer.recv_publish().await);
    let id = second.packet_id.expect("an identifier");
    peer.send(Packet::PubRec(Ack::new(id))).await;
    assert_eq!(peer.recv_ack().await.0, "PUBREL");
    drop(peer);
    let mut peer = place.accept(true).await;
    // [MQTT-4.4.0-1] [MQTT-3.3.1-1]
    let again = peer.recv_publish().await;
    assert!(again.dup && again.packet_id == first.packet_id && again.payload == b"1");
    assert_eq!(peer.recv_ack().await, ("PUBREL", id.get(), ReasonCode::Success));
    peer.send_puback(again.packet_id.expect("an identifier")).await;
    peer.send(Packet::PubComp(Ack::new(id))).await;
    one.await.expect("acknowledged");
    two.await.expect("acknowledged");
}

#[tokio::test(start_paused = true)]
async fn a_lost_session_begins_qos_1_anew_and_gives_qos_2_up() {
    let (builder, mut place) = place();
    let client = builder.start().expect("valid settings");
    let mut peer = place.accept(false).await;
    let one = client.publish(at_least_once("1")).await.expect("taken");
    let two = client.publish(exactly_once("2")).await.expect("taken");
    let there = client.publish(exactly_once("3")).await.expect("taken");
    for _ in 0..3 {
        let publish = peer.recv_publish().await;
        if publish.payload == b"3" {
            let id = publish.packet_id.expect("an identifier");
            peer.send(Packet::PubRec(Ack::new(id))).await;
            assert_eq!(peer.recv_ack().await.0, "PUBREL");
        }
    }
    drop(peer);
    let later = client.publish(at_least_once("4")).await.expect("queued");
    let mut peer = place.accept(false).await;
    for payload in [b"1", b"4"] {
        let publish = peer.recv_publish().await;
        assert!(!publish.dup && publish.payload == payload, "{publish:?}");
        peer.send_puback(publish.packet_id.expect("an identifier")).await;
    }
    one.await.expect("acknowledged");
    later.await.expect("acknowledged");
    assert!(matches!(two.await, Err(PublishError::SessionLost)));
    there.await.expect("PUBREC had come");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_published_is_refused() {
    let (builder, _place) = place();
    let client = builder.start().expect("valid settings");
    for topic in ["", "a/+", "#", "a\0"] {
        let refused = client.publish(Message::new(topic, "x")).await;
        assert!(matches!(refused, Err(PublishError::Invalid(_))), "{topic:?}");
    }
    let long = "x".repeat(70_000);
    let refused = client.publish(Message::new("t", "x").content_type(&long)).await;
    assert!(matches!(refused, Err(PublishError::Invalid(_))));
}

#[tokio::test(start_paused = true)]
async fn qos_0_completes_while_others_keep_the_connection_busy() {
    let (builder, mut place) = place();
    let client = builder.queue(16, 1 << 20).start().expect("valid settings");
    let mut peer = place.accept(false).await;
    let other = client.clone();
    let flood = tokio::spawn(async move {
        loop {
            drop(other.publish(Message::new("t", vec![0; 1000])).await.expect("taken"));
        }
    });
    for _ in 0..1000 {
        peer.recv_publish().await;
    }
    let one = tokio::spawn(async move { client.publish(Message::new("t", "one")).await });
    for _ in 0..1000 {
        peer.recv_publish().await;
    }
    flood.abort();
    let mut completion = pin!(one.await.expect("no panic").expect("taken"));
    let done = poll_fn(|cx| Poll::Ready(completion.as_mut().poll(cx).is_ready())).await;
    assert!(done, "it was written long ago");
}

#[tokio::test(start_paused = true)]
async fn room_that_comes_by_expiry_is_found_though_the_broker_does_not_read() {
    let (builder, mut place) = place();
    let client = builder.keep_alive_s(0).queue(1, 1 << 20).start().expect("valid settings");
    let _peer = place.accept(false).await;
    sleep(Duration::from_secs(1)).await;
    // More than the output takes, so what follows is queued.
    drop(client.publish(Message::new("t", vec![0; 500_000])).await.expect("taken"));
    drop(client.publish(at_least_once("short").expiry_s(5)).await.expect("queued"));
    let next = timeout(Duration::from_secs(60), client.publish(at_least_once("next"))).await;
    drop(next.expect("there is room after five seconds").expect("queued"));
}

/// The client took the session for ended, as it asked for; the broker had not noticed the loss.
#[tokio::test(start_paused = true)]
async fn a_session_that_should_have_ended_and_is_there_leaves_nothing_waiting() {
    let (builder, mut place) = place();
    let client = builder.session_expiry_s(0).start().expect("valid settings");
    let mut peer = place.accept(false).await;
    let one = client.publish(at_least_once("1")).await.expect("taken");
    let two = client.publish(exactly_once("2")).await.expect("taken");
    peer.recv_publish().await;
    peer.recv_publish().await;
    drop(peer);
    let mut peer = place.accept(true).await;
    let publish = peer.recv_publish().await;
    assert_eq!(publish.payload, b"1");
    peer.send_puback(publish.packet_id.expect("an identifier")).await;
    one.await.expect("acknowledged");
    assert!(matches!(two.await, Err(PublishError::SessionLost)));
    assert_eq!(client.undelivered(), 0);
}

/// At most one message without an acknowledgement, as small brokers want it.
const ONE: [Property<'_>; 1] = [Property::ReceiveMaximum(1)];

#[tokio::test(start_paused = true)]
async fn messages_go_out_in_order_when_the_broker_takes_one_at_a_time() {
    let (builder, mut place) = place();
    let client = builder.start().expect("valid settings");
    let mut peer = place.accept_with(false, &ONE).await;
    sleep(Duration::from_secs(1)).await;
    for message in [at_least_once("0"), at_least_once("1"), Message::new("t", "2")] {
        drop(client.publish(message).await.expect("taken"));
    }
    for payload in [b"0", b"1", b"2"] {
        let publish = peer.recv_publish().await;
        assert_eq!(publish.payload, payload);
        if let Some(id) = publish.packet_id {
            peer.send_puback(id).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn time_counts_for_messages_that_wait_for_acknowledgements_of_others() {
    let (builder, mut place) = place();
    let client = builder.start().expect("valid settings");
    let mut peer = place.accept_with(false, &ONE).await;
    sleep(Duration::from_secs(1)).await;
    drop(client.publish(at_least_once("first")).await.expect("taken"));
    let short = client.publish(at_least_once("short").expiry_s(5)).await.expect("taken");
    drop(client.publish(at_least_once("long").expiry_s(60)).await.expect("taken"));
    let id = peer.recv_publish().await.packet_id.expect("an identifier");
    sleep(Duration::from_secs(50)).await;
    peer.send_puback(id).await;
    let publish = peer.recv_publish().await;
    assert_eq!(publish.payload, b"long");
    assert_eq!(publish.properties, ["MessageExpiryIntervalS(10)"]);
    assert!(matches!(short.await, Err(PublishError::Expired)));
}

#[tokio::test(start_paused = true)]
async fn what_was_never_sent_is_not_given_up_with_the_session() {
    let (builder, mut place) = place();
    let client = builder.start().expect("valid settings");
    let mut peer = place.accept_with(false, &ONE).await;
    sleep(Duration::from_secs(1)).await;
    let sent = client.publish(exactly_once("sent")).await.expect("taken");
    drop(client.publish(exactly_once("waits")).await.expect("taken"));
    assert_eq!(peer.recv_publish().await.payload, b"sent");
    drop(peer);
    let mut peer = place.accept(false).await;
    assert_eq!(peer.recv_publish().await.payload, b"waits");
    assert!(matches!(sent.await, Err(PublishError::SessionLost)));
}

/// It would be sent again after each reconnect, to be refused with the connection again.
#[tokio::test(start_paused = true)]
async fn properties_that_no_broker_takes_in_a_message_are_refused() {
    let (builder, _place) = place();
    let client = builder.start().expect("valid settings");
    let twice = Message::new("t", "x").content_type("a").content_type("b");
    let foreign = Message::new("t", "x").property(Property::ReceiveMaximum(1));
    let wildcard = Message::new("t", "x").property(Property::ResponseTopic("a/#"));
    let ours = Message::new("t", "x").property(Property::SubscriptionIdentifier(1));
    for message in [twice, foreign, wildcard, ours] {
        let refused = client.publish(message.clone()).await;
        assert!(matches!(refused, Err(PublishError::Invalid(_))), "{message:?}");
    }
    let fine = Message::new("t", "x").user_property("a", "b").user_property("a", "b");
    assert!(client.publish(fine).await.is_ok());
}

/// A broker that reads nothing as long as it is not read from itself.
#[tokio::test(start_paused = true)]
async fn a_broker_that_waits_to_be_read_from_is_read() {
    let (builder, mut place) = place();
    let client = builder.start().expect("valid settings");
    let mut peer = place.accept(false).await;
    sleep(Duration::from_secs(1)).await;
    let before = Instant::now();
    for _ in 0..600 {
        drop(client.publish(Message::new("t", vec![0; 1000])).await.expect("taken"));
        sleep(Duration::from_millis(1)).await;
    }
    for _ in 0..200 {
        peer.send_publish("t", &"x".repeat(1000), None, QoS::AtMostOnce).await;
    }
    for _ in 0..600 {
        peer.recv_publish().await;
    }
    assert!(before.elapsed() < Duration::from_secs(10), "{:?}", before.elapsed());
}
