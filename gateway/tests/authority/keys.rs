//! Key sets: fetched, rotated, kept while their endpoint is away.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flux_gateway::authority::{Answer, AuthorityConfig, QuestionKind, Refusal, Switched};
use flux_gateway::protocol::{Disconnect, ErrorCode};
use flux_gateway::token::{IssueArgs, Secret, TokenConfig, issue};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};

use crate::server::{Does, Server};
use crate::shard::{Shard, connect, run, until, who};

/// Seconds between two fetches of a set, at least.
const REFETCH_PAUSE_S: u64 = 3;

struct Key {
    id: &'static str,
    pair: Ed25519KeyPair,
}

impl Key {
    fn new(id: &'static str) -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new());
        let document = document.expect("a key");
        let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).expect("a key");
        Self { id, pair }
    }

    fn jwk(&self) -> Value {
        let x = URL_SAFE_NO_PAD.encode(self.pair.public_key().as_ref());
        json!({"kid": self.id, "kty": "OKP", "crv": "Ed25519", "use": "sig", "x": x})
    }

    fn token(&self, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let header = json!({"alg": "EdDSA", "kid": self.id});
        let message = format!("{}.{}", part(&header), part(claims));
        let signature = self.pair.sign(message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn set(keys: &[&Key]) -> Value {
    json!({"keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>()})
}

fn config(server: &Server) -> AuthorityConfig {
    AuthorityConfig {
        token: TokenConfig {
            jwks_public_endpoint: server.url("/keys"),
            ..TokenConfig::default()
        },
        ..AuthorityConfig::default()
    }
}

fn user(answer: Answer) -> Result<String, Refusal> {
    let Answer::Connect(answer) = answer else {
        panic!("{answer:?}")
    };
    answer.map(|grant| grant.user)
}

fn temporary() -> Result<String, Refusal> {
    Err(ErrorCode::Internal.into())
}

fn invalid() -> Result<String, Refusal> {
    Err(Disconnect::INVALID_TOKEN.into())
}

#[test]
fn a_storm_of_tokens_fetches_the_set_once() {
    run(async {
        let (server, key, stranger) = (Server::start().await, Key::new("a"), Key::new("b"));
        let late = set(&[&key]).to_string();
        server.does("/keys", Does::Late(Duration::from_millis(100), late));
        let mut shard = Shard::start(&config(&server));
        let token = key.token(&json!({"sub": "7"}));
        let begun = Instant::now();
        let questions: Vec<_> = (0..500)
            .map(|_| shard.ask(&who(), connect(&token)))
            .collect();
        for question in questions {
            assert_eq!(user(shard.answer_to(question).await), Ok("7".to_owned()));
        }
        for _ in 0..100 {
            let strange = connect(&stranger.token(&json!({})));
            assert!(user(shard.answer(&who(), strange).await).is_err());
        }
        let fetches = server.asked("/keys").len() as u64;
        let pauses = begun.elapsed().as_secs() / REFETCH_PAUSE_S;
        assert!(fetches <= 1 + pauses, "{fetches} within {pauses} pauses");
        // A key of that id, but another one.
        let forged = Key::new("a").token(&json!({"sub": "7"}));
        assert_eq!(
            user(shard.answer(&who(), connect(&forged)).await),
            invalid()
        );
        shard.stop().await;
    });
}

#[test]
fn a_new_key_is_found_and_a_withdrawn_one_is_no_longer_good() {
    run(async {
        let (server, old, new) = (Server::start().await, Key::new("old"), Key::new("new"));
        server.answers("/keys", &set(&[&old]));
        let mut shard = Shard::start(&config(&server));
        let (with_old, with_new) = (
            old.token(&json!({"sub": "o"})),
            new.token(&json!({"sub": "n"})),
        );
        assert_eq!(
            user(shard.answer(&who(), connect(&with_old)).await),
            Ok("o".to_owned())
        );
        server.answers("/keys", &set(&[&new]));
        loop {
            match user(shard.answer(&who(), connect(&with_new)).await) {
                Ok(user) => break assert_eq!(user, "n"),
                refused => assert_eq!(refused, temporary(), "never told that it is invalid"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(server.asked("/keys").len() >= 2);
        let answer = user(shard.answer(&who(), connect(&with_old)).await);
        assert!(answer.is_err(), "it is not in the set any more");
        shard.stop().await;
    });
}

#[test]
fn while_the_endpoint_is_away_known_keys_stay_good_and_others_are_not_called_invalid() {
    run(async {
        let (server, key, stranger) = (Server::start().await, Key::new("a"), Key::new("b"));
        let metrics;
        {
            let mut shard = Shard::start(&config(&server));
            metrics = std::sync::Arc::clone(&shard.metrics);
            let token = key.token(&json!({"sub": "7"}));
            // From the beginning: nobody can say anything.
            let bad = [
                Does::Hangs,
                Does::Answer(500, String::new()),
                Does::Answer(200, "[]".to_owned()),
                Does::Answer(200, " ".repeat(10_000_000)),
            ];
            server.does("/keys", bad[0].clone());
            assert_eq!(
                user(shard.answer(&who(), connect(&token)).await),
                temporary()
            );
            until("it is counted", || metrics.jwks_failures.get() == 1).await;
            server.answers("/keys", &set(&[&key]));
            while user(shard.answer(&who(), connect(&token)).await) == temporary() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            for (failures, does) in (2..).zip(&bad[1..]) {
                server.does("/keys", does.clone());
                while metrics.jwks_failures.get() < failures {
                    let strange = stranger.token(&json!({}));
                    assert_eq!(
                        user(shard.answer(&who(), connect(&strange)).await),
                        temporary()
                    );
                    assert_eq!(
                        user(shard.answer(&who(), connect(&token)).await),
                        Ok("7".to_owned())
                    );
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
            shard.stop().await;
        }
        assert_eq!(metrics.jwks_fetched.get(), 1);
        assert!(metrics.tokens_unjudged.get() >= 2);
    });
}

fn secrets() -> AuthorityConfig {
    let of = |secret: &str| TokenConfig {
        hmac_secret_key: Secret::new(secret),
        ..TokenConfig::default()
    };
    AuthorityConfig {
        token: of("for connections"),
        subscription_token: Switched {
            enabled: true,
            options: of("for subscriptions"),
        },
        ..AuthorityConfig::default()
    }
}

fn token(config: &TokenConfig, user: &str, channel: Option<&str>, at: SystemTime) -> String {
    let args = IssueArgs {
        user: user.to_owned(),
        ttl: Duration::from_secs(100),
        channel: channel.map(str::to_owned),
        info: None,
    };
    issue(config, "client.token", &args, at).expect("made")
}

#[test]
fn a_refresh_is_for_the_same_user_and_an_expired_token_ends_the_credentials() {
    run(async {
        let config = secrets();
        let mut shard = Shard::start(&config);
        let now = SystemTime::now();
        let refresh = |token| QuestionKind::Refresh { token };
        let good = token(&config.token, "42", None, now);
        let answer = shard.answer(&who(), refresh(good)).await;
        let Answer::Refresh(Ok(grant)) = answer else {
            panic!("{answer:?}")
        };
        assert!(!grant.expired && grant.expires_in.is_some());
        let others = token(&config.token, "43", None, now);
        let answer = shard.answer(&who(), refresh(others)).await;
        assert_eq!(
            answer,
            Answer::Refresh(Err(Disconnect::INVALID_TOKEN.into()))
        );
        let old = token(&config.token, "42", None, UNIX_EPOCH);
        let answer = shard.answer(&who(), refresh(old.clone())).await;
        assert!(matches!(answer, Answer::Refresh(Ok(grant)) if grant.expired));
        let answer = shard.answer(&who(), connect(&old)).await;
        assert_eq!(user(answer), Err(ErrorCode::TokenExpired.into()));
        shard.stop().await;
    });
}

#[test]
fn a_subscription_token_is_for_its_user_and_channel_and_of_its_own_key() {
    run(async {
        let config = secrets();
        let of = &config.subscription_token.options;
        let mut shard = Shard::start(&config);
        let now = SystemTime::now();
        let channel = "$news";
        let ask = |token: &str| QuestionKind::Subscribe {
            channel: channel.to_owned(),
            token: token.to_owned(),
            data: Vec::new(),
        };
        let again = |token: &str| QuestionKind::SubRefresh {
            channel: channel.to_owned(),
            token: token.to_owned(),
        };
        let good = token(of, "42", Some(channel), now);
        let answer = shard.answer(&who(), ask(&good)).await;
        assert!(matches!(answer, Answer::Subscribe(Ok(grant)) if grant.expires_in.is_some()));
        let answer = shard.answer(&who(), again(&good)).await;
        assert!(matches!(answer, Answer::SubRefresh(Ok(grant)) if !grant.expired));
        let end = || Refusal::from(Disconnect::INVALID_TOKEN);
        let denied = Refusal::from(ErrorCode::PermissionDenied);
        let late = Refusal::from(ErrorCode::TokenExpired);
        for (token, refusal) in [
            (token(of, "43", Some(channel), now), end()),
            (token(of, "42", Some("$other"), now), end()),
            (token(of, "42", None, now), end()),
            (
                token(&config.token, "42", Some(channel), now),
                denied.clone(),
            ),
            ("garbage".to_owned(), denied),
            (token(of, "42", Some(channel), UNIX_EPOCH), late),
        ] {
            let answer = shard.answer(&who(), ask(&token)).await;
            assert_eq!(answer, Answer::Subscribe(Err(refusal)), "{token}");
        }
        let answer = shard.answer(&who(), again("garbage")).await;
        assert_eq!(answer, Answer::SubRefresh(Err(end())));
        let old = token(of, "42", Some(channel), UNIX_EPOCH);
        let answer = shard.answer(&who(), again(&old)).await;
        assert!(matches!(answer, Answer::SubRefresh(Ok(grant)) if grant.expired));
        shard.stop().await;
    });
}

#[test]
fn a_client_of_whom_nobody_knows_anything_has_no_credentials() {
    run(async {
        let mut shard = Shard::start(&secrets());
        let answer = user(shard.answer(&who(), connect("")).await);
        assert_eq!(answer, Err(Disconnect::BAD_REQUEST.into()));
        let answer = user(shard.answer(&who(), connect("garbage")).await);
        assert_eq!(answer, invalid());
        shard.stop().await;
    });
}
