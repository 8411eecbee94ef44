//! Who issues the tokens of these tests: keys of every kind, made anew.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::Algorithm;
use ring::rand::SystemRandom;
use ring::signature as rs;
use ring::signature::KeyPair as _;
use serde_json::{Value, json};

/// Keys are made anew: none that signs stands in the repository.
pub(super) static RSA_PRIVATE: LazyLock<String> =
    LazyLock::new(|| openssl("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048", ""));
pub(super) static RSA_PUBLIC: LazyLock<String> =
    LazyLock::new(|| openssl("pkey -pubout", &RSA_PRIVATE));
pub(super) static RSA_SHORT_PUBLIC: LazyLock<String> = LazyLock::new(|| {
    let short = openssl("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:1024", "");
    openssl("pkey -pubout", &short)
});
pub(super) const SECRET: &str = "a secret of the tests";

/// What `openssl` makes of `input`.
pub(super) fn openssl(arguments: &str, input: &str) -> String {
    let mut child = Command::new("openssl")
        .args(arguments.split_whitespace())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl makes the keys of these tests: install it");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).expect("it reads");
    drop(stdin);
    let made = child.wait_with_output().expect("it ends");
    assert!(made.status.success(), "openssl {arguments}");
    String::from_utf8(made.stdout).expect("PEM")
}

pub(super) fn der(pem: &str) -> Vec<u8> {
    let text: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    STANDARD.decode(text).expect("base64")
}

/// The private halves, and what the gateway is told of them.
pub(super) struct Issuer {
    rsa: rs::RsaKeyPair,
    p256: rs::EcdsaKeyPair,
    p384: rs::EcdsaKeyPair,
    ed25519: rs::Ed25519KeyPair,
    random: SystemRandom,
}

impl Issuer {
    pub(super) fn new() -> Self {
        let random = SystemRandom::new();
        let curve = |algorithm: &'static rs::EcdsaSigningAlgorithm| {
            let key = rs::EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("a key");
            rs::EcdsaKeyPair::from_pkcs8(algorithm, key.as_ref(), &random).expect("a key")
        };
        let ed25519 = rs::Ed25519KeyPair::generate_pkcs8(&random).expect("a key");
        Self {
            rsa: rs::RsaKeyPair::from_pkcs8(&der(&RSA_PRIVATE)).expect("the key of the tests"),
            p256: curve(&rs::ECDSA_P256_SHA256_FIXED_SIGNING),
            p384: curve(&rs::ECDSA_P384_SHA384_FIXED_SIGNING),
            ed25519: rs::Ed25519KeyPair::from_pkcs8(ed25519.as_ref()).expect("a key"),
            random,
        }
    }

    pub(super) fn sign(&self, algorithm: Algorithm, message: &[u8]) -> Vec<u8> {
        let hmac = |hash| {
            let key = ring::hmac::Key::new(hash, SECRET.as_bytes());
            ring::hmac::sign(&key, message).as_ref().to_vec()
        };
        let rsa = |padding: &'static dyn rs::RsaEncoding| {
            let mut signature = vec![0; self.rsa.public().modulus_len()];
            self.rsa
                .sign(padding, &self.random, message, &mut signature)
                .expect("signs");
            signature
        };
        let curve = |key: &rs::EcdsaKeyPair| {
            key.sign(&self.random, message)
                .expect("signs")
                .as_ref()
                .to_vec()
        };
        match algorithm {
            Algorithm::HS256 => hmac(ring::hmac::HMAC_SHA256),
            Algorithm::HS384 => hmac(ring::hmac::HMAC_SHA384),
            Algorithm::HS512 => hmac(ring::hmac::HMAC_SHA512),
            Algorithm::RS256 => rsa(&rs::RSA_PKCS1_SHA256),
            Algorithm::RS384 => rsa(&rs::RSA_PKCS1_SHA384),
            Algorithm::RS512 => rsa(&rs::RSA_PKCS1_SHA512),
            Algorithm::PS256 => rsa(&rs::RSA_PSS_SHA256),
            Algorithm::PS384 => rsa(&rs::RSA_PSS_SHA384),
            Algorithm::PS512 => rsa(&rs::RSA_PSS_SHA512),
            Algorithm::ES256 => curve(&self.p256),
            Algorithm::ES384 => curve(&self.p384),
            Algorithm::EdDSA => self.ed25519.sign(message).as_ref().to_vec(),
            other => panic!("{other:?} is not tested"),
        }
    }

    pub(super) fn token(&self, algorithm: Algorithm, claims: &Value) -> String {
        self.token_with(&json!({"alg": algorithm, "typ": "JWT"}), algorithm, claims)
    }

    pub(super) fn token_with(
        &self,
        header: &Value,
        algorithm: Algorithm,
        claims: &Value,
    ) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(header), part(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.sign(algorithm, message.as_bytes()));
        format!("{message}.{signature}")
    }

    pub(super) fn p256_pem(&self) -> String {
        // SubjectPublicKeyInfo of id-ecPublicKey with prime256v1 (RFC 5480).
        public_pem(
            "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE",
            self.p256.public_key().as_ref(),
        )
    }

    pub(super) fn p384_pem(&self) -> String {
        public_pem(
            "MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAE",
            self.p384.public_key().as_ref(),
        )
    }

    pub(super) fn jwks(&self) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let public = self.rsa.public();
        let components = rs::RsaPublicKeyComponents::<Vec<u8>>::from(public);
        let point = |key: &rs::EcdsaKeyPair| {
            let bytes = key.public_key().as_ref()[1..].to_vec();
            let (x, y) = bytes.split_at(bytes.len() / 2);
            (text(x), text(y))
        };
        let (p256, p384) = (point(&self.p256), point(&self.p384));
        json!({"keys": [
            {"kid": "rsa", "kty": "RSA", "use": "sig", "n": text(&components.n), "e": text(&components.e)},
            {"kid": "p256", "kty": "EC", "use": "sig", "crv": "P-256", "x": p256.0, "y": p256.1},
            {"kid": "p384", "kty": "EC", "use": "sig", "crv": "P-384", "x": p384.0, "y": p384.1},
            {"kid": "ed", "kty": "OKP", "use": "sig", "crv": "Ed25519",
             "x": text(self.ed25519.public_key().as_ref())},
        ]})
    }
}

/// `head` ends with the first byte of the point, 4.
fn public_pem(head: &str, point: &[u8]) -> String {
    let mut bytes = STANDARD.decode(head).expect("base64");
    bytes.extend_from_slice(&point[1..]);
    format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
        STANDARD.encode(bytes)
    )
}
