//! The messages of SCRAM as text (RFC 5802, section 7).

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::Fault;

/// Longest message that is looked at, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 4096;
/// Longest nonce of the other side, in bytes.
const MAX_NONCE_BYTES: usize = 512;

/// `client-first-message`.
pub struct ClientFirst<'a> {
    /// `gs2-header`, which comes back in client-final.
    pub gs2_header: &'a str,
    /// `client-first-message-bare`.
    pub bare: &'a str,
    /// As sent, without escapes.
    pub user: String,
    /// On whose behalf, if it says so.
    pub authorization: Option<String>,
    pub nonce: &'a str,
}

/// `client-final-message`.
pub struct ClientFinal<'a> {
    /// `client-final-message-without-proof`.
    pub without_proof: &'a str,
    /// Decoded: the `gs2-header`.
    pub channel_binding: Vec<u8>,
    pub nonce: &'a str,
    pub proof: Vec<u8>,
}

impl<'a> ClientFirst<'a> {
    pub fn parse(message: &'a [u8]) -> Result<ClientFirst<'a>, Fault> {
        let text = text(message)?;
        let (flag, rest) = text.split_once(',').ok_or(Fault::Malformed)?;
        let (authorization, bare) = rest.split_once(',').ok_or(Fault::Malformed)?;
        match flag {
            "n" | "y" => {}
            _ if flag.starts_with("p=") => return Err(Fault::ChannelBinding),
            _ => return Err(Fault::Malformed),
        }
        let authorization = match authorization {
            "" => None,
            name => Some(unescaped(name.strip_prefix("a=").ok_or(Fault::Malformed)?)?),
        };
        if bare.starts_with("m=") {
            return Err(Fault::Extension);
        }
        let mut fields = bare.split(',');
        let user = unescaped(attribute(fields.next(), "n=")?)?;
        let nonce = nonce(attribute(fields.next(), "r=")?)?;
        extensions(fields)?;
        let gs2_header = &text[..text.len() - bare.len()];
        Ok(ClientFirst { gs2_header, bare, user, authorization, nonce })
    }
}

impl<'a> ClientFinal<'a> {
    pub fn parse(message: &'a [u8]) -> Result<ClientFinal<'a>, Fault> {
        let text = text(message)?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(Fault::Malformed)?;
        let mut fields = without_proof.split(',');
        let channel_binding = base64(attribute(fields.next(), "c=")?)?;
        let nonce = nonce(attribute(fields.next(), "r=")?)?;
        extensions(fields)?;
        Ok(ClientFinal { without_proof, channel_binding, nonce, proof: base64(proof)? })
    }
}

/// The text of a message of fair length.
pub fn text(message: &[u8]) -> Result<&str, Fault> {
    if message.len() > MAX_MESSAGE_BYTES {
        return Err(Fault::Malformed);
    }
    let text = core::str::from_utf8(message).map_err(|_| Fault::Malformed)?;
    if text.contains('\0') { Err(Fault::Malformed) } else { Ok(text) }
}

/// The value of the attribute that must stand here.
pub fn attribute<'a>(field: Option<&'a str>, name: &str) -> Result<&'a str, Fault> {
    field.and_then(|field| field.strip_prefix(name)).ok_or(Fault::Malformed)
}

/// Printable ASCII without `,`.
pub fn nonce(text: &str) -> Result<&str, Fault> {
    let fine = (1..=MAX_NONCE_BYTES).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',');
    if fine { Ok(text) } else { Err(Fault::Malformed) }
}

pub fn base64(text: &str) -> Result<Vec<u8>, Fault> {
    STANDARD.decode(text).map_err(|_| Fault::Malformed)
}

/// What follows the known attributes: optional extensions, which may be ignored. They have other
/// names than the attributes of RFC 5802.
pub fn extensions<'a>(mut fields: impl Iterator<Item = &'a str>) -> Result<(), Fault> {
    let fine = fields.all(|field| match field.as_bytes() {
        [name, b'=', _, ..] => name.is_ascii_alphabetic() && !b"anmrcsivpe".contains(name),
        _ => false,
    });
    if fine { Ok(()) } else { Err(Fault::Malformed) }
}

/// A `saslname` with `,` and `=` in it.
pub fn escaped(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}

/// The name behind a `saslname`: no `=` but in `=2C` and `=3D`.
fn unescaped(name: &str) -> Result<String, Fault> {
    let mut parts = name.split('=');
    let mut out = parts.next().unwrap_or_default().to_string();
    for part in parts {
        let (escaped, rest) = match (part.strip_prefix("2C"), part.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (_, Some(rest)) => ('=', rest),
            _ => return Err(Fault::Malformed),
        };
        out.push(escaped);
        out.push_str(rest);
    }
    if out.is_empty() { Err(Fault::Malformed) } else { Ok(out) }
}
