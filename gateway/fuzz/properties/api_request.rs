//! Whatever a backend sends, what is published is JSON on one line or marked as not being JSON.

use flux_gateway::api::request::{Batch, Method, Request};
use flux_gateway::protocol::json::check_value;

/// The first byte chooses the method, the rest is the body.
pub(crate) fn check(bytes: &[u8]) {
    let Some((first, body)) = bytes.split_first() else {
        return;
    };
    let method = Method::ALL[usize::from(*first) % Method::ALL.len()];
    if let Ok(request) = Request::parse(method, body) {
        assert_eq!(request.method(), method);
        look(&request);
    }
}

fn look(request: &Request) {
    match request {
        Request::Publish(publish) | Request::Broadcast(publish) => {
            if let Ok(payload) = publish.payload() {
                assert_eq!(payload.is_json, check_value(&payload.bytes).is_ok());
            }
        }
        Request::Subscribe(subscribe) => {
            for value in [subscribe.info(), subscribe.data()].into_iter().flatten() {
                assert!(value.is_empty() || check_value(&value).is_ok());
            }
        }
        Request::Batch(Batch { commands, .. }) => commands.iter().flatten().for_each(look),
        _ => {}
    }
}
