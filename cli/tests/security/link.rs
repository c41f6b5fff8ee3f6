//! A client of whole packets that attacks.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use whimbrel_codec::{
    Auth, Connect, Filters, Frame, Packet, PacketId, Properties, Property, Publish, QoS,
    ReasonCode, Subscribe, Subscription, Version,
};

use super::server::Server;
use super::support::PATIENCE;

/// Bytes both ways, whatever carries them.
pub trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

/// A connection.
pub struct Link {
    stream: Box<dyn Stream>,
    received: Vec<u8>,
    /// Bytes of the packets that were looked at.
    pub taken: usize,
    version: Version,
}

/// What the broker sent.
#[derive(Clone, Debug, PartialEq)]
pub enum Got {
    ConnAck {
        session_present: bool,
        reason: ReasonCode,
    },
    Auth(ReasonCode, Vec<u8>),
    SubAck(Vec<u8>),
    PubAck(ReasonCode),
    Publish {
        topic: String,
        payload: Vec<u8>,
    },
    Disconnect(ReasonCode),
    PingResp,
    Other,
    /// The connection is closed.
    Closed,
}

impl Link {
    pub fn open(server: &Server) -> Link {
        Link::to(&server.broker.address("tcp"))
    }

    pub fn to(address: &str) -> Link {
        Link::over(tcp(address))
    }

    /// On a stream that waits no longer than [`PATIENCE`].
    pub fn over(stream: impl Stream + 'static) -> Link {
        Link { stream: Box::new(stream), received: Vec::new(), taken: 0, version: Version::V5 }
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        // A broker that has closed the connection is found by what it sent.
        let _ = self.stream.write_all(bytes);
    }

    pub fn send(&mut self, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        packet.encode(self.version, &mut bytes).unwrap();
        self.bytes(&bytes);
    }

    /// The next packet.
    pub fn next(&mut self) -> Got {
        loop {
            if let Some(frame) = Frame::parse(&self.received, u32::MAX).unwrap()
                && frame.packet_len() <= self.received.len()
            {
                let packet = Packet::decode(self.version, &frame, &self.received).unwrap();
                let got = got(&packet);
                self.taken += frame.packet_len();
                self.received.drain(..frame.packet_len());
                return got;
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Got::Closed,
                Ok(n) => self.received.extend_from_slice(&buffer[..n]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Got::Closed,
                Err(error) => panic!("nothing came: {error}"),
            }
        }
    }

    pub fn connect(server: &Server, connect: Connect<'_>) -> (Link, Got) {
        let mut link = Link::open(server);
        link.version = connect.version;
        link.send(&Packet::Connect(connect));
        let got = link.next();
        (link, got)
    }

    /// Is let in with user name and password.
    pub fn login(server: &Server, user: &str, password: &[u8], client_id: &str) -> Link {
        let (link, got) = Link::connect(server, login(user, password, client_id));
        assert_eq!(got, welcome(false), "{user}");
        link
    }

    /// The reason code of SUBACK.
    pub fn subscribe(&mut self, filter: &str) -> u8 {
        let filters = [Subscription::new(filter, QoS::AtLeastOnce)];
        let (packet_id, properties) = (PacketId::MIN, Properties::NONE);
        let filters = Filters::new(&filters);
        self.send(&Packet::Subscribe(Subscribe { packet_id, properties, filters }));
        match self.next() {
            Got::SubAck(codes) => codes[0],
            other => panic!("no SUBACK but {other:?}"),
        }
    }

    /// The reason code of PUBACK.
    pub fn publish(&mut self, topic: &str, payload: &[u8], retain: bool) -> ReasonCode {
        let (qos, packet_id) = (QoS::AtLeastOnce, Some(PacketId::MIN));
        self.send(&Packet::Publish(Publish {
            qos,
            packet_id,
            retain,
            ..Publish::new(topic, payload)
        }));
        loop {
            match self.next() {
                Got::PubAck(reason) => return reason,
                Got::Publish { .. } => {}
                other => panic!("no PUBACK but {other:?}"),
            }
        }
    }

    pub fn auth(&mut self, reason: ReasonCode, method: &str, data: &[u8]) {
        let list = [Property::AuthenticationMethod(method), Property::AuthenticationData(data)];
        self.send(&Packet::Auth(Auth { reason, properties: Properties::new(&list) }));
    }

    /// Whether nothing was sent before the answer to this PINGREQ.
    pub fn is_quiet(&mut self) -> bool {
        self.send(&Packet::PingReq);
        self.next() == Got::PingResp
    }
}

/// A connection of TCP that waits no longer than [`PATIENCE`].
pub fn tcp(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// CONNECT of 5.0 with user name and password.
pub fn login<'a>(user: &'a str, password: &'a [u8], client_id: &'a str) -> Connect<'a> {
    let (user_name, password) = (Some(user), Some(password));
    Connect { user_name, password, ..Connect::new(Version::V5, client_id) }
}

pub fn welcome(session_present: bool) -> Got {
    Got::ConnAck { session_present, reason: ReasonCode::Success }
}

pub fn refused(reason: ReasonCode) -> Got {
    Got::ConnAck { session_present: false, reason }
}

fn got(packet: &Packet<'_>) -> Got {
    match packet {
        Packet::ConnAck(p) => Got::ConnAck { session_present: p.session_present, reason: p.reason },
        Packet::Auth(p) => {
            let data = p.properties.iter().find_map(|property| match property {
                Property::AuthenticationData(data) => Some(data.to_vec()),
                _ => None,
            });
            Got::Auth(p.reason, data.unwrap_or_default())
        }
        Packet::SubAck(p) => Got::SubAck(p.codes.bytes().to_vec()),
        Packet::PubAck(p) => Got::PubAck(p.reason),
        Packet::Publish(p) => {
            Got::Publish { topic: p.topic.to_owned(), payload: p.payload.to_vec() }
        }
        Packet::Disconnect(p) => Got::Disconnect(p.reason),
        Packet::PingResp => Got::PingResp,
        _ => Got::Other,
    }
}
