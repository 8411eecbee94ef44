//! Who may subscribe, in the order in which it is decided, and what a subscriber gets.

use flux_gateway::authority::{Answer, QuestionKind, Refusal, SubscribeGrant};
use flux_gateway::protocol::{Disconnect, ErrorCode, Unsubscribe};
use flux_gateway::session::{ChannelOptions, DataFormat, DeltaType, Subscribed};

use crate::client::{Client, Seen, closed, config_with, error, keep_history, open_config, user};
use crate::recovery::{RECOVER, at, recovered, recovery, remembering};

const SUBSCRIBE: &str = r#"{"id":2,"subscribe":{"channel":"a"}}"#;

#[test]
fn a_subscription_token_is_the_authoritys_to_judge() {
    for channel in ["a", "$a"] {
        let mut client = Client::connected(config_with(|options| {
            options.allow_subscribe_for_client = false;
        }));
        let frame =
            format!(r#"{{"id":2,"subscribe":{{"channel":"{channel}","token":"t","data":[1]}}}}"#);
        assert_eq!(client.sends(&frame), "");
        assert_eq!(
            client.questions(),
            [QuestionKind::Subscribe {
                channel: channel.to_owned(),
                token: "t".to_owned(),
                data: b"[1]".to_vec(),
            }]
        );
        let grant = SubscribeGrant {
            data: b"{\"d\":1}".to_vec(),
            ..SubscribeGrant::default()
        };
        assert_eq!(client.answers(Answer::Subscribe(Ok(grant))), "");
        assert_eq!(
            client.effects(),
            [Seen::Subscribe(2, channel.to_owned(), false)]
        );
        assert_eq!(
            client.subscribed(channel, 2, Ok(())),
            r#"{"id":2,"subscribe":{"data":{"d":1}}}"#
        );
    }
}

#[test]
fn a_refused_token_is_an_error_or_the_end() {
    let refusals: [(Refusal, String, Vec<Seen>); 3] = [
        (
            ErrorCode::TokenExpired.into(),
            error(2, ErrorCode::TokenExpired),
            vec![],
        ),
        (
            ErrorCode::PermissionDenied.into(),
            error(2, ErrorCode::PermissionDenied),
            vec![],
        ),
        (
            Disconnect::INVALID_TOKEN.into(),
            String::new(),
            vec![closed(3500, "invalid token")],
        ),
    ];
    for (refusal, reply, effects) in refusals {
        let mut client = Client::connected(open_config());
        client.sends(r#"{"id":2,"subscribe":{"channel":"a","token":"t"}}"#);
        client.effects();
        assert_eq!(client.answers(Answer::Subscribe(Err(refusal))), reply);
        assert_eq!(client.effects(), effects);
        assert_eq!(client.session.subscription_count(), 0);
    }
}

#[test]
fn who_may_subscribe_is_decided_in_centrifugos_order() {
    type Set = fn(&mut ChannelOptions);
    let closed: Set = |options| *options = ChannelOptions::default();
    let limited: Set = |options| {
        *options = ChannelOptions::default();
        options.allow_user_limited_channels = true;
        options.subscribe_proxy_enabled = true;
    };
    let asks: Set = |options| {
        options.subscribe_proxy_enabled = true;
        options.allow_user_limited_channels = true;
    };
    enum Is {
        Refused(ErrorCode),
        Asked,
        Begun,
    }
    use ErrorCode::{BadRequest, PermissionDenied, UnknownChannel};
    let cases: [(Set, &str, Is); 10] = [
        (closed, "x:é", Is::Refused(UnknownChannel)),
        (closed, "é", Is::Refused(BadRequest)),
        (closed, "$a", Is::Refused(PermissionDenied)),
        (closed, "a", Is::Refused(PermissionDenied)),
        (limited, "a#42", Is::Begun),
        (limited, "a#1,42", Is::Begun),
        (limited, "a#43", Is::Refused(PermissionDenied)),
        (asks, "a", Is::Asked),
        (asks, "$a", Is::Refused(PermissionDenied)),
        (|_| {}, "a", Is::Begun),
    ];
    for (set, channel, is) in cases {
        let mut client = Client::granted(config_with(set), user("42"));
        let reply = client.sends(&format!(
            r#"{{"id":2,"subscribe":{{"channel":"{channel}"}}}}"#
        ));
        let effects = client.effects();
        match is {
            Is::Refused(code) => assert_eq!(reply, error(2, code), "{channel}"),
            Is::Asked => assert!(matches!(effects[..], [Seen::Ask(_)]), "{channel}"),
            Is::Begun => assert!(
                matches!(effects[..], [Seen::Subscribe(2, ..)]),
                "{channel}: {reply}"
            ),
        }
    }
}

#[test]
fn where_nothing_is_secure_everything_that_exists_is_allowed() {
    let mut config = config_with(|options| {
        *options = ChannelOptions::default();
        options.presence = true;
        keep_history(options);
    });
    config.insecure = true;
    let mut client = Client::connected(config);
    for frame in [
        r#"{"id":2,"subscribe":{"channel":"$a","token":"whatever"}}"#,
        r#"{"id":3,"publish":{"channel":"b","data":1}}"#,
        r#"{"id":4,"history":{"channel":"b"}}"#,
        r#"{"id":5,"presence":{"channel":"b"}}"#,
    ] {
        assert_eq!(client.sends(frame), "", "{frame}");
    }
    assert_eq!(
        client.sends(r#"{"id":6,"subscribe":{"channel":"x:a"}}"#),
        error(6, ErrorCode::UnknownChannel)
    );
}

#[test]
fn deltas_are_for_those_who_ask_where_they_are_allowed() {
    let ask = r#"{"id":2,"subscribe":{"channel":"a","delta":"fossil"}}"#;
    let mut client = remembering(|_| {});
    client.sends(ask);
    assert!(matches!(
        client.effects()[..],
        [_, Seen::With { delta: false, .. }]
    ));
    assert_eq!(
        client.subscribed("a", 2, Ok(())),
        r#"{"id":2,"subscribe":{}}"#
    );

    let mut client = remembering(|options| options.allowed_delta_types = vec![DeltaType::Fossil]);
    client.sends(&RECOVER.replace("\"channel\"", "\"delta\":\"fossil\",\"channel\""));
    assert!(matches!(
        client.effects()[..],
        [_, Seen::With { delta: true, .. }]
    ));
    // To a client of the JSON format all data of such a subscription is text.
    let recovery = recovery(4, true, 3, 1);
    let reply = client.subscribed_at("a", 2, recovered(&recovery));
    assert!(
        reply.contains(r#""publications":[{"data":"{\"n\":4}","offset":4}]"#),
        "{reply}"
    );
    assert!(reply.contains(r#""delta":true"#), "{reply}");
}

#[test]
fn presence_and_joins_come_and_go_with_the_subscription() {
    let mut client = Client::connected(config_with(|options| {
        options.presence = true;
        options.join_leave = true;
    }));
    client.sends(SUBSCRIBE);
    client.effects();
    client.subscribed("a", 2, Ok(()));
    assert_eq!(
        client.effects(),
        [Seen::Enter("a".to_owned()), Seen::Join("a".to_owned())]
    );
    client.sends(r#"{"id":3,"unsubscribe":{"channel":"a"}}"#);
    assert_eq!(
        client.effects(),
        [
            Seen::Unsubscribe("a".to_owned()),
            Seen::Exit("a".to_owned()),
            Seen::Leave("a".to_owned()),
        ]
    );
}

#[test]
fn a_grant_overrides_the_channels_options() {
    let subscribe = |grant: SubscribeGrant| {
        let mut client = remembering(|options| options.presence = true);
        client.sends(r#"{"id":2,"subscribe":{"channel":"a","token":"t"}}"#);
        client.answers(Answer::Subscribe(Ok(grant)));
        let mut effects = client.effects();
        let subscribed = Subscribed {
            position: Some(at(1)),
            recovery: None,
        };
        let reply = client.subscribed_at("a", 2, Ok(subscribed));
        effects.extend(client.effects());
        (reply, effects)
    };
    let (reply, effects) = subscribe(SubscribeGrant {
        presence: Some(false),
        join_leave: Some(true),
        force_push_join_leave: Some(true),
        force_recovery: Some(true),
        ..SubscribeGrant::default()
    });
    assert!(reply.contains("recoverable"), "{reply}");
    assert!(effects.contains(&Seen::Subscribe(2, "a".to_owned(), true)));
    assert!(effects.contains(&Seen::Join("a".to_owned())));
    assert!(!effects.contains(&Seen::Enter("a".to_owned())));
    let (reply, effects) = subscribe(SubscribeGrant {
        force_positioning: Some(true),
        ..SubscribeGrant::default()
    });
    assert!(reply.contains("positioned") && !reply.contains("recoverable"));
    assert!(effects.contains(&Seen::Enter("a".to_owned())));
}

#[test]
fn a_json_client_is_kept_from_what_it_could_not_be_given() {
    let mut client = remembering(|options| options.publication_data_format = DataFormat::Binary);
    assert_eq!(client.sends(SUBSCRIBE), error(2, ErrorCode::BadRequest));
    assert_eq!(
        client.sends(r#"{"id":3,"history":{"channel":"a"}}"#),
        error(3, ErrorCode::BadRequest)
    );
    assert_eq!(
        client.sends(r#"{"id":4,"publish":{"channel":"a","data":1}}"#),
        ""
    );
}

#[test]
fn a_channel_that_loses_publications_tells_its_subscribers() {
    let lose = |client: &mut Client| {
        client.step(|session, _, out, mut effect| session.lost("a", out, &mut effect))
    };
    // One that is live recovers.
    let mut client = remembering(|_| {});
    client.sends(SUBSCRIBE);
    client.subscribed("a", 2, Ok(()));
    client.effects();
    let Unsubscribe { code, reason } = Unsubscribe::INSUFFICIENT_STATE;
    assert_eq!(
        lose(&mut client),
        format!(
            r#"{{"push":{{"channel":"a","unsubscribe":{{"code":{code},"reason":"{reason}"}}}}}}"#
        )
    );
    assert_eq!(client.effects(), [Seen::Unsubscribe("a".to_owned())]);
    // One that is not yet tries again from where it was.
    client.sends(RECOVER);
    client.effects();
    assert_eq!(
        lose(&mut client),
        r#"{"id":2,"error":{"code":100,"message":"internal server error","temporary":true}}"#
    );
    assert_eq!(client.effects(), [Seen::Unsubscribe("a".to_owned())]);
    // One of the server's comes again as a whole.
    client.step(|session, now, _, mut effect| {
        let grant = SubscribeGrant::default();
        let begun = session.subscribe_by_server("a", grant, None, now, &mut effect);
        assert_eq!(begun, Ok(()));
    });
    client.effects();
    assert_eq!(lose(&mut client), "");
    assert_eq!(
        client.effects(),
        [
            Seen::Unsubscribe("a".to_owned()),
            closed(3010, "insufficient state")
        ]
    );
    assert_eq!(lose(&mut client), "");
}
