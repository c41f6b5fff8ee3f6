//! Enhanced authentication and re-authentication (section 4.12), as far as it is about who may say
//! what when. The exchange itself is the application's.

use whimbrel_codec::{Auth, ConnAck, Connect, DecodeError, Properties, Property, ReasonCode};

use crate::Error;
use crate::storage::Storage;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// No exchange is going on.
    Nobody,
    /// The server answers next.
    Server,
    /// The application answers next.
    Client,
}

pub(crate) struct Authentication<'m> {
    /// The method of CONNECT, in the first bytes.
    method: Storage<'m, u8>,
    /// None: CONNECT has named no method.
    method_len: Option<u16>,
    turn: Turn,
    /// What CONNACK says to the exchange has been told.
    is_told: bool,
}

impl<'m> Authentication<'m> {
    pub(crate) const fn new(method: Storage<'m, u8>) -> Authentication<'m> {
        Authentication { method, method_len: None, turn: Turn::Nobody, is_told: false }
    }

    /// The most bytes that a method's name can have.
    fn max(&self) -> usize {
        self.method.max()
    }

    pub(crate) fn connect(&mut self, connect: &Connect<'_>) -> Result<(), Error> {
        let named = if connect.version.is_v5() { method(&connect.properties) } else { None };
        self.method_len = None;
        self.turn = Turn::Nobody;
        self.is_told = false;
        let Some(name) = named else { return Ok(()) };
        let len = u16::try_from(name.len()).map_err(|_| Error::AuthenticationMethod)?;
        if name.len() > self.max() || !self.method.grow_to(name.len()) {
            return Err(Error::AuthenticationMethod);
        }
        if let Some(place) = self.method.items_mut().get_mut(..name.len()) {
            place.copy_from_slice(name.as_bytes());
        }
        self.method_len = Some(len);
        self.turn = Turn::Server;
        Ok(())
    }

    fn is_ours(&self, properties: &Properties<'_>) -> bool {
        let ours = self.method_len.and_then(|len| self.method.items().get(..len.into()));
        method(properties).map(str::as_bytes) == ours
    }

    /// Whether what CONNACK says to the exchange is still to be told; true once.
    pub(crate) fn tells(&mut self, ack: &ConnAck<'_>) -> bool {
        let ours = self.method_len.is_some() && self.is_ours(&ack.properties);
        ours && !core::mem::replace(&mut self.is_told, true)
    }

    /// [MQTT-4.12.0-5] [MQTT-4.12.0-6]
    pub(crate) fn handle_connack(&mut self, ack: &ConnAck<'_>) -> Result<(), DecodeError> {
        if !self.is_ours(&ack.properties) {
            return Err(DecodeError::protocol("CONNACK names another authentication method"));
        }
        self.turn = Turn::Nobody;
        Ok(())
    }

    /// `connected`: CONNACK has come.
    pub(crate) fn handle_auth(
        &mut self,
        auth: &Auth<'_>,
        connected: bool,
    ) -> Result<(), DecodeError> {
        // [MQTT-4.12.0-6]
        if self.method_len.is_none() {
            return Err(DecodeError::protocol("AUTH without an authentication method in CONNECT"));
        }
        // [MQTT-4.12.0-5] An AUTH without properties is a success without them.
        if !auth.properties.is_empty() && !self.is_ours(&auth.properties) {
            return Err(DecodeError::protocol("AUTH names another authentication method"));
        }
        self.turn = match (self.turn, auth.reason) {
            // [MQTT-4.12.0-2]
            (Turn::Server, ReasonCode::ContinueAuthentication) => Turn::Client,
            // What ends the exchange of CONNECT is CONNACK.
            (Turn::Server, ReasonCode::Success) if connected => Turn::Nobody,
            _ => return Err(DecodeError::protocol("an AUTH that answers nothing")),
        };
        Ok(())
    }

    /// Whether the application may send this now.
    pub(crate) fn check(&self, auth: &Auth<'_>, connected: bool) -> Result<(), Error> {
        // [MQTT-4.12.0-7] [MQTT-4.12.1-1] [MQTT-4.12.0-5]
        if self.method_len.is_none() || !self.is_ours(&auth.properties) {
            return Err(Error::AuthenticationMethod);
        }
        match (self.turn, auth.reason) {
            // [MQTT-4.12.0-3]
            (Turn::Client, ReasonCode::ContinueAuthentication) => Ok(()),
            // [MQTT-4.12.1-1]
            (Turn::Nobody, ReasonCode::Reauthenticate) if connected => Ok(()),
            _ => Err(Error::AuthenticationOrder),
        }
    }

    pub(crate) fn handle_sent(&mut self) {
        self.turn = Turn::Server;
    }
}

fn method<'a>(properties: &Properties<'a>) -> Option<&'a str> {
    properties.iter().find_map(|property| match property {
        Property::AuthenticationMethod(method) => Some(method),
        _ => None,
    })
}
