//! Frames as clients send them, and the frames and effects that follow.

use flux_gateway::authority::Answer;
use flux_gateway::protocol::{Disconnect, ErrorCode};
use flux_gateway::session::{ChannelOptions, ChannelRules, Namespace};

use crate::client::{CLIENT, Client, Seen, closed, open_config};

fn bad_request() -> Vec<Seen> {
    vec![closed(3501, "bad request")]
}

#[test]
fn the_javascript_sdk_connects_and_subscribes_in_one_frame() {
    let mut client = Client::new(open_config());
    let replies = client.sends(concat!(
        r#"{"connect":{"name":"js"},"id":1}"#,
        "\n",
        r#"{"subscribe":{"channel":"news","flag":1},"id":2}"#,
        "\n",
        r#"{"subscribe":{"channel":"room","data":{"a":1},"positioned":true,"recoverable":true,"join_leave":true,"flag":1,"delta":"fossil"},"id":3}"#,
    ));
    assert_eq!(
        replies,
        format!(
            r#"{{"id":1,"connect":{{"client":"{CLIENT}","version":"flux","ping":25,"pong":true,"node":"gateway-2"}}}}"#
        )
    );
    assert_eq!(
        client.effects(),
        [
            Seen::Connected(String::new()),
            Seen::Subscribe(2, "news".to_owned(), false),
            Seen::Subscribe(3, "room".to_owned(), false),
        ]
    );
    assert_eq!(
        client.subscribed("room", 3, Ok(())),
        r#"{"id":3,"subscribe":{}}"#
    );
    assert_eq!(
        client.subscribed("news", 2, Ok(())),
        r#"{"id":2,"subscribe":{}}"#
    );
}

#[test]
fn the_python_sdk_puts_blanks_between_tokens() {
    let mut client = Client::new(open_config());
    let replies = client.sends(r#"{"id": 1, "connect": {"name": "python", "version": "1.0"}}"#);
    assert!(replies.starts_with(r#"{"id":1,"connect":{"client":""#));
    client.sends(r#"{"id": 2, "subscribe": {"channel": "news", "recoverable": true, "flag": 1}}"#);
    client.sends(r#"{"id": 3, "publish": {"channel": "news", "data": {"input": "test"}}}"#);
    assert_eq!(
        client.effects(),
        [
            Seen::Connected(String::new()),
            Seen::Subscribe(2, "news".to_owned(), false),
            Seen::Publish(3, "news".to_owned(), r#"{"input": "test"}"#.to_owned()),
        ]
    );
}

#[test]
fn every_command_of_the_javascript_sdk_is_answered() {
    for (frame, reply, effects) in [
        (
            r#"{"publish":{"channel":"other","data":"plain \"quoted\" é"},"id":5}"#,
            "",
            vec![Seen::Publish(
                5,
                "other".to_owned(),
                r#""plain \"quoted\" é""#.to_owned(),
            )],
        ),
        (
            r#"{"publish":{"channel":"news","data":null},"id":6}"#,
            "",
            vec![Seen::Publish(6, "news".to_owned(), "null".to_owned())],
        ),
        (
            r#"{"rpc":{"method":"m","data":{"x":1}},"id":7}"#,
            r#"{"id":7,"error":{"code":108,"message":"not available"}}"#,
            vec![],
        ),
        (
            r#"{"send":{"data":{"one":"way"}}}"#,
            "",
            vec![Seen::Message(r#"{"one":"way"}"#.to_owned())],
        ),
        (
            r#"{"history":{"channel":"news","limit":10},"id":8}"#,
            r#"{"id":8,"error":{"code":108,"message":"not available"}}"#,
            vec![],
        ),
        (
            r#"{"presence":{"channel":"news"},"id":9}"#,
            r#"{"id":9,"error":{"code":108,"message":"not available"}}"#,
            vec![],
        ),
        (
            r#"{"presence_stats":{"channel":"news"},"id":10}"#,
            r#"{"id":10,"error":{"code":108,"message":"not available"}}"#,
            vec![],
        ),
        (
            r#"{"unsubscribe":{"channel":"news"},"id":11}"#,
            r#"{"id":11,"unsubscribe":{}}"#,
            vec![],
        ),
    ] {
        let mut client = Client::connected(open_config());
        assert_eq!(client.sends(frame), reply, "{frame}");
        assert_eq!(client.effects(), effects, "{frame}");
    }
}

#[test]
fn a_publish_is_answered_when_the_engine_answers() {
    let mut client = Client::connected(open_config());
    let silence = client.sends(concat!(
        r#"{"publish":{"channel":"a","data":1},"id":15}"#,
        "\n",
        r#"{"publish":{"channel":"a","data":2},"id":16}"#,
    ));
    assert_eq!(silence, "");
    assert_eq!(
        client.published(16, Err(ErrorCode::Internal)),
        r#"{"id":16,"error":{"code":100,"message":"internal server error","temporary":true}}"#
    );
    assert_eq!(client.published(15, Ok(())), r#"{"id":15,"publish":{}}"#);
}

#[test]
fn what_breaks_the_protocol_closes_the_connection() {
    for frame in [
        "",
        "\n",
        "{",
        "[]",
        "hello",
        r#"{"id":1}"#,
        r#"{"id":2,"unknown":{}}"#,
        r#"{"id":2,"ping":{}}"#,
        r#"{"id":2,"connect":{}}"#,
        // Pongs that nobody asked for.
        "{}",
        r#"{"id":0}"#,
        // Commands without an id.
        r#"{"subscribe":{"channel":"a"}}"#,
        r#"{"id":0,"publish":{"channel":"a","data":1}}"#,
        // Commands without what they are about.
        r#"{"id":2,"subscribe":{}}"#,
        r#"{"id":2,"subscribe":{"channel":""}}"#,
        r#"{"id":2,"unsubscribe":{}}"#,
        r#"{"id":2,"publish":{"data":1}}"#,
        r#"{"id":2,"publish":{"channel":"a"}}"#,
        r#"{"id":2,"history":{}}"#,
        r#"{"id":2,"presence":{}}"#,
        r#"{"id":2,"presence_stats":{}}"#,
        r#"{"id":2,"refresh":{}}"#,
        r#"{"id":2,"sub_refresh":{"token":"t"}}"#,
        r#"{"id":2,"subscribe":{"channel":"a","delta":"xdelta"}}"#,
    ] {
        let mut client = Client::connected(open_config());
        assert_eq!(client.sends(frame), "", "{frame}");
        assert_eq!(client.effects(), bad_request(), "{frame}");
        assert!(client.session.is_closed());
    }
}

#[test]
fn nothing_may_come_before_connect() {
    for frame in [
        "{}",
        r#"{"id":1}"#,
        r#"{"id":1,"subscribe":{"channel":"a"}}"#,
        r#"{"id":1,"publish":{"channel":"a","data":1}}"#,
        r#"{"send":{"data":1}}"#,
        r#"{"id":1,"rpc":{}}"#,
        r#"{"connect":{}}"#,
        r#"{"id":0,"connect":{}}"#,
    ] {
        let mut client = Client::new(open_config());
        assert_eq!(client.sends(frame), "", "{frame}");
        assert_eq!(client.effects(), bad_request(), "{frame}");
    }
}

#[test]
fn a_failed_connect_drops_the_rest_of_its_frame() {
    let rest = "\n{\"id\":2,\"subscribe\":{\"channel\":\"a\"}}";
    let connect = format!(r#"{{"id":1,"connect":{{"token":"t"}}}}{rest}"#);
    let mut client = Client::new(open_config());
    assert_eq!(client.sends(&connect), "");
    client.effects();
    client.answers(Answer::Connect(Err(Disconnect::INVALID_TOKEN.into())));
    assert_eq!(client.effects(), [closed(3500, "invalid token")]);

    // One that may try again is still there, and has to connect first.
    let mut client = Client::new(open_config());
    client.sends(&connect);
    client.sends(rest.trim());
    client.effects();
    assert_eq!(
        client.answers(Answer::Connect(Err(ErrorCode::TokenExpired.into()))),
        r#"{"id":1,"error":{"code":109,"message":"token expired"}}"#
    );
    assert_eq!(client.effects(), []);
    client.sends(rest.trim());
    assert_eq!(client.effects(), bad_request());

    let mut config = open_config();
    config.allow_anonymous = false;
    let mut client = Client::new(config);
    assert_eq!(
        client.sends(&format!(r#"{{"id":1,"connect":{{}}}}{rest}"#)),
        ""
    );
    assert_eq!(client.effects(), bad_request());
}

#[test]
fn what_stands_before_a_broken_line_is_answered() {
    let mut client = Client::connected(open_config());
    let replies = client.sends("{\"id\":2,\"rpc\":{}}\n{\"id\":3,\n{\"id\":4,\"rpc\":{}}");
    assert_eq!(
        replies,
        r#"{"id":2,"error":{"code":108,"message":"not available"}}"#
    );
    assert_eq!(client.effects(), bad_request());
}

#[test]
fn channels_follow_their_namespace() {
    let mut config = open_config();
    config.channels = ChannelRules {
        without_namespace: ChannelOptions::default(),
        namespaces: vec![
            Namespace {
                name: "chat".to_owned(),
                options: ChannelOptions::open(),
            },
            Namespace {
                name: "room".to_owned(),
                options: ChannelOptions {
                    allow_subscribe_for_client: true,
                    allow_subscribe_for_anonymous: true,
                    allow_publish_for_subscriber: true,
                    allow_publish_for_anonymous: true,
                    ..ChannelOptions::default()
                },
            },
        ],
        ..ChannelRules::default()
    };
    let denied = r#"{"id":2,"error":{"code":103,"message":"permission denied"}}"#;
    let unknown = r#"{"id":2,"error":{"code":102,"message":"unknown channel"}}"#;
    let malformed = r#"{"id":2,"error":{"code":107,"message":"bad request"}}"#;
    for (frame, reply) in [
        (r#"{"id":2,"subscribe":{"channel":"a"}}"#, denied),
        (r#"{"id":2,"publish":{"channel":"a","data":1}}"#, denied),
        (r#"{"id":2,"subscribe":{"channel":"x:a"}}"#, unknown),
        (r#"{"id":2,"publish":{"channel":"x:a","data":1}}"#, unknown),
        (r#"{"id":2,"history":{"channel":"x:a"}}"#, unknown),
        (r#"{"id":2,"presence":{"channel":"$x:a"}}"#, unknown),
        (r#"{"id":2,"subscribe":{"channel":"chat:é"}}"#, malformed),
        (
            r#"{"id":2,"publish":{"channel":"chat:é","data":1}}"#,
            malformed,
        ),
        (
            r#"{"id":2,"publish":{"channel":"room:a","data":1}}"#,
            denied,
        ),
        (r#"{"id":2,"subscribe":{"channel":"$chat:a"}}"#, denied),
        (r#"{"id":2,"subscribe":{"channel":"chat:a"}}"#, ""),
        (r#"{"id":2,"publish":{"channel":"chat:a","data":1}}"#, ""),
    ] {
        let mut client = Client::connected(config.clone());
        assert_eq!(client.sends(frame), reply, "{frame}");
    }
    // A subscriber may publish, from the command after its subscribe on.
    let mut client = Client::connected(config);
    let silence = client.sends(concat!(
        r#"{"id":2,"subscribe":{"channel":"room:a"}}"#,
        "\n",
        r#"{"id":3,"publish":{"channel":"room:a","data":1}}"#,
    ));
    assert_eq!(silence, "");
    assert_eq!(client.effects().len(), 2);
}

#[test]
fn kinds_of_channels_that_do_not_exist_are_not_taken_for_plain_ones() {
    for (frame, code) in [
        (
            r#"{"id":2,"subscribe":{"channel":"a","type":1,"phase":2}}"#,
            108,
        ),
        (r#"{"id":2,"subscribe":{"channel":"a","type":4}}"#, 108),
        (
            r#"{"id":2,"publish":{"channel":"a","type":1,"key":"k","data":1}}"#,
            108,
        ),
        (
            r#"{"id":2,"subscribe":{"channel":"a","tf":{"key":"k"}}}"#,
            107,
        ),
    ] {
        let mut client = Client::connected(open_config());
        let reply = client.sends(frame);
        assert!(
            reply.contains(&format!("\"code\":{code}")),
            "{frame}: {reply}"
        );
        assert_eq!(client.effects(), [], "{frame}");
    }
}

#[test]
fn line_ends_in_data_do_not_reach_the_wire() {
    let mut client = Client::connected(open_config());
    client.sends("{\"id\":2,\"publish\":{\"channel\":\"a\",\"data\":{\"x\":1,\r\"y\":2}}}\r\n");
    assert_eq!(
        client.effects(),
        [Seen::Publish(
            2,
            "a".to_owned(),
            "{\"x\":1, \"y\":2}".to_owned()
        )]
    );
}
