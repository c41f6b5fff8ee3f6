//! Keys of an issuer (RFC 7517), and signatures with them.
//!
//! A key is read once, with everything that is wrong with it found then; it fixes with which
//! algorithms it can be used, whatever a token says.

use core::fmt;

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters,
    RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::json::{self, Object};

/// Largest text of a key set, in bytes.
pub const MAX_KEY_SET_BYTES: usize = 256 * 1024;
/// Most keys of a set.
const MAX_KEYS: usize = 100;
/// Longest `kid`, in bytes.
const MAX_KID_BYTES: usize = 256;
/// Shortest secret for HS256 and its like, in bytes (RFC 7518, section 3.2).
pub const MIN_SECRET_BYTES: usize = 32;

/// A signature algorithm (RFC 7518, RFC 8037). There is no `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Algorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
    HS256,
    HS384,
    HS512,
}

use Algorithm::{
    ES256, ES384, EdDSA, HS256, HS384, HS512, PS256, PS384, PS512, RS256, RS384, RS512,
};

const ALL: [Algorithm; 12] =
    [RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA, HS256, HS384, HS512];
const RSA: [Algorithm; 6] = [RS256, RS384, RS512, PS256, PS384, PS512];

impl Algorithm {
    /// What an issuer's tokens may be signed with unless configured.
    pub const DEFAULT: [Algorithm; 5] = [RS256, PS256, ES256, ES384, EdDSA];

    /// As in `alg`.
    pub fn from_name(name: &str) -> Option<Algorithm> {
        // RFC 9864 names the curve.
        if name == "Ed25519" {
            return Some(EdDSA);
        }
        ALL.into_iter().find(|one| one.name() == name)
    }

    /// As in `alg`.
    pub fn name(self) -> &'static str {
        match self {
            RS256 => "RS256",
            RS384 => "RS384",
            RS512 => "RS512",
            PS256 => "PS256",
            PS384 => "PS384",
            PS512 => "PS512",
            ES256 => "ES256",
            ES384 => "ES384",
            EdDSA => "EdDSA",
            HS256 => "HS256",
            HS384 => "HS384",
            HS512 => "HS512",
        }
    }

    /// Whether whoever can check such a signature can make one.
    pub fn is_symmetric(self) -> bool {
        matches!(self, HS256 | HS384 | HS512)
    }

    fn rsa(self) -> Option<&'static RsaParameters> {
        Some(match self {
            RS256 => &RSA_PKCS1_2048_8192_SHA256,
            RS384 => &RSA_PKCS1_2048_8192_SHA384,
            RS512 => &RSA_PKCS1_2048_8192_SHA512,
            PS256 => &RSA_PSS_2048_8192_SHA256,
            PS384 => &RSA_PSS_2048_8192_SHA384,
            PS512 => &RSA_PSS_2048_8192_SHA512,
            _ => return None,
        })
    }

    fn hmac(self) -> Option<hmac::Algorithm> {
        match self {
            HS256 => Some(hmac::HMAC_SHA256),
            HS384 => Some(hmac::HMAC_SHA384),
            HS512 => Some(hmac::HMAC_SHA512),
            _ => None,
        }
    }
}

/// A key, and what it can be used for.
pub struct Key {
    kid: Option<Box<str>>,
    algorithms: Vec<Algorithm>,
    material: Material,
}

enum Material {
    /// Modulus and exponent.
    Rsa(RsaPublicKeyComponents<Vec<u8>>),
    Curve(Box<ParsedPublicKey>),
    Secret(Box<[u8]>),
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?} for {:?})", self.kid, self.algorithms)
    }
}

impl Key {
    /// A secret that is shared with the issuer.
    pub fn shared_secret(secret: &[u8]) -> Result<Key, &'static str> {
        if secret.len() < MIN_SECRET_BYTES {
            return Err("a shared secret has at least 32 random bytes");
        }
        let algorithms = vec![HS256, HS384, HS512];
        Ok(Key { kid: None, algorithms, material: Material::Secret(secret.into()) })
    }

    /// A secret for HS256 (RFC 7518, section 6.4); says why it cannot be used.
    pub(super) fn secret_from_jwk(jwk: &Object) -> Result<Key, &'static str> {
        let field = |name| json::text(jwk, name).map_err(|()| "a field is not text");
        if field("kty")? != Some("oct") || field("alg")?.is_some_and(|alg| alg != "HS256") {
            return Err("it is no secret for HS256");
        }
        let secret = field("k")?.and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
        let key = Key::shared_secret(&secret.ok_or("the secret is not base64url")?)?;
        Ok(Key { algorithms: vec![HS256], ..key })
    }

    /// A public key that signs (RFC 7517); says why it cannot be used.
    pub fn from_jwk(jwk: &Object) -> Result<Key, &'static str> {
        let field = |name| json::text(jwk, name).map_err(|()| "a field is not text");
        let bytes = |name| -> Result<Vec<u8>, &'static str> {
            let text = field(name)?.ok_or("a part of the key is missing")?;
            URL_SAFE_NO_PAD.decode(text).map_err(|_| "a part of the key is not base64url")
        };
        if field("use")?.is_some_and(|usage| usage != "sig") {
            return Err("it is not for signatures (`use`)");
        }
        let operations = json::texts(jwk, "key_ops").map_err(|()| "`key_ops` is no list")?;
        if !operations.is_empty() && !operations.contains(&"verify") {
            return Err("it is not for verification (`key_ops`)");
        }
        if ["d", "p", "q", "k"].iter().any(|private| jwk.contains_key(*private)) {
            return Err("it is private or a shared secret: replace it, it is known now");
        }
        let (mut algorithms, material) = match (field("kty")?, field("crv")?) {
            (Some("RSA"), None) => (RSA.to_vec(), rsa(bytes("n")?, bytes("e")?)?),
            (Some("EC"), Some("P-256")) => {
                let material = point(&ECDSA_P256_SHA256_FIXED, 32, &bytes("x")?, &bytes("y")?)?;
                (vec![ES256], material)
            }
            (Some("EC"), Some("P-384")) => {
                let material = point(&ECDSA_P384_SHA384_FIXED, 48, &bytes("x")?, &bytes("y")?)?;
                (vec![ES384], material)
            }
            (Some("OKP"), Some("Ed25519")) => (vec![EdDSA], curve(&ED25519, bytes("x")?)?),
            _ => return Err("its type is not RSA, EC with P-256 or P-384, or Ed25519"),
        };
        if let Some(name) = field("alg")? {
            algorithms.retain(|algorithm| Algorithm::from_name(name) == Some(*algorithm));
        }
        if algorithms.is_empty() {
            return Err("its `alg` does not go with its type, or is not known");
        }
        let kid = field("kid")?;
        if kid.is_some_and(|kid| kid.len() > MAX_KID_BYTES) {
            return Err("its `kid` is too long");
        }
        Ok(Key { kid: kid.map(Into::into), algorithms, material })
    }

    /// Whether it can be used with this algorithm.
    pub fn fits(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    /// The same for a key with one algorithm, which needs not be told.
    pub(crate) fn verify_alone(&self, message: &[u8], signature: &[u8]) -> bool {
        match self.algorithms[..] {
            [algorithm] => self.verify(algorithm, message, signature),
            _ => false,
        }
    }

    /// Whether this is a signature of the message by this key, with this algorithm.
    pub fn verify(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        if !self.fits(algorithm) {
            return false;
        }
        match (&self.material, algorithm.rsa(), algorithm.hmac()) {
            (Material::Rsa(key), Some(parameters), _) => {
                key.verify(parameters, message, signature).is_ok()
            }
            (Material::Curve(key), None, None) => key.verify_sig(message, signature).is_ok(),
            (Material::Secret(secret), _, Some(algorithm)) => {
                let key = hmac::Key::new(algorithm, secret);
                hmac::verify(&key, message, signature).is_ok()
            }
            _ => false,
        }
    }
}

fn rsa(n: Vec<u8>, e: Vec<u8>) -> Result<Material, &'static str> {
    let bits = n.len() * 8 - n.first().map_or(0, |first| first.leading_zeros() as usize);
    if !(2048..=8192).contains(&bits) || n.first() == Some(&0) {
        return Err("an RSA key has 2,048 to 8,192 bits");
    }
    // Larger exponents only make a check slow.
    let exponent = e.iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
    if e.len() > 5 || exponent < 3 || exponent % 2 == 0 {
        return Err("its RSA exponent is not usual");
    }
    let key = RsaPublicKeyComponents { n, e };
    if key.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256).is_err() {
        return Err("it is no RSA key");
    }
    Ok(Material::Rsa(key))
}

fn point(
    algorithm: &'static dyn VerificationAlgorithm,
    length: usize,
    x: &[u8],
    y: &[u8],
) -> Result<Material, &'static str> {
    if x.len() != length || y.len() != length {
        return Err("its coordinates have not the length of the curve");
    }
    curve(algorithm, [&[4], x, y].concat())
}

fn curve(
    algorithm: &'static dyn VerificationAlgorithm,
    bytes: Vec<u8>,
) -> Result<Material, &'static str> {
    let key = UnparsedPublicKey::new(algorithm, bytes).parse();
    key.map(|key| Material::Curve(Box::new(key))).map_err(|_| "it is no point of its curve")
}

/// The keys of an issuer.
#[derive(Debug, Default)]
pub struct KeySet {
    keys: Vec<Key>,
}

/// Which key a token is to be checked with.
#[derive(Debug)]
pub enum Choice<'a> {
    /// This one.
    Key(&'a Key),
    /// None has the token's `kid`; a newer set may have one.
    Unknown,
    /// None, for a reason that a newer set would not change.
    None(&'static str),
}

impl KeySet {
    /// Of one key.
    pub fn of(key: Key) -> KeySet {
        KeySet { keys: vec![key] }
    }

    /// Reads a JWK set, and says which of its keys cannot be used and why. Names of keys are
    /// quoted, as whoever serves the set could write anything there.
    pub fn parse(text: &[u8]) -> Result<(KeySet, Vec<String>), &'static str> {
        if text.len() > MAX_KEY_SET_BYTES {
            return Err("the key set is larger than 256 KiB");
        }
        let set = json::object(text).ok_or("the key set is no JSON object")?;
        let list = set.get("keys").and_then(|keys| keys.as_array());
        let list = list.ok_or("the key set has no list `keys`")?;
        if list.len() > MAX_KEYS {
            return Err("the key set has more than 100 keys");
        }
        let mut keys: Vec<Key> = Vec::new();
        let mut warnings = Vec::new();
        for (index, jwk) in list.iter().enumerate() {
            let key = jwk.as_object().ok_or("it is no object").and_then(Key::from_jwk);
            let key = key.and_then(|key| {
                let same = |other: &Key| {
                    other.kid == key.kid && key.algorithms.iter().any(|one| other.fits(*one))
                };
                if key.kid.is_some() && keys.iter().any(same) {
                    return Err("an earlier key has its `kid`");
                }
                Ok(key)
            });
            match key {
                Ok(key) => keys.push(key),
                Err(why) => {
                    let kid = jwk.get("kid").and_then(|kid| kid.as_str()).unwrap_or_default();
                    let kid: String = kid.chars().take(40).collect();
                    warnings.push(format!("key {} ({kid:?}) is not used: {why}", index + 1));
                }
            }
        }
        Ok((KeySet { keys }, warnings))
    }

    /// How many keys can be used.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether no key can be used.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The key that a token names; the one that fits if it names none and no other fits.
    pub fn choose(&self, kid: Option<&str>, algorithm: Algorithm) -> Choice<'_> {
        let Some(kid) = kid else {
            let mut fitting = self.keys.iter().filter(|key| key.fits(algorithm));
            return match (fitting.next(), fitting.next()) {
                (Some(key), None) => Choice::Key(key),
                (None, _) => Choice::None("no key fits its algorithm"),
                _ => Choice::None("it names no key (`kid`), and several would fit"),
            };
        };
        // A secret has no name, so a name says nothing of it.
        let named = |key: &&Key| {
            key.kid.as_deref() == Some(kid) || matches!(key.material, Material::Secret(_))
        };
        if !self.keys.iter().any(|key| named(&key)) {
            return Choice::Unknown;
        }
        match self.keys.iter().filter(named).find(|key| key.fits(algorithm)) {
            Some(key) => Choice::Key(key),
            None => Choice::None("its algorithm is not that of its key"),
        }
    }
}
