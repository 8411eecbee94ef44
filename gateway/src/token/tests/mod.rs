//! Tokens of every algorithm against keys of every kind, claims by the clock, and garbage.

mod issuer;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use proptest::prelude::*;
use serde_json::{Value, json};

use self::issuer::{Issuer, RSA_PRIVATE, RSA_PUBLIC, RSA_SHORT_PUBLIC, SECRET, der};
use super::*;
use crate::authority::payload::Allowed;
use crate::authority::{AuthorityMetrics, ConnectGrant};

const ALL: [Algorithm; 12] = [
    Algorithm::HS256,
    Algorithm::HS384,
    Algorithm::HS512,
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn verifier(config: &TokenConfig) -> Verifier {
    let client = crate::backend::http::client().expect("a client");
    let metrics = std::sync::Arc::new(AuthorityMetrics::default());
    Verifier::new(config, "client.token", client, metrics).expect("a good configuration")
}

fn hmac() -> TokenConfig {
    TokenConfig {
        hmac_secret_key: Secret::new(SECRET),
        ..TokenConfig::default()
    }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    flux_runtime::control::run(work).expect("a runtime")
}

fn connect(config: &TokenConfig, token: &str, seconds: u64) -> Result<ConnectGrant, TokenError> {
    run(verifier(config).connect(token, at(seconds)))
}

#[test]
fn a_token_is_verified_by_a_key_of_its_own_family_and_by_no_other() {
    let issuer = Issuer::new();
    let with = |set: &dyn Fn(&mut TokenConfig)| {
        let mut config = TokenConfig::default();
        set(&mut config);
        verifier(&config)
    };
    let verifiers: [(Verifier, &[Algorithm]); 4] = [
        (
            with(&|c| c.hmac_secret_key = Secret::new(SECRET)),
            &ALL[0..3],
        ),
        (with(&|c| c.rsa_public_key = RSA_PUBLIC.clone()), &ALL[3..9]),
        (
            with(&|c| c.ecdsa_public_key = issuer.p256_pem()),
            &ALL[9..10],
        ),
        (
            with(&|c| c.ecdsa_public_key = issuer.p384_pem()),
            &ALL[10..11],
        ),
    ];
    for algorithm in ALL {
        let token = issuer.token(algorithm, &json!({"sub": "42"}));
        for (verifier, own) in &verifiers {
            let outcome = run(verifier.connect(&token, at(0)));
            assert_eq!(
                outcome.is_ok(),
                own.contains(&algorithm),
                "{algorithm:?}: {outcome:?}"
            );
        }
    }
}

#[test]
fn a_public_key_is_never_taken_for_a_secret() {
    // The classic: the attacker signs HS256 with the public key that everybody knows.
    let claims = json!({"sub": "admin"});
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    for secret in [
        RSA_PUBLIC.as_bytes().to_vec(),
        der(&RSA_PUBLIC),
        RSA_PUBLIC.trim().into(),
    ] {
        let message = format!("{}.{}", part(&json!({"alg": "HS256"})), part(&claims));
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &secret);
        let tag = ring::hmac::sign(&key, message.as_bytes());
        let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag));
        let config = TokenConfig {
            rsa_public_key: RSA_PUBLIC.clone(),
            ..hmac()
        };
        assert!(matches!(
            connect(&config, &token, 0),
            Err(TokenError::Invalid(_))
        ));
    }
    // And the operator who puts it into the wrong key is told.
    let config = TokenConfig {
        hmac_secret_key: Secret::new(&*RSA_PUBLIC),
        ..TokenConfig::default()
    };
    let error = config.check("client.token").expect_err("no secret");
    assert!(
        error.contains("hmac_secret_key") && error.contains("rsa_public_key"),
        "{error}"
    );
}

#[test]
fn unsigned_tokens_and_unknown_algorithms_are_invalid() {
    let issuer = Issuer::new();
    let good = issuer.token(Algorithm::HS256, &json!({"sub": "42"}));
    assert_eq!(connect(&hmac(), &good, 0).expect("good").user, "42");
    let (message, _) = good.rsplit_once('.').expect("three parts");
    let (_, claims) = message.split_once('.').expect("two parts");
    for algorithm in ["none", "None", "NONE", "HS1", "ES512", ""] {
        let header = URL_SAFE_NO_PAD.encode(json!({"alg": algorithm}).to_string());
        for token in [format!("{header}.{claims}."), format!("{header}.{claims}")] {
            assert!(matches!(
                connect(&hmac(), &token, 0),
                Err(TokenError::Invalid(_))
            ));
        }
    }
    let critical = json!({"alg": "HS256", "crit": ["exp"]});
    let token = issuer.token_with(&critical, Algorithm::HS256, &json!({}));
    assert!(connect(&hmac(), &token, 0).is_err());
    for token in [
        String::new(),
        "..".to_owned(),
        message.to_owned(),
        format!("{message}."),
        format!("{good}."),
        format!("{good}A"),
        format!(" {good}"),
        "x".repeat(crate::limits::TOKEN_BYTES_MAX + 1),
    ] {
        assert!(
            matches!(connect(&hmac(), &token, 0), Err(TokenError::Invalid(_))),
            "{token}"
        );
    }
}

#[test]
fn changing_any_character_of_a_token_makes_it_invalid() {
    let issuer = Issuer::new();
    let token = issuer.token(Algorithm::HS256, &json!({"sub": "42", "exp": 100}));
    let verifier = verifier(&hmac());
    for index in 0..token.len() {
        let mut changed = token.clone().into_bytes();
        changed[index] = if changed[index] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).expect("ASCII");
        assert!(run(verifier.connect(&changed, at(0))).is_err(), "{index}");
    }
}

#[test]
fn a_token_holds_from_nbf_until_just_before_exp_give_or_take_the_leeway() {
    let issuer = Issuer::new();
    let token = issuer.token(Algorithm::HS256, &json!({"nbf": 1_000, "exp": 2_000}));
    let mut config = hmac();
    for (leeway, from, until) in [(0, 1_000, 2_000), (10, 990, 2_010)] {
        config.leeway = Duration::from_secs(leeway);
        for (seconds, holds) in [
            (from - 1, false),
            (from, true),
            (until - 1, true),
            (until, false),
        ] {
            let outcome = connect(&config, &token, seconds);
            if holds {
                let left = outcome.expect("holds").expires_in.expect("it ends");
                assert!(!left.is_zero());
            } else {
                assert_eq!(outcome, Err(TokenError::Expired), "{leeway} {seconds}");
            }
        }
    }
}

#[test]
fn times_that_are_no_times_are_invalid_and_never_skipped() {
    let issuer = Issuer::new();
    for (claim, value) in [
        ("exp", json!("2000")),
        ("exp", json!([2000])),
        ("nbf", json!("1")),
        ("iat", json!({})),
        ("expire_at", json!("0")),
        ("sub", json!(42)),
        ("channels", json!("a")),
        ("subs", json!({"a": []})),
        ("subs", json!({"a": {"override": [{"value": true}]}})),
        ("subs", json!([])),
        ("aud", json!(1)),
        ("b64info", json!("%")),
    ] {
        let token = issuer.token(Algorithm::HS256, &json!({claim: value}));
        let outcome = connect(&hmac(), &token, 0);
        assert!(
            matches!(outcome, Err(TokenError::Invalid(_))),
            "{claim} {outcome:?}"
        );
    }
    for claims in [json!([]), json!(["admin"]), Value::Null, json!("x")] {
        let token = issuer.token(Algorithm::HS256, &claims);
        assert!(
            matches!(connect(&hmac(), &token, 0), Err(TokenError::Invalid(_))),
            "{claims}"
        );
    }
    let token = issuer.token(Algorithm::HS256, &json!({"exp": 1e300}));
    assert!(
        connect(&hmac(), &token, 0)
            .expect("late")
            .expires_in
            .is_some()
    );
    let token = issuer.token(Algorithm::HS256, &json!({"exp": -1e300}));
    assert_eq!(connect(&hmac(), &token, 0), Err(TokenError::Expired));
    let token = issuer.token(Algorithm::HS256, &json!({"exp": 1_999.5}));
    assert!(connect(&hmac(), &token, 1_999).is_ok());
}

#[test]
fn expire_at_stands_before_exp_and_zero_is_never() {
    let issuer = Issuer::new();
    let of = |claims: Value| connect(&hmac(), &issuer.token(Algorithm::HS256, &claims), 1_000);
    let expires_in = |claims| of(claims).expect("good").expires_in;
    assert_eq!(expires_in(json!({})), None);
    assert_eq!(
        expires_in(json!({"exp": 1_060})),
        Some(Duration::from_secs(60))
    );
    assert_eq!(expires_in(json!({"exp": 1_060, "expire_at": 0})), None);
    assert_eq!(
        expires_in(json!({"exp": 1_060, "expire_at": 1_600})),
        Some(Duration::from_secs(600))
    );
    let outcome = of(json!({"exp": 1_060, "expire_at": 900}));
    assert_eq!(outcome, Err(TokenError::ExpiredAtOnce));
}

#[test]
fn a_connection_token_grants_what_its_claims_say() {
    let issuer = Issuer::new();
    let token = issuer.token(
        Algorithm::HS256,
        &json!({
            "sub": "42", "info": {"name": "A"}, "meta": {"tenant": 7}, "channels": ["not used"],
            "subs": {"news": {"info": {"i": 1}, "data": [1], "override": {"force_recovery": {"value": true}}}},
        }),
    );
    let grant = connect(&hmac(), &token, 0).expect("good");
    assert_eq!(
        (&*grant.user, &*grant.info),
        ("42", &br#"{"name":"A"}"#[..])
    );
    assert_eq!(grant.meta, br#"{"tenant":7}"#);
    let [(channel, subscription)] = &grant.subs[..] else {
        panic!("one channel, {grant:?}")
    };
    assert_eq!((&**channel, &*subscription.data), ("news", &b"[1]"[..]));
    assert_eq!(subscription.force_recovery, Some(true));
    let token = issuer.token(
        Algorithm::HS256,
        &json!({"b64info": "WzFd", "channels": ["b", "a", "b"]}),
    );
    let grant = connect(&hmac(), &token, 0).expect("good");
    assert_eq!((&*grant.user, &*grant.info), ("", &b"[1]"[..]));
    let channels: Vec<_> = grant.subs.iter().map(|(channel, _)| &**channel).collect();
    assert_eq!(channels, ["a", "b"]);
    let token = issuer.token(Algorithm::HS256, &json!({"sub": "42", "channel": "news"}));
    assert!(matches!(
        connect(&hmac(), &token, 0),
        Err(TokenError::Invalid(_))
    ));
}

#[test]
fn the_user_may_stand_in_another_claim() {
    let issuer = Issuer::new();
    let config = TokenConfig {
        user_id_claim: "uid".to_owned(),
        ..hmac()
    };
    for (uid, user) in [(json!("x"), "x"), (json!(7), "7"), (Value::Null, "")] {
        let token = issuer.token(Algorithm::HS256, &json!({"sub": "42", "uid": uid}));
        assert_eq!(connect(&config, &token, 0).expect("good").user, user);
    }
    let token = issuer.token(Algorithm::HS256, &json!({"uid": ["x"]}));
    assert!(connect(&config, &token, 0).is_err());
}

#[test]
fn audience_and_issuer_are_what_the_configuration_expects() {
    let issuer = Issuer::new();
    let is_good = |config: &TokenConfig, claims: Value| {
        connect(config, &issuer.token(Algorithm::HS256, &claims), 0).is_ok()
    };
    let exact = TokenConfig {
        audience: "us".to_owned(),
        issuer: "them".to_owned(),
        ..hmac()
    };
    let pattern = TokenConfig {
        audience_regex: "^us$".to_owned(),
        issuer_regex: "^them$".to_owned(),
        ..hmac()
    };
    for config in [exact, pattern] {
        assert!(is_good(&config, json!({"aud": "us", "iss": "them"})));
        assert!(is_good(&config, json!({"aud": ["a", "us"], "iss": "them"})));
        for claims in [
            json!({"aud": "us"}),
            json!({"iss": "them"}),
            json!({"aud": "others", "iss": "them"}),
            json!({"aud": [], "iss": "them"}),
            json!({"aud": "us", "iss": "others"}),
        ] {
            assert!(!is_good(&config, claims.clone()), "{claims}");
        }
    }
}

#[test]
fn the_previous_secret_is_good_until_its_time() {
    let issuer = Issuer::new();
    let token = issuer.token(Algorithm::HS384, &json!({"sub": "42"}));
    let mut config = TokenConfig {
        hmac_secret_key: Secret::new("the new one"),
        hmac_previous_secret_key: Secret::new(SECRET),
        hmac_previous_secret_key_valid_until: 500,
        ..TokenConfig::default()
    };
    assert!(connect(&config, &token, 499).is_ok());
    assert!(connect(&config, &token, 500).is_err());
    config.hmac_previous_secret_key_valid_until = 0;
    assert!(connect(&config, &token, 10_000_000_000).is_ok());
}

#[test]
fn a_subscription_token_says_for_whom_and_where() {
    let issuer = Issuer::new();
    let claims = json!({"sub": "42", "channel": "$news", "client": "c", "b64data": "/w==", "expire_at": 60,
        "override": {"presence": {"value": false}}});
    let token = issuer.token(Algorithm::HS256, &claims);
    let verifier = verifier(&hmac());
    let outcome = run(verifier.subscribe(&token, Allowed::Json, at(0)));
    assert!(
        matches!(outcome, Err(TokenError::Invalid(_))),
        "bytes for a JSON client"
    );
    let read = run(verifier.subscribe(&token, Allowed::Bytes, at(0))).expect("good");
    assert_eq!(
        (&*read.user, &*read.channel, &*read.client),
        ("42", "$news", "c")
    );
    assert_eq!(read.grant.data, [0xff]);
    assert_eq!(read.grant.expires_in, Some(Duration::from_secs(60)));
    assert_eq!(read.grant.presence, Some(false));
}

#[test]
fn of_a_key_set_only_keys_for_signatures_with_an_id_are_used() {
    let issuer = Issuer::new();
    let mut document = issuer.jwks();
    let keys = |document: &Value| jwks::parse(document.to_string().as_bytes()).expect("a key set");
    assert_eq!(keys(&document).len(), 4);
    for (key, value) in [("use", "enc"), ("alg", "HS256"), ("n", "AQAB"), ("n", "%")] {
        let mut changed = document.clone();
        changed["keys"][0][key] = value.into();
        assert!(!keys(&changed).contains_key("rsa"), "{key} {value}");
        assert_eq!(keys(&changed).len(), 3, "the others stay");
    }
    for key in ["use", "kid", "kty", "e"] {
        let mut changed = document.clone();
        changed["keys"][0]
            .as_object_mut()
            .expect("a key")
            .remove(key);
        assert_eq!(keys(&changed).len(), 3, "{key}");
    }
    document["keys"][0]["key_ops"] = json!(["encrypt"]);
    document["keys"][1]["crv"] = "P-384".into();
    document["keys"][3] = json!({"kid": "oct", "kty": "oct", "use": "sig", "k": "c2VjcmV0"});
    assert_eq!(keys(&document).keys().collect::<Vec<_>>(), ["p384"]);
    let many: Vec<_> = (0..=crate::limits::JWKS_KEYS_MAX)
        .map(|_| json!({}))
        .collect();
    assert!(jwks::parse(json!({"keys": many}).to_string().as_bytes()).is_err());
    for garbage in ["", "[]", "{}", r#"{"keys":{}}"#] {
        assert!(jwks::parse(garbage.as_bytes()).is_err(), "{garbage}");
    }
}

#[test]
fn keys_of_a_set_verify_their_own_algorithms_alone() {
    let issuer = Issuer::new();
    let mut document = issuer.jwks();
    document["keys"][0]["alg"] = "RS384".into();
    let keys = jwks::parse(document.to_string().as_bytes()).expect("a key set");
    for (id, own) in [
        ("rsa", &[Algorithm::RS384][..]),
        ("p256", &[Algorithm::ES256]),
        ("p384", &[Algorithm::ES384]),
        ("ed", &[Algorithm::EdDSA]),
    ] {
        for algorithm in ALL {
            let token = issuer.token(algorithm, &json!({}));
            let verified = verify::signed(&token, &keys[id]).is_ok();
            assert_eq!(verified, own.contains(&algorithm), "{id} {algorithm:?}");
        }
    }
}

#[test]
fn short_keys_and_keys_that_are_none_are_refused_at_the_start() {
    for (text, says) in [
        (RSA_SHORT_PUBLIC.as_str(), "2048 bits"),
        (RSA_PRIVATE.as_str(), "no public key"),
        (
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
            "in PEM",
        ),
    ] {
        let config = TokenConfig {
            rsa_public_key: text.to_owned(),
            ..TokenConfig::default()
        };
        let error = config.check("client.token").expect_err("refused");
        assert!(error.contains(says) && !error.contains("MII"), "{error}");
    }
    // From an environment variable.
    let config = TokenConfig {
        rsa_public_key: RSA_PUBLIC.replace('\n', "\\n"),
        ..TokenConfig::default()
    };
    assert_eq!(config.check("client.token"), Ok(()));
}

#[test]
fn a_token_made_at_the_terminal_is_good_for_what_it_says() {
    let config = TokenConfig {
        audience: "us".to_owned(),
        issuer: "them".to_owned(),
        ..hmac()
    };
    let mut args = IssueArgs {
        user: "42".to_owned(),
        ttl: Duration::from_secs(60),
        channel: None,
        info: Some(r#"{"name":"A"}"#.to_owned()),
    };
    let token = issue(&config, "client.token", &args, at(1_000)).expect("made");
    let grant = connect(&config, &token, 1_000).expect("good");
    assert_eq!(
        (&*grant.user, &*grant.info),
        ("42", &br#"{"name":"A"}"#[..])
    );
    assert_eq!(grant.expires_in, Some(Duration::from_secs(60)));
    assert_eq!(connect(&config, &token, 1_060), Err(TokenError::Expired));
    args.channel = Some("$news".to_owned());
    args.ttl = Duration::ZERO;
    let token = issue(&config, "client.token", &args, at(1_000)).expect("made");
    let verifier = verifier(&config);
    let read = run(verifier.subscribe(&token, Allowed::Json, at(u64::MAX >> 2))).expect("for ever");
    assert_eq!((&*read.user, &*read.channel), ("42", "$news"));
    args.info = Some("{".to_owned());
    let error = issue(&config, "client.token", &args, at(0)).expect_err("no JSON");
    assert!(error.contains("--info"), "{error}");
    let error =
        issue(&TokenConfig::default(), "client.token", &args, at(0)).expect_err("no secret");
    assert!(error.contains("client.token.hmac_secret_key"), "{error}");
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("value|info|data|override|presence|.{0,4}", inner, 0..4)
                .prop_map(|map| json!(map)),
        ]
    })
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_of_tokens_panic(text in ".{0,200}", seconds in any::<u32>()) {
        let _ = examine(&text, at(seconds.into()));
    }

    #[test]
    fn no_parts_make_the_reader_of_tokens_panic(
        header in any::<Vec<u8>>(), claims in any::<Vec<u8>>(), signature in any::<Vec<u8>>(),
    ) {
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let _ = examine(&format!("{}.{}.{}", part(&header), part(&claims), part(&signature)), at(0));
    }

    #[test]
    fn no_claims_make_the_judge_panic(
        claims in prop::collection::btree_map(
            "sub|exp|nbf|iat|aud|iss|info|b64info|data|b64data|channels|subs|meta|expire_at|channel|override|uid",
            any_json(), 0..8,
        ),
        seconds in any::<u32>(),
    ) {
        let _ = examine(&json!(claims).to_string(), at(seconds.into()));
    }
}
