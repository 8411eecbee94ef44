//! Where a subscriber is in a channel's history, and what it is given of what it missed.

use std::sync::Arc;

use flux_gateway::engine::history::{
    HistoryOptions, Recovery, RecoveryMode, RecoveryRequest, StoredPublication,
};
use flux_gateway::protocol::ErrorCode;
use flux_gateway::pubsub::{Epoch, KnownEpoch, MessageRef, StreamPosition};
use flux_gateway::session::{ChannelOptions, Subscribed};
use flux_runtime::log::LogWriter;

use crate::client::{Client, Seen, config_with, error, keep_history};

const SUBSCRIBE: &str = r#"{"id":2,"subscribe":{"channel":"a"}}"#;
pub(crate) const RECOVER: &str = r#"{"id":2,"subscribe":{"channel":"a","recover":true,"recoverable":true,"positioned":true,"epoch":"abcdefgh","offset":3}}"#;

pub(crate) fn at(offset: u64) -> StreamPosition {
    StreamPosition {
        epoch: Epoch::parse("abcdefgh").expect("eight letters"),
        offset,
    }
}

/// Publications `1` to `count` behind offset `after`, whose data is their offset.
pub(crate) fn recovery(position: u64, recovered: bool, after: u64, count: u64) -> Recovery {
    let mut arena = LogWriter::new();
    let publications: Vec<_> = (after + 1..=after + count)
        .map(|offset| StoredPublication {
            offset,
            message: MessageRef::data(format!("{{\"n\":{offset}}}").as_bytes())
                .store(&mut arena, "a"),
        })
        .collect();
    Recovery {
        position: at(position),
        recovered,
        publications: Arc::from(publications),
    }
}

pub(crate) fn recovered<'a>(recovery: &'a Recovery) -> Result<Subscribed<'a>, ErrorCode> {
    Ok(Subscribed {
        position: Some(recovery.position),
        recovery: Some(recovery),
    })
}

pub(crate) fn remembering(set: impl FnOnce(&mut ChannelOptions)) -> Client {
    Client::connected(config_with(|options| {
        keep_history(options);
        set(options);
    }))
}

pub(crate) fn history() -> Option<HistoryOptions> {
    let config = config_with(keep_history);
    config.channels.history(&config.channels.without_namespace)
}

#[test]
fn a_position_is_told_to_those_who_ask_and_may_and_where_it_is_forced() {
    type Set = fn(&mut ChannelOptions);
    let nothing: Set = |options| {
        options.allow_history_for_client = false;
        options.allow_history_for_subscriber = false;
    };
    let asked = r#"{"id":2,"subscribe":{"channel":"a","positioned":true,"recoverable":true}}"#;
    let none = r#"{"id":2,"subscribe":{}}"#;
    let positioned = r#"{"id":2,"subscribe":{"epoch":"abcdefgh","offset":5,"positioned":true}}"#;
    let both = r#"{"id":2,"subscribe":{"recoverable":true,"epoch":"abcdefgh","offset":5,"positioned":true}}"#;
    let cases: [(Set, &str, &str); 8] = [
        (nothing, asked, none),
        (|_| {}, SUBSCRIBE, none),
        (|_| {}, asked, both),
        (
            |options| {
                options.allow_history_for_client = false;
                options.allow_history_for_subscriber = false;
                options.allow_positioning = true;
            },
            asked,
            positioned,
        ),
        (
            |options| {
                options.allow_history_for_client = false;
                options.allow_history_for_subscriber = false;
                options.allow_recovery = true;
            },
            asked,
            both,
        ),
        (
            |options| options.force_positioning = true,
            SUBSCRIBE,
            positioned,
        ),
        (|options| options.force_recovery = true, SUBSCRIBE, both),
        // Without a history there is none.
        (|options| options.history_size = 0, asked, none),
    ];
    for (at_case, (set, frame, reply)) in cases.into_iter().enumerate() {
        let mut client = remembering(set);
        client.sends(frame);
        let subscribed = Subscribed {
            position: Some(at(5)),
            recovery: None,
        };
        let told = client.subscribed_at("a", 2, Ok(subscribed));
        assert_eq!(told, reply, "case {at_case}");
    }
}

#[test]
fn a_recovery_asks_the_engine_for_what_was_missed() {
    let mut client = remembering(|_| {});
    assert_eq!(client.sends(RECOVER), "");
    assert_eq!(
        client.effects(),
        [
            Seen::Subscribe(2, "a".to_owned(), false),
            Seen::With {
                delta: false,
                history: history(),
                recover: Some(RecoveryRequest {
                    mode: RecoveryMode::Stream,
                    offset: 3,
                    epoch: KnownEpoch::Is(at(0).epoch),
                    publications_max: 300,
                }),
            },
        ]
    );
    let recovery = recovery(5, true, 3, 2);
    assert_eq!(
        client.subscribed_at("a", 2, recovered(&recovery)),
        concat!(
            r#"{"id":2,"subscribe":{"recoverable":true,"epoch":"abcdefgh","#,
            r#""publications":[{"data":{"n":4},"offset":4},{"data":{"n":5},"offset":5}],"#,
            r#""recovered":true,"offset":3,"positioned":true,"was_recovering":true}}"#
        )
    );
}

#[test]
fn what_cannot_be_recovered_is_said_with_where_the_channel_is() {
    let lost = recovery(500, false, 0, 0);
    let mut client = remembering(|_| {});
    client.sends(RECOVER);
    assert_eq!(
        client.subscribed_at("a", 2, recovered(&lost)),
        r#"{"id":2,"subscribe":{"recoverable":true,"epoch":"abcdefgh","offset":500,"positioned":true,"was_recovering":true}}"#
    );
    assert_eq!(client.session.subscription_count(), 1);
    // A client that would rather not be subscribed then says so.
    let mut client = remembering(|options| {
        options.join_leave = true;
        options.presence = true;
    });
    client.sends(&RECOVER.replace("\"offset\":3", "\"offset\":3,\"flag\":3"));
    client.effects();
    assert_eq!(
        client.subscribed_at("a", 2, recovered(&lost)),
        error(2, ErrorCode::UnrecoverablePosition)
    );
    assert_eq!(client.effects(), [Seen::Unsubscribe("a".to_owned())]);
    assert_eq!(client.session.subscription_count(), 0);
}

#[test]
fn a_client_that_may_not_recover_is_not_recovering() {
    let mut client = remembering(|options| {
        options.allow_history_for_client = false;
        options.allow_history_for_subscriber = false;
    });
    client.sends(RECOVER);
    let effects = client.effects();
    assert!(matches!(effects[..], [_, Seen::With { recover: None, .. }]));
}

#[test]
fn a_cache_gives_the_newest_publication_asked_or_not() {
    let mut client = remembering(|options| {
        options.force_recovery = true;
        options.force_recovery_mode = RecoveryMode::Cache;
        options.auto_cache_recover = true;
    });
    client.sends(SUBSCRIBE);
    let effects = client.effects();
    assert!(
        matches!(
            effects[1],
            Seen::With {
                recover: Some(RecoveryRequest {
                    mode: RecoveryMode::Cache,
                    offset: 0,
                    epoch: KnownEpoch::Any,
                    ..
                }),
                ..
            }
        ),
        "{effects:?}"
    );
    let newest = recovery(5, true, 4, 1);
    assert_eq!(
        client.subscribed_at("a", 2, recovered(&newest)),
        concat!(
            r#"{"id":2,"subscribe":{"recoverable":true,"epoch":"abcdefgh","#,
            r#""publications":[{"data":{"n":5},"offset":5}],"offset":5,"positioned":true}}"#
        )
    );
}
