//! Requests and their responses.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use whimbrel_client::{Message, RequestError, SubscribeError, Version};
use whimbrel_codec::{Packet, Properties, Property, Publish, ReasonCode};

use crate::peer::{Peer, place};

const PATIENCE: Duration = Duration::from_secs(10);

/// The next request: its payload, where its response goes, and what belongs to it.
async fn recv_request(peer: &mut Peer) -> (Vec<u8>, String, Vec<u8>) {
    peer.recv(|packet| {
        let Packet::Publish(publish) = packet else { panic!("expected PUBLISH, got {packet:?}") };
        let (mut topic, mut data) = (String::new(), Vec::new());
        for property in publish.properties {
            match property {
                Property::ResponseTopic(text) => topic = text.into(),
                Property::CorrelationData(bytes) => data = bytes.into(),
                other => panic!("unexpected {other:?}"),
            }
        }
        (publish.payload.into(), topic, data)
    })
    .await
}

async fn respond(peer: &mut Peer, topic: &str, data: &[u8], payload: &[u8]) {
    let list = [Property::CorrelationData(data)];
    let properties = Properties::new(&list);
    peer.send(Packet::Publish(Publish { properties, ..Publish::new(topic, payload) })).await;
}

#[tokio::test(start_paused = true)]
async fn each_request_gets_its_own_response_in_any_order() {
    let (builder, mut place) = place();
    let client = builder.start().expect("valid settings");
    let mut peer = place.accept(false).await;
    let (requester, filter) = tokio::join!(client.requester(), peer.grant());
    let requester = requester.expect("granted");
    assert_eq!((filter.as_str(), requester.response_topic()), ("responses/c", "responses/c"));
    let (one, two, ()) = tokio::join!(
        requester.request(Message::new("service", "1"), PATIENCE),
        requester.request(Message::new("service", "2"), PATIENCE),
        async {
            let (first, topic, first_data) = recv_request(&mut peer).await;
            let (second, _, second_data) = recv_request(&mut peer).await;
            respond(&mut peer, &topic, b"of somebody else", b"no").await;
            respond(&mut peer, &topic, &second_data, &second).await;
            respond(&mut peer, &topic, &second_data, b"late").await;
            respond(&mut peer, &topic, &first_data, &first).await;
        }
    );
    assert_eq!(&one.expect("a response").payload[..], b"1");
    assert_eq!(&two.expect("a response").payload[..], b"2");
}

#[tokio::test(start_paused = true)]
async fn a_request_without_response_times_out() {
    let (builder, mut place) = place();
    let client = builder.start().expect("valid settings");
    let mut peer = place.accept(false).await;
    let (requester, _) = tokio::join!(client.requester(), peer.grant());
    let requester = requester.expect("granted");
    let request = requester.request(Message::new("service", "x"), PATIENCE);
    assert!(matches!(request.await, Err(RequestError::Timeout)));
    // The next one is not disturbed by a late response.
    let (_, topic, late) = recv_request(&mut peer).await;
    let (next, ()) = tokio::join!(requester.request(Message::new("s", "y"), PATIENCE), async {
        let (_, _, data) = recv_request(&mut peer).await;
        respond(&mut peer, &topic, &late, b"late").await;
        respond(&mut peer, &topic, &data, b"in time").await;
    });
    assert_eq!(&next.expect("a response").payload[..], b"in time");
    drop(requester);
    assert_eq!(peer.recv_unsubscribe().await.0, "responses/c");
}

#[tokio::test(start_paused = true)]
async fn there_are_no_requests_before_5_0() {
    let (builder, _place) = place();
    let client = builder.version(Version::V3_1_1).start().expect("valid settings");
    assert!(matches!(client.requester().await, Err(SubscribeError::NeedsV5)));
}

#[tokio::test(start_paused = true)]
async fn requests_fail_at_once_when_the_broker_has_taken_the_response_topic_away() {
    let (builder, mut place) = place();
    let client = builder.start().expect("valid settings");
    let mut peer = place.accept(false).await;
    let (requester, _) = tokio::join!(client.requester(), peer.grant());
    let requester = requester.expect("granted");
    drop(peer);
    let mut peer = place.accept(false).await;
    let (_, id, _) = peer.recv_subscribe().await;
    peer.send_suback(id, ReasonCode::NotAuthorized).await;
    sleep(Duration::from_secs(1)).await;
    let before = Instant::now();
    let answer = requester.request(Message::new("service", "x"), PATIENCE).await;
    assert!(answer.is_err() && before.elapsed() < PATIENCE, "{:?}", before.elapsed());
}
