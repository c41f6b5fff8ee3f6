//! The store: what survives the end of a process, told by a broker that the test plays.
//!
//! A process that is killed is played by a copy of its file, as the file is at that moment. The
//! clock is the real one, as the store's thread does not wait for a virtual one.

use std::future::{Future, poll_fn};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use whimbrel_client::{
    Backoff, Builder, Client, Error, Filter, Message, PublishError, QoS, Status, Store, StoreError,
    StoreSync, Version,
};
use whimbrel_codec::{Ack, Packet, PacketId, ReasonCode};

use crate::peer::{Peer, Place, place as place_without_store};

/// A directory of one test, removed with its contents.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Directory {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("whimbrel-storing-{}-{next}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a directory");
        Directory(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("queue")
    }

    /// As the disk is at this moment, for the process after one that is killed now.
    fn killed(&self) -> PathBuf {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let path = self.0.join(format!("copy-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        std::fs::copy(self.file(), &path).expect("a copy");
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Without syncs: what these tests ask does not depend on them.
fn place(path: &Path) -> (Builder, Place) {
    let (builder, place) = place_without_store();
    let wait = Duration::from_millis(1);
    let store = Store::new(path).sync(StoreSync::Os);
    (builder.backoff(Backoff { first: wait, most: wait }).store(store), place)
}

fn start(path: &Path) -> (Client, Place) {
    let (builder, place) = place(path);
    (builder.start().expect("a store"), place)
}

fn at_least_once(payload: &str) -> Message {
    Message::new("t", payload.to_owned()).qos(QoS::AtLeastOnce)
}

fn exactly_once(payload: &str) -> Message {
    Message::new("t", payload.to_owned()).qos(QoS::ExactlyOnce)
}

/// Publishes, and forgets the completion.
async fn publish(client: &Client, message: Message) {
    drop(client.publish(message).await.expect("taken"));
}

/// Expects a message, and gives its identifier.
async fn recv(peer: &mut Peer, payload: &str, dup: bool) -> PacketId {
    let publish = peer.recv_publish().await;
    assert_eq!((publish.payload.as_slice(), publish.dup), (payload.as_bytes(), dup));
    publish.packet_id.expect("an identifier")
}

#[tokio::test]
async fn what_was_queued_is_published_by_the_next_process_in_order() {
    let directory = Directory::new();
    let (client, _place) = start(&directory.file());
    for number in 0..50 {
        let qos = if number % 2 == 0 { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
        publish(&client, Message::new("t", number.to_string()).qos(qos)).await;
    }
    let (client, mut place) = start(&directory.killed());
    assert_eq!(client.undelivered(), 50);
    let mut peer = place.accept(false).await;
    for number in 0..50 {
        recv(&mut peer, &number.to_string(), false).await;
    }
}

#[tokio::test]
async fn what_was_in_flight_goes_on_at_its_stage() {
    let directory = Directory::new();
    let (client, mut first_place) = start(&directory.file());
    let mut peer = first_place.accept(false).await;
    publish(&client, exactly_once("published")).await;
    publish(&client, exactly_once("received")).await;
    publish(&client, exactly_once("done")).await;
    let published = recv(&mut peer, "published", false).await;
    let received = recv(&mut peer, "received", false).await;
    let done = recv(&mut peer, "done", false).await;
    for id in [received, done] {
        peer.send(Packet::PubRec(Ack::new(id))).await;
        assert_eq!(peer.recv_ack().await.0, "PUBREL");
    }
    peer.send(Packet::PubComp(Ack::new(done))).await;
    // Written with the next message, at the latest.
    publish(&client, at_least_once("unanswered")).await;
    let unanswered = recv(&mut peer, "unanswered", false).await;
    publish(&client, exactly_once("last")).await;
    let last = recv(&mut peer, "last", false).await;

    let (client, mut place) = start(&directory.killed());
    let mut peer = place.arrival().await;
    assert_eq!(peer.recv_connect().await, (false, "c".into()), "the session is to be gone on with");
    peer.send_connack(true).await;
    assert_eq!(recv(&mut peer, "published", true).await, published);
    assert_eq!(peer.recv_ack().await, ("PUBREL", received.get(), ReasonCode::Success));
    assert_eq!(recv(&mut peer, "unanswered", true).await, unanswered);
    assert_eq!(recv(&mut peer, "last", true).await, last);
    for id in [published, last] {
        peer.send(Packet::PubRec(Ack::new(id))).await;
        assert_eq!(peer.recv_ack().await.0, "PUBREL");
    }
    for id in [published, received, last] {
        peer.send(Packet::PubComp(Ack::new(id))).await;
    }
    peer.send_puback(unanswered).await;
    let completion = client.publish(exactly_once("new")).await.expect("taken");
    let id = recv(&mut peer, "new", false).await;
    peer.send(Packet::PubRec(Ack::new(id))).await;
    assert_eq!(peer.recv_ack().await.0, "PUBREL");
    peer.send(Packet::PubComp(Ack::new(id))).await;
    completion.await.expect("acknowledged");
    assert_eq!(client.undelivered(), 0);
}

#[tokio::test]
async fn without_its_session_qos_1_begins_anew_and_qos_2_is_given_up_and_told() {
    let directory = Directory::new();
    let (client, mut first_place) = start(&directory.file());
    let mut peer = first_place.accept(false).await;
    publish(&client, at_least_once("one")).await;
    recv(&mut peer, "one", false).await;
    publish(&client, Message::new("given/up", "two").qos(QoS::ExactlyOnce)).await;
    recv(&mut peer, "two", false).await;
    publish(&client, at_least_once("three")).await;

    let copy = directory.killed();
    let (client, mut place) = start(&copy);
    let mut events = client.events();
    let mut peer = place.accept(false).await;
    recv(&mut peer, "one", false).await;
    let id = recv(&mut peer, "three", false).await;
    loop {
        match events.next().await.expect("the client lives") {
            Status::Undelivered { topic, why: PublishError::SessionLost } => {
                assert_eq!(&*topic, "given/up");
                break;
            }
            Status::Connected(_) => {}
            other => panic!("expected to be told of the message, got {other:?}"),
        }
    }
    peer.send_puback(id).await;
}

#[tokio::test]
async fn a_qos_2_message_of_the_broker_comes_once_over_a_restart() {
    let directory = Directory::new();
    let (client, mut first_place) = start(&directory.file());
    let mut peer = first_place.accept(false).await;
    let (subscription, _) = tokio::join!(client.subscribe(Filter::new("in")), peer.grant());
    let mut subscription = subscription.expect("granted");
    for id in [7, 8] {
        peer.send_publish("in", &id.to_string(), Some(id), QoS::ExactlyOnce).await;
        assert_eq!(subscription.next().await.expect("it comes").payload, id.to_string());
        assert_eq!(peer.recv_ack().await, ("PUBREC", id, ReasonCode::Success));
    }
    peer.send(Packet::PubRel(Ack::new(PacketId::new(8).expect("not 0")))).await;
    assert_eq!(peer.recv_ack().await, ("PUBCOMP", 8, ReasonCode::Success));

    let (client, mut place) = start(&directory.killed());
    let mut peer = place.accept(true).await;
    let (subscription, _) = tokio::join!(client.subscribe(Filter::new("in")), peer.grant());
    let mut subscription = subscription.expect("granted");
    // The PUBREC was lost; and the other identifier has been used anew.
    peer.send_publish("in", "7", Some(7), QoS::ExactlyOnce).await;
    assert_eq!(peer.recv_ack().await, ("PUBREC", 7, ReasonCode::Success));
    peer.send_publish("in", "new", Some(8), QoS::ExactlyOnce).await;
    assert_eq!(subscription.next().await.expect("it comes").payload, "new");
    assert_eq!(peer.recv_ack().await, ("PUBREC", 8, ReasonCode::Success));
}

#[tokio::test]
async fn identifiers_of_a_session_that_is_gone_are_forgotten() {
    let directory = Directory::new();
    let (client, mut first_place) = start(&directory.file());
    let mut peer = first_place.accept(false).await;
    let (subscription, _) = tokio::join!(client.subscribe(Filter::new("in")), peer.grant());
    let mut subscription = subscription.expect("granted");
    peer.send_publish("in", "old", Some(7), QoS::ExactlyOnce).await;
    subscription.next().await.expect("it comes");
    assert_eq!(peer.recv_ack().await.0, "PUBREC");
    drop(peer);
    let mut peer = first_place.accept(false).await;
    peer.grant().await;

    // What the client said after CONNACK rests on that being written.
    let (client, mut place) = start(&directory.killed());
    let mut peer = place.accept(true).await;
    let (subscription, _) = tokio::join!(client.subscribe(Filter::new("in")), peer.grant());
    let mut subscription = subscription.expect("granted");
    peer.send_publish("in", "new", Some(7), QoS::ExactlyOnce).await;
    assert_eq!(subscription.next().await.expect("it comes").payload, "new");
}

#[tokio::test]
async fn messages_expire_while_no_process_runs() {
    let directory = Directory::new();
    let (client, _place) = start(&directory.file());
    publish(&client, Message::new("old", "short").qos(QoS::AtLeastOnce).expiry_s(1)).await;
    publish(&client, at_least_once("long").expiry_s(3600)).await;
    let copy = directory.killed();
    // This can only be late, and then the message has expired all the more.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let (client, mut place) = start(&copy);
    let mut peer = place.accept(false).await;
    let publish = peer.recv_publish().await;
    assert_eq!(publish.payload, b"long");
    let [property] = &publish.properties[..] else { panic!("{:?}", publish.properties) };
    assert!(property.starts_with("MessageExpiryIntervalS(3"), "{property}");
    peer.send_puback(publish.packet_id.expect("an identifier")).await;
    client.disconnect().await.expect("nothing is left");
}

#[tokio::test]
async fn more_than_fits_into_memory_waits_on_disk_alone_and_keeps_its_order() {
    let directory = Directory::new();
    let (builder, _place) = place(&directory.file());
    let client = builder.queue(8, 1000).start().expect("a store");
    for number in 0..100 {
        publish(&client, at_least_once(&number.to_string())).await;
    }
    assert_eq!(client.undelivered(), 100);
    let (builder, mut place) = place(&directory.killed());
    let client = builder.queue(8, 1000).start().expect("a store");
    let watched = client.publish(at_least_once("100")).await.expect("taken");
    let mut peer = place.accept(false).await;
    for number in 0..=100 {
        let id = recv(&mut peer, &number.to_string(), false).await;
        peer.send_puback(id).await;
    }
    watched.await.expect("acknowledged");
    assert_eq!(client.undelivered(), 0);
}

#[tokio::test]
async fn a_full_store_makes_publishers_wait_or_fail_as_asked() {
    let directory = Directory::new();
    let (builder, mut place) = place_without_store();
    let store = Store::new(directory.file()).sync(StoreSync::Os).max_bytes(2000);
    let client = builder.store(store).start().expect("a store");
    let large = |payload: u8| Message::new("t", vec![payload; 900]).qos(QoS::AtLeastOnce);
    publish(&client, large(0)).await;
    publish(&client, large(1)).await;
    assert!(matches!(client.try_publish(large(9)), Err(PublishError::Full)));
    let other = client.clone();
    let waiting = tokio::spawn(async move { publish(&other, large(2)).await });
    tokio::task::yield_now().await;
    let mut peer = place.accept(false).await;
    for payload in 0..3 {
        let publish = peer.recv_publish().await;
        assert_eq!(publish.payload, [payload; 900]);
        peer.send_puback(publish.packet_id.expect("an identifier")).await;
    }
    waiting.await.expect("no panic");
}

#[tokio::test]
async fn a_publisher_that_gives_up_has_published_nothing() {
    let directory = Directory::new();
    let (builder, mut place) = place(&directory.file());
    // A batch that nobody waits for is not written yet when the future is dropped.
    let client = builder.queue(2, 1 << 20).start().expect("a store");
    let mut expected = Vec::new();
    for number in 0..20 {
        let payload = number.to_string();
        let mut future = pin!(client.publish(at_least_once(&payload)));
        let ready = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_ready())).await;
        if ready {
            expected.push(payload);
        }
    }
    publish(&client, at_least_once("kept")).await;
    expected.push("kept".into());
    assert_eq!(client.undelivered(), expected.len());
    let mut peer = place.accept(false).await;
    for payload in expected {
        recv(&mut peer, &payload, false).await;
    }
}

#[tokio::test]
async fn qos_0_is_kept_if_asked() {
    let directory = Directory::new();
    let (builder, _place) = place(&directory.file());
    let client = builder.start().expect("a store");
    publish(&client, Message::new("t", "not kept")).await;
    publish(&client, at_least_once("kept")).await;
    let store = Store::new(directory.killed()).sync(StoreSync::Os).qos0(true);
    let (copy, builder) = (store.clone(), place_without_store().0);
    let client = builder.drain_timeout(Duration::ZERO).store(store).start().expect("a store");
    assert_eq!(client.undelivered(), 1);
    publish(&client, Message::new("t", "zero")).await;
    client.disconnect().await.expect_err("messages are left");
    let (builder, mut place) = place_without_store();
    let client = builder.store(copy).start().expect("a store");
    let mut peer = place.accept(false).await;
    let id = recv(&mut peer, "kept", false).await;
    assert_eq!(peer.recv_publish().await.payload, b"zero");
    peer.send_puback(id).await;
    client.disconnect().await.expect("nothing is left");
}

#[tokio::test]
async fn a_store_belongs_to_one_client_of_one_broker() {
    let directory = Directory::new();
    let refused = |builder: Builder| match builder.start() {
        Err(Error::Store(why)) => why,
        Err(other) => panic!("expected an error of the store, got {other}"),
        Ok(_) => panic!("expected an error of the store"),
    };
    let (client, mut first_place) = start(&directory.file());
    let why = refused(place(&directory.file()).0);
    assert!(matches!(*why, StoreError::InUse(_)), "{why}");
    let mut peer = first_place.accept(false).await;
    let (closed, ack) = tokio::join!(client.disconnect(), peer.recv_ack());
    closed.expect("nothing is left");
    assert_eq!(ack.0, "DISCONNECT");
    for builder in [
        place(&directory.file()).0.client_id("other"),
        place(&directory.file()).0.version(Version::V3_1_1),
        Client::builder("mqtt://elsewhere")
            .expect("a URL")
            .client_id("c")
            .store(&*directory.file()),
    ] {
        let why = refused(builder);
        assert!(matches!(*why, StoreError::Foreign { .. }), "{why}");
    }
    assert!(matches!(place(&directory.file()).0.client_id("").start(), Err(Error::Settings(_))));
    start(&directory.file());
}
