//! What the server's API does to a session, and what the backend is told of it.

use std::time::Duration;

use flux_gateway::authority::{NoticeKind, SubscribeGrant, Wanted};
use flux_gateway::protocol::{Disconnect, ErrorCode, Unsubscribe};
use flux_gateway::pubsub::{Epoch, KnownEpoch, StreamPosition};
use flux_gateway::session::Subscribed;

use crate::client::{Client, Seen, closed, config_with, keep_history, open_config, user};

fn subscribe(
    client: &mut Client,
    channel: &str,
    since: Option<(u64, KnownEpoch)>,
) -> Result<(), ErrorCode> {
    let mut result = Ok(());
    client.step(|session, now, _, mut effect| {
        let grant = SubscribeGrant {
            data: b"1".to_vec(),
            ..SubscribeGrant::default()
        };
        result = session.subscribe_by_server(channel, grant, since, now, &mut effect);
    });
    result
}

#[test]
fn the_server_subscribes_a_client_which_learns_it_by_a_push() {
    let mut client = Client::connected(config_with(|options| {
        keep_history(options);
        options.force_positioning = true;
        options.join_leave = true;
    }));
    assert_eq!(subscribe(&mut client, "a", None), Ok(()));
    assert!(matches!(
        &client.effects()[..],
        [Seen::Subscribe(0, channel, false), Seen::With { recover: None, .. }] if channel == "a"
    ));
    let position = Some(StreamPosition {
        epoch: Epoch::parse("abcdefgh").expect("eight letters"),
        offset: 7,
    });
    let subscribed = Subscribed {
        position,
        recovery: None,
    };
    assert_eq!(
        client.subscribed_at("a", 0, Ok(subscribed)),
        r#"{"push":{"channel":"a","subscribe":{"epoch":"abcdefgh","offset":7,"positioned":true,"data":1}}}"#
    );
    assert_eq!(client.effects(), [Seen::Join("a".to_owned())]);
    assert_eq!(
        subscribe(&mut client, "a", None),
        Err(ErrorCode::AlreadySubscribed)
    );
    assert_eq!(
        subscribe(&mut client, "x:a", None),
        Err(ErrorCode::UnknownChannel)
    );
}

#[test]
fn a_subscription_beyond_the_limit_closes_the_connection() {
    let mut config = open_config();
    config.limits.channels_max = 1;
    let mut client = Client::connected(config);
    assert_eq!(subscribe(&mut client, "a", None), Ok(()));
    client.effects();
    assert_eq!(
        subscribe(&mut client, "b", None),
        Err(ErrorCode::LimitExceeded)
    );
    assert_eq!(
        client.effects(),
        [
            Seen::Unsubscribe("a".to_owned()),
            closed(3505, "channel limit")
        ]
    );
}

#[test]
fn nothing_is_done_to_a_client_that_has_not_connected() {
    let mut client = Client::new(open_config());
    assert_eq!(
        subscribe(&mut client, "a", None),
        Err(ErrorCode::NotAvailable)
    );
    let out = client.step(|session, now, out, mut effect| {
        session.refresh_by_server(true, None, None, now, out, &mut effect);
        session.unsubscribe("a", Unsubscribe::SERVER, out, &mut effect);
        session.send(b"1", out);
    });
    assert_eq!(out, "");
    assert_eq!(client.effects(), []);
}

#[test]
fn the_server_renews_and_ends_credentials() {
    let refresh = |client: &mut Client, expired, expires_in| {
        client.step(|session, now, out, mut effect| {
            let info = Some(b"{}".to_vec());
            session.refresh_by_server(expired, expires_in, info, now, out, &mut effect);
        })
    };
    let mut client = Client::granted(open_config(), user("42"));
    let minute = Some(Duration::from_secs(60));
    assert_eq!(
        refresh(&mut client, false, minute),
        r#"{"push":{"refresh":{"expires":true,"ttl":60}}}"#
    );
    client.waits_alive(Duration::from_secs(84));
    assert_eq!(client.effects(), []);
    assert_eq!(
        refresh(&mut client, false, None),
        r#"{"push":{"refresh":{}}}"#
    );
    client.waits_alive(Duration::from_secs(3600));
    assert_eq!(client.effects(), []);
    assert_eq!(refresh(&mut client, true, None), "");
    assert_eq!(client.effects(), [closed(3005, "connection expired")]);
}

#[test]
fn the_server_sends_a_message() {
    let mut client = Client::connected(open_config());
    assert_eq!(
        client.step(|session, _, out, _| session.send(b"{\"a\":1}", out)),
        r#"{"push":{"message":{"data":{"a":1}}}}"#
    );
}

#[test]
fn the_backend_is_told_of_what_it_wants_to_know() {
    let mut config = open_config();
    config.notices = Wanted {
        connected: true,
        disconnected: true,
        subscribed: true,
        unsubscribed: true,
    };
    let mut client = Client::new(config);
    client.sends(r#"{"id":1,"connect":{}}"#);
    client.sends(r#"{"id":2,"subscribe":{"channel":"a"}}"#);
    client.subscribed("a", 2, Ok(()));
    client.sends(r#"{"id":3,"subscribe":{"channel":"b"}}"#);
    client.step(|session, _, out, mut effect| {
        session.unsubscribe("a", Unsubscribe::EXPIRED, out, &mut effect);
    });
    client.sends(r#"{"id":4,"subscribe":{"channel":"c"}}"#);
    client.subscribed("c", 4, Ok(()));
    client.step(|session, _, _, mut effect| {
        session.disconnect(Disconnect::SHUTDOWN, &mut effect);
    });
    let told: Vec<_> = client
        .effects()
        .into_iter()
        .filter_map(|effect| match effect {
            Seen::Notify(kind) => Some(kind),
            _ => None,
        })
        .collect();
    let subscribed = |channel: &str| NoticeKind::Subscribed {
        channel: channel.to_owned(),
    };
    let unsubscribed = |channel: &str, code| NoticeKind::Unsubscribed {
        channel: channel.to_owned(),
        code,
    };
    assert_eq!(
        told,
        [
            NoticeKind::Connected,
            subscribed("a"),
            unsubscribed("a", 2501),
            subscribed("c"),
            unsubscribed("c", 0),
            NoticeKind::Disconnected {
                code: 3001,
                reason: "shutdown".to_owned(),
            },
        ]
    );
    // One that never connected was never there.
    let mut config = open_config();
    config.notices.disconnected = true;
    let mut client = Client::new(config);
    client.sends("{");
    assert_eq!(client.effects(), [closed(3501, "bad request")]);
}
