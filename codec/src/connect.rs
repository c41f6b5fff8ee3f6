//! CONNECT (section 3.1).

use crate::property::Allowed;
use crate::publish::check_no_wildcard;
use crate::wire::{Reader, put_binary};
use crate::{DecodeError, EncodeError, Properties, QoS, ReasonCode, Sink, Version};

const PROPERTIES: Allowed = Allowed::new(&[17, 21, 22, 23, 25, 33, 34, 39]);
const WILL_PROPERTIES: Allowed = Allowed::new(&[1, 2, 3, 8, 9, 24]);

/// A client's first packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connect<'a> {
    /// From the protocol name and level.
    pub version: Version,
    /// Clean Start in 5.0, Clean Session before.
    pub clean_start: bool,
    /// Seconds; 0: no keep alive.
    pub keep_alive_s: u16,
    /// 5.0 only.
    pub properties: Properties<'a>,
    /// May be empty: then the server assigns one.
    pub client_id: &'a str,
    /// What to publish should the connection be lost.
    pub will: Option<Will<'a>>,
    /// Also called username.
    pub user_name: Option<&'a str>,
    /// Any bytes.
    pub password: Option<&'a [u8]>,
}

/// The will message of a CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Will<'a> {
    /// Where it is published; not empty, without wildcards.
    pub topic: &'a str,
    /// What is published.
    pub payload: &'a [u8],
    /// Its QoS.
    pub qos: QoS,
    /// Whether it is to be retained.
    pub retain: bool,
    /// 5.0 only: will delay interval and those of a PUBLISH.
    pub properties: Properties<'a>,
}

impl<'a> Connect<'a> {
    /// A clean start without keep alive, will or credentials.
    pub const fn new(version: Version, client_id: &'a str) -> Connect<'a> {
        Connect {
            version,
            clean_start: true,
            keep_alive_s: 0,
            properties: Properties::NONE,
            client_id,
            will: None,
            user_name: None,
            password: None,
        }
    }

    pub(crate) fn decode(body: &'a [u8]) -> Result<Connect<'a>, DecodeError> {
        let r = &mut Reader::new(body);
        let version = version(r)?;
        let flags = r.u8()?;
        // [MQTT-3.1.2-3]
        if flags & 1 != 0 {
            return Err(DecodeError::malformed("the reserved connect flag is set"));
        }
        let keep_alive_s = r.u16()?;
        let properties = Properties::decode(r, version, PROPERTIES)?;
        let client_id = r.string()?;
        let will = will(r, version, flags)?;
        // In 3.1 the remaining length takes precedence over these flags (its section 3.1), so that
        // a flag without its field is valid.
        let has =
            |r: &Reader<'_>, flag| flags & flag != 0 && !(version == Version::V3_1 && r.is_empty());
        let user_name = if has(r, 0x80) { Some(r.string()?) } else { None };
        let password = if has(r, 0x40) { Some(r.binary()?) } else { None };
        // [MQTT-3.1.2-22] of 3.1.1: no password without a user name; 5.0 allows it.
        if password.is_some() && user_name.is_none() && !version.is_v5() {
            return Err(DecodeError::malformed("a password without a user name"));
        }
        r.end()?;
        let clean_start = flags & 2 != 0;
        Ok(Connect {
            version,
            clean_start,
            keep_alive_s,
            properties,
            client_id,
            will,
            user_name,
            password,
        })
    }

    pub(crate) fn encode_body(&self, sink: &mut impl Sink) -> Result<(), EncodeError> {
        // [MQTT-3.1.2-22] of 3.1.1
        if self.password.is_some() && self.user_name.is_none() && !self.version.is_v5() {
            return Err(EncodeError::NotInVersion);
        }
        let name: &[u8] = if self.version == Version::V3_1 { b"MQIsdp" } else { b"MQTT" };
        put_binary(sink, name)?;
        let mut flags = 0;
        if self.clean_start {
            flags |= 2;
        }
        if let Some(will) = &self.will {
            flags |= 4 | (will.qos as u8) << 3 | u8::from(will.retain) << 5;
        }
        if self.password.is_some() {
            flags |= 0x40;
        }
        if self.user_name.is_some() {
            flags |= 0x80;
        }
        sink.put(&[self.version as u8, flags])?;
        sink.put(&self.keep_alive_s.to_be_bytes())?;
        self.properties.encode(self.version, sink)?;
        put_binary(sink, self.client_id.as_bytes())?;
        if let Some(will) = &self.will {
            will.properties.encode(self.version, sink)?;
            put_binary(sink, will.topic.as_bytes())?;
            put_binary(sink, will.payload)?;
        }
        if let Some(user_name) = self.user_name {
            put_binary(sink, user_name.as_bytes())?;
        }
        if let Some(password) = self.password {
            put_binary(sink, password)?;
        }
        Ok(())
    }
}

/// [MQTT-3.1.2-1] [MQTT-3.1.2-2]
fn version(r: &mut Reader<'_>) -> Result<Version, DecodeError> {
    let name = r.binary()?;
    let level = r.u8()?;
    match (name, level) {
        (b"MQIsdp", 3) => Ok(Version::V3_1),
        (b"MQTT", 4) => Ok(Version::V3_1_1),
        (b"MQTT", 5) => Ok(Version::V5),
        _ => Err(DecodeError::new(
            ReasonCode::UnsupportedProtocolVersion,
            "the protocol is not MQTT 3.1, 3.1.1 or 5.0",
        )),
    }
}

fn will<'a>(
    r: &mut Reader<'a>,
    version: Version,
    flags: u8,
) -> Result<Option<Will<'a>>, DecodeError> {
    if flags & 4 == 0 {
        // [MQTT-3.1.2-11] [MQTT-3.1.2-13] of 5.0, [MQTT-3.1.2-13] [MQTT-3.1.2-15] of 3.1.1
        // 3.1 disregards both.
        if flags & 0x38 != 0 && version != Version::V3_1 {
            return Err(DecodeError::malformed("will QoS or will retain without a will"));
        }
        return Ok(None);
    }
    // [MQTT-3.1.2-12]
    let qos = QoS::from_u8(flags >> 3 & 3).ok_or(DecodeError::malformed("the will's QoS is 3"))?;
    let retain = flags & 0x20 != 0;
    let properties = Properties::decode(r, version, WILL_PROPERTIES)?;
    let topic = r.string()?;
    // A will becomes a PUBLISH: [MQTT-3.3.2-2] [MQTT-4.7.3-1]
    check_no_wildcard(topic)?;
    if topic.is_empty() {
        return Err(DecodeError::new(ReasonCode::TopicNameInvalid, "the will's topic is empty"));
    }
    let payload = r.binary()?;
    Ok(Some(Will { topic, payload, qos, retain, properties }))
}
