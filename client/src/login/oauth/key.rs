//! A key with which a client signs who it is (RFC 7523).

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};

use super::InvalidOAuth;

/// How long an assertion holds, in seconds: long enough for clocks that differ a little.
const ASSERTION_LIFE_S: u64 = 120;

/// A private key that signs assertions: RSA (RS256), P-256 (ES256), P-384 (ES384) or Ed25519
/// (EdDSA).
#[derive(Clone)]
pub struct SigningKey {
    pair: Arc<Pair>,
    key_id: Option<String>,
}

enum Pair {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair, &'static str),
    Ed25519(Ed25519KeyPair),
}

impl SigningKey {
    /// A key in PEM: PKCS#8, PKCS#1 or SEC1.
    ///
    /// # Errors
    /// There is no such key.
    pub fn from_pem(pem: &[u8]) -> Result<SigningKey, InvalidOAuth> {
        let der = PrivateKeyDer::from_pem_slice(pem)
            .map_err(|_| InvalidOAuth("no private key in PEM".into()))?;
        let pair = Pair::from_der(&der).ok_or_else(|| {
            InvalidOAuth("the key is none of RSA, P-256, P-384 and Ed25519".into())
        })?;
        Ok(SigningKey { pair: Arc::new(pair), key_id: None })
    }

    /// With the name by which the authorization server finds the public key (`kid`).
    pub fn key_id(mut self, key_id: impl Into<String>) -> SigningKey {
        self.key_id = Some(key_id.into());
        self
    }

    /// A JWT by which `client_id` says to `audience` who it is.
    pub(super) fn assertion(&self, client_id: &str, audience: &str) -> Result<String, String> {
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|error| format!("no random bytes: {error}"))?;
        let mut header = json!({"alg": self.pair.algorithm(), "typ": "JWT"});
        if let (Some(key_id), Some(fields)) = (&self.key_id, header.as_object_mut()) {
            fields.insert("kid".into(), Value::from(key_id.as_str()));
        }
        let claims = json!({
            "iss": client_id,
            "sub": client_id,
            "aud": audience,
            "jti": URL_SAFE_NO_PAD.encode(id),
            "iat": now_s,
            "exp": now_s + ASSERTION_LIFE_S,
        });
        let [header, claims] =
            [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let message = format!("{header}.{claims}");
        let signature = self.pair.sign(message.as_bytes()).ok_or("the key cannot sign")?;
        Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// Without the key.
impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.pair.algorithm())
    }
}

impl Pair {
    fn from_der(der: &PrivateKeyDer<'_>) -> Option<Pair> {
        let bytes = der.secret_der();
        let curves: [(&EcdsaSigningAlgorithm, _); 2] = [
            (&ECDSA_P256_SHA256_FIXED_SIGNING, "ES256"),
            (&ECDSA_P384_SHA384_FIXED_SIGNING, "ES384"),
        ];
        let ec = |read: fn(&'static EcdsaSigningAlgorithm, &[u8]) -> Option<EcdsaKeyPair>| {
            curves.iter().find_map(|(curve, name)| Some(Pair::Ec(read(curve, bytes)?, name)))
        };
        match der {
            PrivateKeyDer::Pkcs1(_) => RsaKeyPair::from_der(bytes).ok().map(Pair::Rsa),
            PrivateKeyDer::Sec1(_) => {
                ec(|curve, bytes| EcdsaKeyPair::from_private_key_der(curve, bytes).ok())
            }
            PrivateKeyDer::Pkcs8(_) => {
                ec(|curve, bytes| EcdsaKeyPair::from_pkcs8(curve, bytes).ok())
                    .or_else(|| {
                        Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes).ok().map(Pair::Ed25519)
                    })
                    .or_else(|| RsaKeyPair::from_pkcs8(bytes).ok().map(Pair::Rsa))
            }
            _ => None,
        }
    }

    const fn algorithm(&self) -> &'static str {
        match self {
            Pair::Rsa(_) => "RS256",
            Pair::Ec(_, name) => name,
            Pair::Ed25519(_) => "EdDSA",
        }
    }

    fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match self {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).ok()?;
                Some(signature)
            }
            Pair::Ec(pair, _) => Some(pair.sign(&random, message).ok()?.as_ref().to_vec()),
            Pair::Ed25519(pair) => Some(pair.sign(message).as_ref().to_vec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
        UnparsedPublicKey, VerificationAlgorithm,
    };
    use rcgen::{KeyPair, PublicKeyData};

    #[test]
    fn assertions_hold_for_the_public_key() {
        let table: [(_, &dyn VerificationAlgorithm, _); 4] = [
            (&rcgen::PKCS_ECDSA_P256_SHA256, &ECDSA_P256_SHA256_FIXED, "ES256"),
            (&rcgen::PKCS_ECDSA_P384_SHA384, &ECDSA_P384_SHA384_FIXED, "ES384"),
            (&rcgen::PKCS_ED25519, &ED25519, "EdDSA"),
            (&rcgen::PKCS_RSA_SHA256, &RSA_PKCS1_2048_8192_SHA256, "RS256"),
        ];
        for (kind, verification, name) in table {
            let pair = KeyPair::generate_for(kind).unwrap();
            let key = SigningKey::from_pem(pair.serialize_pem().as_bytes()).unwrap();
            assert_eq!(format!("{key:?}"), format!("SigningKey({name})"));
            let assertion = key.key_id("first").assertion("boiler", "https://as.example").unwrap();
            let (message, signature) = assertion.rsplit_once('.').unwrap();
            let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
            let public = UnparsedPublicKey::new(verification, pair.der_bytes());
            public.verify(message.as_bytes(), &signature).unwrap();
            let (header, claims) = message.split_once('.').unwrap();
            let [header, claims] = [header, claims].map(|part| {
                let bytes = URL_SAFE_NO_PAD.decode(part).unwrap();
                serde_json::from_slice::<Value>(&bytes).unwrap()
            });
            assert_eq!(header, json!({"alg": name, "typ": "JWT", "kid": "first"}));
            for (claim, value) in
                [("iss", "boiler"), ("sub", "boiler"), ("aud", "https://as.example")]
            {
                assert_eq!(claims[claim], value);
            }
            let life_s = claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap();
            assert_eq!(life_s, ASSERTION_LIFE_S);
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for bad in ["", "x", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
            assert!(SigningKey::from_pem(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
