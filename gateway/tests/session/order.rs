//! What happens while the engine has not answered yet, and what a session leaves behind.

use flux_gateway::protocol::{Disconnect, ErrorCode, Unsubscribe};
use flux_gateway::session::{ChannelOptions, ChannelRules};

use crate::client::{Client, Seen, open_config, seen};

fn announcing() -> Client {
    let mut config = open_config();
    config.channels = ChannelRules::flat(ChannelOptions::open());
    Client::connected(config)
}

const SUBSCRIBE: &str = r#"{"id":2,"subscribe":{"channel":"a"}}"#;

#[test]
fn a_subscribe_that_waits_is_not_repeated() {
    let mut client = Client::connected(open_config());
    assert_eq!(client.sends(SUBSCRIBE), "");
    assert_eq!(
        client.sends(r#"{"id":3,"subscribe":{"channel":"a"}}"#),
        r#"{"id":3,"error":{"code":105,"message":"already subscribed"}}"#
    );
    assert_eq!(
        client.subscribed("a", 2, Ok(())),
        r#"{"id":2,"subscribe":{}}"#
    );
    assert_eq!(
        client.sends(r#"{"id":4,"subscribe":{"channel":"a"}}"#),
        r#"{"id":4,"error":{"code":105,"message":"already subscribed"}}"#
    );
    assert_eq!(client.effects().len(), 1);
}

#[test]
fn a_refused_subscribe_may_be_repeated() {
    let mut client = Client::connected(open_config());
    client.sends(SUBSCRIBE);
    assert_eq!(
        client.subscribed("a", 2, Err(ErrorCode::Internal)),
        r#"{"id":2,"error":{"code":100,"message":"internal server error","temporary":true}}"#
    );
    assert_eq!(client.session.subscription_count(), 0);
    client.effects();
    assert_eq!(client.sends(SUBSCRIBE), "");
    assert_eq!(
        client.effects(),
        [Seen::Subscribe(2, "a".to_owned(), false)]
    );
}

/// The JavaScript SDK sends this when an application subscribes, unsubscribes and subscribes again
/// in one go.
#[test]
fn an_unsubscribe_overtakes_the_engine() {
    let mut client = Client::connected(open_config());
    let subscribe = |id: u32| format!(r#"{{"subscribe":{{"channel":"flap","flag":1}},"id":{id}}}"#);
    assert_eq!(client.sends(&subscribe(12)), "");
    assert_eq!(
        client.sends(r#"{"unsubscribe":{"channel":"flap"},"id":13}"#),
        "{\"id\":12,\"subscribe\":{}}\n{\"id\":13,\"unsubscribe\":{}}"
    );
    assert_eq!(client.sends(&subscribe(14)), "");
    assert_eq!(
        client.effects(),
        [
            Seen::Subscribe(12, "flap".to_owned(), false),
            Seen::Unsubscribe("flap".to_owned()),
            Seen::Subscribe(14, "flap".to_owned(), false),
        ]
    );
    // The answer to the first subscribe comes late and is for nobody.
    assert_eq!(client.subscribed("flap", 12, Ok(())), "");
    assert_eq!(
        client.subscribed("flap", 14, Ok(())),
        r#"{"id":14,"subscribe":{}}"#
    );
}

#[test]
fn answers_after_the_end_change_nothing() {
    let mut client = Client::connected(open_config());
    client.sends(SUBSCRIBE);
    client.sends(r#"{"id":3,"publish":{"channel":"a","data":1}}"#);
    client.effects();
    client.sends("{}");
    assert_eq!(
        client.effects(),
        [
            Seen::Unsubscribe("a".to_owned()),
            Seen::Close(3501, "bad request".to_owned()),
        ]
    );
    assert_eq!(client.subscribed("a", 2, Ok(())), "");
    assert_eq!(client.published(3, Ok(())), "");
    assert_eq!(client.sends(r#"{"id":4,"rpc":{}}"#), "");
    assert_eq!(client.fires(), None);
    assert_eq!(client.effects(), []);
}

#[test]
fn a_client_comes_when_it_is_subscribed_and_leaves_after_it_is_not() {
    let mut client = announcing();
    client.sends(r#"{"id":2,"subscribe":{"channel":"a","join_leave":true}}"#);
    assert_eq!(client.effects(), [Seen::Subscribe(2, "a".to_owned(), true)]);
    client.subscribed("a", 2, Ok(()));
    assert_eq!(client.effects(), [Seen::Join("a".to_owned())]);
    client.sends(r#"{"id":3,"unsubscribe":{"channel":"a"}}"#);
    assert_eq!(
        client.effects(),
        [
            Seen::Unsubscribe("a".to_owned()),
            Seen::Leave("a".to_owned()),
        ]
    );
    // One that never came does not leave.
    client.sends(r#"{"id":4,"subscribe":{"channel":"a"}}"#);
    client.sends(r#"{"id":5,"unsubscribe":{"channel":"a"}}"#);
    assert_eq!(
        client.effects(),
        [
            Seen::Subscribe(4, "a".to_owned(), false),
            Seen::Unsubscribe("a".to_owned()),
        ]
    );
}

#[test]
fn the_server_may_end_a_subscription() {
    let mut client = announcing();
    client.sends(SUBSCRIBE);
    client.subscribed("a", 2, Ok(()));
    client.effects();
    let end = |client: &mut Client| {
        client.step(|session, _, out, mut effect| {
            session.unsubscribe("a", Unsubscribe::SERVER, out, &mut effect);
        })
    };
    assert_eq!(
        end(&mut client),
        r#"{"push":{"channel":"a","unsubscribe":{"code":2000,"reason":"server unsubscribe"}}}"#
    );
    assert_eq!(
        client.effects(),
        [
            Seen::Unsubscribe("a".to_owned()),
            Seen::Leave("a".to_owned()),
        ]
    );
    assert_eq!(end(&mut client), "");
    assert_eq!(client.effects(), []);
}

#[test]
fn a_session_takes_its_subscriptions_with_it() {
    for close in [true, false] {
        let mut client = announcing();
        client.sends(SUBSCRIBE);
        client.sends(r#"{"id":3,"subscribe":{"channel":"b"}}"#);
        client.subscribed("a", 2, Ok(()));
        client.effects();
        let mut effects: Vec<Seen> = Vec::new();
        let mut effect = |effect: flux_gateway::session::Effect<'_>| seen(effect, &mut effects);
        if close {
            client.session.disconnect(Disconnect::SHUTDOWN, &mut effect);
            client.session.disconnect(Disconnect::SLOW, &mut effect);
        } else {
            client.session.on_gone(&mut effect);
        }
        client.session.on_gone(&mut effect);
        let mut expected = vec![
            Seen::Unsubscribe("a".to_owned()),
            Seen::Leave("a".to_owned()),
            Seen::Unsubscribe("b".to_owned()),
        ];
        if close {
            expected.push(Seen::Close(3001, "shutdown".to_owned()));
        }
        assert_eq!(effects, expected);
        assert!(client.session.is_closed());
    }
}
