//! What a client may ask about a channel, and what it publishes there.

use std::sync::Arc;

use flux_gateway::authority::{Answer, SubscribeGrant};
use flux_gateway::engine::PresenceStats;
use flux_gateway::engine::history::{HistoryPage, HistoryQuery, StoredPublication};
use flux_gateway::protocol::{ClientId, ClientInfo, ErrorCode, WireFormat, tags};
use flux_gateway::pubsub::{Epoch, KnownEpoch, MessageRef, OwnedClientInfo, StreamPosition};
use flux_gateway::session::{DataFormat, Door, Effect};
use flux_runtime::log::LogWriter;

use crate::client::{CLIENT, Client, Seen, config_with, keep_history, open_config, user};

fn remembering() -> Client {
    Client::connected(config_with(|options| {
        keep_history(options);
        options.presence = true;
    }))
}

fn position(offset: u64) -> StreamPosition {
    StreamPosition {
        epoch: Epoch::parse("abcdefgh").expect("eight letters"),
        offset,
    }
}

#[test]
fn a_page_of_history_is_bounded() {
    for (asked, limit, since, reverse) in [
        ("", 0, None, false),
        (r#","limit":10"#, 10, None, false),
        (r#","limit":-1"#, 300, None, false),
        (r#","limit":100000"#, 300, None, false),
        (
            r#","limit":3,"since":{"offset":7,"epoch":"abcdefgh"},"reverse":true"#,
            3,
            Some((7, KnownEpoch::Is(position(0).epoch))),
            true,
        ),
        (r#","since":{}"#, 0, Some((0, KnownEpoch::Any)), false),
    ] {
        let mut client = remembering();
        let frame = format!(r#"{{"id":2,"history":{{"channel":"a"{asked}}}}}"#);
        assert_eq!(client.sends(&frame), "");
        let query = HistoryQuery {
            limit,
            since,
            reverse,
        };
        assert_eq!(
            client.effects(),
            [Seen::History(2, "a".to_owned(), query)],
            "{asked}"
        );
    }
    // Nothing stands before the beginning.
    let reply = remembering().sends(
        r#"{"id":2,"history":{"channel":"a","limit":1,"since":{"offset":0,"epoch":""},"reverse":true}}"#,
    );
    assert!(reply.contains("\"code\":107"), "{reply}");
}

#[test]
fn a_page_of_history_carries_all_that_was_published() {
    let mut client = remembering();
    client.sends(r#"{"id":2,"history":{"channel":"a","limit":2}}"#);
    let mut arena = LogWriter::new();
    let packed = tags::pack([("k", "v")]).expect("few");
    let info = ClientInfo {
        user: "u",
        client: ClientId::from_random(1 << 31),
        conn_info: b"{\"c\":1}",
        chan_info: b"",
    };
    let messages = [
        MessageRef::data(b"1"),
        MessageRef::Publication {
            data: b"2",
            info: Some(info),
            tags: tags::Tags::from_packed(&packed).expect("as packed"),
            delta: true,
        },
    ];
    let publications = messages.iter().enumerate();
    let page = HistoryPage {
        publications: publications
            .map(|(at, message)| StoredPublication {
                offset: at as u64 + 4,
                message: message.store(&mut arena, "a"),
            })
            .collect::<Arc<[_]>>(),
        position: position(9),
    };
    let reply = client.step(|session, _, out, _| session.on_history(2, Ok(&page), out));
    assert_eq!(
        reply,
        format!(
            concat!(
                r#"{{"id":2,"history":{{"publications":[{{"data":1,"offset":4}},"#,
                r#"{{"data":2,"info":{{"user":"u","client":"{}","conn_info":{{"c":1}}}},"offset":5,"tags":{{"k":"v"}}}}],"#,
                r#""epoch":"abcdefgh","offset":9}}}}"#
            ),
            CLIENT
        )
    );
    client.sends(r#"{"id":3,"history":{"channel":"a"}}"#);
    let error = Err(ErrorCode::UnrecoverablePosition);
    let reply = client.step(|session, _, out, _| session.on_history(3, error, out));
    assert!(reply.contains("\"code\":112"), "{reply}");
}

#[test]
fn who_is_present_is_told_by_client() {
    let mut client = remembering();
    client.sends(concat!(
        r#"{"id":2,"presence":{"channel":"a"}}"#,
        "\n",
        r#"{"id":3,"presence_stats":{"channel":"a"}}"#
    ));
    assert_eq!(
        client.effects(),
        [
            Seen::Presence(2, "a".to_owned()),
            Seen::PresenceStats(3, "a".to_owned())
        ]
    );
    let members = [OwnedClientInfo {
        client: ClientId::from_random(1 << 31),
        user: "42".into(),
        conn_info: Box::default(),
        chan_info: Box::from(&b"7"[..]),
    }];
    let stats = PresenceStats {
        clients: 5,
        users: 3,
    };
    let replies = client.step(|session, _, out, _| {
        session.on_presence_stats(3, Ok(stats), out);
        session.on_presence(2, Ok(&members), out);
    });
    assert_eq!(
        replies,
        format!(
            concat!(
                r#"{{"id":3,"presence_stats":{{"num_clients":5,"num_users":3}}}}"#,
                "\n",
                r#"{{"id":2,"presence":{{"presence":{{"{0}":{{"user":"42","client":"{0}","chan_info":7}}}}}}}}"#
            ),
            CLIENT
        )
    );
}

#[test]
fn what_is_off_is_not_available_and_what_is_on_may_be_denied() {
    let commands = [
        r#"{"id":2,"history":{"channel":"a"}}"#,
        r#"{"id":2,"presence":{"channel":"a"}}"#,
        r#"{"id":2,"presence_stats":{"channel":"a"}}"#,
    ];
    for command in commands {
        let reply = Client::connected(open_config()).sends(command);
        assert!(reply.contains("\"code\":108"), "{reply}");
        let config = || {
            config_with(|options| {
                keep_history(options);
                options.presence = true;
                options.allow_history_for_client = false;
                options.allow_presence_for_client = false;
            })
        };
        let mut client = Client::connected(config());
        let reply = client.sends(command);
        assert!(reply.contains("\"code\":103"), "{reply}");
        // A subscriber may, from the command after its subscribe on.
        client.sends(r#"{"id":3,"subscribe":{"channel":"a"}}"#);
        assert_eq!(client.sends(command), "");
    }
}

#[test]
fn a_publication_says_who_published_it_and_how_it_is_kept() {
    let mut client = Client::granted(
        config_with(|options| {
            keep_history(options);
            options.delta_publish = true;
        }),
        flux_gateway::authority::ConnectGrant {
            info: b"{\"name\":\"A\"}".to_vec(),
            ..user("42")
        },
    );
    client.sends(r#"{"id":2,"subscribe":{"channel":"a","token":"t"}}"#);
    client.answers(Answer::Subscribe(Ok(SubscribeGrant {
        info: b"7".to_vec(),
        ..SubscribeGrant::default()
    })));
    client.subscribed("a", 2, Ok(()));
    let mut published = 0;
    client.session.on_message(
        br#"{"id":3,"publish":{"channel":"a","data":1}}"#,
        client.now,
        &mut Vec::new(),
        &mut |effect| {
            let Effect::Publish {
                message, options, ..
            } = effect
            else {
                panic!("{effect:?}");
            };
            let info = message.info().expect("a client's");
            assert_eq!((info.user, info.conn_info), ("42", &br#"{"name":"A"}"#[..]));
            assert_eq!(info.chan_info, b"7");
            assert!(message.wants_delta() && options.history.is_some());
            published += 1;
        },
    );
    assert_eq!(published, 1);
}

#[test]
fn data_that_the_channel_does_not_take_is_refused() {
    let mut client = Client::connected(config_with(|options| {
        options.publication_data_format = DataFormat::JsonObject;
    }));
    for (data, is_taken) in [("1", false), ("[{}]", false), (r#"{"a":1}"#, true)] {
        let reply = client.sends(&format!(
            r#"{{"id":2,"publish":{{"channel":"a","data":{data}}}}}"#
        ));
        assert_eq!(reply.is_empty(), is_taken, "{reply}");
        assert!(is_taken || reply.contains("\"code\":107"), "{reply}");
    }
}

/// `publish` of the Protobuf format to channel `a`.
fn protobuf_publish(data: &[u8]) -> Vec<u8> {
    let request = [&b"\x0a\x01a\x12"[..], &[data.len() as u8], data].concat();
    let command = [&b"\x08\x02\x3a"[..], &[request.len() as u8], &request].concat();
    [&[command.len() as u8], &command[..]].concat()
}

#[test]
fn a_protobuf_client_publishes_bytes_only_where_anything_may_be() {
    for (format, data, is_taken) in [
        (DataFormat::Json, &b"\xff\x00"[..], false),
        (DataFormat::Json, b"{\"a\":1}", true),
        (DataFormat::Binary, b"\xff\x00", true),
    ] {
        let config = config_with(|options| options.publication_data_format = format);
        let door = Door::websocket(WireFormat::Protobuf);
        let mut client = Client::at_door(&config.into(), door, ClientId::from_random(7));
        // `{id: 1, connect: {}}`
        client.step(|session, now, out, mut effect| {
            session.on_message(b"\x04\x08\x01\x22\x00", now, out, &mut effect);
            out.clear();
        });
        assert!(client.session.is_connected());
        client.effects();
        client.step(|session, now, out, mut effect| {
            session.on_message(&protobuf_publish(data), now, out, &mut effect);
            assert_eq!(out.is_empty(), is_taken, "{format:?} {data:?}: {out:?}");
            out.clear();
        });
        let effects = client.effects();
        assert_eq!(
            matches!(effects[..], [Seen::Publish(2, ..)]),
            is_taken,
            "{effects:?}"
        );
    }
}
