//! One stored password: its kinds, what each may cost, and the check.

use core::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use sha2::{Digest, Sha512};
use subtle::ConstantTimeEq;
use whimbrel_scram::decimal;

/// Memory of argon2id for new passwords, in KiB.
pub const DEFAULT_MEMORY_KIB: u32 = 19_456;
/// Passes over it for new passwords.
pub const DEFAULT_PASSES: u32 = 2;

/// Most memory that one check may take, in KiB.
const MAX_MEMORY_KIB: u32 = 256 * 1024;
/// Most memory times passes of one check, in KiB: about a second of one core.
const MAX_WORK_KIB: u64 = 512 * 1024;
const MAX_LANES: u32 = 16;
/// Most rounds of PBKDF2: about a second of one core.
const MAX_ITERATIONS: u32 = 1_000_000;
/// Shortest and longest hash and salt, in bytes.
const HASH_BYTES: core::ops::RangeInclusive<usize> = 16..=64;
const SALT_BYTES: core::ops::RangeInclusive<usize> = 8..=64;

/// Bytes of the salt of a new password.
pub const NEW_SALT_BYTES: usize = 16;

/// A password as it is stored.
#[derive(Clone, PartialEq, Eq)]
pub struct Hash {
    kind: Kind,
    salt: Box<[u8]>,
    hash: Box<[u8]>,
}

/// How the hash is made of password and salt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Argon2id {
        memory_kib: u32,
        passes: u32,
        lanes: u32,
    },
    /// Mosquitto's `$7$`.
    Pbkdf2Sha512 {
        iterations: u32,
    },
    /// Mosquitto's `$6$`.
    Sha512,
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({:?})", self.kind)
    }
}

impl Hash {
    /// Argon2id with the default cost.
    pub fn new(password: &[u8], salt: [u8; NEW_SALT_BYTES]) -> Hash {
        let kind =
            Kind::Argon2id { memory_kib: DEFAULT_MEMORY_KIB, passes: DEFAULT_PASSES, lanes: 1 };
        let mut hash = [0; 32];
        kind.digest(password, &salt, &mut hash);
        Hash { kind, salt: salt.into(), hash: hash.into() }
    }

    /// Of nobody's password: no password fits it but by chance. It costs what a new one costs.
    pub fn of_nobody() -> Hash {
        let kind =
            Kind::Argon2id { memory_kib: DEFAULT_MEMORY_KIB, passes: DEFAULT_PASSES, lanes: 1 };
        Hash { kind, salt: [0; NEW_SALT_BYTES].into(), hash: [0; 32].into() }
    }

    /// Reads `$argon2id$v=19$m=..,t=..,p=..$salt$hash`, `$7$iterations$salt$hash` (PBKDF2 with
    /// SHA-512) or `$6$salt$hash` (SHA-512). The error says what is wrong and what to do.
    pub fn parse(text: &str) -> Result<Hash, String> {
        let parts: Vec<&str> = text.split('$').collect();
        let (kind, salt, hash) = match parts[..] {
            ["", "argon2id", version, cost, salt, hash] => {
                if version != "v=19" {
                    return Err(
                        "argon2id of another version than 19; set the password again".into()
                    );
                }
                (argon2id(cost)?, unpadded(salt), unpadded(hash))
            }
            ["", "7", iterations, salt, hash] => (pbkdf2(iterations)?, padded(salt), padded(hash)),
            ["", "6", salt, hash] => (Kind::Sha512, padded(salt), padded(hash)),
            ["", "argon2i" | "argon2d", ..] => {
                return Err("only the argon2id kind of argon2 is accepted; \
                            set the password again"
                    .into());
            }
            _ => {
                return Err("not a password hash ($argon2id$, $7$ or $6$); a password must not \
                            stand here as it is: set it with `whimbrel passwd add`"
                    .into());
            }
        };
        let salt = salt.ok_or("the salt is not base64; set the password again")?;
        let hash = hash.ok_or("the hash is not base64; set the password again")?;
        let fits = match kind {
            Kind::Sha512 => hash.len() == 64,
            _ => HASH_BYTES.contains(&hash.len()),
        };
        if !fits {
            return Err("the hash is cut short or too long; set the password again".into());
        }
        if !SALT_BYTES.contains(&salt.len()) {
            return Err("the salt has not 8 to 64 bytes; set the password again".into());
        }
        Ok(Hash { kind, salt: salt.into(), hash: hash.into() })
    }

    /// Whether it is this password's. Takes the time of its cost, whatever the answer.
    pub fn fits(&self, password: &[u8]) -> bool {
        let mut found = [0; *HASH_BYTES.end()];
        let found = &mut found[..self.hash.len()];
        let done = self.kind.digest(password, &self.salt, found);
        done & bool::from(found.ct_eq(&self.hash))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Argon2id { memory_kib, passes, lanes } => write!(
                f,
                "$argon2id$v=19$m={memory_kib},t={passes},p={lanes}${}${}",
                STANDARD_NO_PAD.encode(&self.salt),
                STANDARD_NO_PAD.encode(&self.hash)
            ),
            Kind::Pbkdf2Sha512 { iterations } => {
                write!(f, "$7${iterations}$")?;
                write!(f, "{}${}", STANDARD.encode(&self.salt), STANDARD.encode(&self.hash))
            }
            Kind::Sha512 => {
                write!(f, "$6${}${}", STANDARD.encode(&self.salt), STANDARD.encode(&self.hash))
            }
        }
    }
}

impl Kind {
    /// Fills `out`, whose length is part of the kind; false if it cannot be done.
    fn digest(self, password: &[u8], salt: &[u8], out: &mut [u8]) -> bool {
        match self {
            Kind::Argon2id { memory_kib, passes, lanes } => {
                Params::new(memory_kib, passes, lanes, Some(out.len())).is_ok_and(|params| {
                    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
                        .hash_password_into(password, salt, out)
                        .is_ok()
                })
            }
            Kind::Pbkdf2Sha512 { iterations } => {
                pbkdf2::pbkdf2_hmac::<Sha512>(password, salt, iterations, out);
                true
            }
            Kind::Sha512 => {
                let digest = Sha512::new().chain_update(password).chain_update(salt).finalize();
                let fits = out.len() == digest.len();
                if fits {
                    out.copy_from_slice(&digest);
                }
                fits
            }
        }
    }
}

fn argon2id(cost: &str) -> Result<Kind, String> {
    const SHAPE: &str = "the cost is not m=..,t=..,p=..; set the password again";
    let mut numbers = [0; 3];
    let mut fields = cost.split(',');
    for (number, name) in numbers.iter_mut().zip(["m=", "t=", "p="]) {
        let value = fields.next().and_then(|field| field.strip_prefix(name)).ok_or(SHAPE)?;
        *number = decimal(value).ok_or(SHAPE)?;
    }
    let [memory_kib, passes, lanes] = numbers;
    if fields.next().is_some() {
        return Err(SHAPE.into());
    }
    if memory_kib > MAX_MEMORY_KIB
        || u64::from(memory_kib) * u64::from(passes) > MAX_WORK_KIB
        || lanes > MAX_LANES
    {
        return Err(format!(
            "m={memory_kib},t={passes},p={lanes} costs too much for a login: at most \
             m={MAX_MEMORY_KIB}, m times t {MAX_WORK_KIB}, p={MAX_LANES}; set the password again"
        ));
    }
    if Params::new(memory_kib, passes, lanes, None).is_err() {
        return Err("t and p must be 1 or more, and m 8 times p or more; \
                    set the password again"
            .into());
    }
    Ok(Kind::Argon2id { memory_kib, passes, lanes })
}

fn pbkdf2(iterations: &str) -> Result<Kind, String> {
    match decimal(iterations) {
        Some(iterations @ 1..=MAX_ITERATIONS) => Ok(Kind::Pbkdf2Sha512 { iterations }),
        _ => Err(format!(
            "the iterations are not 1 to {MAX_ITERATIONS}, more takes too long for a login; \
             set the password again"
        )),
    }
}

fn padded(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// PHC strings have no padding; some writers add it.
fn unpadded(text: &str) -> Option<Vec<u8>> {
    STANDARD_NO_PAD.decode(text.trim_end_matches('=')).ok()
}
