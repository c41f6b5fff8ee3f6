//! Subscriptions: routing, acknowledging, order, and lost connections.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tokio::time::{sleep, timeout};
use whimbrel_client::{
    AckError, Filter, Incoming, Message, PropertyList, QoS, SubscribeError, Subscription, WhenFull,
};
use whimbrel_codec::{Ack, Packet, PacketId, Properties, Property, Publish, ReasonCode};

use crate::peer::{Peer, place};

async fn next(subscription: &mut Subscription) -> Incoming {
    let patience = timeout(Duration::from_secs(600), subscription.next()).await;
    patience.expect("a message in time").expect("a message")
}

/// True if the subscription has nothing to give.
async fn is_empty(subscription: &mut Subscription) -> bool {
    timeout(Duration::from_secs(1), subscription.next()).await.is_err()
}

async fn send_for(peer: &mut Peer, topic: &str, identifiers: &[u32]) {
    let list: Vec<_> = identifiers.iter().map(|id| Property::SubscriptionIdentifier(*id)).collect();
    let properties = Properties::new(&list);
    peer.send(Packet::Publish(Publish { properties, ..Publish::new(topic, b"x") })).await;
}

#[tokio::test(start_paused = true)]
async fn a_message_is_acknowledged_when_it_is_taken() {
    let (builder, mut place) = place();
    let client = builder.start().expect("valid settings");
    let mut peer = place.accept(false).await;
    let (subscription, filter) =
        tokio::join!(client.subscribe(Filter::new("a/#").qos(QoS::ExactlyOnce)), peer.grant());
    let mut subscription = subscription.expect("granted");
    assert_eq!((filter.as_str(), subscription.granted_qos()), ("a/#", QoS::ExactlyOnce));
    peer.send_publish("a/b", "1", Some(7), QoS::AtLeastOnce).await;
    peer.send_publish("a", "2", Some(8), QoS::ExactlyOnce).await;
    sleep(Duration::from_secs(1)).await;
    peer.send(Packet::PingResp).await;
    let message = next(&mut subscription).await;
    assert_eq!((&*message.topic, &message.payload[..]), ("a/b", b"1".as_slice()));
    assert_eq!(peer.recv_ack().await, ("PUBACK", 7, ReasonCode::Success));
    next(&mut subscription).await;
    assert_eq!(peer.recv_ack().await, ("PUBREC", 8, ReasonCode::Success));
    peer.send(Packet::PubRel(Ack::new(PacketId::new(8).expect("not 0")))).await;
    assert_eq!(peer.recv_ack().await, ("PUBCOMP", 8, ReasonCode::Success));
}

#[tokio::test(start_paused = true)]
async fn acknowledgements_by_hand_go_out_in_the_order_of_the_messages() {
    let (builder, mut place) = place();
    let client = builder.start().expect("valid settings");
    let mut peer = place.accept(false).await;
    let filter = Filter::new("a").qos(QoS::AtLeastOnce).manual_ack();
    let (subscription, _) = tokio::join!(client.subscribe(filter), peer.grant());
    let mut subscription = subscription.expect("granted");
    for id in 1..=3 {
        peer.send_publish("a", "x", Some(id), QoS::AtLeastOnce).await;
    }
    let mut messages = Vec::new();
    for _ in 0..3 {
        messages.push(next(&mut subscription).await);
    }
    // [MQTT-4.6.0-2]
    messages[2].ack().expect("connected");
    messages[1].reject(ReasonCode::QuotaExceeded).expect("connected");
    messages[0].ack().expect("connected");
    assert_eq!(peer.recv_ack().await, ("PUBACK", 1, ReasonCode::Success));
    assert_eq!(peer.recv_ack().await, ("PUBACK", 2, ReasonCode::QuotaExceeded));
    assert_eq!(peer.recv_ack().await, ("PUBACK", 3, ReasonCode::Success));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_acknowledged_comes_again_and_only_once_to_who_has_not_taken_it() {
    let (builder, mut place) = place();
    let client = builder.start().expect("valid settings");
    let mut peer = place.accept(false).await;
    let filter = Filter::new("a").qos(QoS::ExactlyOnce);
    let (subscription, _) = tokio::join!(client.subscribe(filter), peer.grant());
    let mut subscription = subscription.expect("granted");
    let (by_hand, _) = tokio::join!(
        client.subscribe(Filter::new("h").qos(QoS::AtLeastOnce).manual_ack()),
        peer.grant()
    );
    let mut by_hand = by_hand.expect("granted");
    peer.send_publish("h", "x", Some(1), QoS::AtLeastOnce).await;
    peer.send_publish("a", "x", Some(2), QoS::ExactlyOnce).await;
    let mut held = next(&mut by_hand).await;
    drop(peer);
    let mut peer = place.accept(true).await;
    assert_eq!(held.ack(), Err(AckError::ConnectionLost));
    assert!(is_empty(&mut subscription).await, "it waits for the broker to send it again");
    peer.send_publish("h", "x", Some(1), QoS::AtLeastOnce).await;
    peer.send_publish("a", "x", Some(2), QoS::ExactlyOnce).await;
    next(&mut by_hand).await.ack().expect("connected");
    next(&mut subscription).await;
    assert!(is_empty(&mut subscription).await);
}

#[tokio::test(start_paused = true)]
async fn what_came_before_the_session_was_lost_is_still_delivered() {
    let (builder, mut place) = place();
    let client = builder.start().expect("valid settings");
    let mut peer = place.accept(false).await;
    let filter = Filter::new("a").qos(QoS::AtLeastOnce);
    let (subscription, _) = tokio::join!(client.subscribe(filter), peer.grant());
    let mut subscription = subscription.expect("granted");
    peer.send_publish("a", "x", Some(1), QoS::AtLeastOnce).await;
    sleep(Duration::from_secs(1)).await;
    drop(peer);
    let mut peer = place.accept(false).await;
    assert_eq!(peer.grant().await, "a", "it subscribes again");
    assert_eq!(&next(&mut subscription).await.payload[..], b"x");
}

#[tokio::test(start_paused = true)]
async fn overlapping_subscriptions_get_what_is_theirs() {
    let (builder, mut place) = place();
    let client = builder.start().expect("valid settings");
    let mut peer = place.accept(false).await;
    let (all, _) = tokio::join!(client.subscribe("a/#"), peer.grant());
    let (one, _) = tokio::join!(client.subscribe("a/b"), peer.grant());
    let (mut all, mut one) = (all.expect("granted"), one.expect("granted"));
    // Once for each, as one broker does; then once for both, as another.
    send_for(&mut peer, "a/b", &[1]).await;
    send_for(&mut peer, "a/b", &[2]).await;
    send_for(&mut peer, "a/b", &[1, 2]).await;
    send_for(&mut peer, "a/c", &[1]).await;
    for subscription in [&mut all, &mut one] {
        for _ in 0..2 {
            assert_eq!(&*next(subscription).await.topic, "a/b");
        }
    }
    assert_eq!(&*next(&mut all).await.topic, "a/c");
    assert!(is_empty(&mut one).await && is_empty(&mut all).await);
}

#[tokio::test(start_paused = true)]
async fn several_consumers_of_a_filter_each_get_everything_or_share_it() {
    let (builder, mut place) = place();
    let client = builder.start().expect("valid settings");
    let mut peer = place.accept(false).await;
    let filter = Filter::new("a").qos(QoS::AtLeastOnce);
    let (first, _) = tokio::join!(client.subscribe(filter.clone()), peer.grant());
    let (second, _) = tokio::join!(client.subscribe(filter), peer.grant());
    let (mut first, mut second) = (first.expect("granted"), second.expect("granted"));
    let mut third = second.clone();
    for id in 1..=2 {
        peer.send_publish("a", "x", Some(id), QoS::AtLeastOnce).await;
    }
    next(&mut first).await;
    next(&mut first).await;
    next(&mut second).await;
    assert_eq!(peer.recv_ack().await, ("PUBACK", 1, ReasonCode::Success));
    next(&mut third).await;
    assert_eq!(peer.recv_ack().await, ("PUBACK", 2, ReasonCode::Success));
    assert!(is_empty(&mut second).await);
}

#[tokio::test(start_paused = true)]
async fn a_refused_subscription_is_an_error() {
    let (builder, mut place) = place();
    let client = builder.start().expect("valid settings");
    let mut peer = place.accept(false).await;
    let (subscription, ()) = tokio::join!(client.subscribe("a"), async {
        let (_, id, _) = peer.recv_subscribe().await;
        peer.send_suback(id, ReasonCode::NotAuthorized).await;
    });
    let refused = matches!(subscription, Err(SubscribeError::Refused(ReasonCode::NotAuthorized)));
    assert!(refused);
    drop(peer);
    let mut peer = place.accept(false).await;
    let (_subscription, filter) = tokio::join!(client.subscribe("b"), peer.grant());
    assert_eq!(filter, "b", "what was refused is not asked for again");
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_is_given_up_is_taken_back() {
    let (builder, mut place) = place();
    let client = builder.start().expect("valid settings");
    let mut peer = place.accept(false).await;
    {
        let mut given_up = pin!(client.subscribe("a"));
        let waits = poll_fn(|cx| Poll::Ready(given_up.as_mut().poll(cx).is_pending())).await;
        assert!(waits);
        peer.recv_subscribe().await;
    }
    let (filter, id) = peer.recv_unsubscribe().await;
    assert_eq!(filter, "a");
    peer.send_unsuback(id).await;
}

#[tokio::test(start_paused = true)]
async fn a_dropped_stream_unsubscribes_and_a_kept_session_keeps_it() {
    for kept in [false, true] {
        let (builder, mut place) = place();
        let expiry_s = if kept { 3600 } else { 0 };
        let client = builder.session_expiry_s(expiry_s).start().expect("valid settings");
        let mut peer = place.accept(false).await;
        let filter = Filter::new("a").qos(QoS::AtLeastOnce);
        let (subscription, _) = tokio::join!(client.subscribe(filter.clone()), peer.grant());
        peer.send_publish("a", "x", Some(1), QoS::AtLeastOnce).await;
        sleep(Duration::from_secs(1)).await;
        drop(subscription);
        if !kept {
            assert_eq!(peer.recv_ack().await, ("PUBACK", 1, ReasonCode::Success));
            assert_eq!(peer.recv_unsubscribe().await.0, "a");
            continue;
        }
        let (again, _) = tokio::join!(client.subscribe(filter), peer.grant());
        next(&mut again.expect("granted")).await;
        assert_eq!(peer.recv_ack().await, ("PUBACK", 1, ReasonCode::Success));
    }
}

#[tokio::test(start_paused = true)]
async fn messages_of_a_kept_session_wait_until_somebody_subscribes() {
    let (builder, mut place) = place();
    let builder = builder.clean_start(false).session_expiry_s(3600);
    let client = builder.start().expect("valid settings");
    let mut peer = place.accept(true).await;
    peer.send_publish("a", "x", Some(1), QoS::AtLeastOnce).await;
    sleep(Duration::from_secs(1)).await;
    let filter = Filter::new("a").qos(QoS::AtLeastOnce);
    let (subscription, _) = tokio::join!(client.subscribe(filter), peer.grant());
    assert_eq!(&next(&mut subscription.expect("granted")).await.payload[..], b"x");
    assert_eq!(peer.recv_ack().await, ("PUBACK", 1, ReasonCode::Success));
}

#[tokio::test(start_paused = true)]
async fn a_slow_consumer_of_qos_0_misses_messages_or_stops_the_broker_as_asked() {
    let (builder, mut place) = place();
    let client = builder.start().expect("valid settings");
    let mut peer = place.accept(false).await;
    let drops = Filter::new("d").queue(2, WhenFull::Drop);
    let waits = Filter::new("w").queue(2, WhenFull::Wait);
    let (drops, _) = tokio::join!(client.subscribe(drops), peer.grant());
    let (waits, _) = tokio::join!(client.subscribe(waits), peer.grant());
    let (mut drops, mut waits) = (drops.expect("granted"), waits.expect("granted"));
    for _ in 0..5 {
        peer.send_publish("d", "x", None, QoS::AtMostOnce).await;
        peer.send_publish("w", "x", None, QoS::AtMostOnce).await;
        sleep(Duration::from_millis(10)).await;
    }
    for _ in 0..5 {
        next(&mut waits).await;
    }
    for _ in 0..2 {
        next(&mut drops).await;
    }
    assert!(is_empty(&mut drops).await && is_empty(&mut waits).await);
    assert!(drops.missed() > 0 && waits.missed() == 0);
}

#[tokio::test(start_paused = true)]
async fn unsubscribing_waits_for_the_answer_and_ends_the_stream() {
    let (builder, mut place) = place();
    let client = builder.session_expiry_s(3600).start().expect("valid settings");
    let mut peer = place.accept(false).await;
    let (subscription, _) = tokio::join!(client.subscribe("a"), peer.grant());
    let subscription = subscription.expect("granted");
    let mut clone = subscription.clone();
    let (answer, ()) = tokio::join!(subscription.unsubscribe(), async {
        let (filter, id) = peer.recv_unsubscribe().await;
        assert_eq!(filter, "a");
        peer.send_unsuback(id).await;
    });
    assert_eq!(answer.expect("granted"), ReasonCode::Success);
    assert!(clone.next().await.is_none());
}

/// Retained messages that come by no stream, order across filters, and no identifiers of ours.
#[tokio::test(start_paused = true)]
async fn all_messages_come_once_and_in_order() {
    let (builder, mut place) = place();
    let client = builder.start().expect("valid settings");
    let mut peer = place.accept(false).await;
    peer.send_publish("early", "0", Some(1), QoS::AtLeastOnce).await;
    sleep(Duration::from_secs(1)).await;
    let mut all = client.all_messages(8, WhenFull::Wait);
    let filter = |name: &str| {
        let mut filter = Filter::new(name);
        filter.properties.push(Property::SubscriptionIdentifier(9));
        filter
    };
    for name in ["a/#", "a/b"] {
        let (reason, subscribe) = tokio::join!(client.subscribe_for_all(filter(name)), async {
            let (filter, id, properties) = peer.recv_subscribe().await;
            peer.send_suback(id, ReasonCode::GrantedQos1).await;
            (filter, properties)
        });
        assert_eq!(reason.expect("granted"), ReasonCode::GrantedQos1);
        assert_eq!(subscribe, (name.into(), vec!["SubscriptionIdentifier(9)".into()]));
    }
    let (own, _) = tokio::join!(client.subscribe("c"), peer.grant());
    let mut own = own.expect("granted");
    peer.send_publish("a/b", "1", Some(2), QoS::AtLeastOnce).await;
    peer.send_publish("c", "2", None, QoS::AtMostOnce).await;
    peer.send_publish("a/c", "3", Some(3), QoS::AtLeastOnce).await;
    for (number, ack) in [("0", Some(1)), ("1", Some(2)), ("2", None), ("3", Some(3))] {
        let message = timeout(Duration::from_secs(1), all.next()).await.expect("in time");
        assert_eq!(&message.expect("a message").payload[..], number.as_bytes());
        if let Some(id) = ack {
            assert_eq!(peer.recv_ack().await, ("PUBACK", id, ReasonCode::Success));
        }
    }
    assert_eq!(&next(&mut own).await.payload[..], b"2");
    drop(peer);
    let mut peer = place.accept(false).await;
    let mut again = vec![peer.grant().await, peer.grant().await, peer.grant().await];
    again.sort();
    assert_eq!(again, ["a/#", "a/b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn all_messages_are_acknowledged_by_hand_if_asked_for() {
    let (builder, mut place) = place();
    let client = builder.start().expect("valid settings");
    let mut peer = place.accept(false).await;
    let mut all = client.all_messages(8, WhenFull::Wait).manual_ack();
    assert!(all.try_next().is_none());
    for id in 1..=3 {
        peer.send_publish("a", "x", Some(id), QoS::ExactlyOnce).await;
    }
    let mut batch = vec![all.next().await.expect("a message")];
    sleep(Duration::from_secs(1)).await;
    batch.extend(std::iter::from_fn(|| all.try_next()));
    assert_eq!(batch.len(), 3);
    batch[0].ack().expect("connected");
    batch[1].ack().expect("connected");
    for id in 1..=2 {
        assert_eq!(peer.recv_ack().await, ("PUBREC", id, ReasonCode::Success));
    }
    drop(peer);
    let mut peer = place.accept(true).await;
    assert_eq!(batch[2].ack(), Err(AckError::ConnectionLost));
    peer.send_publish("a", "x", Some(3), QoS::ExactlyOnce).await;
    all.next().await.expect("a message").ack().expect("connected");
    assert_eq!(peer.recv_ack().await, ("PUBREC", 3, ReasonCode::Success));
}

/// Whoever acknowledges by hand cannot do so any more; the broker keeps it for the next client.
#[tokio::test(start_paused = true)]
async fn what_comes_again_to_another_client_is_not_given_to_this_one() {
    for kept in [false, true] {
        let (builder, mut place) = place();
        let expiry_s = if kept { 3600 } else { 0 };
        let builder = builder.session_expiry_s(expiry_s).reconnect(false);
        let client = builder.start().expect("valid settings");
        let mut peer = place.accept(false).await;
        let mut all = client.all_messages(8, WhenFull::Wait).manual_ack();
        peer.send_publish("a", "x", Some(1), QoS::AtLeastOnce).await;
        sleep(Duration::from_secs(1)).await;
        drop(peer);
        client.closed().await;
        let last = all.next().await;
        assert_eq!(last.is_none(), kept);
        if let Some(mut last) = last {
            assert_eq!(last.ack(), Ok(()));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_filter_that_is_wanted_again_is_not_unsubscribed_after_a_reconnect() {
    let (builder, mut place) = place();
    let client = builder.start().expect("valid settings");
    let mut peer = place.accept(false).await;
    let (first, _) = tokio::join!(client.subscribe("a"), peer.grant());
    drop(first);
    assert_eq!(peer.recv_unsubscribe().await.0, "a");
    let (second, ()) = tokio::join!(client.subscribe("a"), async {
        peer.recv_subscribe().await;
        // Neither is answered.
        drop(peer);
        let mut peer = place.accept(true).await;
        peer.grant().await;
        client.publish(Message::new("t", "x")).await.expect("taken").await.expect("written");
        assert_eq!(peer.recv_publish().await.payload, b"x", "and no UNSUBSCRIBE before it");
    });
    second.expect("granted");
}

#[tokio::test(start_paused = true)]
async fn a_filter_that_cannot_be_unsubscribed_is_refused_and_disturbs_no_other() {
    let (builder, mut place) = place();
    let client = builder.start().expect("valid settings");
    let mut peer = place.accept(false).await;
    let patience = Duration::from_secs(60);
    let refused = timeout(patience, client.unsubscribe("a/#/b", PropertyList::new())).await;
    assert!(matches!(refused, Ok(Err(SubscribeError::Invalid(_)))), "{refused:?}");
    let mut long = PropertyList::new();
    long.push(Property::UserProperty("name", &"x".repeat(70_000)));
    let refused = timeout(patience, client.unsubscribe("a", long)).await;
    assert!(matches!(refused, Ok(Err(SubscribeError::Invalid(_)))), "{refused:?}");
    let (answer, ()) = tokio::join!(client.unsubscribe("a", PropertyList::new()), async {
        let (filter, id) = peer.recv_unsubscribe().await;
        assert_eq!(filter, "a");
        peer.send_unsuback(id).await;
    });
    answer.expect("done");
}

#[tokio::test(start_paused = true)]
async fn an_unsubscribe_that_a_new_subscription_overtakes_has_an_answer() {
    let (builder, mut place) = place();
    let client = builder.start().expect("valid settings");
    let leaving = client.unsubscribe("a", PropertyList::new());
    let (left, came, _) = tokio::join!(leaving, client.subscribe("a"), async {
        let mut peer = place.accept(false).await;
        peer.grant().await;
        peer
    });
    came.expect("granted");
    left.expect("there is nothing left to do");
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_that_is_left_lets_the_broker_be_read_again() {
    for kept in [false, true] {
        let (builder, mut place) = place();
        let expiry_s = if kept { 3600 } else { 0 };
        let builder = builder.keep_alive_s(0).session_expiry_s(expiry_s);
        let client = builder.start().expect("valid settings");
        let mut peer = place.accept(false).await;
        let waits = Filter::new("w").queue(1, WhenFull::Wait);
        let (waits, _) = tokio::join!(client.subscribe(waits), peer.grant());
        let (other, _) = tokio::join!(client.subscribe("a"), peer.grant());
        let mut other = other.expect("granted");
        let all = client.all_messages(1, WhenFull::Wait);
        // No timer of the beginning wakes the client.
        sleep(Duration::from_secs(60)).await;
        peer.send_publish("w", "x", None, QoS::AtMostOnce).await;
        sleep(Duration::from_secs(1)).await;
        peer.send_publish("a", "x", None, QoS::AtMostOnce).await;
        sleep(Duration::from_secs(1)).await;
        drop(waits);
        sleep(Duration::from_secs(1)).await;
        drop(all);
        next(&mut other).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_does_not_keep_the_client_from_connecting() {
    let (builder, mut place) = place();
    let client = builder.start().expect("valid settings");
    let mut peer = place.accept(false).await;
    let waits = Filter::new("w").queue(1, WhenFull::Wait);
    let (waits, _) = tokio::join!(client.subscribe(waits), peer.grant());
    let _waits = waits.expect("granted");
    peer.send_publish("w", "x", None, QoS::AtMostOnce).await;
    sleep(Duration::from_secs(1)).await;
    drop(peer);
    // Nothing is read while the queue is full, so the loss is noticed by what is written.
    let message = Message::new("t", "x").qos(QoS::AtLeastOnce);
    drop(client.publish(message).await.expect("taken"));
    let mut peer = place.accept(true).await;
    assert_eq!(peer.recv_publish().await.payload, b"x");
}

/// Acknowledgements keep their order, so one that is never given would hold back all others.
#[tokio::test(start_paused = true)]
async fn a_consumer_that_leaves_holds_no_acknowledgement_back() {
    for kept in [false, true] {
        let (builder, mut place) = place();
        let expiry_s = if kept { 3600 } else { 0 };
        let client = builder.session_expiry_s(expiry_s).start().expect("valid settings");
        let mut peer = place.accept(false).await;
        let filter = Filter::new("a").qos(QoS::AtLeastOnce);
        let (first, _) = tokio::join!(client.subscribe(filter.clone()), peer.grant());
        peer.send_publish("a", "x", Some(1), QoS::AtLeastOnce).await;
        sleep(Duration::from_secs(1)).await;
        let (second, _) = tokio::join!(client.subscribe(filter), peer.grant());
        let mut second = second.expect("granted");
        peer.send_publish("a", "x", Some(2), QoS::AtLeastOnce).await;
        sleep(Duration::from_secs(1)).await;
        next(&mut second).await;
        drop(first);
        assert_eq!(peer.recv_ack().await, ("PUBACK", 1, ReasonCode::Success));
        assert_eq!(peer.recv_ack().await, ("PUBACK", 2, ReasonCode::Success));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_everything_that_ends_holds_no_acknowledgement_back() {
    let (builder, mut place) = place();
    let client = builder.start().expect("valid settings");
    let mut peer = place.accept(false).await;
    let all = client.all_messages(8, WhenFull::Wait);
    let filter = Filter::new("a").qos(QoS::AtLeastOnce);
    let (own, _) = tokio::join!(client.subscribe(filter), peer.grant());
    peer.send_publish("a", "x", Some(1), QoS::AtLeastOnce).await;
    let mut own = own.expect("granted");
    next(&mut own).await;
    drop(all);
    assert_eq!(peer.recv_ack().await, ("PUBACK", 1, ReasonCode::Success));
}

#[tokio::test(start_paused = true)]
async fn overlapping_filters_that_are_left_hold_no_acknowledgement_back() {
    let (builder, mut place) = place();
    let client = builder.session_expiry_s(0).start().expect("valid settings");
    let mut peer = place.accept(false).await;
    let filter = |name: &str| Filter::new(name).qos(QoS::AtLeastOnce);
    let (wide, _) = tokio::join!(client.subscribe(filter("a/#")), peer.grant());
    let (narrow, _) = tokio::join!(client.subscribe(filter("a/b")), peer.grant());
    let mut narrow = narrow.expect("granted");
    for id in 1..=2u16 {
        let list = [Property::SubscriptionIdentifier(id.into())];
        let properties = Properties::new(&list);
        let (qos, packet_id) = (QoS::AtLeastOnce, PacketId::new(id));
        let publish = Publish { qos, packet_id, properties, ..Publish::new("a/b", b"x") };
        peer.send(Packet::Publish(publish)).await;
    }
    next(&mut narrow).await;
    drop(wide);
    let mut acks = Vec::new();
    while acks.len() < 2 {
        let ack = peer.recv(|packet| match packet {
            Packet::PubAck(ack) => Some(ack.packet_id.get()),
            _ => None,
        });
        acks.extend(ack.await);
    }
    assert_eq!(acks, [1, 2]);
}

/// The broker says good-bye, and the client waits a moment for it to close.
#[tokio::test(start_paused = true)]
async fn exactly_once_holds_for_what_is_taken_while_the_connection_ends() {
    let (builder, mut place) = place();
    let client = builder.start().expect("valid settings");
    let mut peer = place.accept(false).await;
    let filter = Filter::new("a").qos(QoS::ExactlyOnce);
    let (subscription, _) = tokio::join!(client.subscribe(filter), peer.grant());
    let mut subscription = subscription.expect("granted");
    peer.send_publish("a", "x", Some(1), QoS::ExactlyOnce).await;
    peer.send_disconnect(ReasonCode::ServerShuttingDown).await;
    sleep(Duration::from_millis(100)).await;
    let early = timeout(Duration::from_millis(100), subscription.next()).await;
    let mut peer = place.accept(true).await;
    peer.send_publish("a", "x", Some(1), QoS::ExactlyOnce).await;
    let late = timeout(Duration::from_secs(60), subscription.next()).await;
    assert!(early.is_ok() != late.is_ok(), "{early:?} {late:?}");
}

#[tokio::test(start_paused = true)]
async fn a_message_can_be_acknowledged_after_a_reason_that_is_none() {
    let (builder, mut place) = place();
    let client = builder.start().expect("valid settings");
    let mut peer = place.accept(false).await;
    let filter = Filter::new("a").qos(QoS::AtLeastOnce).manual_ack();
    let (subscription, _) = tokio::join!(client.subscribe(filter), peer.grant());
    peer.send_publish("a", "x", Some(1), QoS::AtLeastOnce).await;
    let mut subscription = subscription.expect("granted");
    let mut message = next(&mut subscription).await;
    let refused = message.reject(ReasonCode::KeepAliveTimeout);
    assert!(matches!(refused, Err(AckError::Invalid(_))), "{refused:?}");
    message.ack().expect("connected");
    assert_eq!(peer.recv_ack().await, ("PUBACK", 1, ReasonCode::Success));
}

/// A consumer that is polled by ever new tasks while nothing comes.
#[tokio::test(start_paused = true)]
async fn tasks_that_have_stopped_waiting_are_forgotten() {
    struct Task;
    impl Wake for Task {
        fn wake(self: Arc<Self>) {}
    }
    let (builder, mut place) = place();
    let client = builder.start().expect("valid settings");
    let mut peer = place.accept(false).await;
    let (subscription, _) = tokio::join!(client.subscribe("a"), peer.grant());
    let mut subscription = subscription.expect("granted");
    let mut tasks = Vec::new();
    for _ in 0..100 {
        let task = Arc::new(Task);
        tasks.push(Arc::downgrade(&task));
        let waker = Waker::from(task);
        let waits = pin!(subscription.next()).poll(&mut Context::from_waker(&waker)).is_pending();
        assert!(waits);
    }
    let kept = tasks.iter().filter(|task| task.strong_count() > 0).count();
    assert!(kept <= 1, "{kept} tasks are kept");
}

#[tokio::test(start_paused = true)]
async fn exactly_once_holds_for_each_of_two_consumers_over_a_reconnect() {
    for both_stay in [true, false] {
        let (builder, mut place) = place();
        let client = builder.start().expect("valid settings");
        let mut peer = place.accept(false).await;
        let filter = Filter::new("a").qos(QoS::ExactlyOnce);
        let (first, _) = tokio::join!(client.subscribe(filter.clone()), peer.grant());
        let (second, _) = tokio::join!(client.subscribe(filter), peer.grant());
        let (mut first, second) = (first.expect("granted"), second.expect("granted"));
        peer.send_publish("a", "x", Some(1), QoS::ExactlyOnce).await;
        next(&mut first).await;
        drop(peer);
        sleep(Duration::from_millis(100)).await;
        let mut second = both_stay.then_some(second);
        let mut peer = place.accept(true).await;
        let (qos, packet_id) = (QoS::ExactlyOnce, PacketId::new(1));
        let again = Publish { qos, packet_id, dup: true, ..Publish::new("a", b"x") };
        peer.send(Packet::Publish(again)).await;
        if let Some(second) = &mut second {
            next(second).await;
            assert!(is_empty(second).await);
        }
        assert!(is_empty(&mut first).await, "it has the message already");
        assert_eq!(peer.recv_ack().await, ("PUBREC", 1, ReasonCode::Success));
    }
}
