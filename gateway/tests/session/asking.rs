//! Commands behind a question wait in their order; pongs and the clock do not.

use std::time::Duration;

use flux_gateway::authority::{
    Answer, OwnedError, PublishGrant, QuestionKind, RefreshGrant, Refusal, RpcGrant,
};
use flux_gateway::protocol::{Disconnect, ErrorCode};
use flux_gateway::session::{ChannelOptions, RpcRules, SessionConfig};

use crate::client::{Client, Seen, closed, config_with, keep_history, open_config};

fn with_backend() -> SessionConfig {
    let mut config = config_with(|options: &mut ChannelOptions| {
        options.publish_proxy_enabled = true;
        keep_history(options);
    });
    config.rpc = RpcRules {
        without_namespace: true,
        namespaces: vec![("off".to_owned(), false)],
    };
    config
}

fn rpc(id: u32) -> String {
    format!(r#"{{"id":{id},"rpc":{{"method":"m","data":{id}}}}}"#)
}

fn rpc_answer(data: &str) -> Answer {
    Answer::Rpc(Ok(RpcGrant {
        data: data.as_bytes().to_vec(),
    }))
}

#[test]
fn a_call_goes_to_the_backend_and_its_answer_to_the_client() {
    let mut client = Client::connected(with_backend());
    assert_eq!(client.sends(&rpc(2)), "");
    assert_eq!(
        client.questions(),
        [QuestionKind::Rpc {
            method: "m".to_owned(),
            data: b"2".to_vec(),
        }]
    );
    assert_eq!(
        client.answers(rpc_answer("{\"ok\":true}")),
        r#"{"id":2,"rpc":{"data":{"ok":true}}}"#
    );
    // The backend's own error.
    client.sends(&rpc(3));
    let error = Refusal::Error(OwnedError {
        code: 1400,
        message: "no \"such\"".to_owned(),
        temporary: true,
    });
    assert_eq!(
        client.answers(Answer::Rpc(Err(error))),
        r#"{"id":3,"error":{"code":1400,"message":"no \"such\"","temporary":true}}"#
    );
    // What the client's format cannot carry.
    client.sends(&rpc(4));
    assert!(
        client
            .answers(rpc_answer("not JSON"))
            .contains("\"code\":100")
    );
    // No such method, and one that is switched off.
    for (method, code) in [("x:m", 104), ("off:m", 108)] {
        let reply = client.sends(&format!(r#"{{"id":5,"rpc":{{"method":"{method}"}}}}"#));
        assert!(reply.contains(&format!("\"code\":{code}")), "{reply}");
    }
}

#[test]
fn commands_are_answered_in_their_order_one_question_at_a_time() {
    let mut client = Client::connected(with_backend());
    let frame = [
        rpc(2),
        r#"{"id":3,"subscribe":{"channel":"a"}}"#.to_owned(),
        rpc(4),
        r#"{"id":5,"presence":{"channel":"a"}}"#.to_owned(),
    ]
    .join("\n");
    assert_eq!(client.sends(&frame), "");
    assert_eq!(client.sends(&rpc(6)), "");
    assert_eq!(client.questions().len(), 1);
    assert_eq!(
        client.answers(rpc_answer("1")),
        r#"{"id":2,"rpc":{"data":1}}"#
    );
    assert!(matches!(
        client.effects()[..],
        [Seen::Subscribe(3, ..), Seen::With { .. }, Seen::Ask(_)]
    ));
    let replies = client.answers(rpc_answer("2"));
    let ids: Vec<_> = replies.lines().map(|line| &line[..7]).collect();
    assert_eq!(ids, [r#"{"id":4"#, r#"{"id":5"#]);
    assert_eq!(client.questions().len(), 1);
    assert_eq!(
        client.answers(rpc_answer("3")),
        r#"{"id":6,"rpc":{"data":3}}"#
    );
    assert_eq!(client.effects(), []);
}

#[test]
fn a_slow_backend_does_not_make_a_client_look_gone() {
    let mut client = Client::connected(with_backend());
    client.sends(&rpc(2));
    client.sends(&rpc(3));
    client.effects();
    assert!(client.waits_alive(Duration::from_secs(200)).is_empty());
    assert_eq!(client.effects(), []);
    // And one that is gone is found out all the same.
    client.waits(Duration::from_secs(60));
    assert_eq!(client.effects(), [closed(3012, "no pong")]);
}

#[test]
fn a_pong_that_nobody_asked_for_is_one_also_while_others_wait() {
    let mut client = Client::connected(with_backend());
    client.sends(&rpc(2));
    client.effects();
    client.sends("{}");
    assert_eq!(client.effects(), [closed(3501, "bad request")]);
}

#[test]
fn commands_that_wait_are_bounded_and_reading_pauses_before() {
    let mut config = with_backend();
    config.limits.stashed_bytes_max = 1_600;
    let mut client = Client::connected(config);
    client.sends(&rpc(2));
    assert!(!client.session.wants_pause());
    for id in 3..10 {
        client.sends(&rpc(id));
    }
    assert!(client.session.wants_pause());
    client.effects();
    // The client's pong may lie in what is not read.
    client.waits(Duration::from_secs(120));
    assert_eq!(client.effects(), []);
    for id in 10..80 {
        client.sends(&rpc(id));
    }
    assert_eq!(client.effects(), [closed(3013, "too many requests")]);
}

#[test]
fn the_backend_may_change_what_is_published() {
    let publish = r#"{"id":2,"publish":{"channel":"a","data":{"x":1}}}"#;
    let mut client = Client::connected(with_backend());
    client.sends(publish);
    assert_eq!(
        client.questions(),
        [QuestionKind::Publish {
            channel: "a".to_owned(),
            data: br#"{"x":1}"#.to_vec(),
        }]
    );
    client.answers(Answer::Publish(Ok(PublishGrant::default())));
    assert!(matches!(
        &client.effects()[..],
        [Seen::Publish(2, _, data), Seen::Kept { .. }] if data == r#"{"x":1}"#
    ));
    client.sends(publish);
    client.effects();
    client.answers(Answer::Publish(Ok(PublishGrant {
        data: Some(b"{\"y\":\n2}".to_vec()),
        skip_history: true,
    })));
    assert_eq!(
        client.effects(),
        [Seen::Publish(2, "a".to_owned(), "{\"y\": 2}".to_owned())]
    );
    // Or refuse it.
    client.sends(publish);
    assert_eq!(
        client.answers(Answer::Publish(Err(ErrorCode::PermissionDenied.into()))),
        r#"{"id":2,"error":{"code":103,"message":"permission denied"}}"#
    );
    client.sends(publish);
    client.effects();
    client.answers(Answer::Publish(Err(Disconnect::FORCE_DISCONNECT.into())));
    assert_eq!(client.effects(), [closed(3503, "force disconnect")]);
}

#[test]
fn an_answer_that_nobody_waits_for_changes_nothing() {
    let mut client = Client::connected(with_backend());
    assert_eq!(client.answers(rpc_answer("1")), "");
    client.sends(&rpc(2));
    client.effects();
    // The answer to something else.
    let other = Answer::Refresh(Ok(RefreshGrant::default()));
    assert_eq!(client.answers(other), "");
    assert_eq!(
        client.answers(rpc_answer("1")),
        r#"{"id":2,"rpc":{"data":1}}"#
    );
    client.sends(&rpc(3));
    client.sends("{");
    client.effects();
    assert_eq!(client.answers(rpc_answer("1")), "");
    assert_eq!(client.effects(), []);
}

#[test]
fn a_broken_message_ends_the_session_also_while_others_wait() {
    for broken in ["", "{", "{}\n{"] {
        let mut client = Client::connected(with_backend());
        client.sends(&rpc(2));
        client.effects();
        client.sends(broken);
        assert_eq!(client.effects(), [closed(3501, "bad request")], "{broken}");
    }
}

#[test]
fn what_waited_is_forgotten_when_it_is_done() {
    let mut client = Client::connected(open_config());
    client.sends(r#"{"id":2,"subscribe":{"channel":"a","token":"t"}}"#);
    client.answers(Answer::Subscribe(Ok(Default::default())));
    client.subscribed("a", 2, Ok(()));
    // Nothing is left over that would cost an idle client memory or wake-ups: its next moment is
    // the ping.
    let before = client.session.deadline();
    client.sends(r#"{"id":3,"unsubscribe":{"channel":"a"}}"#);
    assert_eq!(client.session.deadline(), before);
}
