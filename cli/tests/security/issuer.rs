//! An authorization server that signs whatever it is asked to sign, and who carries its tokens.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
    RsaPublicKeyComponents,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest;
use tungstenite::{Message, WebSocket};
use whimbrel_codec::{Connect, Packet, Properties, Property, Version};

use super::link::{Got, Link, tcp};
use super::server::Server;

pub const ISSUER: &str = "https://as.example";
pub const AUDIENCE: &str = "mqtt.example";
pub const METHOD: &str = "OAUTH2-JWT";

pub static RSA: LazyLock<RsaKeyPair> =
    LazyLock::new(|| RsaKeyPair::generate(KeySize::Rsa2048).unwrap());
pub static EC: LazyLock<EcdsaKeyPair> = LazyLock::new(ec_key);
/// Another key of the same set.
pub static OTHER: LazyLock<EcdsaKeyPair> = LazyLock::new(ec_key);

pub fn ec_key() -> EcdsaKeyPair {
    EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()
}

pub fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub fn rsa_jwk() -> Value {
    let public = RsaPublicKeyComponents::<Vec<u8>>::from(RSA.public_key());
    json!({"kty": "RSA", "kid": "rsa", "n": encode(&public.n), "e": encode(&public.e)})
}

pub fn ec_jwk(pair: &EcdsaKeyPair, kid: &str) -> Value {
    let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
    json!({"kty": "EC", "crv": "P-256", "kid": kid, "x": encode(x), "y": encode(y)})
}

/// A key set as it is served.
pub fn jwks(keys: &[Value]) -> String {
    json!({"keys": keys}).to_string()
}

/// The set of all three keys.
pub fn all_keys() -> String {
    jwks(&[rsa_jwk(), ec_jwk(&EC, "ec"), ec_jwk(&OTHER, "other")])
}

pub fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Of a token that is signed with [`EC`].
pub fn header() -> Value {
    json!({"alg": "ES256", "typ": "at+jwt", "kid": "ec"})
}

/// Valid for an hour, and for every topic.
pub fn claims() -> Value {
    let scope = "mqtt:pub:# mqtt:sub:#";
    json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "exp": now_s() + 3600, "scope": scope,
    })
}

/// An object with one field changed; null removes it.
pub fn with(mut object: Value, name: &str, value: Value) -> Value {
    let fields = object.as_object_mut().unwrap();
    match value {
        Value::Null => drop(fields.remove(name)),
        value => drop(fields.insert(name.into(), value)),
    }
    object
}

/// What is signed.
pub fn unsigned(header: &Value, claims: &str) -> String {
    format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.as_bytes()))
}

pub fn joined(message: &str, signature: &[u8]) -> String {
    format!("{message}.{}", encode(signature))
}

/// Signed by `pair`, whatever the header says.
pub fn signed_by(pair: &EcdsaKeyPair, header: &Value, claims: &str) -> String {
    let message = unsigned(header, claims);
    let signature = pair.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
    joined(&message, signature.as_ref())
}

/// Signed by [`EC`].
pub fn token(header: &Value, claims: &Value) -> String {
    signed_by(&EC, header, &claims.to_string())
}

/// A fine token of `ann` with this scope that ends at `exp`.
pub fn scoped(scope: &str, exp: u64) -> String {
    token(&header(), &with(with(claims(), "scope", json!(scope)), "exp", json!(exp)))
}

/// Signed by [`RSA`], whatever the header says.
pub fn rsa_token(header: &Value, claims: &Value) -> String {
    let message = unsigned(header, &claims.to_string());
    let mut signature = vec![0; RSA.public_modulus_len()];
    RSA.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature).unwrap();
    joined(&message, &signature)
}

/// `[[token]]` with these keys (`jwks_file = ...`), and a listener of TCP and of WebSocket.
pub fn config(keys: &str) -> String {
    format!(
        "[[token]]\nissuer = \"{ISSUER}\"\naudience = [\"{AUDIENCE}\"]\nleeway_s = 0\n{keys}\n\
         [[listener]]\ntype = \"tcp\"\nbind = \"127.0.0.1:0\"\n\
         [[listener]]\ntype = \"websocket\"\nbind = \"127.0.0.1:0\"\n"
    )
}

/// A broker with all three keys in a file.
pub fn server() -> Server {
    Server::start(&config("jwks_file = \"{folder}/jwks.json\""), &[("jwks.json", &all_keys())])
}

/// How a token comes to the broker.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Carrier {
    Password,
    Method,
    WebSocket,
}

impl Carrier {
    pub const ALL: [Carrier; 3] = [Carrier::Password, Carrier::Method, Carrier::WebSocket];

    /// Connects with this token; the link and CONNACK.
    pub fn present(self, server: &Server, token: &str, client_id: &str) -> (Link, Got) {
        let list = [
            Property::AuthenticationMethod(METHOD),
            Property::AuthenticationData(token.as_bytes()),
        ];
        let connect = Connect::new(Version::V5, client_id);
        match self {
            Carrier::Password => {
                Link::connect(server, Connect { password: Some(token.as_bytes()), ..connect })
            }
            Carrier::Method => {
                let properties = Properties::new(&list);
                Link::connect(server, Connect { properties, ..connect })
            }
            Carrier::WebSocket => {
                let mut link = Link::over(WebSocketStream::open(server, token));
                link.send(&Packet::Connect(connect));
                let got = link.next();
                (link, got)
            }
        }
    }
}

/// The bytes in the messages of a WebSocket.
struct WebSocketStream {
    socket: WebSocket<TcpStream>,
    received: Vec<u8>,
}

impl WebSocketStream {
    fn open(server: &Server, token: &str) -> WebSocketStream {
        let address = server.broker.address("websocket");
        let mut request = format!("ws://{address}").into_client_request().unwrap();
        let headers = request.headers_mut();
        headers.insert("sec-websocket-protocol", "mqtt".parse().unwrap());
        headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
        let stream = tcp(address.split('/').next().unwrap());
        let (socket, _) = tungstenite::client(request, stream).unwrap();
        WebSocketStream { socket, received: Vec::new() }
    }
}

impl Read for WebSocketStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.received.is_empty() {
            match self.socket.read() {
                Ok(Message::Binary(bytes)) => self.received.extend_from_slice(&bytes),
                Ok(Message::Close(_)) => return Ok(0),
                Ok(_) => {}
                Err(tungstenite::Error::Io(error)) => return Err(error),
                Err(_) => return Ok(0),
            }
        }
        let len = buffer.len().min(self.received.len());
        buffer[..len].copy_from_slice(&self.received[..len]);
        self.received.drain(..len);
        Ok(len)
    }
}

impl Write for WebSocketStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.send(Message::binary(bytes.to_vec())).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
