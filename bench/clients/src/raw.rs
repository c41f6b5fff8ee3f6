//! The other end, the same for all libraries: a peer that writes and reads packets by itself.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use whimbrel_codec::{
    Ack, Connect, Disconnect, Filters, Frame, Packet, PacketId, Properties, Property, Publish, QoS,
    ReasonCode, Subscribe, Subscription, Version,
};

use crate::{Load, REQUESTS, RESPONSES, Result, SESSION, SESSION_EXPIRY_S, TOPIC, measure};

/// A thread that sends, and the processor time it took.
pub type Feed = JoinHandle<Result<Duration>>;

/// What QoS 0 may be on its way to a library at most: less than a broker drops for a slow reader.
const WINDOW_BYTES: usize = 256 * 1024;
/// Messages of QoS 1 and 2 in flight, less than any broker's receive maximum here.
const BATCH: u64 = 500;
const PAUSE: Duration = Duration::from_micros(50);

struct Peer {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Peer {
    fn connect(port: u16, client_id: &str, session_expiry_s: u32) -> Result<Peer> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        let mut peer = Peer { stream, input: Vec::new(), output: Vec::new() };
        let properties = [Property::SessionExpiryIntervalS(session_expiry_s)];
        let properties = Properties::new(&properties);
        let connect = Connect { properties, ..Connect::new(Version::V5, client_id) };
        peer.send(Packet::Connect(Connect { clean_start: true, ..connect }))?;
        peer.wait(
            |packet| matches!(packet, Packet::ConnAck(connack) if !connack.reason.is_error()),
        )?;
        Ok(peer)
    }

    fn subscribe(&mut self, filter: &str, qos: u8) -> Result<()> {
        let list = [Subscription::new(filter, quality(qos))];
        self.send(Packet::Subscribe(Subscribe {
            packet_id: PacketId::MIN,
            properties: Properties::NONE,
            filters: Filters::new(&list),
        }))?;
        self.wait(|packet| matches!(packet, Packet::SubAck(_)))
    }

    fn push(&mut self, packet: Packet<'_>) -> Result<()> {
        packet.encode(Version::V5, &mut self.output).map_err(|error| format!("{error:?}"))?;
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.stream.write_all(&self.output)?;
        self.output.clear();
        Ok(())
    }

    fn send(&mut self, packet: Packet<'_>) -> Result<()> {
        self.push(packet)?;
        self.flush()
    }

    /// Reads packets up to the first that fits.
    fn wait(&mut self, mut fits: impl FnMut(&Packet<'_>) -> bool) -> Result<()> {
        loop {
            while let Some(frame) = frame(&self.input)? {
                let packet = Packet::decode(Version::V5, &frame, &self.input);
                let packet = packet.map_err(|error| error.what)?;
                let found = fits(&packet);
                self.input.drain(..frame.packet_len());
                if found {
                    return Ok(());
                }
            }
            let mut chunk = [0; 16384];
            let len = self.stream.read(&mut chunk)?;
            if len == 0 {
                return Err("the broker has closed the connection".into());
            }
            self.input.extend_from_slice(&chunk[..len]);
        }
    }

    /// Publishes so many messages and has all acknowledged.
    fn publish_batch(&mut self, qos: u8, payload: &[u8], count: u64) -> Result<()> {
        let ids = 1..=u16::try_from(count)?;
        let publish = Publish { qos: quality(qos), ..Publish::new(TOPIC, payload) };
        for id in ids.clone() {
            let packet_id = PacketId::new(id);
            self.push(Packet::Publish(Publish { packet_id, ..publish }))?;
        }
        self.flush()?;
        if qos == 2 {
            self.wait_for(count, |packet| matches!(packet, Packet::PubRec(_)))?;
            for id in ids.filter_map(PacketId::new) {
                self.push(Packet::PubRel(Ack::new(id)))?;
            }
            self.flush()?;
        }
        self.wait_for(count, |p| matches!(p, Packet::PubAck(_) | Packet::PubComp(_)))
    }

    fn wait_for(&mut self, count: u64, fits: impl Fn(&Packet<'_>) -> bool) -> Result<()> {
        let mut left = count;
        self.wait(|packet| {
            left -= u64::from(fits(packet));
            left == 0
        })
    }
}

fn frame(bytes: &[u8]) -> Result<Option<Frame>> {
    let frame = Frame::parse(bytes, u32::MAX).map_err(|error| error.what)?;
    Ok(frame.filter(|frame| frame.packet_len() <= bytes.len()))
}

fn quality(qos: u8) -> QoS {
    QoS::from_u8(qos).unwrap_or_default()
}

/// Fills the queue of [`SESSION`], which is away, with all messages of the load.
pub fn fill_session(load: &Load) -> Result<()> {
    let mut keeper = Peer::connect(load.port, SESSION, SESSION_EXPIRY_S)?;
    keeper.subscribe(TOPIC, load.qos)?;
    keeper.send(Packet::Disconnect(Disconnect::new(ReasonCode::Success)))?;
    let mut publisher = Peer::connect(load.port, "bench-fill", 0)?;
    let (mut left, payload) = (load.warm_up() + load.count, load.payload());
    while left > 0 {
        let batch = left.min(BATCH);
        publisher.publish_batch(load.qos, &payload, batch)?;
        left -= batch;
    }
    Ok(())
}

/// Publishes all messages of the load at QoS 0 on a thread, a window ahead of what was received;
/// gives the processor time of the thread.
pub fn feed(load: &Load, received: Arc<AtomicU64>) -> Feed {
    let load = load.clone();
    std::thread::spawn(move || {
        let mut peer = Peer::connect(load.port, "bench-feed", 0)?;
        let payload = load.payload();
        let window = (WINDOW_BYTES / (load.payload_bytes + TOPIC.len() + 5)) as u64;
        let batch = window / 8;
        for _ in 0..batch {
            peer.push(Packet::Publish(Publish::new(TOPIC, &payload)))?;
        }
        let total = load.warm_up() + load.count;
        let mut sent = 0;
        while sent < total {
            while sent + batch > received.load(Ordering::Relaxed) + window {
                std::thread::sleep(PAUSE);
            }
            let count = batch.min(total - sent);
            let len = peer.output.len() / batch as usize * count as usize;
            peer.stream.write_all(&peer.output[..len])?;
            sent += count;
        }
        Ok(measure::cpu_of_this_thread())
    })
}

/// Answers each request with a response of the same payload, on a thread, for ever.
pub fn answer(port: u16) -> Result<()> {
    let mut peer = Peer::connect(port, "bench-answer", 0)?;
    peer.subscribe(REQUESTS, 0)?;
    std::thread::spawn(move || -> Result<()> {
        loop {
            let mut payload = Vec::new();
            peer.wait(|packet| match packet {
                Packet::Publish(request) => {
                    payload.extend_from_slice(request.payload);
                    true
                }
                _ => false,
            })?;
            peer.send(Packet::Publish(Publish::new(RESPONSES, &payload)))?;
        }
    });
    Ok(())
}
