//! Who may connect, with what, and what is there when it is told so.

use std::rc::Rc;
use std::time::Duration;

use flux_gateway::authority::{Answer, ConnectGrant, QuestionKind, Refusal, SubscribeGrant};
use flux_gateway::protocol::command::ConnectRequest;
use flux_gateway::protocol::{ClientId, Disconnect, ErrorCode, WireFormat};
use flux_gateway::pubsub::{Epoch, Framing, KnownEpoch, StreamPosition};
use flux_gateway::session::{Door, PersonalChannel, Subscribed};

use crate::client::{
    CLIENT, Client, Seen, closed, config_with, keep_history, open_config, sub, user,
};

const CONNECT: &str = r#"{"id":1,"connect":{"token":"t"}}"#;

fn connect_reply(more: &str) -> String {
    format!(r#"{{"id":1,"connect":{{"client":"{CLIENT}","version":"flux"{more}}}}}"#)
}

#[test]
fn a_token_is_the_authoritys_to_judge() {
    let mut client = Client::new(open_config());
    assert_eq!(
        client
            .sends(r#"{"id":1,"connect":{"token":"t","data":{"a":1},"name":"js","version":"2"}}"#),
        ""
    );
    assert_eq!(
        client.questions(),
        [QuestionKind::Connect {
            token: "t".to_owned(),
            data: br#"{"a":1}"#.to_vec(),
            name: "js".to_owned(),
            version: "2".to_owned(),
        }]
    );
    let grant = ConnectGrant {
        expires_in: Some(Duration::from_secs(600)),
        data: br#"{"hello":"you"}"#.to_vec(),
        ..user("42")
    };
    assert_eq!(
        client.answers(Answer::Connect(Ok(grant))),
        connect_reply(
            r#","expires":true,"ttl":600,"data":{"hello":"you"},"ping":25,"pong":true,"node":"gateway-2""#
        )
    );
    assert_eq!(client.effects(), [Seen::Connected("42".to_owned())]);
    assert_eq!(client.session.user(), "42");
}

#[test]
fn a_refused_client_learns_why() {
    for (refusal, reply, effects) in [
        (
            ErrorCode::TokenExpired.into(),
            r#"{"id":1,"error":{"code":109,"message":"token expired"}}"#,
            vec![],
        ),
        (
            Disconnect::INVALID_TOKEN.into(),
            "",
            vec![closed(3500, "invalid token")],
        ),
        (
            Refusal::Disconnect {
                code: 4501,
                reason: "not you".to_owned(),
            },
            "",
            vec![closed(4501, "not you")],
        ),
    ] {
        let mut client = Client::new(open_config());
        client.sends(CONNECT);
        client.effects();
        assert_eq!(client.answers(Answer::Connect(Err(refusal))), reply);
        assert_eq!(client.effects(), effects);
        assert!(!client.session.is_connected());
    }
}

#[test]
fn a_client_that_only_listens_learns_it_by_the_close() {
    for (error, code) in [
        (ErrorCode::TokenExpired, 3005),
        (ErrorCode::Expired, 3005),
        (ErrorCode::TooManyRequests, 3013),
        (ErrorCode::PermissionDenied, 3507),
        (ErrorCode::Internal, 3004),
        (ErrorCode::UnknownChannel, 3004),
    ] {
        let mut client = listener();
        connects(&mut client, "t");
        client.effects();
        assert_eq!(client.answers(Answer::Connect(Err(error.into()))), "");
        let effects = client.effects();
        assert!(
            matches!(effects[..], [Seen::Close(closed, _)] if closed == code),
            "{error:?}: {effects:?}"
        );
    }
}

fn listener() -> Client {
    let door = Door {
        transport: Framing::Sse,
        unidirectional: true,
        ..Door::default()
    };
    Client::at_door(
        &Rc::new(open_config()),
        door,
        ClientId::from_random(1 << 31),
    )
}

fn connects(client: &mut Client, token: &str) -> String {
    let request = ConnectRequest {
        token: token.into(),
        ..ConnectRequest::default()
    };
    client.step(|session, now, out, mut effect| {
        session.connect_unidirectional(&request, now, out, &mut effect);
    })
}

#[test]
fn a_client_that_only_listens_gets_pushes_and_pings_and_owes_nothing() {
    let mut client = listener();
    assert_eq!(
        connects(&mut client, ""),
        format!(
            r#"{{"connect":{{"client":"{CLIENT}","version":"flux","ping":25,"node":"gateway-2"}}}}"#
        )
    );
    assert_eq!(client.effects(), [Seen::Connected(String::new())]);
    // A second one, and whatever it may send, changes nothing.
    assert_eq!(connects(&mut client, ""), "");
    assert_eq!(client.sends("{"), "");
    let pings = client.waits(Duration::from_secs(100));
    assert!((3..=4).contains(&pings.len()), "{pings:?}");
    assert!(pings.iter().all(|ping| ping == "{}"));
    assert_eq!(client.effects(), []);
}

#[test]
fn a_stream_is_told_how_to_send() {
    let door = Door {
        format: WireFormat::Json,
        transport: Framing::HttpStream,
        unidirectional: false,
        session_token: "secret".into(),
        ..Door::default()
    };
    let config = Rc::new(open_config());
    let mut client = Client::at_door(&config, door, ClientId::from_random(1 << 31));
    assert_eq!(
        client.sends(r#"{"id":1,"connect":{}}"#),
        connect_reply(r#","ping":25,"pong":true,"session":"secret","node":"gateway-2""#)
    );
    assert_eq!(client.session.session_token(), "secret");
}

#[test]
fn without_a_token_the_configuration_decides() {
    let mut config = open_config();
    config.allow_anonymous = false;
    let connect = r#"{"id":1,"connect":{}}"#;

    let mut client = Client::new(config.clone());
    client.sends(connect);
    assert_eq!(client.effects(), [closed(3501, "bad request")]);

    config.connect_proxy = true;
    let mut client = Client::new(config.clone());
    client.sends(connect);
    assert!(matches!(
        client.questions()[..],
        [QuestionKind::Connect { .. }]
    ));
    client.answers(Answer::Connect(Ok(user("from the backend"))));
    assert_eq!(client.session.user(), "from the backend");

    config.insecure = true;
    let mut client = Client::new(config);
    client.sends(connect);
    assert!(client.session.is_connected());
}

#[test]
fn tokens_without_a_user_may_be_refused() {
    let mut config = open_config();
    config.disallow_anonymous_tokens = true;
    let mut client = Client::new(config);
    client.sends(CONNECT);
    client.effects();
    client.answers(Answer::Connect(Ok(ConnectGrant::default())));
    assert_eq!(client.effects(), [closed(3507, "permission denied")]);
}

#[test]
fn commands_behind_a_connect_wait_for_it_in_their_order() {
    let mut client = Client::new(open_config());
    let frame = format!("{CONNECT}\n{}", r#"{"id":2,"subscribe":{"channel":"a"}}"#);
    client.sends(&frame);
    client.sends(r#"{"id":3,"rpc":{"method":"m"}}"#);
    assert_eq!(client.questions().len(), 1);
    let replies = client.answers(Answer::Connect(Ok(user("42"))));
    let ids: Vec<_> = replies.lines().map(|line| &line[..7]).collect();
    assert_eq!(ids, [r#"{"id":1"#, r#"{"id":3"#]);
    assert_eq!(
        client.effects(),
        [
            Seen::Connected("42".to_owned()),
            Seen::Subscribe(2, "a".to_owned(), false)
        ]
    );
}

fn position(offset: u64) -> StreamPosition {
    StreamPosition {
        epoch: Epoch::parse("abcdefgh").expect("eight letters"),
        offset,
    }
}

#[test]
fn the_connect_reply_comes_when_all_server_side_subscriptions_are_there() {
    let mut config = config_with(|options| {
        keep_history(options);
        options.force_recovery = true;
    });
    config.personal_channel = Some(PersonalChannel::default());
    let mut client = Client::new(config);
    client.sends(
        r#"{"id":1,"connect":{"token":"t","subs":{"news":{"recover":true,"epoch":"abcdefgh","offset":3}}}}"#,
    );
    client.effects();
    let grant = ConnectGrant {
        subs: vec![(
            "news".to_owned(),
            SubscribeGrant {
                data: b"7".to_vec(),
                ..SubscribeGrant::default()
            },
        )],
        ..user("42")
    };
    assert_eq!(client.answers(Answer::Connect(Ok(grant))), "");
    assert!(client.session.holds_publications());
    let effects = client.effects();
    assert_eq!(effects[0], Seen::Subscribe(0, "news".to_owned(), false));
    let Seen::With {
        recover: Some(recover),
        ..
    } = &effects[1]
    else {
        unreachable!("{effects:?}");
    };
    assert_eq!(recover.offset, 3);
    assert_eq!(recover.epoch, KnownEpoch::Is(position(0).epoch));
    assert_eq!(effects[2], Seen::Subscribe(0, "#42".to_owned(), false));

    let at = |offset| {
        Ok(Subscribed {
            position: Some(position(offset)),
            recovery: None,
        })
    };
    assert_eq!(client.subscribed_at("#42", 0, at(9)), "");
    // What the client sends meanwhile waits too.
    assert_eq!(client.sends(r#"{"id":2,"rpc":{}}"#), "");
    let replies = client.subscribed_at("news", 0, at(5));
    let (connected, rpc) = replies.split_once('\n').expect("two replies");
    assert_eq!(
        connected,
        connect_reply(concat!(
            r##","subs":{"#42":{"recoverable":true,"epoch":"abcdefgh","offset":9,"positioned":true},"##,
            r#""news":{"recoverable":true,"epoch":"abcdefgh","offset":5,"positioned":true,"data":7,"was_recovering":true}}"#,
            r#","ping":25,"pong":true,"node":"gateway-2""#
        ))
    );
    assert!(rpc.starts_with(r#"{"id":2,"#));
    assert!(!client.session.holds_publications());
    assert_eq!(client.effects(), [Seen::Connected("42".to_owned())]);
}

#[test]
fn a_server_side_subscription_that_cannot_be_ends_the_attempt() {
    let grant = |channels: &[&str]| ConnectGrant {
        subs: channels.iter().map(|channel| sub(channel)).collect(),
        ..user("42")
    };
    // An unknown namespace: what had begun is taken back.
    let mut client = Client::new(open_config());
    client.sends(CONNECT);
    client.effects();
    assert_eq!(
        client.answers(Answer::Connect(Ok(grant(&["a", "x:b"])))),
        r#"{"id":1,"error":{"code":102,"message":"unknown channel"}}"#
    );
    assert_eq!(
        client.effects(),
        [
            Seen::Subscribe(0, "a".to_owned(), false),
            Seen::Unsubscribe("a".to_owned()),
        ]
    );
    // More than there may be.
    let mut config = open_config();
    config.limits.channels_max = 2;
    let mut client = Client::new(config);
    client.sends(CONNECT);
    client.effects();
    client.answers(Answer::Connect(Ok(grant(&["a", "b", "c"]))));
    assert_eq!(client.effects(), [closed(3505, "channel limit")]);
    // The engine is not there: the client comes again.
    let mut client = Client::new(open_config());
    client.sends(CONNECT);
    client.answers(Answer::Connect(Ok(grant(&["a"]))));
    client.effects();
    client.subscribed("a", 0, Err(ErrorCode::Internal));
    assert_eq!(client.effects(), [closed(3004, "internal server error")]);
}

#[test]
fn credentials_that_have_expired_are_none() {
    let mut client = Client::new(open_config());
    client.sends(CONNECT);
    let grant = ConnectGrant {
        expires_in: Some(Duration::ZERO),
        ..user("42")
    };
    assert_eq!(
        client.answers(Answer::Connect(Ok(grant.clone()))),
        r#"{"id":1,"error":{"code":110,"message":"expired"}}"#
    );
    // Where nothing is secure nothing expires.
    let mut config = open_config();
    config.insecure = true;
    let mut client = Client::granted(config, grant);
    client.waits_alive(Duration::from_secs(3600));
    assert_eq!(client.effects(), []);
}
