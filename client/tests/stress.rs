//! Many tasks on several threads, futures that are dropped at any moment, and a broker that cuts
//! the connection: no wake-up is lost, no completion is left without an outcome, nothing hangs.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::time::timeout;
use whimbrel_client::{
    Backoff, ByteStream, Client, Connector, Filter, Message, Opening, QoS, WhenFull,
};
use whimbrel_codec::{
    Ack, Codes, ConnAck, Frame, Packet, Properties, Publish, ReasonCode, SubAck, UnsubAck, Version,
};

const PUBLISHERS: usize = 8;
const MESSAGES: usize = 400;
/// Only a hang gets there.
const PATIENCE: Duration = Duration::from_secs(60);

struct Wire(mpsc::UnboundedSender<DuplexStream>);

impl Connector for Wire {
    fn open(&self) -> Opening<'_> {
        Box::pin(async {
            let (ours, theirs) = duplex(512);
            self.0.send(theirs).map_err(|_| io::ErrorKind::ConnectionRefused)?;
            Ok(Box::new(ours) as Box<dyn ByteStream>)
        })
    }
}

/// Acknowledges, and sends every message back with QoS 1; cuts the connection now and then.
async fn broker(mut arrivals: mpsc::UnboundedReceiver<DuplexStream>, cut_after: Option<usize>) {
    let mut known = false;
    while let Some(stream) = arrivals.recv().await {
        // The end of a connection is no error here.
        let _ = serve(stream, &mut known, cut_after).await;
    }
}

async fn serve(
    mut stream: DuplexStream,
    known: &mut bool,
    cut_after: Option<usize>,
) -> io::Result<()> {
    let (mut input, mut output) = (Vec::new(), Vec::new());
    let mut sent_back = 0_u16;
    for handled in 0.. {
        if cut_after.is_some_and(|most| handled > most) {
            return Ok(());
        }
        let len = loop {
            let frame = Frame::parse(&input, u32::MAX).expect("a frame");
            match frame {
                Some(frame) if input.len() >= frame.packet_len() => break frame.packet_len(),
                _ if stream.read_buf(&mut input).await? == 0 => return Ok(()),
                _ => {}
            }
        };
        let frame = Frame::parse(&input, u32::MAX).expect("a frame").expect("whole");
        let packet = Packet::decode(Version::V5, &frame, &input).expect("a packet");
        output.clear();
        answer(&packet, known, &mut sent_back, &mut output);
        input.drain(..len);
        stream.write_all(&output).await?;
    }
    Ok(())
}

fn answer(packet: &Packet<'_>, known: &mut bool, sent_back: &mut u16, out: &mut Vec<u8>) {
    let mut send = |packet: Packet<'_>| packet.encode(Version::V5, out).expect("it can be encoded");
    let properties = Properties::NONE;
    match packet {
        Packet::Connect(_) => {
            let (session_present, reason) = (*known, ReasonCode::Success);
            send(Packet::ConnAck(ConnAck { session_present, reason, properties }));
            *known = true;
        }
        Packet::Subscribe(subscribe) => {
            let (packet_id, codes) = (subscribe.packet_id, Codes::new(&[1]));
            send(Packet::SubAck(SubAck { packet_id, properties, codes }));
        }
        Packet::Unsubscribe(unsubscribe) => {
            let (packet_id, codes) = (unsubscribe.packet_id, Codes::new(&[0]));
            send(Packet::UnsubAck(UnsubAck { packet_id, properties, codes }));
        }
        Packet::Publish(publish) => {
            *sent_back = sent_back.wrapping_add(1).max(1);
            let packet_id = whimbrel_codec::PacketId::new(*sent_back);
            let qos = QoS::AtLeastOnce;
            send(Packet::Publish(Publish { qos, packet_id, dup: false, properties, ..*publish }));
            match (publish.qos, publish.packet_id) {
                (QoS::AtLeastOnce, Some(id)) => send(Packet::PubAck(Ack::new(id))),
                (QoS::ExactlyOnce, Some(id)) => send(Packet::PubRec(Ack::new(id))),
                _ => {}
            }
        }
        Packet::PubRel(ack) => send(Packet::PubComp(Ack::new(ack.packet_id))),
        _ => {}
    }
}

/// Polls a future so often, then drops it; none if it was not ready by then.
async fn briefly<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if left == 0 => Poll::Ready(None),
        Poll::Pending => {
            left -= 1;
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await
}

fn client(cut_after: Option<usize>) -> Client {
    let (sender, arrivals) = mpsc::unbounded_channel();
    tokio::spawn(broker(arrivals, cut_after));
    let moment = Duration::from_micros(100);
    let builder = Client::builder("mqtt://nowhere").expect("a URL").client_id("c");
    // The broker above sends everything back without regard to the receive maximum.
    let builder =
        builder.backoff(Backoff { first: moment, most: moment }).receive_maximum(u16::MAX);
    let builder = builder.connector(Arc::new(Wire(sender))).queue(4, 1 << 20).max_in_flight(3);
    builder.start().expect("valid settings")
}

/// Publishes with every QoS, some futures given up on the way; how many messages were taken.
async fn publish(client: Client, publisher: usize) -> usize {
    let mut taken = 0;
    let mut completions = Vec::new();
    for number in 0..MESSAGES {
        let qos = QoS::from_u8((number % 3) as u8).expect("a QoS");
        let topic = format!("p/{publisher}");
        let message = Message::new(topic, number.to_string()).qos(qos);
        let completion = match number % 5 {
            0 => match briefly(number % 4, client.publish(message)).await {
                Some(completion) => completion.expect("the client lives"),
                None => continue,
            },
            _ => client.publish(message).await.expect("the client lives"),
        };
        taken += 1;
        match number % 7 {
            // Looked at, and then not cared about.
            0 => drop(briefly(1, completion).await),
            1 => drop(completion),
            _ => completions.push(completion),
        }
    }
    for completion in completions {
        // QoS 0 may be lost with a connection; an outcome there is always.
        let _ = completion.await;
    }
    taken
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_hangs_and_nothing_is_lost_while_the_connection_holds() {
    let client = client(None);
    let filter = Filter::new("p/#").qos(QoS::AtLeastOnce).queue(8, WhenFull::Wait);
    let subscription = client.subscribe(filter).await.expect("granted");
    let received = Arc::new(AtomicUsize::new(0));
    let consumers: Vec<_> = (0..3)
        .map(|number| {
            let (mut stream, received) = (subscription.clone(), received.clone());
            tokio::spawn(async move {
                let mut last: HashMap<Arc<str>, usize> = HashMap::new();
                loop {
                    let next = match number {
                        0 => Some(stream.next().await),
                        _ => briefly(number, stream.next()).await,
                    };
                    let message = match next {
                        Some(Some(message)) => message,
                        Some(None) => return,
                        None => continue,
                    };
                    received.fetch_add(1, Ordering::Relaxed);
                    // One consumer sees the messages of a publisher in their order.
                    let text = std::str::from_utf8(&message.payload).expect("text");
                    let payload: usize = text.parse().expect("a number");
                    let before = last.insert(message.topic.clone(), payload);
                    assert!(before.is_none_or(|before| before < payload));
                }
            })
        })
        .collect();
    let publishers: Vec<_> =
        (0..PUBLISHERS).map(|number| tokio::spawn(publish(client.clone(), number))).collect();
    let test = async {
        let mut taken = 0;
        for publisher in publishers {
            taken += publisher.await.expect("no panic");
        }
        while received.load(Ordering::Relaxed) < taken {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        client.disconnect().await.expect("nothing is left");
        for consumer in consumers {
            consumer.await.expect("no panic");
        }
        assert_eq!(received.load(Ordering::Relaxed), taken);
    };
    timeout(PATIENCE, test).await.expect("no hang");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_hangs_while_the_connection_is_cut_again_and_again() {
    let client = client(Some(150));
    let filter = Filter::new("p/#").qos(QoS::AtLeastOnce).queue(8, WhenFull::Wait);
    let mut subscription = client.subscribe(filter).await.expect("granted");
    let consumer = tokio::spawn(async move { while subscription.next().await.is_some() {} });
    let publishers: Vec<_> =
        (0..PUBLISHERS).map(|number| tokio::spawn(publish(client.clone(), number))).collect();
    let test = async {
        for publisher in publishers {
            publisher.await.expect("no panic");
        }
        // The broker cuts on, so the last word may not come through; but there is an end.
        let _ = client.disconnect().await;
        consumer.await.expect("no panic");
    };
    timeout(PATIENCE, test).await.expect("no hang");
}
