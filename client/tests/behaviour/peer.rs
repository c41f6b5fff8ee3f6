//! A broker that a test plays: it reads like the specification.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::time::timeout;
use whimbrel_client::{Backoff, Builder, ByteStream, Client, Connector, Opening};
use whimbrel_codec::{
    Ack, ConnAck, Connect, Frame, Packet, PacketId, Properties, Property, Publish, QoS, ReasonCode,
    SubAck, UnsubAck, Version,
};

/// How long a test waits for what must come. The clock is virtual: it runs only while all wait.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Bytes that the network holds, each way.
pub const BUFFERED: usize = 64 * 1024;

/// Where the client's connections arrive.
pub struct Place {
    arrivals: mpsc::UnboundedReceiver<DuplexStream>,
}

struct Wire(mpsc::UnboundedSender<DuplexStream>);

impl Connector for Wire {
    fn open(&self) -> Opening<'_> {
        Box::pin(async {
            let (ours, theirs) = duplex(BUFFERED);
            match self.0.send(theirs) {
                Ok(()) => Ok(Box::new(ours) as Box<dyn ByteStream>),
                Err(_) => Err(io::ErrorKind::ConnectionRefused.into()),
            }
        })
    }
}

/// A client's settings, and where its connections arrive.
pub fn place() -> (Builder, Place) {
    place_of("mqtt://nowhere")
}

/// The same for another URL.
pub fn place_of(url: &str) -> (Builder, Place) {
    let (sender, arrivals) = mpsc::unbounded_channel();
    let backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_secs(60) };
    let builder = Client::builder(url).expect("a valid URL").client_id("c");
    (builder.connector(Arc::new(Wire(sender))).backoff(backoff), Place { arrivals })
}

impl Place {
    /// The next network connection.
    pub async fn arrival(&mut self) -> Peer {
        Peer::on(self.stream().await)
    }

    /// The same as it is.
    pub async fn stream(&mut self) -> DuplexStream {
        let stream = timeout(PATIENCE, self.arrivals.recv()).await.expect("a connection in time");
        stream.expect("the client lives")
    }

    /// The next connection, accepted.
    pub async fn accept(&mut self, session_present: bool) -> Peer {
        let mut peer = self.arrival().await;
        peer.recv_connect().await;
        peer.send_connack(session_present).await;
        peer
    }

    /// The next connection, accepted with these properties.
    pub async fn accept_with(&mut self, session_present: bool, list: &[Property<'_>]) -> Peer {
        let mut peer = self.arrival().await;
        peer.recv_connect().await;
        let (reason, properties) = (ReasonCode::Success, Properties::new(list));
        peer.send(Packet::ConnAck(ConnAck { session_present, reason, properties })).await;
        peer
    }

    /// Whether a connection waits.
    pub fn has_arrival(&mut self) -> bool {
        !self.arrivals.is_empty()
    }
}

/// One network connection, seen from the broker.
pub struct Peer {
    stream: Box<dyn ByteStream>,
    bytes: Vec<u8>,
    pub version: Version,
}

/// What a PUBLISH said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: QoS,
    pub dup: bool,
    pub packet_id: Option<PacketId>,
    pub properties: Vec<String>,
}

/// How a client shows who it is, in CONNECT.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    pub clean_start: bool,
    pub user_name: Option<String>,
    pub password: Option<Vec<u8>>,
    /// Authentication method and data.
    pub method: Option<String>,
    pub data: Vec<u8>,
}

impl Peer {
    /// The other end of any stream.
    pub fn on(stream: impl ByteStream + 'static) -> Peer {
        Peer { stream: Box::new(stream), bytes: Vec::new(), version: Version::V5 }
    }

    /// CONNECT, as far as it is about who the client is.
    pub async fn recv_login(&mut self) -> Shown {
        let (version, shown) = self
            .recv(|packet| match packet {
                Packet::Connect(connect) => {
                    let (method, data) = method_and_data(&connect.properties);
                    let shown = Shown {
                        clean_start: connect.clean_start,
                        user_name: connect.user_name.map(String::from),
                        password: connect.password.map(Vec::from),
                        method,
                        data,
                    };
                    (connect.version, shown)
                }
                other => panic!("expected CONNECT, got {other:?}"),
            })
            .await;
        self.version = version;
        shown
    }

    /// AUTH: its reason code, method and data.
    pub async fn recv_auth(&mut self) -> (ReasonCode, String, Vec<u8>) {
        self.recv(|packet| match packet {
            Packet::Auth(auth) => {
                let (method, data) = method_and_data(&auth.properties);
                (auth.reason, method.expect("a method"), data)
            }
            other => panic!("expected AUTH, got {other:?}"),
        })
        .await
    }

    pub async fn send_auth(&mut self, reason: ReasonCode, method: &str, data: &[u8]) {
        let list = [Property::AuthenticationMethod(method), Property::AuthenticationData(data)];
        let properties = Properties::new(&list);
        self.send(Packet::Auth(whimbrel_codec::Auth { reason, properties })).await;
    }

    /// CONNACK with this method and data.
    pub async fn send_consent(&mut self, session_present: bool, method: &str, data: &[u8]) {
        let list = [Property::AuthenticationMethod(method), Property::AuthenticationData(data)];
        let (reason, properties) = (ReasonCode::Success, Properties::new(&list));
        self.send(Packet::ConnAck(ConnAck { session_present, reason, properties })).await;
    }

    pub async fn send_refusal(&mut self, reason: ReasonCode) {
        let properties = Properties::NONE;
        self.send(Packet::ConnAck(ConnAck { session_present: false, reason, properties })).await;
    }

    pub async fn send_disconnect(&mut self, reason: ReasonCode) {
        self.send(Packet::Disconnect(whimbrel_codec::Disconnect::new(reason))).await;
    }

    /// The next packet, given to `look`.
    pub async fn recv<R>(&mut self, look: impl FnOnce(&Packet<'_>) -> R) -> R {
        let patience = timeout(PATIENCE, self.fill()).await;
        assert!(patience.expect("a packet in time"), "the client closed the connection");
        let frame = Frame::parse(&self.bytes, u32::MAX).expect("a frame").expect("whole");
        let packet = Packet::decode(self.version, &frame, &self.bytes).expect("a packet");
        let result = look(&packet);
        self.bytes.drain(..frame.packet_len());
        result
    }

    /// Reads until a packet is whole; false if the connection ends before.
    async fn fill(&mut self) -> bool {
        loop {
            let frame = Frame::parse(&self.bytes, u32::MAX).expect("a frame");
            if frame.is_some_and(|frame| self.bytes.len() >= frame.packet_len()) {
                return true;
            }
            if self.stream.read_buf(&mut self.bytes).await.unwrap_or(0) == 0 {
                return false;
            }
        }
    }

    /// Reads so many bytes, whatever they are.
    pub async fn take_bytes(&mut self, len: usize) {
        self.stream.read_exact(&mut vec![0; len]).await.expect("bytes");
    }

    pub async fn recv_connect(&mut self) -> (bool, String) {
        let (version, clean, id) = self
            .recv(|packet| match packet {
                Packet::Connect(Connect { version, clean_start, client_id, .. }) => {
                    (*version, *clean_start, client_id.to_string())
                }
                other => panic!("expected CONNECT, got {other:?}"),
            })
            .await;
        self.version = version;
        (clean, id)
    }

    pub async fn recv_publish(&mut self) -> Published {
        self.recv(|packet| match packet {
            Packet::Publish(publish) => Published {
                topic: publish.topic.into(),
                payload: publish.payload.into(),
                qos: publish.qos,
                dup: publish.dup,
                packet_id: publish.packet_id,
                properties: publish.properties.iter().map(|p| format!("{p:?}")).collect(),
            },
            other => panic!("expected PUBLISH, got {other:?}"),
        })
        .await
    }

    /// The filter, its packet identifier and its properties.
    pub async fn recv_subscribe(&mut self) -> (String, PacketId, Vec<String>) {
        self.recv(|packet| match packet {
            Packet::Subscribe(subscribe) => {
                let filter = subscribe.filters.iter().next().expect("a filter");
                let properties = subscribe.properties.iter().map(|p| format!("{p:?}"));
                (filter.filter.to_string(), subscribe.packet_id, properties.collect())
            }
            other => panic!("expected SUBSCRIBE, got {other:?}"),
        })
        .await
    }

    pub async fn recv_unsubscribe(&mut self) -> (String, PacketId) {
        self.recv(|packet| match packet {
            Packet::Unsubscribe(unsubscribe) => {
                let filter = unsubscribe.filters.iter().next().expect("a filter");
                (filter.to_string(), unsubscribe.packet_id)
            }
            other => panic!("expected UNSUBSCRIBE, got {other:?}"),
        })
        .await
    }

    /// The packet's name and identifier, for acknowledgements and what has neither.
    pub async fn recv_ack(&mut self) -> (&'static str, u16, ReasonCode) {
        self.recv(|packet| match packet {
            Packet::PubAck(ack) => ("PUBACK", ack.packet_id.get(), ack.reason),
            Packet::PubRec(ack) => ("PUBREC", ack.packet_id.get(), ack.reason),
            Packet::PubRel(ack) => ("PUBREL", ack.packet_id.get(), ack.reason),
            Packet::PubComp(ack) => ("PUBCOMP", ack.packet_id.get(), ack.reason),
            Packet::PingReq => ("PINGREQ", 0, ReasonCode::Success),
            Packet::Disconnect(disconnect) => ("DISCONNECT", 0, disconnect.reason),
            other => panic!("expected an acknowledgement, got {other:?}"),
        })
        .await
    }

    pub async fn send(&mut self, packet: Packet<'_>) {
        let mut bytes = Vec::new();
        packet.encode(self.version, &mut bytes).expect("a packet that can be encoded");
        self.send_bytes(&bytes).await;
    }

    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("the client listens");
    }

    pub async fn send_connack(&mut self, session_present: bool) {
        let (reason, properties) = (ReasonCode::Success, Properties::NONE);
        self.send(Packet::ConnAck(ConnAck { session_present, reason, properties })).await;
    }

    pub async fn send_suback(&mut self, packet_id: PacketId, code: ReasonCode) {
        let codes = [code as u8];
        let codes = whimbrel_codec::Codes::new(&codes);
        let properties = Properties::NONE;
        self.send(Packet::SubAck(SubAck { packet_id, properties, codes })).await;
    }

    pub async fn send_unsuback(&mut self, packet_id: PacketId) {
        let codes = [ReasonCode::Success as u8];
        let codes = whimbrel_codec::Codes::new(&codes);
        let properties = Properties::NONE;
        self.send(Packet::UnsubAck(UnsubAck { packet_id, properties, codes })).await;
    }

    pub async fn send_puback(&mut self, id: PacketId) {
        self.send(Packet::PubAck(Ack::new(id))).await;
    }

    pub async fn send_publish(&mut self, topic: &str, payload: &str, id: Option<u16>, qos: QoS) {
        let packet_id = id.and_then(PacketId::new);
        let publish = Publish { qos, packet_id, ..Publish::new(topic, payload.as_bytes()) };
        self.send(Packet::Publish(publish)).await;
    }

    /// Grants the next SUBSCRIBE.
    pub async fn grant(&mut self) -> String {
        let (filter, id, _) = self.recv_subscribe().await;
        self.send_suback(id, ReasonCode::GrantedQos2).await;
        filter
    }

    /// True if the client closes without another packet.
    pub async fn recv_end(&mut self) -> bool {
        !timeout(PATIENCE, self.fill()).await.expect("the end in time")
    }
}

fn method_and_data(properties: &Properties<'_>) -> (Option<String>, Vec<u8>) {
    let (mut method, mut found) = (None, Vec::new());
    for property in properties.iter() {
        match property {
            Property::AuthenticationMethod(name) => method = Some(name.into()),
            Property::AuthenticationData(data) => found = data.into(),
            _ => {}
        }
    }
    (method, found)
}
