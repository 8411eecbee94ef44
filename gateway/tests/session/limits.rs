//! Every bound of a session has its answer.

use std::time::Duration;

use flux_gateway::limits::{Rate, SessionLimits};

use crate::client::{Client, Seen, open_config};

fn subscribe(id: u32, channel: &str) -> String {
    format!(r#"{{"id":{id},"subscribe":{{"channel":"{channel}"}}}}"#)
}

#[test]
fn a_client_has_128_subscriptions_pending_ones_included() {
    let mut client = Client::connected(open_config());
    for id in 2..130 {
        assert_eq!(client.sends(&subscribe(id, &format!("c{id}"))), "");
    }
    assert_eq!(client.session.subscription_count(), 128);
    assert_eq!(
        client.sends(&subscribe(130, "one-more")),
        r#"{"id":130,"error":{"code":106,"message":"limit exceeded"}}"#
    );
    // A second one to the same channel is that first of all.
    assert_eq!(
        client.sends(&subscribe(131, "c5")),
        r#"{"id":131,"error":{"code":105,"message":"already subscribed"}}"#
    );
    client.sends(r#"{"id":132,"unsubscribe":{"channel":"c5"}}"#);
    assert_eq!(client.sends(&subscribe(133, "one-more")), "");
}

#[test]
fn a_channel_name_has_255_bytes() {
    let mut client = Client::connected(open_config());
    assert_eq!(client.sends(&subscribe(2, &"c".repeat(255))), "");
    let long = "c".repeat(256);
    let bad_request =
        |id: u32| format!(r#"{{"id":{id},"error":{{"code":107,"message":"bad request"}}}}"#);
    assert_eq!(client.sends(&subscribe(3, &long)), bad_request(3));
    for (id, command) in [
        (4, format!(r#""publish":{{"channel":"{long}","data":1}}"#)),
        (5, format!(r#""history":{{"channel":"{long}"}}"#)),
        (6, format!(r#""presence":{{"channel":"{long}"}}"#)),
    ] {
        let frame = format!(r#"{{"id":{id},{command}}}"#);
        assert_eq!(client.sends(&frame), bad_request(id));
    }
}

#[test]
fn reading_pauses_before_publishes_are_refused() {
    let mut config = open_config();
    config.limits.pending_commands_max = 4;
    let mut client = Client::connected(config);
    let publish = |id: u32| format!(r#"{{"id":{id},"publish":{{"channel":"a","data":1}}}}"#);
    assert_eq!(client.sends(&publish(2)), "");
    assert!(!client.session.wants_pause());
    assert_eq!(client.sends(&publish(3)), "");
    assert!(client.session.wants_pause());
    assert_eq!(client.sends(&publish(4)), "");
    assert_eq!(client.sends(&publish(5)), "");
    assert_eq!(
        client.sends(&publish(6)),
        r#"{"id":6,"error":{"code":111,"message":"too many requests","temporary":true}}"#
    );
    for id in 2..5 {
        assert!(client.session.wants_pause());
        client.published(id, Ok(()));
    }
    assert!(!client.session.wants_pause());
    assert_eq!(client.sends(&publish(7)), "");
}

#[test]
fn published_data_nests_128_levels() {
    let publish = |depth: usize| {
        let mut client = Client::connected(open_config());
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        client.sends(&format!(
            r#"{{"id":2,"publish":{{"channel":"a","data":{open}{close}}}}}"#
        ));
        client.effects()
    };
    assert!(matches!(publish(128)[..], [Seen::Publish(..)]));
    for depth in [129, 30_000] {
        assert_eq!(
            publish(depth),
            [Seen::Close(3501, "bad request".to_owned())]
        );
    }
}

#[test]
fn limits_that_contradict_each_other_are_named() {
    assert_eq!(SessionLimits::DEFAULT.validate(), Ok(()));
    let mut limits = SessionLimits::DEFAULT;
    limits.pong_timeout = limits.ping_interval;
    let error = limits
        .validate()
        .expect_err("no time between pong and ping");
    assert!(error.contains("client.pong_timeout"), "{error}");
}

#[test]
fn a_session_is_small() {
    let size = size_of::<flux_gateway::session::Session>();
    assert!(size <= 96, "{size} bytes");
}

#[test]
fn commands_and_publishes_have_their_rates() {
    let refused = |id: u32| {
        format!(
            r#"{{"id":{id},"error":{{"code":111,"message":"too many requests","temporary":true}}}}"#
        )
    };
    let publish = |id: u32| format!(r#"{{"id":{id},"publish":{{"channel":"a","data":1}}}}"#);
    let mut config = open_config();
    config.limits.publishes_rate = Some(Rate {
        per_second: 10,
        burst: 2,
    });
    let mut client = Client::connected(config.clone());
    assert_eq!(client.sends(&publish(2)), "");
    assert_eq!(client.sends(&publish(3)), "");
    assert_eq!(client.sends(&publish(4)), refused(4));
    // Other commands are not publishes.
    assert_eq!(client.sends(&subscribe(5, "a")), "");
    client.now += Duration::from_millis(100);
    assert_eq!(client.sends(&publish(6)), "");
    assert_eq!(client.sends(&publish(7)), refused(7));

    config.limits.commands_rate = config.limits.publishes_rate.take();
    let mut client = Client::connected(config);
    assert_eq!(client.sends(&publish(2)), "");
    assert_eq!(client.sends(&subscribe(3, "a")), "");
    assert_eq!(client.sends(&subscribe(4, "b")), refused(4));
    // Pongs are not counted, and what has no reply is not lost in silence.
    client.now = client.session.deadline().expect("a ping is due");
    client.fires();
    client.effects();
    client.sends(&format!("{{}}\n{}\n{}", publish(5), publish(6)));
    assert_eq!(client.effects().len(), 2);
    client.sends(r#"{"send":{"data":1}}"#);
    assert!(matches!(
        client.effects()[..],
        [Seen::Unsubscribe(_), Seen::Close(3013, _)]
    ));
}
