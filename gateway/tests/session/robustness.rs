//! No input makes a session panic, and none gets more than its answer or its close.

use proptest::prelude::*;

use crate::client::{Client, Seen, open_config};

/// A frame that is nearly right.
fn nearly_valid() -> impl Strategy<Value = String> {
    let id = prop_oneof![
        Just(String::new()),
        Just("\"id\":0,".to_owned()),
        (1_u64..5).prop_map(|id| format!("\"id\":{id},")),
        any::<i64>().prop_map(|id| format!("\"id\":{id},")),
    ];
    let method = prop_oneof![
        Just("connect"),
        Just("subscribe"),
        Just("unsubscribe"),
        Just("publish"),
        Just("presence"),
        Just("presence_stats"),
        Just("history"),
        Just("ping"),
        Just("send"),
        Just("rpc"),
        Just("refresh"),
        Just("sub_refresh"),
        Just("else"),
    ];
    let body = prop_oneof![
        Just("{}".to_owned()),
        Just("null".to_owned()),
        Just("[]".to_owned()),
        "[a-c]".prop_map(|channel| format!(r#"{{"channel":"{channel}"}}"#)),
        ("[a-c]", ".{0,8}").prop_map(|(channel, data)| {
            let data = serde_json::to_string(&data).expect("text is JSON");
            format!(r#"{{"channel":"{channel}","data":{data}}}"#)
        }),
        "[a-c$#:é]{0,4}".prop_map(|channel| {
            format!(r#"{{"channel":"{channel}","token":"","type":0,"data":[1]}}"#)
        }),
    ];
    (id, method, body).prop_map(|(id, method, body)| format!(r#"{{{id}"{method}":{body}}}"#))
}

fn frame() -> impl Strategy<Value = Vec<u8>> {
    let lines = proptest::collection::vec(nearly_valid(), 1..5);
    let whole = lines.prop_map(|lines| lines.join("\n").into_bytes());
    let broken = (
        proptest::collection::vec(nearly_valid(), 1..4),
        any::<prop::sample::Index>(),
        any::<u8>(),
    )
        .prop_map(|(lines, at, byte)| {
            let mut frame = lines.join("\n").into_bytes();
            let at = at.index(frame.len());
            frame[at] = byte;
            frame
        });
    let cut = (nearly_valid(), any::<prop::sample::Index>())
        .prop_map(|(line, at)| line.as_bytes()[..at.index(line.len())].to_vec());
    let noise = proptest::collection::vec(any::<u8>(), 0..64);
    prop_oneof![4 => whole, 2 => broken, 1 => cut, 1 => noise]
}

proptest! {
    #[test]
    fn any_frames_are_answered_or_end_the_session(
        connects: bool,
        frames in proptest::collection::vec(frame(), 1..20),
    ) {
        let mut client = if connects {
            Client::connected(open_config())
        } else {
            Client::new(open_config())
        };
        for frame in frames {
            let was_closed = client.session.is_closed();
            let lines = frame.iter().filter(|byte| **byte == b'\n').count() + 1;
            let replies = client.sends_bytes(&frame);
            let effects = client.effects();
            if was_closed {
                prop_assert_eq!(&replies, "");
                prop_assert_eq!(&effects, &[]);
            }
            for reply in replies.lines() {
                let value: serde_json::Value = serde_json::from_str(reply).expect("valid JSON");
                prop_assert!(value["id"].as_u64().is_some_and(|id| id > 0), "{}", reply);
            }
            // A subscribe that an unsubscribe overtakes is answered with it.
            prop_assert!(replies.lines().count() <= 2 * lines);
            let closes = effects.iter().filter(|effect| matches!(effect, Seen::Close(..))).count();
            prop_assert_eq!(closes == 1, !was_closed && client.session.is_closed());
            prop_assert!(closes == 0 || matches!(effects.last(), Some(Seen::Close(..))));
        }
    }
}
