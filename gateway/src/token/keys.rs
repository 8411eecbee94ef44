//! Keys, each bound to the algorithms of its own family when it is made.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};

use super::{TokenConfig, provider};

const HMAC: &[Algorithm] = &[Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
const RSA: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];
const P256: &[Algorithm] = &[Algorithm::ES256];
const P384: &[Algorithm] = &[Algorithm::ES384];
const ED25519: &[Algorithm] = &[Algorithm::EdDSA];

/// Bytes of an uncompressed point (SEC 1, 2.3.3) on P-256 and P-384.
const P256_POINT_BYTES: usize = 65;
const P384_POINT_BYTES: usize = 97;
const ED25519_BYTES: usize = 32;
/// Bytes of the DER of an RSA key of 2,048 bits, the shortest that is accepted, less what its
/// headers and exponent may take.
const RSA_DER_BYTES_MIN: usize = 260;
/// Bytes of an RSA modulus.
const RSA_MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// A key and what it may verify.
#[derive(Clone)]
pub(super) struct Key {
    algorithms: Vec<Algorithm>,
    material: DecodingKey,
}

impl Key {
    fn new(algorithms: &[Algorithm], material: DecodingKey) -> Self {
        // Whoever has a key may verify with it.
        provider::install();
        Self {
            algorithms: algorithms.to_vec(),
            material,
        }
    }

    pub(super) fn may_verify(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    pub(super) fn algorithms(&self) -> &[Algorithm] {
        &self.algorithms
    }

    pub(super) fn material(&self) -> &DecodingKey {
        &self.material
    }

    fn hmac(secret: &str) -> Self {
        Self::new(HMAC, DecodingKey::from_secret(secret.as_bytes()))
    }

    fn rsa_pem(text: &str) -> Result<Self, String> {
        let material = public_pem(text, DecodingKey::from_rsa_pem)?;
        match material.try_get_as_bytes() {
            Ok(der) if der.len() >= RSA_DER_BYTES_MIN => Ok(Self::new(RSA, material)),
            _ => Err("the RSA key is shorter than 2048 bits; use a longer one".to_owned()),
        }
    }

    fn ecdsa_pem(text: &str) -> Result<Self, String> {
        let material = public_pem(text, DecodingKey::from_ec_pem)?;
        match material.try_get_as_bytes().map(<[u8]>::len) {
            Ok(P256_POINT_BYTES) => Ok(Self::new(P256, material)),
            Ok(P384_POINT_BYTES) => Ok(Self::new(P384, material)),
            _ => Err("the key is not on P-256 or P-384; use one of these curves".to_owned()),
        }
    }

    /// The key of a set's entry, with its id; none where it is not a public key for signatures
    /// that is supported here.
    pub(super) fn from_jwk(jwk: &Jwk) -> Option<(String, Self)> {
        let common = &jwk.common;
        let id = common.key_id.clone()?;
        if common.public_key_use != Some(PublicKeyUse::Signature) {
            return None;
        }
        if let Some(operations) = &common.key_operations
            && !operations.contains(&KeyOperations::Verify)
        {
            return None;
        }
        // A secret in a public document is no secret: no `OctetKey`.
        let (algorithms, fits): (_, fn(&DecodingKey) -> bool) = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => (RSA, |key| {
                matches!(key.kind(), DecodingKeyKind::RsaModulusExponent { n, .. }
                    if RSA_MODULUS_BYTES.contains(&n.iter().skip_while(|byte| **byte == 0).count()))
            }),
            AlgorithmParameters::EllipticCurve(parameters) => match parameters.curve {
                EllipticCurve::P256 => (P256, |key| has_bytes(key, P256_POINT_BYTES)),
                EllipticCurve::P384 => (P384, |key| has_bytes(key, P384_POINT_BYTES)),
                _ => return None,
            },
            AlgorithmParameters::OctetKeyPair(parameters) => match parameters.curve {
                EllipticCurve::Ed25519 => (ED25519, |key| has_bytes(key, ED25519_BYTES)),
                _ => return None,
            },
            _ => return None,
        };
        let material = DecodingKey::from_jwk(jwk).ok().filter(fits)?;
        let Some(declared) = common.key_algorithm else {
            return Some((id, Self::new(algorithms, material)));
        };
        let declared = declared.to_string().parse().ok()?;
        algorithms
            .contains(&declared)
            .then(|| (id, Self::new(&[declared], material)))
    }
}

fn has_bytes(key: &DecodingKey, count: usize) -> bool {
    key.try_get_as_bytes()
        .is_ok_and(|bytes| bytes.len() == count)
}

fn public_pem(
    text: &str,
    parse: fn(&[u8]) -> jsonwebtoken::errors::Result<DecodingKey>,
) -> Result<DecodingKey, String> {
    // Environment variables rarely have line ends.
    let text = text.replace("\\n", "\n");
    if !text.contains("PUBLIC KEY-----") {
        return Err(
            "this is no public key in PEM; give the text from `-----BEGIN PUBLIC KEY-----` on"
                .to_owned(),
        );
    }
    parse(text.trim().as_bytes())
        .map_err(|error| format!("this is no public key of this kind in PEM ({error}); correct it"))
}

/// The keys that stand in the configuration.
pub(super) struct StaticKeys {
    keys: Vec<Key>,
    previous: Option<(Key, Option<SystemTime>)>,
}

impl StaticKeys {
    /// Keys of the configuration.
    ///
    /// # Errors
    /// The configuration key that is wrong, with what to do.
    pub(super) fn new(config: &TokenConfig) -> Result<Self, (&'static str, String)> {
        let mut keys = Vec::new();
        for (key, secret) in [
            ("hmac_secret_key", &config.hmac_secret_key),
            ("hmac_previous_secret_key", &config.hmac_previous_secret_key),
        ] {
            // Everybody may know a public key: whoever does could sign with it.
            if secret.expose().contains("-----BEGIN ") {
                let what = "this is a key in PEM, not a secret; put a public key into rsa_public_key or ecdsa_public_key";
                return Err((key, what.to_owned()));
            }
        }
        if config.hmac_secret_key.is_set() {
            keys.push(Key::hmac(config.hmac_secret_key.expose()));
        }
        if !config.rsa_public_key.is_empty() {
            let key = Key::rsa_pem(&config.rsa_public_key);
            keys.push(key.map_err(|what| ("rsa_public_key", what))?);
        }
        if !config.ecdsa_public_key.is_empty() {
            let key = Key::ecdsa_pem(&config.ecdsa_public_key);
            keys.push(key.map_err(|what| ("ecdsa_public_key", what))?);
        }
        let previous = config.hmac_previous_secret_key.is_set().then(|| {
            let seconds = config.hmac_previous_secret_key_valid_until;
            let until = u64::try_from(seconds)
                .ok()
                .filter(|seconds| *seconds > 0)
                .map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds));
            (Key::hmac(config.hmac_previous_secret_key.expose()), until)
        });
        Ok(Self { keys, previous })
    }

    /// The keys that may verify `algorithm` at `now`.
    pub(super) fn for_algorithm(
        &self,
        algorithm: Algorithm,
        now: SystemTime,
    ) -> impl Iterator<Item = &Key> {
        let previous = self
            .previous
            .iter()
            .filter(move |(_, until)| until.is_none_or(|until| now < until))
            .map(|(key, _)| key);
        self.keys
            .iter()
            .chain(previous)
            .filter(move |key| key.may_verify(algorithm))
    }
}
