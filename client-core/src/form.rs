//! How a PUBLISH of the application stands on the wire: its length is known before it is written.

use whimbrel_codec::{
    EncodeError, MAX_REMAINING_LENGTH, PacketId, Properties, Property, Publish, QoS, Sink,
    SliceSink, Version, variable_byte_integer_len, write_variable_byte_integer,
};

use crate::topics::Alias;

/// Identifier and value of the property Topic Alias.
const ALIAS_LEN: usize = 3;

pub(crate) struct Form<'a> {
    flags: u8,
    topic: &'a str,
    packet_id: Option<PacketId>,
    v5: bool,
    alias: Option<u16>,
    /// Whether an alias that the application gave is left out.
    lasting: bool,
    properties: Properties<'a>,
    properties_len: usize,
    payload: &'a [u8],
    remaining_len: usize,
}

impl<'a> Form<'a> {
    /// As the application gave it.
    pub(crate) fn new(version: Version, publish: &Publish<'a>) -> Result<Form<'a>, EncodeError> {
        Form::build(version, publish, false)
    }

    /// As it may be sent on any connection: an alias ends with its own.
    pub(crate) fn lasting(
        version: Version,
        publish: &Publish<'a>,
    ) -> Result<Form<'a>, EncodeError> {
        Form::build(version, publish, true)
    }

    fn build(
        version: Version,
        publish: &Publish<'a>,
        lasting: bool,
    ) -> Result<Form<'a>, EncodeError> {
        let v5 = version.is_v5();
        let mut count = Count(0);
        if v5 && !publish.properties.is_empty() {
            publish.properties.write_raw(&mut count, keep(lasting))?;
        }
        let has_id = publish.qos != QoS::AtMostOnce;
        if has_id && publish.packet_id.is_none() {
            return Err(EncodeError::NoPacketId);
        }
        Form {
            flags: u8::from(publish.dup) << 3 | (publish.qos as u8) << 1 | u8::from(publish.retain),
            topic: publish.topic,
            packet_id: publish.packet_id.filter(|_| has_id),
            v5,
            alias: None,
            lasting,
            properties: publish.properties,
            properties_len: count.0,
            payload: publish.payload,
            remaining_len: 0,
        }
        .sized()
    }

    /// With this alias in addition; the length grows by at most three and a bit.
    pub(crate) fn with_alias(self, alias: Alias) -> Result<Form<'a>, EncodeError> {
        match alias {
            Alias::None => Ok(self),
            Alias::New(alias) => Form { alias: Some(alias), ..self }.sized(),
            Alias::Known(alias) => Form { alias: Some(alias), topic: "", ..self }.sized(),
        }
    }

    fn properties_len(&self) -> usize {
        self.properties_len + if self.alias.is_some() { ALIAS_LEN } else { 0 }
    }

    fn sized(mut self) -> Result<Form<'a>, EncodeError> {
        if self.topic.len() > usize::from(u16::MAX) {
            return Err(EncodeError::FieldTooLong);
        }
        let properties_len = self.properties_len();
        let mut len = 2 + self.topic.len();
        len += if self.packet_id.is_some() { 2 } else { 0 };
        if self.v5 {
            let short = u32::try_from(properties_len).map_err(|_| EncodeError::PacketTooLong)?;
            len += variable_byte_integer_len(short) + properties_len;
        }
        len = len.saturating_add(self.payload.len());
        if len > MAX_REMAINING_LENGTH as usize {
            return Err(EncodeError::PacketTooLong);
        }
        self.remaining_len = len;
        Ok(self)
    }

    /// Length of the packet, in bytes.
    pub(crate) fn len(&self) -> usize {
        1 + variable_byte_integer_len(self.remaining_len as u32) + self.remaining_len
    }

    /// Writes the packet to `bytes`, which is long enough.
    pub(crate) fn write(&self, bytes: &mut [u8]) -> Result<(), EncodeError> {
        let sink = &mut SliceSink::new(bytes);
        sink.put(&[0x30 | self.flags])?;
        write_variable_byte_integer(sink, self.remaining_len as u32)?;
        sink.put(&(self.topic.len() as u16).to_be_bytes())?;
        sink.put(self.topic.as_bytes())?;
        if let Some(id) = self.packet_id {
            sink.put(&id.get().to_be_bytes())?;
        }
        if self.v5 {
            write_variable_byte_integer(sink, self.properties_len() as u32)?;
            if let Some(alias) = self.alias {
                Properties::new(&[Property::TopicAlias(alias)]).write_raw(sink, |_| true)?;
            }
            if self.properties_len > 0 {
                self.properties.write_raw(sink, keep(self.lasting))?;
            }
        }
        sink.put(self.payload)
    }
}

/// Which properties of the application are written.
fn keep(lasting: bool) -> impl Fn(&Property<'_>) -> bool {
    move |property| !(lasting && matches!(property, Property::TopicAlias(_)))
}

/// Counts what is written.
pub(crate) struct Count(pub(crate) usize);

impl Sink for Count {
    fn put(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.0 = self.0.saturating_add(bytes.len());
        Ok(())
    }
}
