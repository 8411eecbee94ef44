//! The backend is asked, and whatever it does costs only the questions that were for it.

use std::time::{Duration, Instant};

use flux_gateway::authority::{
    Answer, AuthorityConfig, OwnedError, QuestionKind, RefreshGrant, Refusal, RpcGrant,
};
use flux_gateway::backend::{BackendConfig, ChannelRoute, ProxyConfig};
use flux_gateway::protocol::ErrorCode;
use serde_json::{Value, json};

use crate::server::{Does, Server};
use crate::shard::{Shard, connect, rpc, run, until, who};

fn with_backend(backend: BackendConfig) -> AuthorityConfig {
    AuthorityConfig {
        backend,
        ..AuthorityConfig::default()
    }
}

fn proxy(more: Value) -> ProxyConfig {
    serde_json::from_value(more).expect("known keys")
}

/// Two RPC namespaces, `own` at the first endpoint and `other` at the second.
fn two_namespaces(own: Value, other: Value) -> AuthorityConfig {
    let mut backend = BackendConfig::default();
    let named = |name: &str, mut value: Value| {
        value["name"] = name.into();
        value
    };
    let proxies = json!([named("own", own), named("other", other)]);
    backend.proxies = serde_json::from_value(proxies).expect("known keys");
    let namespaces = json!([
        {"name": "own", "proxy_enabled": true, "proxy_name": "own"},
        {"name": "other", "proxy_enabled": true, "proxy_name": "other"},
        {"name": "off"},
    ]);
    backend.rpc.namespaces = serde_json::from_value(namespaces).expect("known keys");
    with_backend(backend)
}

pub(crate) fn error(code: ErrorCode) -> Answer {
    Answer::Rpc(Err(code.into()))
}

pub(crate) fn data(bytes: &[u8]) -> Answer {
    Answer::Rpc(Ok(RpcGrant {
        data: bytes.to_vec(),
    }))
}

#[test]
fn questions_go_to_the_endpoint_of_their_event_with_headers_and_meta() {
    run(async {
        let server = Server::start().await;
        server.answers("/connect", &json!({"result": {"user": "42"}}));
        server.answers("/subscribe", &json!({"result": {"info": {"a": 1}}}));
        server.answers(
            "/publish",
            &json!({"result": {"data": {"changed": true}, "skip_history": true}}),
        );
        let mut backend = BackendConfig::default();
        backend.client.connect.enabled = true;
        backend.client.connect.options = proxy(json!({"endpoint": server.url("/connect")}));
        backend.channel.subscribe = proxy(json!({
            "endpoint": server.url("/subscribe"), "http_headers": ["Cookie"], "include_connection_meta": true,
            "http": {"static_headers": {"X-Key": "of the gateway"}},
        }));
        backend.channel.publish = proxy(json!({"endpoint": server.url("/publish")}));
        backend.namespaces.insert(
            "chat".to_owned(),
            ChannelRoute {
                subscribe: Some("default".to_owned()),
                publish: Some("default".to_owned()),
                sub_refresh: None,
            },
        );
        assert_eq!(backend.forwarded_headers(), ["cookie"]);
        let mut shard = Shard::start(&with_backend(backend));
        let answer = shard.answer(&who(), connect("")).await;
        assert!(matches!(answer, Answer::Connect(Ok(grant)) if grant.user == "42"));
        assert_eq!(server.asked("/connect")[0].body["name"], "js");
        let subscribe = |channel: &str| QuestionKind::Subscribe {
            channel: channel.to_owned(),
            token: String::new(),
            data: b"{}".to_vec(),
        };
        let answer = shard.answer(&who(), subscribe("$chat:room")).await;
        assert!(matches!(answer, Answer::Subscribe(Ok(grant)) if grant.info == br#"{"a":1}"#));
        let asked = &server.asked("/subscribe")[0];
        assert_eq!(asked.body["channel"], "$chat:room");
        assert_eq!(asked.body["meta"], json!({"tenant": 7}));
        assert_eq!(asked.headers["cookie"], "a=b");
        assert_eq!(asked.headers["x-key"], "of the gateway");
        assert_eq!(asked.headers["content-type"], "application/json");
        assert!(!asked.headers.contains_key("x-secret"));
        let publish = QuestionKind::Publish {
            channel: "chat:room".to_owned(),
            data: b"{}".to_vec(),
        };
        let answer = shard.answer(&who(), publish).await;
        let Answer::Publish(Ok(grant)) = answer else {
            panic!("{answer:?}")
        };
        assert_eq!(grant.data.as_deref(), Some(&br#"{"changed":true}"#[..]));
        assert!(grant.skip_history);
        // Where there is no endpoint, the client is told.
        for (channel, code) in [
            ("news", ErrorCode::PermissionDenied),
            ("x:y", ErrorCode::UnknownChannel),
        ] {
            let answer = shard.answer(&who(), subscribe(channel)).await;
            assert_eq!(answer, Answer::Subscribe(Err(code.into())));
        }
        shard.stop().await;
    });
}

#[test]
fn calls_go_by_the_namespace_of_their_method() {
    run(async {
        let server = Server::start().await;
        server.answers("/own", &json!({"result": {"data": {"n": 1}}}));
        let config = two_namespaces(
            json!({"endpoint": server.url("/own")}),
            json!({"endpoint": server.url("/other")}),
        );
        let mut shard = Shard::start(&config);
        assert_eq!(
            shard.answer(&who(), rpc("own:sum")).await,
            data(br#"{"n":1}"#)
        );
        for (method, code) in [
            ("sum", ErrorCode::NotAvailable),
            ("off:sum", ErrorCode::NotAvailable),
            ("none:sum", ErrorCode::MethodNotFound),
        ] {
            assert_eq!(
                shard.answer(&who(), rpc(method)).await,
                error(code),
                "{method}"
            );
        }
        shard.stop().await;
        // Another boundary, and none.
        for (boundary, namespaced, plain) in [(".", "own.sum", "own:sum"), ("", "", "own:sum")] {
            let mut config = config.clone();
            config.backend.rpc.namespace_boundary = boundary.to_owned();
            let mut shard = Shard::start(&config);
            if !namespaced.is_empty() {
                let answer = shard.answer(&who(), rpc(namespaced)).await;
                assert_eq!(answer, data(br#"{"n":1}"#));
            }
            let answer = shard.answer(&who(), rpc(plain)).await;
            assert_eq!(answer, error(ErrorCode::NotAvailable), "{boundary}");
            shard.stop().await;
        }
    });
}

#[test]
fn what_is_no_answer_is_an_internal_error_and_counted() {
    run(async {
        let server = Server::start().await;
        let config = two_namespaces(
            json!({"endpoint": server.url("/own"), "timeout": "500ms", "breaker": {"failures": 0}}),
            json!({"endpoint": server.url("/other")}),
        );
        let mut shard = Shard::start(&config);
        let long = format!("{{\"result\":{{\"data\":\"{}\"}}}}", "x".repeat(10_000_000));
        let bad = [
            Does::Answer(200, String::new()),
            Does::Answer(200, "<html>".to_owned()),
            Does::Answer(200, json!({"result": {"b64data": "/w=="}}).to_string()),
            Does::Answer(200, long),
            Does::Answer(500, "{}".to_owned()),
            Does::Answer(302, "{}".to_owned()),
            Does::Answer(204, String::new()),
            Does::Typed("text/html", "<h1>Welcome to nginx!</h1>".to_owned()),
            // Never silent for long, and never done.
            Does::Drips(Duration::from_millis(20)),
            Does::Answer(200, json!({"result": [{"data": 1}]}).to_string()),
            Does::Answer(
                200,
                json!({"result": {"data": 1}, "error": "no"}).to_string(),
            ),
        ];
        let count = bad.len() as u64;
        for does in bad {
            server.does("/own", does);
            assert_eq!(
                shard.answer(&who(), rpc("own:x")).await,
                error(ErrorCode::Internal)
            );
        }
        let endpoint = shard
            .endpoints
            .iter()
            .find(|one| one.name() == "proxies.own");
        let metrics = endpoint.expect("there").metrics();
        assert_eq!(
            metrics.failed_answer.get()
                + metrics.failed_status.get()
                + metrics.failed_timeout.get(),
            count
        );
        assert_eq!(metrics.failed_timeout.get(), 1);
        // Of what type an answer says that it is does not matter, as in Centrifugo.
        let plain = json!({"result": {"data": 2}}).to_string();
        server.does("/own", Does::Typed("text/plain", plain));
        assert_eq!(shard.answer(&who(), rpc("own:x")).await, data(b"2"));
        server.answers("/own", &json!({"result": {"data": 1}}));
        assert_eq!(shard.answer(&who(), rpc("own:x")).await, data(b"1"));
        shard.stop().await;
    });
}

#[test]
fn a_status_means_what_the_configuration_says() {
    run(async {
        let server = Server::start().await;
        let transforms = json!([
            {"status_code": 404, "to_error": {"code": 1404, "message": "no such thing"}},
            {"status_code": 403, "to_disconnect": {"code": 4403, "reason": "go away"}},
        ]);
        let config = two_namespaces(
            json!({"endpoint": server.url("/own"), "http": {"status_to_code_transforms": transforms}}),
            json!({"endpoint": server.url("/other")}),
        );
        let mut shard = Shard::start(&config);
        server.does("/own", Does::Answer(404, String::new()));
        let expected = Refusal::Error(OwnedError {
            code: 1404,
            message: "no such thing".to_owned(),
            temporary: false,
        });
        assert_eq!(
            shard.answer(&who(), rpc("own:x")).await,
            Answer::Rpc(Err(expected))
        );
        server.does("/own", Does::Answer(403, String::new()));
        let expected = Refusal::Disconnect {
            code: 4403,
            reason: "go away".to_owned(),
        };
        assert_eq!(
            shard.answer(&who(), rpc("own:x")).await,
            Answer::Rpc(Err(expected))
        );
        shard.stop().await;
    });
}

#[test]
fn a_slow_endpoint_is_given_up_and_never_delays_questions_for_another() {
    run(async {
        let server = Server::start().await;
        server.does("/own", Does::Hangs);
        server.answers("/other", &json!({"result": {"data": 1}}));
        let slow =
            json!({"endpoint": server.url("/own"), "timeout": "3s", "concurrency": 2, "queue": 3});
        let config = two_namespaces(slow, json!({"endpoint": server.url("/other")}));
        let mut shard = Shard::start(&config);
        let begun = Instant::now();
        let slow: Vec<u64> = (0..10).map(|_| shard.ask(&who(), rpc("own:x"))).collect();
        for _ in 0..50 {
            assert_eq!(shard.answer(&who(), rpc("other:x")).await, data(b"1"));
        }
        assert!(
            begun.elapsed() < Duration::from_secs(3),
            "{:?}",
            begun.elapsed()
        );
        let mut answers = Vec::new();
        for question in slow {
            answers.push(shard.answer_to(question).await);
        }
        let busy = answers
            .iter()
            .filter(|one| **one == error(ErrorCode::TooManyRequests));
        // Two are under way, three wait; the other five are told at once.
        assert!(busy.count() >= 5, "{answers:?}");
        let failed = answers
            .iter()
            .filter(|one| **one == error(ErrorCode::Internal));
        assert!(failed.count() >= 2, "{answers:?}");
        shard.stop().await;
    });
}

#[test]
fn an_endpoint_that_fails_is_left_alone_and_used_again_when_it_answers() {
    run(async {
        let server = Server::start().await;
        server.does("/own", Does::Answer(503, String::new()));
        let breaker = json!({"failures": 3, "pause": "100ms", "pause_max": "200ms"});
        let config = two_namespaces(
            json!({"endpoint": server.url("/own"), "breaker": breaker}),
            json!({"endpoint": server.url("/other")}),
        );
        let mut shard = Shard::start(&config);
        for _ in 0..100 {
            assert_eq!(
                shard.answer(&who(), rpc("own:x")).await,
                error(ErrorCode::Internal)
            );
        }
        let endpoint = shard
            .endpoints
            .iter()
            .find(|one| one.name() == "proxies.own");
        let metrics = std::sync::Arc::clone(endpoint.expect("there").metrics());
        assert!(metrics.breaker_opened.get() >= 1);
        assert_eq!(metrics.breaker_open.get(), 1);
        assert!(server.asked("/own").len() < 100, "most were not even sent");
        assert_eq!(metrics.asked.get() + metrics.refused_open.get(), 100);
        server.answers("/own", &json!({"result": {"data": 1}}));
        let mut answers = 0;
        while shard.answer(&who(), rpc("own:x")).await != data(b"1") {
            answers += 1;
            assert!(answers < 10_000, "it is used again");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(metrics.breaker_open.get(), 0);
        assert_eq!(shard.answer(&who(), rpc("own:x")).await, data(b"1"));
        shard.stop().await;
    });
}

#[test]
fn credentials_hold_a_minute_longer_while_the_backend_cannot_say() {
    run(async {
        let server = Server::start().await;
        let mut backend = BackendConfig::default();
        backend.client.refresh.enabled = true;
        backend.client.refresh.options =
            proxy(json!({"endpoint": server.url("/refresh"), "timeout": "100ms"}));
        let mut shard = Shard::start(&with_backend(backend));
        let refresh = || QuestionKind::Refresh {
            token: String::new(),
        };
        let a_minute = Answer::Refresh(Ok(RefreshGrant {
            expires_in: Some(Duration::from_secs(60)),
            ..RefreshGrant::default()
        }));
        let failures = [
            Does::Answer(500, String::new()),
            Does::Answer(200, "garbage".to_owned()),
            Does::Late(Duration::from_secs(5), "{}".to_owned()),
            Does::Answer(
                200,
                json!({"error": {"code": 1000, "message": "not now"}}).to_string(),
            ),
        ];
        for does in failures {
            server.does("/refresh", does);
            assert_eq!(shard.answer(&who(), refresh()).await, a_minute);
        }
        for (body, grant) in [
            (json!({"result": {"expired": true}}), Some(true)),
            (json!({"result": {"expire_at": 1}}), Some(true)),
            (json!({}), Some(true)),
            (json!({"result": {"info": {"a": 1}}}), Some(false)),
            (json!({"disconnect": {"code": 4001, "reason": "bye"}}), None),
        ] {
            server.answers("/refresh", &body);
            let answer = shard.answer(&who(), refresh()).await;
            let Answer::Refresh(answer) = answer else {
                panic!("{answer:?}")
            };
            assert_eq!(answer.ok().map(|grant| grant.expired), grant, "{body}");
        }
        shard.stop().await;
    });
}

#[test]
fn more_answers_than_a_mailbox_holds_all_arrive() {
    run(async {
        let server = Server::start().await;
        server.answers("/own", &json!({"result": {"data": 1}}));
        let config = two_namespaces(
            json!({"endpoint": server.url("/own"), "concurrency": 64, "timeout": "20s"}),
            json!({"endpoint": server.url("/other")}),
        );
        let mut shard = Shard::start(&config);
        let asked: Vec<u64> = (0..200).map(|_| shard.ask(&who(), rpc("own:x"))).collect();
        let metrics = std::sync::Arc::clone(&shard.metrics);
        // Nobody looks into the mailbox, which takes four.
        until("answers wait", || metrics.answers_delayed.get() > 0).await;
        for question in asked {
            assert_eq!(shard.answer_to(question).await, data(b"1"));
        }
        assert_eq!(metrics.answers.get(), 200);
        assert_eq!(metrics.questions_in_flight.get(), 0);
        shard.stop().await;
    });
}
