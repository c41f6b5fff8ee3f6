//! The formulas of SCRAM (RFC 5802, section 3), and what the server stores of a password.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256, Sha512};

/// Iterations of new keys.
pub const DEFAULT_ITERATIONS: u32 = 15_000;
/// Fewest and most that are accepted: less than RFC 7677 demands is too weak, more takes a
/// small client minutes.
pub const ITERATIONS: core::ops::RangeInclusive<u32> = 4_096..=1_000_000;
/// Bytes of the salt of new keys.
pub const SALT_BYTES: usize = 16;

/// Which SCRAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mechanism {
    /// `SCRAM-SHA-256` (RFC 7677).
    Sha256,
    /// `SCRAM-SHA-512`.
    Sha512,
}

impl Mechanism {
    /// As an authentication method of MQTT 5.0.
    pub fn name(self) -> &'static str {
        match self {
            Mechanism::Sha256 => "SCRAM-SHA-256",
            Mechanism::Sha512 => "SCRAM-SHA-512",
        }
    }

    /// Of an authentication method.
    pub fn from_name(name: &str) -> Option<Mechanism> {
        [Mechanism::Sha256, Mechanism::Sha512].into_iter().find(|one| one.name() == name)
    }

    fn label(self) -> &'static str {
        match self {
            Mechanism::Sha256 => "scram-sha-256",
            Mechanism::Sha512 => "scram-sha-512",
        }
    }

    /// Bytes of a digest.
    pub(super) fn digest_bytes(self) -> usize {
        match self {
            Mechanism::Sha256 => 32,
            Mechanism::Sha512 => 64,
        }
    }

    pub(super) fn digest(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Mechanism::Sha256 => Sha256::digest(bytes).to_vec(),
            Mechanism::Sha512 => Sha512::digest(bytes).to_vec(),
        }
    }

    pub(super) fn hmac(self, key: &[u8], message: &[u8]) -> Vec<u8> {
        // HMAC takes a key of any length; an empty result would fit nothing.
        match self {
            Mechanism::Sha256 => Hmac::<Sha256>::new_from_slice(key)
                .map(|mac| mac.chain_update(message).finalize().into_bytes().to_vec()),
            Mechanism::Sha512 => Hmac::<Sha512>::new_from_slice(key)
                .map(|mac| mac.chain_update(message).finalize().into_bytes().to_vec()),
        }
        .unwrap_or_default()
    }

    /// `Hi` of the prepared password.
    pub(super) fn salted(self, password: &str, salt: &[u8], iterations: u32) -> Vec<u8> {
        let mut out = alloc::vec![0; self.digest_bytes()];
        let password = password.as_bytes();
        match self {
            Mechanism::Sha256 => {
                pbkdf2::pbkdf2_hmac::<Sha256>(password, salt, iterations, &mut out)
            }
            Mechanism::Sha512 => {
                pbkdf2::pbkdf2_hmac::<Sha512>(password, salt, iterations, &mut out)
            }
        }
        out
    }
}

/// SASLprep (RFC 4013); none for what it prohibits.
pub fn prepared(text: &str) -> Option<String> {
    stringprep::saslprep(text).ok().map(|text| text.into_owned())
}

/// Digits alone: no sign, no leading zero.
pub fn decimal(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    if plain { text.parse().ok() } else { None }
}

/// What the server knows of a user's password: enough to check a proof and to give its own, not
/// enough to log in elsewhere.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredKeys {
    mechanism: Mechanism,
    iterations: u32,
    salt: Box<[u8]>,
    stored_key: Box<[u8]>,
    server_key: Box<[u8]>,
}

impl fmt::Debug for StoredKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoredKeys({}, {} iterations)", self.mechanism.name(), self.iterations)
    }
}

impl StoredKeys {
    /// Of a password; none if SASLprep prohibits it (control characters, or none left).
    pub fn new(mechanism: Mechanism, password: &str, salt: &[u8], iterations: u32) -> Option<Self> {
        let password = prepared(password).filter(|password| !password.is_empty())?;
        let salted = mechanism.salted(&password, salt, iterations);
        let client_key = mechanism.hmac(&salted, b"Client Key");
        Some(StoredKeys {
            mechanism,
            iterations,
            salt: salt.into(),
            stored_key: mechanism.digest(&client_key).into(),
            server_key: mechanism.hmac(&salted, b"Server Key").into(),
        })
    }

    /// Of a user who is not there: `draw` gives bytes that are always the same for the user. No
    /// proof fits them.
    pub(super) fn of_nobody(mechanism: Mechanism, iterations: u32, draw: &[u8; 32]) -> Self {
        let salt = draw[..SALT_BYTES].into();
        let nothing: Box<[u8]> = alloc::vec![0; mechanism.digest_bytes()].into();
        let (stored_key, server_key) = (nothing.clone(), nothing);
        StoredKeys { mechanism, iterations, salt, stored_key, server_key }
    }

    /// Reads `$scram-sha-256$iterations$salt$StoredKey$ServerKey`, or the same with 512. The error
    /// says what is wrong and what to do.
    pub fn parse(text: &str) -> Result<StoredKeys, String> {
        const REMEDY: &str = "set the password again with --scram";
        let parts: Vec<&str> = text.split('$').collect();
        let ["", label, iterations, salt, stored_key, server_key] = parts[..] else {
            return Err(format!(
                "not $scram-sha-256$iterations$salt$StoredKey$ServerKey; {REMEDY}"
            ));
        };
        let mechanism = [Mechanism::Sha256, Mechanism::Sha512]
            .into_iter()
            .find(|one| one.label() == label)
            .ok_or_else(|| format!("SCRAM with SHA-256 or SHA-512 alone is accepted; {REMEDY}"))?;
        let (low, high) = (ITERATIONS.start(), ITERATIONS.end());
        let iterations =
            decimal(iterations)
                .filter(|iterations| ITERATIONS.contains(iterations))
                .ok_or_else(|| format!("the iterations are not {low} to {high}; {REMEDY}"))?;
        let bytes = |text: &str, lengths: core::ops::RangeInclusive<usize>| {
            STANDARD
                .decode(text)
                .ok()
                .filter(|bytes| lengths.contains(&bytes.len()))
                .map(Vec::into_boxed_slice)
                .ok_or_else(|| format!("salt or keys are no base64 of their length; {REMEDY}"))
        };
        let length = mechanism.digest_bytes();
        Ok(StoredKeys {
            mechanism,
            iterations,
            salt: bytes(salt, 8..=64)?,
            stored_key: bytes(stored_key, length..=length)?,
            server_key: bytes(server_key, length..=length)?,
        })
    }

    /// Whose keys they are.
    pub fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// How often the client has to hash.
    pub fn iterations(&self) -> u32 {
        self.iterations
    }

    pub(super) fn salt_text(&self) -> String {
        STANDARD.encode(&self.salt)
    }

    /// Whether the proof is of who knows the password.
    pub(super) fn check(&self, auth_message: &[u8], proof: &[u8]) -> bool {
        use subtle::ConstantTimeEq;
        let signature = self.mechanism.hmac(&self.stored_key, auth_message);
        if proof.len() != signature.len() {
            return false;
        }
        let client_key = xor(proof, &signature);
        self.mechanism.digest(&client_key).ct_eq(&self.stored_key).into()
    }

    /// The server's own proof.
    pub(super) fn server_signature(&self, auth_message: &[u8]) -> Vec<u8> {
        self.mechanism.hmac(&self.server_key, auth_message)
    }
}

impl fmt::Display for StoredKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [salt, stored, server] =
            [&self.salt, &self.stored_key, &self.server_key].map(|bytes| STANDARD.encode(bytes));
        let label = self.mechanism.label();
        write!(f, "${label}${}${salt}${stored}${server}", self.iterations)
    }
}

pub(super) fn xor(left: &[u8], right: &[u8]) -> Vec<u8> {
    left.iter().zip(right).map(|(left, right)| left ^ right).collect()
}
