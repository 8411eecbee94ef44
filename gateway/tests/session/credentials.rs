//! Credentials are renewed, or they expire.

use std::time::Duration;

use flux_gateway::authority::{Answer, ConnectGrant, QuestionKind, RefreshGrant, SubscribeGrant};
use flux_gateway::protocol::{Disconnect, ErrorCode};
use flux_gateway::session::SessionConfig;

use crate::client::{Client, Seen, closed, config_with, open_config, sub, user};

const SECOND: Duration = Duration::from_secs(1);
const REFRESH: &str = r#"{"id":9,"refresh":{"token":"new"}}"#;
const SUB_REFRESH: &str = r#"{"id":9,"sub_refresh":{"channel":"a","token":"new"}}"#;

fn expiring(config: SessionConfig) -> Client {
    Client::granted(
        config,
        ConnectGrant {
            expires_in: Some(600 * SECOND),
            ..user("42")
        },
    )
}

fn renewed(seconds: u32) -> RefreshGrant {
    RefreshGrant {
        expires_in: Some(seconds * SECOND),
        ..RefreshGrant::default()
    }
}

/// Subscribed to `a` with a token of 60 s.
fn subscribed(config: SessionConfig) -> Client {
    let mut client = Client::connected(config);
    client.sends(r#"{"id":2,"subscribe":{"channel":"a","token":"t"}}"#);
    client.answers(Answer::Subscribe(Ok(SubscribeGrant {
        expires_in: Some(60 * SECOND),
        ..SubscribeGrant::default()
    })));
    client.seen.clear();
    client
}

#[test]
fn a_connection_that_is_not_renewed_closes_after_some_patience() {
    let mut client = expiring(open_config());
    assert!(client.waits_alive(624 * SECOND).is_empty());
    assert_eq!(client.effects(), []);
    client.waits_alive(SECOND);
    assert_eq!(client.effects(), [closed(3005, "connection expired")]);
}

#[test]
fn a_new_token_prolongs_the_connection() {
    let mut client = expiring(open_config());
    client.waits_alive(590 * SECOND);
    assert_eq!(client.sends(REFRESH), "");
    assert_eq!(
        client.questions(),
        [QuestionKind::Refresh {
            token: "new".to_owned()
        }]
    );
    let reply = client.answers(Answer::Refresh(Ok(renewed(600))));
    assert!(
        reply.starts_with(r#"{"id":9,"refresh":{"client":""#)
            && reply.ends_with(r#""version":"flux","expires":true,"ttl":600}}"#),
        "{reply}"
    );
    client.waits_alive(624 * SECOND);
    assert_eq!(client.effects(), []);
    client.waits_alive(SECOND);
    assert_eq!(client.effects(), [closed(3005, "connection expired")]);
}

#[test]
fn a_token_that_does_not_renew_ends_the_connection_or_is_tried_again() {
    for (answer, reply, effects) in [
        (
            Ok(RefreshGrant {
                expired: true,
                ..RefreshGrant::default()
            }),
            "",
            vec![closed(3005, "connection expired")],
        ),
        (
            Err(Disconnect::INVALID_TOKEN.into()),
            "",
            vec![closed(3500, "invalid token")],
        ),
        (
            Err(ErrorCode::TooManyRequests.into()),
            r#"{"id":9,"error":{"code":111,"message":"too many requests","temporary":true}}"#,
            vec![],
        ),
    ] {
        let mut client = expiring(open_config());
        client.sends(REFRESH);
        client.effects();
        assert_eq!(client.answers(Answer::Refresh(answer)), reply);
        assert_eq!(client.effects(), effects);
    }
    let mut client = expiring(open_config());
    client.sends(r#"{"id":9,"refresh":{}}"#);
    assert_eq!(client.effects(), [closed(3501, "bad request")]);
}

fn backend_renews() -> Client {
    let mut config = open_config();
    config.refresh_proxy = true;
    expiring(config)
}

#[test]
fn the_backend_is_asked_when_the_connection_expires() {
    let ask = [QuestionKind::Refresh {
        token: String::new(),
    }];
    let mut client = backend_renews();
    client.waits_alive(599 * SECOND);
    assert_eq!(client.effects(), []);
    client.waits_alive(SECOND);
    assert_eq!(client.questions(), ask);
    // Commands do not wait for it, nor is it asked twice.
    assert!(client.sends(r#"{"id":5,"rpc":{}}"#).contains("108"));
    client.waits_alive(100 * SECOND);
    assert_eq!(client.effects(), []);
    assert_eq!(client.answers(Answer::Refresh(Ok(renewed(60)))), "");
    client.waits_alive(60 * SECOND);
    assert_eq!(client.questions(), ask);
    // A backend that is down is asked again a minute later.
    client.answers(Answer::Refresh(Err(ErrorCode::Internal.into())));
    client.waits_alive(59 * SECOND);
    assert_eq!(client.effects(), []);
    client.waits_alive(SECOND);
    assert_eq!(client.questions(), ask);
    client.answers(Answer::Refresh(Ok(RefreshGrant {
        expired: true,
        ..RefreshGrant::default()
    })));
    assert_eq!(client.effects(), [closed(3005, "connection expired")]);
}

#[test]
fn a_client_does_not_renew_what_the_backend_does() {
    let mut config = open_config();
    config.refresh_proxy = true;
    let mut client = Client::new(config);
    client.sends(r#"{"id":1,"connect":{"token":"t"}}"#);
    let reply = client.answers(Answer::Connect(Ok(ConnectGrant {
        expires_in: Some(600 * SECOND),
        ..user("42")
    })));
    assert!(!reply.contains("expires"), "{reply}");
    client.effects();
    client.sends(REFRESH);
    assert_eq!(client.effects(), [closed(3501, "bad request")]);
}

#[test]
fn a_subscription_that_is_not_renewed_ends_after_some_patience() {
    let mut client = subscribed(open_config());
    assert_eq!(
        client.subscribed("a", 2, Ok(())),
        r#"{"id":2,"subscribe":{"expires":true,"ttl":60}}"#
    );
    assert!(client.waits_alive(84 * SECOND).is_empty());
    assert_eq!(
        client.waits_alive(SECOND),
        [r#"{"push":{"channel":"a","unsubscribe":{"code":2501,"reason":"subscription expired"}}}"#]
    );
    assert_eq!(client.effects(), [Seen::Unsubscribe("a".to_owned())]);
    // The connection stays.
    assert!(client.session.is_connected());
    client.waits_alive(3600 * SECOND);
    assert_eq!(client.effects(), []);
}

#[test]
fn a_new_token_prolongs_the_subscription() {
    let mut client = subscribed(open_config());
    client.subscribed("a", 2, Ok(()));
    client.waits_alive(50 * SECOND);
    client.sends(SUB_REFRESH);
    assert_eq!(
        client.questions(),
        [QuestionKind::SubRefresh {
            channel: "a".to_owned(),
            token: "new".to_owned()
        }]
    );
    assert_eq!(
        client.answers(Answer::SubRefresh(Ok(renewed(60)))),
        r#"{"id":9,"sub_refresh":{"expires":true,"ttl":60}}"#
    );
    assert!(client.waits_alive(84 * SECOND).is_empty());
    assert_eq!(client.waits_alive(SECOND).len(), 1);
}

#[test]
fn a_token_that_does_not_renew_ends_the_subscription_so_that_it_is_taken_up_again() {
    let mut client = subscribed(open_config());
    client.subscribed("a", 2, Ok(()));
    client.sends(SUB_REFRESH);
    let replies = client.answers(Answer::SubRefresh(Ok(RefreshGrant {
        expired: true,
        ..RefreshGrant::default()
    })));
    assert_eq!(
        replies.lines().collect::<Vec<_>>(),
        [
            r#"{"push":{"channel":"a","unsubscribe":{"code":2501,"reason":"subscription expired"}}}"#,
            r#"{"id":9,"error":{"code":110,"message":"expired"}}"#
        ]
    );
    // Not subscribed, no token, another user's.
    for (frame, code) in [
        (r#"{"id":3,"sub_refresh":{"channel":"b","token":"t"}}"#, 103),
        (SUB_REFRESH, 103),
    ] {
        let reply = client.sends(frame);
        assert!(reply.contains(&format!("\"code\":{code}")), "{reply}");
    }
    let mut client = subscribed(open_config());
    client.subscribed("a", 2, Ok(()));
    let reply = client.sends(r#"{"id":3,"sub_refresh":{"channel":"a"}}"#);
    assert!(reply.contains("\"code\":107"), "{reply}");
    client.sends(SUB_REFRESH);
    client.effects();
    client.answers(Answer::SubRefresh(Err(Disconnect::INVALID_TOKEN.into())));
    assert_eq!(
        client.effects(),
        [
            Seen::Unsubscribe("a".to_owned()),
            closed(3500, "invalid token")
        ]
    );
}

#[test]
fn the_backend_is_asked_about_one_subscription_at_a_time() {
    let mut client = subscribed(config_with(|options| {
        options.sub_refresh_proxy_enabled = true;
    }));
    assert_eq!(
        client.subscribed("a", 2, Ok(())),
        r#"{"id":2,"subscribe":{}}"#,
        "the client has nothing to renew"
    );
    client.sends(r#"{"id":3,"subscribe":{"channel":"b","token":"t"}}"#);
    client.answers(Answer::Subscribe(Ok(SubscribeGrant {
        expires_in: Some(60 * SECOND),
        ..SubscribeGrant::default()
    })));
    client.subscribed("b", 3, Ok(()));
    client.effects();
    let ask = |channel: &str| {
        [QuestionKind::SubRefresh {
            channel: channel.to_owned(),
            token: String::new(),
        }]
    };
    client.waits_alive(60 * SECOND);
    assert_eq!(client.questions(), ask("a"));
    let reply = client.sends(SUB_REFRESH);
    assert!(reply.contains("\"code\":107"), "{reply}");
    client.answers(Answer::SubRefresh(Ok(renewed(600))));
    client.waits_alive(SECOND);
    assert_eq!(client.questions(), ask("b"));
    client.answers(Answer::SubRefresh(Err(ErrorCode::Internal.into())));
    client.waits_alive(60 * SECOND);
    assert_eq!(client.questions(), ask("b"));
    assert_eq!(
        client.answers(Answer::SubRefresh(Ok(RefreshGrant {
            expired: true,
            ..RefreshGrant::default()
        }))),
        r#"{"push":{"channel":"b","unsubscribe":{"code":2501,"reason":"subscription expired"}}}"#
    );
    assert_eq!(client.effects(), [Seen::Unsubscribe("b".to_owned())]);
}

#[test]
fn an_expired_subscription_of_the_servers_closes_the_connection() {
    let (channel, mut grant) = sub("a");
    grant.expires_in = Some(60 * SECOND);
    let mut client = Client::new(open_config());
    client.sends(r#"{"id":1,"connect":{"token":"t"}}"#);
    client.answers(Answer::Connect(Ok(ConnectGrant {
        subs: vec![(channel, grant)],
        ..user("42")
    })));
    client.subscribed("a", 0, Ok(()));
    client.effects();
    client.waits_alive(84 * SECOND);
    assert_eq!(client.effects(), []);
    client.waits_alive(SECOND);
    assert_eq!(
        client.effects(),
        [
            Seen::Unsubscribe("a".to_owned()),
            closed(3006, "subscription expired")
        ]
    );
}

#[test]
fn new_info_is_seen_by_those_who_ask_who_is_present() {
    let mut client = Client::connected(config_with(|options| options.presence = true));
    client.sends(r#"{"id":2,"subscribe":{"channel":"a"}}"#);
    client.subscribed("a", 2, Ok(()));
    client.sends(r#"{"id":3,"subscribe":{"channel":"pending"}}"#);
    client.effects();
    let info = RefreshGrant {
        info: Some(b"{}".to_vec()),
        ..RefreshGrant::default()
    };
    client.sends(REFRESH);
    client.effects();
    client.answers(Answer::Refresh(Ok(info.clone())));
    assert_eq!(client.effects(), [Seen::Enter("a".to_owned())]);
    client.sends(SUB_REFRESH);
    client.effects();
    client.answers(Answer::SubRefresh(Ok(info)));
    assert_eq!(client.effects(), [Seen::Enter("a".to_owned())]);
}

#[test]
fn a_new_token_that_names_other_channels_makes_the_client_connect_anew() {
    let channels = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
    for (named, is_other) in [
        (channels(&["a"]), false),
        (None, false),
        // The client has subscribed to it by itself.
        (channels(&["a", "b"]), false),
        (channels(&["a", "c"]), true),
        (channels(&[]), true),
        (channels(&["b"]), true),
    ] {
        let mut client = Client::new(open_config());
        client.sends(r#"{"id":1,"connect":{"token":"t"}}"#);
        client.answers(Answer::Connect(Ok(ConnectGrant {
            subs: vec![sub("a")],
            ..user("42")
        })));
        client.subscribed("a", 0, Ok(()));
        client.sends(r#"{"id":2,"subscribe":{"channel":"b"}}"#);
        client.subscribed("b", 2, Ok(()));
        client.sends(REFRESH);
        client.effects();
        let grant = RefreshGrant {
            channels: named.clone(),
            ..renewed(600)
        };
        let reply = client.answers(Answer::Refresh(Ok(grant)));
        if is_other {
            let end = closed(3010, "insufficient state");
            assert_eq!(client.effects().last(), Some(&end), "{named:?}");
            assert_eq!(reply, "", "{named:?}");
        } else {
            assert_eq!(client.effects(), [], "{named:?}");
            assert!(reply.contains(r#""ttl":600"#), "{named:?}: {reply}");
        }
    }
}
