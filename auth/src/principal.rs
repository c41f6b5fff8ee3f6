//! Who a client has shown to be.

use serde::{Deserialize, Serialize};

use crate::Action;

/// Who a client has shown to be. Holds no secret: it is written to the store and to logs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    /// The user name in rules (`%u`); empty if nobody knows the client. Sessions belong to it.
    pub name: Box<str>,
    /// How it was shown.
    pub method: Method,
    /// Groups that rules can name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Box<str>>,
    /// What the proof says of the client, as names and values; a list gives its name several times.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<(Box<str>, Box<str>)>,
    /// The name in its client certificate, whichever method decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Box<str>>,
    /// What the proof itself permits (scopes, a claim, a hook's answer); none if it says nothing of
    /// permissions. Rules come first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permissions: Option<Vec<Permission>>,
    /// When the proof ends, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_s: Option<u64>,
}

/// How a client has shown who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Not at all.
    Anonymous,
    /// User name and password.
    Password,
    /// A client certificate.
    Certificate,
    /// An OAuth token.
    Token,
    /// SCRAM.
    Scram,
    /// The MQTT-TLS profile of ACE.
    Ace,
    /// A hook over HTTP.
    Http,
}

/// As configuration and rules write them.
const METHODS: [(&str, Method); 7] = [
    ("anonymous", Method::Anonymous),
    ("password", Method::Password),
    ("certificate", Method::Certificate),
    ("token", Method::Token),
    ("scram", Method::Scram),
    ("ace", Method::Ace),
    ("http", Method::Http),
];

impl Method {
    /// Reads its name, as in configuration and rules; the error says which there are.
    pub fn parse(name: &str) -> Result<Method, String> {
        let found = METHODS.iter().find(|(known, _)| *known == name);
        found.map(|(_, method)| *method).ok_or_else(|| {
            let names: Vec<&str> = METHODS.iter().map(|(name, _)| *name).collect();
            format!("`{name}` is no method: these are {}", names.join(", "))
        })
    }
}

/// Something that a proof permits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permission {
    /// What may be done; [`Action::Receive`] does not occur: who may subscribe may receive.
    pub action: Action,
    /// On which topics: a topic filter.
    pub filter: Box<str>,
    /// Up to which QoS.
    pub qos: u8,
    /// Whether messages may be retained, for PUBLISH.
    pub retain: bool,
}

impl Principal {
    /// Without groups, claims, permissions or an end.
    pub fn new(name: &str, method: Method) -> Principal {
        Principal {
            name: name.into(),
            method,
            groups: Vec::new(),
            claims: Vec::new(),
            certificate: None,
            permissions: None,
            expires_s: None,
        }
    }

    /// As text for the store.
    pub fn encode(&self) -> Vec<u8> {
        // Text and numbers always have a JSON form.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// What [`Principal::encode`] gave; none if it is not that.
    pub fn decode(bytes: &[u8]) -> Option<Principal> {
        serde_json::from_slice(bytes).ok()
    }
}
